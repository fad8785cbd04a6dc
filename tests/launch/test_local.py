"""Several processes of one machine: places, devices, signals, output, and an end together."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import ROOT

from vit_jax.errors import InputError
from vit_jax.launch import local
from vit_jax.launch.settings import LaunchSettings


def launch(program, tasks=2, **variables):
    """Runs a Python program in each process; `index` is its number."""
    lines = f"import os, signal, sys, time\nindex = int(os.environ['JAX_PROCESS_ID'])\n{program}"
    environment = {**os.environ, **variables}
    settings = LaunchSettings(tasks_per_node=tasks)
    return local.launch([sys.executable, "-c", lines], settings, environment=environment)


def environments(environment=(), **section):
    return local.process_environments(LaunchSettings(**section), dict(environment), port=1234)


def test_each_process_knows_its_place():
    found = environments({"HOME": "/home"}, tasks_per_node=3)
    assert [e["JAX_PROCESS_ID"] for e in found] == ["0", "1", "2"]
    assert {e["JAX_NUM_PROCESSES"] for e in found} == {"3"}
    assert {e["JAX_COORDINATOR_ADDRESS"] for e in found} == {"127.0.0.1:1234"}
    assert {e["HOME"] for e in found} == {"/home"}


def test_a_single_process_is_told_nothing():
    assert environments({"HOME": "/home"}) == [{"HOME": "/home"}]


@pytest.mark.parametrize("visible", [None, "4,5,6,7", "GPU-a,GPU-b,GPU-c,GPU-d,GPU-e"])
@pytest.mark.parametrize("tasks", [1, 2, 4])
def test_gpus_are_shared_without_overlap(visible, tasks):
    given = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = environments(given, tasks_per_node=tasks, gpus_per_node=4)
    shares = [e["CUDA_VISIBLE_DEVICES"].split(",") for e in found]
    assert {len(share) for share in shares} == {4 // tasks}
    names = "0,1,2,3" if visible is None else visible
    assert ",".join(",".join(share) for share in shares) == ",".join(names.split(",")[:4])


def test_more_gpus_than_are_visible_are_refused():
    with pytest.raises(InputError, match="gpus_per_node is 2, but CUDA_VISIBLE_DEVICES is '3'"):
        environments({"CUDA_VISIBLE_DEVICES": "3"}, gpus_per_node=2)


def test_virtual_devices_are_added_to_the_flags_of_xla():
    (found,) = environments({"XLA_FLAGS": "--xla_a=1"}, cpu_devices_per_task=4)
    assert found["XLA_FLAGS"] == "--xla_a=1 --xla_force_host_platform_device_count=4"
    assert found["JAX_PLATFORMS"] == "cpu"


def test_several_machines_are_refused():
    with pytest.raises(InputError, match="nodes is 2; allowed with --launcher=local: 1"):
        local.launch(["true"], LaunchSettings(nodes=2))


@pytest.mark.parametrize(
    "ends, code",
    [
        ("0", 0),
        ("75", 75),
        ("3 if index == 1 else 0", 3),
        ("2 if index == 0 else 0", 2),
        ("os.kill(os.getpid(), 9) if index == 1 else 0", 128 + 9),
    ],
)
def test_the_code_is_that_of_the_first_that_ends_badly(ends, code):
    assert launch(f"sys.exit({ends})") == code


def is_alive(pid):
    """Zombies, which nobody of this test can bury, are dead."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


def test_one_that_fails_ends_the_others_and_what_they_started(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "AFTER_FAILURE", 0.3)
    program = f"""
import subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if index == 1:
    while not os.path.exists({str(tmp_path / "pids")!r}):
        time.sleep(0.01)
    sys.exit(3)
child = subprocess.Popen(["sleep", "1000"])
with open({str(tmp_path / "new")!r}, "w") as file:
    print(os.getpid(), child.pid, file=file)
os.rename({str(tmp_path / "new")!r}, {str(tmp_path / "pids")!r})
time.sleep(1000)
"""
    assert launch(program) == 3
    deadline = time.monotonic() + 10
    pids = (tmp_path / "pids").read_text().split()
    while any(map(is_alive, pids)):
        assert time.monotonic() < deadline, "processes were left behind"
        time.sleep(0.01)


def test_those_that_still_save_are_waited_for(tmp_path):
    """One leaves at once, the other writes a file first."""
    program = f"""
time.sleep(0.5 * index)
open({str(tmp_path)!r} + f"/{{index}}", "w")
sys.exit(75)
"""
    assert launch(program) == 75
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "1"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_reach_every_process(name, tmp_path, request):
    program = f"""
signal.signal(signal.{name}, lambda *_: sys.exit(75))
open({str(tmp_path)!r} + f"/{{index}}", "w")
time.sleep(1000)
"""

    def send():
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), getattr(signal, name))

    heard = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would stay ignored
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, heard))
    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=send)
    sender.start()
    assert launch(program, tasks=3) == 75
    sender.join()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent")
def test_a_launcher_that_is_killed_leaves_nobody_behind(tmp_path):
    child = (
        "import os, pathlib, signal, sys, time\n"
        f"here = pathlib.Path({str(tmp_path)!r}, os.environ['JAX_PROCESS_ID'])\n"
        "def end(*_): here.with_suffix('.end').touch(); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "here.with_suffix('.begin').touch()\n"
        "time.sleep(60)"
    )
    launcher = (
        "import sys\n"
        "from vit_jax.launch import local\n"
        "from vit_jax.launch.settings import LaunchSettings\n"
        f"local.launch([sys.executable, '-c', {child!r}], LaunchSettings(tasks_per_node=2))"
    )
    process = subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT)
    wait_for(tmp_path / "0.begin", tmp_path / "1.begin")
    process.kill()
    process.wait(timeout=30)
    wait_for(tmp_path / "0.end", tmp_path / "1.end")


def wait_for(*files):
    deadline = time.monotonic() + 30
    while not all(file.exists() for file in files):
        assert time.monotonic() < deadline, files
        time.sleep(0.02)


def test_process_0_speaks_and_the_others_errors_have_their_number(capfd):
    program = "print('said', index)\nprint('wrong', index, file=sys.stderr)"
    assert launch(program, tasks=3) == 0
    out, err = capfd.readouterr()
    assert out == "said 0\n"
    assert sorted(err.splitlines()) == ["[1] wrong 1", "[2] wrong 2", "wrong 0"]
