"""From a level to an amount: how strong an operation is, in each dialect.

A level is what a policy is written in. In big_vision and timm 10 is the usual greatest, and is
passed by the stronger AugReg levels; in torchvision it is a position in `bins` equally spaced
amounts, from no effect to the most.

    amount at        big_vision            timm                   timm, increasing   torchvision
    level L          L / 10                L / 10                 L / 10             L / (bins - 1)

    Rotate, degrees  ±30 l                 ±30 l                  same               ±30 l
    Shear            ±0.3 l                ±0.3 l                 same               ±0.3 l
    Translate, px    ±100 l                ±0.45 l side           same               ±150/331 l side
    Color, Contrast, 0.1 + 1.8 l           0.1 + 1.8 l            1 ± 0.9 l, 0.1     1 ± 0.9 l
      Brightness,                                                 at least
      Sharpness
    Posterize, bits  4 l, at least 1       4 l                    4 - 4 l            8 - 4 l
    Solarize from    256 l, modulo 256     256 l                  256 - 256 l        255 - 255 l
    SolarizeAdd      110 l                 110 l, up to 128       same               (none)
    Cutout, half px  40 l                  (none)                 (none)             (none)

l is the fraction in the second line, ± a sign drawn for each use. Whole numbers are cut. An
AutoAugment policy of big_vision translates by 250 l pixels, one of timm posterizes to 4 + 4 l bits.
Level 0 is therefore no identity in big_vision and in timm's first column: it nearly blackens.

Letters: size = (h, w) in pixels.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LEVEL_UNIT = 10.0  # the greatest level of the original AutoAugment; arXiv:1805.09501, section 3
TRANSLATE_SHARE = 0.45  # of the side; timm's translate_pct
TRANSLATE_PIXELS = {"randaugment": 100, "autoaugment": 250}  # big_vision's translate_const
CUTOUT_PIXELS = {"randaugment": 40, "autoaugment": 100}  # big_vision's cutout_const


class Use(NamedTuple):
    """One use of an operation.

    Attributes:
      level: see the top of this file.
      sign: 1 or -1.
      size: of the image.
      bins: of torchvision.
      policy: 'randaugment' or 'autoaugment'; they differ in big_vision.
    """

    level: float
    sign: int
    size: tuple[int, int]
    bins: int
    policy: str

    @property
    def share(self) -> float:
        return self.level / LEVEL_UNIT


class Rule(NamedTuple):
    """What a name in a policy does.

    Attributes:
      operation: of `operations.py`.
      amount: of a use.
      is_signed: whether a use draws a sign.
    """

    operation: str
    amount: Callable[[Use], float | None]
    is_signed: bool = False


def _nothing(use: Use) -> None:
    return None


def _signed(scale: float, use: Use) -> float:
    return use.sign * (use.share * scale)


def _whole(scale: float, use: Use) -> int:
    return int(use.share * scale)


def _enhance(use: Use) -> float:
    return use.share * 1.8 + 0.1


def _enhance_away(use: Use) -> float:
    return max(0.1, 1.0 + use.sign * (use.share * 0.9))


def _posterize_less(use: Use) -> int:
    return 4 - int(use.share * 4)


def _posterize_original(use: Use) -> int:
    return int(use.share * 4) + 4


def _solarize(use: Use) -> int:
    return min(256, int(use.share * 256))


def _solarize_less(use: Use) -> int:
    return 256 - _solarize(use)


def _solarize_add(use: Use) -> int:
    return min(128, int(use.share * 110))


def _translate_share(axis: int, use: Use) -> float:
    return _signed(TRANSLATE_SHARE, use) * use.size[axis]


def _translate_pixels(use: Use) -> float:
    return _signed(TRANSLATE_PIXELS[use.policy], use)


def _cutout(use: Use) -> int:
    return _whole(CUTOUT_PIXELS[use.policy], use)


def _binned(end: float, use: Use) -> float:
    return use.sign * spaced(0.0, end, use.bins, use.level)


def _binned_share(axis: int, use: Use) -> float:
    return _binned(150.0 / 331.0 * use.size[axis], use)


def _binned_enhance(use: Use) -> float:
    return 1.0 + _binned(0.9, use)


def _binned_posterize(use: Use) -> int:
    return 8 - round(use.level / ((use.bins - 1) / 4))


def _binned_solarize(use: Use) -> float:
    return spaced(255.0, 0.0, use.bins, use.level)


def spaced(start: float, end: float, bins: int, position: int) -> float:
    """torch.linspace(start, end, bins)[position], in its float32: counted from the nearer end."""
    start, end = np.float32(start), np.float32(end)
    step = (end - start) / np.float32(bins - 1)
    if position < bins // 2:
        return float(start + step * np.float32(position))
    return float(end - step * np.float32(bins - 1 - position))


_PLAIN = {name: Rule(name, _nothing) for name in ("AutoContrast", "Equalize", "Invert")}
_MOVED = {
    "Rotate": Rule("Rotate", functools.partial(_signed, 30.0), True),
    "ShearX": Rule("ShearX", functools.partial(_signed, 0.3), True),
    "ShearY": Rule("ShearY", functools.partial(_signed, 0.3), True),
}
_ENHANCED = {
    name: Rule(name, _enhance) for name in ("Color", "Contrast", "Brightness", "Sharpness")
}

BIG_VISION = {
    **_PLAIN,
    **_MOVED,
    **_ENHANCED,
    "Posterize": Rule("Posterize", functools.partial(_whole, 4)),
    "Solarize": Rule("Solarize", functools.partial(_whole, 256)),
    "SolarizeAdd": Rule("SolarizeAdd", functools.partial(_whole, 110)),
    "TranslateX": Rule("TranslateX", _translate_pixels, True),
    "TranslateY": Rule("TranslateY", _translate_pixels, True),
    "Cutout": Rule("Cutout", _cutout),
}
TIMM = {
    **_PLAIN,
    **_MOVED,
    **_ENHANCED,
    **{f"{name}Increasing": Rule(name, _enhance_away, True) for name in _ENHANCED},
    "Posterize": Rule("Posterize", functools.partial(_whole, 4)),
    "PosterizeIncreasing": Rule("Posterize", _posterize_less),
    "PosterizeOriginal": Rule("Posterize", _posterize_original),
    "Solarize": Rule("Solarize", _solarize),
    "SolarizeIncreasing": Rule("Solarize", _solarize_less),
    "SolarizeAdd": Rule("SolarizeAdd", _solarize_add),
    "TranslateXRel": Rule("TranslateX", functools.partial(_translate_share, 1), True),
    "TranslateYRel": Rule("TranslateY", functools.partial(_translate_share, 0), True),
}
TORCHVISION = {
    **_PLAIN,
    "Identity": Rule("Identity", _nothing),
    "Rotate": Rule("Rotate", functools.partial(_binned, 30.0), True),
    "ShearX": Rule("ShearX", functools.partial(_binned, 0.3), True),
    "ShearY": Rule("ShearY", functools.partial(_binned, 0.3), True),
    "TranslateX": Rule("TranslateX", functools.partial(_binned_share, 1), True),
    "TranslateY": Rule("TranslateY", functools.partial(_binned_share, 0), True),
    **{name: Rule(name, _binned_enhance, True) for name in _ENHANCED},
    "Posterize": Rule("Posterize", _binned_posterize),
    "Solarize": Rule("Solarize", _binned_solarize),
}
RULES = {"big_vision": BIG_VISION, "torchvision": TORCHVISION, "timm": TIMM}
