"""Policies follow their stated laws; nothing configured is ignored."""

import dataclasses
import math
import pickle
import random
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from vit_jax.data.augment import operations, policies, policy_laws
from vit_jax.data.augment.levels import RULES
from vit_jax.data.augment.policies import build_policy
from vit_jax.errors import InputError

DRAWS = 4000
EVERY = [
    dict(name="randaugment", dialect="big_vision", num_ops=2, magnitude=15),
    dict(name="randaugment", dialect="torchvision"),
    dict(name="randaugment", dialect="timm", magnitude=9, magnitude_std=0.5, increasing=True),
    dict(name="randaugment", dialect="timm", magnitude=7, probability=0.9, interpolation="nearest"),
    *(
        dict(name="autoaugment", dialect=dialect, policy=policy)
        for dialect, tables in policies.AUTOAUGMENT.items()
        for policy in tables
    ),
    dict(name="autoaugment", dialect="timm", magnitude_std=101, fill=(124, 116, 104)),
    dict(name="three_augment", dialect="torchvision"),
    dict(name="three_augment", dialect="timm"),
]


def ids(settings):
    return "-".join(map(str, settings.values()))


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (13, 17, 3), np.uint8)


@dataclasses.dataclass
class Recorder:
    """Stands in for a `Style`: notes what is used, and changes nothing."""

    uses: list

    def use(self, example, rng, name, level):
        self.uses.append((name, level))
        return example


def record(policy, draws=DRAWS):
    """Per call, the (name, level) of each operation that was done."""
    recorder, rng, calls = Recorder([]), np.random.default_rng(0), []
    policy = dataclasses.replace(policy, style=recorder)
    for _ in range(draws):
        recorder.uses = []
        policy({}, rng)
        calls.append(recorder.uses)
    return calls


def amounts(monkeypatch, style, name, level, draws=DRAWS, seed=0):
    """(amount, interpolation) of many uses of one operation."""
    seen = []

    def perform(example, rng, operation, amount, *, dialect, resample, fill):
        seen.append((amount, resample))
        return example

    monkeypatch.setattr(operations, "perform", perform)
    rng, example = np.random.default_rng(seed), {"image": picture()}
    for _ in range(draws):
        style.use(example, rng, name, level)
    return seen


@pytest.mark.parametrize("settings", EVERY, ids=ids)
def test_a_policy_is_a_function_of_the_generator(settings):
    policy, image = build_policy(**settings), picture()
    before, state = image.copy(), (np.random.get_state()[1].tobytes(), random.getstate())
    results = [policy({"image": image}, np.random.default_rng(k))["image"] for k in range(40)]
    assert all(r.shape == image.shape and r.dtype == np.uint8 for r in results)
    copy = pickle.loads(pickle.dumps(policy))
    for k, result in enumerate(results):
        again = copy({"image": image}, np.random.default_rng(k))["image"]
        assert np.array_equal(again, result)
    assert len({r.tobytes() for r in results}) > 2
    assert np.array_equal(image, before)
    assert state == (np.random.get_state()[1].tobytes(), random.getstate())


@pytest.mark.parametrize("settings", EVERY, ids=ids)
def test_a_policy_takes_grey_images(settings):
    policy = build_policy(**settings)
    if isinstance(settings.get("fill"), tuple):
        return  # three values are a colour
    for k in range(40):
        result = policy({"image": picture()[..., :1]}, np.random.default_rng(k))["image"]
        assert result.shape == (13, 17, 1) and result.dtype == np.uint8


@pytest.mark.parametrize(
    "settings, names",
    [(EVERY[0], 16), (EVERY[1], 14), (EVERY[2], 15), (EVERY[3], 15)],
    ids=["big_vision", "torchvision", "timm-increasing", "timm"],
)
def test_randaugment_draws_each_operation_alike(settings, names):
    policy = build_policy(**settings, **({} if "num_ops" in settings else {"num_ops": 3}))
    calls = record(policy)
    counts = Counter(name for call in calls for name, _ in call)
    assert len(counts) == names and counts.keys() <= RULES[settings["dialect"]].keys()
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    assert {level for call in calls for _, level in call} == {policy.magnitude}
    # How many are done is binomial; where all are, there is nothing to draw.
    lengths = np.bincount([len(call) for call in calls], minlength=policy.num_ops + 1)
    law = stats.binom(policy.num_ops, policy.probability).pmf(range(policy.num_ops + 1))
    if policy.probability == 1:
        assert lengths[-1] == DRAWS
    else:
        assert stats.chisquare(lengths, law * DRAWS).pvalue > 0.01


