"""Every config in the tree, with every setting it names, takes one real step."""

import gzip
import json
import os
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT, TINY_MODEL

from vit_jax import experiment, models, weights
from vit_jax.data.augment.policies import build_policy
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.mixing import Mixing
from vit_jax.weights import timm
from vit_jax.weights.files import write_npz
from vit_jax.weights.mapping import to_theirs

COMMON = ROOT / "configs" / "common.py"  # no config, but what configs share
FILES = sorted(set((ROOT / "configs").glob("*.py")) - {COMMON})
# What begins with a run of another config, and takes its step behind that one's.
CHAINED = ("mae_finetune", "mae_probe")


def settings():
    return [
        pytest.param(file, setting, id=f"{file.stem}:{setting}")
        for file in FILES
        for setting in runpy.run_path(str(file)).get("SETTINGS", [""])
        if setting != "fashion" or file.stem not in ("mae", *CHAINED)
    ]


@pytest.fixture(scope="module")
def fashion_files(tmp_path_factory):
    """IDX files of Fashion-MNIST's shape, so that the config runs where the real ones are not."""
    folder = tmp_path_factory.mktemp("fashion-mnist")
    for prefix, count in (("train", 100), ("t10k", 20)):
        images = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(
                size.to_bytes(4, "big") for size in array.shape
            )
            with gzip.open(folder / f"{prefix}-{kind}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    return folder


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory):
    """A small ViT's weights in Google's layout, in place of published ones."""
    model = models.build("vit", num_classes=3, patch_size=4, representation_dim=5, **TINY_MODEL)
    preprocessing = Preprocessing(image_size=(8, 8), channels=3)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    target = tmp_path_factory.mktemp("weights") / "tiny.npz"
    return weights.save(target, model, variables, layout="google", preprocessing=preprocessing)


@pytest.fixture(scope="module")
def tiny_teacher(tmp_path_factory):
    """A random one of ten classes, for RGB images; its file names none of them."""
    model = models.build("vit", num_classes=10, patch_size=4, **TINY_MODEL)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    target = tmp_path_factory.mktemp("teacher") / "tiny.npz"
    rgb = Preprocessing(image_size=(8, 8), channels=3)
    return weights.save(target, model, variables, layout="google", preprocessing=rgb)


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A small encoder in timm's layout, in place of one that masked autoencoding trained."""
    # The architecture's name tells the number of heads, which base has 12 of.
    shape = dict(TINY_MODEL, width=24, num_heads=12)
    model = models.build("vit", num_classes=0, patch_size=4, activation="gelu", **shape)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))["params"]
    target = tmp_path_factory.mktemp("encoder") / "tiny.npz"
    write_npz(target, to_theirs(timm.TIMM, params))
    return target


@pytest.mark.parametrize(("file", "setting"), settings())
def test_config_takes_one_real_step(
    file, setting, fashion_files, tiny_weights, tiny_encoder, tiny_teacher, tmp_path
):
    config = one_step(runpy.run_path(str(file))["get_config"](setting).to_dict())
    if "teacher" in config["task"]:
        config["task"]["teacher"]["source"] = str(tiny_teacher)
    if "init" in config:
        config["init"]["source"] = str(tiny_weights)
        config["data"]["image_size"] = 16
        if "architecture" in config["init"]:
            config["init"]["source"] = str(tiny_encoder)
    elif config["task"]["model"].get("name") == "resnet":
        config["task"]["model"] |= {"depth": None, "stages": (1,)}
        config["data"]["image_size"] = 8
    elif config["task"]["model"].get("name") == "mixer":
        tiny = dict(size=None, width=16, depth=2, token_mlp_dim=8, channel_mlp_dim=32)
        config["task"]["model"] |= tiny
    else:
        config["task"]["model"] |= {"size": None, **TINY_MODEL}
    if config["task"]["name"] == "mae":
        config["task"]["decoder"] |= dict(width=8, depth=1, num_heads=2)
    if config["data"]["source"].startswith("idx:"):
        config["data"] |= {"source": f"idx:{fashion_files}", "train": "train[:95%]"}
    if config["data"]["source"].startswith("tfds:"):
        config["data"] |= {"source": "digits", "train": "train[:100]"}
        config["data"]["channels"] = len(config["data"].get("mean", (0.5,)))
        for name, entry in config["evals"].items():
            kept = {key: entry[key] for key in ("protocol",) if key in entry}
            config["evals"][name] = {"split": "test[:50]", **kept}
        if "patch_size" in config["task"]["model"]:
            config["data"]["image_size"] = 2 * config["task"]["model"]["patch_size"]
    if config["task"]["name"] == "dino":
        config["task"].setdefault("head", {}).update(num_prototypes=8, hidden_dim=8)
        views = config["data"]["augment"]["multi_crop"]
        views |= {"num_local": 1, "local_size": config["task"]["model"]["patch_size"]}
    run(config, tmp_path / "run")


