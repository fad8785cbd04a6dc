"""Worker processes: the same batches, memory that is shared and given back, and no leftovers."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest

from vit_jax.data.batching.batches import TrainData
from vit_jax.data.batching.order import Order
from vit_jax.data.batching.processes import HELD, Processes, WorkerDied, portable
from vit_jax.data.batching.rows import RowMaker
from vit_jax.data.batching.shared import Layout, Slots
from vit_jax.data.batching.workers import CHUNK
from vit_jax.data.examples import Source
from vit_jax.data.pipeline import EvalSettings, build
from vit_jax.errors import InputError

ROOT = Path(__file__).parents[3]
TOYS = """
import os, signal, time
import numpy as np
from vit_jax.data.examples import Source
from vit_jax.errors import InputError

class Numbers(Source):
    name, class_names = "numbers", ("all",)

    def __init__(self, n):
        self.values = np.arange(n, dtype=np.int64)

    def __len__(self):
        return len(self.values)

    def read(self, i):
        return {"image": np.full((2, 3, 1), self.values[i] % 251, np.uint8), "label": 0}

def same(example, rng):
    return example

def writable(example, rng):
    raise InputError("this should not be reached")

class Kill:
    def __init__(self, position):
        self.position = position

    def __call__(self, example, rng):
        if example["image"][0, 0, 0] == self.position:
            os.kill(os.getpid(), signal.SIGKILL)
        return example

class Sleep(Kill):
    def __call__(self, example, rng):
        if example["image"][0, 0, 0] >= self.position:
            time.sleep(600)
        return example

class Odd(Exception):
    def __init__(self, one, two):
        super().__init__(one)

class Fail:
    def __call__(self, example, rng):
        if example["image"][0, 0, 0] == 200:
            print("printed by a worker")
            raise Odd(1, 2)
        return example

class Crooked:
    def __call__(self, example, rng):
        if example["image"][0, 0, 0] == 200:
            return {**example, "image": np.zeros((3, 3, 1), np.uint8)}
        return example
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """A module that worker processes can import as well."""
    (tmp_path / "worker_toys.py").write_text(TOYS)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("worker_toys", None)
    import worker_toys

    yield worker_toys
    del sys.modules["worker_toys"]


def reader(source, transform, *, num_workers=2, **changed):
    order = Order(lengths=(len(source),), seed=0, shuffle=False)
    settings = {"batch_size": 20, "prefetch": 2, **changed}
    return TrainData(
        source=source, transform=transform, order=order, num_workers=num_workers, **settings
    )


def processes_of(parent):
    """Worker processes below a process, from /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = status.read_text().rpartition(")")
            command = status.with_name("cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if int(rest.split()[1]) == parent and b"vit_jax.data.batching.processes" in command:
            found.append(int(status.parent.name))
    return found


def is_alive(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_batches_stay_as_they_are_while_someone_holds_them(toys):
    data = reader(toys.Numbers(1000), toys.same)
    iterator = data.iterate()
    held = list(itertools.islice(iterator, 4 * HELD))  # more than there are slots
    for step, batch in enumerate(held):
        assert np.array_equal(batch["index"], np.arange(20 * step, 20 * step + 20))
        assert np.array_equal(batch["image"][:, 0, 0, 0], batch["index"] % 251)
        assert all(rows.flags.writeable for rows in batch.values())
    iterator.close()
    assert np.array_equal(held[0]["index"], np.arange(20))


def test_a_slot_is_free_when_the_last_view_of_its_batch_is_gone():
    slots = Slots(Layout({"image": ((4, 4, 1), "uint8"), "label": ((), "int32")}, 3), 2)
    first, batch = slots.take()
    second, other = slots.take()
    assert {first, second} == {0, 1} and slots.num_free == 0
    batch["image"][:], other["image"][:] = 7, 9
    view = batch["image"][1, 2:]
    del batch
    assert slots.num_free == 0 and np.all(view == 7)
    del view
    assert slots.num_free == 1
    again, batch = slots.take()
    assert again == first and np.all(batch["image"] == 7) and np.all(other["image"] == 9)
    assert all(rows.ctypes.data % 64 == 0 for rows in batch.values())


def test_workers_share_the_arrays_of_the_source(toys):
    """A worker's own memory does not hold the source: 200 MB here."""
    data = reader(toys.Numbers(25_000_000), toys.same)
    assert len(pickle.dumps(data._maker, protocol=5, buffer_callback=lambda b: None)) < 2000
    iterator = data.iterate()
    for batch in itertools.islice(iterator, 3):
        assert batch["index"].any()
    for number in processes_of(os.getpid()):
        status = Path(f"/proc/{number}/status").read_text()
        (anonymous,) = (int(x.split()[1]) for x in status.splitlines() if x.startswith("RssAnon"))
        assert anonymous < 150_000  # kB, NumPy and Python included
    iterator.close()


