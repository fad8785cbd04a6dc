"""Digital: contrast, elastic deformation, coarse pixels, JPEG, and colour that is too strong.

Letters: h, w, c = height, width, channels. For the form of all see the top of `__init__.py`.
"""

import io

import numpy as np
from PIL import Image

from vit_jax.data.corruptions.resampling import smooth
from vit_jax.data.images.opencv import opencv


def contrast(image: np.ndarray, rng: np.random.Generator, *, kept: float) -> np.ndarray:
    """The share `kept` of the distance to each channel's mean."""
    del rng
    means = image.mean(axis=(0, 1))
    return (image - means) * kept + means


def saturate(
    image: np.ndarray, rng: np.random.Generator, *, factor: float, added: float
) -> np.ndarray:
    """The S of HSV, 1 - smallest / largest channel, changes; hue and value stay.

    A grey pixel of a colour image has hue 0 and reddens where something is added; a grey image has
    no colour and stays as it is.
    """
    del rng
    if image.shape[2] == 1:
        return image
    value, pale = image.max(axis=2, keepdims=True), image.min(axis=2, keepdims=True)
    spread = value - pale.astype(np.float64)
    old = spread / np.maximum(value, 1)
    new = np.clip(old * factor + added, 0, 1)
    # How far each channel is from the largest, as a share of the farthest.
    share = np.where(spread > 0, (value - image) / np.maximum(spread, 1), np.array([0, 1, 1]))
    return value * (1 - new * share)


def jpeg_compression(image: np.ndarray, rng: np.random.Generator, *, quality: int) -> np.ndarray:
    del rng
    file = io.BytesIO()
    _picture(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def pixelate(image: np.ndarray, rng: np.random.Generator, *, kept: float) -> np.ndarray:
    """Made so much smaller, each pixel a mean, and large again."""
    del rng
    height, width = image.shape[:2]
    small = (max(1, int(width * kept)), max(1, int(height * kept)))
    box = Image.Resampling.BOX
    coarse = _picture(image).resize(small, box).resize((width, height), box)
    return np.asarray(coarse).reshape(image.shape)


def elastic_transform(
    image: np.ndarray, rng: np.random.Generator, *, strength: float, sigma: float, corners: float
) -> np.ndarray:
    """A random affine map, and then a random displacement of each pixel (Simard et al. 2003).

    Of three points around the middle each moves by up to `corners`. Displacements are uniform
    noise, smoothed by a Gaussian of `sigma` and times `strength`. All are shares of the side.
    """
    from scipy import ndimage

    side, pixels = min(image.shape[:2]), image.astype(np.float32)
    pixels = _warped(pixels, rng, reach=corners * side).reshape(image.shape)
    places = np.indices(image.shape[:2]).astype(np.float64)
    right, down = (
        strength * side * smooth(noise, sigma * side, border="reflect", truncate=3)
        for noise in rng.uniform(-1, 1, size=(2, *image.shape[:2]))
    )
    places += np.stack([down, right])
    moved = [
        ndimage.map_coordinates(channel, places, order=1, mode="reflect")
        for channel in np.moveaxis(pixels, 2, 0)
    ]
    return np.stack(moved, axis=2)


def _warped(pixels: np.ndarray, rng: np.random.Generator, *, reach: float) -> np.ndarray:
    cv2, (height, width) = opencv(), pixels.shape[:2]
    middle, arm = np.float32([height // 2, width // 2]), min(height, width) // 3
    before = np.float32([middle + arm, [middle[0] + arm, middle[1] - arm], middle - arm])
    after = before + rng.uniform(-reach, reach, size=before.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(before, after)
    return cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
