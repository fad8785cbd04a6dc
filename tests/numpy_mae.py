"""The masked autoencoder written out in NumPy, one image and one patch at a time.

From the definition in arXiv:2111.06377 and the public code, in float64. For a backbone with learned
positions, pre-norm blocks and GELU.
"""

import math

import numpy as np

ERF = np.vectorize(math.erf)


def predict(params, image, noise, *, patch, num_visible, heads, decoder_heads):
    """(prediction [m, p·q·C], is masked [m]) of one image [H, W, C] and one number a patch."""
    backbone, decoder = params["backbone"], params["decoder"]
    patches = [p @ flat(backbone["patch_embedding"]["kernel"]) for p in cut(image, patch)]
    has_class = "class_token" in backbone
    positions = backbone["position_embedding"][0]
    tokens = [
        x + backbone["patch_embedding"]["bias"] + positions[has_class + j]
        for j, x in enumerate(patches)
    ]
    kept = sorted(range(len(tokens)), key=lambda j: noise[j])[:num_visible]
    front = [backbone["class_token"][0, 0] + positions[0]] if has_class else []
    registers = list(backbone["registers"][0]) if "registers" in backbone else []
    x = encode(np.stack([*front, *registers, *(tokens[j] for j in kept)]), backbone, heads)
    seen = x[len(front) + len(registers) :]
    y = dense(np.concatenate([x[: len(front)], seen]), decoder["embedding"])
    whole = [decoder["mask_token"][0, 0]] * len(tokens)
    for place, j in enumerate(kept):
        whole[j] = y[len(front) + place]
    y = np.stack([*y[: len(front)], *whole]) + decoder["position_embedding"][0]
    y = dense(encode(y, decoder, decoder_heads)[len(front) :], decoder["prediction"])
    return y, np.array([j not in kept for j in range(len(tokens))])


def loss(prediction, image, masked, *, patch, normalise):
    """Of one image."""
    total = 0.0
    for row, pixels, is_masked in zip(prediction, cut(image, patch), masked, strict=True):
        if is_masked:
            if normalise:
                variance = ((pixels - pixels.mean()) ** 2).sum() / (len(pixels) - 1)
                pixels = (pixels - pixels.mean()) / np.sqrt(variance + 1e-6)
            total += sum((a - b) ** 2 for a, b in zip(row, pixels, strict=True)) / len(pixels)
    return total / sum(masked)


def cut(image, patch):
    """The numbers of each patch: rows of patches, then rows, columns and channels within."""
    (height, width, channels), (p, q) = image.shape, patch
    return [
        np.array(
            [
                image[top + i, left + j, k]
                for i in range(p)
                for j in range(q)
                for k in range(channels)
            ]
        )
        for top in range(0, height, p)
        for left in range(0, width, q)
    ]


def flat(kernel):
    return kernel.reshape(-1, kernel.shape[-1])


def encode(x, params, heads):
    blocks = params["encoder"]["blocks"]
    for i in range(len(blocks["mlp"]["up"]["bias"])):
        x = x + attend(norm(x, layer(blocks["attention_norm"], i)), blocks["attention"], i, heads)
        hidden = dense(norm(x, layer(blocks["mlp_norm"], i)), layer(blocks["mlp"]["up"], i))
        hidden = hidden * (1 + ERF(hidden / np.sqrt(2))) / 2
        x = x + dense(hidden, layer(blocks["mlp"]["down"], i))
    return norm(x, params["encoder"]["norm"])


def layer(params, i):
    return {name: leaf[i] for name, leaf in params.items()}


def attend(x, params, i, heads):
    out = params["out"]["bias"][i]
    for h in range(heads):
        query, key, value = (
            x @ params[name]["kernel"][i][:, h] + params[name]["bias"][i][h]
            for name in ("query", "key", "value")
        )
        scores = np.exp(query @ key.T / np.sqrt(query.shape[-1]))
        out = out + scores / scores.sum(-1, keepdims=True) @ value @ params["out"]["kernel"][i][h]
    return out


def norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return centred / spread * params["scale"] + params["bias"]


def dense(x, params):
    return x @ params["kernel"] + params["bias"]
