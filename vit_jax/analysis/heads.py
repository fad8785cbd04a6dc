"""What one pass leaves of each layer's attention, and the maps of one layer at a time.

A fused kernel stores no maps, and those of all layers are l·b·h·n² numbers. Queries, keys and
values are linear in the tokens: of these all are kept, and a layer's maps are computed from them
when they are looked at, whatever kernel the model runs.

Letters: l layers; b images; h heads; n tokens; m keys; d channels of a head; o offsets of patches.
"""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from vit_jax.core import Tree, Variables
from vit_jax.errors import InputError
from vit_jax.layers.attention import attention_weights
from vit_jax.layers.attention_choice import Case, cudnn_problem
from vit_jax.layers.position_tables import RelativeKeys
from vit_jax.models.vit import VisionTransformer

MAPS_IN_MEMORY = 2**28  # bytes


@struct.dataclass
class Layer:
    """Of one layer, or of several with an axis in front.

    Attributes:
      query, key, value: as they are multiplied, so normalised and rotated.
      table: embeddings of offsets, where positions are relative. What these add to the scores is as
        large as the maps, so it is computed with them.
      num_prefix: tokens in front of the patches.
    """

    query: Float[Array, "*l b n h d"]
    key: Float[Array, "*l b m h d"]
    value: Float[Array, "*l b m h d"]
    table: Float[Array, "*l o d"] | None = None
    num_prefix: int = struct.field(pytree_node=False, default=0)

    def weights(self) -> Float[Array, "b h n m"]:
        """The maps of one layer, in float32."""
        bias = None
        if self.table is not None:
            keys = RelativeKeys(self.num_prefix)
            bias = keys.apply({"params": {"embedding": self.table}}, self.query)
            bias = bias.astype(jnp.float32)
        query, key = (x.astype(jnp.float32) for x in (self.query, self.key))
        return attention_weights(query, key, None, bias)


@struct.dataclass
class Heads:
    """Of the encoder's layers, stacked, and of the head where that pools by attention."""

    layers: Layer
    pool: Layer | None = None

    def layers_at(self, positions: Sequence[int]) -> Layer:
        return jax.tree.map(lambda x: x[np.asarray(positions)], self.layers)


def find_heads(model: VisionTransformer, variables: Variables, intermediates: Tree) -> Heads:
    """Among a pass's intermediates."""
    ((query, key, value, bias),) = intermediates["encoder"]["blocks"]["attention"]["heads"]
    table = None
    if bias is not None:
        attention = variables["params"]["encoder"]["blocks"]["attention"]
        table = attention["relative_positions"]["embedding"]
    layers = Layer(query, key, value, table, model.num_prefix)
    if model.pool != "map":
        return Heads(layers)
    ((query, key, value, _),) = intermediates["pool"]["attention"]["heads"]
    return Heads(layers, Layer(query, key, value, None, model.num_prefix))


def read_heads(
    model: VisionTransformer, variables: Variables, images: Float[Array, "b H W C"]
) -> Heads:
    """By a forward pass; a part of what is to be compiled."""
    _, kept = rolled(model).apply(variables, images, mutable=["intermediates"])
    return find_heads(model, variables, kept["intermediates"])


def rolled(model: VisionTransformer) -> VisionTransformer:
    """The same function, one layer in a pass of the scan: no two layers' maps exist at once."""
    return runnable(model).clone(unroll=1)


def runnable(model: nn.Module) -> nn.Module:
    """The same function by a kernel that can run here, whichever it was trained with.

    Only cuDNN's is bound to devices and types; 'auto' takes its place elsewhere.
    """
    block = model.block if isinstance(model, VisionTransformer) else None
    if block is None or block.attention_implementation != "cudnn":
        return model
    device, head_size = jax.devices()[0].device_kind, model.width // block.num_heads
    # No attention of the encoder has a mask, and without one lengths do not matter.
    case = Case(
        jax.default_backend(), device, head_size, 0, 0, str(jnp.dtype(block.dtype)), False, True
    )
    has_bias = model.position_embedding == "relative"
    if not has_bias and cudnn_problem(case) is None:
        return model
    return model.clone(block=dataclasses.replace(block, attention_implementation="auto"))


def images_at_once(model: VisionTransformer, grid: tuple[int, int]) -> int:
    """Images of which one layer's maps fit into `MAPS_IN_MEMORY`; one at least."""
    num_tokens = model.num_prefix + math.prod(grid)
    return max(1, MAPS_IN_MEMORY // (4 * model.block.num_heads * num_tokens**2))


def output_weights(model: VisionTransformer, heads: Heads) -> Float[Array, "b n"]:
    """How much of each token after the last layer there is in what the head reads.

    The class token, the mean over patches, or both in equal parts; where attention pools, its own
    map, averaged over heads. Where a second head reads a distillation token, that is half of it.
    """
    _, b, n, *_ = heads.layers.query.shape
    token = jnp.zeros((b, n)).at[:, 0].set(1)
    patches = jnp.zeros((b, n)).at[:, model.num_prefix :].set(1 / (n - model.num_prefix))
    weights = {
        "cls": lambda: token,
        "gap": lambda: patches,
        "cls_gap": lambda: (token + patches) / 2,
        "map": lambda: heads.pool.weights().mean(axis=1)[:, 0],
    }[model.pool]()
    return with_distillation(model, weights)


def with_distillation(
    model: VisionTransformer, weights: Float[Array, "b n"]
) -> Float[Array, "b n"]:
    """The mean of these and of the distillation token alone, where logits are such a mean."""
    if not (model.distillation_token and model.num_classes):
        return weights
    return (weights / 2).at[:, 1].add(0.5)


def check_has_attention(model: object) -> VisionTransformer:
    """The model, if its tokens attend to each other."""
    if not isinstance(model, VisionTransformer):
        raise InputError(
            f"a {type(model).__name__} has no attention between tokens; allowed: a "
            "VisionTransformer."
        )
    return model
