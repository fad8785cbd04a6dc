"""Pictures show what they are given, at its place."""

import numpy as np
import pytest
from PIL import Image

from vit_jax.analysis import attention_figures, figures


def pixels(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def test_enlarged_shares_agree_with_patches_at_their_centres():
    values = np.random.default_rng(0).random((2, 3))
    found = figures.enlarged(values, (6, 15))  # patches of 3 by 5 pixels
    assert found.shape == (6, 15)
    np.testing.assert_allclose(found[1::3, 2::5], values)
    np.testing.assert_allclose(found[0, 0], values[0, 0])  # constant beyond the centres
    assert values.min() <= found.min() and found.max() <= values.max()


def test_rollout_lights_the_patch_that_counts(tmp_path):
    images = np.full((1, 8, 12, 1), 255, np.uint8)
    bright = []
    for corner in ((0, 0), (1, 2)):
        share = np.full((1, 2, 3), 0.05)
        share[0][corner] = 1.0
        attention_figures.draw_rollout(images, share, tmp_path / "a.png", captions=["white"])
        shown = pixels(tmp_path / "a.png")
        half = shown[:, shown.shape[1] // 2 :].sum(-1)
        bright.append(np.argwhere((half > 650) & (half < 760)).mean(axis=0))
    assert bright[0][0] < bright[1][0] and bright[0][1] < bright[1][1]


def test_each_model_has_a_panel_of_distances(tmp_path):
    rng = np.random.default_rng(0)
    distances = {name: 30 * rng.random((4, 3)) for name in ("one", "two", "three", "four")}
    uniform = dict.fromkeys(distances, 20.0)
    target = tmp_path / "a.png"
    sizes = []
    for count in (1, 3, 4):
        some = dict(list(distances.items())[:count])
        attention_figures.draw_attention_distances(some, target, uniform=uniform)
        assert pixels(target).std() > 5
        sizes.append(Image.open(target).size)
    assert sizes[0][0] < sizes[1][0] == sizes[2][0] and sizes[1][1] < sizes[2][1]


def test_filters_of_any_channels_and_similarities_of_any_grid_are_drawn(tmp_path):
    rng = np.random.default_rng(0)
    for channels in (1, 3, 5):
        filters = rng.normal(size=(9, 4, 4, channels))
        attention_figures.draw_patch_filters(filters, tmp_path / "a.png")
        assert pixels(tmp_path / "a.png").std() > 20
    for grid in ((1, 3), (4, 2), (20, 3)):
        similarity = np.clip(rng.normal(size=(*grid, *grid)), -1, 1)
        attention_figures.draw_position_similarity(similarity, tmp_path / "b.png")
        assert pixels(tmp_path / "b.png").std() > 20


@pytest.mark.parametrize("distance, uniform", [(0.0, 0.0), (np.nan, 3.0)])
def test_distances_of_one_patch_or_of_nothing_are_drawn(distance, uniform, tmp_path, recwarn):
    target, given = tmp_path / "distances.png", {"": np.full((2, 3), distance)}
    attention_figures.draw_attention_distances(given, target, uniform={"": uniform})
    assert pixels(target).std() > 0 and not recwarn.list
