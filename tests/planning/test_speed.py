"""What an update moves through memory, from shapes alone."""

import pytest
import tiny_dino
from plans import TOLD, make_config

from vit_jax.analysis import memory
from vit_jax.experiment import build_learner, plain
from vit_jax.planning import describe_data, speed
from vit_jax.planning.work import Work
from vit_jax.train import sharding


@pytest.mark.parametrize("is_taught", [False, True])
def test_a_teacher_that_follows_is_read_and_written_as_well(is_taught):
    mesh = sharding.make_abstract_mesh(num_devices=1, data=1)
    learner = tiny_dino.learner(mesh) if is_taught else classifier(mesh)
    state = learner.abstract_state()
    sizes = [memory.device_bytes(t) for t in (state.params, state.opt_state, state.task_state)]
    assert (sizes[2] >= sizes[0]) == is_taught  # the teacher, and centres
    # Each is read and written, and the gradient read.
    assert speed.update_bytes(Work(learner, 8), 1) == 2 * sum(sizes) + sizes[0]


def classifier(mesh):
    config = plain(make_config())
    return build_learner(config, mesh, describe_data(config, 0, TOLD, []), 100)