def test_randaugment_draws_with_replacement_and_independently():
    calls = record(build_policy(**EVERY[1]))
    pairs = np.zeros((14, 14))
    position = {name: k for k, name in enumerate(policies.TORCHVISION_OPERATIONS)}
    for (first, _), (second, _) in calls:
        pairs[position[first], position[second]] += 1
    assert stats.chisquare(pairs.ravel()).pvalue > 0.01


def test_autoaugment_draws_a_pair_and_then_each_operation():
    """A table whose entries all differ, so that it is seen which pair was drawn."""
    probabilities = (0.0, 0.2, 0.5, 0.9, 1.0)
    table = tuple(((f"a{k}", p, k), (f"b{k}", 1.0, k)) for k, p in enumerate(probabilities))
    policy = policy_laws.AutoAugment(table=table, style=None)
    calls = record(policy, draws=5 * DRAWS)
    pairs = Counter(call[-1][0] for call in calls)
    assert stats.chisquare([pairs[f"b{k}"] for k in range(5)]).pvalue > 0.01
    firsts = Counter(call[0][0] for call in calls if len(call) == 2)
    for k, probability in enumerate(probabilities):
        found = stats.binomtest(firsts[f"a{k}"], pairs[f"b{k}"], probability)
        assert found.pvalue > 0.01
    assert all(level == int(name[1:]) for call in calls for name, level in call)


@pytest.mark.parametrize("dialect, level", [("big_vision", 5), ("torchvision", 12), ("timm", 5)])
def test_signs_are_drawn_half_and_half(monkeypatch, dialect, level):
    style, signs = build_policy(name="randaugment", dialect=dialect).style, []
    for seed, (name, rule) in enumerate(RULES[dialect].items()):
        uses = amounts(monkeypatch, style, name, level, draws=500, seed=seed)
        found = [amount for amount, _ in uses]
        assert len(set(found)) == 1 + rule.is_signed, name
        if rule.is_signed:
            neutral = 1 if rule.operation in ("Color", "Contrast", "Brightness", "Sharpness") else 0
            assert {np.sign(amount - neutral) for amount in found} == {-1, 1}
            signs += [amount > neutral for amount in found]
    assert len(signs) >= 2500 and stats.binomtest(sum(signs), len(signs)).pvalue > 0.01


def test_timm_draws_the_interpolation_for_each_use(monkeypatch):
    style = build_policy(name="randaugment", dialect="timm").style
    kernels = Counter(kernel for _, kernel in amounts(monkeypatch, style, "Rotate", 3))
    assert set(kernels) == {"bilinear", "bicubic"}
    assert stats.binomtest(kernels["bicubic"], DRAWS).pvalue > 0.01


def test_timm_noise_on_the_level_is_normal_and_cut(monkeypatch):
    def levels(**settings):
        style = build_policy(name="randaugment", dialect="timm", **settings).style
        seen = amounts(monkeypatch, style, "Rotate", settings["magnitude"])
        return np.abs([amount for amount, _ in seen]) / 3  # 3 degrees a level

    free = levels(magnitude=5, magnitude_std=0.5)
    assert stats.kstest(free, stats.norm(5, 0.5).cdf).pvalue > 0.01
    cut = levels(magnitude=9, magnitude_std=0.5)
    assert cut.max() == 10
    share = stats.norm(9, 0.5).sf(10)
    assert stats.binomtest(int((cut == 10).sum()), DRAWS, share).pvalue > 0.01
    assert levels(magnitude=9, magnitude_std=2, magnitude_max=12).max() == 12
    uniform = levels(magnitude=8, magnitude_std=101)
    assert stats.kstest(uniform, stats.uniform(0, 8).cdf).pvalue > 0.01


def test_cutout_is_anywhere():
    example, rng, found = {"image": np.zeros((5, 7, 3), np.uint8)}, np.random.default_rng(0), []
    setting = dict(dialect="big_vision", resample="nearest", fill=9)
    for _ in range(DRAWS):
        result = operations.perform(example, rng, "Cutout", 1, **setting)["image"][..., 0]
        found.append(tuple(np.argwhere(result).max(axis=0)))  # the centre, its lowest corner
    counts = Counter(found)
    assert set(counts) == {(row, column) for row in range(5) for column in range(7)}
    assert stats.chisquare(list(counts.values())).pvalue > 0.01


