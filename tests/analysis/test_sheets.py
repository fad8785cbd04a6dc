"""Contact sheets show what is in the rows: images, labels, boxes, masks and views."""

import numpy as np
import pytest
from PIL import Image

from vit_jax.analysis import sheets

NAMES = ("cat", "dog", "owl")


def rows(**more):
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 12, 16, 3), dtype=np.uint8),
        "label": np.array([0, 1, 2, 0], np.int32),
        "mask": np.array([True, True, False, True]),
        "index": np.array([5, 6, 7, 8], np.int32),
    }
    return batch | more


def drawn(batch, tmp_path):
    target = tmp_path / "sheet.png"
    sheets.draw_batch(batch, NAMES, target, title="a title")
    image = Image.open(target)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def differing(one, other):
    return (one != other).any(axis=-1).sum()


def test_images_are_drawn_and_masked_rows_are_not(tmp_path):
    first = drawn(rows(), tmp_path)
    assert first.std() > 5
    changed = rows()
    changed["image"][2] = 0  # masked
    assert np.array_equal(drawn(changed, tmp_path), first)
    changed["image"][1] = 0
    assert differing(drawn(changed, tmp_path), first) > 1000


@pytest.mark.parametrize(
    "more",
    [
        {
            "boxes": np.tile(np.float32([[[2, 3, 9, 11], [0, 0, 0, 0]]]), (4, 1, 1)),
            "box_label": np.tile(np.int32([[1, -1]]), (4, 1)),
        },
        {"segmentation": np.tile(np.int32([[-1] * 8 + [2] * 8]), (4, 12, 1))},
        {"masks": np.tile(np.arange(16) > 9, (4, 1, 12, 1))},
        {"keypoints": np.tile(np.float32([[[[3, 4, 1], [8, 8, 0]]]]), (4, 1, 1, 1))},
    ],
    ids=lambda more: next(iter(more)),
)
def test_each_field_is_seen(more, tmp_path):
    plain = drawn(rows(), tmp_path)
    assert differing(drawn(rows(**more), tmp_path), plain) > 50
    # What stands for no object leaves no trace.
    empty = {
        "boxes": np.zeros((4, 2, 4), np.float32),
        "box_label": np.full((4, 2), -1, np.int32),
        "segmentation": np.full((4, 12, 16), -1, np.int32),
        "masks": np.zeros((4, 2, 12, 16), bool),
        "keypoints": np.zeros((4, 2, 3, 3), np.float32),
    }
    assert np.array_equal(drawn(rows(**{name: empty[name] for name in more}), tmp_path), plain)


def test_captions_tell_all_labels():
    batch = rows()
    assert sheets.caption(batch, 1, NAMES) == "#6 dog"
    del batch["label"]
    assert sheets.caption(batch, 1, NAMES) == "#6"
    batch["labels"] = np.float32([[0, 0, 0], [1, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert sheets.caption(batch, 1, NAMES) == "#6 cat, owl"


def test_views_stand_beside_one_another(tmp_path):
    batch = rows(
        global_images=np.full((4, 2, 12, 12, 3), 100, np.uint8),
        local_images=np.full((4, 3, 6, 6, 3), 50, np.uint8),
    )
    del batch["image"]
    shown = sheets.picture({name: values[0] for name, values in batch.items()})
    assert shown.shape == (12, 2 * (12 + sheets.GAP) + 3 * (6 + sheets.GAP), 3)
    assert (shown == 100).sum() == 2 * 12 * 12 * 3 and (shown == 50).sum() == 3 * 6 * 6 * 3
    drawn(batch, tmp_path)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_can_be_shown(channels, tmp_path):
    batch = rows(image=np.full((4, 6, 6, channels), 9, np.uint8))
    assert sheets.picture({"image": batch["image"][0]}).shape == (6, 6, 3)
    drawn(batch, tmp_path)


def test_nothing_to_show_is_an_empty_page(tmp_path):
    drawn(rows(mask=np.zeros(4, bool)), tmp_path)
