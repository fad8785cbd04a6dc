"""Matrices of the geometric operations: from x, y, 1 of the result to x, y of the input.

Each is `f(amount, size) -> f64[2,3]`, for the coordinates of its library (see `warp.py`).
torchvision states shears as angles and timm as tangents, which differ by rounding alone; that
may move an edge pixel, so torchvision's way through the angle is kept.

    shear      amount is dx / dy, the corner (0, 0) stays
    translate  amount in pixels; the content moves left or up where it is positive
    rotate     amount in degrees, anticlockwise in Pillow, clockwise in TensorFlow; about the centre

Letters: size = (h, w) in pixels.
"""

import math

import numpy as np

Size = tuple[int, int]


def shear_x(amount: float, size: Size) -> np.ndarray:
    return np.array([[1, amount, 0], [0, 1, 0]], np.float64)


def shear_y(amount: float, size: Size) -> np.ndarray:
    return np.array([[1, 0, 0], [amount, 1, 0]], np.float64)


def torchvision_shear_x(amount: float, size: Size) -> np.ndarray:
    return shear_x(math.tan(_through_degrees(amount)), size)


def torchvision_shear_y(amount: float, size: Size) -> np.ndarray:
    angle = _through_degrees(amount)
    return shear_y(math.sin(angle) / math.cos(angle), size)


def translate_x(pixels: float, size: Size) -> np.ndarray:
    return np.array([[1, 0, pixels], [0, 1, 0]], np.float64)


def translate_y(pixels: float, size: Size) -> np.ndarray:
    return np.array([[1, 0, 0], [0, 1, pixels]], np.float64)


def torchvision_translate_x(pixels: float, size: Size) -> np.ndarray:
    """Whole pixels, and to the right."""
    return translate_x(-int(pixels), size)


def torchvision_translate_y(pixels: float, size: Size) -> np.ndarray:
    """Whole pixels, and down."""
    return translate_y(-int(pixels), size)


def rotate(degrees: float, size: Size) -> np.ndarray:
    """Image.rotate's, which rounds to 15 digits."""
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = size[1] / 2, size[0] / 2
    return np.array([[cos, sin, -cos * x - sin * y + x], [-sin, cos, sin * x - cos * y + y]])


def tensorflow_rotate(degrees: float, size: Size) -> np.ndarray:
    """TensorFlow Addons', in float32, about the middle of the pixels' centres."""
    angle = np.float32(degrees * (math.pi / 180))
    cos, sin = np.cos(angle), np.sin(angle)
    height, width = np.float32(size[0] - 1), np.float32(size[1] - 1)
    x = (width - (cos * width - sin * height)) / np.float32(2)
    y = (height - (sin * width + cos * height)) / np.float32(2)
    return np.array([[cos, -sin, x], [sin, cos, y]], np.float64)


def _through_degrees(tangent: float) -> float:
    return math.radians(math.degrees(math.atan(tangent)))
