"""A trace holds the chosen steps and no others, with the phases of the host in them."""

import jax
import jax.numpy as jnp
import pytest
from helpers import NUM_STEPS, tiny_config

from vit_jax import experiment
from vit_jax.errors import InputError
from vit_jax.train.profiling import StepTrace
from vit_jax.workdir import Workdir

PHASES = ("data", "device", "evaluation", "checkpoint")


def files(folder):
    return sorted((folder / "plugins" / "profile").glob("*/*.xplane.pb"))


def events(file):
    """[(name, start in ns, end in ns, numbers)] of the host."""
    return [
        (event.name, event.start_ns, event.start_ns + event.duration_ns, dict(event.stats))
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes
        for line in plane.lines
        for event in line.events
        if event.name in ("train", *PHASES)
    ]


def steps(file):
    return [stats["step_num"] for name, *_, stats in events(file) if name == "train"]


@pytest.mark.parametrize(
    "first, last, begun, traced",
    [
        (2, 4, range(1, 7), [2, 3, 4]),
        (1, 1, range(1, 4), [1]),
        (2, 6, range(4, 9), [4, 5, 6]),  # resumed in the middle
        (3, 9, range(1, 6), [3, 4, 5]),  # stopped in the middle
    ],
)
def test_steps_from_first_to_last(tmp_path, first, last, begun, traced):
    trace = StepTrace(tmp_path, first=first, last=last)
    double = jax.jit(lambda x: 2 * x)
    for step in begun:
        assert trace.ends_before(step) == (step == last + 1)
        trace.begin(step)
        double(jnp.ones(3)).block_until_ready()
    trace.close()
    (file,) = files(tmp_path)
    assert steps(file) == traced


@pytest.mark.parametrize("begun", [range(0), range(1, 5), range(20, 25)])
def test_no_step_no_file(tmp_path, begun):
    trace = StepTrace(tmp_path, first=10, last=15)
    for step in begun:
        trace.begin(step)
    trace.close()
    assert not list(tmp_path.iterdir())


def test_closing_twice_is_no_error_and_another_trace_may_follow(tmp_path):
    for name in ("a", "b"):
        trace = StepTrace(tmp_path / name, first=1, last=9)
        trace.begin(1)
        trace.close()
        trace.close()
        assert steps(files(tmp_path / name)[0]) == [1]


def interrupted(monkeypatch, after):
    """SIGTERM, as far as a run can tell, after that many questions whether it came."""
    import contextlib

    asked = iter(range(10**6))

    @contextlib.contextmanager
    def on_sigterm():
        yield lambda: next(asked) >= after - 1

    monkeypatch.setattr(experiment, "on_sigterm", on_sigterm)


def test_a_run_traces_its_phases_within_its_steps(tmp_path):
    config = tiny_config(train__profile_steps=(11, 13), train__checkpoint_every=12)
    experiment.run(config, tmp_path / "run")
    (file,) = files(Workdir(tmp_path / "run").profile)
    assert steps(file) == [11, 12, 13]
    found = events(file)
    spans = [(start, end) for name, start, end, _ in found if name == "train"]
    for phase, (start, end) in {"data": spans[0], "evaluation": spans[1]}.items():
        assert any(name == phase and start <= a and b <= end for name, a, b, _ in found), phase
    assert {name for name, *_ in found} == {"train", *PHASES}


def test_a_run_that_is_stopped_and_resumed_within_the_steps_leaves_both_parts(
    tmp_path, monkeypatch
):
    from vit_jax.train.preemption import Preempted

    config = tiny_config(train__profile_steps=(4, 8), evals__validation__every_steps=0)
    with monkeypatch.context() as patched, pytest.raises(Preempted, match="after step 6"):
        interrupted(patched, after=6)
        experiment.run(config, tmp_path / "run")
    folder = Workdir(tmp_path / "run").profile
    (before,) = files(folder)
    assert steps(before) == [4, 5, 6]
    experiment.run(config, tmp_path / "run")
    (after,) = set(files(folder)) - {before}
    assert steps(after) == [7, 8]


def test_what_is_traced_does_not_bind_the_run_and_changes_nothing(tmp_path, monkeypatch, capsys):
    """Resumed after the steps, the same command goes on without a trace; so does one without."""
    from vit_jax.train.preemption import Preempted

    plain = experiment.run(tiny_config(), tmp_path / "plain")
    config = tiny_config(train__profile_steps=(2, 3))
    with monkeypatch.context() as patched, pytest.raises(Preempted):
        interrupted(patched, after=6)
        experiment.run(config, tmp_path / "run")
    folder = Workdir(tmp_path / "run").profile
    assert len(files(folder)) == 1
    again = experiment.run(tiny_config(train__profile_steps=(1, 5)), tmp_path / "run")
    assert len(files(folder)) == 1 and again == plain
    assert "steps 1 to 5 was due before" in capsys.readouterr().out


@pytest.mark.parametrize("steps", [(0, 3), (5, 4), (3, NUM_STEPS + 1), (-2, -1)])
def test_steps_that_the_run_has_not_are_refused_before_it_begins(tmp_path, steps):
    with pytest.raises(InputError, match=f"1 <= first <= last <= {NUM_STEPS}") as error:
        experiment.run(tiny_config(train__profile_steps=steps), tmp_path / "run")
    assert str(steps) in str(error.value)
    assert not (tmp_path / "run").exists()
