"""Google's files with the names that are published, in the shapes of tiny models.

The names were written down from the code of google-research/{vision_transformer,big_transfer},
and not from the tables under test. Weights are random.
"""

import functools

import jax
import numpy as np
from toys import TINY, random_like

from vit_jax import models, weights
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.layers.stem import STEMS, STRIDES, ResNetStem
from vit_jax.weights import files

NUM_CLASSES = 7
STEM = "tiny"  # of no published model: half the width, three units
Shapes = dict[str, tuple[int, ...]]


def add_stem(monkeypatch):
    """Adds a stem that is small enough for a test."""
    stem = functools.partial(ResNetStem, stages=(1, 2), width_factor=0.5)
    monkeypatch.setitem(STEMS, STEM, stem)
    monkeypatch.setitem(STRIDES, STEM, 8)


def hybrid_unit(name: str, inputs: int, within: int, *, projects: bool) -> Shapes:
    outputs = 4 * within
    shapes = {
        f"{name}/conv1/kernel": (1, 1, inputs, within),
        f"{name}/conv2/kernel": (3, 3, within, within),
        f"{name}/conv3/kernel": (1, 1, within, outputs),
        f"{name}/gn1/scale": (1, 1, 1, within),
        f"{name}/gn1/bias": (1, 1, 1, within),
        f"{name}/gn2/scale": (1, 1, 1, within),
        f"{name}/gn2/bias": (1, 1, 1, within),
        f"{name}/gn3/scale": (1, 1, 1, outputs),
        f"{name}/gn3/bias": (1, 1, 1, outputs),
    }
    if projects:
        shapes[f"{name}/conv_proj/kernel"] = (1, 1, inputs, outputs)
        shapes[f"{name}/gn_proj/scale"] = (1, 1, 1, outputs)
        shapes[f"{name}/gn_proj/bias"] = (1, 1, 1, outputs)
    return shapes


def hybrid_root(width: int) -> Shapes:
    return {
        "conv_root/kernel": (7, 7, 3, width),
        "gn_root/scale": (1, 1, 1, width),
        "gn_root/bias": (1, 1, 1, width),
    }


def encoder(patch: int, inputs: int) -> Shapes:
    """A ViT of 2 layers, width 8 and 2 heads on a grid of 2x2."""
    shapes: Shapes = {
        "embedding/kernel": (patch, patch, inputs, 8),
        "embedding/bias": (8,),
        "cls": (1, 1, 8),
        "Transformer/posembed_input/pos_embedding": (1, 5, 8),
        "Transformer/encoder_norm/scale": (8,),
        "Transformer/encoder_norm/bias": (8,),
        "head/kernel": (8, NUM_CLASSES),
        "head/bias": (NUM_CLASSES,),
    }
    for layer in range(2):
        block = f"Transformer/encoderblock_{layer}"
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (8,), f"{block}/{norm}/bias": (8,)}
        for part in ("query", "key", "value"):
            name = f"{block}/MultiHeadDotProductAttention_1/{part}"
            shapes |= {f"{name}/kernel": (8, 2, 4), f"{name}/bias": (2, 4)}
        name = f"{block}/MultiHeadDotProductAttention_1/out"
        shapes |= {f"{name}/kernel": (2, 4, 8), f"{name}/bias": (8,)}
        name = f"{block}/MlpBlock_3/Dense_0"
        shapes |= {f"{name}/kernel": (8, 16), f"{name}/bias": (16,)}
        name = f"{block}/MlpBlock_3/Dense_1"
        shapes |= {f"{name}/kernel": (16, 8), f"{name}/bias": (8,)}
    return shapes


def mixer() -> Shapes:
    shapes: Shapes = {
        "stem/kernel": (4, 4, 3, 8),
        "stem/bias": (8,),
        "pre_head_layer_norm/scale": (8,),
        "pre_head_layer_norm/bias": (8,),
        "head/kernel": (8, NUM_CLASSES),
        "head/bias": (NUM_CLASSES,),
    }
    for layer in range(2):
        block = f"MixerBlock_{layer}"
        for norm in ("LayerNorm_0", "LayerNorm_1"):
            shapes |= {f"{block}/{norm}/scale": (8,), f"{block}/{norm}/bias": (8,)}
        for part, width, hidden in (("token", 4, 6), ("channel", 8, 16)):
            name = f"{block}/{part}_mixing"
            shapes |= {f"{name}/Dense_0/kernel": (width, hidden), f"{name}/Dense_0/bias": (hidden,)}
            shapes |= {f"{name}/Dense_1/kernel": (hidden, width), f"{name}/Dense_1/bias": (width,)}
    return shapes


