"""The result is the same bytes for any number of workers, kills and restarts."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prepare_inputs import image_bytes, pictures, write_folder, write_tar

from vit_jax.data.prepare import pool
from vit_jax.data.prepare.output import Output
from vit_jax.data.prepare.run import prepare
from vit_jax.errors import InputError

ROOT = Path(__file__).parents[3]
SHARDS = 16


def hashes(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Images that take long enough to be killed among, one of them damaged."""
    image = image_bytes(1, "PNG", (700, 700))
    files = {f"cat/{i:03}.png": (image, 0) for i in range(64)}
    files["cat/031.png"] = image[:5000], 0
    return write_folder(tmp_path_factory.mktemp("large"), train=files)


@pytest.fixture(scope="module")
def undisturbed(large, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    prepare(f"folder:{large}", str(out), shards=SHARDS, workers=0)
    return hashes(out)


def start(large, out, workers):
    command = [sys.executable, "-m", "vit_jax", "prepare", f"--from=folder:{large}", f"--to={out}"]
    return subprocess.Popen(
        [*command, f"--shards={SHARDS}", f"--workers={workers}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_reports(out, count):
    while len(found := list((out / ".progress").glob("train-*.json"))) < count:
        time.sleep(0.002)
    return {path.name for path in found}


def test_killed_and_resumed_is_identical(large, undisturbed, tmp_path):
    out = tmp_path / "out"
    seen = set()
    for workers, finished in ((1, 1), (2, 4)):  # killed twice
        process = start(large, out, workers)
        seen |= wait_for_reports(out, len(seen) + finished)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (out / "manifest.json").exists()
        assert len(list((out / ".progress").glob("train-*.json"))) < SHARDS
    first = min(path.stat().st_mtime_ns for path in out.glob("*.array_record"))
    process = start(large, out, 2)
    text, _ = process.communicate()
    assert process.returncode == 0, text
    assert "images are written already" in text and "1 unreadable" in text
    assert min(path.stat().st_mtime_ns for path in out.glob("*.array_record")) == first
    assert hashes(out) == undisturbed


def test_sigterm_stops_and_the_same_command_continues(large, undisturbed, tmp_path):
    out = tmp_path / "out"
    process = start(large, out, 2)
    wait_for_reports(out, 1)
    process.terminate()
    text, _ = process.communicate()
    assert process.returncode == 75 and "the same command continues" in text
    assert not (out / "manifest.json").exists()
    assert not list(out.glob(".train*"))  # half-written shards are removed
    prepare(f"folder:{large}", str(out), shards=SHARDS, workers=0)
    assert hashes(out) == undisturbed


def test_workers_die_with_the_command(large, tmp_path):
    """Or they would go on writing into the folder of the next one."""
    out = tmp_path / "out"
    process = start(large, out, 2)
    wait_for_reports(out, 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while any(is_alive(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_finished_one_is_left_alone(large, undisturbed, tmp_path):
    out = tmp_path / "out"
    assert prepare(f"folder:{large}", str(out), shards=SHARDS, workers=2).is_new
    assert hashes(out) == undisturbed
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert not prepare(f"folder:{large}", str(out), shards=SHARDS, workers=0).is_new
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


class Stop(Exception):
    pass


def interrupted(spec, out, after, **options):
    """Stops a conversion after some images."""

    def stop(done, total):
        if done.images >= after:
            raise Stop

    with pytest.raises(Stop):
        prepare(spec, str(out), workers=0, on_progress=stop, **options)


def test_other_settings_are_refused(tmp_path):
    files = pictures()
    root = write_folder(tmp_path / "in", train=files)
    tar = write_tar(tmp_path / "train.tar", {name: data for name, (data, _) in files.items()})
    out = tmp_path / "out"
    interrupted(f"folder:{root}", out, 5, shards=3)
    others = [
        (f"folder:{root}", {"shards": 4}, "shards=3, now shards=4"),
        (f"folder:{root}", {}, "shards=3, now shards=None"),
        (f"tar:{tar}", {"shards": 3}, "source="),
    ]
    for finished in (False, True):
        if finished:
            prepare(f"folder:{root}", str(out), shards=3, workers=0)
        for spec, options, message in others:
            with pytest.raises(InputError, match=message):
                prepare(spec, str(out), workers=0, **options)


def test_changed_input_is_refused(tmp_path):
    files = pictures()
    root = write_folder(tmp_path / "in", train=files)
    interrupted(f"folder:{root}", tmp_path / "out", 5, shards=3)
    write_folder(root, train={"cat/new.png": (image_bytes(50), 0)})
    with pytest.raises(InputError, match="has changed since"):
        prepare(f"folder:{root}", str(tmp_path / "out"), shards=3, workers=0)


def test_damaged_and_missing_shards_are_written_again(tmp_path):
    root = write_folder(tmp_path / "in", train=pictures())
    prepare(f"folder:{root}", str(tmp_path / "whole"), shards=3, workers=0)
    out = tmp_path / "out"
    interrupted(f"folder:{root}", out, 8, shards=3)
    done = sorted(out.glob("*.array_record"))
    assert len(done) == 2
    done[0].write_bytes(b"short")
    done[1].unlink()
    (out / ".train-00002-of-00003.array_record.123").write_bytes(b"left by a killed worker")
    prepare(f"folder:{root}", str(out), shards=3, workers=0)
    assert hashes(out) == hashes(tmp_path / "whole")


def test_strict_sees_what_an_earlier_start_let_pass(tmp_path):
    root = write_folder(tmp_path / "in", train={**pictures(), "cat/000.png": (b"", 0)})
    interrupted(f"folder:{root}", tmp_path / "out", 5, shards=3)
    with pytest.raises(InputError, match="cat/000.png"):
        prepare(f"folder:{root}", str(tmp_path / "out"), shards=3, workers=0, strict=True)


def test_folder_of_others_or_in_use_is_refused(tmp_path):
    root = write_folder(tmp_path / "in", train=pictures())
    with pytest.raises(InputError, match="holds other files"):
        prepare(f"folder:{root}", str(root), workers=0)
    with pytest.raises(InputError, match="Cannot write"):
        prepare(f"folder:{root}", "/proc/nowhere", workers=0)
    with pytest.raises(InputError, match="holds no .*tar"):
        prepare(f"tar:{root}", str(tmp_path / "new"), workers=0)
    assert not list((tmp_path / "new").iterdir())
    output = Output(str(tmp_path / "out"), {})
    with output.claimed(), pytest.raises(InputError, match="Another process"):
        prepare(f"folder:{root}", str(tmp_path / "out"), workers=0)


def test_full_disk_is_explained(tmp_path):
    """A limit on the size of files fails as a full disk does, and is easier to lift."""
    root = write_folder(tmp_path / "in", train=pictures())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # less than an empty shard
    try:
        with pytest.raises(InputError, match="Cannot write .*File too large"):
            prepare(f"folder:{root}", str(tmp_path / "out"), workers=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".progress"]  # to continue


# the pool


def double(task, count):
    count(1, task)
    return 2 * task


def fail_at_three(task, count):
    count(1, task)
    if task == 3:
        raise InputError("three is not liked")
    return task


def kill_at_three(task, count):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


@pytest.mark.parametrize("workers", [0, 2])
def test_pool_does_each_task_once_and_counts(workers):
    told = []
    found = pool.run(double, list(range(7)), workers=workers, on_progress=told.append)
    assert sorted(found) == [0, 2, 4, 6, 8, 10, 12]
    assert told[-1] == (7, 21)


@pytest.mark.parametrize("workers", [0, 2])
def test_pool_passes_a_refusal_on(workers):
    with pytest.raises(InputError, match="three is not liked"):
        list(pool.run(fail_at_three, list(range(7)), workers=workers, on_progress=lambda _: None))


def test_pool_explains_a_killed_worker():
    with pytest.raises(InputError, match="worker process was killed"):
        list(pool.run(kill_at_three, list(range(7)), workers=2, on_progress=lambda _: None))
