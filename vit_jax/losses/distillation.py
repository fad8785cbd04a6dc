"""How far a student's classes are from its teacher's (arXiv:1503.02531, arXiv:2012.12877).

With a student's logits s and a teacher's t of one example, and for any temperature T

    q_k = exp(s_k / T) / sum_j exp(s_j / T)        p_k = exp(t_k / T) / sum_j exp(t_j / T)

    soft = T² sum_k p_k (log p_k - log q_k)        KL(p || q); DeiT's equation 2
    hard = -log q_argmax(t), at T = 1              the teacher's choice is a label; equation 3

The factor T² keeps the gradient's scale, which falls as 1 / T² (arXiv:1503.02531, section 2).
DeiT's code divides `soft` by the number of classes, too; its paper and "patient and consistent"
(arXiv:2106.05237, whose code has the same T²) do not, and neither does this.

Letters: b examples; k classes.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float


def soft(
    student: Float[Array, "b k"], teacher: Float[Array, "b k"], *, temperature: float
) -> Float[Array, " b"]:
    """T² KL(teacher || student) of both logits at temperature T; 0 where they agree in full."""
    log_q, log_p = (jax.nn.log_softmax(logits / temperature) for logits in (student, teacher))
    return temperature**2 * (jnp.exp(log_p) * (log_p - log_q)).sum(-1)


def hard(student: Float[Array, "b k"], teacher: Float[Array, "b k"]) -> Float[Array, " b"]:
    """Cross-entropy with the teacher's highest logit, of equal ones the first, as the label."""
    return optax.softmax_cross_entropy_with_integer_labels(student, teacher.argmax(-1))


def agree(student: Float[Array, "b k"], teacher: Float[Array, "b k"]) -> Bool[Array, " b"]:
    """Is the highest logit of both the same one?"""
    return student.argmax(-1) == teacher.argmax(-1)
