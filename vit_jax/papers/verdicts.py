"""What a table's runs say of the paper's numbers and sentences.

A number agrees where our mean is within its tolerance. A sentence about the order of rows is
reproduced only where every pair of rows shows it: for Better, Welch's 95 % interval of the
difference lies on the right side of 0; for Tie, the 90 % interval lies within the margin, which is
two one-sided tests of 5 %. It is contradicted where some pair shows the opposite: the interval of
1 - 5 %/pairs (Bonferroni's) lies on the wrong side, or outside the margin. Everything else is
undecided, and so is whatever rests on a single seed, or on a row some of whose seeds are missing:
those that are left may be left for a reason. What is computed rather than trained is exact.
"""

import dataclasses
import enum
import itertools
from collections.abc import Mapping, Sequence

from vit_jax.papers.table import Better, Column, Expected, Tie
from vit_jax.sweeps.statistics import Interval, Summary, difference

RISK = 0.05
Values = Mapping[str, Sequence[float]]  # row -> a value for each seed, in the column's unit


class Verdict(enum.StrEnum):
    AGREES = "agrees"
    DIFFERS = "differs"
    REPRODUCED = "reproduced"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    NOTHING = ""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two rows of a claim: first - second, positive where the first is better.

    Attributes:
      interval: with the confidence that the claim is tested with; None where nothing is known.
      n: seeds of each.
    """

    first: str
    second: str
    interval: Interval | None
    n: tuple[int, int]
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class ClaimVerdict:
    claim: Better | Tie
    verdict: Verdict
    pairs: tuple[Pair, ...]


def judge_value(values: Sequence[float], expected: Expected | None, *, exact: bool) -> Verdict:
    if expected is None or not values:
        return Verdict.NOTHING
    if len(values) < 2 and not exact:
        return Verdict.UNDECIDED
    distance = abs(Summary.of(values).mean - expected.value)
    # A tolerance such as 0.1 is meant in decimals.
    is_close = distance <= expected.tolerance * (1 + 1e-9)
    return Verdict.AGREES if is_close else Verdict.DIFFERS


def judge_claim(
    claim: Better | Tie, values: Values, column: Column, *, seeds: Mapping[str, int]
) -> ClaimVerdict:
    """What the values of one column say of a claim about it; `seeds`: row -> how many it needs."""
    sign = 1 if column.higher_is_better is not False else -1
    signed = {row: [sign * value for value in values.get(row, ())] for row in claim.named_rows}
    judge = judge_order if isinstance(claim, Better) else judge_tie
    exact = column.analytic is not None
    count = len(pairs_of(claim))
    pairs = tuple(judge(claim, a, b, signed, exact, count) for a, b in pairs_of(claim))
    lacking = {row for row in claim.named_rows if not exact and len(signed[row]) < seeds[row]}
    pairs = tuple(undecided(p) if lacking & {p.first, p.second} else p for p in pairs)
    verdicts = [pair.verdict for pair in pairs]
    if Verdict.CONTRADICTED in verdicts:
        return ClaimVerdict(claim, Verdict.CONTRADICTED, pairs)
    is_shown = all(verdict == Verdict.REPRODUCED for verdict in verdicts)
    return ClaimVerdict(claim, Verdict.REPRODUCED if is_shown else Verdict.UNDECIDED, pairs)


def undecided(pair: Pair) -> Pair:
    return dataclasses.replace(pair, verdict=Verdict.UNDECIDED)


def pairs_of(claim: Better | Tie) -> list[tuple[str, str]]:
    if isinstance(claim, Better):
        return list(itertools.product(claim.first, claim.than))
    return list(itertools.combinations(claim.rows, 2))


def judge_order(
    claim: Better, first: str, second: str, values: Values, exact: bool, num_pairs: int
) -> Pair:
    a, b = values[first], values[second]
    shown = interval_of(a, b, exact=exact, confidence=1 - RISK)
    against = interval_of(a, b, exact=exact, confidence=1 - RISK / num_pairs)
    verdict = Verdict.UNDECIDED
    if shown and shown.low > 0:
        verdict = Verdict.REPRODUCED
    elif against and against.high < 0:
        verdict = Verdict.CONTRADICTED
    return Pair(first, second, shown, (len(a), len(b)), verdict)


def judge_tie(
    claim: Tie, first: str, second: str, values: Values, exact: bool, num_pairs: int
) -> Pair:
    a, b = values[first], values[second]
    shown = interval_of(a, b, exact=exact, confidence=1 - 2 * RISK)
    against = interval_of(a, b, exact=exact, confidence=1 - RISK / num_pairs)
    verdict = Verdict.UNDECIDED
    if shown and -claim.within <= shown.low and shown.high <= claim.within:
        verdict = Verdict.REPRODUCED
    elif against and (against.low > claim.within or against.high < -claim.within):
        verdict = Verdict.CONTRADICTED
    return Pair(first, second, shown, (len(a), len(b)), verdict)


def interval_of(
    first: Sequence[float], second: Sequence[float], *, exact: bool, confidence: float
) -> Interval | None:
    if not first or not second:
        return None
    if exact:
        distance = Summary.of(first).mean - Summary.of(second).mean
        return Interval(distance, distance, distance)
    return difference(first, second, confidence=confidence)
