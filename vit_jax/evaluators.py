"""From entries of `config.evals`, and what is like them, to what evaluates."""

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import sections
from vit_jax.analysis import cost
from vit_jax.core import Batch, Outputs, Task, TrainState
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.evaluation import PROTOCOLS
from vit_jax.evaluation.passes import Passes, Rows
from vit_jax.evaluation.protocol import Report, Request
from vit_jax.evaluation.runner import Evaluator, ProtocolEvaluator
from vit_jax.evaluation.throughput import Throughput, ThroughputEvaluator
from vit_jax.learner import Learner, abstract_rows
from vit_jax.tasks.classification import Classification
from vit_jax.train import hosts, sharding
from vit_jax.train.agreement import Votes
from vit_jax.workdir import Workdir, replace_text

T = TypeVar("T")
AnyEvaluator = Evaluator | ProtocolEvaluator | ThroughputEvaluator
Keep = Callable[[str, Report], None]
# Wraps the batches of a split on the devices, e.g. to show how far they are.
Watch = Callable[[pipeline.EvalData, Iterator[Batch]], Iterator[Batch]]

TASK = "task"  # the task's own loss and metrics, in place of a protocol
THROUGHPUT = "throughput"
LONGEST_NAME = 200  # of an evaluation; file systems allow 255 bytes
KINDS: dict[str, Any] = {TASK: None, **PROTOCOLS, THROUGHPUT: Throughput}


def of_run(
    evals: Mapping[str, Mapping[str, Any]],
    learner: Learner,
    data: pipeline.DataSet,
    votes: Votes,
    workdir: str | Path,
) -> list[AnyEvaluator]:
    """All of `config.evals`; tables and pictures of protocols go to WORKDIR/evaluations/NAME."""
    builder = Builder(
        learner,
        data.splits,
        votes,
        batch_size=data.train.batch_size,
        keep=functools.partial(write_report, Workdir.at(workdir).evaluations),
        last_step=learner.num_steps,
    )
    return [builder.build(name, entry) for name, entry in evals.items()]


def measure(
    evaluators: Sequence[AnyEvaluator], state: TrainState, votes: Votes
) -> dict[str, float] | None:
    """What all of them find of a state; None if stopped."""
    results: dict[str, float] = {}
    for evaluator in evaluators:
        found = evaluator.run(state, stop_requested=votes)
        if found is None:
            return None
        results |= found
    return results


