"""ViTs with the positions of the paper's Table 8: their parameters, in any layout."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import assert_trees_close, normal, random_like

from vit_jax.analysis.cost import count_parameters
from vit_jax.models import vit
from vit_jax.train import sharding

TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)
IMAGE = (8, 12, 3)  # two rows of three patches
TABLE_8 = ("learned2d", "relative")


def abstract_params(model, shape=IMAGE):
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@functools.cache
def model_and_params(**settings):
    model = vit.build(**{**TINY, **settings})
    return model, random_like(abstract_params(model))


@pytest.mark.parametrize(
    "position_embedding, count",
    [
        ("learned2d", (14 + 14) * 384),
        ("relative", 12 * (2 * 196 - 1) * 64),  # a table a layer, for each offset and channel
        ("learned", 197 * 768),
    ],
)
def test_positions_of_the_base_model_hold_so_many_numbers(position_embedding, count):
    def parameters(name):
        model = vit.build(
            size="B", patch_size=16, num_classes=1000, position_embedding=name, unroll=1
        )
        return count_parameters(abstract_params(model, (224, 224, 3)))

    assert parameters(position_embedding) - parameters("none") == count


def test_names_and_shapes_are_the_documented_ones():
    rows_and_columns = abstract_params(vit.build(**TINY, position_embedding="learned2d"))
    assert jax.tree.map(jnp.shape, rows_and_columns["position_embedding"]) == {
        "columns": (3, 4),
        "rows": (2, 4),
    }
    relative = abstract_params(vit.build(**TINY, position_embedding="relative"))
    tables = relative["encoder"]["blocks"]["attention"]["relative_positions"]
    assert jax.tree.map(jnp.shape, tables) == {"embedding": (2, 11, 4)}
    assert "position_embedding" not in relative


@pytest.mark.parametrize("position_embedding, pool", [("learned2d", "cls"), ("relative", "map")])
def test_scan_and_unrolled_layers_agree_and_remat_changes_nothing(position_embedding, pool):
    model, params = model_and_params(position_embedding=position_embedding, pool=pool)
    image = normal(2, *IMAGE)
    expected = jax.jit(model.apply)({"params": params}, image).logits
    for layout in (dict(unroll=2), dict(remat="full")):
        other = vit.build(**TINY | dict(position_embedding=position_embedding, pool=pool) | layout)
        found = jax.jit(other.apply)({"params": params}, image).logits
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position_embedding", TABLE_8)
def test_positions_tell_patches_apart(position_embedding):
    model, params = model_and_params(position_embedding=position_embedding, pool="gap")
    image = normal(1, *IMAGE)
    turned = image.reshape(1, 8, 3, 4, 3)[:, :, ::-1].reshape(image.shape)
    one, other = (jax.jit(model.apply)({"params": params}, x).logits for x in (image, turned))
    assert not np.allclose(one, other, atol=1e-2)


def test_relative_model_sees_no_place_but_offsets():
    """A masked frame around the content makes where it lies unknowable, but for its offsets."""
    model, params = model_and_params(position_embedding="relative", pool="gap")
    content = normal(1, 4, 8, 3)
    logits = []
    for first in (0, 3):  # the first two patches of the upper and of the lower row
        patches = jnp.full((1, 6, 4, 4, 3), 9.0)
        patches = patches.at[:, first : first + 2].set(
            content.reshape(1, 4, 2, 4, 3).swapaxes(1, 2)
        )
        image = patches.reshape(1, 2, 3, 4, 4, 3).swapaxes(2, 3).reshape(1, *IMAGE)
        mask = jnp.asarray((np.arange(6) - first) // 2 == 0)[None]
        logits.append(jax.jit(model.apply)({"params": params}, image, mask=mask).logits)
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position_embedding", TABLE_8)
def test_eight_devices_equal_one(position_embedding, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)  # or nothing so small would be split
    model, params = model_and_params(position_embedding=position_embedding)

    def gradients(params, image):
        return jax.grad(lambda p: (model.apply({"params": p}, image).logits ** 2).mean())(params)

    image = normal(8, *IMAGE)
    expected = jax.jit(gradients)(params, image)
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    places = sharding.state_sharding(params, mesh)
    split = jax.jit(gradients, in_shardings=(places, sharding.batch_sharding(mesh)))
    # Sums in another order, of gradients of order one.
    assert_trees_close(split(params, image), expected, rtol=1e-4, atol=1e-5)
