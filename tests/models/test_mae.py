"""The masked autoencoder: its sizes, its definition in NumPy, and that masked patches are gone.

Letters: b examples; m patches; v visible ones.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpy_mae
import pytest
from toys import normal, random_like

from vit_jax.analysis.cost import count_parameters
from vit_jax.errors import InputError
from vit_jax.layers.position import sincos_2d
from vit_jax.models import vit
from vit_jax.models.mae import MaskedAutoencoder, Masking, build_decoder

TINY = dict(num_classes=0, patch_size=(2, 4), width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)
SHAPE = (4, 12, 3)  # 2 rows and 3 columns of patches
NUM_VISIBLE = 2
NOISE = normal(2, 6, seed=3)
MASKING = Masking.of(NOISE, NUM_VISIBLE)
MODELS = {
    "class token": dict(activation="gelu"),
    "average": dict(activation="gelu", pool="gap"),
    "registers": dict(activation="gelu", num_registers=2),
}


def build(image_shape=SHAPE, decoder=None, **settings):
    backbone = vit.build(**{**TINY, **settings})
    decoder = dict(width=12, depth=1, num_heads=3, mlp_dim=20) if decoder is None else decoder
    return MaskedAutoencoder(backbone, build_decoder(backbone, image_shape=image_shape, **decoder))


def params_of(network, image_shape=SHAPE):
    m = math.prod(network.decoder.grid)
    image, noise = (jax.ShapeDtypeStruct((2, *shape), jnp.float32) for shape in (image_shape, (m,)))

    def init(image, noise):
        return network.init(jax.random.key(0), image, Masking.of(noise, m // 4))

    return jax.eval_shape(init, image, noise)["params"]


@pytest.mark.parametrize(
    ("size", "patch_size", "of_encoder", "of_all"),
    [
        ("B", 16, 85_798_656, 111_907_840),
        ("L", 16, 303_301_632, 329_541_888),
        ("H", 14, 630_764_800, 657_074_508),
    ],
)
def test_parameter_counts_are_the_published_ones(size, patch_size, of_encoder, of_all):
    """Of the public code's models, positions included."""
    shape = (224, 224, 3)
    backbone = vit.build(size=size, patch_size=patch_size, num_classes=0, unroll=1)
    network = MaskedAutoencoder(backbone, build_decoder(backbone, image_shape=shape))
    params = params_of(network, shape)
    assert params.keys() == {"backbone", "decoder"}
    assert count_parameters(params["backbone"]) == of_encoder
    assert count_parameters(params) == of_all


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_equals_its_definition(settings):
    network, image = build(**settings), normal(2, *SHAPE)
    params = random_like(params_of(network))
    found = jax.jit(network.apply)({"params": params}, image, MASKING)
    exact = jax.tree.map(np.float64, params)
    for i in range(2):
        expected, masked = numpy_mae.predict(
            exact,
            np.float64(image[i]),
            np.asarray(NOISE[i]),
            patch=(2, 4),
            num_visible=NUM_VISIBLE,
            heads=2,
            decoder_heads=3,
        )
        np.testing.assert_array_equal(MASKING.masked[i], masked)
        np.testing.assert_allclose(found[i], expected, rtol=0, atol=1e-5 * np.abs(expected).max())


REMOVING = {
    "registers": dict(pool="cls_gap", num_registers=2, position_grid=(3, 3)),
    "rope": dict(width=16, position_embedding="rope"),
    "fixed positions": dict(position_embedding="sincos2d", pool="gap"),
}


@pytest.mark.parametrize("settings", REMOVING.values(), ids=REMOVING)
def test_taking_tokens_out_equals_hiding_them_from_attention(settings):
    model, image = vit.build(**{**TINY, **settings}), normal(2, *SHAPE)
    shapes = jax.eval_shape(model.init, jax.random.key(0), image)
    variables = random_like(shapes)
    apply = jax.jit(model.apply)
    without = apply(variables, image, visible=MASKING.visible)
    hidden = apply(variables, image, mask=~MASKING.masked)
    f = model.num_prefix
    assert without.tokens.shape == (2, f + NUM_VISIBLE, model.width)
    seen = jnp.take_along_axis(hidden.tokens[:, f:], MASKING.visible[..., None], axis=1)
    # The sums over keys are in another order, and over zeros besides.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(without.tokens[:, :f], hidden.tokens[:, :f])
    close(without.tokens[:, f:], seen)
    close(without.representation, hidden.representation)


def test_masked_pixels_have_no_influence():
    network, image = build(), normal(2, *SHAPE)
    params = random_like(params_of(network))

    def power(image):
        return jnp.square(network.apply({"params": params}, image, MASKING)).sum()

    gradient = jax.jit(jax.grad(power))(image)
    for i in range(2):
        for found, masked in zip(
            numpy_mae.cut(gradient[i], (2, 4)), MASKING.masked[i], strict=True
        ):
            assert (found == 0).all() == masked


def test_masks_are_drawn_anew_for_each_example_and_each_patch_alike():
    noise = normal(4000, 6)
    masking = Masking.of(noise, 2)
    assert (masking.masked.sum(axis=1) == 4).all()
    # A share of 2/3 among 4,000 has a standard deviation of 0.0075.
    np.testing.assert_allclose(masking.masked.mean(axis=0), 2 / 3, atol=0.03)
    order = np.argsort(noise, axis=1)
    np.testing.assert_array_equal(np.take_along_axis(masking.restore, order, 1), [range(6)] * 4000)


@pytest.mark.parametrize("in_front", [1, 0])
def test_decoder_begins_with_waves_and_zeros_for_tokens_in_front(in_front):
    decoder = build(depth=1).decoder
    tokens = normal(2, in_front, 8), normal(2, NUM_VISIBLE, 8)
    variables = jax.jit(decoder.init)(jax.random.key(0), *tokens, MASKING.restore)
    positions = variables["params"]["position_embedding"][0]
    assert positions.shape == (in_front + 6, 12) and (positions[:in_front] == 0).all()
    waves = sincos_2d((2, 3), 12, endpoint=False)
    np.testing.assert_allclose(positions[in_front:], waves, atol=1e-6)


@pytest.mark.parametrize(
    "decoder", [dict(width=10, num_heads=2), dict(width=12, num_heads=5), dict(width=0)]
)
def test_widths_that_do_not_fit_are_refused(decoder):
    with pytest.raises(InputError, match="width"):
        build(decoder=decoder)
