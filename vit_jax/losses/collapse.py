"""What shows that a method without labels collapses, while its loss looks well.

Letters: n samples; k prototypes; c channels; d channels of a sketch.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def entropy(probabilities: Float[Array, "*n k"]) -> Float[Array, "*n"]:
    """-Σ p·log p over k, in nats; 0 log 0 is 0."""
    p = probabilities
    return -jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0), axis=-1)


def mean_of(x: Float[Array, "*n k"], mask: Bool[Array, "*n"]) -> Float[Array, " k"]:
    """The mean of the rows whose mask is True; zero if there is none."""
    samples = tuple(range(mask.ndim))
    total = jnp.sum(jnp.where(mask[..., None], x, 0), axis=samples)
    return total / jnp.maximum(mask.sum(), 1)


def feature_std(x: Float[Array, "n c"], mask: Bool[Array, " n"]) -> Float[Array, ""]:
    """Standard deviation over samples of x / |x|, mean over channels, times √c.

    One for directions that are spread evenly, zero where all samples are alike (SimSiam,
    arXiv:2011.10566, section 4.1).
    """
    x = x.astype(jnp.float32)
    x /= jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
    variance = mean_of((x - mean_of(x, mask)) ** 2, mask)
    return jnp.sqrt(variance).mean() * jnp.sqrt(x.shape[-1])


def sketch(x: Float[Array, "n c"], width: int) -> Float[Array, "n d"]:
    """Products with `width` fixed Gaussian vectors, or x itself where it is no wider than that.

    Of x with few directions the products have as many; the lengths of the largest are nearly kept
    (Johnson and Lindenstrauss), while all those beyond `width` are lost.
    """
    c = x.shape[-1]
    if c <= width:
        return x
    vectors = jax.random.normal(jax.random.key(0), (c, width)) / jnp.sqrt(width)
    return jnp.einsum("nc,cd->nd", x.astype(jnp.float32), vectors, precision="highest")


def effective_rank(x: Float[Array, "n c"], mask: Bool[Array, " n"]) -> Float[Array, ""]:
    """exp of the entropy of the singular values as shares of their sum (RankMe, arXiv:2210.02885).

    Between 1 and min(n, c). The singular values are the roots of the eigenvalues of the smaller
    Gram matrix; those that float32 cannot tell from zero count as zero.
    """
    x = jnp.where(mask[:, None], x.astype(jnp.float32), 0)
    x = x if x.shape[0] >= x.shape[1] else x.T
    values = jnp.linalg.eigvalsh(jnp.einsum("nc,nd->cd", x, x, precision="highest"))
    smallest = len(values) * jnp.finfo(jnp.float32).eps * values.max()
    values = jnp.sqrt(jnp.where(values > smallest, values, 0))
    return jnp.exp(entropy(values / jnp.maximum(values.sum(), jnp.finfo(jnp.float32).tiny)))
