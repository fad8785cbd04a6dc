"""Large images made smaller once, for training that would shrink them at every epoch.

Common for ImageNet: half the pixels of a photo are thrown away by the first resize, after they
were read and decoded. What is small enough keeps its bytes.

Letters: h, w, c = height, width, channels.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

DEFAULT_QUALITY = 95  # of JPEG, Pillow's scale: above it files grow and pixels hardly change


class Shrink(NamedTuple):
    """To which size, and how it is stored.

    Attributes:
      short_side: pixels of the shorter side; the longer one follows, rounded.
      quality: of the JPEG that is written, 1 to 100.
    """

    short_side: int
    quality: int

    def apply(self, image: np.ndarray, data: bytes) -> tuple[bytes, tuple[int, int, int]]:
        """File and shape of an image, uint8[h,w,c], whose file is `data`, made small enough."""
        h, w, c = image.shape
        short = min(h, w)
        if short <= self.short_side:
            return data, image.shape
        size = [round(side * self.short_side / short) for side in (w, h)]
        picture = Image.fromarray(image[..., 0] if c == 1 else image)
        file = io.BytesIO()
        # Pillow's filters cover all pixels that an output pixel stands for (antialiasing).
        small = picture.resize(size, Image.Resampling.BICUBIC)
        small.save(file, "JPEG", quality=self.quality)
        return file.getvalue(), (size[1], size[0], c)