def test_three_augment_is_one_of_three(monkeypatch):
    seen = []
    monkeypatch.setattr(operations, "change_values", lambda _, *call: seen.append(call))
    rng, policy = np.random.default_rng(0), build_policy(name="three_augment", dialect="timm")
    for _ in range(DRAWS):
        policy({}, rng)
    counts = Counter(function.__name__ for function, *_ in seen)
    assert set(counts) == {"grayscale", "solarize", "gaussian_blur"}
    assert stats.chisquare(list(counts.values())).pvalue > 0.01
    radii = [call[1] for call in seen if call[0].__name__ == "gaussian_blur"]
    assert stats.kstest(radii, stats.uniform(0.1, 1.9).cdf).pvalue > 0.01
    assert {call[1] for call in seen if call[0].__name__ == "solarize"} == {128}


@pytest.mark.parametrize("dialect", operations.DIALECTS)
def test_boxes_and_masks_move_along(dialect):
    """By the pixels that the image moves; other operations leave them alone."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 20:40] = 255
    mask = image[None, ..., 0] > 0
    example = {"image": image, "boxes": np.float32([[20, 10, 40, 20]]), "masks": mask}
    setting = dict(dialect=dialect, resample="nearest", fill=0)
    for amount in (7, -7):
        moved = operations.perform(example, None, "TranslateX", amount, **setting)
        rows, columns = np.nonzero(moved["image"][..., 0])
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert abs(columns.min() - 20) == 7
        np.testing.assert_array_equal(moved["boxes"], [box])
        np.testing.assert_array_equal(moved["masks"][0], moved["image"][..., 0] > 0)
    still = operations.perform(example, None, "Invert", None, **setting)
    assert still["boxes"] is example["boxes"] and still["masks"] is example["masks"]


@pytest.mark.parametrize("settings", EVERY, ids=ids)
def test_the_frames_of_a_video_change_alike(settings):
    policy, video = build_policy(**settings), np.stack([picture()] * 3)
    for k in range(20):
        result = policy({"video": video}, np.random.default_rng(k))["video"]
        expected = policy({"image": picture()}, np.random.default_rng(k))["image"]
        assert np.array_equal(result, np.stack([expected] * 3))


def test_colours_need_one_channel_or_three():
    example = {"image": np.zeros((4, 4, 5), np.uint8)}
    with pytest.raises(InputError, match="5 channels.*1 or 3"):
        build_policy(name="three_augment", dialect="timm")(example, np.random.default_rng(0))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(name="augmix", dialect="timm"), "randaugment, autoaugment, three_augment"),
        (dict(name="randaugment", dialect="jax"), "big_vision, torchvision, timm"),
        (dict(name="three_augment", dialect="big_vision"), "torchvision, timm"),
        (dict(name="three_augment", dialect="timm", magnitude=3), "no such setting"),
        (dict(name="randaugment", dialect="timm", num_bins=31), "num_bins is 31"),
        (dict(name="randaugment", dialect="timm", policy="v0"), "policy is 'v0'"),
        (dict(name="randaugment", dialect="torchvision", increasing=True), "increasing is True"),
        (dict(name="randaugment", dialect="big_vision", probability=0.5), "probability is 0.5"),
        (dict(name="randaugment", dialect="big_vision", interpolation="bilinear"), "interpolation"),
        (dict(name="autoaugment", dialect="torchvision", num_ops=2), "num_ops is 2"),
        (dict(name="randaugment", dialect="timm", num_ops=10**30), "num_ops is 10.*less than 101"),
        (dict(name="randaugment", dialect="torchvision", num_bins=10**30), "num_bins is 10"),
        (dict(name="autoaugment", dialect="torchvision", policy="v0"), "imagenet, cifar10, svhn"),
        (dict(name="autoaugment", dialect="timm", policy="3a"), "original, originalr, v0, v0r"),
        (dict(name="randaugment", dialect="torchvision", magnitude=31), "num_bins - 1 = 30"),
        (dict(name="randaugment", dialect="torchvision", magnitude=1.5), "whole number"),
        (dict(name="randaugment", dialect="torchvision", num_bins=1), "2 or more"),
        (dict(name="randaugment", dialect="timm", num_ops=0), "1 or more"),
        (dict(name="randaugment", dialect="timm", num_ops=1.5), "whole number"),
        (dict(name="randaugment", dialect="timm", magnitude=-1), "0 or more"),
        (dict(name="randaugment", dialect="timm", magnitude=math.inf), "magnitude is inf"),
        (dict(name="randaugment", dialect="timm", probability=1.5), "0 to 1"),
        (dict(name="randaugment", dialect="timm", magnitude_max=0), "more than 0"),
        (dict(name="randaugment", dialect="timm", interpolation="area"), "bilinear, bicubic"),
        (dict(name="randaugment", dialect="timm", fill=300), "0 to 255"),
        (dict(name="randaugment", dialect="timm", fill=(0, 0.5, 1)), "0 to 255"),
    ],
)
def test_build_policy_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        build_policy(**settings)
