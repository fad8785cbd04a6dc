"""Where activations live: each device keeps the examples that it was given.

Left to itself, XLA sees parameters split by `fsdp` and batches split by `data` and `fsdp`, and for
every layer chooses anew which of the two to move. It then splits activations by channels and sums
or transposes them in every layer, although the layer's parameters are far smaller. Told that
examples stay where they are, it gathers the parameters of one layer at a time (arXiv:1910.02054),
and along `tensor` it sums once behind attention and once behind the MLP (arXiv:1909.08053).

This is the one place that says so. Layers know nothing of meshes: what a Flax module returns for
examples is intercepted while the program is traced.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from vit_jax.train.sharding import BATCH_AXES, num_batch_shards


def keep_examples(function: Callable[..., Any], mesh: Mesh | AbstractMesh) -> Callable[..., Any]:
    """`function`, traced so that the outputs of all its Flax modules stay split by examples.

    The first axis is taken for the examples' where a module takes and returns arrays of two or
    more axes whose first sizes are multiples of the devices that share a batch. The values that
    are computed do not depend on this, only where.
    """
    if mesh.size == 1:
        return function

    def intercept(call, args, kwargs, context):
        del context
        output = call(*args, **kwargs)
        if not args or not _has_examples(args[0], mesh):
            return output
        return jax.tree.map(lambda x: _split(x, mesh) if _has_examples(x, mesh) else x, output)

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return function(*args, **kwargs)

    return traced


def _has_examples(x: Any, mesh: Mesh | AbstractMesh) -> bool:
    is_array = isinstance(x, jax.Array) and x.ndim >= 2
    return is_array and x.shape[0] > 0 and x.shape[0] % num_batch_shards(mesh) == 0


def _split(x: jax.Array, mesh: Mesh | AbstractMesh) -> jax.Array:
    # Other axes are left to XLA: those of heads and of the MLP's channels follow the parameters.
    spec = PartitionSpec(BATCH_AXES, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))
