"""A workdir belongs to one config, and says so before anything is lost."""

import json
import subprocess
import sys

import pytest

from vit_jax.errors import InputError
from vit_jax.workdir import (
    FREE_KEYS,
    Workdir,
    check_writable,
    claim,
    contradictions,
    existing,
    read_json,
    write_json,
)

CONFIG = {
    "task": {"name": "classification", "model": {"width": 8, "patch_size": (2, 2)}, "mixing": {}},
    "data": {"source": "digits", "num_threads": 2},
    "optimizer": {"learning_rate": 1e-3},
    "train": {"num_steps": 9, "log_every": 5},
    "mesh": {"data": -1},
    "evals": {},
}


def changed(path, value):
    config = json.loads(json.dumps(CONFIG))
    *parents, leaf = path.split(".")
    section = config
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return config


def take(path, config, *, trains=True):
    """Claims the folder, leaves a checkpoint there, and lets go."""
    with claim(path, config) as workdir:
        if trains:
            (workdir.checkpoints / "5").mkdir(parents=True, exist_ok=True)
    return workdir


def test_claiming_makes_the_folder_and_writes_the_config(tmp_path):
    workdir = take(tmp_path / "deep" / "run", CONFIG, trains=False)
    assert workdir.path == tmp_path / "deep" / "run"
    assert read_json(workdir.config) == json.loads(json.dumps(CONFIG))
    names = sorted(p.name for p in workdir.path.iterdir())
    assert names == [".lock", "config.json"]  # no probe, no .tmp left


def test_same_config_may_claim_again(tmp_path):
    """Tuples are lists after JSON; that is no difference."""
    assert take(tmp_path, CONFIG) == take(tmp_path, CONFIG)
    assert take(tmp_path, json.loads(json.dumps(CONFIG))) == existing(tmp_path)


@pytest.mark.parametrize(
    "path, value, difference",
    [
        ("optimizer.learning_rate", 0.01, "optimizer.learning_rate: 0.001 there, 0.01 now"),
        ("optimizer.b2", 0.95, r"optimizer.b2: '\(not set\)' there, 0.95 now"),
        ("task.model.patch_size", 2, r"task.model.patch_size: \[2, 2\] there, 2 now"),
        ("task.mixing.mixup_alpha", 0.2, "task.mixing.mixup_alpha: .* there, 0.2 now"),
        ("train.num_steps", 10, "train.num_steps: 9 there, 10 now"),
        ("train.log_everything", 1, "train.log_everything"),  # only begins like a free key
        ("data.source", "idx:/x", "data.source: 'digits' there"),
    ],
)
def test_another_config_is_refused_with_the_difference(path, value, difference, tmp_path):
    take(tmp_path, CONFIG)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(InputError, match=f"belongs to a run with another config: .*{difference}"):
        take(tmp_path, changed(path, value))
    assert (tmp_path / "config.json").read_bytes() == before


def test_every_difference_is_told():
    new = changed("optimizer.learning_rate", 0.01)
    del new["task"]["model"]["width"]
    found = contradictions(CONFIG, new)
    assert found == [
        "optimizer.learning_rate: 0.001 there, 0.01 now",
        "task.model.width: 8 there, '(not set)' now",
    ]


def test_config_that_never_trained_binds_nobody(tmp_path):
    """A mistake found late must not stand in the way of the corrected command."""
    take(tmp_path, CONFIG, trains=False)
    (tmp_path / "checkpoints").mkdir()
    take(tmp_path, changed("train.num_steps", 10), trains=False)
    assert read_json(tmp_path / "config.json") == changed("train.num_steps", 10)


def test_finished_run_keeps_its_config_under_free_keys_and_refuses_others(tmp_path):
    take(tmp_path, CONFIG, trains=False)
    write_json(tmp_path / "result.json", {})
    before = (tmp_path / "config.json").read_bytes()
    take(tmp_path, changed("evals.x", 3))
    with pytest.raises(InputError, match="another config"):
        take(tmp_path, changed("train.num_steps", 10))
    assert (tmp_path / "config.json").read_bytes() == before


HOLD = """
import sys
from vit_jax.workdir import claim
with claim(sys.argv[1], {}):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_only_one_process_trains_in_a_folder_and_death_frees_it(tmp_path):
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], **pipes)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"another process is training in {tmp_path}; allowed"):
        take(tmp_path, {})
    process.kill()
    process.communicate()
    take(tmp_path, {})


def test_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    take(tmp_path, CONFIG)
    assert "cannot be locked" in caplog.text


@pytest.mark.parametrize("key", FREE_KEYS)
def test_keys_that_change_no_result_are_free(key, tmp_path):
    take(tmp_path, CONFIG)
    path, value = (f"{key}.x", 3) if key in ("mesh", "evals") else (key, 3)
    take(tmp_path, changed(path, value))
    assert read_json(tmp_path / "config.json") == changed(path, value)


def test_checkpoints_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(InputError, match="has checkpoints but no config.json"):
        take(tmp_path, CONFIG)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("name", ["file", "file/run", "file/deep/run"])
def test_folder_that_cannot_be_made_is_told(name, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=f"the folder {tmp_path / name} cannot be written"):
        take(tmp_path / name, CONFIG)
    assert (tmp_path / "file").read_text() == "no folder"


def test_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")  # root, as tests may run, is never refused

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match="cannot be written \\(Permission denied\\)"):
        check_writable(tmp_path)


def test_folder_of_no_run_is_told(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="is no run's workdir: there is no config.json"):
            existing(path)
    assert not (tmp_path / "none").exists()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert take("~/run", CONFIG).path == tmp_path / "run"


def test_files_have_the_documented_names(tmp_path):
    workdir = Workdir(tmp_path)
    names = {
        "config": "config.json",
        "run": "run.json",
        "metrics": "metrics.jsonl",
        "curves": "curves.png",
        "tensorboard": "tensorboard",
        "checkpoints": "checkpoints",
        "result": "result.json",
        "non_finite": "non_finite.json",
    }
    for attribute, name in names.items():
        assert getattr(workdir, attribute) == tmp_path / name


@pytest.mark.parametrize("content", [None, "", "{", b"\xff\xfe"])
def test_unreadable_json_is_told_with_its_path(content, tmp_path):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{path} cannot be read"):
        read_json(path)


def test_written_json_replaces_the_file_at_once(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
