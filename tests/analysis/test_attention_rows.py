"""Rows of the maps against all maps at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_like

from vit_jax.analysis import attention_rows, heads
from vit_jax.analysis.attention import attention_maps
from vit_jax.analysis.attention_rows import output_maps
from vit_jax.errors import InputError
from vit_jax.models import mixer, vit

IMAGE = (8, 12, 3)  # two rows of three patches
TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)


@pytest.mark.parametrize(
    "pool, settings",
    [
        ("cls", dict(num_registers=2)),
        ("cls", dict(distillation_token=True)),
        ("gap", dict(num_registers=1)),
        ("cls_gap", {}),
        ("map", {}),
    ],
)
def test_rows_are_those_that_the_head_reads(pool, settings):
    model = vit.build(**TINY, pool=pool, **settings)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = random_like(jax.eval_shape(model.init, jax.random.key(0), image))
    images, first = normal(2, *IMAGE), model.num_prefix
    found = output_maps(model, variables, images, layers=(-1, 0))
    every = np.asarray(attention_maps(model, variables, images))[[1, 0]]
    patches = every[..., first:, :].mean(axis=-2)
    if pool == "map":  # as much of each token as the head's own attention reads, in each image
        read = jax.jit(heads.read_heads, static_argnames="model")
        reads = read(model, variables, images).pool.weights().mean(axis=1)[:, 0]
        assert np.ptp(reads) > 0.01  # or a plain mean would do
        rows = sum(reads[:, None, q, None] * every[..., q, :] for q in range(first + 6))
    else:
        token = every[..., 0, :]
        rows = {"cls": token, "gap": patches, "cls_gap": (token + patches) / 2}[pool]
    if model.distillation_token:
        rows = (rows + every[..., 1, :]) / 2
    expected = rows[..., first:]
    assert found.shape == (2, 2, 2, 2, 3)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-7)


def test_memory_is_that_of_one_layers_maps():
    """Beside them all that is kept of 16 layers is small."""
    depth, image = 16, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    model = vit.build(**{**TINY, "patch_size": 2, "depth": depth})
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    of_one_layer = 4 * TINY["num_heads"] * (1 + 16 * 16) ** 2
    compiled = attention_rows._output_maps.lower(model, variables, image, tuple(range(depth)))
    used = compiled.compile().memory_analysis().temp_size_in_bytes
    assert of_one_layer <= used < depth / 2 * of_one_layer


def test_a_model_without_attention_is_refused():
    model = mixer.build(
        num_classes=3, patch_size=4, width=8, depth=1, token_mlp_dim=4, channel_mlp_dim=8
    )
    with pytest.raises(InputError, match="Mixer has no attention"):
        output_maps(model, {}, normal(1, *IMAGE))
