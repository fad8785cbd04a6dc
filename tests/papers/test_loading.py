"""A table file is refused in one sentence that says what is allowed."""

import pytest
from finished_tables import write_table

from vit_jax.errors import InputError
from vit_jax.papers import loading, pricing, trials
from vit_jax.papers.table import Kind
from vit_jax.sweeps.trials import check_trials


def test_a_table_is_found_with_the_folder_of_its_configs(tmp_path):
    file = write_table(tmp_path)
    assert loading.is_table(file) and not loading.is_table(tmp_path / "configs" / "c.py")
    table = loading.load_table(file)
    assert table.root == tmp_path.resolve() and set(table.table.scales) == {"full", "small"}
    with pytest.raises(InputError, match="--scale is 'smal' .did you mean 'small'.*full, small"):
        table.scale("smal")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('("huge", "batch")', '("hug", "batch")', "'hug' .*allowed: base, ViT-B/16"),
        ('("huge", "batch")', '("huge", "b")', "column of an expected value.*top-1, batch, half"),
        ('than=["other one"]', 'than=["another"]', "one of its rows.*ViT-B/16, other one"),
        ('first=["ViT-B/16"]', 'first=["base"]', "is 'base'.*allowed: ViT-B/16"),
        ('column="top-1", first', 'column="batch", first', "higher_is_better is None"),
        ("within=12.0", "within=0", "ties within 0"),
        ('first=["ViT-B/16"]', 'first="huge"', "first is 'huge'; allowed: a list of rows' names"),
        ('first=["ViT-B/16"]', "first=[]", "is of the rows other one; allowed: at least two"),
        ('than=["other one"]', 'than=["ViT-B/16"]', "allowed: at least two, each named once"),
        ('rows=["ViT-B/16", "other one"]', "rows=[]", r"of the rows \(none\); allowed: at least"),
        (
            '("other one", "top-1"): 90.0',
            '("other", "top-1"): 90.0',
            "'other' .did you mean 'other one'.*allowed: base",
        ),
        ('name="like other"', 'name="other one"', "'other one' is there 2 times; allowed: once"),
        (", analytic=count", ", analytic=count, metric='m'", "metric and analytic; allowed: one"),
        (", measure=half", "", "measured by nothing; allowed: one of metric, measure, analytic"),
        ("measure=half", "measure=lambda w: 0.5", "named '<lambda>'"),
        ("row:base", "row:huge", "needs is 'huge'; allowed: base"),
        ("row:base", "row:other one", "needs is 'other one'; allowed: base"),
        ("            seeds=(0, 1, 2)),", "            seeds=(0, 7)),", "seeds of that row"),
        ("seeds=(0, 1, 2), is_shown", "seeds=(0, 0), is_shown", "allowed: different ones"),
        ('data=(10, 100),\n            why="the data is private"', "", "only with `why`"),
        ("configs/c.py:4096", "configs/d.py", "allowed: files below a folder"),
        ("return PaperTable(", "return dict(", "returned dict; allowed: a PaperTable"),
        ("def get_table", "def table", "has no function get_table()"),
        ("columns = [", "columns = [1/0,", "ZeroDivisionError.*line"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path, old, new, message):
    with pytest.raises(InputError, match=message):
        loading.load_table(write_table(tmp_path, (old, new)))


def test_a_wrong_key_of_a_row_names_the_row(tmp_path):
    table = loading.load_table(write_table(tmp_path, ('"data.batch_size": 32', '"batch_size": 32')))
    with pytest.raises(InputError, match="toy, row 'like other': a trial sets 'batch_size'"):
        trials.trials_of(table, table.scale("small"))


def test_each_row_and_seed_is_a_trial_and_equal_ones_are_shared(tmp_path):
    table = loading.load_table(write_table(tmp_path))
    runs = trials.trials_of(table, table.scale("small"))
    assert len(runs) == 12 and len(trials.distinct(runs)) == 9
    fine = runs["ViT-B/16", 2]
    assert fine.name == "ViT-B_16,seed=2" and fine.needs == ("base,seed=2",)
    assert fine.config["init"]["source"] == "trial:base,seed=2"
    assert fine.config["train"]["seed"] == 2
    assert runs["like other", 1] is runs["other one", 1]
    assert "huge" not in {row for row, _ in runs}  # never started
    check_trials(trials.distinct(runs))
    names = [trial.overrides["row"] for trial in trials.distinct(runs)]
    assert len(set(names)) == 3  # a report tells rows of different configs apart


def test_a_row_may_begin_from_the_only_seed_of_another(tmp_path):
    change = ("seeds=(0, 1, 2), is_shown", "seeds=(5,), is_shown")
    table = loading.load_table(write_table(tmp_path, change))
    runs = trials.trials_of(table, table.scale("small"))
    needs = {runs["ViT-B/16", seed].needs for seed in (0, 1, 2)}
    assert needs == {("base,seed=5",)}


def test_what_cannot_be_trained_is_never_started(tmp_path):
    table = loading.load_table(write_table(tmp_path))
    assert {row.kind for row in table.scale("full").rows} == {Kind.WEIGHTS_ONLY}
    assert trials.trials_of(table, table.scale("full")) == {}


def test_a_table_of_numbers_that_are_computed_has_no_runs(tmp_path):
    changes = (('metric="test/top1"', "analytic=count"), ("measure=half", "analytic=count"))
    table = loading.load_table(write_table(tmp_path, *changes))
    assert trials.trials_of(table, table.scale("small")) == {}


def test_rows_whose_names_make_one_folder_are_refused(tmp_path):
    """Of 'other/one' and 'other_one' only one would be trained, and stand in both rows."""
    change = (
        'name="like other", config="configs/c.py"',
        'name="other/one", config="configs/c.py:8"',
    )
    changes = [change, ('overrides={"data.batch_size": 32}', 'overrides={"data.batch_size": 8}')]
    file = loading.load_table(write_table(tmp_path, *changes))
    with pytest.raises(InputError, match="two trials are named 'other_one,seed=0'"):
        trials.trials_of(file, file.scale("small"))


def test_runs_take_machines_and_folders_from_the_caller_and_nothing_else(tmp_path):
    path = write_table(tmp_path)
    where = {"launch.gpus_per_node": 8, "data.data_dir": "/data"}
    file = loading.load_table(path, where=where)
    for trial in trials.trials_of(file, file.scale("small")).values():
        assert trial.config["launch"] == {"gpus_per_node": 8}
        assert trial.config["data"]["data_dir"] == "/data"
        assert not any(key in trial.overrides for key in where)  # no part of the question
    assert pricing.launch_command(file, "small").endswith(
        "--scale=small --config.launch.gpus_per_node=8 --config.data.data_dir=/data"
    )
    with pytest.raises(InputError, match="--config.optimizer.learning_rate is given, but the rows"):
        loading.load_table(path, where={"optimizer.learning_rate": 1.0})
