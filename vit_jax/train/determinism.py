"""`config.train.deterministic`: the same seed gives the same bits on the same hardware.

CPUs and TPUs need nothing for that: their compilers order every sum in the same way each time. On
GPUs two things differ between runs of one program. Some kernels add in whatever order their
threads arrive (scatters, some convolutions, the backward pass of cuDNN's flash attention), and
autotuning takes whichever kernel was fastest that day. `xla_gpu_deterministic_ops` forbids the
first, or fails to compile where there is no other way, as for the backward pass of max-pooling; and
it turns the second off, so that XLA's default kernels serve (openxla/xla pull request 12520).

Not covered: another kind or number of devices, another version of XLA or of the driver, and the
order in which collectives add between GPUs, which is NCCL's to choose by topology.

What it costs on a GPU has not been measured here; being without autotuning may cost more than the
ordered kernels. Who wants only the ordered kernels sets, in the environment,
XLA_FLAGS=--xla_gpu_exclude_nondeterministic_ops=true and keeps JAX_COMPILATION_CACHE_DIR, whose
programs have their kernels chosen already. On CPUs the programs are the same with and without.
"""

from collections.abc import Mapping

# XLA's options by platform, as `device.platform` names it; others have none and need none.
OPTIONS: Mapping[str, Mapping[str, bool]] = {"gpu": {"xla_gpu_deterministic_ops": True}}


def compiler_options(*, deterministic: bool, platform: str) -> dict[str, bool]:
    """What `jax.jit` takes as `compiler_options`."""
    return dict(OPTIONS.get(platform, {})) if deterministic else {}
