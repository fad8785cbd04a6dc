"""Pictures show what they are given, at its place."""

import numpy as np
from figure_checks import check
from PIL import Image

from vit_jax.analysis import relevance_figures
from vit_jax.analysis.faithfulness import RANDOM, Curves, compare


def pixels(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def test_each_method_has_a_heat_map_of_its_own(tmp_path):
    """The warm end of the colours is where the one large number is: left, then right."""
    images = np.zeros((1, 8, 8, 1), np.uint8)
    left, right = np.zeros((2, 1, 2, 2))
    left[0, 0, 0], right[0, 1, 1] = 1, 1
    target = tmp_path / "a.png"
    relevance_figures.draw_relevances(images, {"a": left, "b": right}, target, captions=["x"])
    shown = pixels(target)
    warm = np.argwhere((shown[..., 0] > 140) & (shown[..., 2] < 130))  # inferno: yellow over black
    third = shown.shape[1] / 3
    of_a, of_b = (warm[(warm[:, 1] // third) == i] for i in (1, 2))
    assert len(of_a) > 50 and len(of_b) > 50 and not (warm[:, 1] < third).any()
    places = [found.mean(axis=0) - (0, i * third) for i, found in ((1, of_a), (2, of_b))]
    assert places[0][0] < places[1][0] and places[0][1] < places[1][1]


def test_heat_is_from_nothing_to_the_largest():
    heat = relevance_figures.as_heat
    np.testing.assert_allclose(heat(np.array([[2.0, 4.0], [3.0, 2.0]])), [[0, 1], [0.5, 0]])
    np.testing.assert_allclose(heat(np.array([[-2.0, 4.0], [1.0, 0.0]])), [[0, 1], [0.25, 0]])
    np.testing.assert_array_equal(heat(np.full((2, 2), 0.7)), np.zeros((2, 2)))


def test_curves_are_drawn_with_their_areas(figures, tmp_path):
    rng, shares = np.random.default_rng(0), np.linspace(0, 1, 5)
    curves = [Curves(shares, rng.random((3, 5)), rng.random((3, 5))) for _ in range(2)]
    results = {
        name: compare(one, curves[1]) for name, one in zip(("a", RANDOM), curves, strict=True)
    }
    relevance_figures.draw_faithfulness(results, tmp_path / "a.png")
    (figure,) = figures
    assert figure.get_figwidth() < 6.5  # inches: its letters can be read on a telephone
    check(figure)
    for axes, part in zip(figure.axes, ("deletion", "insertion"), strict=True):
        assert axes.get_title().startswith(part)
        for line, (name, found) in zip(axes.lines, results.items(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), shares)
            expected = getattr(found.curves, part).mean(axis=0)
            np.testing.assert_array_equal(line.get_ydata(), expected)
            measured = getattr(found, part)
            label = f"{name}: {measured.mean:.3f} ± {measured.error:.3f}"
            assert line.get_label() == label
