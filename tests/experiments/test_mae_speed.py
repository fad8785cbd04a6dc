"""The experiment's own rules: what is timed, and how times become ratios and a table."""

import argparse
import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.losses.masked_reconstruction import unpatchify

HERE = Path(__file__).parents[2] / "experiments" / "mae_speed"


@pytest.fixture
def experiment(monkeypatch):
    """Its modules by name; scripts find each other by their folder, so they leave no trace here."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(HERE), str(HERE.parent), *sys.path])
    yield lambda name: importlib.import_module(name)
    for name in set(sys.modules) - before:
        if str(HERE.parent) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def tiny(steps):
    """Sixteen patches, of which MAE's encoder sees four; one class token besides."""
    model = dict(width=16, depth=1, mlp_dim=32, num_heads=2, patch_size=56)
    decoder = dict(width=8, depth=1, num_heads=2)
    return steps.Setting(model=model, batch=8, dtype="float32", decoder=decoder)


def test_the_full_step_hides_the_masked_patches_and_shows_their_places(experiment):
    """What it predicts does not depend on what was masked, but on the rest."""
    steps = experiment("steps")
    task = steps.learners(tiny(steps), 0)["full"].task
    batch = jax.tree.map(jnp.asarray, steps.random_batch(2, 0))
    variables = task.init(jax.random.key(0), batch)
    masking = task.masking(jax.random.split(jax.random.key(1), 2))
    image = task.normalise(batch["image"])
    is_masked = np.asarray(masking.masked)[..., None]
    patches = np.asarray(task.patches(image))

    def predicted(patches):
        changed = unpatchify(jnp.asarray(patches), task.model.patch_size, image.shape[1:3])
        return np.asarray(task.network.apply(variables, changed, masking))

    first = predicted(patches)
    np.testing.assert_array_equal(predicted(np.where(is_masked, 7, patches)), first)
    assert np.any(predicted(np.where(is_masked, patches, 7)) != first)


def test_all_steps_are_measured_and_told(experiment, tmp_path):
    run, steps = experiment("run"), experiment("steps")
    arguments = argparse.Namespace(batch=None, rounds=2, steps=1, seed=0, note="")
    found = run.measure("tiny", tiny(steps), arguments)
    rows = {row["step"]: row for row in found["rows"]}
    assert list(rows) == ["mae", "full", "labels"]
    assert rows["mae"]["flops"] < rows["full"]["flops"] and rows["full"]["ratio"] == [1, 1, 1]
    assert all(np.isfinite(row["loss"]) and min(row["seconds"]) > 0 for row in rows.values())
    text = run.report({"tiny": found})
    assert text.count("\n|") == 2 + 3 and "MFU" not in text  # no peak is known of a CPU


def test_ratios_are_of_the_same_round(experiment):
    """The machine slows down tenfold; the step stays twice as fast as the reference."""
    rounds = {"full": [1.0, 10.0, 1.5], "mae": [0.5, 5.0, 0.75]}
    full, mae = experiment("run").summary(rounds, {"full": 6, "mae": 2})
    assert mae["ratio"] == [2, 2, 2] and mae["fewer_flops"] == 3
    assert mae["seconds"] == [0.625, 0.75, 2.875] and full["ratio"] == [1, 1, 1]
    assert experiment("run").quartiles([3.0]) == [3.0] * 3


def test_utilisation_is_told_where_the_peak_is_known(experiment):
    row = dict(step="mae", seconds=[1, 2, 4], ratio=[1, 2, 3], flops=10**12, fewer_flops=3.0)
    result = dict(peak=1e13, batch=8, rows=[row | dict(bytes=None, loss=1.0)])
    titles, _, line = experiment("run").table(result)
    cells = dict(zip(titles.split(" | "), line.split(" | "), strict=True))
    assert cells["MFU"] == "40%" and cells["images/s"] == "4.0 (2.0 to 8.0)"
