"""A step compiled before the first batch is there, so that its cost is known and told apart.

A mistake, or a step that does not fit, so comes to light before the data is read, and no log line
mistakes compiling for training. JAX's persistent cache serves this as any other compilation.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from vit_jax.core import StepFn, Tree


class CompiledStep(NamedTuple):
    """A step for one shape of state and batch; like the jitted one it takes over its state.

    Attributes:
      call: the step; refuses other shapes, where a jitted function would compile once more.
      seconds: of tracing and compiling, or of finding the program in the persistent cache.
      memory: bytes on each device; empty where the backend does not tell. `arguments` are state
        and batch, `results` the new state and the metrics, of which `donated` stand in the place
        of arguments; `temporary` is what lives within a step; `total` is what a step needs.
    """

    call: StepFn
    seconds: float
    memory: Mapping[str, int]


def compile_step(step_fn: Any, state: Tree, batch: Tree) -> CompiledStep:
    """Compiles a jitted step for arguments of these shapes, types and places."""
    began = time.perf_counter()
    compiled = step_fn.lower(state, batch).compile()
    seconds = time.perf_counter() - began
    return CompiledStep(compiled, seconds, _memory(compiled.memory_analysis()))


def _memory(stats: Any) -> dict[str, int]:
    if stats is None:
        return {}
    found = {
        "arguments": stats.argument_size_in_bytes,
        "results": stats.output_size_in_bytes,
        "donated": stats.alias_size_in_bytes,
        "temporary": stats.temp_size_in_bytes,
    }
    total = found["arguments"] + found["results"] - found["donated"] + found["temporary"]
    return found | {"total": total}