def bit_unit(name: str, inputs: int, within: int, *, projects: bool) -> Shapes:
    conv = "standardized_conv2d/kernel"
    shapes = {
        f"{name}/a/{conv}": (1, 1, inputs, within),
        f"{name}/b/{conv}": (3, 3, within, within),
        f"{name}/c/{conv}": (1, 1, within, 4 * within),
        f"{name}/a/group_norm/gamma": (inputs,),
        f"{name}/a/group_norm/beta": (inputs,),
        f"{name}/b/group_norm/gamma": (within,),
        f"{name}/b/group_norm/beta": (within,),
        f"{name}/c/group_norm/gamma": (within,),
        f"{name}/c/group_norm/beta": (within,),
    }
    if projects:
        shapes[f"{name}/a/proj/{conv}"] = (1, 1, inputs, 4 * within)
    return shapes


def bit() -> Shapes:
    return {
        "resnet/root_block/standardized_conv2d/kernel": (7, 7, 3, 32),
        **bit_unit("resnet/block1/unit01", 32, 32, projects=True),
        **bit_unit("resnet/block2/unit01", 128, 64, projects=True),
        **bit_unit("resnet/block2/unit02", 256, 64, projects=False),
        "resnet/group_norm/gamma": (256,),
        "resnet/group_norm/beta": (256,),
        "resnet/head/conv2d/kernel": (1, 1, 256, NUM_CLASSES),
        "resnet/head/conv2d/bias": (NUM_CLASSES,),
    }


VIT = {**TINY, "pool": "cls"}
# Family -> names and shapes of its file, and the model: (name, settings, image size).
PUBLISHED: dict[str, Shapes] = {
    "vit": encoder(4, 3),
    "hybrid": {
        **hybrid_root(32),
        **hybrid_unit("block1/unit1", 32, 32, projects=True),
        **hybrid_unit("block2/unit1", 128, 64, projects=True),
        **hybrid_unit("block2/unit2", 256, 64, projects=False),
        **encoder(1, 256),
    },
    "hybrid of a root": {**hybrid_root(64), **encoder(2, 64)},
    "mixer": mixer(),
    "bit": bit(),
}
MODELS = {
    "vit": ("vit", VIT, (8, 8)),
    "hybrid": ("vit", dict(VIT, stem=STEM, patch_size=1), (16, 16)),
    "hybrid of a root": ("vit", dict(VIT, stem="resnet_root", patch_size=2), (16, 16)),
    "mixer": (
        "mixer",
        dict(width=8, depth=2, token_mlp_dim=6, channel_mlp_dim=16, patch_size=4, unroll=1),
        (8, 8),
    ),
    "bit": ("resnet", dict(stages=(1, 2), width_factor=0.5), (224, 224)),
}


def published(kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays under the published names; around one for the scales of norms."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(float(name.endswith(("scale", "gamma"))), 0.3, shape).astype(np.float32)
        for name, shape in PUBLISHED[kind].items()
    }


def preprocessing_of(size):
    return Preprocessing(image_size=size, channels=3)


def save(path, model, params, size=(8, 8), layout="google"):
    return weights.save(
        path, model, {"params": params}, layout=layout, preprocessing=preprocessing_of(size)
    )


def original(kind):
    """(model, random parameters, an image size that compiles fast)"""
    name, settings, size = MODELS[kind]
    model = models.build(name, num_classes=NUM_CLASSES, **settings)
    image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
    params = random_like(jax.eval_shape(model.init, jax.random.key(0), image)["params"])
    return model, params, size if kind != "bit" else (16, 16)


def write(tmp_path, arrays):
    files.write_npz(tmp_path / "a.npz", arrays)
    return tmp_path / "a.npz"