def test_workers_end_with_the_iterator(toys):
    iterator = reader(toys.Numbers(100), toys.same, num_workers=3).iterate()
    next(iterator)
    workers = processes_of(os.getpid())
    assert len(workers) == 3
    iterator.close()
    assert not any(map(is_alive, workers))


PROGRAM = """
import time
import worker_toys
from vit_jax.data.batching.batches import TrainData
from vit_jax.data.batching.order import Order
source = worker_toys.Numbers(1000)
order = Order(lengths=(1000,), seed=0)
toys = {"source": source, "transform": worker_toys.same}
data = TrainData(order=order, batch_size=8, num_workers=2, **toys)
iterator = data.iterate()
next(iterator)
print("ready", flush=True)
THEN
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "", "raise SystemExit(3)"])
def test_workers_end_with_the_program_even_if_it_is_killed(toys, tmp_path, then):
    """Without a `__main__` guard, and with the iterator left open."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("THEN", then))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    with (tmp_path / "out").open("w+") as out:
        running = subprocess.Popen(
            [sys.executable, program], env=environment, stdout=out, stderr=out
        )
        workers = []
        if then == "time.sleep(60)":
            assert wait_until(lambda: len(processes_of(running.pid)) == 2)
            assert wait_until(lambda: "ready" in (tmp_path / "out").read_text())
            workers = processes_of(running.pid)
            running.send_signal(signal.SIGKILL)
        code = running.wait(60)
    assert code == {"time.sleep(60)": -signal.SIGKILL, "": 0}.get(then, 3)
    assert wait_until(lambda: not any(map(is_alive, workers)))
    assert (tmp_path / "out").read_text() == "ready\n"


def test_signals_to_the_group_leave_the_workers_to_the_program(toys):
    iterator = reader(toys.Numbers(10_000), toys.same).iterate()
    next(iterator)
    for number in processes_of(os.getpid()):
        os.kill(number, signal.SIGTERM)
        os.kill(number, signal.SIGINT)
    for _ in range(10):
        next(iterator)
    iterator.close()


def test_a_worker_that_dies_is_an_error_that_says_so(toys):
    iterator = reader(toys.Numbers(250), toys.Kill(170)).iterate()
    with pytest.raises(WorkerDied, match=r"signal 9.*fewer data.num_workers"):
        for _ in range(20):
            next(iterator)


def test_errors_come_at_their_batch_with_the_workers_traceback(toys, capfd):
    data = reader(toys.Numbers(250), toys.Fail())
    iterator = data.iterate()
    good = list(itertools.islice(iterator, 10))  # 0 to 199
    assert good[-1]["index"][-1] == 199
    with pytest.raises(RuntimeError, match=r"raise Odd\(1, 2\)"):  # it cannot be pickled itself
        next(iterator)
    assert "printed by a worker" in capfd.readouterr().out

    iterator = reader(toys.Numbers(250), toys.Crooked()).iterate()
    with pytest.raises(InputError, match=r"numbers #200: its image became \(3, 3, 1\)") as caught:
        list(itertools.islice(iterator, 11))
    assert "In a data worker" in caught.value.__notes__[0]


def test_errors_that_can_be_pickled_stay_what_they_are():
    try:
        raise InputError("one sentence")
    except InputError as error:
        assert portable(error) is error


def test_what_cannot_be_sent_is_refused(toys):
    data = reader(toys.Numbers(10), lambda example, rng: example)
    with pytest.raises(InputError, match="numbers or its transform cannot be sent"):
        next(data.iterate())


def test_batches_that_are_no_multiple_of_a_chunk(toys):
    for batch_size in (1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5):
        data = reader(toys.Numbers(500), toys.same, batch_size=batch_size)
        iterator = data.iterate(2)
        for step, batch in enumerate(itertools.islice(iterator, 3), 2):
            first = batch_size * step
            assert np.array_equal(batch["index"], np.arange(first, first + batch_size) % 500)
        iterator.close()


