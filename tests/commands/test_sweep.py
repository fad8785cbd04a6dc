"""`sweep` as a person calls it: which trials a config has, and every mistake in one sentence."""

import importlib.util
import json
import re
import shlex

import cheap_trials
import command_calls
import pytest
import synthetic_sweeps as synthetic
from helpers import ROOT, tiny_config

from vit_jax import experiment
from vit_jax.commands import parsing, sweep, train
from vit_jax.sweeps import running, status
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.reports import report

WRITE_REPORT = sweep.write_report
LOSS = "--metric=test/loss"
LISTED = """
def sweep():
    yield {"train.seed": 0}
    yield {"train.seed": 1, "data.train": "train[:50%]", "name": "half"}
"""
SPACE = """
def search_space(trial):
    return {"optimizer.learning_rate": trial.suggest_float("rate", 1e-3, 1e-2)}
"""


def call(capsys, *arguments):
    return command_calls.call(capsys, "sweep", *arguments)


def write(folder, functions, **overrides):
    """A config with these functions, below a folder of configs."""
    path = folder / "configs" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    config = f"def get_config(arg):\n    return {tiny_config(**overrides)!r}\n"
    path.write_text(config + functions)
    return path


@pytest.fixture
def cheap(monkeypatch):
    """Trials that train nothing; their metrics are the config's own."""
    program = """
import json, sys, pathlib
here = pathlib.Path(sys.argv[1])
config = json.loads((here / "trial.json").read_text())["config"]
rate, seed = config["optimizer"]["learning_rate"], config["train"]["seed"]
metrics = {"test/top1": seed / 10, "test/loss": rate, "validation/top1": 0.5}
(here / "metrics.jsonl").write_text(json.dumps({"step": 24, **metrics}) + "\\n")
(here / "run.json").write_text(json.dumps({"num_steps": 24, "command": [], "devices": ""}))
(here / "result.json").write_text(json.dumps({"step": 24, "metrics": metrics}))
"""
    command = lambda folder: ["python3", "-c", program, str(folder.workdir.path)]  # noqa: E731
    original = running.How
    monkeypatch.setattr(running, "How", lambda **how: original(command=command, **how))
    monkeypatch.setattr(sweep, "write_report", lambda folder: print(f"report of {folder.path}"))


def test_a_sweep_is_run_looked_at_and_not_run_again(cheap, capsys, tmp_path):
    config = write(tmp_path, LISTED)
    given = [f"--config={config}:x", f"--workdir={tmp_path / 'runs'}"]
    code, out, err = call(capsys, *given, "--config.optimizer.learning_rate=0.5")
    assert code == 0, err
    assert "seed=0: begins\n" in out and "half: finished, test/top1 10.00%\n" in out
    assert f"2 trials: 2 finished | {tmp_path / 'runs'}\n" in out
    assert f"report of {tmp_path / 'runs'}" in out

    told = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert told["config"] == f"{config}:x" and told["metric"] == "test/top1"
    assert told["arguments"] == ["--config.optimizer.learning_rate=0.5"]
    assert told["direction"] == "maximize" and told["versions"].keys() >= {"python", "jax"}

    code, out, _ = call(capsys, *given, "--config.optimizer.learning_rate=0.5")
    assert code == 0 and "begins" not in out
    code, _, err = call(capsys, *given)
    assert code == 2 and "belongs to another config: optimizer.learning_rate: 0.5 there" in err


