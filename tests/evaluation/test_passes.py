"""A split is gone through once for all who read it, and forgotten when nobody waits for it."""

import dataclasses

import numpy as np
import pytest
from toys import empty_state

from vit_jax.data.examples import Source
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import EvalData, EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.passes import Passes, Stopped
from vit_jax.evaluation.protocol import Protocol, Report, Request
from vit_jax.evaluation.runner import ProtocolEvaluator

NEVER = lambda: False  # noqa: E731


class Numbers(Source):
    """Image i is full of i; of two classes."""

    class_names, fields = ("even", "odd"), ("image", "label")

    def __init__(self, name, size, present=None):
        self.name, self.size, self.present = name, size, present

    def __len__(self):
        return self.size

    def read(self, i):
        return {"image": np.full((4, 4, 1), i, np.uint8), "label": i % 2}


class Runs:
    """Passes over `Numbers`, whose model tells the brightness; writes down what it was asked."""

    def __init__(self, size=10, batch_size=4, bad=(), present=None):
        self.size, self.batch_size, self.bad, self.present = size, batch_size, bad, present
        self.opened, self.passes_made = [], []
        self.passes = Passes(open_data=self.open, run=self.run, measured=self.measured)

    def open(self, request):
        self.opened.append(request)
        return EvalData(
            source=Numbers(request.settings.split, self.size, self.present),
            preprocessing=Preprocessing(image_size=(4, 4), channels=1),
            batch_size=request.settings.batch_size or self.batch_size,
            num_workers=0,
            num_threads=0,
        )

    @staticmethod
    def measured(state):
        return state.variables(averaged=True)

    def run(self, state, data, reads):
        self.passes_made.append((data.source.name, reads))
        for batch in data:
            found = {name: batch[name] for name in ("index", "label")}
            found["mask"] = batch["mask"] & ~np.isin(batch["index"], self.bad)
            brightness = batch["image"].reshape(len(batch["index"]), -1).mean(1, keepdims=True)
            yield found | {name: brightness.astype(np.float32) for name in reads}


