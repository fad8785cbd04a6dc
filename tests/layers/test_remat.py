"""Each policy keeps less than the one before it, on the compiled program, and repeats more."""

import functools
import itertools

import jax
import jax.numpy as jnp
import pytest
from learners import optimised

from vit_jax.errors import InputError
from vit_jax.layers import remat
from vit_jax.layers.block import EncoderBlock
from vit_jax.layers.remat import HOST, REMAT_POLICIES, rematerialise
from vit_jax.models import vit

# Deep and narrow, so that what layers keep is most of the memory.
SHAPE = dict(width=64, depth=8, mlp_dim=256, num_heads=2, patch_size=4, pool="gap")


@functools.cache
def compiled(policy, unroll=1):
    """(bytes of temporaries, FLOPs) of the gradient's compiled program."""
    model = vit.build(num_classes=10, **SHAPE, remat=policy, unroll=unroll)
    image = jax.ShapeDtypeStruct((16, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)

    def loss(params, image):
        return model.apply(params, image, train=True).logits.var()

    with optimised():  # as a user has it
        program = jax.jit(jax.grad(loss)).lower(params, image).compile()
    return program.memory_analysis().temp_size_in_bytes, program.cost_analysis()["flops"]


ORDER = ("none", "dots", "attention", "full")


@pytest.mark.parametrize("more, less", list(itertools.pairwise(ORDER)))
def test_each_policy_needs_less_memory_than_the_one_before_and_computes_more(more, less):
    (more_bytes, few_flops), (less_bytes, many_flops) = compiled(more), compiled(less)
    assert less_bytes < 0.95 * more_bytes
    assert many_flops > few_flops


def test_policies_stand_in_the_order_of_what_they_keep():
    assert tuple(REMAT_POLICIES) == (*ORDER, "offload")


def test_unrolling_may_undo_rematerialisation():
    """Why a model that rematerialises has one layer a pass unless told otherwise."""
    assert compiled("full", unroll=8)[0] > 2 * compiled("full")[0]


def test_offload_keeps_what_dots_keep():
    """On a CPU the host's memory is the device's, and XLA leaves everything where it is."""
    assert compiled("offload")[0] == compiled("dots")[0]


def test_offload_sends_what_dots_keep_to_the_host():
    def kept(x, weight):
        policy = REMAT_POLICIES["offload"]
        return jax.checkpoint(lambda x: jnp.sin(x @ weight).sum(), policy=policy)(x)

    x = jnp.ones((8, 4))
    program = str(jax.make_jaxpr(jax.grad(kept))(x, jnp.ones((4, 6))))
    sent = [line for line in program.splitlines() if "device_put" in line and "<host>" in line]
    assert len(sent) == 1 and "f32<host>[8,6]" in sent[0]


def test_offload_is_refused_where_there_is_no_such_memory(monkeypatch):
    monkeypatch.setattr(remat, "host_memories", lambda: ["device", "unpinned_host"])
    allowed = "device, unpinned_host and no pinned_host; allowed here: none, dots, attention, full"
    with pytest.raises(InputError, match=f"'offload', but cpu has the memories {allowed}"):
        rematerialise(EncoderBlock, "offload")


def test_the_cpu_of_these_tests_has_that_memory():
    assert HOST in remat.host_memories()
