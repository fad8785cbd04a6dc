"""The linear classifier on top of every backbone.

Letters: b examples, r channels of the representation, k classes.
"""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

HEAD_NORMS = ("none", "batch")
# Of the running statistics, as torch's default; epsilon as MAE's linear probe (arXiv:2111.06377).
BATCH_NORM = dict(momentum=0.9, epsilon=1e-6)


def classify(
    representation: Float[Array, "b r"],
    num_classes: int,
    *,
    bias: float | None = 0.0,
    std: float = 0.0,
    norm: str = "none",
    train: bool = False,
    name: str = "head",
) -> Float[Array, "b k"] | None:
    """Logits of a layer that is zero at the start, in float32 whatever the rest computes in.

    To be called inside a compact module, which then holds the layer.

    Args:
      num_classes: k; 0 for no layer and no logits.
      bias: its initial value; None for a layer without one.
      std: of the kernel's initial values, which are normal.
      norm: 'batch' for a batch norm before the layer, without scale and bias. Its running mean and
        variance, in `batch_stats`, are moved in training and used otherwise. The batch is a
        (micro)batch of all devices, rows that are padding or unreadable included.
      name: of the layer's parameters.
    """
    if not num_classes:
        return None
    if norm == "batch":
        representation = nn.BatchNorm(
            use_running_average=not train,
            use_scale=False,
            use_bias=False,
            dtype=jnp.float32,
            name=f"{name}_norm",
            **BATCH_NORM,
        )(representation)
    layer = nn.Dense(
        num_classes,
        use_bias=bias is not None,
        kernel_init=nn.initializers.normal(std) if std else nn.initializers.zeros,
        bias_init=nn.initializers.constant(bias or 0.0),
        dtype=jnp.float32,
        name=name,
    )
    return layer(representation)
