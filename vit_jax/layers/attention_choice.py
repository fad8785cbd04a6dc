"""Which attention kernel runs where, and why: the rules behind `implementation='auto'`.

The rules on GPUs rest on published figures and arithmetic, not on measurements of this project:
no GPU was at hand. `experiments/throughput` is where they are to be measured.
"""

import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

logger = logging.getLogger(__name__)

# cuDNN's flash attention, by what a device's name holds: Hopper and later, Ampere and Ada.
LARGE_HEADS = ("H100", "H200", "H800", "H20", "B100", "B200", "B300")
SMALL_HEADS = ("A100", "A800", "A10", "A30", "A40", "A6000", "L4", "GeForce RTX 30")
SMALL_HEADS += ("L20", "GeForce RTX 40")
MANY_KEYS = 256
KERNEL = "attention_implementation"  # a key of models


class Case(NamedTuple):
    """What a choice depends on."""

    backend: str  # 'cpu', 'gpu' or 'tpu'
    device_kind: str  # as JAX names it, e.g. 'NVIDIA H100 80GB HBM3'
    head_size: int  # channels
    num_queries: int
    num_keys: int
    dtype: str
    has_mask: bool
    train: bool  # is there a backward pass?
    has_bias: bool = False  # is something added to the scores, one number for each?


class Choice(NamedTuple):
    name: str  # of a kernel
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


class Rule(NamedTuple):
    name: str
    applies: Callable[[Case], bool]
    reason: str  # may name fields of the case, and {problem}: what keeps cuDNN from it


# The first that applies.
RULES = (
    Rule(
        "dense",
        lambda case: case.backend == "cpu",
        # Measured on two cores at 197 tokens, float32.
        "on a CPU plain batched products are 1.1-1.25 times as fast as jax.nn's",
    ),
    Rule("xla", lambda case: case.backend != "gpu", "the only kernel that is general on {backend}"),
    Rule("xla", lambda case: case.has_bias, "a learned bias of the scores is for it alone"),
    Rule("xla", lambda case: cudnn_problem(case) is not None, "cuDNN cannot: {problem}"),
    Rule(
        "xla",
        lambda case: not _is_known(case.device_kind),
        "it is not known whether cuDNN's flash attention runs on {device_kind!r}",
    ),
    Rule(
        "xla",
        lambda case: case.num_keys < MANY_KEYS,
        # flash-attention's issue 591: even with PyTorch's own at 150-200 tokens, slower below.
        "flash attention is reported to gain nothing at {num_keys} keys",
    ),
    Rule(
        "cudnn",
        lambda case: True,
        # A layer passes over its maps (b, h, n, m) about 12 times and over its tokens (b, n, h·d)
        # about 64 times in a step: from 5·d keys on the maps are most of the traffic, and before
        # that most of the memory.
        "at {num_keys} keys the maps of weights, which flash attention never stores, cost most",
    ),
)


def choose_attention(
    *,
    backend: str,
    device_kind: str,
    head_size: int,
    num_queries: int,
    num_keys: int,
    dtype: str,
    has_mask: bool = False,
    train: bool = True,
    has_bias: bool = False,
) -> Choice:
    """The kernel that `implementation='auto'` takes, and why; see `Case`."""
    sizes = (head_size, num_queries, num_keys)
    case = Case(backend, device_kind, *sizes, str(dtype), has_mask, train, has_bias)
    rule = next(rule for rule in RULES if rule.applies(case))
    return Choice(rule.name, rule.reason.format(problem=cudnn_problem(case), **case._asdict()))


def cudnn_problem(case: Case) -> str | None:
    """Why cuDNN's flash attention cannot take this; None where it can, for all that is known here.

    The rules are those of `jax.nn.dot_product_attention` (JAX 0.10 to 0.12).
    """
    largest = 128 if any(name in case.device_kind for name in SMALL_HEADS) else 256
    lengths = (case.num_queries, case.num_keys)
    if case.backend != "gpu":
        return f"the backend is {case.backend!r}; allowed: 'gpu' (NVIDIA)"
    if case.dtype not in ("bfloat16", "float16"):
        return f"the dtype is {case.dtype}; allowed: bfloat16, float16"
    if case.head_size % 8 or case.head_size > largest:
        return f"the head size is {case.head_size}; allowed: multiples of 8 up to {largest}"
    if case.has_mask and case.train and any(length % 2 for length in lengths):
        return f"with a mask the lengths are {lengths}; allowed: even ones"
    return None


def backend_problem(implementation: str, backend: str) -> str | None:
    """Why a kernel is not for this backend, whatever the shapes; None where it is.

    Pallas' interpreter would run this project's own on a CPU, but for tests alone.
    """
    if implementation == "cudnn" and backend != "gpu":
        return f"cuDNN does not run on the backend {backend!r}"
    if implementation == "pallas" and backend == "cpu":
        return "on a CPU Pallas interprets its kernel"
    return None


def runnable(section: Mapping[str, Any]) -> dict[str, Any]:
    """A config's section with 'auto' for every `attention_implementation` not of this backend.

    For models that are used where they were not trained: all kernels compute the same. Trainings
    take a config at its word.
    """
    found = {k: runnable(v) if isinstance(v, Mapping) else v for k, v in section.items()}
    name = str(found.get(KERNEL))
    if problem := backend_problem(name, jax.default_backend()):
        logger.warning("%s is 'auto' in place of %r: %s.", KERNEL, name, problem)
        found[KERNEL] = "auto"
    return found


def case_of(
    query: jax.Array, key: jax.Array, mask: jax.Array | None, bias: jax.Array | None = None
) -> Case:
    """The case of queries [b, n, h, d] and keys [b, m, h, d] on this process's devices.

    A backward pass is assumed, so that a model trains and evaluates with one kernel.
    """
    return Case(
        backend=jax.default_backend(),
        device_kind=jax.devices()[0].device_kind,
        head_size=query.shape[-1],
        num_queries=query.shape[1],
        num_keys=key.shape[1],
        dtype=str(jnp.dtype(query.dtype)),
        has_mask=mask is not None,
        train=True,
        has_bias=bias is not None,
    )


def _is_known(device_kind: str) -> bool:
    return any(name in device_kind for name in LARGE_HEADS + SMALL_HEADS)


# What is traced within these contexts; both are of the calling thread alone.
_RECORD: contextvars.ContextVar[list[Choice] | None] = contextvars.ContextVar(
    "record", default=None
)
_BY_DEFINITION = contextvars.ContextVar("by_definition", default=False)


@contextlib.contextmanager
def recorded_choices() -> Iterator[list[Choice]]:
    """Collects the distinct choices of the models that are traced in this context.

    with recorded_choices() as choices:
        jax.eval_shape(model.apply, variables, images)
    print("attention:", *choices)
    """
    choices: list[Choice] = []
    token = _RECORD.set(choices)
    try:
        yield choices
    finally:
        _RECORD.reset(token)


@contextlib.contextmanager
def by_definition() -> Iterator[None]:
    """Models traced in this context hold attention's definition, whatever kernel is chosen.

    For counting FLOPs: the inside of a kernel cannot be counted, or is padded.
    """
    token = _BY_DEFINITION.set(True)
    try:
        yield
    finally:
        _BY_DEFINITION.reset(token)


def note(choice: Choice) -> str:
    """Records a choice, and returns the name of the kernel to trace."""
    record = _RECORD.get()
    if record is not None and choice not in record:
        record.append(choice)
    return "dense" if _BY_DEFINITION.get() else choice.name
