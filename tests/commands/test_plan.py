"""`plan` as a person calls it; what it computes is tested in tests/planning/."""

import json

import command_calls
import jax
import pytest
from helpers import DIGITS

QUICK = "--compile=no"
CONFIG = """
def get_config(arg):
    size, patch_size = arg.split("-")
    model = dict(name="vit", size=size, patch_size=int(patch_size))
    return dict(
        task=dict(name="classification", model=model),
        data=dict(source="folder:/no/such/place", image_size=224, batch_size=1024),
        optimizer=dict(learning_rate=1e-3),
        train=dict(num_epochs=300),
    )
"""


def call(capsys, *arguments):
    jax.devices()  # before the command, which else would make devices of its own
    return command_calls.call(capsys, "plan", *arguments)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    return tmp_path / "config.py"


@pytest.mark.parametrize(
    "model, count, gmacs",
    [
        ("Ti-16", 5_717_416, 1.2537),
        ("S-16", 22_050_664, 4.5989),
        ("S-32", 22_878_952, None),
        ("B-16", 86_567_656, 17.564),
        ("B-32", 88_224_232, None),
        ("L-16", 304_326_632, 61.555),
        ("L-32", 306_535_400, None),
        ("H-14", 632_045_800, 167.295),
    ],
)
def test_published_sizes(model, count, gmacs, config, capsys):
    arguments = ("--num_classes=1000", "--num_examples=1281167", "--devices=8", "--json", QUICK)
    code, out, err = call(capsys, f"--config={config}:{model}", *arguments)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["parameters"]["total"] == found["parameters"]["trainable"] == count
    assert found["run"]["num_steps"] == round(300 * 1281167 / 1024)
    if gmacs is not None:
        assert found["flops"]["forward_gmacs"] == pytest.approx(gmacs, abs=6e-4)
    assert any("/no/such/place" in note for note in found["notes"])


def test_tables(capsys):
    batch = "--config.data.batch_size=128"
    code, out, _ = call(capsys, f"--config={DIGITS}", batch, "--devices=2", QUICK)
    assert code == 0
    for text in ("encoder/blocks (×4)", "136,778", "GMACs", "exaFLOPs", "16 patches", "1,293"):
        assert text in out
    assert "\x1b" not in out and "data 2 × fsdp 1 × tensor 1" in out
    assert "note:" not in out


def test_tables_say_what_is_not_known(config, capsys):
    code, out, _ = call(capsys, f"--config={config}:Ti-16", "--num_classes=9", "--devices=1", QUICK)
    assert code == 0
    rows = [line.split("  ") for line in out.splitlines()]
    unknown = {row[0] for row in rows if row[-1].strip() == "not known"}
    assert unknown == {"training examples", "steps", "examples seen", "training, in all"}
    notes = [line for line in out.splitlines() if line.startswith("note: ")]
    assert "the data cannot be opened" in notes[0] and len(notes) == 3


def test_depth_opens_the_blocks(capsys):
    code, out, _ = call(capsys, f"--config={DIGITS}", "--depth=5", "--devices=1", "--json", QUICK)
    rows = {row["name"]: row for row in json.loads(out)["parameters"]["table"]}
    kernel = rows["encoder/blocks (×4)/mlp/up/kernel"]
    assert code == 0 and kernel["shape"] == [64, 128] and kernel["count"] == 4 * 64 * 128


def test_mesh_says_how_many_devices_there_are(capsys):
    """Eight are here (conftest.py), so that the step is compiled, too."""
    arguments = [f"--config={DIGITS}", "--mesh.data=4", "--mesh.fsdp=2", "--json"]
    code, out, _ = call(capsys, *arguments, "--config.data.batch_size=32")
    found = json.loads(out)
    assert code == 0 and found["run"]["mesh"] == {"data": 4, "fsdp": 2, "tensor": 1}
    assert found["run"]["num_devices"] == 8
    assert {"data", "fsdp"} >= {a for c in found["compiled"]["collectives"] for a in c["axes"]}
    assert any("CPU compiler" in note for note in found["notes"])


def test_device_picture_and_json_file(config, capsys, tmp_path):
    arguments = ["--num_classes=1000", "--num_examples=1281167", "--mesh.data=32", "--mesh.fsdp=8"]
    arguments += ["--device=v5e", f"--out={tmp_path / 'plans' / 'ti'}", QUICK]
    code, out, _ = call(capsys, f"--config={config}:Ti-16", *arguments)
    assert code == 0
    for text in (
        "of v5e",
        "MFU",
        "device-hours",
        "cheapest that fits: --config.train.accum_steps=1",
    ):
        assert text in out
    assert "data 32 × fsdp 8 × tensor 1" in out and "speed on 256 v5e" in out
    found = json.loads((tmp_path / "plans" / "ti" / "plan.json").read_text())
    assert found["speed"]["mfu"] > 0 and found["fit"]["fits"] is True
    assert (tmp_path / "plans" / "ti" / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_what_this_process_cannot_compile_is_told(capsys):
    code, out, _ = call(capsys, f"--config={DIGITS}", "--devices=2", "--config.data.batch_size=8")
    assert code == 0 and "not compiled: this process has 8 devices, and the run 2" in out


def test_mistakes_are_one_sentence(config, capsys):
    for arguments, expected in [
        ([f"--config={DIGITS}", "--device=h1000"], "did you mean 'h100'"),
        ([f"--config={DIGITS}", "--mesh.dta=3"], "'dta'"),
        ([f"--config={DIGITS}", "--config.mesh=3"], "mesh"),
        ([f"--config={DIGITS}", "--mesh.data=3", "--devices=4"], "product is 4"),
        ([f"--config={DIGITS}", "--compile=maybe"], "compile"),
        ([f"--config={DIGITS}", "--out=a", "--picture=b"], "one of them"),
        ([], "--config is missing"),
        (["--config=nowhere.py"], "no config file nowhere.py"),
        ([f"--config={config}:B-16", "--devices=8"], "--num_classes=N"),
        ([f"--config={DIGITS}", "--depth=0"], "depth"),
        ([f"--config={DIGITS}", "--devices=3"], "multiple of 3"),
        ([f"--config={DIGITS}", "--dpeth=3"], "dpeth"),
        ([f"--config={DIGITS}", "surplus"], "surplus"),
        ([f"--config={DIGITS}", "--config.task.model.widht=3"], "'width'"),
        ([f"--config={DIGITS}", "--config.train.num_steps=3"], "exactly one"),
    ]:
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "") and err.startswith("error: ") and expected in err, arguments
        assert len(err.strip().splitlines()) == 1, err
