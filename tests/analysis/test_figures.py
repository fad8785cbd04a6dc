"""Figures are pictures of what was measured, not blank paper."""

import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.analysis.figures import (
    draw_class_histogram,
    draw_curves,
    draw_predictions,
    new_figure,
)


def write_metrics(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pixels(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


ROWS = [
    {"step": 10, "train/loss": 2.0, "train/learning_rate": 0.1, "speed/images_per_second": 9.0},
    {"step": 20, "train/loss": 1.0, "train/learning_rate": 0.2, "train/top1": 0.5},
    {"step": 20, "test/loss": 1.5, "test/top1": 0.25},
]


def test_curves_are_drawn_and_change_with_the_numbers(tmp_path):
    target = tmp_path / "curves.png"
    assert draw_curves(write_metrics(tmp_path / "a.jsonl", ROWS), target) is True
    first = pixels(target)
    assert first.std() > 5  # not one colour
    assert draw_curves(write_metrics(tmp_path / "a.jsonl", [*ROWS, dict(ROWS[0], step=30)]), target)
    assert (pixels(target) != first).any()


def test_one_panel_a_quantity(tmp_path):
    widths = []
    for names in (["train/loss"], ["train/loss", "test/top1"], list(ROWS[1])[1:]):
        row = {"step": 1, **dict.fromkeys(names, 1.0)}
        draw_curves(write_metrics(tmp_path / "a.jsonl", [row]), tmp_path / "a.png")
        widths.append(pixels(tmp_path / "a.png").shape[1])
    assert widths == [widths[0], 2 * widths[0], 3 * widths[0]]


@pytest.mark.parametrize("rows", [None, [], [{"step": 3, "speed/images_per_second": 5.0}]])
def test_nothing_is_drawn_where_there_is_nothing_to_draw(rows, tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    if rows is not None:
        write_metrics(metrics, rows)
    assert draw_curves(metrics, tmp_path / "curves.png") is False
    assert not (tmp_path / "curves.png").exists()


def test_nan_in_the_log_does_not_stop_the_drawing(tmp_path):
    rows = [*ROWS, {"step": 30, "train/loss": float("nan")}]
    assert draw_curves(write_metrics(tmp_path / "a.jsonl", rows), tmp_path / "a.png")


RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.mark.parametrize("count, rows, columns", [(1, 1, 1), (2, 1, 2), (3, 2, 2)])
def test_contact_sheet_shows_every_image(count, rows, columns, tmp_path):
    images = [np.full((8, 8, 3), colour, np.uint8) for colour in (RED, BLUE, RED)[:count]]
    captions = [f"image {i}" for i in range(count)]
    draw_predictions(images, captions, tmp_path / "sheet.png", columns=2)
    sheet = pixels(tmp_path / "sheet.png")
    height, width = sheet.shape[:2]
    assert (round(width / 240), round(height / 288)) == (columns, rows)  # 2.0 × 2.4 inches of 120
    for colour, wanted in ((RED, count - count // 2), (BLUE, count // 2)):
        share = (sheet == colour).all(-1).mean() * rows * columns
        assert share == pytest.approx(0, abs=0.01) if not wanted else share > 0.4 * wanted


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_grey_and_multispectral_images_can_be_shown(channels, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (8, 6, channels), dtype=np.uint8)
    draw_predictions([image], ["a caption"], tmp_path / "sheet.png")
    assert pixels(tmp_path / "sheet.png").std() > 5


@pytest.mark.parametrize("classes", [1, 3, 1000])
def test_class_histogram_shows_the_counts(classes, tmp_path):
    names = [f"class {i}" for i in range(classes)]
    draws = []
    for extra in (0, 50):
        counts = {"train": [10 + extra] + [10] * (classes - 1), "test": [2] * classes}
        draw_class_histogram(counts, names, tmp_path / "a.png")
        draws.append(pixels(tmp_path / "a.png"))
    assert draws[0].std() > 5 and draws[0].shape == draws[1].shape
    assert (draws[0] != draws[1]).any()


@pytest.mark.parametrize("name", ["$x_{y$.png", "a$b$c", "\\frac$", "caf\udce9.png"])
def test_names_are_drawn_as_they_are(name, tmp_path):
    """As a title, at an axis and in a legend; mathematics would raise, or show other letters."""
    figure = new_figure(4, 3)
    axes = figure.add_subplot()
    axes.plot([0, 1], [1, 1000], label=name)
    axes.set(title=name, yscale="log")
    axes.set_xticks([0, 1], [name, "b"])
    axes.legend()
    figure.savefig(tmp_path / "figure.png")
    texts = [axes.title, axes.get_legend().get_texts()[0], axes.get_xticklabels()[0]]
    shown = name.replace("\udce9", "?")
    assert [(text.get_text(), text.get_parse_math()) for text in texts] == 3 * [(shown, False)]
    powers = axes.get_yticklabels()
    assert powers and all(text.get_parse_math() for text in powers)
