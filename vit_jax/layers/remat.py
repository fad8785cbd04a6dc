"""Rematerialisation: what a block's backward pass keeps of its forward pass, the rest it computes
again (arXiv:1604.06174). The outermost input of each block is always kept.

What each keeps of a token in a block of width c and MLP width 4·c, and which of the products with
weights it repeats, in parts of a training step's; all but 'none' repeat the maps of attention:

  none       everything: more than 14·c, and the maps            nothing
  dots       outputs of products with weights: 9·c               nothing
  attention  those of attention: 5·c                             the MLP's first: 1/9
  full       c                                                   all but the MLP's second: 2/9
  offload    c, and 8·c in the host's memory                     nothing, but it copies both ways
"""

import flax.linen as nn
import jax

from vit_jax import sections
from vit_jax.errors import InputError

# Names that attention gives to outputs of its projections, for the policy of its name.
PROJECTIONS = ("query_key_value", "attention_out")
HOST = "pinned_host"  # memory of the host that a device can copy to by itself
# From the one that keeps most to the one that keeps least on the device.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "attention": jax.checkpoint_policies.save_only_these_names(*PROJECTIONS),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload": jax.checkpoint_policies.offload_dot_with_no_batch_dims("device", HOST),
}


def rematerialise(block: type[nn.Module], name: str) -> type[nn.Module]:
    """The block that keeps what the policy `name` says; for the body of a scan.

    XLA merges equal computations, so it undoes rematerialisation where it sees both: between
    passes of a scan it does not, within one pass (`unroll` above 1) it may.

    Raises:
      InputError: for a name that is none, or 'offload' where devices have no such host memory.
    """
    where = "config.task.model.remat"
    policy = sections.choose(REMAT_POLICIES, name, where=where)
    if policy is None:
        return block
    if name == "offload" and HOST not in (found := host_memories()):
        raise InputError(
            f"{where} is 'offload', but {jax.devices()[0].device_kind} has the memories "
            f"{', '.join(found)} and no {HOST}; allowed here: none, dots, attention, full."
        )
    return nn.remat(block, policy=policy, prevent_cse=False)


def host_memories() -> list[str]:
    """Kinds of memory that a device can address; a CPU's are all the same memory."""
    return sorted(memory.kind for memory in jax.local_devices()[0].addressable_memories())
