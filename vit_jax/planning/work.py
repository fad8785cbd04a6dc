"""One microbatch of one device as a traced program: what it keeps, needs and computes.

Tracing takes shapes alone, so that the largest model takes a second. Sizes are in bytes; those of
the state are exact, those of activations what the trace says, before a compiler fuses or reorders.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from vit_jax.analysis import cost, kernels, memory
from vit_jax.analysis.layout import EXAMPLES, Split
from vit_jax.core import Tree
from vit_jax.learner import Learner
from vit_jax.train import sharding

# Layers whose gathered parameters are there at once: the one in use, and the next on its way.
GATHERED_LAYERS = 2


@dataclasses.dataclass(frozen=True)
class Work:
    """The training step of `learner` on a global batch of `batch_size`; k microbatches."""

    learner: Learner
    batch_size: int

    @property
    def rows(self) -> int:
        """Examples of a step on one device."""
        return self.batch_size // sharding.num_batch_shards(self.learner.mesh)

    def memory(self, accum_steps: int) -> dict[str, int]:
        """Bytes on each device at the peak of a step, by what they are for."""
        return self._once(("memory", accum_steps), lambda: self._count_memory(accum_steps))

    def _count_memory(self, accum_steps: int) -> dict[str, int]:
        state, microbatch = self.state, self.rows // accum_steps
        saved = self.saved(microbatch)
        gradients = memory.device_bytes(state.params)
        found = {
            "parameters": memory.device_bytes(state.params),
            "averaged_parameters": memory.device_bytes(state.ema_params),
            "optimizer": memory.device_bytes(state.opt_state),
            "other_state": memory.device_bytes((state.model_state, state.task_state)),
            # Microbatches have a sum of gradients, and each its own.
            "gradients": gradients * (1 if accum_steps == 1 else 2),
            "gathered": self.gathered,
            "batch": memory.tree_bytes(self.learner.abstract_batch(self.rows)),
            "activations": saved,
            "workspace": max(0, self._peak(microbatch) - saved),
        }
        return {**found, "total": sum(found.values())}

    def saved(self, microbatch: int) -> int:
        """Bytes of activations that the forward pass keeps for the backward pass."""
        two, _ = self._saved_by_two_and_four
        return two + (microbatch - 2) * self.saved_per_image

    @property
    def saved_per_image(self) -> int:
        two, four = self._saved_by_two_and_four
        return (four - two) // 2

    @functools.cached_property
    def gathered(self) -> int:
        """Bytes of parameters that are whole for their use, and of their gradients before these
        are split: of single arrays, and of as many layers as are in flight."""
        if self.learner.mesh.shape["fsdp"] == 1:
            return 0
        single = layer = 0
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.state.params):
            if "fsdp" not in leaf.sharding.spec:
                continue
            size = memory.device_bytes(leaf) * self.learner.mesh.shape["fsdp"]
            if any(key.key == cost.STACKED for key in path):
                layer += size // leaf.shape[0]
            else:
                single += size
        return 2 * single + (GATHERED_LAYERS + 1) * layer

    def kernels(self, microbatch: int) -> list[kernels.Kernel]:
        """Of one forward and backward pass."""
        # What fsdp splits is whole when it is computed with.
        splits = [split for split in self._splits if EXAMPLES not in split.dimensions]
        program = self._program(microbatch)
        return self._once(("kernels", microbatch), lambda: kernels.of(program, splits))

    @functools.cached_property
    def flops_per_example(self) -> float:
        """Of forward and backward pass, with what rematerialisation computes again."""
        two, four = (cost.count_program(self._program(size)) for size in (2, 4))
        return (four - two) / 2

    @property
    def state(self) -> Any:
        return self.learner.abstract_state()

    @functools.cached_property
    def _saved_by_two_and_four(self) -> tuple[int, int]:
        # Mixing wants even batches; what is saved is a constant and a multiple of the rows.
        return tuple(
            memory.saved_bytes(self._loss, *self._inputs(size), splits=self._splits)
            for size in (2, 4)
        )

    def _peak(self, microbatch: int) -> int:
        """Bytes at the peak of the backward pass, without the gradients that it ends with."""
        even = microbatch + microbatch % 2
        program = self._program(even)
        passing = memory.peak_of(program, self._splits) - memory.results_of(program, self._splits)
        return passing - (even - microbatch) * self.saved_per_image

    def _program(self, rows: int) -> Any:
        """Forward and backward pass of a microbatch."""

        def trace() -> Any:
            return jax.make_jaxpr(jax.grad(self._loss))(*self._inputs(rows)).jaxpr

        return self._once(("program", rows), trace)

    def _once(self, key: tuple[str, int], compute: Callable[[], Any]) -> Any:
        """Tracing and walking over a program take long, and the search asks again and again."""
        if key not in self._found:
            self._found[key] = compute()
        return self._found[key]

    @functools.cached_property
    def _found(self) -> dict[tuple[str, int], Any]:
        return {}

    def _loss(self, params: Tree, state: Any, batch: Tree) -> jax.Array:
        loss, _ = self.learner.task.loss(params, state, batch, jax.random.key(0), train=True)
        return loss.total

    def _inputs(self, rows: int) -> tuple[Any, Any, Any]:
        """Shapes of parameters, state and batch."""
        state = self.state.replace(opt_state=(), ema_params=None)
        return without_places((state.params, state, self.learner.abstract_batch(rows)))

    @functools.cached_property
    def _splits(self) -> list[Split]:
        """How the mesh's axes split these inputs; `_inputs` has a device's own rows already."""
        batch = self.learner.abstract_batch(2)
        placed = self.state.replace(opt_state=(), ema_params=None)
        leaves, found = jax.tree.leaves((self.state.params, placed)), []
        for axis, examples in (("tensor", None), ("fsdp", EXAMPLES)):
            if (ways := self.learner.mesh.shape[axis]) > 1:
                dimensions = [_place(axis, leaf) for leaf in leaves]
                dimensions += [examples] * len(jax.tree.leaves(batch))
                found.append(Split(ways, tuple(dimensions)))
        return found


def without_places(tree: Tree) -> Tree:
    """Shapes and types alone: tracing has no use for places."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def _place(axis: str, leaf: jax.ShapeDtypeStruct) -> int | None:
    """The dimension that this axis splits."""
    spec = tuple(leaf.sharding.spec)
    return spec.index(axis) if axis in spec else None
