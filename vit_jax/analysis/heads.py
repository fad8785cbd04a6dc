"""What one pass leaves of each layer's attention, and maps of it one layer at a time.

A fused kernel stores no maps, and all layers' are n² numbers each. Queries and keys are linear in
the tokens: they are kept of every layer, and a layer's map is computed from them when it is looked
at, whatever kernel the model runs.

Letters: l layers; b images; h heads; n tokens; d channels of a head; o offsets of patches.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from vit_jax.core import Variables
from vit_jax.layers.attention import attention_weights
from vit_jax.layers.position_tables import RelativeKeys
from vit_jax.models.vit import VisionTransformer


@struct.dataclass
class Heads:
    """Of the encoder's layers, and of the head where that pools by attention.

    Attributes:
      query, key, value: as they are multiplied, so normalised and rotated.
      table: each layer's embeddings of offsets, where positions are relative; what they add to the
        scores is computed from it again, since it is as large as the maps.
      num_prefix: tokens in front of the patches.
      pool_query, pool_key, pool_value: of the learned query that reads the tokens (arXiv:2106.04560).
    """

    query: Float[Array, "l b n h d"]
    key: Float[Array, "l b n h d"]
    value: Float[Array, "l b n h d"]
    table: Float[Array, "l o d"] | None = None
    num_prefix: int = struct.field(pytree_node=False, default=0)
    pool_query: Float[Array, "b 1 h d"] | None = None
    pool_key: Float[Array, "b n h d"] | None = None
    pool_value: Float[Array, "b n h d"] | None = None
