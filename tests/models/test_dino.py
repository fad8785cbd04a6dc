"""DINO's heads, and a network whose views do not know of each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_dino
from references import load_torch
from toys import normal, random_like, random_params

from vit_jax.models.dino import ProjectionHead, build_head

SIZES = dict(depth=3, hidden_dim=7, bottleneck_dim=5, num_prototypes=6)


def head(**changed):
    return ProjectionHead(**{**SIZES, "normalise_last": True, **changed})


def test_the_published_head_has_its_parameters():
    """Of a ViT-S: three layers with biases, and the prototypes."""
    shapes = jax.eval_shape(
        build_head(dtype=jnp.float32).init, jax.random.key(0), jnp.zeros((1, 384))
    )["params"]
    found = sum(np.prod(x.shape) for x in jax.tree.leaves(shapes))
    assert found == 385 * 2048 + 2049 * 2048 + 2049 * 256 + 256 * 65536


def test_logits_are_cosines_where_the_last_layer_is_normalised():
    params = random_params(head(), normal(4, 3))
    logits = head().apply({"params": params}, normal(4, 3))
    assert jnp.abs(logits).max() <= 1 + 1e-6
    scaled = {**params, "last": jax.tree.map(lambda x: 3 * x, params["last"])}
    np.testing.assert_allclose(head().apply({"params": scaled}, normal(4, 3)), logits, atol=1e-6)


def test_learned_magnitudes_begin_at_one():
    x = normal(4, 3)
    params = jax.jit(head(normalise_last=False).init)(jax.random.key(0), x)["params"]
    assert (params["last"]["magnitude"] == 1).all() and params["last"]["magnitude"].shape == (6,)
    logits = head(normalise_last=False).apply({"params": params}, x)
    del params["last"]["magnitude"]
    np.testing.assert_allclose(head().apply({"params": params}, x), logits, atol=1e-6)


def test_zero_input_has_finite_gradients():
    params = jax.tree.map(jnp.zeros_like, random_params(head(), normal(1, 3)))
    run = jax.jit(jax.grad(lambda p: head().apply({"params": p}, jnp.zeros((1, 3))).sum()))
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(run(params)))


def test_views_of_an_example_go_through_the_network_alone():
    """Also of two sizes, with registers in front, and in the order of the views."""
    network = tiny_dino.task(model=dict(num_registers=2), patch_loss={}).network
    large, small = normal(2, 2, 8, 8, 1), normal(2, 3, 4, 4, 1, seed=1)
    # Of the 16 patches of the first view, then of those of the second.
    taken = jnp.asarray([[0, 5, 19, 19], [15, 1, 18, 23]])
    params = random_like(
        jax.eval_shape(network.init, jax.random.key(0), large, taken=taken)["params"]
    )
    run = jax.jit(lambda *views, **kw: network.apply({"params": params}, *views, **kw))
    whole = run(large, small, taken=taken)
    assert whole.representation.shape == (2, 5, 8) and whole.logits.shape == (2, 5, 6)
    for i in range(2):
        of_view = slice(2 * i, 2 * i + 2)
        one = run(large[:, i : i + 1], taken=taken[:, of_view] - 16 * i)
        np.testing.assert_allclose(whole.logits[:, i], one.logits[:, 0], atol=1e-5)
        np.testing.assert_allclose(whole.patch_logits[:, of_view], one.patch_logits, atol=1e-5)
    local = run(small[:, 2:])
    np.testing.assert_allclose(whole.logits[:, 4], local.logits[:, 0], atol=1e-5)


@pytest.mark.reference
@pytest.mark.parametrize("normalise", [True, False])
def test_parity_of_the_head_with_torch(normalise):
    """Linear layers, exact GELU, `normalize` and `weight_norm`, put together from their names."""
    torch = load_torch()
    x, ours = normal(4, 3), head(normalise_last=normalise)
    params = random_params(ours, x)
    layers = []
    for i in range(3):
        kernel, bias = (np.array(params[f"layer_{i + 1}"][n]) for n in ("kernel", "bias"))
        layer = torch.nn.Linear(*kernel.shape)
        layer.weight.data, layer.bias.data = torch.from_numpy(kernel.T), torch.from_numpy(bias)
        layers += [layer] if i == 2 else [layer, torch.nn.GELU()]
    last = torch.nn.utils.weight_norm(torch.nn.Linear(5, 6, bias=False))
    last.weight_v.data = torch.from_numpy(np.array(params["last"]["kernel"]).T)
    magnitude = np.ones(6) if normalise else np.array(params["last"]["magnitude"])
    last.weight_g.data = torch.from_numpy(np.float32(magnitude)[:, None])
    with torch.no_grad():
        hidden = torch.nn.Sequential(*layers)(torch.from_numpy(np.array(x)))
        expected = last(torch.nn.functional.normalize(hidden, dim=-1))
    np.testing.assert_allclose(ours.apply({"params": params}, x), expected, atol=1e-6)
