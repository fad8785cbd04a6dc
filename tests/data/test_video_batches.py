"""Clips in batches: frames by the sampling's law, one augmentation a clip, every host the same."""

import numpy as np
import pytest
from batch_checks import take
from PIL import Image

from vit_jax.data import pipeline
from vit_jax.errors import InputError

LENGTHS = {"walk": (9, 12, 30), "jump": (15, 8, 21)}
CLIP = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Animations whose frame k is of grey 8 * k, without loss."""
    root = tmp_path_factory.mktemp("videos")
    for name, lengths in LENGTHS.items():
        (root / "train" / name).mkdir(parents=True)
        for i, n in enumerate(lengths):
            frames = [Image.fromarray(np.full((12, 16, 3), 8 * k, np.uint8)) for k in range(n)]
            file = root / "train" / name / f"{i}.gif"
            frames[0].save(file, save_all=True, append_images=frames[1:], optimize=False)
    return root


def data(folder, **changed):
    frames = dict(clip_length=CLIP, law="dense", stride=2)
    settings = dict(source=f"videos:{folder}", batch_size=6, image_size=8, seed=1, frames=frames)
    return pipeline.build(**{**settings, "num_threads": 0, **changed})


def numbers(clips):
    """Which frames these are, b x t."""
    assert np.all(clips == clips[:, :, :1, :1, :1])
    return clips[:, :, 0, 0, 0].astype(int) // 8


def test_clips_of_training_are_random_and_of_their_law(folder):
    train = data(folder).train
    assert train.spec["video"] == ((CLIP, 8, 8, 3), "uint8") and "image" not in train.spec
    starts = set()
    for step in range(20):
        batch = train(step)
        found = numbers(batch["video"])
        lengths = np.array(sum((LENGTHS[c] for c in ("jump", "walk")), ()))[batch["index"]]
        expected = found[:, :1] + 2 * np.arange(CLIP)
        assert np.array_equal(found, expected % lengths[:, None])
        assert batch["label"].tolist() == [int(i >= 3) for i in batch["index"]]
        starts |= set(found[:, 0])
    assert len(starts) > 8


def test_clips_of_evaluation_are_fixed_and_several(folder):
    entry = pipeline.EvalSettings(split="train")
    (one,) = data(folder).evaluation(entry)
    again = next(iter(data(folder, seed=2).evaluation(entry)))
    assert np.array_equal(one["video"], again["video"])
    several = dict(clip_length=CLIP, law="dense", stride=2, num_clips=3)
    (batch,) = data(folder, frames=several).evaluation(entry)
    assert batch["video"].shape == (6, 3 * CLIP, 8, 8, 3)
    assert numbers(batch["video"])[:, :CLIP].tolist() == [[0, 2, 4, 6]] * 6


def test_all_frames_are_augmented_alike(folder):
    augment = dict(crop="inception", flip_probability=0.5, color_jitter=dict(brightness=0.5))
    frames = dict(clip_length=3)
    batch = data(folder, augment=augment, frames=frames).train(0)
    # A jitter of its own for each frame would break the order of the greys.
    assert np.all(np.diff(batch["video"].mean(axis=(2, 3, 4)), axis=1) > 0)


def test_hosts_and_workers_change_nothing(folder):
    augment = dict(crop="inception", flip_probability=0.5)
    whole = data(folder, augment=augment).train
    for hosts, workers in ((1, dict(num_workers=2, num_threads=None)), (2, dict(num_threads=2))):
        parts = []
        for i in range(hosts):
            settings = dict(process_index=i, process_count=hosts, augment=augment, **workers)
            parts.append(take(data(folder, **settings).train.iterate(1), 3))
        for step, of_hosts in enumerate(zip(*parts, strict=True), 1):
            found = np.concatenate([batch["video"] for batch in of_hosts])
            assert np.array_equal(found, whole(step)["video"])


def test_what_is_missing_or_too_much_is_told(folder, tmp_path):
    with pytest.raises(InputError, match="has videos; set data.frames"):
        data(folder, frames=None)
    with pytest.raises(InputError, match="data.frames is set, but an example has no video"):
        data(folder, source="digits").train.spec  # noqa: B018
    with pytest.raises(InputError, match="videos:PATH"):
        data(folder, source=f"videos:{tmp_path}/none")
    with pytest.raises(InputError, match="holds no videos"):
        data(folder, source=f"videos:{tmp_path}")
