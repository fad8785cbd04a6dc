"""A small table in a file of its own, and runs of it that are finished without having run."""

import json

from vit_jax.papers import loading, trials
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.workdir import write_json

CONFIG = """
def get_config(arg):
    return dict(
        task=dict(name="classification", model=dict(name="vit", patch_size=2, width=8)),
        data=dict(source="digits", batch_size=int(arg or 16), image_size=8),
        optimizer=dict(learning_rate=1e-3),
        train=dict(num_steps=5),
        evals=dict(test=dict(split="test")),
    )
"""
TABLE = """
from vit_jax.papers.table import *

def count(config, data):
    return float(config["data"]["batch_size"])

def half(workdir):
    return 0.5

def get_table():
    rows = [
        Row(name="base", config="configs/c.py:16", seeds=(0, 1, 2), is_shown=False),
        Row(name="ViT-B/16", config="configs/c.py", overrides={"init.source": "row:base"},
            seeds=(0, 1, 2)),
        Row(name="other one", config="configs/c.py:32", seeds=(0, 1, 2)),
        Row(name="like other", config="configs/c.py",
            overrides={"data.batch_size": 32}, seeds=(0, 1, 2)),
        Row(name="huge", config="configs/c.py", kind=Kind.ANALYTIC_ONLY, data=(10, 100),
            why="the data is private"),
    ]
    columns = [
        Column(name="top-1", metric="test/top1", unit="%", scale=100),
        Column(name="batch", analytic=count, digits=0, higher_is_better=None),
        Column(name="half", measure=half, higher_is_better=False),
    ]
    small = Scale(
        rows=rows, columns=columns,
        expected={
            ("ViT-B/16", "top-1"): Expected(value=80.0, tolerance=0.5),
            ("huge", "batch"): Expected(value=16, tolerance=0),
        },
        claims=[
            Better(text="one beats other", column="top-1", first=["ViT-B/16"], than=["other one"]),
            Tie(text="they tie", column="top-1", rows=["ViT-B/16", "other one"], within=12.0),
        ],
        reference={("other one", "top-1"): 90.0},
        deviations=["a toy"],
    )
    full = Scale(
        rows=[Row(name="other one", config="configs/c.py:4096", kind=Kind.WEIGHTS_ONLY, why="JFT")],
        columns=[columns[0]], expected={("other one", "top-1"): Expected(value=90, tolerance=1)},
        devices="v3, 4",
    )
    return PaperTable(
        name="toy", title="A toy", source="arXiv:0000.00000, Table 0", question="Which is best?",
        scales={"full": full, "small": small},
    )
"""


def write_table(folder, *changes):
    """The table in a repository of its own; `changes` are (old, new) in its text."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "c.py").write_text(CONFIG)
    file = folder / "experiments" / "toy" / "toy.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = TABLE
    for old, new in changes:
        assert text.count(old), old
        text = text.replace(old, new)
    file.write_text(text)
    return file


def finish_run(sweep, trial, metrics, *, seconds=60.0):
    """The folder of a run that has ended with these metrics."""
    folder = sweep.add(trial)
    stored = json.loads(folder.trial.read_text())["config"]
    write_json(folder.workdir.config, stored)
    card = {"devices": "1 x cpu", "versions": {"python": "3.11", "jax": "0.10.2"}}
    write_json(folder.workdir.run, {**card, "config": stored})
    write_json(folder.workdir.result, {"step": 5, "metrics": metrics, "seconds": seconds})
    return folder


def finished_sweep(folder, file, values):
    """The sweep of the small scale; `values`: row -> test top-1 of seed 0, 1, ..."""
    table = loading.load_table(file)
    runs, sweep = trials.trials_of(table, table.scale("small")), SweepFolder.at(folder)
    sweep.trials.mkdir(parents=True)
    for (row, seed), trial in runs.items():
        if seed < len(values.get(row, ())):
            finish_run(sweep, trial, {"test/top1": values[row][seed]})
    return table, runs, sweep
