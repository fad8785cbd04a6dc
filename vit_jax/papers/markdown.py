"""A table's outcome (see `outcome.py`) as Markdown, narrow enough for a phone: one small table for
each column."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vit_jax.papers.table import Kind
from vit_jax.papers.verdicts import Verdict

NOTHING = "–"


def render(
    outcome: Mapping[str, Any], *, picture: str | None = None, others: Sequence[str] = ()
) -> str:
    """The whole page; `picture`, of all values, and `others` are names of files beside it."""
    return "\n".join([*_lines(outcome, picture, others), ""])


def _lines(outcome: Mapping[str, Any], picture: str | None, others: Sequence[str]) -> Iterator[str]:
    yield f"# {outcome['title']}"
    yield f"\n{outcome['question']}\n\n{outcome['source']}; scale `{outcome['scale']}`."
    if outcome["claims"]:
        yield "\n## What the paper says\n"
        for claim in outcome["claims"]:
            yield from claim_lines(claim, digits_of(outcome, claim["column"]))
    for choice in outcome["choices"]:
        found = choice["chosen"] or "not known yet"
        yield f"- {choice['name']}, chosen by {choice['by']}: {found}"
    yield "\n## Numbers"
    for column in outcome["columns"]:
        yield from column_lines(column)
    if any(is_reference(cell) for column in outcome["columns"] for cell in column["cells"]):
        yield "\nIn parentheses: the paper's number, by its own protocol; only the order compares."
    if picture:
        yield f"\n![each seed, and mean ± standard deviation]({picture})"
    for name in others:
        yield f"\n![{name.rpartition('/')[2].rpartition('.')[0]}]({name})"
    yield "\n## How it was measured\n"
    yield from measured_lines(outcome)
    if outcome["problems"]:
        yield "\n## Not measured\n"
        yield from (f"- {sentence}" for sentence in outcome["problems"])
    if outcome["deviations"]:
        yield "\n## Deviations from the paper's protocol\n"
        yield from (f"- {sentence}" for sentence in outcome["deviations"])


def claim_lines(claim: Mapping[str, Any], digits: int) -> Iterator[str]:
    margin = "" if claim["within"] is None else f" (margin {claim['within']:g})"
    yield f"- **{claim['verdict']}**: {claim['text']}{margin}; {claim['column']}"
    for pair in claim["pairs"]:
        yield f"  - {pair_text(pair, digits)}"


def pair_text(pair: Mapping[str, Any], digits: int) -> str:
    seeds = "n = " + " and ".join(map(str, pair["n"]))
    name = f"{pair['first']} against {pair['second']}"
    if (found := pair["interval"]) is None:
        return f"{name}: no interval, {seeds}: {pair['verdict']}"
    if found["low"] == found["high"]:
        return f"{name}: {found['estimate']:+.{digits}f}: {pair['verdict']}"
    bounds = f"[{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"
    return f"{name}: {found['estimate']:+.{digits}f} {bounds}, {seeds}: {pair['verdict']}"


def digits_of(outcome: Mapping[str, Any], column: str) -> int:
    return next(c["digits"] for c in outcome["columns"] if c["name"] == column)


def column_lines(column: Mapping[str, Any]) -> Iterator[str]:
    unit = f" ({column['unit']})" if column["unit"] else ""
    yield f"\n### {column['name']}{unit}\n"
    yield "| row | paper | ours | difference | verdict |"
    yield "|---|---:|---:|---:|---|"
    for cell in column["cells"]:
        texts = cell_texts(cell, column["digits"])
        yield f"| {' | '.join([cell['row'].replace('|', '/'), *texts])} |"


def cell_texts(cell: Mapping[str, Any], digits: int) -> Sequence[str]:
    """Paper, ours, difference and verdict."""
    paper = NOTHING if cell["paper"] is None else f"{cell['paper']:.{digits}f}"
    gap = cell["difference"]
    return (
        f"({paper})" if is_reference(cell) else paper,
        ours_text(cell, digits),
        NOTHING if gap is None else f"{gap:+.{digits}f}",
        verdict_text(cell, digits),
    )


def is_reference(cell: Mapping[str, Any]) -> bool:
    return cell["paper"] is not None and not cell["is_same_protocol"]


def ours_text(cell: Mapping[str, Any], digits: int) -> str:
    if cell["mean"] is None:
        return cell["kind"] if cell["kind"] != Kind.TRAINED else "not run"
    mean = f"{cell['mean']:.{digits}f}"
    if cell["is_exact"]:
        return mean
    spread = "" if cell["std"] is None else f" ± {cell['std']:.{digits}f}"
    return f"{mean}{spread} (n = {cell['n']})"


def verdict_text(cell: Mapping[str, Any], digits: int) -> str:
    if cell["verdict"] == Verdict.UNDECIDED:
        return "undecided: one seed"
    if cell["verdict"] == Verdict.DIFFERS:
        return f"differs by {cell['difference']:+.{digits}f}, allowed ± {cell['tolerance']:g}"
    if cell["verdict"] == Verdict.AGREES:
        return f"agrees within ± {cell['tolerance']:g}"
    return NOTHING


def measured_lines(outcome: Mapping[str, Any]) -> Iterator[str]:
    runs, versions = outcome["runs"], outcome["versions"]
    yield f"- command: `{outcome['command']}`"
    yield (
        f"- {runs['finished']} of {runs['trials']} runs finished; {runs['seconds'] / 60:.1f} "
        "minutes of runs in all"
    )
    if outcome["devices"]:
        yield f"- devices of a run: {outcome['devices']}"
    if versions:
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        yield f"- versions: {named}"
    if outcome["claims"]:
        yield (
            "- verdicts: reproduced where the 95 % interval (Welch's) of every difference is above "
            "0, or for a tie the 90 % interval within the margin; contradicted where one shows the "
            "opposite, at 5 % for all pairs of a claim together; one seed decides nothing, nor a "
            "row that lacks one; each claim is judged by itself"
        )
