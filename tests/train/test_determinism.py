"""The same seed gives the same bits, in processes that know nothing of each other."""

import json

import jax
import numpy as np
import pytest
from gpus import on_gpu
from helpers import NUM_STEPS, finish, tiny_config, train_arguments
from toys import assert_trees_equal

from vit_jax import evaluators, experiment, restoring, workdir
from vit_jax.learner import Info
from vit_jax.train import agreement, determinism, sharding
from vit_jax.train.determinism import compiler_options


@pytest.fixture(scope="module")
def built():
    """A learner, which is to be deterministic, and its data."""
    config = experiment.plain(tiny_config(train__deterministic=True))
    data = experiment.build_data(config["data"], seed=0)
    mesh = sharding.make_mesh()
    return experiment.build_learner(config, mesh, Info.of(data), NUM_STEPS), data


def rows(workdir):
    """What was logged of the training, but for speed and memory."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [
        {n: v for n, v in line.items() if n.split("/")[0] in ("step", "train")} for line in lines
    ]


def assert_same_bits_in_two_processes(folder, platform, **settings):
    for name in ("a", "b"):
        code, text = finish(
            train_arguments(folder / name, train__deterministic=True, **settings),
            folder / f"{name}.txt",
            JAX_PLATFORMS=platform,
            XLA_PYTHON_CLIENT_PREALLOCATE="false",  # beside this process, which has its GPU's part
            # Each compiles, and on a GPU chooses its kernels, by itself.
            JAX_COMPILATION_CACHE_DIR=str(folder / f"{name}_compiled"),
        )
        assert code == 0, text
    states = [restoring.restore(folder / name)[1] for name in ("a", "b")]
    assert_trees_equal(*states)
    assert rows(folder / "a") == rows(folder / "b")


def test_same_bits_in_two_processes(tmp_path):
    assert_same_bits_in_two_processes(tmp_path, "cpu")


@on_gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_bits_in_two_processes_on_a_gpu(tmp_path, dtype):
    assert_same_bits_in_two_processes(
        tmp_path, "cuda", task__model__dtype=dtype, task__mixing={"cutmix_alpha": 1.0}
    )


def test_platforms_have_their_own_options_and_none_unless_asked():
    assert compiler_options(deterministic=True, platform="gpu") == determinism.OPTIONS["gpu"]
    assert not compiler_options(deterministic=False, platform="gpu")
    for platform in ("cpu", "tpu", "a_new_one"):
        assert not compiler_options(deterministic=True, platform=platform)


def test_the_compiler_knows_the_options_of_gpus():
    """XLA's options are one list for CPUs and GPUs, so that their names can be tried here."""
    jax.jit(lambda x: x + 1, compiler_options=dict(determinism.OPTIONS["gpu"]))(1.0)
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        jax.jit(lambda x: x + 1, compiler_options={"xla_gpu_no_such_ops": True})(1.0)


@pytest.mark.parametrize("what", ["init", "step", "evaluation", "prediction"])
def test_every_program_of_a_run_is_compiled_so(monkeypatch, built, tmp_path, what):
    """An option that no compiler knows shows where options arrive."""
    learner, data = built
    shapes = learner.abstract_state().replace(rng=None)
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    state = state.replace(rng=jax.random.key(0))
    monkeypatch.setattr(determinism, "OPTIONS", {"cpu": {"xla_no_such_option": True}})
    section = {"split": "test[:8]", "batch_size": 8}
    image = np.zeros(learner.info.preprocessing.image_shape, np.uint8)
    votes = agreement.Votes(lambda: False)
    (evaluator,) = evaluators.of_run({"t": section}, learner, data, votes, tmp_path)
    run = {
        "init": learner.init_state,
        "step": lambda: learner.compile_step(16),
        "evaluation": lambda: evaluator.run(state),
        "prediction": lambda: list(learner.probabilities(state, [(0, image)], 8)),
    }[what]
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run()


def test_it_belongs_to_the_run():
    """Unlike settings that leave the result as it is, see `workdir.FREE_KEYS`."""
    then, now = ({"train": {"deterministic": flag}} for flag in (False, True))
    assert workdir.contradictions(then, now) == ["train.deterministic: False there, True now"]
