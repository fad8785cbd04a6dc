"""Adam's second moment in bfloat16: half its bytes, at the price of noise.

A step moves the second moment by 1 - b2 of its size, 0.1 % for b2 = 0.999. Bfloat16 has eight
significant bits, so neighbours are 0.4 to 0.8 % apart, and rounding to the nearest would undo every
such step: the moment never falls. Rounding up or down at random, with the probabilities that make
the mean exact (stochastic rounding, arXiv:1502.02551), keeps what is lost in one step for another.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, BFloat16, Float


def second_moment_in_bfloat16(adam: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optax.scale_by_adam(...)`, keeping its `nu` in bfloat16 from step to step.

    Within a step all is float32 as before. The random bits come from the number of the step,
    so equal runs have equal bits.
    """

    def init(params):
        state = adam.init(params)
        return state._replace(nu=jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.nu))

    def update(updates, state, params=None):
        nu = jax.tree.map(lambda x: x.astype(jnp.float32), state.nu)
        updates, new = adam.update(updates, state._replace(nu=nu), params)
        key = jax.random.fold_in(jax.random.key(0), state.count)
        leaves, structure = jax.tree.flatten(new.nu)
        keys = (jax.random.fold_in(key, i) for i in range(len(leaves)))
        rounded = [round_stochastically(x, k) for x, k in zip(leaves, keys, strict=True)]
        return updates, new._replace(nu=structure.unflatten(rounded))

    return optax.GradientTransformation(init, update)


def round_stochastically(x: Float[Array, "*s"], key: Array) -> BFloat16[Array, "*s"]:
    """One of the two bfloat16 neighbours of each float32, such that the mean is the number."""
    # Bfloat16 is the upper half of a float32: adding a random lower half carries into the upper
    # one as often as the number is far from its lower neighbour.
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    bits = (bits + jax.random.bits(key, x.shape, jnp.uint16)) & jnp.uint32(0xFFFF0000)
    rounded = jax.lax.bitcast_convert_type(bits, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x).astype(jnp.bfloat16)
