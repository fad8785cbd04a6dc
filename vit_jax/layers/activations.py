"""Activations of MLPs.

Letters: Φ, φ the normal distribution's cumulative function and density.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@jax.custom_jvp
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x · Φ(x) (arXiv:1606.08415), exactly.

    Φ by erf, as in PyTorch. `flax.linen.gelu` has it by erfc, which is closer for x below -4, where
    the result is 0 within a float32 rounding of x; but XLA computes two branches of erfc for every
    number. The derivative, Φ + x · φ, is all that the backward pass keeps.
    """
    return x * _cumulative(x)


@gelu.defjvp
def _gelu_jvp(primals, tangents):
    (x,), (tangent,) = primals, tangents
    cumulative = _cumulative(x)
    density = jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return x * cumulative, tangent * (cumulative + x * density)


def _cumulative(x: Array) -> Array:
    return 0.5 * (1 + lax.erf(x * math.sqrt(0.5)))


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return x * nn.sigmoid(1.702 * x)


# name -> function, and whether a second projection gates it (GLU, arXiv:2002.05202).
ACTIVATIONS = {
    "gelu_tanh": (nn.gelu, False),  # Google's checkpoints, SigLIP
    "gelu": (gelu, False),  # timm, DeiT, MAE, DINO
    "quick_gelu": (quick_gelu, False),  # OpenAI's CLIP
    "swiglu": (nn.silu, True),  # DINOv2 g, DINOv3 H+ and 7B
}
