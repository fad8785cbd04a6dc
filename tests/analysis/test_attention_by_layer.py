"""Attention layer by layer equals what comes of all maps at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_like

from vit_jax.analysis import attention, attention_by_layer
from vit_jax.errors import InputError
from vit_jax.models import mixer, vit

IMAGE = (8, 12, 3)
TINY = dict(num_classes=5, patch_size=4, width=8, depth=3, mlp_dim=12, num_heads=2, unroll=1)


def model_and_variables(**settings):
    model = vit.build(**TINY, **settings)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, {name: random_like(tree) for name, tree in variables.items()}


@pytest.mark.parametrize(
    "settings",
    [
        dict(pool="cls", num_registers=2),
        dict(pool="gap", class_token=False),
        dict(pool="cls_gap", position_embedding="relative"),
        dict(pool="map", class_token=False),
    ],
    ids=str,
)
def test_layer_by_layer_is_the_same_as_at_once(settings):
    model, variables = model_and_variables(**settings)
    images, grid = normal(2, *IMAGE), (2, 3)
    maps = attention.attention_maps(model, variables, images)
    rolled = attention_by_layer.rollout(model, variables, images)
    np.testing.assert_allclose(rolled, attention.attention_rollout(maps), rtol=1e-5, atol=1e-7)
    reach = attention_by_layer.distances(model, variables, images)
    expected = attention.attention_distance(maps, grid, (4, 4), num_prefix=model.num_prefix)
    np.testing.assert_allclose(reach, expected, rtol=1e-5)
    found = attention_by_layer.maps_of_output(model, variables, images, layers=(-1, 0))
    assert found.shape == (2, 2, 2, *grid)
    for i, layer in enumerate((2, 0)):
        patches = maps[layer][:, :, model.num_prefix :].mean(axis=2)
        rows = {
            "cls": maps[layer][:, :, 0],
            "gap": patches,
            "cls_gap": (maps[layer][:, :, 0] + patches) / 2,
            "map": maps[layer].mean(axis=2),
        }[model.pool]
        expected = rows[..., model.num_prefix :].reshape(2, 2, *grid)
        np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-7)


def test_a_model_without_attention_is_refused():
    model = mixer.build(
        num_classes=3, patch_size=4, width=8, depth=1, token_mlp_dim=4, channel_mlp_dim=8
    )
    with pytest.raises(InputError, match="Mixer has no attention"):
        attention_by_layer.maps_of_output(model, {}, normal(1, *IMAGE))