def test_status_and_best_need_the_folder_alone(cheap, capsys, tmp_path):
    config = write(tmp_path, LISTED)
    workdir = f"--workdir={tmp_path / 'runs'}"
    call(capsys, f"--config={config}", workdir, "--config.train.num_steps=24")
    code, out, _ = call(capsys, workdir, "--status")
    assert code == 0 and re.search(r"half +finished +24/24 +10.00%", out)
    assert "2 trials: 2 finished" in out
    code, out, _ = call(capsys, workdir, "--best")
    assert code == 0 and out.startswith("half: test/top1 10.00%\n")
    assert "  data.train = 'train[:50%]'\n" in out
    alone = out.partition("alone: ")[2]
    assert f"train --config={config} --config.train.num_steps=24" in alone
    assert "--config.train.seed=1 '--config.data.train=train[:50%]' --workdir=NEW" in alone
    # Another metric, which is no property of the sweep.
    assert re.search(r"half +finished +24/24 +0.00", call(capsys, workdir, "--status", LOSS)[1])
    # Of losses the least: both are equal, and the first by name is taken.
    assert call(capsys, workdir, "--best", LOSS)[1].startswith("half: test/loss")
    for look in ("--best", "--status", "--report"):
        code, _, err = call(capsys, workdir, look, "--metric=test/f1")
        assert code == 2 and "--metric is 'test/f1'" in err and "allowed: test/" in err


def test_a_report_may_be_by_another_metric(cheap, capsys, tmp_path, monkeypatch):
    workdir = f"--workdir={tmp_path / 'runs'}"
    call(capsys, f"--config={write(tmp_path, LISTED)}", workdir)
    asked = []
    monkeypatch.setattr(report, "write", lambda folder, metric: asked.append(metric) or [])
    monkeypatch.setattr(sweep, "write_report", WRITE_REPORT)
    assert call(capsys, workdir, "--report", LOSS)[0] == call(capsys, workdir, "--report")[0] == 0
    assert asked == ["test/loss", None]


@pytest.mark.parametrize(
    "evals, metric",
    [
        (["test", "validation"], "test/top1"),
        (["dev"], "dev/top1"),
        ([], None),
    ],
)
def test_trials_are_compared_by_an_evaluation_that_there_is(evals, metric, cheap, capsys, tmp_path):
    config = write(tmp_path, LISTED, evals={name: {"split": "test"} for name in evals})
    code, _, err = call(capsys, f"--config={config}", f"--workdir={tmp_path / 'runs'}")
    assert code == 0, err
    assert json.loads((tmp_path / "runs" / "sweep.json").read_text())["metric"] == metric


def test_the_best_is_none_that_has_no_number(tmp_path):
    folder = synthetic.new_sweep(tmp_path)
    for seed, value in enumerate((float("nan"), 0.5, float("inf"), 0.7)):
        synthetic.add(folder, {"train.seed": seed}, value)
    assert status.best(folder, "test/top1").name == "seed=3"


