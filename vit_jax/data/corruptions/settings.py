"""How strongly images are corrupted: five severities of each corruption, at three sizes.

The numbers are those of the published generators (hendrycks/robustness, ImageNet-C/create_c):
make_imagenet_c.py for 224 pixels, make_tinyimagenet_c.py for 64, make_cifar_c.py for 32. They
are no function of the size, so an image of another size takes those of the nearest one; see
`nearest_size`. Lengths are in pixels, as published, except those of `elastic_transform`, which
the generators for 32 and 64 write as shares of the image's side, and which are so here for all.
(The one for 224 has 244 in its place, "nothing is incorrect".)

Letters: h, w = height, width.
"""

import math
from collections.abc import Mapping
from typing import Any

SEVERITIES = (1, 2, 3, 4, 5)
SIZES = (32, 64, 224)
_MISTYPED = 244 / 224

# Name -> size -> setting -> one value a severity.
SETTINGS: dict[str, dict[int, Mapping[str, tuple[Any, ...]]]] = {
    "gaussian_noise": {
        32: dict(deviation=(0.04, 0.06, 0.08, 0.09, 0.10)),
        64: dict(deviation=(0.04, 0.08, 0.12, 0.15, 0.18)),
        224: dict(deviation=(0.08, 0.12, 0.18, 0.26, 0.38)),
    },
    "shot_noise": {
        32: dict(photons=(500, 250, 100, 75, 50)),
        64: dict(photons=(250, 100, 50, 30, 15)),
        224: dict(photons=(60, 25, 12, 5, 3)),
    },
    "impulse_noise": {
        32: dict(share=(0.01, 0.02, 0.03, 0.05, 0.07)),
        64: dict(share=(0.01, 0.02, 0.05, 0.08, 0.14)),
        224: dict(share=(0.03, 0.06, 0.09, 0.17, 0.27)),
    },
    "defocus_blur": {
        32: dict(radius=(0.3, 0.4, 0.5, 1, 1.5), soft=(0.4, 0.5, 0.6, 0.2, 0.1)),
        64: dict(radius=(0.5, 1, 1.5, 2.5, 3), soft=(0.6, 0.1, 0.1, 0.01, 0.1)),
        224: dict(radius=(3, 4, 6, 8, 10), soft=(0.1, 0.5, 0.5, 0.5, 0.5)),
    },
    "glass_blur": {
        32: dict(sigma=(0.05, 0.25, 0.4, 0.25, 0.4), reach=(1, 1, 1, 1, 1), rounds=(1, 1, 1, 2, 2)),
        64: dict(sigma=(0.1, 0.5, 0.6, 0.7, 0.9), reach=(1, 1, 1, 2, 2), rounds=(1, 1, 2, 1, 2)),
        224: dict(sigma=(0.7, 0.9, 1, 1.1, 1.5), reach=(1, 2, 2, 3, 4), rounds=(2, 1, 3, 2, 2)),
    },
    "motion_blur": {
        32: dict(radius=(6, 6, 6, 8, 9), sigma=(1, 1.5, 2, 2, 2.5)),
        64: dict(radius=(10, 10, 10, 10, 12), sigma=(1, 1.5, 2, 2.5, 3)),
        224: dict(radius=(10, 15, 15, 15, 20), sigma=(3, 5, 8, 12, 15)),
    },
    "zoom_blur": {
        # Ends as written there: whether rounding lets the last step in is part of the numbers.
        32: dict(stop=(1.06, 1.11, 1.16, 1.21, 1.26), step=(0.01,) * 5),
        64: dict(stop=(1.06, 1.11, 1.16, 1.21, 1.26), step=(0.01,) * 5),
        224: dict(stop=(1.11, 1.16, 1.21, 1.26, 1.31), step=(0.01, 0.01, 0.02, 0.02, 0.03)),
    },
    "snow": {
        32: dict(
            mean=(0.1, 0.1, 0.15, 0.25, 0.3),
            deviation=(0.2, 0.2, 0.3, 0.3, 0.3),
            enlarged=(1, 1, 1.75, 2.25, 1.25),
            threshold=(0.6, 0.5, 0.55, 0.6, 0.65),
            radius=(8, 10, 10, 12, 14),
            sigma=(3, 4, 4, 6, 12),
            kept=(0.95, 0.9, 0.9, 0.85, 0.8),
        ),
        64: dict(
            mean=(0.1, 0.1, 0.15, 0.25, 0.3),
            deviation=(0.2, 0.2, 0.3, 0.3, 0.3),
            enlarged=(1, 1, 1.75, 2.25, 1.25),
            threshold=(0.6, 0.5, 0.55, 0.6, 0.65),
            radius=(8, 10, 10, 12, 14),
            sigma=(3, 4, 4, 6, 12),
            kept=(0.8, 0.8, 0.7, 0.65, 0.6),
        ),
        224: dict(
            mean=(0.1, 0.2, 0.55, 0.55, 0.55),
            deviation=(0.3, 0.3, 0.3, 0.3, 0.3),
            enlarged=(3, 2, 4, 4.5, 2.5),
            threshold=(0.5, 0.5, 0.9, 0.85, 0.85),
            radius=(10, 12, 12, 12, 12),
            sigma=(4, 4, 8, 8, 12),
            kept=(0.8, 0.7, 0.7, 0.65, 0.55),
        ),
    },
    "frost": {
        32: dict(kept=(1, 1, 0.9, 0.85, 0.75), added=(0.2, 0.3, 0.4, 0.4, 0.45)),
        64: dict(kept=(1, 0.9, 0.8, 0.75, 0.7), added=(0.3, 0.4, 0.45, 0.5, 0.55)),
        224: dict(kept=(1, 0.8, 0.7, 0.65, 0.6), added=(0.4, 0.6, 0.7, 0.7, 0.75)),
    },
    "fog": {
        32: dict(added=(0.2, 0.5, 0.75, 1, 1.5), decay=(3, 3, 2.5, 2, 1.75)),
        64: dict(added=(0.4, 0.7, 1, 1.5, 2), decay=(3, 3, 2.5, 2, 1.75)),
        224: dict(added=(1.5, 2, 2.5, 2.5, 3), decay=(2, 2, 1.7, 1.5, 1.4)),
    },
    "brightness": {
        32: dict(added=(0.05, 0.1, 0.15, 0.2, 0.3)),
        64: dict(added=(0.1, 0.2, 0.3, 0.4, 0.5)),
        224: dict(added=(0.1, 0.2, 0.3, 0.4, 0.5)),
    },
    "contrast": {
        32: dict(kept=(0.75, 0.5, 0.4, 0.3, 0.15)),
        64: dict(kept=(0.4, 0.3, 0.2, 0.1, 0.05)),
        224: dict(kept=(0.4, 0.3, 0.2, 0.1, 0.05)),
    },
    "elastic_transform": {
        32: dict(
            strength=(0, 0.05, 0.08, 0.1, 0.1),
            sigma=(0, 0.2, 0.06, 0.04, 0.03),
            corners=(0.08, 0.07, 0.06, 0.05, 0.03),
        ),
        64: dict(
            strength=(0, 0.05, 0.1, 0.1, 0.16),
            sigma=(0, 0.3, 0.08, 0.03, 0.03),
            corners=(0.08, 0.06, 0.06, 0.03, 0.02),
        ),
        224: dict(
            strength=tuple(_MISTYPED * x for x in (2, 2, 0.05, 0.07, 0.12)),
            sigma=tuple(_MISTYPED * x for x in (0.7, 0.08, 0.01, 0.01, 0.01)),
            corners=tuple(_MISTYPED * x for x in (0.1, 0.2, 0.02, 0.02, 0.02)),
        ),
    },
    "pixelate": {
        32: dict(kept=(0.95, 0.9, 0.85, 0.75, 0.65)),
        64: dict(kept=(0.9, 0.8, 0.7, 0.6, 0.5)),
        224: dict(kept=(0.6, 0.5, 0.4, 0.3, 0.25)),
    },
    "jpeg_compression": {
        32: dict(quality=(80, 65, 58, 50, 40)),
        64: dict(quality=(65, 58, 50, 40, 25)),
        224: dict(quality=(25, 18, 15, 10, 7)),
    },
    "speckle_noise": {
        32: dict(deviation=(0.06, 0.1, 0.12, 0.16, 0.2)),
        64: dict(deviation=(0.15, 0.2, 0.25, 0.3, 0.35)),
        224: dict(deviation=(0.15, 0.2, 0.35, 0.45, 0.6)),
    },
    "gaussian_blur": {
        32: dict(sigma=(0.4, 0.6, 0.7, 0.8, 1)),
        64: dict(sigma=(0.5, 0.75, 1, 1.25, 1.5)),
        224: dict(sigma=(1, 2, 3, 4, 6)),
    },
    "spatter": {
        32: dict(
            mean=(0.62, 0.65, 0.65, 0.65, 0.65),
            deviation=(0.1, 0.1, 0.3, 0.1, 0.1),
            sigma=(0.7, 0.8, 1, 0.7, 0.5),
            threshold=(0.7, 0.7, 0.69, 0.69, 0.68),
            strength=(0.5, 0.5, 0.5, 0.6, 0.6),
            is_mud=(False, False, False, True, True),
        ),
        64: dict(
            mean=(0.62, 0.65, 0.65, 0.65, 0.65),
            deviation=(0.1, 0.1, 0.3, 0.1, 0.1),
            sigma=(0.7, 0.8, 1, 0.7, 0.5),
            threshold=(0.7, 0.7, 0.69, 0.68, 0.67),
            strength=(0.6, 0.6, 0.6, 0.6, 0.6),
            is_mud=(False, False, False, True, True),
        ),
        224: dict(
            mean=(0.65, 0.65, 0.65, 0.65, 0.67),
            deviation=(0.3, 0.3, 0.3, 0.3, 0.4),
            sigma=(4, 3, 2, 1, 1),
            threshold=(0.69, 0.68, 0.68, 0.65, 0.65),
            strength=(0.6, 0.6, 0.5, 1.5, 1.5),
            is_mud=(False, False, False, True, True),
        ),
    },
    "saturate": {
        32: dict(factor=(0.3, 0.1, 1.5, 2, 2.5), added=(0, 0, 0, 0.1, 0.2)),
        64: dict(factor=(0.3, 0.1, 2, 5, 30), added=(0, 0, 0, 0.1, 0.2)),
        224: dict(factor=(0.3, 0.1, 2, 5, 20), added=(0, 0, 0, 0.1, 0.2)),
    },
}


def nearest_size(height: int, width: int) -> int:
    """Of `SIZES` the one nearest in ratio to the shorter side: 32 to 45 pixels, 64 to 119."""
    side = min(height, width)
    return min(SIZES, key=lambda size: abs(math.log(size / side)))


def settings_of(name: str, severity: int, *, height: int, width: int) -> dict[str, Any]:
    """Those of one corruption for an image of h × w pixels."""
    columns = SETTINGS[name][nearest_size(height, width)]
    return {key: values[severity - 1] for key, values in columns.items()}
