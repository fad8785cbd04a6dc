"""Whether a process is one of several is told from the environment, and told right."""

import pytest

from vit_jax.errors import InputError
from vit_jax.train import cluster
from vit_jax.train.cluster import detect, share_of_gpus

SLURM_JOB = {
    "SLURM_JOB_ID": "17",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_NODELIST": "node[1-2]",
}
SLURM_STEP = SLURM_JOB | {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}
MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}
ORTE = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
KUBEFLOW = {
    "JAX_COORDINATOR_ADDRESS": "job-0.job:1234",
    "JAX_NUM_PROCESSES": "8",
    "JAX_PROCESS_ID": "7",
}
INDEXED_JOB = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}

ALONE = {
    "a laptop": {},
    "the shell of an allocation, or a batch script": SLURM_JOB,
    "a step of one task": SLURM_JOB | {"SLURM_STEP_NUM_TASKS": "1"},
    "mpirun -n 1": MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
    "a pod": {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    "one TPU host": {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_ML_PLATFORM": "JAX"},
    "a machine without TPUs": {"TPU_ML_PLATFORM": "JAX", "TPU_SKIP_MDS_QUERY": "1"},
    "a TPU host's CPU": {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"},
    "an address without a number": {"JAX_COORDINATOR_ADDRESS": "a:1"},
}


@pytest.mark.parametrize("environ", ALONE.values(), ids=ALONE)
def test_a_process_on_its_own_waits_for_nobody(environ):
    assert detect(environ) is None


TOGETHER = {
    "slurm": (SLURM_STEP, ("slurm", 4, 3)),
    "ompi": (MPI | ORTE, ("ompi", 2, 1)),
    "variables": (KUBEFLOW, ("deactivate", 8, 7)),
    "gketpu": ({"TPU_WORKER_HOSTNAMES": "a,b"}, ("gketpu", None, None)),
    "slices": (
        {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
        ("gketpu", None, None),
    ),
    "gcetpu": ({"TPU_ML_PLATFORM": "JAX"}, ("gcetpu", None, None)),
    "mpirun within Slurm": (SLURM_STEP | MPI | ORTE, ("ompi", 2, 1)),
}


@pytest.mark.parametrize(("environ", "expected"), TOGETHER.values(), ids=TOGETHER)
def test_one_of_several_knows_its_place_and_why(environ, expected):
    found = detect(environ)
    assert (found.method, found.num_processes, found.process_id) == expected
    assert found.reason


@pytest.mark.parametrize("environ", [INDEXED_JOB, MPI], ids=["kubernetes", "Open MPI 5"])
def test_what_jax_needs_a_package_for(monkeypatch, environ):
    monkeypatch.setattr(cluster, "_is_installed", lambda package: True)
    assert detect(environ).method in ("k8s", "mpi4py")
    monkeypatch.setattr(cluster, "_is_installed", lambda package: False)
    with pytest.raises(InputError, match="allowed: .* package (kubernetes|mpi4py), .*--num_proc"):
        detect(environ)
    assert detect(environ, num_processes=1) is None


def test_flags_come_before_the_environment():
    flags = dict(coordinator="localhost:99", num_processes=2, process_id=0)
    found = detect(SLURM_STEP, **flags)
    assert (found.coordinator, found.num_processes, found.process_id) == ("localhost:99", 2, 0)
    assert found.method == "deactivate" and found.local_device_ids == ()
    assert detect(SLURM_STEP, num_processes=1) is None
    assert detect(SLURM_STEP, local_device_ids=(2, 3)).local_device_ids == (2, 3)


WRONG = {
    "half the flags": ({}, dict(coordinator="a:1"), "--num_processes and --process_id missing"),
    "no id": ({}, dict(coordinator="a:1", num_processes=2), "--process_id missing"),
    "no port": ({}, dict(coordinator="a", num_processes=2, process_id=0), "HOST:PORT"),
    "port 0": ({}, dict(coordinator="a:0", num_processes=2, process_id=0), "HOST:PORT"),
    "port": ({}, dict(coordinator="a:65536", num_processes=2, process_id=0), "HOST:PORT"),
    "id": ({}, dict(coordinator="a:1", num_processes=2, process_id=2), "allowed: 0 to 1"),
    "below": ({}, dict(coordinator="a:1", num_processes=2, process_id=-1), "allowed: 0 to 1"),
    "none": ({}, dict(coordinator="a:1", num_processes=0, process_id=0), "at least 1"),
    "no number": (SLURM_STEP | {"SLURM_STEP_NUM_TASKS": "x"}, {}, "SLURM_STEP_NUM_TASKS is 'x'"),
    "rank": (SLURM_STEP | {"SLURM_PROCID": "4"}, {}, "SLURM_PROCID is 4"),
    "mpi rank": (MPI | ORTE | {"OMPI_COMM_WORLD_RANK": "2"}, {}, "OMPI_COMM_WORLD_RANK is 2"),
    "kubeflow": ({"JAX_NUM_PROCESSES": "2"}, {}, "lacks JAX_COORDINATOR_ADDRESS and JAX_PROCESS"),
}


@pytest.mark.parametrize(("environ", "flags", "message"), WRONG.values(), ids=WRONG)
def test_what_contradicts_itself_is_refused(environ, flags, message):
    with pytest.raises(InputError, match=message) as error:
        detect(environ, **flags)
    assert "allowed: " in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", cluster.SLURM_NEEDS)
def test_a_slurm_task_without_its_variables_is_refused(name):
    environ = {key: value for key, value in SLURM_STEP.items() if key != name}
    with pytest.raises(InputError, match=name):
        detect(environ)


GPUS = {  # visible devices, local id, processes on the host -> positions
    "alone": ("0,1,2,3", 0, 1, ()),
    "one each": ("0,1", 1, 2, (1,)),
    "two each": ("4,5,6,7", 1, 2, (2, 3)),
    "bound by the scheduler": ("3", 1, 2, ()),
    "unknown": (None, 1, 2, (1,)),
}


@pytest.mark.parametrize(("visible", "local_id", "neighbours", "expected"), GPUS.values(), ids=GPUS)
def test_processes_of_a_host_share_its_gpus(visible, local_id, neighbours, expected):
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert share_of_gpus(environ, local_id=local_id, neighbours=neighbours) == expected


@pytest.mark.parametrize(
    ("tasks", "node", "expected"), [("1(x2)", "1", ()), ("2,1", "0", (1,)), ("2(x3),1", "3", ())]
)
def test_tasks_of_a_node_are_counted(tasks, node, expected):
    environ = {"SLURM_STEP_TASKS_PER_NODE": tasks, "SLURM_NODEID": node}
    assert detect(SLURM_STEP | environ).local_device_ids == expected
