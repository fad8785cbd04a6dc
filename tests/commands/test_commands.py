"""The commands as a person calls them: right, and with every mistake the issue tracker knows."""

import contextlib
import csv
import json
import re

import numpy as np
import pytest
from command_calls import call
from helpers import NUM_STEPS, TINY_MODEL, train_arguments
from PIL import Image
from toys import normal

from vit_jax import weights
from vit_jax.__main__ import main


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("commands") / "run"
    with pytest.raises(SystemExit) as stop:
        main(
            train_arguments(folder, train__keep_best="validation/top1", train__checkpoint_every=12)
        )
    assert not stop.value.code
    return folder


def test_workdir_holds_what_a_stranger_needs(workdir):
    config = json.loads((workdir / "config.json").read_text())
    assert config["task"]["model"]["width"] == TINY_MODEL["width"]
    run = json.loads((workdir / "run.json").read_text())
    assert run["class_names"] == [str(digit) for digit in range(10)]
    assert run["preprocessing"]["image_size"] == [8, 8]
    assert {"python", "jax", "flax", "vit_jax"} <= run["versions"].keys()
    card = json.loads((workdir / f"checkpoints/{NUM_STEPS}/card/metadata").read_text())
    assert card["config"] == config and card["class_names"] == run["class_names"]
    result = json.loads((workdir / "result.json").read_text())
    assert result["step"] == NUM_STEPS and result["metrics"]["test/scored"] == 360
    assert (workdir / "curves.png").stat().st_size > 5000
    assert list((workdir / "tensorboard").glob("events*"))


def test_evaluate_gives_what_training_gave(workdir, capsys, tmp_path):
    output = tmp_path / "metrics.json"
    code, out, _ = call(
        capsys, "evaluate", f"--workdir={workdir}", "--split=test", f"--output={output}"
    )
    assert code == 0 and "360 of 360 scored" in out
    trained = json.loads((workdir / "result.json").read_text())["metrics"]
    scored = json.loads(output.read_text())
    assert scored["step"] == NUM_STEPS
    assert scored["metrics"]["test/top1"] == trained["test/top1"]
    # Another batch size sums in another order.
    np.testing.assert_allclose(scored["metrics"]["test/loss"], trained["test/loss"], rtol=1e-5)


@pytest.mark.parametrize("checkpoint", ["best", "last", str(NUM_STEPS)])
def test_evaluate_takes_any_kept_checkpoint(workdir, capsys, checkpoint):
    code, out, _ = call(
        capsys, "evaluate", f"--workdir={workdir}", f"--checkpoint={checkpoint}", "--split=test"
    )
    assert code == 0 and out.startswith("step ")


def test_evaluate_refuses_other_classes(workdir, capsys, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "test" / name / "a.png")
    code, _, err = call(
        capsys, "evaluate", f"--workdir={workdir}", f"--source=folder:{tmp_path}", "--split=test"
    )
    assert code == 2 and "cat, dog" in err and "allowed: the same, or `labels`" in err


