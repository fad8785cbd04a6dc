"""The recipes of learning without labels say what their codes say, once everything is built.

Nothing is trained and no array made: the numbers are those of the built optimizer, task and data.
"""

import runpy

import jax
import numpy as np
import pytest
from helpers import ROOT

from vit_jax import experiment, planning, sections
from vit_jax.learner import TrainSettings
from vit_jax.train import optimizer, patterns, rate_factors, sharding

IMAGES = 1_281_167  # of ImageNet-1k
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# facebookresearch/dino: args.txt of the published weights and the README; dinov2's
# ssl_default_config.yaml, for 2,048 images a step; mae's PRETRAIN.md, FINETUNE.md and main_*.py;
# deit's main.py. Peak rate, steps of the warm-up, the last rate.
RATES = {
    ("dino", "S16"): (5e-4 * 4, 12_511, 1e-5),
    ("dino", "S16_300"): (5e-4 * 4, 12_511, 1e-6),
    ("dino", "S16_100"): (5e-4 * 2, 25_023, 1e-6),
    ("dino", "S16_one_gpu"): (5e-4, 50_046, 1e-6),
    ("dino", "B16"): (7.5e-4 * 4, 12_511, 2e-6),
    ("dino", "S14v2"): (4e-3 * 2**0.5, 12_511, 1e-6),
    ("mae", "B16"): (1.5e-4 * 16, 12_511, 0.0),
    ("mae", "H14,1600"): (1.5e-4 * 16, 12_511, 0.0),
    ("mae_finetune", "B16"): (5e-4 * 4, 6_256, 1e-6),
    ("mae_finetune", "L16"): (1e-3 * 4, 6_256, 1e-6),
    ("mae_probe", "B16"): (0.1 * 64, 782, 0.0),
    ("distill", "deit_S"): (5e-4 * 2, 6_256, 1e-5),
    ("distill", "patient"): (0.03, 5_000, 0.0),
}
# Momentum of the teacher at the beginning; its temperature at first and after the warm-up, and
# the epochs of that; epochs with a frozen last layer.
TEACHERS = {
    "S16": (0.996, 0.04, 0.07, 30, 1),
    "S16_300": (0.996, 0.04, 0.07, 30, 1),
    "S16_100": (0.996, 0.04, 0.04, 0, 1),
    "S16_one_gpu": (0.9995, 0.04, 0.04, 0, 1),
    "B16": (0.996, 0.04, 0.07, 50, 3),
    "S14v2": (0.992, 0.04, 0.07, 60, 2),
}


def get(name, arg):
    config = runpy.run_path(str(ROOT / "configs" / f"{name}.py"))["get_config"](arg)
    return experiment.plain(config)


def built_optimizer(config):
    """The optimizer for ImageNet's number of images, and the steps of the run."""
    batch_size = config["data"]["batch_size"]
    settings = sections.call(TrainSettings, config["train"], where="config.train")
    num_steps = settings.steps(num_examples=IMAGES, batch_size=batch_size)
    sizes = dict(num_steps=num_steps, batch_size=batch_size, num_examples=IMAGES)
    where = "config.optimizer"
    return sections.call(optimizer.build, config["optimizer"], where=where, **sizes), num_steps


def learner(name, arg, **data):
    """As of a run, for data that is not here."""
    config = get(name, arg)
    config["data"] |= data
    told = planning.Told(num_classes=1000, num_examples=IMAGES)
    info = planning.describe_data(config, 0, told, [])
    _, num_steps = built_optimizer(config)
    mesh = sharding.make_abstract_mesh(num_devices=1)
    return experiment.build_learner(config, mesh, info, num_steps)


@pytest.mark.parametrize("name, arg", RATES, ids=lambda part: part)
def test_rates_and_warm_ups_are_the_codes(name, arg):
    peak, warmup, end = RATES[name, arg]
    found, num_steps = built_optimizer(get(name, arg))
    rates = [float(found.learning_rate(step)) for step in (0, warmup / 2, warmup, num_steps)]
    # float32 has the schedule, and the cosine cancels near its end.
    np.testing.assert_allclose(rates, [0, peak / 2, peak, end], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("arg", TEACHERS)
def test_teachers_and_their_images_are_dino_s(arg):
    task = learner("dino", arg).task
    schedules = task.schedules
    found = (
        schedules.momentum**schedules.batch_ratio,
        schedules.warmup_teacher_temperature,
        schedules.final_temperature,
        schedules.temperature_warmup_epochs,
        schedules.freeze_last_layer_epochs,
    )
    assert found == TEACHERS[arg]
    assert schedules.end_momentum == 1
    assert (task.mean, task.std) == IMAGENET


def test_momentum_and_temperature_of_another_batch_size_follow_the_recipe_s():
    schedules = learner("dino", "S16_300", batch_size=512).task.schedules
    assert schedules.momentum**schedules.batch_ratio == pytest.approx(0.996**0.5)
    assert schedules.final_temperature == 0.04


def test_factors_of_the_rate_are_dinov2_s():
    """`get_vit_lr_decay_rate` of its param_groups.py: tokens, positions and patches lie 13 layers
    below the heads, patches have a fifth of that, block i of 0 to 11 lies 12 - i below."""
    parts = learner("dino", "S14v2")
    rules = get("dino", "S14v2")["optimizer"]["rate_patterns"]
    params = parts.abstract_state().params
    layers = rate_factors.layer_factors(params, 0.9)
    paths = jax.tree.leaves(patterns.map_paths(lambda path, _: path, params))
    seen = set()
    for path, layer in zip(paths, jax.tree.leaves(layers), strict=True):
        found = np.ravel(layer) * patterns.match(rules, path, where="test")
        part, _, rest = path.partition("/")
        module = rest.split("/")[0] if part == "backbone" else part
        expected = {
            "class_token": [0.9**13],
            "mask_token": [0.9**13],
            "position_embedding": [0.9**13],
            "patch_embedding": [0.2 * 0.9**13],
            "encoder": [0.9 ** (12 - i) for i in range(12)],
        }.get(module, [1.0])
        if module == "encoder" and "blocks" not in path:  # the last norm
            expected = [1.0]
        np.testing.assert_allclose(found, expected, rtol=1e-12, err_msg=path)
        seen.add(module)
    assert seen >= {"mask_token", "class_token", "patch_embedding", "encoder", "head", "patch_head"}


@pytest.mark.parametrize("name, arg", [("mae_finetune", "B16"), ("distill", "deit_S")])
def test_deit_s_augmentation(name, arg):
    """The defaults of deit's main.py: rand-m9-mstd0.5-inc1 painted with the mean, erased noise."""
    data = get(name, arg)["data"]
    assert (data["mean"], data["std"]) == IMAGENET
    augment = data["augment"]
    assert augment["dialect"] == "timm" and augment["interpolation"] == "bicubic"
    assert augment["erasing"] == dict(probability=0.25, mode="pixel")
    policy = dict(name="randaugment", magnitude=9, magnitude_std=0.5, increasing=True)
    mean = tuple(round(255 * value) for value in data["mean"])
    assert augment["policy"] == policy | dict(interpolation="bicubic", fill=mean)
