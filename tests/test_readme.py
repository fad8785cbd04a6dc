"""What the README tells people to type works, and what it shows exists."""

import re
import shlex

import pytest
from helpers import ROOT, finish, train_arguments

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
COMMANDS = re.findall(r"python -m vit_jax ([^\n&|]+)", "\n".join(BLOCKS))


def test_the_two_commands_are_there_and_marked_for_ci():
    for name, part in (("train", "vit_jax train"), ("test", "pytest")):
        assert re.search(rf"<!-- ci:{name} -->\n```bash\n[^`]*{part}", README)


def test_commands_run_as_written(tmp_path):
    """Each in the README's order; train and explain shortened, the workdir moved, the rest as it
    stands."""
    output = tmp_path / "out.txt"
    seen = set()
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        elsewhere = ("fashion", "folder:", "finetune", "imagenet", "slurm", "experiments/", "hf:")
        if any(part in a for a in arguments for part in elsewhere):
            # Data, network or cluster may not be here; test_configs.py runs these configs, and
            # papers/test_tables.py what is in experiments/.
            continue
        if name == "sweep":  # dozens of trainings; tests/sweeps and test_sweep.py run small ones
            continue
        for written in ("runs/digits", "digits.npz", "=preview"):
            here = tmp_path / written.removeprefix("runs/").removeprefix("=")
            prefix = "=" if written.startswith("=") else ""
            arguments = [a.replace(written, f"{prefix}{here}") for a in arguments]
        if name == "train":
            short = [a for a in train_arguments(tmp_path / "digits") if a.startswith("--config.")]
            arguments += short
        if any("my_images/" in a for a in arguments):
            images = tmp_path / "images"
            make_images(images)
            arguments = [a.replace("my_images/", str(images)) for a in arguments]
        if name == "explain":  # commands/test_explain.py makes every section
            arguments += ["--only=predictions,filters"]
        code, text = finish([name, *arguments], output)
        assert code == 0, f"{command}\n{text}"
        seen.add(name)
    assert seen == {"train", "plan", "evaluate", "predict", "explain", "convert", "prepare"}


def make_images(folder):
    from PIL import Image

    folder.mkdir(exist_ok=True)
    Image.new("L", (8, 8), 128).save(folder / "a.png")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()
