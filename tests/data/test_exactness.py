"""The i-th global batch is a function of (config, seed, i): of nothing else, whatever the data.

Each recipe is read on one host without workers and compared, bit for bit, with what 1, 2 and 4
hosts read, by threads or processes, from the start or from the middle.
"""

import numpy as np
import picture_sources
import pytest
from batch_checks import assert_same, joined, take
from PIL import Image

from vit_jax.data import pipeline

STEPS = 6
BATCH = 8
RECIPES = {
    "inception crop": dict(
        dialect="torchvision",
        augment=dict(crop="inception", flip_probability=0.5, erasing=dict(probability=0.5)),
    ),
    "AugReg": dict(
        dialect="big_vision",
        augment=dict(
            crop="inception",
            flip_probability=0.5,
            policy=dict(name="randaugment", num_ops=2, magnitude=15),
        ),
    ),
    "DeiT": dict(
        dialect="timm",
        repeats=3,
        augment=dict(
            crop="inception",
            flip_probability=0.5,
            policy=dict(name="randaugment", magnitude=9, magnitude_std=0.5, increasing=True),
            color_jitter=dict(brightness=0.3, contrast=0.3, saturation=0.3),
            erasing=dict(probability=0.25),
        ),
    ),
    "DINO": dict(
        augment=dict(
            crop="inception",
            flip_probability=0.5,
            multi_crop=dict(local_size=8, num_local=3),
        ),
    ),
    "unshuffled": dict(shuffle=False, augment=dict(crop="shift", padding=2)),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Photographs of several sizes, and another source of the same classes."""
    root = tmp_path_factory.mktemp("exactness")
    rng = np.random.default_rng(0)
    for i in range(21):
        coarse = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
        size = (int(rng.integers(30, 70)), int(rng.integers(30, 70)))
        name = picture_sources.CLASSES[i % 3]
        file = root / "jpeg" / "train" / name / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, quality=90)
    picture_sources.write_folder(root / "png")
    return root


def train_data(folders, recipe, **changed):
    mixture = (
        dict(source=f"folder:{folders}/jpeg", weight=3.0),
        dict(source=f"folder:{folders}/png", weight=1.0),
    )
    settings = dict(source=mixture, batch_size=BATCH, image_size=16, seed=3, num_threads=0)
    return pipeline.build(**{**settings, **RECIPES[recipe], **changed}).train


@pytest.fixture(scope="module")
def expected(folders):
    return {name: take(train_data(folders, name).iterate(), STEPS) for name in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "hosts, first, workers",
    [
        (1, 2, dict(num_threads=2)),
        (1, 0, dict(num_workers=1, num_threads=None)),
        (2, 3, dict(num_workers=2, num_threads=None)),
        (4, 1, dict(num_threads=0)),
        (4, 4, dict(num_threads=3, prefetch=1)),
    ],
    ids=str,
)
def test_hosts_workers_and_restarts_change_nothing(
    folders, expected, recipe, hosts, first, workers
):
    parts = []
    for i in range(hosts):
        data = train_data(folders, recipe, process_index=i, process_count=hosts, **workers)
        parts.append(take(data.iterate(first), STEPS - first))
    for step, global_parts in enumerate(zip(*parts, strict=True), first):
        assert_same(joined(global_parts), expected[recipe][step], fields=None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_batches_differ_by_step_and_seed(folders, expected, recipe):
    images = "global_images" if recipe == "DINO" else "image"
    one, other = expected[recipe][:2]
    assert not np.array_equal(one[images], other[images])
    if recipe != "unshuffled":
        reseeded = train_data(folders, recipe, seed=4)(0)
        assert not np.array_equal(reseeded["index"], one["index"])


def test_mixture_and_repeats_are_as_stated(folders, expected):
    """Three quarters of the rows are from the first source, and DeiT's come in threes."""
    data = train_data(folders, "DeiT")
    index = np.concatenate([data(step)["index"] for step in range(24)])
    assert np.mean(index < 21) == pytest.approx(0.75, abs=0.02)
    assert np.all(index.reshape(-1, 3) == index.reshape(-1, 3)[:, :1])
    images = np.concatenate([batch["image"] for batch in expected["DeiT"]])[:3]
    assert not np.array_equal(images[0], images[1])  # each repeat is augmented anew
