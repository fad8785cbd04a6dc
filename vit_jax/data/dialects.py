"""Where big_vision, torchvision and timm disagree, in one table.

The rows of `DIALECTS` are what a `dialect` setting stands for. Facts are of big_vision's
pp/ops_image.py with TensorFlow 2.21, torchvision 0.29 and timm 1.0.31 on PIL images.

                          big_vision               torchvision              timm
    every JPEG: DCT         fast                     accurate                 accurate
    evaluation
      short side          resize_small(s)          Resize(s)                Resize(s)
      s, of side n        round(n / crop_fraction) round(n / crop_fraction) floor(n / crop_fraction)
      long side           nearest, in float32      cut off                  cut off
      offset of the crop  cut off                  half to even             half to even
      target no square    refused                  refused                  ResizeKeepRatio
      interpolation       area                     bilinear                 bilinear
      antialias           no                       yes                      yes
      to whole levels     cut off                  nearest                  nearest
    inception crop
      area of the image   0.05 to 1                0.08 to 1                0.08 to 1
      law of the area     of a uniform height      uniform                  uniform
      aspect ratio        3/4 to 1.33, uniform     3/4 to 4/3, its log      3/4 to 4/3, its log
                                                   uniform                  uniform
      attempts, then      100, the whole image     10, the largest centred  10, the largest centred
                                                   box of allowed ratio     box of allowed ratio
      last offset         never drawn              drawn                    drawn
      interpolation       bilinear                 bilinear                 bilinear or bicubic, a
                                                                            coin
      antialias           no                       yes                      yes
    random erasing
      area of the image   (has none)               0.02 to 0.33             0.02 to 1/3, over the
                                                                            number of boxes
      aspect ratio        (has none)               0.3 to 3.3, its log      0.3 to 1/0.3, its log
      number of boxes     (has none)               1                        1 to max_count

All three ignore the orientation that EXIF tells; here it is always applied.

Where no dialect is set: JPEGs are decoded accurately; evaluation resamples the exact box that the
crop sees, without rounding an intermediate size, antialiased; the inception crop is torchvision's
with the interpolation of evaluation; random erasing is timm's.
"""

from dataclasses import dataclass

from vit_jax import sections


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One column of the table above.

    Attributes:
      fast_dct: see `decode.Encoded`.
      antialias: whether resizing antialiases where it is not set.
      crop_interpolation: of evaluation with resize='crop'.
      stretch_interpolation: of evaluation with resize='stretch'.
      train_interpolation: of training crops; 'random' tosses a coin for bilinear or bicubic.
      crop_law: a name in `augment.crops.LAWS`.
      crop_area: least and largest share of the image.
      crop_ratio: least and largest width / height.
      crop_attempts: before the fallback.
      erase_area: least and largest share of the image.
      erase_ratio: least and largest height / width.
    """

    fast_dct: bool
    antialias: bool
    crop_interpolation: str
    stretch_interpolation: str
    train_interpolation: str
    crop_law: str
    crop_area: tuple[float, float]
    crop_ratio: tuple[float, float]
    crop_attempts: int
    erase_area: tuple[float, float]
    erase_ratio: tuple[float, float]


TORCHVISION = Dialect(
    fast_dct=False,
    antialias=True,
    crop_interpolation="bilinear",
    stretch_interpolation="bilinear",
    train_interpolation="bilinear",
    crop_law="uniform_area",
    crop_area=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    crop_attempts=10,
    erase_area=(0.02, 0.33),
    erase_ratio=(0.3, 3.3),
)
TIMM = Dialect(
    fast_dct=False,
    antialias=True,
    crop_interpolation="bilinear",
    stretch_interpolation="bilinear",
    train_interpolation="random",
    crop_law="uniform_area",
    crop_area=(0.08, 1.0),
    crop_ratio=(3 / 4, 4 / 3),
    crop_attempts=10,
    erase_area=(0.02, 1 / 3),
    erase_ratio=(0.3, 1 / 0.3),
)
BIG_VISION = Dialect(
    fast_dct=True,
    antialias=False,
    crop_interpolation="area",
    stretch_interpolation="bilinear",
    train_interpolation="bilinear",
    crop_law="uniform_height",
    crop_area=(0.05, 1.0),
    crop_ratio=(0.75, 1.33),
    crop_attempts=100,
    # It has no random erasing; timm's, as where no dialect is set.
    erase_area=TIMM.erase_area,
    erase_ratio=TIMM.erase_ratio,
)
DIALECTS = {"big_vision": BIG_VISION, "torchvision": TORCHVISION, "timm": TIMM}


def dialect_of(name: str | None, *, where: str) -> Dialect | None:
    """The row of that name; None where none is set."""
    return None if name is None else sections.choose(DIALECTS, name, where=where)
