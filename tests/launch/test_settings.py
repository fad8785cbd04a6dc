"""`config.launch`: what is refused, and what a time limit and an interpreter become."""

import sys

import pytest

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.launch.settings import LaunchSettings


def settings(**section):
    return sections.call(LaunchSettings, section, where="config.launch")


@pytest.mark.parametrize(
    "section, message",
    [
        (dict(node=2), "unknown key 'node' .did you mean 'nodes'"),
        (dict(nodes=0), "nodes is 0; allowed: 1 or more"),
        (dict(tasks_per_node=0), "tasks_per_node is 0"),
        (dict(hours=0.0), "hours is 0.0; allowed: more than 0"),
        (dict(hours="1:00:00"), "hours is '1:00:00'; allowed: float"),
        (dict(setup="module load cuda"), "setup is 'module load cuda'; allowed: Sequence"),
        (dict(gpus_per_node=4, tasks_per_node=3), "4, which 3 tasks cannot share evenly"),
        (dict(gpus_per_node=2, tasks_per_node=4), "2, which 4 tasks cannot share evenly"),
        (dict(hours=1 / 60), "save_seconds is 120; allowed: less than the time limit, 60 seconds"),
        (dict(max_requeues=-1), "max_requeues is -1"),
        (dict(partition="a\nb"), "partition is 'a.*b'; allowed: a single line"),
        (dict(sbatch={"mail-type": "END\nid"}), "sbatch.mail-type is .*; allowed: a single line"),
        (dict(srun=("--x=1\nid",)), "srun.0. is .*; allowed: a single line"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(section, message):
    with pytest.raises(InputError, match=message):
        settings(**section)


def test_defaults_ask_for_one_process_of_this_interpreter():
    found = settings()
    assert (found.nodes, found.tasks_per_node, found.gpus_per_node) == (1, 1, 0)
    assert found.interpreter == sys.executable


@pytest.mark.parametrize("hours, minutes", [(1, 60), (72, 4320), (0.05, 3), (0.051, 4)])
def test_time_limits_are_rounded_up_to_minutes(hours, minutes):
    assert settings(hours=hours).minutes == minutes


def test_a_container_stands_before_the_interpreter_and_may_name_another():
    prefix = "apptainer exec --nv jax.sif"
    assert settings(prefix=prefix).interpreter == f"{prefix} {sys.executable}"
    assert settings(prefix=prefix, python="python3").interpreter == f"{prefix} python3"


def test_an_interpreter_with_a_space_is_one_word(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/my tools/python")
    assert settings().interpreter == "'/my tools/python'"
    assert settings(prefix="env A=1").interpreter == "env A=1 '/my tools/python'"
