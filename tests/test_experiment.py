"""The composition root's own checks; whole runs are in test_resume.py and commands/."""

import io

import pytest
from helpers import DIGITS, LEFT_OUT, tiny_config
from rich.console import Console

from vit_jax import experiment, planning
from vit_jax.config_files import load_config
from vit_jax.errors import InputError
from vit_jax.learner import Info
from vit_jax.train import sharding


@pytest.fixture
def config():
    return load_config(str(DIGITS)).to_dict()


def test_sections_that_may_be_left_out_are_empty(config):
    del config["mesh"], config["evals"]
    found = experiment.plain(config)
    assert found["mesh"] == found["evals"] == {} and found["task"] == config["task"]


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(evals=None), "config.evals is None; allowed: a section"),
        (dict(data="digits"), "config.data is 'digits'; allowed: a section"),
        (dict(dtaa={}), "unknown section dtaa; allowed: task, data, optimizer, train, mesh, evals"),
    ],
)
def test_what_is_no_section_is_refused(config, change, message):
    with pytest.raises(InputError, match=message):
        experiment.plain(config | change)


@pytest.mark.parametrize("batch_size", [32, 128])
@pytest.mark.parametrize("data", [{}, dict(source="tfds:nowhere")], ids=["opened", "told"])
def test_plans_and_runs_have_the_rate_and_the_warmup_of_their_batch_size(batch_size, data):
    """Which overrides on the command line so move with it."""
    config = tiny_config(data__batch_size=batch_size, optimizer__warmup_steps=LEFT_OUT)
    config["optimizer"] |= dict(learning_rate=0.1, reference_batch_size=64, warmup_epochs=2.0)
    config = experiment.plain(config)
    run = Info.of(experiment.build_data(config["data"], seed=0))
    told = planning.Told(num_examples=run.num_examples, num_classes=10, channels=1)
    planned = planning.describe_data(config | {"data": config["data"] | data}, 0, told, [])
    warmup = round(2 * run.num_examples / batch_size)
    for info in (run, planned):
        learner = experiment.build_learner(config, sharding.make_mesh(), info, 1000)
        rate = learner.optimizer.learning_rate
        assert float(rate(warmup)) == pytest.approx(0.1 * batch_size / 64, rel=1e-6)
        assert float(rate(1)) == pytest.approx(0.1 * batch_size / 64 / warmup, rel=1e-6)
        assert float(rate(warmup + 1)) < float(rate(warmup))


def test_signal_before_the_first_step_stops_after_it(config, tmp_path, monkeypatch):
    """It comes while the data is opened, long before the loop."""
    import os
    import signal

    from vit_jax.train.preemption import Preempted

    build = experiment.build_data

    def interrupted(*arguments, **settings):
        os.kill(os.getpid(), signal.SIGTERM)
        return build(*arguments, **settings)

    monkeypatch.setattr(experiment, "build_data", interrupted)
    with pytest.raises(Preempted, match="after step 1"):
        experiment.run(config, tmp_path / "run")
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["1"]


def test_a_run_says_which_attention_it_has_and_why(tmp_path):
    config = tiny_config(train__num_steps=1, optimizer__warmup_steps=0)
    console = Console(file=io.StringIO(), width=200)
    experiment.run(config, tmp_path / "run", console=console)
    said = [line for line in console.file.getvalue().splitlines() if "attention:" in line]
    assert len(said) == 1 and said[0].startswith("attention: dense (on a CPU ")
