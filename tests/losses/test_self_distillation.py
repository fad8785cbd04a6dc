"""DINO's loss, against the loops it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import load_torch
from toys import normal

from vit_jax.losses.self_distillation import centred_targets, view_cross_entropy


def softmax(x):
    e = np.exp(np.asarray(x, np.float64) - np.max(x, -1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@pytest.mark.parametrize("num_local", [0, 3])
def test_every_pair_of_different_views_counts_once(num_local):
    b, g, k = 3, 2, 5
    targets, logits = softmax(normal(b, g, k)), normal(b, g + num_local, k, seed=1)
    expected = np.zeros(b)
    for n in range(b):
        pairs = 0
        for i in range(g):
            for j in range(g + num_local):
                if i != j:
                    log_p = np.log(softmax(np.asarray(logits[n, j], np.float64) / 0.1))
                    expected[n] -= np.sum(targets[n, i] * log_p)
                    pairs += 1
        expected[n] /= pairs
    found = view_cross_entropy(jnp.float32(targets), logits, temperature=0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_logits_of_a_small_temperature_stay_finite():
    logits = 100 * normal(2, 3, 4)

    def loss(x):
        return view_cross_entropy(centred_targets(x, jnp.zeros(4), 0.04), x, temperature=0.1)[0]

    value, gradient = jax.jit(jax.value_and_grad(loss))(logits[:, :2])
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


def test_the_centre_is_taken_off_before_the_temperature():
    logits, centre = normal(2, 3, 4), normal(4, seed=1)
    found = centred_targets(logits, centre, 0.07)
    np.testing.assert_allclose(found, softmax((logits - centre) / 0.07), rtol=1e-5)


@pytest.mark.reference
def test_parity_of_loss_and_gradient_with_torch():
    """DINO's loss and centring written from equations 1, 3 and 4."""
    torch = load_torch()
    teacher, student, centre = normal(4, 2, 6), normal(4, 5, 6, seed=1), normal(6, seed=2)

    def ours(x):
        return view_cross_entropy(centred_targets(teacher, centre, 0.04), x, temperature=0.1).mean()

    value, gradient = jax.jit(jax.value_and_grad(ours))(student)
    t, s, c = (torch.from_numpy(np.array(x)) for x in (teacher, student, centre))
    s.requires_grad_()
    q = torch.nn.functional.softmax((t - c) / 0.04, dim=-1)
    log_p = torch.nn.functional.log_softmax(s / 0.1, dim=-1)
    pairs = [(i, j) for i in range(2) for j in range(5) if i != j]
    loss = sum(-(q[:, i] * log_p[:, j]).sum(-1).mean() for i, j in pairs) / len(pairs)
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, s.grad.numpy(), rtol=1e-4, atol=1e-7)