class Builder:
    """Builds the evaluators of one model, which share their passes through the data.

    Args:
      splits: what is evaluated on, as the share of this process.
      batch_size: of an entry that has none.
      keep: takes each protocol's report, e.g. to write it to files.
      last_step: of the run, when all are due; None where all are due whenever they are asked.
      watch: see `Watch`.
    """

    def __init__(
        self,
        learner: Learner,
        splits: pipeline.Splits,
        votes: Votes,
        *,
        batch_size: int,
        keep: Keep = lambda name, report: None,
        last_step: int | None = None,
        watch: Watch = lambda data, batches: batches,
    ):
        self._learner, self._splits, self._votes = learner, splits, votes
        self._batch_size, self._keep, self._last_step = batch_size, keep, last_step
        self._watch, self._names = watch, set()
        self.passes = Passes(
            open_data=self.open_data, run=self._run, measured=learner.task.variables
        )
        self._opened: dict[str, pipeline.EvalData] = {}
        self._compiled: dict[tuple[str, ...], Callable[..., Any]] = {}

    def build(
        self, name: str, section: Mapping[str, Any], *, where: str | None = None
    ) -> AnyEvaluator:
        """One entry of `config.evals`; `where` it stands, for messages."""
        where = where or f"config.evals.{name}"
        self._check_name(name, where)
        found = self._build(name, dict(section), where)
        self._names.add(name)
        return found

    def _build(self, name: str, given: dict[str, Any], where: str) -> AnyEvaluator:
        chosen = given.pop("protocol", TASK)
        kind = sections.choose(KINDS, chosen, where=f"{where}.protocol")
        if chosen == TASK:
            return self._task(name, given, where)
        if chosen == THROUGHPUT:
            return self._throughput(name, given, where)
        entry, protocol = split_entry(kind, given, where=where)
        self._check_reads(protocol.reads, f"{where}: {chosen}")
        return ProtocolEvaluator(
            name=name,
            protocol=protocol,
            requests=protocol.requests(entry, self._splits.training_split),
            passes=self.passes,
            every_steps=entry.every_steps,
            last_step=self._last_step,
            keep=self._keep,
        )

    def _check_name(self, name: str, where: str) -> None:
        """Raises `InputError` unless it can be a folder's, and is nobody else's."""
        parts = name.split("/")
        is_folder = name.isprintable() and not set(parts) & {"", ".", ".."} and "\\" not in name
        if not is_folder or len(name.encode()) > LONGEST_NAME:
            raise InputError(
                f"{where}: an evaluation is called {name[:LONGEST_NAME]!r}; allowed: a name, or "
                f"several with '/' between, of {LONGEST_NAME} characters at most."
            )
        if name in self._names:
            raise InputError(
                f"{where}: two evaluations are called {name!r}; allowed: names of their own."
            )

    def _task(self, name: str, given: dict[str, Any], where: str) -> Evaluator:
        entry = sections.call(pipeline.EvalSettings, given, where=where)
        if isinstance(self._learner.task, Classification):
            self._check_reads(("logits",), f"{where}: the task")
        data = self.open_data(Request(settings=entry))
        return Evaluator(
            name=name,
            task=self._learner.task,
            every_steps=entry.every_steps,
            num_examples=data.num_examples,
            abstract_batch=abstract_rows(data.spec, data.batch_size),
            batches=functools.partial(self._batches, data),
            compile=self._learner.compile,
        )

    def _throughput(self, name: str, given: dict[str, Any], where: str) -> ThroughputEvaluator:
        entry, settings = split_entry(Throughput, given, where=where)
        data, learner = self._open(Request(settings=entry)), self._learner
        peak = cost.peak_flops(jax.devices()[0])
        flops = learner.flops_of_prediction() if peak else None
        return ThroughputEvaluator(
            name=name,
            every_steps=entry.every_steps,
            settings=settings,
            batches=functools.partial(learner.device_batches, data, self._votes),
            batch_size=data.batch_size,
            num_examples=data.num_examples,
            forward=learner.compile(functools.partial(predict, learner.task)),
            mfu_of_one=flops / (peak * jax.device_count()) if peak else None,
            keep=self._keep,
        )

    def open_data(self, request: Request) -> pipeline.EvalData:
        """What is requested, as the batches of this process, of no more rows than are needed."""
        data = self._open(request)
        rows = min(data.batch_size, self._learner.round_up(data.num_examples))
        return dataclasses.replace(data, batch_size=rows, transform=request.transform)

    def _open(self, request: Request) -> pipeline.EvalData:
        """A split is opened once."""
        settings = dataclasses.replace(request.settings, every_steps=0)
        key = repr((settings, request.own_classes))
        if key not in self._opened:
            self._opened[key] = self._splits.open(
                settings,
                batch_size=self._learner.round_up(settings.batch_size or self._batch_size),
                own_classes=request.own_classes,
            )
        return self._opened[key]

    def _batches(self, data: pipeline.EvalData) -> Iterator[Batch]:
        return self._watch(data, self._learner.device_batches(data, self._votes))

    def _run(
        self, state: TrainState, data: pipeline.EvalData, reads: tuple[str, ...]
    ) -> Iterator[Rows]:
        """The model's outputs, on every host whole."""
        if reads not in self._compiled:
            self._compiled[reads] = self._learner.compile(self._outputs(reads))
        state = state.replace(opt_state=())  # which need not travel into the compiled call
        for batch in self._batches(data):
            yield jax.tree.map(np.asarray, self._compiled[reads](state, batch))

    def _check_reads(self, reads: Sequence[str], where: str) -> None:
        """Raises `InputError` where the model has no such output."""
        if missing := [name for name in reads if name not in self._gives]:
            raise InputError(
                f"{where} reads {', '.join(missing)}, but this model gives "
                f"{', '.join(self._gives)} alone; allowed: a model "
                f"{'with a head' if 'logits' in missing else 'that does'}, or another protocol."
            )

    @functools.cached_property
    def _gives(self) -> list[str]:
        """Names of the model's outputs. Once: a trace takes a tenth of a second and more."""
        learner = self._learner
        batch = learner.abstract_batch(learner.round_up(1))
        forward = functools.partial(predict, learner.task)
        shapes = jax.eval_shape(forward, learner.abstract_state(), batch)
        return [name for name, shape in shapes.items() if shape is not None]

    def _outputs(self, reads: tuple[str, ...]) -> Callable[[TrainState, Batch], Any]:
        task, everywhere = self._learner.task, sharding.replicated(self._learner.mesh)

        def outputs(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
            found = predict(task, state, batch)
            rows = {name: found[name].astype(jnp.float32) for name in reads}
            names = ("index", "mask", "label", "labels")
            rows |= {name: batch[name] for name in names if name in batch}
            return jax.lax.with_sharding_constraint(rows, everywhere)

        return outputs


def predict(task: Task, state: TrainState, batch: Batch) -> Outputs:
    """With the weights that the task would have measured: averaged ones, a teacher's."""
    return task.predict(task.variables(state), batch, state.rng)


def split_entry(
    kind: Callable[..., T], given: Mapping[str, Any], *, where: str
) -> tuple[pipeline.EvalSettings, T]:
    """An entry's keys, to the one that takes them: every evaluation, or this kind of them."""
    own, common = (
        [field.name for field in dataclasses.fields(one)] for one in (kind, pipeline.EvalSettings)
    )
    fixed: dict[str, Any] = {}
    if getattr(kind, "brings_data", False):
        common, fixed = ["every_steps", "batch_size", "data_dir"], {"split": ""}
    if unknown := [key for key in given if key not in own + common]:
        raise InputError(
            f"{where} has unknown key {', '.join(unknown)}; allowed: {', '.join(own) or 'none'} of "
            f"the protocol's own, and of every evaluation {', '.join(common)}."
        )
    entry = {key: value for key, value in given.items() if key not in own}
    rest = {key: value for key, value in given.items() if key in own}
    settings = sections.call(pipeline.EvalSettings, entry, where=where, **fixed)
    return settings, sections.call(kind, rest, where=where)


def write_report(folder: Path, name: str, report: Report) -> None:
    """FOLDER/NAME/report.json, pictures and files, in place of an earlier step's; steps/ stays."""
    if not hosts.is_first():
        return
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    found = {
        **report.about,
        "metrics": report.metrics,
        "intervals": {name: found._asdict() for name, found in report.intervals.items()},
        "tables": report.tables,
    }
    file = target / "report.json"
    for old in [*target.glob("*.png"), *target.glob("*.npz")] if file.exists() else []:
        old.unlink()
    replace_text(file, json.dumps(plain(found), indent=2, allow_nan=False) + "\n")
    for file, write in (report.pictures | report.files).items():
        write(target / file)
    if report.is_series:
        (target / "steps").mkdir(exist_ok=True)
        for file in report.pictures:
            shutil.copy(target / file, target / "steps" / f"{report.about['step']:07}_{file}")


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as JSON has them: what is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
