"""The pretraining configs say what their papers say: each leaf, sizes and costs."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import ROOT

from vit_jax import experiment, planning
from vit_jax.analysis import cost
from vit_jax.data import splits
from vit_jax.train import optimizer, sharding
from vit_jax.workdir import leaves

CONFIGS = {
    name: runpy.run_path(str(ROOT / "configs" / f"pretrain_{name}.py"))
    for name in ("i1k", "i1k_vit", "i21k", "jft", "large")
}
SETTINGS = [(name, arg) for name, found in CONFIGS.items() for arg in found["SETTINGS"]]
# What is not a paper's: where and how often a run is looked at, and on which devices it is.
OURS = (
    "mesh.",
    "train.accum_steps",
    "train.log_every",
    "train.checkpoint_every",
    "evals.val.every_steps",
)

# Papers' preprocessing, and that of all of big_vision's configs: pixels in [-1, 1].
COMMON = {
    "task.name": "classification",
    "task.model.name": "vit",
    "task.model.dtype": "bfloat16",
    "data.image_size": 224,
    "data.resize": "crop",
    "data.crop_fraction": 0.875,
    "data.dialect": "big_vision",
    "data.augment.crop": "inception",
    "data.augment.min_area": 0.05,
    "data.augment.flip_probability": 0.5,
    "optimizer.name": "adamw",
    "optimizer.warmup_steps": 10_000,
    "train.seed": 0,
}
# big_vision's configs/vit_s16_i1k.py and section 2 of arXiv:2205.01580.
S16 = {
    "task.model.size": "S",
    "task.model.patch_size": 16,
    "task.model.pool": "gap",
    "task.model.position_embedding": "sincos2d",
    "task.model.representation_dim": 384,
    "task.mixing.mixup_alpha": 0.2,
    "data.source": "tfds:imagenet2012",
    "data.train": "train[:99%]",
    "data.batch_size": 1024,
    "data.augment.policy.name": "randaugment",
    "data.augment.policy.num_ops": 2,
    "data.augment.policy.magnitude": 10,
    "optimizer.learning_rate": 0.001,
    "optimizer.schedule": "cosine",
    "optimizer.weight_decay": 0.0001 / 0.001,
    "optimizer.clip_norm": 1.0,
    "optimizer.moment_dtype": "bfloat16",
    "evals.minival.split": "train[99%:]",
    "evals.minival.every_steps": 2500,
    "evals.val.split": "validation",
}
# arXiv:2010.11929, Table 3: models, data, epochs, base rate, decay of the rate, weight decay,
# dropout; all with a batch of 4096 and 10,000 steps of warm-up.
TABLE_3 = """
B16 B32          jft   7     8e-4  linear  0.1   0.0
L32              jft   7     6e-4  linear  0.1   0.0
L16              jft   7/14  4e-4  linear  0.1   0.0
H14              jft   14    3e-4  linear  0.1   0.0
R50x1 R50x2      jft   7     1e-3  linear  0.1   0.0
R101x1           jft   7     8e-4  linear  0.1   0.0
R152x1 R152x2    jft   7     6e-4  linear  0.1   0.0
R50+B16 R50+B32  jft   7     8e-4  linear  0.1   0.0
R50+L32          jft   7     2e-4  linear  0.1   0.0
R50+L16          jft   7/14  4e-4  linear  0.1   0.0
B16 B32          i21k  90    1e-3  linear  0.03  0.1
L16 L32          i21k  30/90 1e-3  linear  0.03  0.1
B16 B32 L16 L32  i1k   300   3e-3  cosine  0.3   0.1
"""
# What is not in the table: google-research/vision_transformer, issues 2 (the rate's end, the
# head's bias), 34 (the loss) and 124 (the layer before the head).
MILLIONS = {
    "task.loss": "sigmoid",
    "task.model.head_bias": -10.0,
    "data.train": "full[51200:]",
    "optimizer.end_learning_rate": 1e-5,
    "evals.val.split": "full[25600:51200]",
}
I1K = {
    "data.train": "train[:99%]",
    "optimizer.clip_norm": 1.0,  # said below the table
    "evals.minival.split": "train[99%:]",
    "evals.minival.every_steps": 2500,
    "evals.val.split": "validation",
}
DATA = {
    "jft": {**MILLIONS, "data.source": "tfds:jft_300m"},
    "i21k": {**MILLIONS, "data.source": "tfds:imagenet21k"},
    "i1k": {**I1K, "data.source": "tfds:imagenet2012"},
}
# big_vision's configs/proj/scaling_laws/train_vit_g.py; the data is not theirs.
G14 = {
    "task.loss": "sigmoid",
    "task.model.size": "g",
    "task.model.patch_size": 14,
    "task.model.pool": "map",
    "task.model.head_bias": -10.0,
    "task.model.remat": "full",  # ours: computes the same
    "data.source": "tfds:imagenet21k",
    "data.train": "full[51200:]",
    "data.batch_size": 4096 * 4,
    "optimizer.learning_rate": 8e-4,
    "optimizer.schedule": "rsqrt",
    "optimizer.timescale": 10_000,
    "optimizer.cooldown_steps": 50_000,
    "optimizer.weight_decay": 0.03,
    "optimizer.decay_patterns": [
        ["head/kernel", 3.0 / 0.03],
        ["(.*/)?kernel", True],
        [".*", False],
    ],
    "optimizer.clip_norm": 1.0,
    "optimizer.moment_dtype": "bfloat16",
    "train.num_steps": 1_000_000,
    "evals.val.split": "full[25600:51200]",
}
REPRESENTATIONS = {"B": 768, "L": 1024, "H": 1280}  # issue 124


def get(name, arg):
    return CONFIGS[name]["get_config"](arg).to_dict()


def said(name, arg):
    """The leaves that a paper has to answer for."""
    found = dict(leaves(get(name, arg)))
    return {key: value for key, value in found.items() if not key.startswith(OURS)}


def rows():
    """(model, data, epochs, rate, decay of the rate, weight decay, dropout) of Table 3."""
    for line in TABLE_3.strip().splitlines():
        *models, data, all_epochs, rate, shape, decay, dropout = line.split()
        for model in models:
            for epochs in map(int, all_epochs.split("/")):
                yield model, data, epochs, float(rate), shape, float(decay), float(dropout)


def model_of(name, dropout):
    """Leaves of `task.model` for a name of Table 3; section 4.1 says what a hybrid is."""
    if "x" in name:
        depth, width = name.removeprefix("R").split("x")
        return {"name": "resnet", "depth": int(depth), "width_factor": int(width)}
    *stem, transformer = name.split("+")
    size, patch = transformer[0], int(transformer[1:])
    found = {"size": size, "patch_size": patch, "dropout_rate": dropout}
    if stem:
        found |= {"patch_size": 1, "stem": {16: "resnet50_stride16", 32: "resnet50"}[patch]}
    return found | {"representation_dim": REPRESENTATIONS[size]}


@pytest.mark.parametrize("num_epochs", [90, 150, 300])
def test_i1k_is_big_visions(num_epochs):
    assert said("i1k", str(num_epochs)) == COMMON | S16 | {"train.num_epochs": num_epochs}


def test_g14_is_big_visions():
    assert said("large", "g14") == COMMON | G14


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: f"{row[0]}-{row[1]}-{row[2]}")
def test_rows_of_the_papers_table(row):
    model, data, num_epochs, rate, shape, decay, dropout = row
    expected = COMMON | DATA[data] | {"data.batch_size": 4096}
    expected |= {f"task.model.{key}": value for key, value in model_of(model, dropout).items()}
    expected |= {
        "optimizer.learning_rate": rate,
        "optimizer.schedule": shape,
        "optimizer.weight_decay": decay,
        "train.num_epochs": num_epochs,
    }
    if data == "i1k":
        assert said("i1k_vit", model) == expected
    else:
        assert said(data, f"{model},{num_epochs}") == expected
    if model == "H14":  # JFT's numbers on data that can be had, and defaults said beside g/14's
        expected |= {"task.model.pool": "cls", "data.source": "tfds:imagenet21k"}
        assert said("large", "H14") == expected


def test_the_configs_have_no_rows_beside_those():
    known = {data: {row[:3:2] for row in rows() if row[1] == data} for data in DATA}
    found = {
        "jft": {(m, e) for m, (some, _) in CONFIGS["jft"]["ROWS"].items() for e in some},
        "i21k": {(m, e) for m, some in CONFIGS["i21k"]["EPOCHS"].items() for e in some},
        "i1k": {(model, 300) for model in CONFIGS["i1k_vit"]["MODELS"]},
    }
    assert found == known


@pytest.mark.parametrize(
    "name, arg", [("jft", "R200x3"), ("jft", "B16,14"), ("i21k", "B16,30"), ("i1k_vit", "H14")]
)
def test_a_row_that_is_not_there_is_refused(name, arg):
    with pytest.raises(ValueError, match=f"no setting '{arg}'; allowed: B16"):
        get(name, arg)


def learner(name, arg, num_classes=1000):
    """As of a run, for data that is not here."""
    config = experiment.plain(get(name, arg))
    told = planning.Told(num_classes=num_classes)
    info = planning.describe_data(config, 0, told, [])
    mesh = sharding.make_abstract_mesh(num_devices=8)
    return experiment.build_learner(config, mesh, info, 10**6)


def parameters(name, arg, without=()):
    """Of the model with a head for 1000 classes, without these modules."""
    params = learner(name, arg).abstract_state().params
    return cost.count_parameters({k: v for k, v in params.items() if k not in without})


HEADS = ("head", "representation")


@pytest.mark.parametrize(
    "name, arg, without, count",
    [
        # With a linear head, as most quote it.
        ("i1k", "90", ["representation"], 21_974_632),
        ("i1k", "90", [], 21_974_632 + 384 * (384 + 1)),
        # timm's table of results, without the heads for 1000 classes.
        ("i21k", "B16", HEADS, 85_798_656),
        ("i21k", "B32", HEADS, 87_455_232),
        ("i21k", "L16", HEADS, 303_301_632),
        ("i21k", "L32", HEADS, 305_510_400),
        ("large", "H14", HEADS, 630_764_800),
    ],
)
def test_published_sizes(name, arg, without, count):
    assert parameters(name, arg, without) == count


def test_g14_has_the_papers_size_and_cost():
    """arXiv:2106.04560, Table 2: 1,011 M parameters and 533.1 GFLOPs, both without pooling."""
    assert round(parameters("large", "g14", ("head", "pool")) / 1e6) == 1011
    forward = learner("large", "g14").flops_per_example() / cost.TRAINING_FACTOR
    # The pooling's keys and values are 2 × 2 · 256 · 1408² of it, its MLP and the rest little.
    assert forward / 1e9 == pytest.approx(533.1 + 4 * 256 * 1408**2 / 1e9, rel=0.005)


@pytest.mark.parametrize("name, arg", SETTINGS)
def test_nothing_is_scored_that_is_trained_on(name, arg):
    config = get(name, arg)
    (trained,) = splits.parse(config["data"]["train"])
    for entry in config["evals"].values():
        (scored,) = splits.parse(entry["split"])
        if scored.name == trained.name:
            ends = {trained.start, trained.stop} & {scored.start, scored.stop}
            assert ends - {None}, entry  # one begins where the other ends


def test_the_decay_of_i1k_is_big_visions():
    """Their chain, whose decay knows the schedule but not the rate, makes the same steps."""
    wd, lr = 0.0001, 0.001
    section = get("i1k", "90")["optimizer"] | {"warmup_steps": 4}
    ours = optimizer.build(num_steps=10, **section)
    theirs = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.scale_by_adam(mu_dtype="bfloat16"),
        optax.scale(lr),
        optax.add_decayed_weights(wd, {"kernel": True, "bias": False}),
        optax.scale_by_schedule(lambda step: ours.learning_rate(step) / lr),
        optax.scale(-1.0),
    )
    rng = np.random.default_rng(0)
    draw = lambda: {"kernel": rng.normal(size=(3, 4)), "bias": rng.normal(size=4)}  # noqa: E731
    params = jax.tree.map(jnp.asarray, draw())
    left, right = ours.transform.init(params), theirs.init(params)
    for _ in range(10):
        gradients = jax.tree.map(jnp.asarray, draw())
        updates, left = ours.transform.update(gradients, left, params)
        expected, right = theirs.update(gradients, right, params)
        # A rounding of each factor in float32; a decay left out would be a tenth of the update.
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), updates, expected)
        params = optax.apply_updates(params, updates)


@pytest.mark.parametrize(
    "name, arg, num_steps, rates",
    [
        ("i1k", "90", 111_477, {10_000: 1e-3, 111_477: 0.0}),
        ("i21k", "B16", 310_000, {5_000: 5e-4, 10_000: 1e-3, 160_000: 5.05e-4, 310_000: 1e-5}),
        # arXiv:2106.04560, section 3.5: 1 / sqrt, then linearly to 0 in 50,000 steps.
        ("large", "g14", 10**6, {10_000: 8e-4, 40_000: 4e-4, 950_000: 8e-4 / 95**0.5, 10**6: 0.0}),
    ],
)
def test_rates_along_the_way(name, arg, num_steps, rates):
    found = optimizer.build(num_steps=num_steps, **get(name, arg)["optimizer"]).learning_rate
    for step, rate in rates.items():
        assert float(found(step)) == pytest.approx(rate, rel=1e-4, abs=1e-12), step
