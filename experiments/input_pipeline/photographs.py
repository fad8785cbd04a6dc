"""2,000 JPEGs like ImageNet's: about 500 × 375 pixels and 110 KB, the same on every machine.

Made of the two photographs that scikit-learn carries: random cuts of them, resized, with grain,
so that they compress like photographs. A quarter stand upright.
"""

import io
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 2000
SIDES = (375, 500)  # pixels; the most frequent size of ImageNet's images
MEAN_BYTES = 110_000  # ImageNet's train archives: 138 GB for 1,281,167 images
GRAIN = 6.0  # standard deviation in levels of 255
MIN_CUT = 0.6  # of SIDES; enlarged at most 1 / 0.6 times, or the JPEGs would be too smooth
CLASSES = 10
SAMPLED = 40  # images by which the quality is chosen


def write(folder: Path, *, count: int = COUNT, seed: int = 0) -> int:
    """Fills folder/train/CLASS/NUMBER.jpg unless it is done; returns their mean size in bytes."""
    done = folder / f"done-{count}-{seed}"
    if not done.exists():
        sources = _sources()
        quality = _quality(sources, seed)
        for k in range(count):
            file = folder / "train" / str(k % CLASSES) / f"{k:05d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_encode(_photograph(sources, seed, k), quality))
        done.write_text(f"quality {quality}\n")
    sizes = [file.stat().st_size for file in paths(folder)]
    return round(sum(sizes) / len(sizes))


def paths(folder: Path) -> list[Path]:
    return sorted((folder / "train").glob("*/*.jpg"))


def _sources() -> list[np.ndarray]:
    from sklearn.datasets import load_sample_images

    return load_sample_images().images


def _photograph(sources: list[np.ndarray], seed: int, k: int) -> np.ndarray:
    rng = np.random.default_rng((seed, k))
    source = sources[k % len(sources)]
    height, width = SIDES if rng.random() < 0.75 else SIDES[::-1]
    scale = rng.uniform(MIN_CUT, 1) * min(source.shape[0] / height, source.shape[1] / width, 1)
    rows, columns = int(height * scale), int(width * scale)
    top = rng.integers(source.shape[0] - rows + 1)
    left = rng.integers(source.shape[1] - columns + 1)
    part = Image.fromarray(source[top : top + rows, left : left + columns])
    pixels = np.asarray(part.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    pixels = pixels + rng.normal(0, GRAIN, (height, width, 1))
    return np.uint8(np.clip(pixels + 0.5, 0, 255))


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return file.getvalue()


def _quality(sources: list[np.ndarray], seed: int) -> int:
    sample = [_photograph(sources, seed, k) for k in range(SAMPLED)]

    def distance(quality: int) -> float:
        encode = partial(_encode, quality=quality)
        return abs(sum(len(encode(p)) for p in sample) / len(sample) - MEAN_BYTES)

    return min(range(85, 99), key=distance)
