"""This project as a peer: the training step that `vit-jax train` runs, and the model's logits."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from cases import CLASSES, GATE_ROWS, LEARNING_RATE, MEAN, STD, WEIGHT_DECAY, Case, random_batch

# An option is the model's setting, unless it is one of these.
TRAIN_OPTIONS = ("accum_steps",)
OPTIMIZER_OPTIONS = ("moment_dtype",)
NUM_STEPS = 10**6


class Ours:
    """vit_jax; `options` are settings of its model, `accum_steps`, `moment_dtype`, `xla_flags`."""

    def __init__(self, case: Case, options: dict[str, Any]):
        options = {k: v for k, v in options.items() if k != "xla_flags"}  # the process has them
        import jax
        import jax.numpy as jnp

        from vit_jax import weights

        self.case, self.jax = case, jax
        train = {name: options.pop(name) for name in TRAIN_OPTIONS if name in options}
        update = {name: options.pop(name) for name in OPTIMIZER_OPTIONS if name in options}
        self.learner = learner(case, options, train, update)
        self.model = self.learner.task.model
        found = weights.load(Path(case.weights) / "timm", image_size=case.image_size)
        self.variables = found.variables
        image, label = random_batch(case)
        batch = dict(image=image, label=label.astype(np.int32), mask=np.ones(case.batch, bool))
        self.batch = jax.device_put(jax.tree.map(jnp.asarray, batch))
        if case.work == "train":
            self._compile_train()
        else:
            self._compile_infer()

    def _compile_train(self):
        self.state = self.learner.init_state(self.variables)
        step = self.learner.compile_step(self.case.batch)
        self.compile_seconds = step.seconds

        def run():
            self.state, self.metrics = step.call(self.state, self.batch)

        self._run = run

    def _compile_infer(self):
        import jax.numpy as jnp

        dtype = jnp.dtype(self.case.dtype)
        variables = self.jax.tree.map(lambda x: jnp.asarray(x, dtype), self.variables)
        normalise = self.learner.task.normalise
        function = self.jax.jit(lambda v, image: self.model.apply(v, normalise(image)).logits)
        begin = time.perf_counter()
        compiled = function.lower(variables, self.batch["image"]).compile()
        self.compile_seconds = time.perf_counter() - begin

        def run():
            self.logits = compiled(variables, self.batch["image"])

        self._run = run

    def gate(self, steps: int) -> dict[str, Any]:
        """What is compared with the others: losses of the first steps, or logits."""
        if self.case.work != "train":
            self.run(1)
            return dict(logits=np.asarray(self.logits[:GATE_ROWS], np.float32).tolist())
        losses = []
        for _ in range(steps):
            self.run(1)
            losses.append(float(self.metrics["loss"].compute()))
        return dict(losses=losses)

    def run(self, steps: int):
        for _ in range(steps):
            self._run()
        self.jax.block_until_ready(self.state if self.case.work == "train" else self.logits)

    def memory(self) -> float | None:
        """Peak bytes on the device; None on a CPU, where the process is asked."""
        stats = self.jax.devices()[0].memory_stats() if self.case.device == "gpu" else None
        return stats and stats["peak_bytes_in_use"]

    def about(self) -> dict[str, Any]:
        return dict(device=self.jax.devices()[0].device_kind, compile=self.compile_seconds)


def learner(case: Case, options: dict, train: dict, update: dict):
    """The project's own `Learner`, with AdamW as the others have it: all parameters decay."""
    from vit_jax.data.images.preprocessing import Preprocessing
    from vit_jax.learner import Info, Learner, TrainSettings
    from vit_jax.tasks import classification
    from vit_jax.train import optimizer, sharding

    side = case.image_size
    rows = dict(image=((side, side, 3), "uint8"), label=((), "int32"), mask=((), "bool"))
    info = Info(
        class_names=tuple(map(str, range(CLASSES))),
        preprocessing=Preprocessing(image_size=(side, side), channels=3, mean=(MEAN,), std=(STD,)),
        num_examples=1,
        num_steps=NUM_STEPS,
        batch=rows,
    )
    model = dict(size=case.size, patch_size=case.patch_size, activation="gelu", dtype=case.dtype)
    return Learner(
        info=info,
        mesh=sharding.make_mesh(),
        task=classification.build(model={**model, **options}, info=info),
        optimizer=optimizer.build(
            num_steps=NUM_STEPS,
            learning_rate=LEARNING_RATE,
            schedule="constant",
            weight_decay=WEIGHT_DECAY,
            decay_patterns=((".*", True),),
            **update,
        ),
        settings=TrainSettings(num_steps=NUM_STEPS, **train),
    )


def write_weights(case: Case) -> None:
    """Random weights, none of them zero, as timm and as Hugging Face want them."""
    import jax

    from vit_jax import weights

    made = learner(case, {}, {}, {})
    params = dict(jax.jit(made._init)().params)
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: np.asarray(x) + random.normal(scale=0.02, size=x.shape).astype(np.float32), params
    )
    for layout, architecture in (("timm", case.architecture), ("huggingface", None)):
        weights.save(
            Path(case.weights) / layout,
            made.task.model,
            {"params": params},
            layout=layout,
            preprocessing=made.info.preprocessing,
            architecture=architecture,
        )


def flops(case: Case) -> int:
    """Of the model for an image, a multiply-add as two; recomputation is not counted."""
    from vit_jax.analysis import cost

    made = learner(case, {}, {}, {})
    trained = made.flops_per_example()
    return trained if case.work == "train" else trained // cost.TRAINING_FACTOR
