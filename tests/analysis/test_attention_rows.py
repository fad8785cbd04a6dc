"""Rows of the maps against all maps at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_like

from vit_jax.analysis.attention import attention_maps
from vit_jax.analysis.attention_rows import output_maps
from vit_jax.errors import InputError
from vit_jax.models import mixer, vit

IMAGE = (8, 12, 3)  # two rows of three patches
TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)


@pytest.mark.parametrize("pool, registers", [("cls", 2), ("gap", 1), ("cls_gap", 0), ("map", 0)])
def test_rows_are_those_that_the_head_reads(pool, registers):
    model = vit.build(**TINY, pool=pool, num_registers=registers)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = random_like(jax.eval_shape(model.init, jax.random.key(0), image))
    images, first = normal(2, *IMAGE), model.num_prefix
    found = output_maps(model, variables, images, layers=(-1, 0))
    every = np.asarray(attention_maps(model, variables, images))[[1, 0]]
    queries = {
        "cls": [0],
        "gap": range(first, first + 6),
        "cls_gap": [0] * 6 + list(range(first, first + 6)),
        "map": range(first + 6),
    }[pool]
    expected = sum(every[..., q, first:] for q in queries) / len(queries)
    assert found.shape == (2, 2, 2, 2, 3)
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-7)


def test_a_model_without_attention_is_refused():
    model = mixer.build(
        num_classes=3, patch_size=4, width=8, depth=1, token_mlp_dim=4, channel_mlp_dim=8
    )
    with pytest.raises(InputError, match="Mixer has no attention"):
        output_maps(model, {}, normal(1, *IMAGE))