CHANGES = (
    {"init.source": "trial:first", "train.seed": 1},
    {"data.source": "3", "data.train": 'it\'s a "split" & more[:5%]'},
    {"data.augment": {"padding": 1, "why": "trial:first"}, "mesh.data": None},
    {"data.augment.padding": (1, 2), "train.ema_decay": 1e-7, "optimizer.nesterov": True},
    {"data.source": "'quoted'", "data.train": "a=b", "task.loss.name": "None"},
    {"data.source": "", "data.train": " 7", "task.loss.name": "[1"},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_the_command_that_repeats_a_trial_has_its_config(changes, cheap, capsys, tmp_path):
    """Read by the shell, and then by `train`."""
    functions = f"def sweep():\n    return [{{'name': 'first'}}, {{'name': 'x', **{changes!r}}}]\n"
    workdir, config = f"--workdir={tmp_path / 'runs'}", write(tmp_path, functions)
    call(capsys, f"--config={config}:arg", workdir, "--config.data.batch_size=24")
    folder = SweepFolder.at(tmp_path / "runs")
    folder.trial("first").workdir.result.unlink()
    alone = call(capsys, workdir, "--best")[1].partition("alone: ")[2]
    words = shlex.split(alone)
    assert words[:4] == ["python", "-m", "vit_jax", "train"]
    found, rest = parsing.take_config(words[4:])
    assert train.parse(rest).workdir == "NEW"
    expected = folder.trial("x").record().config
    assert json.loads(json.dumps(experiment.plain(found))) == expected


@pytest.mark.parametrize("look", ["--status", "--best", "--report"])
@pytest.mark.parametrize("flag", ["--workers=2", "--dry_run", "--launcher=local", "--scale=small"])
def test_looking_takes_no_flags_of_running(look, flag, capsys, tmp_path):
    code, _, err = call(capsys, f"--workdir={tmp_path}", look, flag)
    told = (
        f"{flag.partition('=')[0]} has no effect on {look}; allowed beside it: --workdir, --metric"
    )
    assert code == 2 and err == f"error: {told}.\n"
    config = write(tmp_path, LISTED)
    code, _, err = call(capsys, f"--workdir={tmp_path}", look, f"--config={config}")
    assert code == 2 and "--config has no effect" in err


def test_num_trials_means_a_search(cheap, capsys, tmp_path):
    pytest.importorskip("optuna")
    config = write(tmp_path, LISTED + SPACE)
    given = [f"--config={config}", f"--workdir={tmp_path / 'runs'}", "--metric=test/loss"]
    code, out, err = call(capsys, *given, "--num_trials=3", "--sampler=random", "--workers=2")
    assert code == 0, err
    records = SweepFolder.at(tmp_path / "runs").records()
    assert [record.state for record in records] == 3 * [State.FINISHED]
    losses = {record.name: record.metrics["test/loss"] for record in records}
    _, out, _ = call(capsys, f"--workdir={tmp_path / 'runs'}", "--best")
    assert out.startswith(f"{min(losses, key=losses.get)}: test/loss")
    told = json.loads((tmp_path / "runs" / "sweep.json").read_text())
    assert told["search"]["sampler"] == "random" and told["direction"] == "minimize"


def test_a_dry_run_tells_the_trials_and_touches_nothing(capsys, tmp_path):
    config = write(tmp_path, LISTED + SPACE)
    given = [f"--config={config}", f"--workdir={tmp_path / 'runs'}", "--dry_run"]
    code, out, _ = call(capsys, *given)
    assert code == 0
    assert "half (waiting): train.seed=1, data.train='train[:50%]'\n" in out
    code, out, _ = call(capsys, *given, "--num_trials=7")
    assert code == 0 and out.startswith("7 trials, chosen by tpe for the best test/top1")
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="needs the extra: pip install 'vit_jax[slurm]'",
)
def test_a_dry_run_prints_the_script_of_an_array(capsys, tmp_path):
    config = write(tmp_path, LISTED, launch__max_parallel=1)
    given = [f"--config={config}", f"--workdir={tmp_path / 'runs'}", "--launcher=slurm"]
    code, out, _ = call(capsys, *given, "--dry_run")
    assert code == 0 and "#SBATCH --array=0-1%1\n" in out
    assert "#SBATCH --job-name=runs\n" in out and f"{tmp_path}/runs/slurm" in out
    assert not (tmp_path / "runs").exists()


def test_sweep_is_given_the_argument_if_it_takes_one(capsys, tmp_path):
    functions = "def sweep(arg):\n    return [{'train.seed': int(arg)}]\n"
    given = [f"--config={write(tmp_path, functions)}:7", f"--workdir={tmp_path}", "--dry_run"]
    assert "seed=7 (waiting): train.seed=7" in call(capsys, *given)[1]


