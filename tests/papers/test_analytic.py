"""Counts against published numbers, closed formulas and brute force."""

import math
import runpy

import jax
import jax.numpy as jnp
import pytest
from helpers import ROOT

from vit_jax.analysis import cost
from vit_jax.errors import InputError
from vit_jax.papers import analytic

I1K = (1_000, 1_281_167)
# Parameters of ViTs at 224 and at 384 pixels with a linear head for 1,000 classes, and without a
# head at 224: counted by hand from the architecture, and to 0.01 M in timm's table of results.
VITS = {
    ("Ti", 16): (5_717_416, 5_790_376, 5_524_416),
    ("S", 16): (22_050_664, 22_196_584, 21_665_664),
    ("S", 32): (22_878_952, 22_915_432, 22_493_952),
    ("B", 16): (86_567_656, 86_859_496, 85_798_656),
    ("B", 32): (88_224_232, 88_297_192, 87_455_232),
    ("L", 16): (304_326_632, 304_715_752, 303_301_632),
    ("L", 32): (306_535_400, 306_632_680, 305_510_400),
    ("H", 14): (632_045_800, None, 630_764_800),
}
# Millions of parameters at 384 pixels (hybrids) or 224, with a head for 1,000 classes; timm.
OTHERS = [
    (dict(size="S", patch_size=1, stem="resnet26"), 384, 36.47),
    (dict(size="Ti", patch_size=8, stem="resnet_root"), 384, 6.36),
    (dict(name="mixer", size="B", patch_size=16), 224, 59.88),
    (dict(name="mixer", size="L", patch_size=16), 224, 208.20),
]


def config_of(model, image_size=224, **train):
    """Of data that is not here."""
    return {
        "task": {"name": "classification", "model": model},
        "data": {"source": "tfds:absent", "image_size": image_size, "batch_size": 4096},
        "optimizer": {"learning_rate": 1e-3},
        "train": train or {"num_epochs": 1},
    }


def vit(size, patch_size, image_size=224):
    return config_of({"size": size, "patch_size": patch_size}, image_size)


@pytest.mark.parametrize("name", VITS, ids=lambda name: f"{name[0]}{name[1]}")
def test_parameters_of_vits(name):
    at_224, at_384, backbone = VITS[name]
    assert analytic.parameters(vit(*name), I1K) * 1e6 == pytest.approx(at_224, abs=0.1)
    assert analytic.backbone_parameters(vit(*name), I1K) * 1e6 == pytest.approx(backbone, abs=0.1)
    if at_384 is not None:
        found = analytic.parameters(vit(*name, image_size=384), I1K)
        assert found * 1e6 == pytest.approx(at_384, abs=0.1)


@pytest.mark.parametrize("model, image_size, millions", OTHERS)
def test_parameters_of_others(model, image_size, millions):
    assert round(analytic.parameters(config_of(model, image_size), I1K), 2) == millions


def products(size, patch_size, num_classes, image_size=224):
    """Multiply-adds of a ViT's forward pass: n tokens, m patches, c width, f of the MLP."""
    depth, c, f = {"B": (12, 768, 3072), "L": (24, 1024, 4096), "H": (32, 1280, 5120)}[size]
    m = (image_size // patch_size) ** 2
    n = m + 1
    layer = 4 * n * c * c + 2 * n * n * c + 2 * n * c * f  # q, k, v, out; attention; MLP
    return m * 3 * patch_size**2 * c + depth * layer + c * num_classes


@pytest.mark.parametrize("name", [("B", 16), ("B", 32), ("L", 16), ("H", 14)])
def test_flops_of_vits_are_those_of_the_formula(name):
    expected = 2 * products(*name, num_classes=1_000)
    assert analytic.gflops(vit(*name), I1K) * 1e9 == pytest.approx(expected, rel=1e-12)


JFT = (18_291, 303_000_000)


def jft(arg):
    file = runpy.run_path(str(ROOT / "configs" / "pretrain_jft.py"))
    return file["get_config"](arg).to_dict()


@pytest.mark.parametrize(
    "arg, published",
    [
        ("B16,7", 224),
        ("L16,14", 1567),
        ("H14,14", 4262),
        ("R50x2,7", 199),
        ("R50+B32,7", 106),
    ],
)
def test_compute_of_the_papers_pretraining(arg, published):
    """arXiv:2010.11929, Table 6, all of which experiments/vit/table6.py has.

    What is counted beside products and convolutions is not told; half a unit is rounding.
    """
    found = analytic.exaflops(jft(arg), JFT)
    assert abs(found - published) <= 0.5 + 0.005 * published


def test_compute_grows_with_the_images_and_with_nothing_else():
    once, twice = (analytic.exaflops(jft(arg), JFT) for arg in ("L16,7", "L16,14"))
    assert twice / once == pytest.approx(2, rel=1e-5)  # whole batches
    config = config_of({"size": "Ti", "patch_size": 16}, num_steps=10)
    three_passes = 3 * analytic.gflops(config, I1K) * 1e9
    assert analytic.exaflops(config, I1K) * 1e18 == pytest.approx(three_passes * 10 * 4096)
    config["optimizer"] = {"name": "sgd", "learning_rate": 0.1}
    assert analytic.exaflops(config, I1K) * 1e18 == pytest.approx(three_passes * 10 * 4096)


def test_epochs_of_unknown_data_are_refused():
    with pytest.raises(InputError, match="num_epochs needs the row's `data`"):
        analytic.images(config_of({}))


@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 1), (3, 0)]])
def test_products_with_padding_are_left_out(kernel, stride, padding):
    """A sum of ones times ones counts the products with pixels."""

    def convolve(image, weights):
        return jax.lax.conv_general_dilated(
            image,
            weights,
            (stride, stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    image, weights = jnp.ones((2, 9, 8, 3)), jnp.ones((kernel, kernel, 3, 5))
    program = jax.make_jaxpr(convolve)(image, weights).jaxpr
    expected = 2 * float(convolve(image, weights).sum())
    assert analytic.count_with_pixels(program) == expected
    is_padded = any(map(sum, program.eqns[0].params["padding"]))
    assert (cost.count_program(program) > expected) == is_padded


def test_without_padding_both_counts_are_one():
    """Through scans, jit and gradients."""

    @jax.jit
    def layers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0].sum()

    shapes = jnp.ones((4, 8)), jnp.ones((5, 8, 8))
    program = jax.make_jaxpr(jax.grad(layers, argnums=1))(*shapes).jaxpr
    assert analytic.count_with_pixels(program) == cost.count_program(program) > 0


def test_settings_are_read_where_they_stand():
    config = {"train": {"num_steps": 5, "ema_decay": None}, "optimizer": {"name": "sgd"}}
    assert analytic.setting("train.num_steps")(config, None) == 5
    assert analytic.setting("optimizer.name", equals="sgd")(config, None) == 1
    assert analytic.setting("optimizer.name", equals="adamw")(config, None) == 0
    assert math.isnan(analytic.setting("optimizer.clip_norm")(config, None))
    assert analytic.setting("train.ema_decay", default=0)(config, None) == 0
    assert math.isnan(analytic.setting("train.num_steps.more")(config, None))


def test_sizes_are_the_models():
    config = vit("Ti", 16)
    names = ("depth", "width", "mlp_dim", "num_heads")
    assert [analytic.size(name)(config, I1K) for name in names] == [12, 192, 768, 3]
    with pytest.raises(InputError, match="no 'token_mlp_dim'"):
        analytic.size("token_mlp_dim")(config, I1K)
