"""Configs of fine-tuning, AugReg and Mixer say what their papers say, leaf by leaf.

tests/test_pretraining.py does the same for Table 3 of the ViT paper.
"""

import runpy

import pytest
from helpers import ROOT

from vit_jax.workdir import leaves

TABLE_5 = runpy.run_path(str(ROOT / "experiments" / "vit" / "table5.py"))
# What is not a paper's: where and how often a run is looked at, and on which devices it is.
OURS = ("mesh.", "train.log_every", "train.checkpoint_every", "evals.")


def said(file, arg):
    """The leaves that a paper has to answer for."""
    found = runpy.run_path(str(ROOT / "configs" / file))["get_config"](arg).to_dict()
    return {k: v for k, v in leaves(found) if not k.startswith(OURS)}, found["evals"]


# arXiv:2010.11929, Table 4 with its caption, and section B.1.1. The warm-up is that of
# google-research/vision_transformer, the crop that of its inception_crop, as is zooming positions.
FINE_TUNING = {
    "init.positions": "zoom",
    "init.ignore": ["pre_logits/.*"],  # the whole head goes, both of its layers
    "task.name": "classification",
    "task.model.representation_dim": None,
    "data.image_size": 384,
    "data.batch_size": 512,
    "data.augment.crop": "inception",
    "data.augment.min_area": 0.05,
    "data.augment.flip_probability": 0.5,
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.schedule": "cosine",
    "optimizer.clip_norm": 1.0,
}
# TFDS's name, steps, percent held out for choosing the rate, split to score, base rates.
FEW = (0.001, 0.003, 0.01, 0.03)
TABLE_4 = {
    "imagenet": ("imagenet2012", 20_000, 1, "validation", (0.003, 0.01, 0.03, 0.06)),
    "cifar100": ("cifar100", 10_000, 2, "test", FEW),
    "cifar10": ("cifar10", 10_000, 2, "test", FEW),
    "pets": ("oxford_iiit_pet", 500, 10, "test", FEW),
    "flowers": ("oxford_flowers102", 500, 10, "test", FEW),
}


@pytest.mark.parametrize("dataset", TABLE_4)
@pytest.mark.parametrize("dev", ["", ",dev"])
def test_fine_tuning(dataset, dev):
    name, num_steps, percent, test, rates = TABLE_4[dataset]
    found, evals = said("finetune.py", f"B16,{dataset}{dev}")
    assert found.pop("init.source") == "gs://vit_models/imagenet21k/ViT-B_16.npz"
    assert found.pop("optimizer.learning_rate") in rates
    assert found.pop("optimizer.warmup_steps") == (500 if num_steps > 500 else 100)
    part = f"train[:{100 - percent}%]" if dev else "train"
    expected = {"data.source": f"tfds:{name}", "data.train": part, "train.num_steps": num_steps}
    assert found == FINE_TUNING | expected
    held_out = f"train[{100 - percent}%:]"
    assert evals == ({"dev": {"split": held_out}} if dev else {"test": {"split": test}})


@pytest.mark.parametrize(
    "dev, train, scored", [("", "[:1000]", "test"), (",dev", "[:800]", "train[800:1000]")]
)
def test_fine_tuning_on_vtab(dev, train, scored):
    """1,000 images, 200 of which choose (arXiv:1910.04867); one rate for all tasks."""
    found, evals = said("finetune.py", f"L16,vtab:dtd{dev}")
    assert found.pop("init.source") == "gs://vit_models/imagenet21k/ViT-L_16.npz"
    expected = {
        "data.source": "tfds:dtd",
        "data.train": f"train{train}",
        "train.num_steps": 2_500,
        "optimizer.learning_rate": 0.01,
        "optimizer.warmup_steps": 200,
    }
    assert found == FINE_TUNING | expected
    assert [entry["split"] for entry in evals.values()] == [scored]


def test_the_grid_of_rates_is_the_papers():
    assert TABLE_5["GRID"] == {name: row[-1] for name, row in TABLE_4.items()}


# Of both papers below, and of all of big_vision's configs.
BATCHES = {
    "task.name": "classification",
    "task.model.dtype": "bfloat16",
    "data.image_size": 224,
    "data.batch_size": 4096,
    "data.resize": "crop",
    "data.crop_fraction": 0.875,
    "data.dialect": "big_vision",
    "data.augment.crop": "inception",
    "data.augment.flip_probability": 0.5,
    "optimizer.name": "adamw",
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 10_000,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip_norm": 1.0,
    "train.seed": 0,
}
# arXiv:2106.10270, sections 3.2 to 3.4: data, model, level, epochs, rates of dropout and of
# stochastic depth. On i1k "both models with and without hidden layer"; on i21k never.
AUGREG = {
    "B16,i1k,300,medium2,0.1": {
        "task.loss": "softmax",
        "task.model.name": "vit",
        "task.model.size": "B",
        "task.model.patch_size": 16,
        "task.model.representation_dim": 768,
        "task.model.dropout_rate": 0.1,
        "task.model.drop_path_rate": 0.1,
        "task.mixing.mixup_alpha": 0.5,
        "data.source": "tfds:imagenet2012",
        "data.train": "train[:99%]",
        "data.augment.policy.name": "randaugment",
        "data.augment.policy.num_ops": 2,
        "data.augment.policy.magnitude": 15,
        "train.num_epochs": 300,
    },
    "Ti16,i21k,30,none,0": {
        "task.loss": "sigmoid",
        "task.model.name": "vit",
        "task.model.size": "Ti",
        "task.model.patch_size": 16,
        "task.model.head_bias": -10.0,
        "task.model.dropout_rate": 0.0,
        "task.model.drop_path_rate": 0.0,
        "task.mixing.mixup_alpha": 0.0,
        "data.source": "tfds:imagenet21k",
        "data.train": "full[51200:]",
        "train.num_epochs": 30,
    },
}


@pytest.mark.parametrize("arg", AUGREG)
def test_augreg(arg):
    found, _ = said("augreg.py", arg)
    others = {"optimizer.schedule": "cosine", "optimizer.moment_dtype": "bfloat16"}
    others |= {"data.augment.dialect": "big_vision"}
    assert found == BATCHES | others | AUGREG[arg]


def test_mixer_is_big_visions():
    """configs/mlp_mixer_i1k.py there."""
    found, _ = said("mixer_i1k.py", "B16,300")
    assert found == BATCHES | {
        "task.loss": "sigmoid",
        "task.model.name": "mixer",
        "task.model.size": "B",
        "task.model.patch_size": 16,
        "task.model.drop_path_rate": 0.1,
        "task.model.head_bias": -6.9,
        "task.mixing.mixup_alpha": 0.5,
        "data.source": "tfds:imagenet2012",
        "data.train": "train[:99%]",
        "data.augment.min_area": 0.05,
        "data.augment.policy.name": "randaugment",
        "data.augment.policy.num_ops": 2,
        "data.augment.policy.magnitude": 15,
        "optimizer.schedule": "linear",
        "optimizer.end_learning_rate": 1e-5,
        "train.num_epochs": 300,
    }
