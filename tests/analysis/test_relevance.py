"""Relevance, rollout and last maps against maps in memory, `jax.grad` through them, and loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain_vit
import pytest
from toys import normal, random_like

from vit_jax import models
from vit_jax.analysis import attention, relevance
from vit_jax.errors import InputError
from vit_jax.models import vit

TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2)
IMAGE = (8, 12, 3)  # two rows of three patches
CLASSES = jnp.asarray([3, 0])


@functools.cache
def model_and_variables(shape=IMAGE, **settings):
    model = vit.build(**{**TINY, **settings})
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, {name: random_like(tree) for name, tree in variables.items()}


def maps_and_gradients(model, variables, images, classes):
    """Of each layer and the pooling, in memory; the gradient by `jax.grad` at the maps."""

    def target(added):
        found = plain_vit.run(model, variables, images, added)
        if found.logits is None:  # half of the square's gradient is that with one factor fixed
            return (found.representation**2).sum() / 2, found.maps
        return found.logits[jnp.arange(len(images)), classes].sum(), found.maps

    maps = jax.eval_shape(lambda: plain_vit.run(model, variables, images)).maps
    zeros = [jnp.zeros(one.shape) for one in maps]
    gradients, maps = jax.jit(jax.grad(target, has_aux=True))(zeros)
    return ([np.asarray(one, np.float64) for one in each] for each in (maps, gradients))


def read_by_head(model, matrices, pooling):
    """Rows [b, n] of matrices [b, n, n] that the head reads; `pooling` [b, n], where it pools."""
    first = model.num_prefix
    rows = {
        "cls": lambda: matrices[:, 0],
        "gap": lambda: matrices[:, first:].mean(axis=1),
        "cls_gap": lambda: (matrices[:, 0] + matrices[:, first:].mean(axis=1)) / 2,
        "map": lambda: np.stack([w @ m for w, m in zip(pooling, matrices, strict=True)]),
    }[model.pool]()
    if model.distillation_token:
        rows = (rows + matrices[:, 1]) / 2
    return rows[:, first:].reshape(-1, 2, 3)


def weigh_in_loops(maps, gradients):
    """Rule 5: the mean over heads of what is positive in gradient times map."""
    b, h, n, m = maps.shape
    found = np.zeros((b, n, m))
    for i in range(b):
        for head in range(h):
            for q in range(n):
                for k in range(m):
                    product = gradients[i, head, q, k] * maps[i, head, q, k]
                    found[i, q, k] += max(product, 0) / h
    return found


def relevance_in_loops(model, maps, gradients):
    """Rule 6 of the authors' code: R += Ā·R, from the identity, layer after layer."""
    b, _, n, _ = maps[0].shape
    pairs = zip(maps, gradients, strict=True)
    weighed = [weigh_in_loops(*pair) for pair in pairs]
    matrices = np.stack([np.eye(n)] * b)
    for layer in weighed[: model.depth]:
        for i in range(b):
            before = matrices[i].copy()
            for q in range(n):
                matrices[i, q] += sum(layer[i, q, k] * before[k] for k in range(n))
    return read_by_head(model, matrices, weighed[-1][:, 0])


VARIANTS = [
    dict(attention_implementation="xla", qk_norm=True, unroll=2),
    dict(attention_implementation="pallas", pool="map", num_registers=2),
    dict(position_embedding="relative", pool="gap", attention_implementation="dense"),
    dict(pool="cls_gap", distillation_token=True, remat="full"),
    dict(num_classes=0, pool="gap", class_token=True),
]


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_methods_equal_loops_over_maps_in_memory(settings):
    model, variables = model_and_variables(**settings)
    images = normal(2, *IMAGE)
    classes = CLASSES if model.num_classes else None
    maps, gradients = maps_and_gradients(model, variables, images, classes)
    found = relevance.attention_relevance(model, variables, images, classes=classes)
    expected = relevance_in_loops(model, maps, gradients)
    assert np.ptp(expected) > 1e-3 and np.all(found >= 0)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)

    # Of all heads and classes alike.
    layers = [one.mean(axis=1) for one in maps[: model.depth]]
    pooling = maps[-1].mean(axis=1)[:, 0]
    n = layers[0].shape[1]
    rolled = np.eye(n)
    for layer in layers:
        rolled = (layer / 2 + np.eye(n) / 2) @ rolled
    found = relevance.rollout(model, variables, images)
    np.testing.assert_allclose(found, read_by_head(model, rolled, pooling), rtol=1e-4)

    last = layers[-1] if model.pool != "map" else np.stack([np.eye(n)] * 2)
    found = relevance.last_attention(model, variables, images)
    np.testing.assert_allclose(found, read_by_head(model, last, pooling), rtol=1e-4)


