"""Groups hold the trials that share all but the seed, and means only what has finished."""

import random
import shutil

import numpy as np
import pytest
import synthetic_sweeps as synthetic

from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.reports import costs, deviations
from vit_jax.sweeps.reports.findings import NOT_SET, gather, setting
from vit_jax.sweeps.trials import make_trial

RATE, DECAY = "optimizer.learning_rate", "optimizer.weight_decay"


@pytest.fixture
def folder(tmp_path):
    return synthetic.new_sweep(tmp_path / "sweep")


def told(folder):
    return "\n".join(deviations.found(gather(folder)))


def test_groups_are_by_everything_but_the_seed_and_ordered_by_their_means(tmp_path):
    found = gather(synthetic.grid_with_seeds(tmp_path / "sweep"))
    assert [group.rank for group in found.groups] == [1, 2, 3, 4, 5, 6]
    means = [group.summary.mean for group in found.groups]
    assert means == sorted(means, reverse=True)
    assert [len(group.records) for group in found.groups] == [3] * 6
    for group in found.groups:
        values = [record.metrics["test/top1"] for record in group.counted]
        assert group.summary.mean == pytest.approx(np.mean(values))
        assert {record.seed for record in group.records} == {0, 1, 2}
    assert found.swept == (RATE, DECAY)


@pytest.mark.parametrize("state", [s for s in State if s not in (State.FINISHED, State.RUNNING)])
def test_what_has_not_finished_is_in_no_mean_and_is_told(folder, state):
    synthetic.add(folder, {"train.seed": 0}, 0.5)
    name = synthetic.add(folder, {"train.seed": 1}, 0.9, state=state)
    found = gather(folder)
    assert found.groups[0].values == (0.5,)
    assert any(name in sentence for sentence in deviations.missing(found))


def test_a_running_trial_counts_for_nothing_whatever_it_has_reached(folder):
    name = synthetic.add(folder, {"train.seed": 1}, 0.9, state=State.RUNNING)
    with synthetic.hold_lock(folder, name):
        assert gather(folder).records[0].state == State.RUNNING
        assert not gather(folder).counted and "still running" in told(folder)
    assert gather(folder).records[0].state == State.INTERRUPTED


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_counts_for_nothing(folder, value):
    synthetic.add(folder, {"train.seed": 0}, 0.0)
    name = synthetic.add(folder, {"train.seed": 1}, value)
    assert gather(folder).groups[0].values == (0.0,)
    assert f"`{name}` finished without a finite `test/top1`" in told(folder)


def test_the_same_run_twice_counts_once(folder):
    for name in ("a", "b"):
        synthetic.add(folder, {"name": name, RATE: 0.1}, 0.5)
    (group,) = gather(folder).groups
    assert group.values == (0.5,) and len(group.records) == 2
    assert "`b`" in told(folder)


def test_groups_tell_other_configs_apart_and_see_through_what_trials_begin_from(folder):
    """Two configs without an override are two groups; a seed's own pretraining is none."""
    other = {**synthetic.BASE, "data": {"source": "folder:x"}}
    for seed in (0, 1):
        pre = synthetic.add(folder, {"name": f"pre,seed={seed}", "train.seed": seed})
        changed = {"name": f"tune,seed={seed}", "init.source": f"trial:{pre}", "train.seed": seed}
        synthetic.add(folder, changed)
        synthetic.add(folder, {"name": f"other,seed={seed}", "train.seed": seed}, base=other)
    found = gather(folder)
    assert sorted(group.label for group in found.groups) == ["other", "pre", "tune"]
    assert all(len(group.counted) == 2 for group in found.groups)
    tune = next(group for group in found.groups if group.label == "tune")
    assert setting(tune.records[0], "init.source") == "trial:pre"


def test_the_order_on_disk_and_the_place_of_the_folder_change_nothing(tmp_path):
    first = gather(synthetic.grid_with_seeds(tmp_path / "a" / "sweep"))
    second = gather(synthetic.grid_with_seeds(tmp_path / "b" / "sweep", order=-1))
    moved = shutil.copytree(tmp_path / "a" / "sweep", tmp_path / "c" / "sweep")
    for other in (second, gather(SweepFolder.at(moved))):
        assert [g.label for g in first.groups] == [g.label for g in other.groups]
        assert [g.values for g in first.groups] == [g.values for g in other.groups]
        assert deviations.found(first) == deviations.found(other)


