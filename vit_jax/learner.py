"""Everything that is trained, put together but still without arrays: shapes, places, the step.

Letters: h, w, c pixels and channels; k classes.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from vit_jax import sections
from vit_jax.analysis import cost
from vit_jax.core import StepFn, Task, TrainState, Tree, Variables
from vit_jax.data import pipeline
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.evaluation.runner import Evaluator
from vit_jax.train import (
    activations,
    compiling,
    determinism,
    optimizer,
    patterns,
    placement,
    sharding,
    step,
)
from vit_jax.train.agreement import Votes

# The least batch that a loss can be traced for: mixing takes no odd number.
PAIR = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """`config.train`.

    Attributes:
      num_steps, num_epochs: the run's length; exactly one of them.
      seed: of the parameters, the data order and everything else.
      accum_steps: microbatches of a step.
      ema_decay: of the averaged weights that evaluations then use; None for none. Refused for a
        task that moves a teacher of its own, which they use instead.
      log_every, checkpoint_every: steps; 0 checkpoints at the end only.
      keep_last, keep_best: see `Checkpointer`.
      deterministic: the same bits from the same seed on GPUs, too; see `train.determinism`.
      profile_steps: (first, last) step of a trace, counted from 1; see `train.profiling`.
      wandb_project: also logs to Weights & Biases.
    """

    num_steps: int | None = None
    num_epochs: float | None = None
    seed: int = 0
    accum_steps: int = 1
    ema_decay: float | None = None
    log_every: int = 50
    checkpoint_every: int = 0
    keep_last: int = 2
    keep_best: str | None = None
    deterministic: bool = False
    profile_steps: tuple[int, int] | None = None
    wandb_project: str | None = None

    def __post_init__(self):
        if (self.num_steps is None) == (self.num_epochs is None):
            raise InputError(
                f"config.train has num_steps={self.num_steps} and num_epochs={self.num_epochs}; "
                "allowed: exactly one of them."
            )
        sections.check_ranges(
            "config.train",
            num_steps=(self.num_steps, 1, math.inf),
            num_epochs=(self.num_epochs, sections.TINY, math.inf),
            accum_steps=(self.accum_steps, 1, math.inf),
            log_every=(self.log_every, 1, math.inf),
            keep_last=(self.keep_last, 1, math.inf),
            checkpoint_every=(self.checkpoint_every, 0, math.inf),
            ema_decay=(self.ema_decay, 0, 1),
        )

    def steps(self, *, num_examples: int, batch_size: int) -> int:
        if self.num_steps is not None:
            return self.num_steps
        return max(1, round(self.num_epochs * num_examples / batch_size))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Info:
    """What tasks, and whoever reads a checkpoint, need to know of the data and the run's length."""

    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    num_examples: int  # of the training split
    batch: Mapping[str, tuple[tuple[int, ...], str]]  # name -> shape of one row, dtype
    batch_size: int = 1  # of the training, over all hosts
    num_steps: int = 1  # of the whole run; the data does not know it

    @classmethod
    def of(cls, data: pipeline.DataSet) -> "Info":
        return cls(
            class_names=data.class_names,
            preprocessing=data.preprocessing,
            num_examples=data.train.num_examples,
            batch=data.train.spec,
            batch_size=data.train.batch_size,
        )

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Info":
        return cls(
            class_names=tuple(stored["class_names"]),
            preprocessing=Preprocessing.from_dict(stored["preprocessing"]),
            num_examples=stored["num_examples"],
            batch={name: (tuple(shape), dtype) for name, (shape, dtype) in stored["batch"].items()},
            # Earlier cards have none, but the whole config.
            batch_size=stored.get("batch_size") or stored["config"]["data"]["batch_size"],
            num_steps=stored["num_steps"],
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_dict(),
            "num_examples": self.num_examples,
            "batch": {name: [list(shape), dtype] for name, (shape, dtype) in self.batch.items()},
            "batch_size": self.batch_size,
            "num_steps": self.num_steps,
        }

    def empty_batch(self, size: int = 1) -> dict[str, np.ndarray]:
        return {
            name: np.zeros((size, *shape), dtype) for name, (shape, dtype) in self.batch.items()
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """Everything that is trained, without its arrays and without the data."""

    info: Info
    mesh: Mesh | AbstractMesh
    task: Task
    optimizer: optimizer.Optimizer
    settings: TrainSettings
    rules: patterns.Rules = sharding.TENSOR_RULES  # of where the mesh splits the state

    @property
    def num_steps(self) -> int:
        return self.info.num_steps

    def model_variables(self, state: TrainState) -> Variables:
        """Those of `task.model`, which is the task's network or a part of it."""
        variables = self.task.variables(state)
        for key in self.task.model_path:
            # Of what has no parameters (a batch norm's statistics) a part may have none, either.
            variables = {name: tree.get(key, {}) for name, tree in variables.items()}
        return variables

    def weights_path(self) -> str:
        """Where in a state the parameters are that `task.variables` tells: 'task_state/teacher'."""
        names = jax.tree_util.tree_map_with_path(
            lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"),
            self.abstract_state(),
        )
        params = self.task.variables(names)["params"]
        path, name = jax.tree_util.tree_leaves_with_path(params)[0]
        below = jax.tree_util.keystr(path, simple=True, separator="/")
        return name.removesuffix(f"/{below}")

    def abstract_state(self) -> TrainState:
        """The state's shapes, types and places; refuses a mesh or rules without effect."""
        return self._abstract_state

    @functools.cached_property
    def _abstract_state(self) -> TrainState:
        # Once: each run asks some ten times, and a trace takes a tenth of a second and more.
        shapes = jax.eval_shape(self._init)
        placement.check(shapes.params, self.mesh, self.rules)
        places = sharding.state_sharding(shapes, self.mesh, self.rules)
        return jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, places
        )

    def abstract_batch(self, size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and types of a global batch."""
        return abstract_rows(self.info.batch, size)

    def check(self, batch_size: int, evaluators: Sequence[Evaluator]) -> None:
        """Traces the step and the metrics, so that mistakes come to light before anything begins.

        Raises:
          InputError: what the task has to say of its settings; or if `train.keep_best` is no
            metric, or one that not every checkpoint has; or if the run has not the steps that
            `train.profile_steps` names; or if nobody reads the average of `train.ema_decay`.
        """
        self._check_profile()
        self._check_average()
        state, batch = self.abstract_state(), self.abstract_batch(batch_size)
        jax.eval_shape(self._step(), state, batch)
        every = {f"{e.name}/{n}": e.every_steps for e in evaluators for n in e.metric_names(state)}
        if (metric := self.settings.keep_best) is None:
            return
        every_eval = sections.choose(every, metric, where="config.train.keep_best")
        every_save = self.settings.checkpoint_every
        if not every_eval or not every_save or every_save % every_eval:
            raise InputError(
                f"config.train.keep_best is {metric!r}, which is measured every {every_eval} steps "
                f"(0: at the end only), while checkpoint_every is {every_save}; allowed: a "
                "checkpoint_every that is a multiple of that evaluation's every_steps."
            )

    def new_variables(self) -> Variables:
        """The task's, as a state has them that is given none."""
        init_key, _ = jax.random.split(jax.random.key(self.settings.seed))
        return self.task.init(init_key, jax.tree.map(jnp.asarray, self.info.empty_batch()))

    def init_state(
        self, variables: Variables | None = None, task_state: Tree | None = None
    ) -> TrainState:
        """A new state; with these variables and arrays of the task in place of new ones."""
        places = jax.tree.map(lambda x: x.sharding, self.abstract_state())
        init = jax.jit(self._init, out_shardings=places, compiler_options=self.compiler_options())
        return init(variables, task_state)

    def step_fn(self) -> Any:
        """The jitted training step; it takes over the state it is given."""
        state = jax.tree.map(lambda x: x.sharding, self.abstract_state())
        return jax.jit(
            self._step(),
            in_shardings=(state, sharding.batch_sharding(self.mesh)),
            out_shardings=(state, sharding.replicated(self.mesh)),
            donate_argnums=0,
            compiler_options=self.compiler_options(),
        )

    def compile_step(self, batch_size: int) -> compiling.CompiledStep:
        """The same, compiled for global batches of this size."""
        batch = self.abstract_batch(batch_size)
        return compiling.compile_step(self.step_fn(), self.abstract_state(), batch)

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`jax.jit`, as every program of a run is compiled."""
        return jax.jit(self._placed(function), compiler_options=self.compiler_options())

    def compiler_options(self) -> dict[str, Any]:
        is_real = isinstance(self.mesh, Mesh)
        platform = self.mesh.devices.flat[0].platform if is_real else jax.default_backend()
        return determinism.compiler_options(
            deterministic=self.settings.deterministic, platform=platform
        )

    def round_up(self, batch_size: int) -> int:
        """The next batch size that the devices can share; evaluation pads and masks the rest."""
        shards = sharding.num_batch_shards(self.mesh)
        return -(-batch_size // shards) * shards

    def device_batches(
        self, data: pipeline.EvalData, votes: Votes
    ) -> Iterator[dict[str, jax.Array]]:
        """Every batch of a split, on the devices."""
        rows = votes.guard(data, data.padding(), number=len(data))
        return sharding.to_devices(rows, self.mesh)

    def probabilities(
        self, state: TrainState, images: Iterable[tuple[Any, np.ndarray]], batch_size: int
    ) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        """(key, uint8[h, w, c]) pairs -> (key, the image, f32[k] class probabilities)."""
        size, images = self.round_up(batch_size), iter(images)
        variables = self.task.variables(state)
        predict = functools.partial(self.task.predict, rng=state.rng)
        found = jax.eval_shape(predict, variables, self.abstract_batch(size))
        if "probabilities" not in found:
            raise InputError(
                f"a {type(self.task).__name__} tells {', '.join(sorted(found))} of an image; "
                "allowed: a task that tells probabilities of classes, e.g. classification."
            )
        predict = self.compile(predict)
        while rows := list(itertools.islice(images, size)):
            batch = self.info.empty_batch(size)
            batch["image"][: len(rows)] = [image for _, image in rows]
            (batch,) = sharding.to_devices([batch], self.mesh)
            found = np.asarray(predict(variables, batch)["probabilities"])
            for (key, image), probabilities in zip(rows, found, strict=False):
                yield key, image, probabilities

    def flops_per_example(self) -> int:
        """Of a training step, forward and backward."""
        return self._flops.training // PAIR

    def forward_flops_per_example(self) -> int:
        """Of that step's loss alone, all networks and views that it has together."""
        return self._flops.forward // PAIR

    @functools.cached_property
    def _flops(self) -> cost.Flops:
        def loss(params, state, batch):
            return self.task.loss(params, state, batch, jax.random.key(0), train=True)

        state = self.abstract_state()
        return cost.count_training(loss, state.params, state, self.info.empty_batch(PAIR))

    def flops_of_prediction(self) -> int:
        """Of all that `predict` makes of an example."""
        variables = self.task.variables(self.abstract_state())
        predict = functools.partial(self.task.predict, rng=jax.random.key(0))
        return cost.count_flops(predict, variables, self.info.empty_batch())

    def _check_profile(self) -> None:
        first, last = self.settings.profile_steps or (1, self.num_steps)
        if not 1 <= first <= last <= self.num_steps:
            raise InputError(
                f"config.train.profile_steps is {self.settings.profile_steps}; allowed: a first "
                f"and a last step with 1 <= first <= last <= {self.num_steps}, the run's last."
            )

    def _check_average(self) -> None:
        decay, read = self.settings.ema_decay, self.weights_path()
        if decay is not None and read != "ema_params":
            raise InputError(
                f"config.train.ema_decay is {decay}, but what is measured and exported is the "
                f"state's {read}; allowed with a {type(self.task).__name__} task: None."
            )

    def _step(self) -> StepFn:
        train_step = step.make_train_step(
            self.task,
            self.optimizer.transform,
            accum_steps=self.settings.accum_steps,
            ema_decay=self.settings.ema_decay,
        )
        return self._placed(train_step)

    def _placed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return activations.keep_examples(function, self.mesh)

    def _init(
        self, variables: Variables | None = None, task_state: Tree | None = None
    ) -> TrainState:
        _, train_key = jax.random.split(jax.random.key(self.settings.seed))
        variables = dict(variables or self.new_variables())
        params = variables.pop("params")
        if task_state is None:
            task_state = self.task.init_task_state(params)
        keeps_average = self.settings.ema_decay is not None
        return TrainState(
            step=jnp.int32(0),
            rng=train_key,
            params=params,
            opt_state=self.optimizer.transform.init(params),
            model_state=variables,
            task_state=task_state,
            # A copy, since the step donates the state and may not be given one buffer twice.
            ema_params=jax.tree.map(jnp.copy, params) if keeps_average else None,
        )


def abstract_rows(
    spec: Mapping[str, tuple[tuple[int, ...], str]], size: int
) -> dict[str, jax.ShapeDtypeStruct]:
    return {
        name: jax.ShapeDtypeStruct((size, *shape), dtype) for name, (shape, dtype) in spec.items()
    }
