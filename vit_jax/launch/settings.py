"""`config.launch`: which machines a run wants, and for how long.

The names are those of Slurm's `sbatch`, https://slurm.schedmd.com/sbatch.html, where it has one. A
task is a process; several tasks are one training by `jax.distributed`.
"""

import dataclasses
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import sections
from vit_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchSettings:
    """`config.launch`.

    Attributes:
      nodes: machines; 1 for the local launcher.
      tasks_per_node: processes of each machine.
      gpus_per_node: GPUs of each machine, which its tasks share evenly; 0 for none.
      cpus_per_task: processors of each task; None for what the cluster gives.
      memory: of each machine, as Slurm writes it: '64G'; None for what the cluster gives.
      hours: the time limit; a run that takes longer is requeued.
      partition, account, qos, constraint: where and on whose account; None for the cluster's own.
      job_name: None for the name of the workdir.
      sbatch: further options of sbatch, {'exclusive': True, 'mail-type': 'END'}; they win.
      setup: lines of the job script before the training: ('module load cuda',).
      srun: further options of srun: ('--container-image=nvcr.io#nvidia/jax:latest',).
      prefix: what stands before the interpreter: 'apptainer exec --nv jax.sif'.
      python: the interpreter, by the name it has in the container; None for this one.
      save_seconds: how long before the time limit a run is asked to save and leave. Slurm may ask
        up to a minute earlier.
      max_requeues: how often a job may begin again, whatever the reason, until it is given up.
      max_parallel: jobs of an array that may run at once; None for all.
      cpu_devices_per_task: virtual CPU devices of each task of the local launcher, to try meshes
        without accelerators; None for JAX's own choice.
    """

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int | None = None
    memory: str | None = None
    hours: float = 1.0
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    job_name: str | None = None
    sbatch: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    setup: Sequence[str] = ()
    srun: Sequence[str] = ()
    prefix: str | None = None
    python: str | None = None
    save_seconds: int = 120
    max_requeues: int = 20
    max_parallel: int | None = None
    cpu_devices_per_task: int | None = None

    def __post_init__(self):
        sections.check_ranges(
            "config.launch",
            nodes=(self.nodes, 1, math.inf),
            tasks_per_node=(self.tasks_per_node, 1, math.inf),
            gpus_per_node=(self.gpus_per_node, 0, math.inf),
            cpus_per_task=(self.cpus_per_task, 1, math.inf),
            hours=(self.hours, sections.TINY, math.inf),
            save_seconds=(self.save_seconds, 1, 65536),  # 16 bits in Slurm
            max_requeues=(self.max_requeues, 0, math.inf),
            max_parallel=(self.max_parallel, 1, math.inf),
            cpu_devices_per_task=(self.cpu_devices_per_task, 1, math.inf),
        )
        self._check_lines()
        if self.gpus_per_node % self.tasks_per_node:
            raise InputError(
                f"config.launch.gpus_per_node is {self.gpus_per_node}, which "
                f"{self.tasks_per_node} tasks cannot share evenly; allowed: a multiple of "
                "config.launch.tasks_per_node, or 0."
            )
        if self.save_seconds >= 60 * self.minutes:
            raise InputError(
                f"config.launch.save_seconds is {self.save_seconds}; allowed: less than the time "
                f"limit, {60 * self.minutes} seconds (config.launch.hours={self.hours})."
            )

    def _check_lines(self) -> None:
        """Each of these is part of one line of a script."""
        texts = {name: value for name, value in vars(self).items() if isinstance(value, str)}
        texts |= {f"sbatch.{name}": f"{name}{value}" for name, value in self.sbatch.items()}
        texts |= {f"srun[{i}]": value for i, value in enumerate(self.srun)}
        for name, text in texts.items():
            if len(text.splitlines()) > 1:
                raise InputError(f"config.launch.{name} is {text!r}; allowed: a single line.")

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, Slurm's unit."""
        return math.ceil(60 * self.hours)

    @property
    def interpreter(self) -> str:
        """Python as the job script starts it."""
        python = self.python or shlex.quote(sys.executable)
        return f"{self.prefix} {python}" if self.prefix else python