def one_step(config):
    """One step of few images, and otherwise as it stands."""
    config["data"]["batch_size"] = 16
    config["optimizer"] |= {"warmup_steps": 1, "warmup_epochs": None}
    if "cooldown_steps" in config["optimizer"]:
        config["optimizer"]["cooldown_steps"] = 0
    config["train"] |= {"num_epochs": None, "num_steps": 1}
    return config


def run(config, workdir):
    metrics = experiment.run(config, workdir)
    assert all(np.isfinite(value) for value in metrics.values())
    assert json.loads((workdir / "result.json").read_text())["step"] == 1


def fashion_config(name, folder):
    """One step of `configs/NAME.py:fashion` on the images in the folder."""
    file = ROOT / "configs" / f"{name}.py"
    config = one_step(runpy.run_path(str(file))["get_config"]("fashion").to_dict())
    config["data"]["source"] = f"idx:{folder}"
    return config


@pytest.fixture(scope="module")
def mae_run(fashion_files, tmp_path_factory):
    """The workdir of a step of masked autoencoding."""
    config = fashion_config("mae", fashion_files)
    config["task"]["model"] |= TINY_MODEL
    config["task"]["decoder"] |= dict(width=8, depth=1, num_heads=2, mlp_dim=16)
    config["evals"]["pictures"]["split"] = "train[-5:]"
    run(config, workdir := tmp_path_factory.mktemp("mae") / "run")
    return workdir


@pytest.mark.parametrize("name", CHAINED)
def test_what_mae_trained_is_fine_tuned_and_probed(name, mae_run, fashion_files, tmp_path):
    """The model is the source's, so that what one config leaves out the next one cannot have."""
    config = fashion_config(name, fashion_files)
    config["init"]["source"] = str(mae_run)
    run(config, tmp_path / "run")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_config_is_short_and_says_how_to_run_it(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 80
    assert f"--config=configs/{file.name}" in text.split('"""')[1]


def test_unknown_setting_lists_the_known():
    from vit_jax.config_files import load_config
    from vit_jax.errors import InputError

    with pytest.raises(InputError, match="'tpu'.*cpu, gpu"):
        load_config(f"{ROOT / 'configs' / 'fashion_mnist.py'}:tpu")


def test_augreg_has_the_papers_numbers():
    """The grids of section 3.2 of arXiv:2106.10270, written as there."""
    mixup = (0.0, 0.0, 0.2, 0.2, 0.5, 0.5, 0.8)
    randaugment = ((0, 0), (2, 0), (2, 10), (2, 15), (2, 15), (2, 20), (2, 20))
    names = ("none", "light1", "light2", "medium1", "medium2", "strong1", "strong2")
    common = runpy.run_path(str(COMMON))
    assert tuple(common["AUGREG"]) == names
    for level, alpha, (num_ops, magnitude) in zip(names, mixup, randaugment, strict=True):
        augment, mixing = common["augreg"](level)
        assert Mixing(**mixing).mixup_alpha == alpha
        assert ("policy" in augment) == (num_ops > 0)
        if num_ops:
            policy = build_policy(dialect=augment["dialect"], **augment["policy"])
            assert (policy.num_ops, policy.magnitude) == (num_ops, magnitude)
            assert policy.probability == 1 and len(policy.names) == 16
    with pytest.raises(ValueError, match="'heavy'; allowed: none, light1"):
        common["augreg"]("heavy")


def test_configs_may_import_what_they_share_from_anywhere(tmp_path):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "common.py").write_text(COMMON.read_text())
    (folder / "mine.py").write_text(
        "from ml_collections import ConfigDict\n"
        "from configs.common import augreg\n\n\n"
        "def get_config(arg):\n"
        "    augment, mixing = augreg(arg)\n"
        "    return ConfigDict({'data': {'augment': augment}, 'task': {'mixing': mixing}})\n"
    )
    program = (
        "from vit_jax.config_files import load_config\n"
        f"config = load_config({str(folder / 'mine.py')!r} + ':strong2')\n"
        "print(config.data.augment.policy.magnitude, config.task.mixing.mixup_alpha, end='')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path.parent,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert found.stdout == "20 0.8", found.stderr


@pytest.mark.parametrize(
    "dataset", ["imagenet", "cifar10", "pets", "flowers", "vtab:dtd", "folder:/a"]
)
@pytest.mark.parametrize("dev", ["", ",dev"])
def test_fine_tuning_scores_nothing_that_it_trains_on(dataset, dev):
    from vit_jax.data import splits

    config = finetune(f"B16,{dataset}{dev}")
    assert config.optimizer.momentum == 0.9 and config.data.batch_size == 512
    (scored,) = (entry.split for entry in config.evals.values())
    trained, scored = splits.parse(config.data.train), splits.parse(scored)
    if dev:
        assert trained[0].name == scored[0].name and trained[0].stop == scored[0].start
    else:
        assert trained[0].name != scored[0].name


def finetune(arg):
    return runpy.run_path(str(ROOT / "configs" / "finetune.py"))["get_config"](arg)
