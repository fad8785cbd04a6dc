"""What the README tells people to type works, and what it shows exists."""

import re
import shlex

import pytest
from helpers import ROOT, finish, train_arguments
from ml_collections import ConfigDict

from vit_jax import evaluators
from vit_jax.commands import parsing

README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.S)
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
COMMANDS = re.findall(r"python -m vit_jax ([^\n&|]+)", "\n".join(BLOCKS))


def test_the_two_commands_are_there_and_marked_for_ci():
    for name, part in (("train", "vit_jax train"), ("test", "pytest")):
        assert re.search(rf"<!-- ci:{name} -->\n```bash\n[^`]*{part}", README)


def test_commands_run_as_written(tmp_path, capsys):
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
        for written in ("runs/digits", "runs/distilled", "digits.npz", "=preview"):
            here = tmp_path / written.removeprefix("runs/").removeprefix("=")
            prefix = "=" if written.startswith("=") else ""
            arguments = [a.replace(written, f"{prefix}{here}") for a in arguments]
        if name == "train":
            short = [a for a in train_arguments(tmp_path) if a.startswith("--config.")]
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
        if "save_index" in command:
            folder = tmp_path / "digits"
            search(folder, tmp_path, capsys)
    assert seen == {"train", "plan", "evaluate", "predict", "explain", "convert", "prepare"}


def search(run, folder, capsys):
    """The example that looks images up in an index."""
    (block,) = [block for block in SNIPPETS if "Index.load" in block]
    make_images(folder / "images")
    block = block.replace("runs/digits", str(run)).replace("my_images/", f"{folder}/images/")
    exec(block, {})
    printed = capsys.readouterr().out
    assert len(re.findall(r"'\d'", printed)) == 5, printed


def evaluated():
    """(protocol, its entry) of each example of an evaluation."""
    namespace = {"config": ConfigDict(dict(evals={}, train={}))}
    for block in SNIPPETS:
        if "config.evals" in block:
            exec(block, namespace)
            yield from namespace["config"].evals.to_dict().values()
    for command in COMMANDS:
        if command.startswith("evaluate"):
            sections, rest = parsing.take_sections(shlex.split(command)[1:])
            for name in (a.removeprefix("--protocol=") for a in rest if "--protocol=" in a):
                yield {"protocol": name, "split": "val", **sections.pop(name, {})}
            assert not sections


def test_examples_of_evaluations_are_what_protocols_take():
    seen = set()
    for entry in evaluated():
        name = entry.pop("protocol", "task")
        if name != "task":
            settings, protocol = evaluators.split_entry(evaluators.KINDS[name], entry, where=name)
            seen |= {name, *protocol.requests(settings, "train[:95%]")}
    shifts = {f"shift/{name}" for name in ("v2", "a", "r", "sketch")}
    assert seen >= {"robustness", "ood", "retrieval", "out/textures", "out/places", *shifts}


def make_images(folder):
    from PIL import Image

    folder.mkdir(exist_ok=True)
    Image.new("L", (8, 8), 128).save(folder / "a.png")


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", README))))
def test_linked_files_exist(path):
    assert (ROOT / path).exists()
