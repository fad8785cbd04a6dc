"""`prepare` as a person calls it, right and wrong."""

import json

import command_calls
import numpy as np
import pytest
from PIL import Image
from prepare_inputs import image_bytes, pictures, write_folder

from vit_jax.commands.progress import ImageProgress


def call(capsys, *arguments):
    return command_calls.call(capsys, "prepare", "--workers=0", *arguments)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "in", train=pictures(9), test=pictures(6, first=100))


def test_prepare_and_again(folder, tmp_path, capsys):
    (folder / "train/cat/bad.png").write_bytes(b"text")
    arguments = (f"--from=folder:{folder}", f"--to={tmp_path}/out", "--shards=2")
    code, out, err = call(capsys, *arguments)
    assert code == 0 and "train: 9 examples in 2 shards" in out and "1 unreadable" in out
    assert f"array_record:{tmp_path}/out" in out and "train/cat/bad.png" in err
    assert len(list((tmp_path / "out").iterdir())) == 5
    code, again, _ = call(capsys, *arguments)
    assert code == 0 and "is prepared already" in again and out in again


def test_audit_says_what_it_found(folder, tmp_path, capsys):
    code, out, _ = call(capsys, f"--audit=folder:{folder}")
    assert code == 0 and "no problems found" in out
    (folder / "test/owl/copy.png").write_bytes((folder / "train/cat/000.png").read_bytes())
    (folder / "test/owl/bad.png").write_bytes(b"text")
    code, out, _ = call(capsys, f"--audit=folder:{folder}", f"--out={tmp_path}/found")
    assert code == 1
    assert "problem: test & train: 1 images are in both" in out
    assert "problem: test: 1 images cannot be read" in out
    assert f"duplicates: {folder}/test/owl/copy.png = {folder}/train/cat/000.png" in out
    assert f"unreadable: {folder}/test/owl/bad.png: " in out
    report = json.loads((tmp_path / "found/audit.json").read_text())
    assert report["splits"]["test"]["per_class"] == [2, 2, 3]
    picture = Image.open(tmp_path / "found/class_histogram.png")
    assert picture.format == "PNG" and np.asarray(picture.convert("L")).std() > 5
    code, out, _ = call(capsys, f"--audit=folder:{folder}", "--json", "--split=test")
    report.pop("shards")
    assert code == 1 and list(json.loads(out)["splits"]) == ["test"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "--from is missing"),
        (["--from=folder:IN"], "--to is missing"),
        (["--from=folders:IN", "--to=OUT"], "did you mean 'folder'"),
        (["--from=folder:IN", "--to=OUT", "--shards=2", "--shard_mb=3"], "are both given"),
        (["--from=folder:IN", "--to=OUT", "--shards=0"], "shards"),
        (["--from=folder:IN", "--to=OUT", "--quality=90"], "without --resize_small"),
        (["--from=folder:IN", "--to=OUT", "--resize_small=9", "--quality=101"], "quality is 101"),
        (["--from=folder:IN", "--to=OUT", "--labels=none.txt"], "Cannot read --labels"),
        (["--from=folder:IN", "--to=OUT", "--split=train"], "has no such setting"),
        (["--from=folder:IN", "--to=OUT", "--json"], "--json has no effect with --from"),
        (["--audit=folder:IN", "--strict"], "--strict has no effect with --audit"),
        (["--audit=folder:IN", "--to=OUT"], "--to has no effect"),
        (["--audit=folder:IN", "--split=val"], "available: test, train"),
        (["--audit=folder:IN", "--data_dir=x"], "data_dir"),
        (["--audit=digit"], "did you mean 'digits'"),
        (["--from=folder:IN", "OUT"], "unexpected argument"),
        (["--form=folder:IN"], "form"),
        (["--from=folder:IN", "--to=IN"], "holds other files"),
    ],
)
def test_mistakes_become_one_sentence(folder, tmp_path, capsys, arguments, message):
    places = {"IN": str(folder), "OUT": str(tmp_path / "out")}
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
    code, _, err = call(capsys, *arguments)
    assert code == 2 and message in err
    *before, last = err.splitlines()
    assert last.startswith("error: ") and before in ([], ["looking for the images"])


def test_strict_stops_at_an_unreadable_image(folder, tmp_path, capsys):
    cut = image_bytes(1, "JPEG", (64, 64))[:-99]
    (folder / "train/cat/bad.jpg").write_bytes(cut)
    code, _, err = call(capsys, f"--from=folder:{folder}", f"--to={tmp_path}/o", "--strict")
    assert code == 2 and "Cannot read image train/cat/bad.jpg" in err


# progress


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr("vit_jax.commands.progress.time.monotonic", lambda: self.now)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_tells_speed_and_time_left(monkeypatch, is_terminal):
    import io

    from rich.console import Console

    clock, file = Clock(monkeypatch), io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=200)
    with ImageProgress(console, "written") as progress:
        progress((100, 1_000_000), (1100, 11_000_000))  # of an earlier run: not this one's speed
        for second in range(1, 21):
            clock.now = 100.0 + second
            progress((100 + 25 * second, 1_000_000 + 500_000 * second), (1100, 11_000_000))
    text = file.getvalue()
    assert "100 of 1,100 images are written already" in text
    assert "25 images/s | 0.5 MB/s | ETA 0:00:20" in text
    if not is_terminal:
        lines = text.splitlines()
        assert len(lines) == 3  # one every ten seconds
        assert lines[1].startswith("350 of 1,100 images written: 25 images/s")
