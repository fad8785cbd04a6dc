"""Reads the text of a compiled program, `compiled.as_text()`, as far as counting needs it.

The text is XLA's HLO (openxla.org/xla/operation_semantics): a module is a list of computations,
each a list of instructions, one a line; loops, calls and fusions name the computations they run.
"""

import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

# The bits of a type are the first number in its name: bf16, f8e4m3fn, s4; but for these.
OTHER_BITS = {"pred": 8, "token": 0, "opaque": 0}
COMPUTATION = re.compile(r"(ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"\s+(ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)")
ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([0-9,<=]*)\]")
# One computation, %name, or several, {%name, %name}.
CALLED = re.compile(
    r"\b(to_apply|calls|body|condition|true_computation|false_computation|branch_computations"
    r"|called_computations)=(\{[^}]*\}|%?[\w.\-]+)"
)
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


class Instruction(NamedTuple):
    """`%name = type opcode(operands), attributes`; `operands` are the names of others."""

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    inside: str  # what stands between the parentheses: operands, or a constant's value
    attributes: str


class Executions(NamedTuple):
    """How often a computation runs in one call of the program.

    `is_exact` is False below a loop whose length XLA has not noted, which counts as many passes as
    the constant in its condition or else one, and below a conditional, of which every branch
    counts as taken.
    """

    count: int
    is_exact: bool


class Module(NamedTuple):
    header: str
    computations: dict[str, dict[str, Instruction]]  # name -> the instructions by name
    entry: str


def parse(text: str) -> Module:
    header, *lines = text.splitlines()
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", {}
    for line in lines:
        if line and not line[0].isspace() and (found := COMPUTATION.match(line)):
            current = computations[found["name"]] = {}
            entry = found["name"] if line.startswith("ENTRY") else entry
        elif found := INSTRUCTION.match(line):
            current[found["name"]] = _instruction(found["name"], found["rest"])
    return Module(header, computations, entry)


def executions(module: Module) -> dict[str, Executions]:
    """Computation -> how often it runs in one call; those that never run are left out."""
    found: dict[str, Executions] = {}

    def visit(name: str, runs: Executions) -> None:
        before = found.get(name, Executions(0, True))
        found[name] = Executions(before.count + runs.count, before.is_exact and runs.is_exact)
        for instruction in module.computations[name].values():
            for callee, times in calls(module, instruction):
                visit(
                    callee,
                    Executions(runs.count * times.count, runs.is_exact and times.is_exact),
                )

    visit(module.entry, Executions(1, True))
    return found


def calls(module: Module, instruction: Instruction) -> Iterator[tuple[str, Executions]]:
    """(computation, how often) for what one execution of an instruction runs."""
    if instruction.opcode in ("async-update", "async-done"):
        return  # the same computation that the start has named
    for role, names in CALLED.findall(instruction.attributes):
        for name in re.findall(r"[\w.\-]+", names):
            if name in module.computations:
                yield name, _times(module, instruction, role)


def arrays(type_text: str) -> list[str]:
    """'(f32[2,3]{1,0}, s32[])' -> ['f32[2,3]', 's32[]']."""
    return [f"{dtype}[{dims}]" for dtype, dims in ARRAY.findall(type_text)]


@functools.cache
def array_bytes(array: str) -> int:
    """'bf16[2,3]' -> 12; bounded sizes ('<=8') count as their bound."""
    dtype, dims = ARRAY.fullmatch(array).groups()
    bits = OTHER_BITS.get(dtype)
    if bits is None:
        bits = int(re.search(r"\d+", dtype).group())
    return -(-bits * math.prod(int(d) for d in re.findall(r"\d+", dims)) // 8)


def _instruction(name: str, rest: str) -> Instruction:
    # A tuple's type has blanks; an array's has none, though its layout may have parentheses.
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    type_text, rest = rest[:end], rest[end:].lstrip()
    opcode, _, rest = rest.partition("(")
    end = _closing("(" + rest) - 1
    inside, attributes = rest[:end], rest[end + 1 :]
    return Instruction(
        name, type_text, opcode, tuple(re.findall(r"%([\w.\-]+)", inside)), inside, attributes
    )


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the one at the beginning."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found.group() == "(" else -1
        if depth == 0:
            return found.start()
    return len(text)


def _times(module: Module, instruction: Instruction, role: str) -> Executions:
    if instruction.opcode == "conditional":
        return Executions(1, False)
    if instruction.opcode != "while":
        return Executions(1, True)
    noted = TRIPS.search(instruction.attributes)
    passes = int(noted.group(1)) if noted else _limit(module, instruction)
    return Executions(passes + (role == "condition"), noted is not None)


def _limit(module: Module, loop: Instruction) -> int:
    """The constant that a loop's condition compares its counter with; 1 if there is no such."""
    condition = module.computations[dict(CALLED.findall(loop.attributes))["condition"].lstrip("%")]
    # The comparison itself may stand in a fusion.
    inner = [name for i in condition.values() for name, _ in calls(module, i)]
    instructions = [i for name in inner for i in module.computations[name].values()]
    instructions += condition.values()
    comparisons = [i.attributes for i in instructions if i.opcode == "compare"]
    limits = [i.inside for i in instructions if i.opcode == "constant" and i.inside.isdigit()]
    is_count = len(comparisons) == len(limits) == 1 and "direction=LT" in comparisons[0]
    return int(limits[0]) if is_count else 1
