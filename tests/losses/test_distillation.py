"""The losses of a student against its teacher, by loops over examples and classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal

from vit_jax.losses import distillation

STUDENT, TEACHER = normal(6, 5, seed=1, scale=2.0), normal(6, 5, seed=2, scale=2.0)


def shares(logits, temperature):
    powers = [np.exp(float(logit) / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_by_loops(temperature):
    found = distillation.soft(STUDENT, TEACHER, temperature=temperature)
    for row, student, teacher in zip(found, STUDENT, TEACHER, strict=True):
        pairs = zip(shares(student, temperature), shares(teacher, temperature), strict=True)
        divergence = sum(p * np.log(p / q) for q, p in pairs)
        assert row == pytest.approx(temperature**2 * divergence, rel=1e-5)


def test_hard_by_loops():
    found = distillation.hard(STUDENT, TEACHER)
    for row, student, teacher in zip(found, STUDENT, TEACHER, strict=True):
        chosen = max(range(5), key=lambda k: teacher[k])
        assert row == pytest.approx(-np.log(shares(student, 1)[chosen]), rel=1e-5)


def test_soft_is_zero_and_flat_only_where_both_agree_in_full():
    """A constant beside all logits of a row is no difference."""
    shifted = STUDENT + jnp.arange(6.0)[:, None]
    loss = lambda logits, teacher: distillation.soft(logits, teacher, temperature=3.0).sum()  # noqa: E731
    same, gradient = jax.value_and_grad(loss)(shifted, STUDENT)
    np.testing.assert_allclose(same, 0, atol=1e-5)  # float32 of logits up to 10
    np.testing.assert_allclose(gradient, 0, atol=1e-5)
    assert (distillation.soft(STUDENT, TEACHER, temperature=3.0) > 0.01).all()


def test_the_square_of_the_temperature_keeps_the_size_of_the_gradient():
    """At high temperatures it is that of half the squared distance of centred logits, over k."""
    loss = lambda logits: distillation.soft(logits, TEACHER, temperature=1e3).sum()  # noqa: E731
    centred = (STUDENT - STUDENT.mean(1, keepdims=True)) - (
        TEACHER - TEACHER.mean(1, keepdims=True)
    )
    # The next term is smaller by logits / temperature; float32 differences of 1e-3 count as much.
    np.testing.assert_allclose(jax.grad(loss)(STUDENT), centred / 5, atol=0.01)


def test_agreement_counts_equal_choices():
    student = jnp.array([[0.0, 2, 1], [3, 2, 1], [1, 1, 0]])
    teacher = jnp.array([[5.0, 6, 0], [1, 2, 0], [0, -1, -1]])
    assert distillation.agree(student, teacher).tolist() == [True, False, True]
