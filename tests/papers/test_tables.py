"""Every table under experiments/ loads, its computed numbers agree with the paper, and what its
small scale trains takes a real step."""

import functools
import gzip
import itertools
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
from vit_jax.papers import analytic, loading, pricing, verdicts
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
    for name, scale in file.table.scales.items():
        computed = [column for column in scale.columns if column.analytic]
        for column, row in itertools.product(computed, scale.rows):
            expected = scale.expected.get((row.name, column.name))
            # Counting takes a trace: of large models that nothing is told of, one will do.
            if expected or row is scale.rows[0] or (name == SMALL and row.is_shown):
                value = column.analytic(file.config(row), row.data) * column.scale
                found = verdicts.judge_value([value], expected, exact=True)
                where = f"{name}, {row.name}, {column.name}"
                assert found in (verdicts.Verdict.AGREES, ""), f"{where}: {value}, {expected}"


@pytest.mark.parametrize("name", ["vit/fig5", "vit/fig3_4", "mixer/table"])
def test_models_of_equal_compute_cost_about_the_same(name):
    """Within six percent: a ResNet's width comes in steps."""
    file = load(next(path for path in FILES if path.with_suffix("").as_posix().endswith(name)))
    scale = file.table.scales[SMALL]
    costs = [analytic.gflops(file.config(row), row.data) for row in scale.rows]
    assert max(costs) < 1.06 * min(costs)


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
    # DINO has a loss of views alone, which an evaluation does not make.
    kind = {"protocol": "knn", "k": 5} if config["task"]["name"] == "dino" else {}
    config["evals"] = {"test": {"split": "test[:8]", **kind}}
    config["train"] = {"num_steps": 1, "accum_steps": config["train"].get("accum_steps", 1)}
    rate = {"learning_rate": 1e-3, "warmup_steps": 0, "warmup_epochs": None, "weight_decay": 0.1}
    config["optimizer"] |= rate
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
    batch = next(iter(data.train.iterate(0)))
    learned = {name: config[name] for name in ("task", "optimizer", "train")}
    key = json.dumps([learned, jax.tree.map(np.shape, batch)], sort_keys=True)
    if key in STEPPED:  # on other images of the same shape
        return {}
    STEPPED.add(key)
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1, 1), sharding.AXES)
    learner = experiment.build_learner(config, mesh, Info.of(data), 1)
    _, metrics = learner.step_fn()(learner.init_state(), batch)
    return {name: float(mean.compute()) for name, mean in metrics.items()}


# Many rows and tables share what they train.
DONE = {}  # shrunk config -> workdir or None
STEPPED = set()  # what decides the compiled step


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


def test_measures_take_a_finished_run(clothes, tmp_path):
    """Those of all tables, on one ViT."""
    file = load(ROOT / "experiments" / "vit" / "fig7_10_11.py")
    config = shrunk(file.config(file.scale(SMALL).rows[0]), clothes)
    config["task"]["model"]["depth"] = 2  # a trend over layers needs some
    experiment.run(config, tmp_path / "run", console=SILENT)
    found = {m.__name__: m(tmp_path / "run") for path in FILES for m in measures_of(path)}
    assert len(found) >= 5
    assert all(map(math.isfinite, found.values())), found
