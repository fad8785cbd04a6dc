"""What several configs share: settings of papers under the names that they have there.

from configs.common import augreg
config.data.augment, config.task.mixing = augreg("medium1")
"""

# "How to train your ViT?" (arXiv:2106.10270), section 3.2; big_vision has the same numbers as
# RANDAUG_DEF and MIXUP_DEF in configs/vit_i1k.py. Level: (operations of RandAugment, their
# magnitude, alpha of mixup). A magnitude of 0 is not nothing: it nearly blackens, see
# vit_jax/data/augment/levels.py.
AUGREG = {
    "none": (0, 0, 0.0),
    "light1": (2, 0, 0.0),
    "light2": (2, 10, 0.2),
    "medium1": (2, 15, 0.2),
    "medium2": (2, 15, 0.5),
    "strong1": (2, 20, 0.5),
    "strong2": (2, 20, 0.8),
}


# What masked autoencoding (arXiv:2111.06377) trained for 1,600 epochs on normalised pixels; and a
# run of configs/mae.py:fashion.
MAE_FILES = "https://dl.fbaipublicfiles.com/mae/pretrain"
MAE_ENCODERS = {
    "B16": (f"{MAE_FILES}/mae_pretrain_vit_base.pth", "vit_base_patch16_224.mae"),
    "L16": (f"{MAE_FILES}/mae_pretrain_vit_large.pth", "vit_large_patch16_224.mae"),
    "H14": (f"{MAE_FILES}/mae_pretrain_vit_huge.pth", "vit_huge_patch14_224.mae"),
    "fashion": ("runs/mae-fashion", None),
}
# ImageNet as torchvision's and timm's recipes see it.
IMAGENET_224 = dict(
    source="tfds:imagenet2012",
    image_size=224,
    resize="crop",
    interpolation="bicubic",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
# What DeiT (arXiv:2012.12877, its code) and MAE's fine-tuning train on: timm's
# rand-m9-mstd0.5-inc1, painted with the mean outside the image, and random erasing.
STRONG = dict(
    dialect="timm",
    crop="inception",
    interpolation="bicubic",
    flip_probability=0.5,
    policy=dict(
        name="randaugment",
        magnitude=9,
        magnitude_std=0.5,
        increasing=True,
        interpolation="bicubic",
        fill=(124, 116, 104),  # the mean
    ),
    erasing=dict(probability=0.25, mode="pixel"),
)
FASHION = dict(
    source="idx:/usr/share/datasets/fashion-mnist",
    train="train[:95%]",
    image_size=28,
    augment=dict(flip_probability=0.5),
)


def augreg(level: str) -> tuple[dict, dict]:
    """(`data.augment`, `task.mixing`) of an AugReg level, crop and flip included.

    big_vision calls the alpha of mixup p. It mixes with the neighbour in the batch and we with the
    example half a batch away, which is the same law for shuffled examples.
    """
    if level not in AUGREG:
        raise ValueError(f"there is no AugReg level {level!r}; allowed: {', '.join(AUGREG)}")
    num_ops, magnitude, alpha = AUGREG[level]
    augment = dict(dialect="big_vision", crop="inception", flip_probability=0.5)
    if num_ops:
        augment["policy"] = dict(name="randaugment", num_ops=num_ops, magnitude=magnitude)
    return augment, dict(mixup_alpha=alpha)
