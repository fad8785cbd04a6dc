"""The same seed gives the same bits, in processes that know nothing of each other."""

import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from helpers import NUM_STEPS, finish, tiny_config, train_arguments
from toys import assert_trees_equal

from vit_jax import experiment, restoring
from vit_jax.errors import InputError
from vit_jax.learner import Info, TrainSettings
from vit_jax.train import determinism, sharding
from vit_jax.train.determinism import compiler_options


def has_gpu():
    if shutil.which("nvidia-smi") is None:
        return False
    found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    return "GPU" in found.stdout


def built(deterministic):
    """A learner and its data."""
    config = experiment.plain(tiny_config(train__deterministic=deterministic))
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
            # Each compiles, and on a GPU chooses its kernels, by itself.
            JAX_COMPILATION_CACHE_DIR=str(folder / f"{name}_compiled"),
        )
        assert code == 0, text
    states = [restoring.restore(folder / name)[1] for name in ("a", "b")]
    assert_trees_equal(*states)
    assert rows(folder / "a") == rows(folder / "b")


def test_same_bits_in_two_processes(tmp_path):
    assert_same_bits_in_two_processes(tmp_path, "cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="there is no NVIDIA GPU here")
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
@pytest.mark.parametrize("deterministic", [True, False])
def test_every_program_of_a_run_is_compiled_so(monkeypatch, what, deterministic):
    """An option that no compiler knows shows where options arrive."""
    state = built(deterministic=False)[0].init_state()
    monkeypatch.setattr(determinism, "OPTIONS", {"cpu": {"xla_no_such_option": True}})
    learner, data = built(deterministic)
    section = {"split": "test[:8]", "batch_size": 8}
    image = np.zeros(learner.info.preprocessing.image_shape, np.uint8)
    run = {
        "init": learner.init_state,
        "step": lambda: learner.compile_step(16),
        "evaluation": lambda: experiment.build_evaluator("t", section, learner, data).run(state),
        "prediction": lambda: list(learner.probabilities(state, [(0, image)], 8)),
    }[what]
    if not deterministic:
        assert run()
        return
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run()


def test_on_a_cpu_the_programs_are_the_same():
    """So that the switch costs nothing there."""
    texts = [built(flag)[0].compile_step(16).call.as_text() for flag in (False, True)]
    assert texts[0] == texts[1]


def test_it_belongs_to_the_run(tmp_path):
    experiment.run(tiny_config(), tmp_path / "run")
    with pytest.raises(InputError, match=r"train.deterministic: .* there, True now"):
        experiment.run(tiny_config(train__deterministic=True), tmp_path / "run")
    assert not TrainSettings(num_steps=1).deterministic
