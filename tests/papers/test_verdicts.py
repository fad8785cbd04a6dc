"""Verdicts follow from intervals: never from one seed, never from a difference that noise makes."""

import numpy as np
import pytest

from vit_jax.papers.table import Better, Column, Expected, Tie
from vit_jax.papers.verdicts import Verdict, judge_claim, judge_value

TOP1 = Column(name="top-1", metric="test/top1")
LOSS = Column(name="loss", metric="test/loss", higher_is_better=False)
COUNTED = Column(name="n", analytic=lambda config, data: 0.0)
BETTER = Better(text="a and b beat c", column="top-1", first=["a", "b"], than=["c"])
TIE = Tie(text="a, b, c tie", column="top-1", rows=["a", "b", "c"], within=1.0)
HIGH, LOW, WIDE = (80.1, 80.0, 79.9), (70.1, 70.0, 69.9), (60.0, 75.0, 90.0)


def judged(claim, values, column=TOP1, **seeds):
    """`seeds`: how many a row should have; by default those that it has."""
    counts = {row: len(values.get(row, ())) for row in claim.named_rows}
    return judge_claim(claim, values, column, seeds=counts | seeds)


def order(column=TOP1, **values):
    return judged(BETTER, values, column).verdict


def tie(column=TOP1, **values):
    return judged(TIE, values, column).verdict


def test_an_order_is_reproduced_only_by_every_pair():
    assert order(a=HIGH, b=HIGH, c=LOW) == Verdict.REPRODUCED
    assert order(a=HIGH, b=WIDE, c=LOW) == Verdict.UNDECIDED
    assert order(a=HIGH, b=LOW, c=HIGH) == Verdict.CONTRADICTED
    assert order(a=HIGH, b=HIGH, c=HIGH) == Verdict.UNDECIDED
    assert order(a=LOW, b=LOW, c=HIGH) == Verdict.CONTRADICTED
    # Where less is better, the same values say the opposite.
    assert order(LOSS, a=LOW, b=LOW, c=HIGH) == Verdict.REPRODUCED
    assert order(LOSS, a=HIGH, b=HIGH, c=LOW) == Verdict.CONTRADICTED


def test_a_tie_needs_a_narrow_interval_within_the_margin():
    assert tie(a=HIGH, b=HIGH, c=HIGH) == Verdict.REPRODUCED
    assert tie(a=HIGH, b=HIGH, c=WIDE) == Verdict.UNDECIDED  # not found different is no tie
    assert tie(a=HIGH, b=HIGH, c=LOW) == Verdict.CONTRADICTED
    near = tuple(value + 0.9 for value in HIGH)
    assert tie(a=HIGH, b=HIGH, c=near) == Verdict.UNDECIDED  # within, but its interval is not


@pytest.mark.parametrize("lonely", ["a", "b", "c"])
def test_one_seed_decides_nothing(lonely):
    values = dict(a=HIGH, b=HIGH, c=LOW) | {lonely: (50.0 if lonely == "c" else 99.0,)}
    assert order(**values) == Verdict.UNDECIDED
    values = dict(a=HIGH, b=HIGH, c=HIGH) | {lonely: (80.0,)}
    assert tie(**values) == Verdict.UNDECIDED
    assert order(a=HIGH, b=HIGH) == Verdict.UNDECIDED  # nor does a row without runs


@pytest.mark.parametrize("lossy", ["a", "b", "c"])
def test_a_row_that_lost_a_seed_decides_nothing(lossy):
    """Those that are left may be left for a reason: others diverged, or are still to come."""
    values = dict(a=HIGH, b=HIGH, c=LOW)
    assert judged(BETTER, values).verdict == Verdict.REPRODUCED
    found = judged(BETTER, values, **{lossy: 4})
    assert found.verdict == Verdict.UNDECIDED
    assert [pair.interval is None for pair in found.pairs] == [False, False]  # it is still told
    assert judged(TIE, dict(a=HIGH, b=HIGH, c=HIGH), **{lossy: 4}).verdict == Verdict.UNDECIDED
    reversed_order = dict(a=LOW, b=LOW, c=HIGH)
    assert judged(BETTER, reversed_order, a=4, b=4).verdict == Verdict.UNDECIDED


def test_seeds_that_are_all_equal_tell_nothing_of_the_noise():
    assert order(a=(80.0, 80.0), b=(80.0, 80.0), c=(70.0, 70.0)) == Verdict.UNDECIDED


def test_what_is_computed_is_exact():
    assert order(COUNTED, a=(3.0,), b=(2.0,), c=(1.0,)) == Verdict.REPRODUCED
    assert order(COUNTED, a=(3.0,), b=(1.0,), c=(2.0,)) == Verdict.CONTRADICTED
    assert tie(COUNTED, a=(3.0,), b=(3.5,), c=(4.0,)) == Verdict.REPRODUCED
    assert tie(COUNTED, a=(3.0,), b=(3.5,), c=(4.1,)) == Verdict.CONTRADICTED


def test_pairs_tell_the_difference_and_the_seeds():
    found = judged(BETTER, dict(a=HIGH, b=WIDE, c=LOW))
    assert [(pair.first, pair.second) for pair in found.pairs] == [("a", "c"), ("b", "c")]
    first = found.pairs[0]
    assert first.n == (3, 3) and first.interval.estimate == pytest.approx(10)
    assert first.interval.low < 10 < first.interval.high


def test_equal_rows_are_hardly_ever_called_different():
    """5 % for a claim whatever the number of its pairs, and less, since pairs share rows."""
    rng = np.random.default_rng(0)
    wrong = dict.fromkeys(Verdict, 0)
    for _ in range(400):
        a, b, c = rng.normal(80, 1, (3, 4))
        wrong[order(a=a.tolist(), b=b.tolist(), c=c.tolist())] += 1
        narrow = Tie(text="tie", column="top-1", rows=["a", "b"], within=1e-3)
        verdict = judged(narrow, dict(a=a.tolist(), b=b.tolist())).verdict
        assert verdict != Verdict.REPRODUCED  # noise of 1 cannot show a tie within 0.001
    # 400 draws at 5 %: 20, and three standard deviations more.
    assert wrong[Verdict.REPRODUCED] <= 33 and wrong[Verdict.CONTRADICTED] <= 33


def test_a_number_agrees_within_its_tolerance():
    expected = Expected(value=80.0, tolerance=0.1)
    assert judge_value((80.2, 80.0), expected, exact=False) == Verdict.AGREES
    assert judge_value((80.3, 80.0), expected, exact=False) == Verdict.DIFFERS
    assert judge_value((80.0,), expected, exact=False) == Verdict.UNDECIDED
    assert judge_value((80.1,), expected, exact=True) == Verdict.AGREES
    assert judge_value((80.11,), expected, exact=True) == Verdict.DIFFERS
    assert judge_value((), expected, exact=True) == Verdict.NOTHING
    assert judge_value((80.0,), None, exact=True) == Verdict.NOTHING
