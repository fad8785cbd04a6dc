"""What a compiled program sends between devices, read off its text, `compiled.as_text()`.

Devices are numbered by their place in the mesh, row-major, as the partitions of the program are.
A backend may widen what it sends: XLA's CPU sums bfloat16 as float32, so that programs compiled
for virtual CPU devices show twice the bytes of those sums on an accelerator.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from vit_jax.analysis import hlo

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
    "ragged-all-to-all",
)


class Collective(NamedTuple):
    """One instruction that lets devices exchange arrays.

    Attributes:
      kind: one of `KINDS`; the two halves of an asynchronous one are one.
      bytes: of one execution on one device: the larger of what it takes and what it returns, so
        the whole of what is gathered, scattered or summed, over all arrays if it has several.
      groups: the devices that exchange with each other; of a collective-permute (source, target).
      count: executions in one call of the program.
      is_exact: False if `count` is a guess; see `hlo.Executions`.
      arrays: what it takes on one device, e.g. 'f32[16,64]'.
      source: the path in the traced program, e.g. 'jit(step)/jvp(Model)/while/body/dot_general'.
    """

    kind: str
    bytes: int
    groups: tuple[tuple[int, ...], ...]
    count: int
    is_exact: bool
    arrays: tuple[str, ...]
    source: str

    @property
    def group_size(self) -> int:
        return len(self.groups[0])


def find(text: str) -> list[Collective]:
    """All collectives that a call of the program executes, in the text's order.

    Those whose groups have one device each move nothing and are left out.
    """
    module = hlo.parse(text)
    runs = hlo.executions(module)
    found = []
    for name, instructions in module.computations.items():
        if name in runs:
            found += _of_computation(instructions, runs[name], _num_devices(module.header))
    return found


def axis_of(collective: Collective, mesh_shape: Mapping[str, int]) -> str:
    """The mesh axis that a collective runs along, e.g. 'fsdp'; several are joined: 'data+fsdp'.

    Args:
      mesh_shape: axis -> size, in the mesh's order; `mesh.shape`.
    """
    places = np.indices(tuple(mesh_shape.values())).reshape(len(mesh_shape), -1)
    groups = [places[:, list(group)] for group in collective.groups]
    varies = np.any([(g != g[:, :1]).any(axis=1) for g in groups], axis=0)
    return "+".join(axis for axis, runs in zip(mesh_shape, varies, strict=True) if runs)


def _of_computation(
    instructions: Mapping[str, hlo.Instruction], runs: hlo.Executions, num_devices: int
) -> Iterator[Collective]:
    for instruction in instructions.values():
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        groups = read_groups(instruction.attributes, num_devices)
        if not any(len(set(group)) > 1 for group in groups):
            continue
        operands = [instructions[name].type for name in instruction.operands]
        arrays = tuple(array for operand in operands for array in hlo.arrays(operand))
        # Of the operands, since the result of an asynchronous start holds them once more.
        growth = len(groups[0]) if kind == "all-gather" else 1
        source = re.search(r'op_name="([^"]*)"', instruction.attributes)
        yield Collective(
            kind=kind,
            bytes=growth * sum(map(hlo.array_bytes, arrays)),
            groups=groups,
            count=runs.count,
            is_exact=runs.is_exact,
            arrays=arrays,
            source=source.group(1) if source else "",
        )


def read_groups(attributes: str, num_devices: int) -> tuple[tuple[int, ...], ...]:
    """The groups of devices in the attributes of an instruction, in any of XLA's notations.

    {{0,1},{2,3}}          written out; {} is one group of all
    [2,4]<=[4,2]T(1,0)     0..7 in the shape [4,2], transposed, reshaped to [groups, members]
    mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'b'}
                           the same numbers in the shape [2,4]; groups run along the named axes;
                           'b':(2)2 is a part of an axis: after a factor of 2 the next 2
    """
    if found := re.search(r"replica_groups=mesh\[(.*?)\](.*?)\{(.*?)\}", attributes):
        return _mesh_groups(*found.groups())
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\](T\([\d,]+\))?)", attributes):
        return _tuples(_iota(found.group(2)).reshape(_numbers(found.group(1))))
    if found := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})?\}", attributes):
        listed = re.findall(r"\{([\d, ]+)\}", found.group(1) or "")
        return tuple(map(_numbers, listed)) or (tuple(range(num_devices)),)
    return (tuple(range(num_devices)),)


def _mesh_groups(axes: str, order: str, along: str) -> tuple[tuple[int, ...], ...]:
    sizes = {name: int(size) for name, size in re.findall(r"'(.*?)'=(\d+)", axes)}
    ordered = re.search(r"device_ids=\((.*)\)", order)
    devices = np.arange(math.prod(sizes.values()))
    if ordered:
        listed = re.fullmatch(r"[\d, ]+", ordered.group(1))
        devices = np.array(_numbers(listed.group())) if listed else _iota(ordered.group(1))
    # Every axis in three parts, so that a part of one can be named like a whole.
    parts = {name: (1, size, 1) for name, size in sizes.items()}
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", along):
        if size:
            parts[name] = (int(before), int(size), sizes[name] // (int(before) * int(size)))
    names = [name for name, *_ in re.findall(r"'([^']*)'(:\()?", along)]
    moved = [3 * list(sizes).index(name) + 1 for name in names]
    kept = [i for i in range(3 * len(sizes)) if i not in moved]
    devices = devices.reshape([size for part in parts.values() for size in part])
    members = math.prod(devices.shape[i] for i in moved)
    return _tuples(devices.transpose(kept + moved).reshape(-1, members))


def _iota(text: str) -> np.ndarray:
    """'[4,2]T(1,0)' -> the numbers 0..7 in that shape, transposed."""
    shape, transposed = re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text).groups()
    numbers = np.arange(math.prod(_numbers(shape))).reshape(_numbers(shape))
    return numbers.transpose(_numbers(transposed)) if transposed else numbers


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _tuples(groups: np.ndarray) -> tuple[tuple[int, ...], ...]:
    return tuple(map(tuple, groups.tolist()))


def _num_devices(header: str) -> int:
    """A program runs as replicas × partitions."""
    counts = re.findall(r"\b(?:replica_count|num_partitions)=(\d+)", header)
    return math.prod(map(int, counts))