def test_it_can_be_closed_while_batches_are_in_the_making(toys):
    maker = RowMaker(source=toys.Numbers(10_000), transform=toys.same)
    workers = Processes(maker, 2, batch_size=2000, prefetch=3)
    for k in range(3):
        workers.start(np.arange(2000 * k, 2000 * k + 2000))
    workers.close()
    assert not processes_of(os.getpid())


def test_sources_are_what_the_contract_says(toys):
    assert issubclass(toys.Numbers, Source)


def test_an_iterator_that_is_never_used_starts_nothing(toys):
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for num_workers in (0, 1):
        iterator = reader(toys.Numbers(10), toys.same, num_workers=num_workers).iterate()
        del iterator
    assert not processes_of(os.getpid())
    assert (threading.active_count(), len(os.listdir("/proc/self/fd"))) == (threads, files)


def test_a_short_evaluation_starts_no_process_without_work():
    data = build(source="digits", batch_size=CHUNK + 1, image_size=8, num_workers=3, seed=0)
    evaluation = iter(data.evaluation(EvalSettings(split="test[:5]")))
    next(evaluation)
    assert len(processes_of(os.getpid())) == 2
    evaluation.close()


def test_a_batch_is_let_go_before_it_is_told_to_be_done(toys, monkeypatch):
    """Its slot may be needed at once: when all the others are held."""

    class Slow(Future):
        def set_result(self, result):
            super().set_result(result)
            time.sleep(0.05)

    monkeypatch.setattr("vit_jax.data.batching.workers.Future", Slow)
    iterator = reader(toys.Numbers(1000), toys.same, num_workers=1, batch_size=4).iterate()
    held = list(itertools.islice(iterator, 3 * HELD))
    iterator.close()
    assert [batch["index"][0] for batch in held] == list(range(0, 12 * HELD, 4))


def test_workers_are_born_deaf_to_the_signals_that_a_terminal_sends_to_all(toys):
    workers = Processes(
        RowMaker(source=toys.Numbers(9), transform=toys.same), 1, batch_size=2, prefetch=1
    )
    status = Path(f"/proc/{workers._workers[0]._process.pid}/status").read_text()
    (blocked,) = (int(x.split()[1], 16) for x in status.splitlines() if x.startswith("SigBlk"))
    workers.close()
    assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_a_worker_that_hangs_is_killed_in_the_end(toys, monkeypatch):
    monkeypatch.setattr("vit_jax.data.batching.processes.PATIENCE", 0.1)
    iterator = reader(toys.Numbers(1000), toys.Sleep(60), num_workers=2).iterate()
    next(iterator)
    workers = processes_of(os.getpid())
    iterator.close()
    assert workers and not any(map(is_alive, workers))


def test_workers_import_what_the_program_imports(toys, tmp_path, monkeypatch):
    """Not what lies in the working directory by chance."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "path", [path or str(ROOT) for path in sys.path])
    iterator = reader(toys.Numbers(100), toys.same, num_workers=1).iterate()
    assert next(iterator)["index"][1] == 1
    iterator.close()


def test_a_transform_of_the_program_itself_is_refused_in_words(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(TOYS + OWN)
    found = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2, found.stderr
    assert "a data worker process cannot find" in found.stdout
    assert "data.num_workers=0" in found.stdout


OWN = """
from vit_jax.data.batching.batches import TrainData
from vit_jax.data.batching.order import Order
data = TrainData(source=Numbers(9), transform=same, order=Order(lengths=(9,), seed=0),
                 batch_size=2, num_workers=1)
try:
    next(data.iterate())
except InputError as error:
    print(error)
    raise SystemExit(2)
"""


def test_processes_that_cannot_be_started_are_an_error_that_says_so(toys, monkeypatch):
    started = []

    def two(*arguments, _popen=subprocess.Popen, **settings):
        if len(started) == 2:
            raise BlockingIOError("Resource temporarily unavailable")
        started.append(_popen(*arguments, **settings))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", two)
    with pytest.raises(InputError, match=r"process 3 of 4 .*fewer data.num_workers"):
        next(reader(toys.Numbers(9), toys.same, num_workers=4).iterate())
    assert [process.poll() for process in started] == [0, 0]
