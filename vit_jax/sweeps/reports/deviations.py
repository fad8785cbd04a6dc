"""In what a sweep, as far as its files tell, was not run as planned: one sentence each.

What a reader must know before the means are believed: trials that are missing in them, groups of
unequal size, trials of unequal software or machines, evaluations that left examples out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from vit_jax.sweeps.folder import Record, State
from vit_jax.sweeps.reports.costs import spent
from vit_jax.sweeps.reports.findings import Findings
from vit_jax.sweeps.reports.labels import listed, plural

NOT_COUNTED = {
    State.FAILED: "failed",
    State.PRUNED: "were stopped early (pruned)",
    State.INTERRUPTED: "were begun and not finished",
    State.RUNNING: "are still running",
    State.WAITING: "were not begun",
}


def found(findings: Findings) -> list[str]:
    """All that can be seen; empty where nothing is to be told."""
    return [sentence for look in LOOKS for sentence in look(findings)]


def missing(findings: Findings) -> Iterator[str]:
    for state, words in NOT_COUNTED.items():
        if names := [r.name for r in findings.records if r.state == state]:
            yield f"{plural(len(names), 'trial')} {_verb(words, len(names))}, and in no mean: " + (
                f"{listed(names)}."
            )
    for record in findings.records:
        if findings.metric and record.state == State.FINISHED and findings.value(record) is None:
            yield f"`{record.name}` finished without a finite `{findings.metric.name}`: in no mean."


def repeated(findings: Findings) -> Iterator[str]:
    counted = {record.name for record in findings.counted}
    left = [
        r.name for r in findings.records if findings.value(r) is not None and r.name not in counted
    ]
    if left:
        yield (
            f"{plural(len(left), 'trial')} repeated another one, seed included, and so count once: "
            + (f"{listed(left)}.")
        )


def unequal_groups(findings: Findings) -> Iterator[str]:
    most = max((len(group.counted) for group in findings.groups), default=0)
    fewer = [group for group in findings.groups if len(group.counted) < most]
    if most > 1 and fewer:
        told = [f"`{group.short_label(60)}` {len(group.counted)}" for group in fewer[:8]]
        rest = f" and {len(fewer) - 8} more" if len(fewer) > 8 else ""
        yield f"Groups have unequal numbers of seeds, {most} at most: {', '.join(told)}{rest}."


def unequal_machines(findings: Findings) -> Iterator[str]:
    for what, counts in differing(findings.counted):
        told = ", ".join(f"{value} ({plural(n, 'trial')})" for value, n in counts.items())
        yield f"Trials differ in {what}: {told}."


def differing(records: Sequence[Record]) -> Iterator[tuple[str, Mapping[str, int]]]:
    """Packages, and 'devices', of which not all runs had the same: (what, value -> runs)."""
    cards = [record.card for record in records if record.card]
    versions = [card.get("versions", {}) for card in cards]
    for package in sorted({name for each in versions for name in each}):
        yield from _unequal(package, [str(each.get(package)) for each in versions])
    yield from _unequal("devices", [card["devices"] for card in cards if "devices" in card])


def resumed(findings: Findings) -> Iterator[str]:
    names = [record.name for record in findings.counted if spent(record).attempts > 1]
    if names:
        words = _verb("were interrupted and then resumed or begun again", len(names))
        yield f"{plural(len(names), 'trial')} {words}: {listed(names)}."


def unscored(findings: Findings) -> Iterator[str]:
    """Of evaluations, and examples that training skipped."""
    for record in findings.counted:
        for name, count in record.metrics.items():
            if name.endswith("/unreadable") and count:
                yield f"`{record.name}`: {name.removesuffix('/unreadable')} left out {count:g} " + (
                    "examples that could not be read."
                )
        if count := (record.workdir.read_result() or {}).get("unreadable_training_examples"):
            yield f"`{record.name}`: {count} unreadable training examples were skipped."


def chosen_by_test(findings: Findings) -> Iterator[str]:
    if findings.metric and not findings.metric.is_given:
        yield f"The sweep names no metric; `{findings.metric.name}` was taken."
    is_choice = len(findings.measured_groups) > 1
    if is_choice and findings.metric and findings.metric.name.startswith("test/"):
        yield (
            "The order is by the test split itself, so the best value is, as a choice among "
            f"{len(findings.measured_groups)}, too good by an unknown amount."
        )


LOOKS: tuple[Callable[[Findings], Iterator[str]], ...] = (
    missing,
    repeated,
    unequal_groups,
    unequal_machines,
    resumed,
    unscored,
    chosen_by_test,
)


def _unequal(what: str, values: Sequence[str]) -> Iterator[tuple[str, Mapping[str, int]]]:
    if len(set(values)) > 1:
        yield what, {value: values.count(value) for value in sorted(set(values))}


def _verb(words: str, count: int) -> str:
    return words.replace("were", "was", 1).replace("are ", "is ", 1) if count == 1 else words
