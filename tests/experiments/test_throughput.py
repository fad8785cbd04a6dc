"""The experiment's own rules: what is refused, how speeds compare, how processes take turns."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2] / "experiments" / "throughput"


@pytest.fixture
def experiment(monkeypatch):
    """Its modules by name; scripts find each other by their folder, so they leave no trace here."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(HERE), str(HERE.parent), *sys.path])
    yield lambda name: importlib.import_module(name)
    for name in set(sys.modules) - before:
        if str(HERE.parent) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def make_case(cases, **others):
    settings = dict(model="Ti/16", image_size=224, work="train", batch=4, device="cpu")
    return cases.Case(**{**settings, "dtype": "float32", "weights": "", "cores": 1, **others})


def test_options_of_a_peer(experiment):
    parse = experiment("cases").parse_peer
    assert parse("timm") == ("timm", {})
    assert parse("ours+unroll=1+remat=dots") == ("ours", {"unroll": 1, "remat": "dots"})
    flags = "--xla_a=-dot,-reduce --xla_b=1"
    assert parse(f"ours+xla_flags={flags}") == ("ours", {"xla_flags": flags})


def test_models_whose_patches_do_not_fill_the_image_are_named(experiment, capsys):
    given = dict(models=["B/16", "H/14"], sizes=[224, 518], works=["train"], batch=None)
    arguments = argparse.Namespace(**given, device="gpu", dtype="bfloat16", cores=1)
    found = [case.name for case in experiment("run").all_cases(arguments)]
    assert [name.split()[:2] for name in found] == [
        ["B/16", "224"],
        ["H/14", "224"],
        ["H/14", "518"],
    ]
    assert "B/16 at 518" in capsys.readouterr().out


@pytest.mark.parametrize("change, is_equal", [(1e-6, True), (0.1, False)])
def test_what_computes_something_else_is_not_timed(experiment, change, is_equal):
    gate, case = experiment("run").gate, make_case(experiment("cases"))
    found = gate("x", case, {"losses": [2.0, 1.0 + change]}, {"losses": [2.0, 1.0]})
    assert (found is not None) == is_equal
    case = make_case(experiment("cases"), work="infer")
    found = gate("x", case, {"logits": [[1.0, change]]}, {"logits": [[1.0, 0.0]]})
    assert (found is not None) == is_equal


def test_ratios_are_of_the_same_round(experiment):
    """The machine slows down tenfold; the peer stays twice as fast as the reference."""
    run, case = experiment("run"), make_case(experiment("cases"))
    times = [1.0, 10.0, 1.5]
    reference = [dict(seconds=t, steps=1, bytes=8e9) for t in times]
    rounds = [dict(seconds=t, steps=2, bytes=4e9) for t in times]
    hello = dict(compile=1.0, device="cpu", difference=0.0, versions={"jax": "1"})
    rows = [
        run.row(case, p, r, reference, hello) for p, r in (("timm", reference), ("ours", rounds))
    ]
    assert rows[1]["ratio"] == 2 and rows[1]["seconds"] == 0.75
    assert rows[1]["images_per_second"] == 4 / 0.75
    about = dict(batch=4, device="cpu", flops=10**9, reference="timm", rows=rows)
    text = experiment("report").report(dict(machine="m", commands=["c"], cases={"a case": about}))
    (line,) = (line for line in text.splitlines() if line.startswith("| `ours`"))
    assert "| 2.00 | 4.00 | 0.50 |" in line  # speed, GB, of the reference's
    assert text.count("\n|") == 4


def test_utilisation_is_of_both_peaks_where_they_are_known(experiment):
    utilisation = experiment("report").utilisation
    assert utilisation("NVIDIA H200", 395e12) == ["40%", "50%"]
    assert utilisation("NVIDIA A100-SXM4-80GB", 156e12) == ["50%", ""]
    assert utilisation("a new one", 1e12) == ["", ""]


def test_a_worker_stands_still_until_it_is_asked(experiment, tmp_path):
    shared = experiment("side_by_side")
    counter = tmp_path / "counter"
    program = (
        f"import sys, threading, time; sys.path.insert(0, {str(HERE.parent)!r})\n"
        "from side_by_side import answer, take_output\n"
        "answers = take_output(); print('a library speaks')\n"
        "def tick():\n"
        "    while True:\n"
        f"        open({str(counter)!r}, 'a').write('.'); time.sleep(0.01)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "answer(lambda x: x + 1, hello='here', to=answers)\n"
    )
    worker = shared.Worker("a", [sys.executable, "-c", program], {})
    try:
        assert worker.receive() == "here" and worker.ask(2) == 3
        time.sleep(0.05)  # the signal has come
        size = counter.stat().st_size
        time.sleep(0.2)
        assert counter.stat().st_size == size
        assert worker.ask(3) == 4
    finally:
        worker.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(worker.process.pid, 0)


def test_a_worker_that_fails_is_told_of(experiment, capsys):
    worker = experiment("side_by_side").Worker("a", [sys.executable, "-c", "1/0"], {})
    assert worker.receive() is None
    assert "a: ZeroDivisionError" in capsys.readouterr().out


def test_paths_are_no_part_of_the_command(experiment, monkeypatch):
    public = experiment("side_by_side").public_command
    monkeypatch.setattr(
        sys, "argv", ["run.py", "--output=/a", "--torch_python", "/b", "--rounds=3"]
    )
    found = public(HERE / "run.py", ("--output", "--torch_python"))
    assert found == (
        "python experiments/throughput/run.py --output=PATH --torch_python PATH --rounds=3"
    )
