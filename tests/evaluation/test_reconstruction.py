"""Reconstructions are scored on masked pixels alone, and drawn for each step."""

import functools
import math

import numpy as np
import pytest
from evaluation_checks import settings
from PIL import Image

from vit_jax.data.examples import Source
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import TEST, SplitOutputs
from vit_jax.evaluation.reconstruction import MOST, Reconstruction
from vit_jax.evaluators import write_report

RNG = np.random.default_rng(0)
SHAPE = (5, 4, 6, 1)
IMAGES = RNG.integers(0, 256, SHAPE, np.uint8)
PAINTED = RNG.normal(0.5, 0.5, SHAPE).astype(np.float32)  # some beyond 0 and 1
MASKED = (RNG.random(SHAPE[:3]) < 0.5).astype(np.float32)


def outputs(painted=PAINTED):
    return SplitOutputs(
        name="test",
        index=np.array([3, 4, 6, 8, 9]),
        reconstruction=painted,
        masked=MASKED,
        num_examples=5,
        class_names=(),
        images=lambda positions: [IMAGES[{3: 0, 4: 1, 6: 2, 8: 3, 9: 4}[i]] for i in positions],
    )


def test_metrics_equal_loops():
    report = Reconstruction().measure({TEST: outputs()})
    errors = []
    for image, painted, masked in zip(IMAGES, PAINTED, MASKED, strict=True):
        own = []
        for i, j in zip(*np.nonzero(masked), strict=True):
            own.append((min(max(painted[i, j, 0], 0), 1) - image[i, j, 0] / 255) ** 2)
        errors.append(sum(own) / len(own))
    assert list(report.metrics) == Reconstruction().metric_names()
    assert report.metrics["mse"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert report.metrics["psnr"] == pytest.approx(10 * math.log10(1 / np.mean(errors)), rel=1e-5)


def test_what_is_visible_does_not_count_and_a_perfect_picture_has_no_error():
    perfect = np.where(MASKED[..., None] > 0, np.float32(IMAGES / 255), 7.0).astype(np.float32)
    metrics = Reconstruction().measure({TEST: outputs(perfect)}).metrics
    assert metrics["mse"] == pytest.approx(0, abs=1e-12) and metrics["psnr"] > 120


def test_more_examples_than_can_be_drawn_are_refused():
    class Many(Source):
        name = "digits:test"

        def __init__(self, length):
            self.length = length

        def __len__(self):
            return self.length

    protocol = Reconstruction()
    protocol.check_sources({TEST: Many(MOST)})
    with pytest.raises(InputError, match=r"digits:test has 65 examples; .* split='test\[:16\]'"):
        protocol.check_sources({TEST: Many(MOST + 1)})
    assert protocol.requests(settings(), "train").keys() == {TEST}


def test_pictures_of_all_steps_stay(tmp_path):
    report = Reconstruction().measure({TEST: outputs()})
    keep = functools.partial(write_report, tmp_path, "pictures")
    for step in (5, 10):
        report.about["step"] = step
        keep(report)
    found = sorted(path.relative_to(tmp_path / "pictures") for path in tmp_path.rglob("*.png"))
    assert list(map(str, found)) == [
        "reconstructions.png",
        "steps/0000005_reconstructions.png",
        "steps/0000010_reconstructions.png",
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_shows_original_mask_and_reconstruction(channels, tmp_path):
    """Side by side: an image of black, with its left half hidden and painted white."""
    from vit_jax.analysis.reconstruction_figures import draw_reconstructions

    images = np.zeros((1, 8, 8, channels), np.uint8)
    masked = np.zeros((1, 8, 8), bool)
    masked[:, :, :4] = True
    painted = np.where(masked[..., None], 255, images).astype(np.uint8)
    draw_reconstructions(images, masked, painted, tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(int)
    row = drawn[round(0.6 * len(drawn))]
    black = np.flatnonzero(row < 20) / len(row)
    grey = np.flatnonzero(abs(row - 128) < 20) / len(row)
    assert len(black) / len(row) == pytest.approx(16 / 26, abs=0.03)  # gaps of 1
    assert grey.min() > 0.3 and grey.max() < 0.55
    assert black.min() < 0.05 and black.max() > 0.95
