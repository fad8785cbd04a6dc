"""Evaluation scores each example once on any number of hosts; unreadable ones are never lost."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from batch_checks import assert_same, joined, take
from PIL import Image

from vit_jax.data import pipeline
from vit_jax.data.examples import UnreadableExample
from vit_jax.errors import InputError


def digits(**changed):
    config = {"source": "digits", "batch_size": 64, "image_size": 8, "seed": 3, "num_threads": 2}
    return pipeline.build(**{**config, "augment": {"crop": "shift", "padding": 2}, **changed})


# evaluation


@pytest.mark.parametrize("hosts", [1, 2, 4])
@pytest.mark.parametrize(
    "n, batch_size", [(7, 8), (8, 8), (9, 8), (1, 4), (360, 100), (360, 512), (1437, 64)]
)
def test_every_example_is_evaluated_once(n, batch_size, hosts):
    split = f"train[:{n}]"
    data = [
        digits(process_index=i, process_count=hosts).evaluation(
            pipeline.EvalSettings(split=split), batch_size=batch_size
        )
        for i in range(hosts)
    ]
    assert {len(d) for d in data} == {-(-n // batch_size)} and data[0].num_examples == n
    read = [list(d) for d in data]
    assert {len(host) for host in read} == {len(data[0])}
    shapes = {batch["image"].shape for host in read for batch in host}
    assert shapes == {(batch_size // hosts, 8, 8, 1)}
    whole = joined([joined(parts) for parts in zip(*read, strict=True)])
    assert whole["mask"].tolist() == [True] * n + [False] * (len(whole["mask"]) - n)
    assert whole["index"][:n].tolist() == list(range(n))
    assert np.all(whole["index"][n:] == -1) and not whole["label"][n:].any()
    assert not whole["image"][n:].any()
    source = data[0].source
    assert whole["label"][:n].tolist() == [source[i]["label"] for i in range(n)]


def test_ten_thousand_in_512s():
    data = digits().evaluation(
        pipeline.EvalSettings(split="train+train+train+train+train+train+train[:1378]"),
        batch_size=512,
    )
    masks = [batch["mask"].sum() for batch in data]
    assert data.num_examples == 10_000 and masks == [512] * 19 + [272]


def test_evaluation_can_be_repeated_and_is_not_augmented():
    data = digits().evaluation(pipeline.EvalSettings(split="test"))
    for one, other in zip(data, data, strict=True):
        assert_same(one, other)
    assert np.array_equal(one["image"][0], data.source[one["index"][0]]["image"])


def test_parts_bound_to_the_training_split_are_not_evaluated_on():
    """Where a part names its split, 'test' would silently be that part's training examples."""
    parts = [{"source": "digits"}, {"source": "digits", "split": "train[:10]"}]
    data = pipeline.build(source=parts, batch_size=4, image_size=8, seed=0)
    with pytest.raises(InputError, match=r"on 'test' .* part 1 is bound to split 'train\[:10\]'"):
        data.evaluation(pipeline.EvalSettings(split="test"))
    assert len(data.evaluation(pipeline.EvalSettings(split="test", source="digits")).source) == 360
    data = pipeline.build(source=parts[:1], batch_size=4, image_size=8, seed=0)
    assert len(data.evaluation(pipeline.EvalSettings(split="test")).source) == 360


# unreadable examples


@pytest.fixture
def damaged(tmp_path):
    """Twelve pictures in two classes, number 4 of which is cut short."""
    noise = np.random.default_rng(0).integers(1, 256, (12, 32, 32, 3), np.uint8)
    for i, image in enumerate(noise):
        path = tmp_path / "train" / ("cat" if i < 6 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    bad = tmp_path / "train" / "cat" / "04.png"
    bad.write_bytes(bad.read_bytes()[:1000])
    return tmp_path, str(bad)


def of_folder(root, **settings):
    return pipeline.build(source=f"folder:{root}", batch_size=4, image_size=16, seed=0, **settings)


@pytest.mark.parametrize("num_workers, num_threads", [(0, 0), (0, 3), (2, 0)])
def test_unreadable_example_stops_with_its_name_and_a_hint(damaged, num_workers, num_threads):
    root, bad = damaged
    data = of_folder(root, num_workers=num_workers, num_threads=num_threads)
    for batches_read in (
        data.train.iterate(),
        iter(data.evaluation(pipeline.EvalSettings(split="train"))),
    ):
        with pytest.raises(UnreadableExample) as caught:
            take(batches_read, 9)
        assert caught.value.place == bad and bad in str(caught.value)
        assert "truncated" in str(caught.value)
        assert "data.skip_bad_examples=True" in str(caught.value)
    with pytest.raises(InputError, match=r"04\.png"):
        for step in range(3):
            data.train(step)


@pytest.mark.parametrize("num_workers, num_threads", [(0, 0), (0, 3), (2, 0)])
def test_skipped_example_is_masked_and_counted_once(damaged, num_workers, num_threads, caplog):
    root, bad = damaged
    data = of_folder(
        root,
        num_workers=num_workers,
        num_threads=num_threads,
        skip_bad_examples=True,
        augment={"crop": "inception"},
    )
    train, evaluated = data.train, data.evaluation(pipeline.EvalSettings(split="train"))
    for rows in (joined(take(train.iterate(), 9)), joined(list(evaluated))):  # 3 epochs and 1
        assert np.array_equal(rows["mask"], rows["index"] != 4)
        skipped = ~rows["mask"]
        assert not rows["image"][skipped].any() and not rows["label"][skipped].any()
        assert rows["image"][~skipped].any(axis=(1, 2, 3)).all()
    for read in (train, evaluated):
        assert list(read.bad_examples) == [bad] and "truncated" in read.bad_examples[bad]
    assert sum(bad in record.message for record in caplog.records) == 2
    strict = dataclasses.replace(evaluated, skip_bad_examples=False)
    with pytest.raises(UnreadableExample):
        list(strict)


def test_channels_come_from_the_first_readable_image(damaged):
    root, bad = damaged
    Path(bad).rename(Path(bad).with_name("00.png"))
    with pytest.raises(UnreadableExample, match=r"00\.png.*data.skip_bad_examples=True"):
        of_folder(root)
    data = of_folder(root, skip_bad_examples=True)
    assert data.preprocessing.channels == 3
    with pytest.raises(InputError, match="no readable image"):
        of_folder(root, skip_bad_examples=True, train="train[:1]")
