"""Rows, columns and offsets of a run's own weights, for images of another size."""

import dataclasses

import numpy as np
import pytest
from flax import traverse_util
from pretrained import CLASSES, SETTINGS, images, logits, preprocessing, vit

from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.weights import Source, loading
from vit_jax.weights.table import Rule, Table

SIZE = (16, 16)


def source_and_params(position_embedding):
    """Weights as a run of ours has them."""
    own = dict(pool="gap", position_embedding=position_embedding)
    params = vit(SIZE, **own)[1]["params"]
    arrays = traverse_util.flatten_dict({**params}, sep="/")
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    return Source(
        table=Table(family="vit_jax", rules=tuple(Rule(name, name) for name in arrays)),
        arrays=arrays,
        name="vit",
        settings=dict(SETTINGS, num_classes=len(CLASSES), **own),
        preprocessing=dataclasses.asdict(preprocessing(image_size=SIZE)),
        class_names=CLASSES,
    ), params


def load(source, size, **settings):
    model = vit(size, **{n: source.settings[n] for n in ("pool", "position_embedding")})[0]
    return model, *loading.load_into(model, source, image_shape=(*size, 3), **settings)


def test_rows_and_columns_are_resized_each():
    source, params = source_and_params("learned2d")
    old = params["position_embedding"]
    model, variables, report = load(source, (16, 24))
    found = variables["params"]["position_embedding"]
    np.testing.assert_array_equal(found["rows"], old["rows"])
    expected = resize.resize_axis(np.asarray(old["columns"]), 6)
    np.testing.assert_array_equal(found["columns"], expected)
    assert [leaf.name for leaf in report.of("resized")] == ["position_embedding/columns"]
    assert logits(model, variables, images((16, 24))).shape == (2, len(CLASSES))


# The second has as many patches, so as many offsets, but rows of another length.
@pytest.mark.parametrize("size", [(16, 24), (8, 32)], ids=str)
def test_offsets_are_of_one_grid(size):
    source, params = source_and_params("relative")
    _, variables, _ = load(source, SIZE)
    found = variables["params"]["encoder"]["blocks"]["attention"]["relative_positions"]
    expected = params["encoder"]["blocks"]["attention"]["relative_positions"]
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    with pytest.raises(InputError, match="'relative', the weights' grid 4x4 .* be resized"):
        load(source, size)
    _, variables, report = load(source, size, initialise=[loading.RELATIVE])
    assert [leaf.name for leaf in report.of("initialised")] == [loading.RELATIVE]
