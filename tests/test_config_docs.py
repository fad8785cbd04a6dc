"""The tables of configs/*.md name what the builders take: every key, and none besides."""

import inspect
import re

import pytest
from helpers import ROOT

from vit_jax.data.augment import build_crop
from vit_jax.data.augment.build import build_augment
from vit_jax.data.augment.policies import AUTOAUGMENT, BUILDERS
from vit_jax.data.dialects import DIALECTS
from vit_jax.data.pipeline import EvalSettings

AUGMENTATION = (ROOT / "configs" / "augmentation.md").read_text()
CONFIGS = (ROOT / "configs" / "README.md").read_text()


def rows(text, heading):
    """{first cell: the others} of the table whose first heading is this."""
    (table,) = re.findall(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, flags=re.M)
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return {first: rest for first, *rest in cells}


def code(text):
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_augmentation_names_every_key():
    named = [key for cell in rows(AUGMENTATION, "key") for key in code(cell)]
    taken = inspect.signature(build_augment).parameters.keys() - {"preprocessing"}
    assert len(named) == len(set(named)) and set(named) == taken


def test_the_table_of_augmentation_names_every_choice():
    table = rows(AUGMENTATION, "key")
    for cell, choices in (
        ("`crop`", build_crop.CROPS),
        ("`dialect`", DIALECTS),
        ("`policy`", BUILDERS),
    ):
        assert set(choices) <= set(code(table[cell][0])), cell


def test_the_table_of_policies_names_every_table():
    dialects = re.search(r"^Policies;.*\n\n\| \| (.*) \|$", AUGMENTATION, flags=re.M)
    (line,) = re.findall(r"^\| AutoAugment's policies \| (.*) \|$", AUGMENTATION, flags=re.M)
    found = dict(zip(code(dialects[1]), line.split(" | "), strict=True))
    assert {name: tuple(AUTOAUGMENT[name]) for name in found} == {
        name: tuple(cell.split(", ")) for name, cell in found.items()
    }


def test_the_table_of_sections_names_every_key_of_an_evaluation():
    (_, said) = rows(CONFIGS, "section")["`evals`"]
    assert set(code(said)) == {"protocol", *inspect.signature(EvalSettings).parameters}


def test_the_table_of_configs_has_a_row_for_each_file():
    files = {path.name for path in (ROOT / "configs").glob("*.py")} - {"common.py"}
    assert {name for cell in rows(CONFIGS, "config") for name in code(cell)} == files


@pytest.mark.parametrize("file", ["README.md", "augmentation.md"])
def test_named_builders_and_linked_files_exist(file):
    text = (ROOT / "configs" / file).read_text()
    for path in re.findall(r"\]\(([\w./-]+)\)", text):
        assert (ROOT / "configs" / path).exists(), path
    for path, name in re.findall(r"`(vit_jax/[\w/]+\.py): (\w+)`", text):
        assert re.search(rf"^(def|class) {name}\b", (ROOT / path).read_text(), flags=re.M), name
