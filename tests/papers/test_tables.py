"""Every table under experiments/ loads, its computed numbers agree with the paper, and what its
small scale trains takes a real step."""

import functools
import gzip
import json
import math

import jax
import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL
from jax.sharding import Mesh
from rich.console import Console

from vit_jax import experiment
from vit_jax.learner import Info
from vit_jax.papers import loading, pricing, verdicts
from vit_jax.papers.measuring import values_of
from vit_jax.papers.trials import distinct, trials_of
from vit_jax.train import sharding

FILES = [path for path in sorted((ROOT / "experiments").rglob("*.py")) if loading.is_table(path)]
SILENT = Console(quiet=True)
SMALL = "small"
IDS = dict(ids=lambda path: f"{path.parent.name}/{path.stem}")


@functools.cache
def load(path):
    return loading.load_table(path)


def measures_of(path):
    scale = load(path).table.scales.get(SMALL)
    return [column.measure for column in scale.columns if column.measure] if scale else []


def test_the_tables_are_found():
    assert {path.stem for path in FILES} >= {"table1", "table6", "table8"}
    names = [(path.parent.name, load(path).table.name) for path in FILES]
    assert len(set(names)) == len(names)  # of their results' files


@pytest.mark.parametrize("path", FILES, **IDS)
def test_table_is_sound(path):
    """Configs load with their overrides, trials have names of their own, devices are known."""
    file = load(path)
    assert file.root == ROOT
    for name, scale in file.table.scales.items():
        trials_of(file, file.scale(name))
        pricing.Fleet.of(scale)
        for row in scale.rows:
            experiment.plain(file.config(row))


@pytest.mark.parametrize("path", FILES, **IDS)
def test_what_is_computed_agrees_with_the_paper(path):
    file = load(path)
    for scale in file.table.scales.values():
        values = values_of(file, scale, {}, {})
        for column in (column for column in scale.columns if column.analytic):
            for row in (row for row in scale.rows if row.is_shown):
                cell, key = list(values[row.name, column.name].values()), (row.name, column.name)
                expected = scale.expected.get(key)
                found = verdicts.judge_value(cell, expected, exact=True)
                assert cell or expected is None, f"{key} is not computed"
                assert found in (verdicts.Verdict.AGREES, ""), f"{key}: {cell}, paper: {expected}"


# One step of what the small scale trains


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """IDX files of Fashion-MNIST's shape: a step needs no more, and not all have the real ones."""
    folder = tmp_path_factory.mktemp("clothes")
    for prefix, count in (("train", 64), ("t10k", 16)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as file:
                file.write(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())
    return folder


def shrunk(config, folder):
    """Smaller in every way, and otherwise as it stands; rates, lengths and splits are all one."""
    config = json.loads(json.dumps(config))
    if config["data"]["source"].startswith("idx:"):
        config["data"]["source"] = f"idx:{folder}"
    config["data"] |= {"batch_size": 8, "train": "train[:32]"}
    config["evals"] = {"test": {"split": "test[:8]"}}
    config["train"] = {"num_steps": 1, "accum_steps": config["train"].get("accum_steps", 1)}
    config["optimizer"] |= {"learning_rate": 1e-3, "warmup_steps": 0, "weight_decay": 0.1}
    config["task"]["model"] = shrunk_model(config["task"]["model"])
    return config


def shrunk_model(model):
    """Sizes alone become smaller; a model without settings has those that it begins from."""
    sizes = {**TINY_MODEL, "depth": 1, "token_mlp_dim": 8, "channel_mlp_dim": 16}
    kept = {key: sizes.get(key, value) for key, value in model.items()}
    if kept.get("representation_dim"):
        kept["representation_dim"] = 8
    if "stages" in kept:
        kept["stages"] = [1] * len(kept["stages"])
    return kept


def one_step(config):
    """Metrics of a step on a batch of the data, without what a whole run does around it."""
    data = experiment.build_data(config["data"], seed=0)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)
    learner = experiment.build_learner(config, mesh, Info.of(data), 1)
    _, metrics = learner.step_fn()(learner.init_state(), next(iter(data.train.iterate(0))))
    return {name: float(mean.compute()) for name, mean in metrics.items()}


DONE = {}  # shrunk config -> workdir or None: many rows and tables share one


@pytest.mark.parametrize("path", [p for p in FILES if SMALL in load(p).table.scales], **IDS)
def test_small_scale_takes_a_step(path, clothes, tmp_path_factory):
    file = load(path)
    trials = trials_of(file, file.scale(SMALL))
    needed = {name for trial in trials.values() for name in trial.needs}
    workdirs = {}
    for trial in distinct(trials):
        config = shrunk(trial.config, clothes)
        for name in trial.needs:
            config["init"]["source"] = str(workdirs[name])
        text = json.dumps(config, sort_keys=True)
        is_whole = bool(trial.needs) or trial.name in needed
        if text not in DONE or (is_whole and DONE[text] is None):
            DONE[text] = tmp_path_factory.mktemp("run") if is_whole else None
            found = (
                experiment.run(config, DONE[text], console=SILENT) if is_whole else one_step(config)
            )
            assert all(map(math.isfinite, found.values())), (trial.name, found)
        workdirs[trial.name] = DONE[text]


@pytest.mark.parametrize("path", [p for p in FILES if measures_of(p)], **IDS)
def test_measures_take_a_finished_run(path, clothes, tmp_path):
    file = load(path)
    trial = next(iter(trials_of(file, file.scale(SMALL)).values()))
    experiment.run(shrunk(trial.config, clothes), tmp_path / "run", console=SILENT)
    for measure in measures_of(path):
        assert isinstance(float(measure(tmp_path / "run")), float)