@pytest.mark.parametrize(
    "functions, arguments, message",
    [
        ("", [], "has neither sweep() nor search_space(trial); allowed: a config with"),
        (LISTED, ["--num_trials=3"], "has no search_space(trial); allowed"),
        (SPACE, [], "--num_trials is missing, and"),
        (LISTED, ["--sampler=tpe"], "--sampler belongs to a search; allowed: with --num_trials"),
        (LISTED, ["--metric=val/top1"], "--metric is 'val/top1'; allowed: EVALUATION/METRIC"),
        (LISTED, ["--launcher=slrum"], "--launcher is 'slrum' (did you mean 'slurm'?); allowed"),
        (LISTED, ["--launcher=slurm", "--gpus_per_trial=1"], "config.launch.gpus_per_node"),
        (LISTED, ["--config.launch.nodes=2"], "config.launch.nodes is 2; allowed with"),
        (LISTED, ["--workers=0"], "0 is not a positive integer"),
        (LISTED, ["--config.launch.hours=-1"], "config.launch.hours is -1"),
        ("def sweep():\n    yield {'seed': 1}\n", [], "a trial sets 'seed'; allowed"),
        ("def sweep():\n    return []\n", [], "the sweep has no trials"),
        ("def sweep():\n    return [{}, {}]\n", [], "two trials are named 'base'"),
        ("def sweep():\n    yield 1 / 0\n", [], "cannot be read: ZeroDivisionError"),
        (SPACE, ["--num_trials=1", "--pruner=median"], "'test' is evaluated after the last step"),
    ],
)
def test_mistakes_are_one_sentence(functions, arguments, message, capsys, tmp_path):
    config = write(tmp_path, functions)
    given = [f"--config={config}", f"--workdir={tmp_path / 'runs'}", "--dry_run", *arguments]
    code, _, err = call(capsys, *given)
    assert code == 2 and err.startswith("error: ") and message in err, err
    assert len(err.strip().splitlines()) == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mistake", ["raise ValueError('no such thing')", "yield {'seed': 1}"])
def test_mistakes_name_their_file_once(mistake, capsys, tmp_path):
    """In `sweep()` itself, and in what it yields."""
    config = write(tmp_path, f"def sweep():\n    {mistake}\n")
    err = call(capsys, f"--config={config}", f"--workdir={tmp_path / 'runs'}", "--dry_run")[2]
    assert err.startswith(f"error: --config={config}: ") and err.count("--config=") == 1, err


@pytest.mark.parametrize("look", ["--status", "--best", "--report"])
def test_what_is_no_sweep_cannot_be_looked_at(look, capsys, tmp_path):
    code, _, err = call(capsys, f"--workdir={tmp_path}", look)
    assert code == 2 and "holds no sweep" in err


SWEPT = [p for p in sorted((ROOT / "configs").glob("*.py")) if "def sweep(" in p.read_text()]


@pytest.mark.parametrize("path", SWEPT, ids=lambda path: path.stem)
def test_sweeps_of_the_configs_have_trials(path, capsys, tmp_path):
    code, out, err = call(capsys, f"--config={path}", f"--workdir={tmp_path}", "--dry_run")
    assert code == 0 and len(out.splitlines()) > 1, err


def test_retry_failed_may_be_written_with_a_dash():
    assert sweep.parse(["--retry-failed"]).retry_failed
    assert sweep.parse(["--retry_failed"]).retry_failed


def test_a_failed_trial_is_told_by_the_exit_code(capsys, tmp_path, monkeypatch):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    original = running.How
    command = cheap_trials.command
    monkeypatch.setattr(running, "How", lambda **how: original(command=command, **how))
    monkeypatch.setattr(sweep, "write_report", lambda folder: None)
    functions = f"def sweep():\n    yield {{'task.breaks_if': {str(obstacle)!r}}}\n"
    given = [f"--config={write(tmp_path, functions)}", f"--workdir={tmp_path / 'runs'}"]
    code, out, _ = call(capsys, *given)
    assert code == 1 and "failed: it is broken" in out


def test_what_went_wrong_is_told_as_it_is(capsys, tmp_path):
    """Brackets are no markup."""
    folder = synthetic.new_sweep(tmp_path)
    synthetic.add(folder, {}, state=State.FAILED)
    folder.known()[0].failed.write_text('{"reason": "no [/data] and [red]"}')
    out = call(capsys, f"--workdir={tmp_path}", "--status")[1]
    assert "[/data]" in out and "[red]" in out


@pytest.mark.parametrize("look", ["--status", "--best", "--report"])
def test_a_foreign_file_is_no_sweep(look, capsys, tmp_path):
    (tmp_path / "sweep.json").write_text("{}")
    code, _, err = call(capsys, f"--workdir={tmp_path}", look)
    assert code == 2 and "sweep.json is no sweep's" in err
