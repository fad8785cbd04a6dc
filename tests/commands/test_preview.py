"""`prepare --preview` draws what the training of a config will see, and its evaluations."""

import command_calls
import numpy as np
import pytest
from PIL import Image


def call(capsys, *arguments):
    return command_calls.call(capsys, "prepare", "--preview", *arguments)


def shown(path):
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def test_training_and_every_evaluation_get_a_picture(tmp_path, capsys):
    command = ("--config=configs/digits.py", "--examples=3")
    code, out, _ = call(capsys, *command, f"--out={tmp_path}/a")
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert code == 0 and names == {"train.png", "validation.png", "test.png"}
    assert all(str(tmp_path / "a" / name) in out for name in names)
    assert all(shown(tmp_path / "a" / name).std() > 5 for name in names)
    call(capsys, *command, f"--out={tmp_path}/b", "--config.train.seed=1")
    assert (shown(tmp_path / "a/train.png") != shown(tmp_path / "b/train.png")).any()
    assert np.array_equal(shown(tmp_path / "a/test.png"), shown(tmp_path / "b/test.png"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--out=x",), "--config is missing"),
        (("--config=configs/digits.py",), "--out is missing"),
        (("--config=configs/digits.py", "--out=x", "--to=y"), "flag 'to'"),
    ],
)
def test_what_is_missing_or_too_much_is_told(arguments, message, capsys):
    code, _, err = call(capsys, *arguments)
    assert code == 2 and message in err
