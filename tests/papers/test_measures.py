"""Measures and pictures of one tiny finished run, against the same without what they share."""

import json
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_config
from PIL import Image

from vit_jax import experiment, restoring
from vit_jax.analysis import attention, embeddings, heads
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.evaluation.few_shot import few_shot_accuracy
from vit_jax.papers import looking, measures, pictures
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.sweeps.trials import make_trial

TEST = 360  # images of the digits' test split


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished run, a copy of it under another seed, and one that has not begun."""
    folder = SweepFolder.at(tmp_path_factory.mktemp("sweep"))
    config = tiny_config(
        train__num_steps=2, train__ema_decay=None, task__model__pool="cls", evals__validation={}
    )
    del config["evals"]["validation"]
    for name, seed in (("ViT,seed=0", 0), ("ViT,seed=1", 1), ("waiting,seed=0", 0)):
        folder.add(make_trial(config, {"name": name, "train.seed": seed}))
    first, second = (folder.trial(f"ViT,seed={seed}").workdir for seed in (0, 1))
    experiment.run(json.loads((first.path / "trial.json").read_text())["config"], first.path)
    kept = (second.path / "trial.json").read_text()
    shutil.copytree(first.path, second.path, dirs_exist_ok=True)
    (second.path / "trial.json").write_text(kept)
    return folder


@pytest.fixture(scope="module")
def workdir(sweep):
    return sweep.trial("ViT,seed=0").workdir.path


def test_features_are_those_of_the_plain_model_in_the_order_of_the_split(workdir):
    run = looking.run_at(workdir)
    assert run.learner.mesh.size == 8
    # 360 is no multiple of the batch size, nor that of eight devices.
    found = restoring.represent(run, split="test", batch_size=100)
    source = run.origin.open("test")
    images = np.stack([run.learner.info.preprocessing(source[i]["image"]) for i in range(TEST)])
    normalised = run.learner.task.normalise(jnp.asarray(images))
    expected = run.vit.apply(run.variables, normalised).representation
    np.testing.assert_array_equal(found.label, [source[i]["label"] for i in range(TEST)])
    np.testing.assert_allclose(found.representation, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(run.images("test", 7), images[:7])
    assert len(run.images("test", 1000)) == TEST


def test_few_shot_is_the_mean_over_choices_of_images(workdir, monkeypatch):
    measure = measures.few_shot(shots=3, num_seeds=2, batch_size=240)
    run = looking.run_at(workdir)
    pool, scored = (
        looking.features_of(workdir, origin=run.origin, split=split, batch_size=240)
        for split in ("train[:90%]", "test")
    )
    monkeypatch.setattr(restoring, "represent", None)  # what is known is not computed again
    expected = [few_shot_accuracy(*pool, *scored, shots=3, seed=seed) for seed in (0, 1)]
    assert measure(workdir) == pytest.approx(np.mean(expected), abs=1e-12)
    assert len(scored.label) == TEST and 0.1 < measure(workdir) <= 1


def test_distances_are_averaged_over_images_however_many_are_in_memory(workdir, monkeypatch):
    run = looking.run_at(workdir)
    images = run.images("test", 10)
    maps = attention.attention_maps(run.vit, run.variables, run.normalise(images))
    expected = attention.attention_distance(maps, (4, 4), (2, 2), num_prefix=1)
    monkeypatch.setattr(heads, "MAPS_IN_MEMORY", 3 * 4 * 2 * 17**2)  # three images
    found = looking.distance_of(workdir, split="test", count=10)
    assert found.shape == (2, 2)  # layers, heads
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    first = measures.mean_attention_distance(layer=0, images=10)(workdir)
    assert first == pytest.approx(found[0].mean())
    last = measures.mean_attention_distance(layer=-1, images=10)(workdir)
    assert last == pytest.approx(found[1].mean())
    trend = measures.attention_distance_trend(images=10)(workdir)
    assert trend == pytest.approx(np.sign(found[1].mean() - found[0].mean()))
    with pytest.raises(InputError, match="layer is 2; allowed: -2 to 1"):
        measures.mean_attention_distance(layer=2, images=10)(workdir)


def test_contrasts_are_of_the_runs_positions(workdir):
    run = looking.run_at(workdir)
    positions = np.asarray(run.variables["params"]["position_embedding"])[0, 1:]
    similarity = embeddings.position_similarity(positions, (4, 4))
    assert measures.position_axis_contrast(workdir) == embeddings.axis_contrast(similarity)
    found = measures.position_neighbour_contrast(workdir)
    assert found == embeddings.neighbour_contrast(similarity)


def test_names_tell_settings_apart_and_the_same_settings_are_the_same_measure():
    made = [
        measures.few_shot(),
        measures.few_shot(shots=1),
        measures.few_shot(num_seeds=1),
        measures.few_shot(l2=1.0),
        measures.few_shot(source="idx:/data/fashion"),
        measures.few_shot(train="train[:65000]"),
        measures.mean_attention_distance(layer=0),
        measures.mean_attention_distance(layer=-1),
        measures.mean_attention_distance(layer=1),
        measures.mean_attention_distance(layer=1, images=7),
        measures.attention_distance_trend(),
        measures.position_axis_contrast,
    ]
    names = [measure.__name__ for measure in made]
    assert len(set(names)) == len(names) and all(name.isidentifier() for name in names)
    assert names[0] == "few_shot_5"
    assert measures.few_shot(shots=1) is made[1]


def test_runs_that_have_not_finished_are_refused(sweep, workdir, tmp_path):
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("result.json"))
    with pytest.raises(InputError, match="has not finished; allowed"):
        measures.few_shot()(tmp_path / "run")


def test_another_run_in_the_same_place_is_looked_at_anew(tmp_path):
    calls = []
    look = looking.once_a_run(lambda workdir, **settings: calls.append(settings) or len(calls))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "result.json").write_text("{}")
    assert [look(tmp_path, a=1), look(tmp_path, a=1), look(tmp_path, a=2)] == [1, 1, 2]
    later = (tmp_path / "result.json").stat().st_mtime_ns + 10**9
    os.utime(tmp_path / "result.json", ns=(later, later))
    assert look(tmp_path, a=1) == 3
    for i in range(looking.KEPT):
        look(tmp_path, a=10 + i)
    assert look(tmp_path, a=1) == 4 + looking.KEPT  # the oldest was let go


def test_pictures_are_of_the_first_seed_of_what_has_finished(sweep, tmp_path):
    for draw in (
        pictures.draw_rollouts,
        pictures.draw_attention_distances,
        pictures.draw_patch_filters,
        pictures.draw_position_similarities,
    ):
        draw(sweep.path, tmp_path)
    names = ["ViT.filters.png", "ViT.positions.png", "ViT.rollout.png", "attention_distance.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for name in names:
        picture = Image.open(tmp_path / name)
        assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5


def test_what_a_run_does_not_have_is_not_drawn(sweep, tmp_path, monkeypatch):
    for draw, has in (
        (pictures.draw_rollouts, "has_attention"),
        (pictures.draw_attention_distances, "has_attention"),
        (pictures.draw_position_similarities, "has_positions"),
    ):
        monkeypatch.setattr(pictures, has, lambda run: False)
        draw(sweep.path, tmp_path)
    assert not list(tmp_path.iterdir())


def test_origins_tell_features_apart(workdir):
    """Features are kept by what the data is, not by which object says so."""
    run = looking.run_at(workdir)
    again = pipeline.Origin.of(run.config["data"])
    one, other = (
        looking.features_of(workdir, origin=origin, split="test[:16]", batch_size=16)
        for origin in (run.origin, again)
    )
    assert one is other
