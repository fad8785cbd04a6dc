"""A real Slurm of one node on this machine: munged, slurmctld and slurmd, started by hand.

Debian's packages slurm-wlm and munge are all that it needs, and root: slurmd starts jobs in their
users' names. Everything it writes, keys and sockets included, lies in one temporary folder, and
its ports are free ones, so that it neither meets nor disturbs a Slurm that the machine has.
"""

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")

# No cgroups, no plugins for tasks and no accounting: what a container without systemd can do.
# The node claims more processors than there are (config_overrides), so that two jobs of two tasks
# fit at once. Daemons look at job queues more often than by default, and kill sooner.
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=30
MinJobAge=600
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why no Slurm can be started here; None where one can."""
    absent = [name for name in DAEMONS if shutil.which(name, path=search_path()) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)"
    if os.getuid() != 0:
        return "Slurm's daemons need root"
    if importlib.util.find_spec("submitit") is None:
        return "needs the extra: pip install 'vit_jax[slurm]'"
    return None


@dataclasses.dataclass(frozen=True)
class Cluster:
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """What Slurm's commands need in their environment."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": search_path()}

    def call(self, *command: str) -> str:
        """Output of one of Slurm's commands."""
        found = subprocess.run(
            command,
            env={**os.environ, **self.variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert found.returncode == 0, f"{command}: {found.stdout}{found.stderr}"
        return found.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What `scontrol show job` says, e.g. {'JobState': 'RUNNING', 'Restarts': '0'}."""
        words = self.call("scontrol", "show", "job", "--oneliner", job_id).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def logs(self) -> str:
        paths = [*self.folder.glob("*.log"), *self.folder.glob("munge/*.log")]
        return "\n".join(f"{path.name}:\n{path.read_text()[-3000:]}" for path in paths)


def search_path() -> str:
    """PATH with the folders of daemons, which a user's may lack."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@contextlib.contextmanager
def running(cpus: int = 4) -> Iterator[Cluster]:
    """A Slurm whose node is idle; everything it started is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vit_jax_slurm"))
    folder.chmod(0o755)  # munged wants its socket to be reachable by everybody
    cluster, processes = Cluster(folder), []
    try:
        write_config(folder, cpus)
        for command in (munged(folder), ["slurmctld", "-D", "-i"], ["slurmd", "-D", "-N", host()]):
            processes.append(start(cluster, command))
            wait_until_up(cluster, command[0])
        yield cluster
    finally:
        stop(cluster, processes)
        shutil.rmtree(folder, ignore_errors=True)


def write_config(folder: Path, cpus: int) -> None:
    for name in ("munge", "state", "spool"):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge" / "key"
    key.touch(mode=0o400)
    key.write_bytes(os.urandom(128))
    controller_port, node_port = free_ports(2)
    (folder / "slurm.conf").write_text(
        CONFIG.format(
            folder=folder,
            host=host(),
            cpus=cpus,
            controller_port=controller_port,
            node_port=node_port,
        )
    )


def munged(folder: Path) -> list[str]:
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "munged.log"}
    files["seed-file"] = "seed"
    return [
        "munged",
        "--foreground",
        "--force",  # to run as root, whom packages do not run it as
        *(f"--{option}={folder}/munge/{name}" for option, name in files.items()),
    ]


def start(cluster: Cluster, command: list[str]) -> subprocess.Popen:
    output = (cluster.folder / f"{command[0]}.output.log").open("w")
    return subprocess.Popen(
        command,
        env={**os.environ, **cluster.variables},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until_up(cluster: Cluster, daemon: str, seconds: float = 60) -> None:
    is_up = {
        "munged": lambda: (cluster.folder / "munge" / "socket").exists(),
        "slurmctld": lambda: "UP" in cluster.call("scontrol", "ping"),
        "slurmd": lambda: "idle" in cluster.call("sinfo", "--noheader", "--format=%T"),
    }[daemon]
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(AssertionError):
            if is_up():
                return
        assert time.monotonic() < deadline, f"{daemon} did not come up\n{cluster.logs()}"
        time.sleep(0.2)


def stop(cluster: Cluster, processes: list[subprocess.Popen]) -> None:
    """Jobs first, whose keepers are no children of the daemons; then those, the last one first."""
    with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
        cluster.call("scancel", "--signal=KILL", "--full", "--user=root")
        cluster.call("scancel", "--user=root")
        deadline = time.monotonic() + 20
        while cluster.call("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.2)
    for process in reversed(processes):
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=20)


def host() -> str:
    return socket.gethostname().split(".")[0]


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, all held at once so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