def test_a_setting_is_the_override_else_the_config_s_else_not_set(folder):
    synthetic.add(folder, {RATE: 0.1, "optimizer.momentum": 0.9})
    synthetic.add(folder, {DECAY: 0.0})
    found = gather(folder)
    assert {setting(r, RATE) for r in found.records} == {0.1, 1e-3}
    assert {setting(r, "optimizer.momentum") for r in found.records} == {0.9, NOT_SET}
    assert set(found.swept) == {RATE, DECAY, "optimizer.momentum"}


@pytest.mark.parametrize(
    "metric, best", [("test/top1", 0.9), ("test/loss", 0.9), ("measured", 0.1), (None, 0.9)]
)
def test_the_best_is_by_the_metric_and_its_direction(tmp_path, metric, best):
    """The lowest loss, the highest of all else; also of what was measured afterwards."""
    folder = synthetic.new_sweep(tmp_path / "sweep", metric=metric)
    for value in (0.1, 0.9, 0.5):
        synthetic.add(folder, {RATE: value}, value, measured={"measured": 1 - value})
    found = gather(folder)
    assert found.groups[0].overrides == {RATE: best}
    assert ("names no metric" in told(folder)) == (metric is None)


def test_without_a_sweep_json_the_trials_still_tell(folder):
    synthetic.add(folder, {}, 0.5)
    folder.sweep.unlink()
    assert gather(folder).metric.name == "test/top1"


def test_deviations_tell_of_unequal_software_machines_seeds_and_data(folder):
    synthetic.add(folder, {"train.seed": 0})
    synthetic.add(folder, {"train.seed": 1}, versions={"jax": "0.11.0"}, devices="1 x cpu")
    synthetic.add(folder, {"train.seed": 2}, attempts=2, unreadable=3)
    synthetic.add(folder, {RATE: 0.1})
    text = told(folder)
    assert "Trials differ in jax: 0.10.2 (3 trials), 0.11.0 (1 trial)." in text
    assert "Trials differ in devices: 1 x cpu (1 trial), 2 x NVIDIA H100 (3 trials)." in text
    assert "`seed=2`: test left out 3 examples" in text
    assert "unequal numbers of seeds, 3 at most: `learning_rate=0.1` 1" in text
    assert "1 trial was interrupted and then resumed" in text
    assert "by the test split itself" in text


def test_an_undisturbed_sweep_has_no_deviation(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep", metric="validation/top1")
    for seed in range(3):
        name = synthetic.add(folder, {"train.seed": seed}, measured={"validation/top1": 0.5})
        assert name == f"seed={seed}"
    assert deviations.found(gather(folder)) == []


def test_cost_is_the_time_of_attempts_times_devices(folder):
    synthetic.add(folder, {"train.seed": 0}, attempts=3)
    synthetic.add(folder, {"train.seed": 1}, devices="8 x TPU v4")
    synthetic.add(folder, {"train.seed": 2}, state=State.FAILED)  # before its card was written
    found = costs.total(gather(folder).records)
    assert found.seconds == pytest.approx(5 * synthetic.SECONDS)
    assert found.device_hours == pytest.approx((3 * 2 + 8) * synthetic.SECONDS / 3600)
    assert (found.attempts, found.unknown) == (5, 0)
    assert found.devices == ("2 x NVIDIA H100", "8 x TPU v4")


@pytest.mark.parametrize(
    "lines, known, unknown",
    [
        ([], [30.0], 0),  # trained by hand: what result.json says
        ([("start", 1.0)], [], 1),
        ([("start", 1.0), ("start", 5.0), ("end", 7.0)], [2.0], 1),
        ([("start", 1.0), ("end", 4.0), ("retry", 5.0), ("start", 6.0), ("end", 7.0)], [4.0], 0),
        ([("end", 4.0)], [], 0),
        ([("start", None), ("end", 4.0)], [], 1),
    ],
)
def test_attempts_without_an_end_have_no_time(folder, lines, known, unknown):
    name = synthetic.add(folder, {})
    rows = [{"event": e, **({"time": t} if t else {})} for e, t in lines]
    path = folder.trial(name).attempts
    path.unlink()
    if rows:
        synthetic.write_lines(path, rows)
    found = costs.spent(gather(folder).records[0])
    assert found.seconds == (known[0] if known else None)
    assert found.unknown == unknown


def test_the_order_of_trials_does_not_matter_to_groups(folder):
    names = [make_trial(synthetic.BASE, {RATE: 0.1, "train.seed": s}).name for s in range(4)]
    order = random.Random(0).sample(range(4), 4)
    for seed in order:
        synthetic.add(folder, {RATE: 0.1, "train.seed": seed}, 0.1 * seed)
    (group,) = gather(folder).groups
    assert [record.name for record in group.records] == names