def test_distances_layer_by_layer_are_those_of_all_at_once():
    model, variables = model_and_variables(**VARIANTS[1])
    images = normal(2, *IMAGE)
    maps = attention.attention_maps(model, variables, images)
    found = attention.attention_distances(model, variables, images)
    expected = attention.attention_distance(maps, (2, 3), (4, 4), num_prefix=model.num_prefix)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_the_row_that_the_head_reads_is_that_of_the_whole_rollout():
    settings = dict(position_embedding="rope", dtype="bfloat16", num_registers=1)
    model, variables = model_and_variables(**settings)
    images = normal(2, *IMAGE)
    maps = attention.attention_maps(model, variables, images)
    whole = attention.attention_rollout(maps, residual=0.25)
    found = attention.output_rollout(model, variables, images, residual=0.25)
    expected = whole[:, 0, model.num_prefix :].reshape(2, 2, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    with pytest.raises(InputError, match="residual is 1; allowed"):
        attention.output_rollout(model, variables, images, residual=1)


def test_a_class_is_explained_and_by_default_the_predicted_one():
    model, variables = model_and_variables(attention_implementation="xla", qk_norm=True, unroll=2)
    images = normal(2, *IMAGE)
    logits = jax.jit(model.apply)(variables, images).logits
    by_default = relevance.attention_relevance(model, variables, images)
    chosen, other = (
        relevance.attention_relevance(model, variables, images, classes=classes)
        for classes in (logits.argmax(axis=1), logits.argmin(axis=1))
    )
    np.testing.assert_allclose(by_default, chosen, rtol=1e-5)
    assert np.abs(other - chosen).max() > 1e-3
    for method in relevance.METHODS.values():
        with pytest.raises(InputError, match=r"classes are \[5, 0\]; allowed: .* 2 images .* to 4"):
            method(model, variables, images, classes=jnp.asarray([5, 0]))
        with pytest.raises(InputError, match=r"classes are \[1\]"):
            method(model, variables, images, classes=jnp.asarray([1]))


def test_gradient_times_input_is_that_of_tokens_that_are_linear_in_pixels():
    """Of a patch embedding without bias, and a model that was not told of images at all."""
    model, variables = model_and_variables(patch_bias=False)
    images = normal(2, *IMAGE)
    found = relevance.gradient_times_input(model, variables, images, classes=CLASSES)
    kernel = variables["params"]["patch_embedding"]["kernel"]
    size = (len(images), 2, 4, 3, 4, 3)  # rows, their pixels, columns, their pixels, channels

    def logits(images):
        return model.apply(variables, images).logits[jnp.arange(2), CLASSES].sum()

    # The gradient at tokens, from that at pixels: kernels of 48 pixels and 8 channels are onto.
    at_pixels = jax.jit(jax.grad(logits))(images).reshape(size).swapaxes(2, 3).reshape(2, 2, 3, 48)
    at_tokens = at_pixels @ jnp.linalg.pinv(kernel.reshape(48, 8)).T
    tokens = images.reshape(size).swapaxes(2, 3).reshape(2, 2, 3, 48) @ kernel.reshape(48, 8)
    # float32 through a pseudoinverse
    np.testing.assert_allclose(found, (at_tokens * tokens).sum(axis=-1), rtol=1e-3, atol=1e-5)


def test_pictures_move_with_patches():
    """Without positions a flip of patches flips each picture, and nothing else."""
    model, variables = model_and_variables(pool="gap", position_embedding="none")
    images = normal(2, *IMAGE)
    turned = images.reshape(2, 2, 4, 3, 4, 3)[:, ::-1, :, ::-1].reshape(images.shape)
    for name in ("relevance", "rollout"):
        method = relevance.METHODS[name]
        there, back = (method(model, variables, x) for x in (images, turned))
        assert np.abs(there - there[:, ::-1, ::-1]).max() > 1e-3, name
        np.testing.assert_allclose(there, back[:, ::-1, ::-1], rtol=1e-3, atol=1e-6, err_msg=name)


def test_hybrids_have_a_picture_in_the_grid_of_their_stem():
    shape = (18, 24, 3)  # 5 by 6 places behind the stem, and 1 by 2 patches of 5 by 3
    settings = dict(stem="resnet_root", patch_size=(5, 3))
    model, variables = model_and_variables(shape, **settings)
    images = normal(1, *shape)
    assert relevance.rollout(model, variables, images).shape == (1, 1, 2)
    found = relevance.gradient_times_input(model, variables, images)
    gradient = jax.jit(jax.grad(lambda x: model.apply(variables, x).logits.max()))(images)
    assert attention.pixels_of_patch(model) == (20, 12)
    expected = [(gradient * images)[:, :, :12].sum(), (gradient * images)[:, :, 12:].sum()]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-3, atol=1e-5)


def test_models_that_cannot_be_explained_are_refused():
    mixer = models.build("mixer", size="S", patch_size=16, num_classes=2)
    headless, variables = model_and_variables(num_classes=0, pool="gap", class_token=True)
    images = normal(2, *IMAGE)
    for method in relevance.METHODS.values():
        with pytest.raises(InputError, match="a Mixer has no attention"):
            method(mixer, {}, images)
        with pytest.raises(InputError, match="the model has no head; allowed: None"):
            method(headless, variables, images, classes=CLASSES)


@pytest.mark.parametrize(
    "settings",
    [
        dict(attention_implementation="dense"),
        dict(attention_implementation="pallas", pool="map"),
        dict(position_embedding="relative", pool="gap"),
    ],
    ids=str,
)
def test_memory_is_that_of_few_layers(settings):
    """Of 16 layers' maps not even half are in memory at once, and all else is small."""
    depth, image = 16, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    model = vit.build(**{**TINY, "patch_size": 2, "depth": depth, **settings})
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    of_one_layer = 4 * TINY["num_heads"] * (16 * 16) ** 2
    walks = {
        "relevance": relevance._relevance.lower(model, variables, image, None),
        "rollout": attention.output_rollout.lower(model, variables, image),
        "distances": attention.attention_distances.lower(model, variables, image),
    }
    for name, walk in walks.items():
        used = walk.compile().memory_analysis().temp_size_in_bytes
        assert of_one_layer <= used < depth / 2 * of_one_layer, name
