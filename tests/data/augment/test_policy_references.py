"""Levels, pixels and draws of the policies against torchvision and timm themselves."""

import random
from collections import defaultdict

import numpy as np
import pytest
import references
from pictures import images
from PIL import Image
from scipy import stats

from vit_jax.data.augment import operations, policies
from vit_jax.data.augment.levels import RULES, Use
from vit_jax.data.augment.policies import build_policy

pytestmark = pytest.mark.reference
DRAWS = 3000
ENHANCED = ("Brightness", "Color", "Contrast", "Sharpness")


@pytest.fixture(scope="module")
def torchvision():
    references.load_torchvision()
    from torchvision.transforms import autoaugment

    return autoaugment


@pytest.fixture(scope="module")
def timm():
    references.load_timm()
    from timm.data import auto_augment

    return auto_augment


def use(level, sign=1, size=(224, 200), bins=0):
    return Use(level, sign, size, bins, "randaugment")


def perform(image, rule, amount, dialect, resample, fill):
    setting = dict(dialect=dialect, resample=resample, fill=fill)
    return operations.perform({"image": image}, None, rule.operation, amount, **setting)["image"]


# torchvision


@pytest.mark.parametrize("bins", [10, 31])
def test_amounts_are_torchvisions(torchvision, bins):
    space = torchvision.RandAugment()._augmentation_space(bins, (224, 200))
    assert sorted(space) == sorted(policies.TORCHVISION_OPERATIONS)
    for name, (magnitudes, signed) in space.items():
        rule = RULES["torchvision"][name]
        assert rule.is_signed == signed
        for level, magnitude in enumerate(magnitudes.tolist() if magnitudes.ndim else []):
            for sign in (1, -1) if signed else (1,):
                amount = rule.amount(use(level, sign, bins=bins))
                expected = sign * magnitude + (1.0 if name in ENHANCED else 0.0)
                # torch.linspace rounds by the width of the processor's vectors.
                assert amount == pytest.approx(expected, rel=2**-22, abs=0)


@pytest.mark.parametrize("kind", images())
@pytest.mark.parametrize("name", RULES["torchvision"])
def test_pixels_are_torchvisions(torchvision, name, kind):
    image, rule = images()[kind], RULES["torchvision"][name]
    mode = torchvision.InterpolationMode
    space = torchvision.AutoAugment()._augmentation_space(31, image.shape[:2])
    magnitudes, _ = space.get(name, (np.zeros(()), False))
    for level in (0, 3, 14, 30) if magnitudes.ndim else (0,):
        magnitude = float(magnitudes[level]) if magnitudes.ndim else None
        for sign in (1, -1) if rule.is_signed else (1,):
            for resample, fill in (("nearest", 0), ("bilinear", (9, 200, 3))):
                arguments = (sign * (magnitude or 0.0), mode(resample), fill)
                expected = torchvision._apply_op(Image.fromarray(image), name, *arguments)
                amount = None if magnitude is None else sign * magnitude
                amount = 1.0 + amount if name in ENHANCED else amount
                amount = int(amount) if name == "Posterize" else amount
                found = perform(image, rule, amount, "torchvision", resample, fill)
                np.testing.assert_array_equal(found, np.asarray(expected), err_msg=str(level))


@pytest.mark.parametrize("policy", policies.AUTOAUGMENT["torchvision"])
def test_autoaugment_tables_are_torchvisions(torchvision, policy):
    expected = torchvision.AutoAugment(torchvision.AutoAugmentPolicy(policy)).policies
    table = build_policy(name="autoaugment", dialect="torchvision", policy=policy).table
    assert len(table) == len(expected) == 25
    for ours, theirs in zip(table, expected, strict=True):
        for (name, probability, level), entry in zip(ours, theirs, strict=True):
            assert (name, probability) == entry[:2]
            assert entry[2] in (None, level)  # None where there is nothing to choose


# timm


def timm_arguments(timm, monkeypatch, name, level, sign):
    monkeypatch.setattr(timm.random, "random", lambda: 0.6 if sign < 0 else 0.4)
    convert = timm.LEVEL_TO_ARG[name]
    return convert(level, timm._HPARAMS_DEFAULT) if convert else ()


@pytest.mark.parametrize("name", RULES["timm"])
def test_amounts_and_pixels_are_timms(timm, monkeypatch, name):
    rule = RULES["timm"][name]
    for image in images().values():
        h, w = image.shape[:2]
        for level in (0, 0.4, 2.5, 5, 9, 9.7, 10):
            for sign in (1, -1) if rule.is_signed else (1,):
                arguments = timm_arguments(timm, monkeypatch, name, level, sign)
                amount = rule.amount(use(level, sign, (h, w)))
                side = {"TranslateXRel": w, "TranslateYRel": h}.get(name, 1)
                expected = arguments[0] * side if arguments else None
                assert amount == expected
                if rule.operation == "Posterize" and amount == 0:
                    continue  # Pillow 13 refuses what timm asks of it
                for resample in ("bilinear", "bicubic"):
                    setting = dict(resample=policies.PILLOW[resample], fillcolor=(9, 128, 3))
                    picture = Image.fromarray(image)
                    expected = timm.NAME_TO_OP[name](picture, *arguments, **setting)
                    found = perform(image, rule, amount, "timm", resample, (9, 128, 3))
                    np.testing.assert_array_equal(found, np.asarray(expected))