def request(split="test", **changed):
    return Request(settings=EvalSettings(split=split), **changed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mean(Protocol):
    reads = ("representation",)
    role: str = "test"

    def metric_names(self):
        return ["mean"]

    def measure(self, outputs):
        return Report(metrics={"mean": float(outputs[self.role].representation.mean())})


def evaluator(runs, name="a", requests=None, **settings):
    return ProtocolEvaluator(
        name=name,
        protocol=Mean(),
        requests=requests or {"test": request()},
        passes=runs.passes,
        **settings,
    )


def test_states_of_one_step_with_other_weights_are_not_confused():
    runs = Runs()
    one = evaluator(runs)
    states = [empty_state().replace(params={"w": np.zeros(1)}) for _ in range(2)]
    evaluator(runs, "b")  # who never comes, so that what was made is kept
    for state in (*states, states[1].replace(opt_state=None)):
        one.run(state)
    assert len(runs.passes_made) == 2


def test_only_what_is_measured_tells_states_apart():
    """A teacher that moved on is another model, and a student that nobody looks at is not."""
    runs = Runs()
    runs.passes._measured = lambda state: state.task_state["teacher"]
    one, teachers = evaluator(runs), [{"w": np.zeros(1)} for _ in range(2)]
    evaluator(runs, "b")
    state = empty_state().replace(task_state={"teacher": teachers[0]})
    for seen in (state, state.replace(params={"w": np.zeros(1)})):
        one.run(seen)
    assert len(runs.passes_made) == 1
    one.run(state.replace(task_state={"teacher": teachers[1]}))
    assert len(runs.passes_made) == 2


def test_outputs_that_are_no_numbers_are_refused_for_all_protocols():
    runs = Runs()
    one, run = evaluator(runs), runs.run
    runs.passes._run = lambda *given: (
        rows | {"representation": rows["representation"] * np.nan} for rows in run(*given)
    )
    with pytest.raises(InputError, match="the model's representations of test are not all finite"):
        one.run(empty_state())


@pytest.mark.parametrize("size, batch_size", [(10, 4), (8, 4), (3, 4), (1, 1)])
def test_examples_come_once_and_in_order(size, batch_size):
    runs = Runs(size, batch_size)
    runs.passes.expect(request(), ("representation",))
    found = runs.passes.outputs(empty_state(), request(), stop_requested=NEVER)
    assert found.index.tolist() == list(range(size)) == found.representation[:, 0].tolist()
    assert found.label.tolist() == [i % 2 for i in range(size)]
    assert (found.num_examples, found.class_names) == (size, ("even", "odd"))
    assert found.images([size - 1])[0].max() == size - 1


def test_unreadable_examples_are_left_out_and_their_number_told():
    runs, kept = Runs(bad=(2, 5)), {}
    found = evaluator(runs, keep=kept.__setitem__).run(empty_state(7))
    counts = {"a/scored": 8, "a/examples": 10, "a/unreadable": 2}
    assert found == {"a/mean": np.mean([0, 1, 3, 4, 6, 7, 8, 9]), **counts}
    assert kept["a"].about["step"] == 7
    assert kept["a"].about["splits"]["test"] == {"data": "test", "examples": 10, "unreadable": 2}


def test_nothing_readable_is_told():
    runs = Runs(size=3, bad=(0, 1, 2))
    with pytest.raises(InputError, match="test has no readable example; allowed: at least one"):
        evaluator(runs).run(empty_state())


def test_two_make_one_pass_whatever_their_schedule():
    runs = Runs()
    ours = [evaluator(runs, "a"), evaluator(runs, "b")]
    ours.append(evaluator(runs, "c", {"test": request(own_classes=True)}))
    every = Request(settings=EvalSettings(split="test", every_steps=5))
    ours.append(evaluator(runs, "d", {"test": every}))
    found = [one.run(empty_state()) for one in ours]
    assert len({one[f"{name}/mean"] for one, name in zip(found, "abcd", strict=True)}) == 1
    assert runs.passes_made == [("test", ("representation",))]


def test_other_splits_batches_and_transforms_are_other_passes():
    runs = Runs()
    for one in (
        request("train"),
        request(transform=len),
        Request(settings=EvalSettings(split="test", batch_size=2)),
        request(),
    ):
        runs.passes.expect(one, ("logits",))
        runs.passes.outputs(empty_state(), one, stop_requested=NEVER)
    assert len(runs.passes_made) == 4


def test_all_that_is_read_comes_with_the_first():
    runs = Runs()
    runs.passes.expect(request(), ("logits",))
    runs.passes.expect(request(), ("representation",))
    found = runs.passes.outputs(empty_state(), request(), stop_requested=NEVER)
    assert runs.passes_made == [("test", ("logits", "representation"))]
    assert found.logits is not None and found.representation is not None


def test_new_step_new_pass():
    runs = Runs()
    a, b = evaluator(runs, "a"), evaluator(runs, "b")
    for step in (1, 2):
        a.run(empty_state(step))
        b.run(empty_state(step))
    assert len(runs.passes_made) == 2


def remembered(runs):
    return [split for split in runs.passes._splits.values() if split.kept is not None]


def test_what_nobody_waits_for_is_forgotten():
    runs = Runs()
    settings = dict(last_step=10)
    now, now_too = (evaluator(runs, name, every_steps=5, **settings) for name in "ab")
    at_the_end = evaluator(runs, "c", **settings)
    now.run(empty_state(5))
    assert len(remembered(runs)) == 1
    now_too.run(empty_state(5))
    assert not remembered(runs)  # the third is due at the end only
    now.run(empty_state(10))
    now_too.run(empty_state(10))
    assert len(remembered(runs)) == 1
    at_the_end.run(empty_state(10))
    assert not remembered(runs) and len(runs.passes_made) == 2


def test_what_is_too_large_is_not_kept():
    runs = Runs()
    large = {"test": request(is_kept=False)}
    evaluator(runs, "a", large).run(empty_state())
    evaluator(runs, "b", large).run(empty_state())
    assert len(runs.passes_made) == 2 and not remembered(runs)


@pytest.mark.parametrize("batches", [1, 2])
def test_stop_in_the_middle_of_a_pass_gives_nothing_and_keeps_nothing(batches):
    runs, asked, kept = Runs(), [], {}

    def stop():
        asked.append(True)
        return len(asked) == batches

    assert evaluator(runs, keep=kept.__setitem__).run(empty_state(), stop_requested=stop) is None
    assert len(asked) == batches and not kept and not remembered(runs)
    with pytest.raises(Stopped):
        runs.passes.outputs(empty_state(), request(), stop_requested=lambda: True)
    assert evaluator(runs).run(empty_state())["a/scored"] == 10


def test_a_protocol_that_reads_another_split_alone_still_tells_what_was_scored():
    runs = Runs()
    requests = {"test": request(), "train": request("train")}
    one = dataclasses.replace(evaluator(runs, requests=requests), protocol=Mean(role="train"))
    assert one.run(empty_state())["a/examples"] == 10


def test_present_classes_are_passed_on():
    runs = Runs(present=(1,))
    runs.passes.expect(request(), ())
    assert runs.passes.outputs(empty_state(), request(), stop_requested=NEVER).present == (1,)
