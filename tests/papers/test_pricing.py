"""What a table would cost, told without running it; and the command that runs it."""

import io

import pytest
from finished_tables import write_table
from helpers import finish
from rich.console import Console

from vit_jax.commands import sweep
from vit_jax.errors import InputError
from vit_jax.papers import loading, pricing
from vit_jax.papers.pricing import Fleet
from vit_jax.papers.table import Row, Scale

ROOM = dict(rows=(), columns=())


def test_devices_are_the_callers_or_the_scales():
    scale = Scale(**ROOM, devices="tpu-v3, 256")
    assert Fleet.of(scale) == Fleet("v3", 256)
    assert Fleet.of(scale, device="H100", count=8) == Fleet("h100", 8)
    assert Fleet.of(Scale(**ROOM)) == Fleet("cpu", 1)
    with pytest.raises(InputError, match="'abacus'; allowed: b200, h200"):
        Fleet.of(scale, device="abacus")


def test_published_models_are_known_by_name():
    found = pricing.published_model("gs://vit_models/imagenet21k/R50+ViT-B_16.npz")
    assert found == dict(name="vit", size="B", stem="resnet50_stride16", patch_size=1)
    found = pricing.published_model("gs://mixer_models/imagenet21k/Mixer-L_32.npz")
    assert found == dict(name="mixer", size="L", patch_size=32)
    assert pricing.published_model("runs/mine") == {}


def tiny(folder):
    """The toy with a model that can be traced."""
    file = write_table(folder)
    config = folder / "configs" / "c.py"
    sizes = "width=16, depth=1, mlp_dim=32, num_heads=2"
    text = config.read_text().replace("width=8", sizes)
    config.write_text(text.replace("image_size=8)", "image_size=8, channels=1)"))
    return file


def printed(file, scale, fleet):
    seen = io.StringIO()
    console = Console(file=seen, width=200)
    pricing.print_prices(loading.load_table(file), scale, fleet, console)
    return seen.getvalue()


def test_prices_of_a_scale_that_cannot_be_run(tmp_path):
    text = printed(tiny(tmp_path), "full", Fleet("v3", 4))
    assert "weights-only" in text and "never started" in text and "JFT" in text
    assert "all seeds of what is trained: 0 device-hours" in text
    assert "python -m vit_jax" not in text  # nothing to launch


def test_prices_of_a_scale_that_can(tmp_path):
    file = tiny(tmp_path)
    text = printed(file, "small", Fleet("h100", 1))
    assert "--config=experiments/toy/toy.py --scale=small" in text
    # What begins from another row is priced with that row's model, and started from its workdir.
    folder = "runs/toy/toy-small/trials"
    assert f"--config.init.source={folder}/base,seed=1" in text
    assert f"--workdir={folder}/ViT-B_16,seed=1" in text
    assert text.count("train --config=") == 9  # rows of equal configs share their runs
    table = loading.load_table(file)
    rows = table.scale("small").rows
    base, fine, double = (pricing.price(table, row, rows, Fleet("h100", 1)) for row in rows[:3])
    assert base == fine and base.why == "" and base.device_hours > 0
    assert double.exaflops == pytest.approx(2 * base.exaflops)  # twice the batch, the same steps


def test_a_row_that_cannot_be_planned_says_why(tmp_path):
    table = loading.load_table(write_table(tmp_path))
    row = table.scale("small").rows[0]
    found = pricing.price(table, row, [row], Fleet("h100", 1))
    assert found.parameters is None and "depth" in found.why


def test_single_commands_quote_what_a_shell_would_eat(tmp_path):
    from vit_jax.sweeps.trials import Trial

    row = Row(name="a b", config="configs/c.py:1")
    overrides = {"row": "a b", "task.model": {"name": "vit"}, "init.source": "trial:x,seed=0"}
    trial = Trial(name="a_b,seed=0", config={}, overrides=overrides)
    file = loading.load_table(write_table(tmp_path), where={"data.data_dir": "/my data"})
    found = pricing.train_command(file, row, trial, folder="runs/t")
    assert found == (
        "python -m vit_jax train --config=configs/c.py:1 "
        """'--config.task.model={'"'"'name'"'"': '"'"'vit'"'"'}' """
        "--config.init.source=runs/t/x,seed=0 '--config.data.data_dir=/my data' "
        "--workdir=runs/t/a_b,seed=0"
    )


# The command


@pytest.mark.parametrize(
    "given, message",
    [
        (["--scale=smal"], "'smal'.*allowed: full, small"),
        ([], "--scale is missing"),
        (["--scale=small", "--num_trials=3"], "--num_trials is given.*without one"),
        (
            ["--scale=small", "--config.train.seed=3"],
            "--config.train.seed is given.*where they run .launch",
        ),
    ],
)
def test_flags_of_other_sweeps_are_refused(tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        sweep.main([f"--config={tiny(tmp_path)}", f"--workdir={tmp_path / 's'}", *given])


def test_flags_of_tables_are_refused_elsewhere(tmp_path):
    config = tmp_path / "c.py"
    config.write_text("def get_config(arg):\n    return {}\ndef sweep():\n    yield {}\n")
    with pytest.raises(InputError, match="--scale is given.*has no get_table.*with one"):
        sweep.main([f"--config={config}", f"--workdir={tmp_path / 's'}", "--scale=small"])


def test_a_table_is_run_and_told_by_one_command(tmp_path):
    """Two rows, one of which begins from the other."""
    file = tiny(tmp_path)
    text = file.read_text().replace("(0, 1, 2)", "(0,)")
    file.write_text(text)
    config = tmp_path / "configs" / "c.py"
    evals = 'evals=dict(test=dict(split="test[:32]"))'
    config.write_text(config.read_text().replace('evals=dict(test=dict(split="test"))', evals))
    folder, out = tmp_path / "sweep", tmp_path / "results"
    arguments = ["sweep", f"--config={file}", "--scale=small"]
    arguments += [f"--workdir={folder}", f"--out={out}"]
    code, printed = finish(arguments, tmp_path / "log")
    assert code == 0, printed
    assert "| ViT-B/16 | 80.00 |" in printed and "undecided: one seed" in printed
    assert (out / "toy.small.md").read_text().count("3 of 3 runs finished") == 1
    assert {path.name for path in out.iterdir()} == {
        f"toy.small.{e}" for e in ("md", "json", "png")
    }
