"""The picture of a plan has what is told: bars, the device's memory, the parts of a step."""

import copy

import numpy as np
import pytest
from PIL import Image
from plans import TINY, TOLD, make_config

from vit_jax.analysis import plan_figures
from vit_jax.planning import plan


@pytest.fixture(scope="module")
def card():
    return plan(make_config(model=TINY), told=TOLD, num_devices=1, device="h100")


def pixels(card, path):
    plan_figures.draw_plan(card, path)
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def test_picture_shows_memory_and_time_and_follows_the_numbers(card, tmp_path):
    first = pixels(card, tmp_path / "a.png")
    assert first.std() > 5
    width = first.shape[1]
    for change, left in [
        (lambda c: c["memory_bytes"].update(activations=10**11, total=10**11), True),
        (lambda c: c["speed"]["parts_seconds"].update(optimizer=1.0), False),
    ]:
        other = copy.deepcopy(card)
        change(other)
        differs = (pixels(other, tmp_path / "b.png") != first).any(axis=-1).any(axis=0)
        half = differs[: width // 2] if left else differs[2 * width // 3 :]
        assert half.sum() > 20


def test_without_a_device_there_is_memory_alone(card, tmp_path):
    wide = pixels(card, tmp_path / "a.png").shape[1]
    alone = card | dict(device=None, fit=None, speed=None)
    assert pixels(alone, tmp_path / "b.png").shape[1] < 0.7 * wide


def test_every_part_of_the_memory_is_in_a_bar(card):
    drawn = [key for keys in plan_figures.STACK.values() for key in keys]
    assert sorted(drawn) == sorted(card["memory_bytes"].keys() - {"total"})
