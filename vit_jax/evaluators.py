"""From entries of `config.evals`, or of the command `evaluate`, to what evaluates."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import sections
from vit_jax.core import Batch, TrainState
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.evaluation import PROTOCOLS
from vit_jax.evaluation.passes import Passes, Rows
from vit_jax.evaluation.protocol import Protocol, Report, Request
from vit_jax.evaluation.runner import Evaluator, ProtocolEvaluator
from vit_jax.learner import Learner
from vit_jax.train import hosts, sharding
from vit_jax.train.agreement import Votes
from vit_jax.workdir import Workdir, write_json

AnyEvaluator = Evaluator | ProtocolEvaluator
TASK = "task"  # the task's own loss and metrics, in place of a protocol


def of_run(
    entries: Mapping[str, Mapping[str, Any]],
    learner: Learner,
    data: pipeline.DataSet,
    votes: Votes,
    workdir: str | Path,
) -> list[AnyEvaluator]:
    """All of `config.evals`; tables and pictures of protocols go to WORKDIR/evaluations/NAME."""
    keep = functools.partial(write_report, Workdir.at(workdir).evaluations)
    builder = Builder(learner, data.splits, votes, batch_size=data.train.batch_size, keep=keep)
    return [builder.build(name, entry) for name, entry in entries.items()]


def write_report(folder: Path, name: str, report: Report) -> None:
    """FOLDER/NAME/report.json and pictures, in place of those of an earlier step."""
    if not hosts.is_first():
        return
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    found = {
        "metrics": report.metrics,
        "intervals": {name: found._asdict() for name, found in report.intervals.items()},
        "tables": report.tables,
    }
    write_json(target / "report.json", found)
    for picture, draw in report.pictures.items():
        draw(target / picture)


class Builder:
    """Builds the evaluators of one model, which share their passes through the data.

    Args:
      splits: what is evaluated on, as the share of this process.
      batch_size: of an entry that has none.
      keep: takes each protocol's report, e.g. to write it to files.
    """

    def __init__(
        self,
        learner: Learner,
        splits: pipeline.Splits,
        votes: Votes,
        *,
        batch_size: int,
        keep: Callable[[str, Report], None] = lambda name, report: None,
    ):
        self._learner, self._splits, self._votes = learner, splits, votes
        self._batch_size, self._keep = batch_size, keep
        self.passes = Passes(open_data=self.open_data, run=self._run)
        self._compiled: dict[tuple[str, ...], Callable[..., Any]] = {}
        self._opened: dict[str, pipeline.EvalData] = {}

    def build(self, name: str, section: Mapping[str, Any]) -> AnyEvaluator:
        """One entry of `config.evals`."""
        where, given = f"config.evals.{name}", dict(section)
        chosen = given.pop("protocol", TASK)
        if chosen == TASK:
            entry = sections.call(pipeline.EvalSettings, given, where=where)
            data = self.open_data(Request(settings=entry))
            return self._learner.evaluator(name, data, self._votes, every_steps=entry.every_steps)
        kind = sections.choose({TASK: None, **PROTOCOLS}, chosen, where=f"{where}.protocol")
        entry, protocol = split_entry(kind, given, where=where)
        return ProtocolEvaluator(
            name=name,
            protocol=protocol,
            requests=protocol.requests(entry, self._splits.training_split),
            passes=self.passes,
            every_steps=entry.every_steps,
            keep=self._keep,
        )

    def open_data(self, request: Request) -> pipeline.EvalData:
        """What is requested, as the batches of this process; a split is opened once."""
        settings = dataclasses.replace(request.settings, every_steps=0)
        key = repr((settings, request.own_classes))
        if key not in self._opened:
            self._opened[key] = self._splits.open(
                settings,
                batch_size=self._learner.round_up(settings.batch_size or self._batch_size),
                own_classes=request.own_classes,
            )
        return dataclasses.replace(self._opened[key], transform=request.transform)

    def _run(
        self, state: TrainState, data: pipeline.EvalData, reads: tuple[str, ...]
    ) -> Iterator[Rows]:
        """The model's outputs, on every host whole."""
        if reads not in self._compiled:
            self._compiled[reads] = self._learner.compile(self._outputs(reads))
        state = state.replace(opt_state=())  # which need not travel into the compiled call
        for batch in self._learner.device_batches(data, self._votes):
            yield jax.tree.map(np.asarray, self._compiled[reads](state, batch))

    def _outputs(self, reads: tuple[str, ...]) -> Callable[[TrainState, Batch], Any]:
        task, everywhere = self._learner.task, sharding.replicated(self._learner.mesh)

        def outputs(state: TrainState, batch: Batch) -> dict[str, jax.Array]:
            found = task.predict(state.variables(averaged=True), batch, state.rng)
            if missing := [name for name in reads if found.get(name) is None]:
                raise InputError(
                    f"an evaluation reads {missing[0]}, but {type(task).__name__} gives "
                    f"{', '.join(n for n in found if found[n] is not None)}; allowed: protocols "
                    "that read these."
                )
            rows = {name: found[name].astype(jnp.float32) for name in reads}
            names = ("index", "mask", "label", "labels")
            rows |= {name: batch[name] for name in names if name in batch}
            return jax.lax.with_sharding_constraint(rows, everywhere)

        return outputs


def split_entry(
    kind: type[Protocol], given: Mapping[str, Any], *, where: str
) -> tuple[pipeline.EvalSettings, Protocol]:
    """An entry's keys, to the one that takes them."""
    own = [field.name for field in dataclasses.fields(kind)]
    common = [field.name for field in dataclasses.fields(pipeline.EvalSettings)]
    fixed = {}
    if kind.brings_data:
        common, fixed = ["every_steps", "batch_size", "data_dir"], {"split": "test"}
    if unknown := [key for key in given if key not in own + common]:
        raise InputError(
            f"{where} has unknown key {', '.join(unknown)}; allowed: {', '.join(own + common)}."
        )
    entry = {key: value for key, value in given.items() if key not in own}
    rest = {key: value for key, value in given.items() if key in own}
    settings = sections.call(pipeline.EvalSettings, entry, where=where, **fixed)
    return settings, sections.call(kind, rest, where=where)