def test_evaluate_takes_labels_by_a_table(workdir, capsys, tmp_path):
    """Ten folders of words, and the digits that they mean; unreadable ones are told."""
    from vit_jax.data.sources import open_source

    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    test = open_source("digits", "test")
    for i in range(40):
        folder = tmp_path / "images" / "test" / words[test[i]["label"]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(test[i]["image"][..., 0]).save(folder / f"{i:03}.png")
    (tmp_path / "images/test/two/broken.png").write_bytes(b"junk")
    (tmp_path / "table.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    arguments = (f"--workdir={workdir}", f"--source=folder:{tmp_path}/images", "--split=test")
    code, _, err = call(capsys, "evaluate", *arguments)
    assert code == 2 and "`labels` that lead to them" in err
    labels = f"--labels=classes:{tmp_path}/table.json"
    code, _, err = call(capsys, "evaluate", *arguments, labels)
    assert code == 2 and "broken.png" in err and "skip_bad_examples" in err
    code, out, _ = call(capsys, "evaluate", *arguments, labels, "--skip_bad_examples")
    assert code == 0 and "40 of 41 scored, 1 unreadable" in out
    code, same, _ = call(capsys, "evaluate", f"--workdir={workdir}", "--split=test[:40]")
    assert re.search(r"top1 [\d.]+%", out)[0] == re.search(r"top1 [\d.]+%", same)[0]


def test_predict_writes_tables_and_a_contact_sheet(workdir, capsys, tmp_path):
    folder, output = tmp_path / "images", tmp_path / "out"
    folder.mkdir()
    for i in range(5):  # of other sizes and modes than the training's
        pixels = np.random.default_rng(i).integers(0, 256, (9 + i, 12, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.{'png' if i % 2 else 'jpg'}")
    code, out, _ = call(
        capsys,
        "predict",
        f"--workdir={workdir}",
        f"--output={output}",
        "--top_k=3",
        "--batch_size=2",
        str(folder),
    )
    assert code == 0 and len(out.splitlines()) == 5
    rows = list(csv.DictReader((output / "predictions.csv").open()))
    same = json.loads((output / "predictions.json").read_text())
    assert [row["path"] for row in rows] == [str(p) for p in sorted(folder.iterdir())]
    for row, entry in zip(rows, same, strict=True):
        assert row["class_1"] == entry["classes"][0]
        shares = [float(row[f"probability_{i}"]) for i in (1, 2, 3)]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-6
    sheet = np.asarray(Image.open(output / "predictions.png").convert("L"))
    assert sheet.std() > 5


def test_predict_agrees_with_evaluate(workdir, capsys, tmp_path):
    """Digits written as files are classified as `evaluate` classifies them."""
    from vit_jax.data.sources import open_source

    test = open_source("digits", "test")
    for i in range(len(test)):
        Image.fromarray(test[i]["image"][..., 0]).save(tmp_path / f"{i:03}_{test[i]['label']}.png")
    code, out, _ = call(
        capsys, "predict", f"--workdir={workdir}", f"--output={tmp_path / 'o'}", str(tmp_path)
    )
    assert code == 0
    hits = [line.split("\t")[0][-5] == line.split("\t")[1][0] for line in out.splitlines()]
    trained = json.loads((workdir / "result.json").read_text())["metrics"]
    assert np.mean(hits) == pytest.approx(trained["test/top1"])


def test_predict_names_unreadable_files_and_goes_on(workdir, capsys, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    code, out, err = call(
        capsys, "predict", f"--workdir={workdir}", f"--output={tmp_path / 'o'}", str(tmp_path)
    )
    assert code == 2 and "bad.png" in err and "good.png" in out


MISTAKES = {
    "misspelt key": (dict(optimizer__learning_rat=1), ["'learning_rate'", "weight_decay"]),
    "section without keys": (dict(evals=None), ["evals is a section", "validation"]),
    "batch size of another type": (dict(data__batch_size="abc"), ["batch_size", "'abc'", "int"]),
    "patch size of one side": (
        dict(task__model__patch_size=(2,)),
        ["(2,)", "int | tuple[int, int]"],
    ),
    "no heads": (dict(task__model__num_heads=0), ["num_heads is 0", "1 or more"]),
    "heads": (dict(task__model__num_heads=3), ["16", "3"]),
    "another optimizer's key": (dict(optimizer__momentum=0.9), ["momentum", "adamw", "b1, b2"]),
    "another schedule's key": (dict(optimizer__timescale=9), ["timescale", "cosine"]),
    "misspelt metric to keep": (
        dict(train__keep_best="validation/top2"),
        ["'validation/top2'", "'validation/top5'", "test/loss"],
    ),
    "metric to keep of the end only": (
        dict(train__keep_best="test/top1"),
        ["test/top1", "every 0 steps", "multiple"],
    ),
    "metric to keep that is seldom measured": (
        dict(train__keep_best="validation/top1", train__checkpoint_every=6),
        ["every 12 steps", "checkpoint_every is 6"],
    ),
    "misspelt section": (dict(optimiser__name="sgd"), ["optimiser", "optimizer"]),
    "misspelt model key": (dict(task__model__widht=3), ["'width'", "num_heads"]),
    "wrong type": (dict(optimizer__learning_rate="fast"), ["'fast'", "float"]),
    "patch size": (dict(task__model__patch_size=3), ["8x8", "3x3"]),
    "batch size": (dict(data__batch_size=12), ["12", "multiple of 8"]),
    "accumulation": (dict(train__accum_steps=4), ["16", "multiple of 32"]),
    "source": (dict(data__source="nonsense"), ["nonsense", "digits", "folder"]),
    "split": (dict(data__train="trian"), ["trian", "train", "test"]),
    "slice": (dict(data__train="train[:x]"), ["train[:x]"]),
    "evaluation split": (dict(evals__test__split="dev"), ["dev", "train", "test"]),
    "label key": (dict(data__label_key="kind"), ["label_key"]),
    "folder": (dict(data__source="folder:/no/such/place"), ["/no/such/place"]),
    "class count": (dict(task__num_classes=7), ["7", "10 classes"]),
    "model size": (dict(task__model__size="XL"), ["'XL'", "Ti, S, B, L, So400m, H, g, G"]),
    "task": (dict(task__name="telepathy"), ["telepathy", "classification"]),
    "schedule": (dict(optimizer__schedule="cosin"), ["'cosine'", "rsqrt"]),
    "mesh": (dict(mesh__data=3), ["3", "8 devices"]),
    "length": (dict(train__num_epochs=1.0), ["num_steps", "num_epochs", "exactly one"]),
    "evaluation key": (dict(evals__test__spilt="a"), ["spilt", "'split'"]),
    "augmentation": (dict(data__augment__crop="random"), ["random", "inception", "shift"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_in_the_config_is_one_sentence(name, capsys, tmp_path):
    overrides, expected = MISTAKES[name]
    code, _, err = call(capsys, *train_arguments(tmp_path / "run", **overrides))
    assert code == 2
    assert err.startswith("error: ") and len(err.strip().splitlines()) == 1, err
    assert all(text in err for text in expected), err
    # The folder is still nobody's, so the corrected command finds nothing in its way.
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("def get_config(arg):\n    return {'a': }", "SyntaxError"),
        ("def get_config(arg):\n    return 3", "returned int; allowed: a ConfigDict"),
        ("import no_such_module", "No module named 'no_such_module' .*line 1"),
        ("def get_config(arg):\n    return undefined", "NameError.*line 2"),
        ("x = 1", "has no function get_config"),
        ("def get_config(arg):\n    raise ValueError('arg is odd')", "odd.py: arg is odd"),
    ],
)
def test_mistake_in_the_config_file_is_one_sentence(text, message, capsys, tmp_path):
    (tmp_path / "odd.py").write_text(text)
    arguments = ["train", f"--config={tmp_path / 'odd.py'}", f"--workdir={tmp_path / 'run'}"]
    code, _, err = call(capsys, *arguments)
    assert code == 2 and err.startswith("error: ") and re.search(message, err), err
    assert len(err.strip().splitlines()) == 1, err


def test_config_may_be_a_plain_dict(capsys, tmp_path):
    (tmp_path / "a.py").write_text("def get_config(arg):\n    return {'task': {}}")
    code, _, err = call(capsys, "train", f"--config={tmp_path / 'a.py'}", f"--workdir={tmp_path}")
    assert code == 2 and "the config lacks data, optimizer, train" in err


def test_mistakes_on_the_command_line(capsys, tmp_path):
    for arguments, expected in [
        (["tran"], "allowed: train"),
        (["train"], "--config is missing"),
        (["train", "--config=nowhere.py"], "no config file nowhere.py"),
        (train_arguments(tmp_path)[:2], "--workdir is missing"),
        ([*train_arguments(tmp_path), "--wrkdir=x"], "workdir"),
        ([*train_arguments(tmp_path), "surplus"], "surplus"),
        (["evaluate", f"--workdir={tmp_path}"], "no run's workdir"),
        (["predict", f"--workdir={tmp_path}"], "no image is named"),
        (["evaluate", f"--workdir={tmp_path}", "--output=/dev/null/a.json"], "cannot be written"),
    ]:
        code, _, err = call(capsys, *arguments)
        assert code == 2 and err.startswith("error: ") and expected in err, (arguments, err)


@pytest.mark.parametrize(
    "text, steps", [("10:15", (10, 15)), ("7", (7, 7)), ("1:1", (1, 1)), ("-2:3", (-2, 3))]
)
def test_steps_to_profile(text, steps):
    from vit_jax.commands.train import steps_of

    assert steps_of(text) == steps


@pytest.mark.parametrize("text", ["", "a", "1:b", ":3", "1:2:3", "1.5:2"])
def test_steps_to_profile_that_cannot_be_read(text, capsys, tmp_path):
    code, _, err = call(capsys, *train_arguments(tmp_path / "run"), f"--profile={text}")
    assert code == 2 and f"--profile is {text!r}; allowed: FIRST:LAST" in err
    assert not (tmp_path / "run").exists()


def test_profile_is_a_setting_of_the_run(capsys, tmp_path):
    code, _, err = call(capsys, *train_arguments(tmp_path / "run"), f"--profile=5:{NUM_STEPS + 1}")
    assert code == 2 and f"profile_steps is (5, {NUM_STEPS + 1}); allowed: a first" in err


def test_workdir_of_another_config_is_refused_with_the_difference(workdir, capsys):
    arguments = train_arguments(
        workdir, train__keep_best="validation/top1", train__checkpoint_every=12, train__seed=1
    )
    code, _, err = call(capsys, *arguments)
    assert code == 2 and "train.seed: 0 there, 1 now" in err and "learning_rate" not in err


def test_workdir_that_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, *train_arguments(tmp_path / "file" / "run"))
    assert code == 2 and "cannot be written" in err


def test_divergence_stops_with_step_advice_and_the_batch(capsys, tmp_path):
    workdir = tmp_path / "run"
    # The first steps, at a rate of nearly zero, are sound; then the warm-up reaches the absurd.
    arguments = train_arguments(
        workdir,
        optimizer__name="sgd",
        optimizer__clip_norm=None,
        optimizer__learning_rate=1e30,
        optimizer__warmup_steps=1,
        train__checkpoint_every=1,
    )
    code, _, err = call(capsys, *arguments)
    assert code == 3 and "last good checkpoint: step 1" in err and "learning_rate" in err
    told = json.loads((workdir / "non_finite.json").read_text())
    assert told["step"] == 2  # the first with a learning rate
    assert told["values"]["update_norm"] == "inf"
    assert len(told["example_indices"]) == 16 and min(told["example_indices"]) >= 0
    assert told["last_good_checkpoint"] == 1
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["1"]


@pytest.fixture
def image_folder(tmp_path):
    """Sixteen images of two classes a split, one of the training images cut short."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    victim = tmp_path / "images" / "train" / "dog" / "3.png"
    victim.write_bytes(victim.read_bytes()[:60])
    return tmp_path / "images"


def folder_arguments(image_folder, workdir, **overrides):
    evals = dict(
        evals__validation__split="train",
        evals__test__split="test",
    )
    return train_arguments(
        workdir, data__source=f"folder:{image_folder}", data__train="train", **evals, **overrides
    )


def test_truncated_training_image_is_named(image_folder, tmp_path, capsys):
    code, _, err = call(capsys, *folder_arguments(image_folder, tmp_path / "run"))
    assert code == 2 and "dog/3.png" in err and "skip_bad_examples" in err


def test_truncated_training_image_is_skipped_and_counted_when_asked(image_folder, tmp_path, capsys):
    arguments = folder_arguments(image_folder, tmp_path / "run", data__skip_bad_examples=True)
    code, out, err = call(capsys, *arguments)
    assert code == 0, err
    assert "15 of 16 scored" in out and "1 unreadable training examples" in out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["unreadable_training_examples"] == 1


def test_data_that_changed_since_the_checkpoint_is_refused(image_folder, tmp_path, capsys):
    workdir = tmp_path / "run"
    arguments = folder_arguments(image_folder, workdir, data__skip_bad_examples=True)
    assert call(capsys, *arguments)[0] == 0
    (workdir / "result.json").unlink()  # as if killed before it was written
    pixels = Image.new("RGB", (8, 8))
    pixels.save(image_folder / "train" / "cat" / "new.png")
    code, _, err = call(capsys, *arguments)
    assert code == 2 and "num_examples was 16, and is 17; allowed: the same data" in err
    (image_folder / "train" / "cat" / "new.png").unlink()
    assert call(capsys, *arguments)[0] == 0


# convert

SOURCE_MODEL = dict(task__model__pool="map", task__model__activation="gelu_tanh")


@pytest.fixture(scope="module")
def siglip_run(tmp_path_factory):
    """A run whose model several layouts can express."""
    folder = tmp_path_factory.mktemp("convert") / "run"
    with pytest.raises(SystemExit) as stop:
        main(train_arguments(folder, train__num_steps=2, **SOURCE_MODEL))
    assert not stop.value.code
    return folder


def logits_of(path):
    loaded = weights.load(path)
    return np.asarray(loaded.model.apply(loaded.variables, normal(2, 8, 8, 1)).logits)


def test_a_run_becomes_an_npz(siglip_run, capsys, tmp_path):
    target = tmp_path / "new" / "a.npz"
    code, out, err = call(
        capsys, "convert", f"--from={siglip_run}", f"--to={target}", "--format=big_vision"
    )
    assert code == 0, err
    assert "vit_jax weights" in out and f"wrote {target} as big_vision" in out
    np.testing.assert_array_equal(logits_of(target), logits_of(siglip_run))


def test_layouts_follow_one_another(siglip_run, capsys, tmp_path):
    """run -> big_vision -> timm -> Hugging Face, whose SigLIP has no head -> refused."""
    reason = "safetensors is not installed: its files are neither written nor read"
    pytest.importorskip("safetensors", reason=reason)
    first, second, third = tmp_path / "a.npz", tmp_path / "timm", tmp_path / "hf"
    name = "vit_vit_patch2_siglip_8"  # two heads
    for arguments in (
        [f"--from={siglip_run}", f"--to={first}", "--format=big_vision"],
        [f"--from={first}", f"--to={second}", "--format=timm", f"--architecture={name}"],
    ):
        code, _, err = call(capsys, "convert", *arguments)
        assert code == 0, err
    np.testing.assert_array_equal(logits_of(second), logits_of(siglip_run))
    code, _, err = call(
        capsys, "convert", f"--from={second}", f"--to={third}", "--format=huggingface"
    )
    assert code == 2 and "no Hugging Face family expresses this model" in err
    assert not third.exists()


def test_a_run_becomes_hugging_faces_folder_at_another_size(capsys, tmp_path):
    reason = "safetensors is not installed: its files are neither written nor read"
    pytest.importorskip("safetensors", reason=reason)
    arguments = train_arguments(
        tmp_path / "run",
        train__num_steps=2,
        task__model__pool="cls",
        task__model__activation="gelu",
    )
    assert call(capsys, *arguments)[0] == 0
    target = tmp_path / "hf"
    arguments = [f"--from={tmp_path / 'run'}", f"--to={target}", "--format=huggingface"]
    assert call(capsys, "convert", *arguments)[0] == 0
    np.testing.assert_array_equal(logits_of(target), logits_of(tmp_path / "run"))
    config = json.loads((target / "config.json").read_text())
    assert config["model_type"] == "vit" and config["id2label"]["7"] == "7"
    code, out, err = call(capsys, "convert", *arguments, "--image_size=12,8")
    assert code == 0 and re.search("resized .*position_embedding", out), err
    assert json.loads((target / "config.json").read_text())["image_size"] == [12, 8]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format=onnx"], "'onnx'; allowed: google, big_vision, huggingface, timm"),
        (["--format=googel"], "did you mean 'google'"),
        (["--format=timm"], "architecture None; allowed: a name of timm's"),
        (["--format=big_vision"], "allowed with this layout: a file *.npz"),
        (["--format=google", "--to=a.npz"], "no place for pool/"),
        (["--format=big_vision", "--to=a.npz", "--image_size=9,8"], "9x8"),
        (["--format=big_vision", "--to=a.npz", "--image_size=large"], "large"),
        (["--format=google", "--from=none.npz"], "There is no 'none.npz' here"),
        ([], "--format is missing"),
        (["--format=google", "--to="], "--to is missing"),
        (["--fromat=google"], "format"),
    ],
    ids=str,
)
def test_mistakes_of_convert_are_one_sentence(siglip_run, arguments, message, capsys, tmp_path):
    with contextlib.chdir(tmp_path):
        given = ["convert", f"--from={siglip_run}", "--to=out", *arguments]
        code, _, err = call(capsys, *given)
    assert code == 2 and err.startswith("error: ") and message in err, err
    assert len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.iterdir())
