"""Is this process one of several? The answer is read from flags and environment alone.

JAX knows how Slurm, Open MPI, Kubernetes and TPU pods tell a process its place
(`jax.distributed.initialize`), but it also believes an environment that merely mentions a cluster:
in the shell of an allocation it waits for tasks that nobody started. So what is decided here is
whether there are several processes at all, by what only a started task is told:

  Slurm       SLURM_STEP_NUM_TASKS, which srun sets for each step (SLURM_NTASKS is the job's)
  Open MPI    OMPI_COMM_WORLD_SIZE, set by mpirun
  TPU         TPU_WORKER_HOSTNAMES or TPU_PROCESS_ADDRESSES on GKE; a TPU's metadata elsewhere
  Kubernetes  JOB_COMPLETION_INDEX of an indexed Job; how many pods there are JAX asks the cluster
  anything    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID, as Kubeflow sets them

Flags come before all of them; `num_processes=1` alone says that a process is on its own.
"""

import importlib.metadata
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vit_jax.errors import InputError

ALONE = "--num_processes=1, if this process is on its own"
SLURM_NEEDS = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Where this process stands among the others; what is None, JAX finds out.

    Attributes:
      reason: what the decision rests on, for the log.
      method: how JAX is to find out, see `jax.distributed.initialize`.
      coordinator: 'HOST:PORT' of process 0.
      num_processes, process_id: how many there are, and which this is.
      local_device_ids: GPUs of this host that are this process's; () for all that it sees.
    """

    reason: str
    method: str = "deactivate"
    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = ()


def detect(
    environ: Mapping[str, str],
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    local_device_ids: tuple[int, ...] | None = None,
) -> Cluster | None:
    """The cluster that this process belongs to; None where it is on its own.

    Args:
      environ: the environment's variables.
      coordinator, num_processes, process_id: given explicitly, all three or none.
      local_device_ids: GPUs of this process, whichever way the rest was found.

    Raises:
      InputError: for an environment that contradicts itself, or an incomplete set of flags.
    """
    given = dict(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    if any(value is not None for value in given.values()):
        found = _from_flags(**given)
    else:
        found = next((c for look in _PLACES if (c := look(environ)) is not None), None)
    if found is None or found.num_processes == 1:
        return None
    if local_device_ids is None:
        return found
    return Cluster(**{**vars(found), "local_device_ids": tuple(local_device_ids)})


def _from_flags(
    *, coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Cluster:
    given = dict(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if num_processes == 1 and len(missing) == 2:
        return Cluster(reason="--num_processes=1", num_processes=1, process_id=0)
    if missing:
        raise InputError(
            f"{' and '.join(missing)} missing; allowed: --coordinator=HOST:PORT, --num_processes=N "
            f"and --process_id=I together, none of them, or {ALONE}."
        )
    return _explicit(coordinator, num_processes, process_id, names=tuple(f"--{n}" for n in given))


def _from_variables(environ: Mapping[str, str]) -> Cluster | None:
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if not any(name in environ for name in names[1:]):
        return None  # the address alone may go with any other environment: JAX reads it itself
    missing = [name for name in names if name not in environ]
    if missing:
        raise InputError(
            f"the environment lacks {' and '.join(missing)}; allowed: all of {', '.join(names)}, "
            "or none of the last two."
        )
    return _explicit(
        environ[names[0]], _number(environ, names[1]), _number(environ, names[2]), names=names
    )


def _explicit(coordinator: str, number: int, index: int, *, names: tuple[str, ...]) -> Cluster:
    if not re.fullmatch(r".+:\d{1,5}", coordinator) or not 0 < port_of(coordinator) < 2**16:
        raise InputError(f"{names[0]} is {coordinator!r}; allowed: HOST:PORT of process 0.")
    _check_index(index, number, names=(names[2], names[1]))
    return Cluster(
        reason=", ".join(names), coordinator=coordinator, num_processes=number, process_id=index
    )


def _from_open_mpi(environ: Mapping[str, str]) -> Cluster | None:
    number = _number(environ, "OMPI_COMM_WORLD_SIZE", default=1)
    if number == 1:
        return None
    if "OMPI_MCA_orte_hnp_uri" in environ:
        method = "ompi"
    elif _is_installed("mpi4py"):  # Open MPI 5 tells the address to MPI programs alone
        method = "mpi4py"
    elif "JAX_COORDINATOR_ADDRESS" in environ:
        method = "deactivate"
    else:
        raise InputError(
            f"mpirun started {number} processes, but did not tell where process 0 is; allowed: "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT in the environment, the package mpi4py, or "
            f"{ALONE}."
        )
    index = _number(environ, "OMPI_COMM_WORLD_RANK")
    _check_index(index, number, names=("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"))
    return Cluster(
        reason="OMPI_COMM_WORLD_SIZE",
        method=method,
        num_processes=number,
        process_id=index,
        local_device_ids=share_of_gpus(
            environ,
            local_id=_number(environ, "OMPI_COMM_WORLD_LOCAL_RANK"),
            neighbours=_number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE"),
        ),
    )


def _from_slurm(environ: Mapping[str, str]) -> Cluster | None:
    number = _number(environ, "SLURM_STEP_NUM_TASKS", default=1)
    if number == 1:
        return None
    missing = [name for name in SLURM_NEEDS if name not in environ]
    if missing:
        raise InputError(
            f"the Slurm step has {number} tasks, but the environment lacks {', '.join(missing)}; "
            f"allowed: a process that srun started, or {ALONE}."
        )
    index = _number(environ, "SLURM_PROCID")
    _check_index(index, number, names=("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))
    return Cluster(
        reason="SLURM_STEP_NUM_TASKS",
        method="slurm",
        num_processes=number,
        process_id=index,
        local_device_ids=share_of_gpus(
            environ,
            local_id=_number(environ, "SLURM_LOCALID"),
            neighbours=_tasks_here(environ),
        ),
    )


def _tasks_here(environ: Mapping[str, str]) -> int:
    """Tasks of this Slurm step on this node: '2(x3),1' and node 3 -> 1."""
    counts = []
    for part in environ.get("SLURM_STEP_TASKS_PER_NODE", "").split(","):
        if match := re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part):
            counts += [int(match[1])] * int(match[2] or 1)
    node = _number(environ, "SLURM_NODEID", default=0)
    # Unknown: as if there were more, so that no two processes open one GPU.
    return counts[node] if node < len(counts) else _number(environ, "SLURM_STEP_NUM_TASKS")


def _from_tpu(environ: Mapping[str, str]) -> Cluster | None:
    if environ.get("JAX_PLATFORMS") == "cpu":
        return None
    variable = next(
        (n for n in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES") if environ.get(n)), None
    )
    slices = _number(environ, "MEGASCALE_NUM_SLICES", default=1)
    if variable and ("," in environ[variable] or slices > 1):
        return Cluster(reason=variable, method="gketpu", local_device_ids=None)
    # Importing JAX sets the first on a machine with TPUs, and the second on any without.
    if "TPU_ML_PLATFORM" in environ and "TPU_SKIP_MDS_QUERY" not in environ and not variable:
        return Cluster(reason="a TPU VM's metadata", method="gcetpu", local_device_ids=None)
    return None


def _from_kubernetes(environ: Mapping[str, str]) -> Cluster | None:
    if "KUBERNETES_SERVICE_HOST" not in environ or "JOB_COMPLETION_INDEX" not in environ:
        return None
    if not _is_installed("kubernetes"):
        raise InputError(  # on its own each pod would train the same run in the same workdir
            "this is a pod of an indexed Job, but how many there are cannot be asked; allowed: the "
            "package kubernetes, --coordinator=HOST:PORT --num_processes=N --process_id=I, or "
            f"{ALONE}."
        )
    return Cluster(reason="JOB_COMPLETION_INDEX", method="k8s", local_device_ids=None)


# In JAX's own order, but that TPU pods are looked for before Slurm, which may have started them.
_PLACES: tuple[Callable[[Mapping[str, str]], Cluster | None], ...] = (
    _from_variables,
    _from_tpu,
    _from_open_mpi,
    _from_slurm,
    _from_kubernetes,
)


def share_of_gpus(environ: Mapping[str, str], *, local_id: int, neighbours: int) -> tuple[int, ...]:
    """Which of the GPUs it sees a process takes, beside the others of its host.

    Args:
      local_id: of this process on its host.
      neighbours: processes of this job on this host, this one included.

    Returns:
      Positions among the visible GPUs; () for all: where it is alone there, or where the scheduler
      has bound GPUs to each process, which is so where fewer are visible than there are processes.
    """
    if neighbours == 1:
        return ()
    visible = environ.get("CUDA_VISIBLE_DEVICES", environ.get("ROCR_VISIBLE_DEVICES"))
    if visible is None:
        return (local_id,)  # one each, as JAX itself would have it
    each = len([name for name in visible.split(",") if name]) // neighbours
    return tuple(range(local_id * each, (local_id + 1) * each))


def _is_installed(package: str) -> bool:
    return any(True for _ in importlib.metadata.distributions(name=package))


def _number(environ: Mapping[str, str], name: str, *, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\d+", text):
        found = "missing" if text is None else repr(text)
        raise InputError(f"{name} is {found} in the environment; allowed: a number, or {ALONE}.")
    return int(text)


def _check_index(index: int, number: int, *, names: tuple[str, str]) -> None:
    if number < 1:
        raise InputError(f"{names[1]} is {number}; allowed: at least 1.")
    if not 0 <= index < number:
        raise InputError(
            f"{names[0]} is {index}, but {names[1]} is {number}; allowed: 0 to {number - 1}."
        )


def port_of(address: str) -> int:
    """Of 'HOST:PORT'."""
    return int(address.rpartition(":")[2])