def test_operations_are_timms(timm):
    assert sorted(policies.TIMM_OPERATIONS) == sorted(timm._RAND_TRANSFORMS)
    assert sorted(policies.TIMM_INCREASING) == sorted(timm._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("policy", policies.AUTOAUGMENT["timm"])
def test_autoaugment_tables_are_timms(timm, policy):
    expected = timm.auto_augment_policy(policy)
    table = build_policy(name="autoaugment", dialect="timm", policy=policy).table
    assert table == tuple(
        tuple((op.name, op.prob, op.magnitude) for op in pair) for pair in expected
    )


def test_big_vision_has_timms_v0(timm):
    """timm translates by a share of the image, and says that it took the rest over."""
    table = build_policy(name="autoaugment", dialect="big_vision").table
    for ours, theirs in zip(table, timm.auto_augment_policy("v0"), strict=True):
        for entry, op in zip(ours, theirs, strict=True):
            assert entry == (op.name.removesuffix("Rel"), op.prob, op.magnitude)


# draws


def our_draws(monkeypatch, policy):
    """name -> the amounts with which it was done."""
    seen, rng, example = defaultdict(list), np.random.default_rng(0), {"image": images()["noise"]}

    def note(example, rng, operation, amount, **setting):
        seen[operation].append(amount)
        return example

    with monkeypatch.context() as patch:
        patch.setattr(operations, "perform", note)
        for _ in range(DRAWS):
            policy(example, rng)
    return seen


def assert_same_law(ours, theirs):
    """As many of each operation, and amounts of the same distribution."""
    assert ours.keys() == theirs.keys()
    counts = [[len(seen[name]) for name in ours] for seen in (ours, theirs)]
    assert stats.chi2_contingency(counts).pvalue > 0.01
    for name, amounts in ours.items():
        if amounts[0] is not None:
            # A dozen of names, and a discrete law makes the test too mild already.
            assert stats.ks_2samp(amounts, theirs[name]).pvalue > 0.001, name


@pytest.mark.parametrize("name", ["randaugment", "autoaugment"])
def test_draws_are_torchvisions(torchvision, monkeypatch, name):
    import torch

    seen = defaultdict(list)

    def note(image, name, magnitude, **setting):
        has_amount = name not in ("Identity", "AutoContrast", "Equalize", "Invert")
        offset = 1.0 if name in ENHANCED else 0.0
        seen[name].append(round(magnitude + offset, 5) if has_amount else None)
        return image

    monkeypatch.setattr(torchvision, "_apply_op", note)
    torch.manual_seed(0)
    transform = {"randaugment": torchvision.RandAugment, "autoaugment": torchvision.AutoAugment}
    theirs, picture = transform[name](), Image.fromarray(images()["noise"])
    for _ in range(DRAWS):
        theirs(picture)
    ours = our_draws(monkeypatch, build_policy(name=name, dialect="torchvision"))
    # To five digits, since equal amounts may differ in the last bit.
    rounded = {
        name: [None if amount is None else round(amount, 5) for amount in amounts]
        for name, amounts in ours.items()
    }
    assert_same_law(rounded, seen)


@pytest.mark.parametrize(
    "spec, settings",
    [
        ("rand-m9-mstd0.5-inc1", dict(magnitude=9, magnitude_std=0.5, increasing=True)),
        ("rand-m7-n3-p0.8", dict(magnitude=7, num_ops=3, probability=0.8)),
        ("rand-m12-mstd101-mmax15", dict(magnitude=12, magnitude_std=101, magnitude_max=15)),
        ("original-mstd0.5", dict(policy="original", magnitude_std=0.5)),
        ("v0r", dict(policy="v0r")),
    ],
)
def test_draws_are_timms(timm, monkeypatch, spec, settings):
    seen, image = defaultdict(list), images()["noise"]
    sides = {"TranslateXRel": image.shape[1], "TranslateYRel": image.shape[0]}

    def note(name):
        def function(image, *amount, **setting):
            value = amount[0] * sides.get(name, 1) if amount else None
            seen[RULES["timm"][name].operation].append(value)
            return image

        return function

    for name in RULES["timm"]:
        monkeypatch.setitem(timm.NAME_TO_OP, name, note(name))
    is_random = spec.startswith("rand")
    transform = timm.rand_augment_transform if is_random else timm.auto_augment_transform
    theirs = transform(spec)
    random.seed(0)
    np.random.seed(0)
    for _ in range(DRAWS):
        theirs(image)
    name = "randaugment" if is_random else "autoaugment"
    ours = our_draws(monkeypatch, build_policy(name=name, dialect="timm", **settings))
    assert_same_law(ours, seen)
