"""OpenCV, imported where it is first used."""

import functools
from types import ModuleType


@functools.cache
def opencv() -> ModuleType:
    """The module cv2, without threads of its own: the work is shared out by images already."""
    import cv2

    cv2.setNumThreads(0)
    return cv2
