"""Rows of one shape, whatever is in the example; what does not fit is refused by name."""

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.batching.rows import PADDING, RowMaker
from vit_jax.data.examples import Source, UnreadableExample
from vit_jax.data.images.decode import pixels, read_encoded
from vit_jax.errors import InputError


class Listed(Source):
    name, class_names = "listed", ("a", "b", "c")

    def __init__(self, *examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def read(self, i):
        if isinstance(self.examples[i], Exception):
            raise self.examples[i]
        return self.examples[i]


def same(example, rng):
    return example


def decoded(example, rng):
    return {**example, "image": pixels(example["image"])}


def image(value=0):
    return np.full((2, 2, 1), value, np.uint8)


def rows(source, positions=None, **settings):
    maker = RowMaker(source=source, transform=same, **settings)
    positions = np.arange(len(source)) if positions is None else np.asarray(positions)
    batch = maker.empty(len(positions))
    bad = maker.fill(positions, maker.numbers(positions), batch)
    return batch, bad


def test_several_labels_become_ones():
    source = Listed(*({"image": image(), "labels": labels} for labels in ((), (2,), (0, 1, 2))))
    batch, _ = rows(source)
    assert batch["labels"].dtype == np.float32 and "label" not in batch
    assert batch["labels"].tolist() == [[0, 0, 0], [0, 0, 1], [1, 1, 1]]
    assert batch["mask"].all()


def test_objects_are_padded():
    objects = [0, 2, 3]
    source = Listed(
        *(
            {
                "image": image(),
                "boxes": np.full((n, 4), 1.5, np.float32),
                "box_label": np.full(n, 2, np.int32),
                "masks": np.ones((n, 2, 2), bool),
                "keypoints": np.ones((n, 5, 3), np.float32),
                "caption": "text stays with the transform",
            }
            for n in objects
        )
    )
    batch, _ = rows(source, max_objects=3)
    assert batch["boxes"].shape == (3, 3, 4) and batch["keypoints"].shape == (3, 3, 5, 3)
    assert (batch["box_label"] != -1).sum(1).tolist() == objects
    for i, n in enumerate(objects):
        assert np.all(batch["boxes"][i, :n] == 1.5) and not batch["boxes"][i, n:].any()
        assert batch["masks"][i, :n].all() and not batch["masks"][i, n:].any()
    assert "caption" not in batch
    with pytest.raises(InputError, match=r"listed #2: it has 3 boxes; data.max_objects allows 2"):
        rows(source, max_objects=2)
    with pytest.raises(InputError, match="data.max_objects is missing"):
        rows(source)


def test_padding_and_skipped_rows_are_zero_but_for_their_index():
    broken = UnreadableExample("x.jpg", "it is empty")
    source = Listed({"image": image(7), "label": 1}, broken, {"image": image(9), "label": 2})
    batch, bad = rows(source, [0, 1, 2, PADDING], skip_bad_examples=True)
    assert batch["index"].tolist() == [0, 1, 2, -1]
    assert batch["mask"].tolist() == [True, False, True, False]
    assert batch["label"].tolist() == [1, 0, 2, 0]
    assert batch["image"][:, 0, 0, 0].tolist() == [7, 0, 9, 0]
    assert bad == [("listed #1", "it is empty")]
    with pytest.raises(UnreadableExample, match="x.jpg: it is empty; set data.skip_bad_examples"):
        rows(source)


def test_shapes_come_from_the_first_readable_example():
    broken = UnreadableExample("x.jpg", "it is empty")
    maker = RowMaker(
        source=Listed(broken, {"image": image(), "label": 1}),
        transform=same,
        skip_bad_examples=True,
    )
    assert maker.spec["image"] == ((2, 2, 1), "uint8") and maker.spec["label"] == ((), "int32")
    with pytest.raises(InputError, match="no readable example among its 2"):
        RowMaker(source=Listed(broken, broken), transform=same, skip_bad_examples=True)


def test_rows_of_another_shape_or_without_a_field_are_named():
    other = {"image": np.zeros((3, 2, 1), np.uint8), "label": 0}
    with pytest.raises(InputError, match=r"#1: its image became \(3, 2, 1\), expected \(2, 2, 1\)"):
        rows(Listed({"image": image(), "label": 0}, other))
    with pytest.raises(InputError, match="#1: its label became nothing"):
        rows(Listed({"image": image(), "label": 0}, {"image": image()}))


def test_it_is_known_whether_images_are_to_be_decoded(tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(file)
    encoded = {"image": read_encoded(file), "label": 0}
    plain = {"image": np.zeros((2, 2, 3), np.uint8), "label": 0}
    broken = UnreadableExample("x.jpg", "it is empty")
    for examples, expected in (
        ([encoded, plain], True),
        ([plain, encoded], False),
        ([broken, plain], True),
    ):
        maker = RowMaker(source=Listed(*examples), transform=decoded, skip_bad_examples=True)
        assert maker.decodes is expected


@pytest.mark.parametrize(
    "example, message",
    [
        ({"label": 3}, "its label has 3; allowed: 0 to 2"),
        ({"label": -1}, "its label has -1"),
        ({"labels": (0, -1)}, "its labels has -1; allowed: 0 to 2"),
        ({"labels": (3,)}, "its labels has 3"),
    ],
)
def test_labels_outside_the_classes_are_refused_whatever_the_source(example, message):
    source = Listed({"image": image(), "label": 0}, {"image": image(), **example})
    with pytest.raises(InputError, match=f"listed #1: {message}"):
        rows(source)
