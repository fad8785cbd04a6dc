"""Pictures of features: every panel has what it shows, and no text lies on another."""

import itertools

import numpy as np
import pytest
from figure_checks import texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from vit_jax.analysis import attention_figures, feature_figures, relevance_figures
from vit_jax.analysis import figures as figures_of

RNG = np.random.default_rng(0)
LONG = [f"a class with a very long name, number {i}" for i in range(25)]


def check(figures, target):
    """No text over another, none outside; the picture is not of one colour."""
    (figure,) = figures
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for text, box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, f"{text!r} leaves the picture"
    for (text, box), (other, its) in itertools.combinations(boxes, 2):
        width = min(box.x1, its.x1) - max(box.x0, its.x0)
        height = min(box.y1, its.y1) - max(box.y0, its.y0)
        assert width < 1 or height < 3, f"{text!r} lies on {other!r}"
    assert np.asarray(Image.open(target).convert("RGB")).std() > 10


def images(count, channels=1):
    return RNG.integers(0, 256, (count, 8, 12, channels), dtype=np.uint8)


@pytest.mark.parametrize("count, channels", [(1, 3), (3, 1)])
def test_predictions(figures, tmp_path, count, channels):
    bars = [dict(zip(LONG[:3], (0.7, 0.2, 0.1), strict=True))] * count
    target = tmp_path / "a.png"
    feature_figures.draw_probabilities(images(count, channels), bars, target, captions=LONG[:count])
    check(figures, target)


def test_attention_of_many_heads(figures, tmp_path):
    target = tmp_path / "a.png"
    maps = RNG.random((6, 12, 2, 3))
    attention_figures.draw_attention_maps(images(1)[0], maps, target, layers=list("012345"))
    check(figures, target)
    panels = np.array(figures[0].axes, object).reshape(6, 13)
    for row, column in ((0, 0), (2, 3), (5, 11)):  # of layers, and of heads behind their mean
        shown = panels[row, 1 + column].images[0].get_array()
        np.testing.assert_allclose(shown, maps[row, column] / maps[row, column].max())
    mean = maps[2].mean(axis=0)
    over = panels[2, 0].images[1].get_array()
    np.testing.assert_allclose(over, figures_of.enlarged(mean / mean.max(), (8, 12)))


def test_drops_are_red_and_gains_blue(figures, tmp_path):
    drops = np.zeros((1, 2, 3))
    drops[0, 0, 0], drops[0, 1, 2] = 1.0, -1.0
    target = tmp_path / "a.png"
    relevance_figures.draw_drops(np.zeros((1, 8, 12, 1), np.uint8), drops, target, captions=["one"])
    check(figures, target)
    panel = figures[0].axes[1].images[0]
    red, blue = (panel.to_rgba(drops[0])[at] for at in ((0, 0), (1, 2)))
    assert red[0] > red[2] + 0.2 and blue[2] > blue[0] + 0.2


@pytest.mark.parametrize("classes", [None, 3, 10, 25])
def test_maps_with_classes_and_thumbnails(figures, tmp_path, classes):
    places, target = RNG.normal(size=(60, 2)), tmp_path / "a.png"
    labels = None if classes is None else np.arange(60) % classes
    chosen = feature_figures.spread_out(places, 8)
    feature_figures.draw_projection(
        places,
        target,
        labels=labels,
        class_names=LONG,
        thumbnails=[(i, images(1)[0]) for i in chosen],
    )
    check(figures, target)
    assert len(figures[0].legends) == (classes in (3, 10))


def test_thumbnails_keep_their_distance():
    places = RNG.normal(size=(200, 2))
    chosen = feature_figures.spread_out(places, 50, least=0.15)
    unit = places[chosen] / np.ptp(places, axis=0)
    apart = np.abs(unit[:, None] - unit).max(axis=-1) + np.eye(len(chosen))
    assert 5 < len(chosen) == len(set(chosen)) < 50 and apart.min() >= 0.15
    assert len(feature_figures.spread_out(np.ones((9, 2)), 5)) == 1


@pytest.mark.parametrize("shape", [(2, 5), (32, 24)])
def test_similarity_of_few_and_many_layers(figures, tmp_path, shape):
    similarity = RNG.random(shape)
    similarity[0, 0] = np.nan
    names = [
        [f"{letter}{i}" for i in range(size)] for letter, size in zip("rc", shape, strict=True)
    ]
    target = tmp_path / "a.png"
    feature_figures.draw_similarity(similarity, target, rows=names[0], columns=names[1])
    check(figures, target)
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), similarity)
    assert axes.get_ylim()[0] < axes.get_ylim()[1]  # the first row below
    for ticks, of_axis in ((axes.get_yticklabels(), names[0]), (axes.get_xticklabels(), names[1])):
        assert [t.get_text() for t in ticks] == of_axis[:: -(-len(of_axis) // 12)]
    if shape == (2, 5):
        (text,) = (t for t in axes.texts if t.get_position() == (3, 1))
        assert text.get_text() == f"{similarity[1, 3]:.2f}"


def test_features_as_colours(figures, tmp_path):
    colours = {name: RNG.random((2, 2, 3, 3)) for name in ("0", "1", "stage4")}
    feature_figures.draw_feature_colours(images(2), colours, tmp_path / "a.png")
    check(figures, tmp_path / "a.png")
    assert len(figures[0].axes) == 2 * 4
