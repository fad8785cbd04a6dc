"""What may look inside a model, whatever it was trained with."""

import functools

import jax
import jax.numpy as jnp
import pytest

from vit_jax import models
from vit_jax.analysis import attention, attention_rows, features, heads, relevance, token_norms
from vit_jax.analysis.occlusion import occlusion
from vit_jax.errors import InputError
from vit_jax.models import vit

TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)
IMAGE = (8, 12, 3)  # two rows of three patches
LOOKS = {
    "attention_maps": attention.attention_maps,
    "output_rollout": attention.output_rollout,
    "attention_distances": attention.attention_distances,
    "output_maps": attention_rows.output_maps,
    "token_norms": token_norms.token_norms,
    "layer_tokens": features.layer_tokens,
    "pooled_layers": features.pooled_layers,
    "occlusion": functools.partial(occlusion, window=(4, 4)),
    **relevance.METHODS,
}


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="cuDNN's kernel can run here")
@pytest.mark.parametrize("name", LOOKS)
def test_a_model_that_cudnn_trained_is_looked_into_where_there_is_none(name):
    plain, model = (
        vit.build(**TINY, pool="gap", attention_implementation=kernel)
        for kernel in ("auto", "cudnn")
    )
    assert heads.runnable(model) == plain
    image = jax.ShapeDtypeStruct((2, *IMAGE), jnp.float32)
    variables = jax.eval_shape(plain.init, jax.random.key(0), image)
    # Kernels are chosen, and refused, while a function is traced.
    with pytest.raises(InputError, match="'cudnn', but the backend is 'cpu'"):
        jax.eval_shape(model.apply, variables, image)
    found = jax.eval_shape(functools.partial(LOOKS[name], model), variables, image)
    assert jax.tree.leaves(found)


def test_what_can_run_is_left_as_it_is():
    for kernel in ("auto", "dense", "xla", "pallas"):
        model = vit.build(**TINY, attention_implementation=kernel)
        assert heads.runnable(model) is model
    mixer = models.build("mixer", size="S", patch_size=16, num_classes=2)
    assert heads.runnable(mixer) is mixer


def test_as_many_images_at_once_as_their_maps_fit(monkeypatch):
    model = vit.build(**TINY)
    of_an_image = 4 * 2 * (1 + 6) ** 2  # bytes: two heads, a class token and six patches
    for fit, expected in ((0.5, 1), (1, 1), (3.9, 3)):
        monkeypatch.setattr(heads, "MAPS_IN_MEMORY", int(fit * of_an_image))
        assert heads.images_at_once(model, (2, 3)) == expected
