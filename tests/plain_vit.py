"""A ViT's encoder and head written out again, with every map in memory and numbers added to it.

By these zeros each map's gradient can be asked of `jax.grad`, which knows nothing of kernels.

Letters: l layers; b images; h heads; n tokens; c width; k classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.layers.resize import resize_positions


class Found(NamedTuple):
    logits: jax.Array | None  # [b k]
    representation: jax.Array  # [b c]
    maps: list  # of each layer [b h n n], then of the pooling [b h 1 n], where there is one


def run(model, variables, images, added=None):
    """`added`: one array for each map. For models without a stem."""
    p = variables["params"]
    x, maps = first_tokens(model, variables, images), []
    added = iter(added or [0.0] * (model.depth + 1))
    for i in range(model.depth):
        block = jax.tree.map(lambda leaf, i=i: leaf[i], p["encoder"]["blocks"])
        y = norm(x, block["attention_norm"])
        x = x + attend(model, block["attention"], y, y, maps, next(added))
        x = x + mlp(norm(x, block["mlp_norm"]), block["mlp"])
    x = norm(x, p["encoder"]["norm"])
    patches = x[:, model.num_prefix :].mean(axis=1)
    if model.pool == "map":
        probe = jnp.tile(p["pool"]["probe"], (len(x), 1, 1))
        y = attend(model, p["pool"]["attention"], probe, x, maps, next(added))
        read = (y + mlp(norm(y, p["pool"]["norm"]), p["pool"]["mlp"]))[:, 0]
    else:
        both = jnp.concatenate([x[:, 0], patches], axis=-1)
        read = dict(cls=x[:, 0], gap=patches, cls_gap=both)[model.pool]
    if not model.num_classes:
        return Found(None, read, maps)
    logits = read @ p["head"]["kernel"] + p["head"]["bias"]
    if model.distillation_token:
        other = x[:, 1] @ p["distillation_head"]["kernel"] + p["distillation_head"]["bias"]
        logits = (logits + other) / 2
    return Found(logits, read, maps)


def first_tokens(model, variables, images):
    """What enters the encoder: patches, tokens in front, positions that are learned."""
    p, c = variables["params"], model.width
    b, (rows, columns), (high, wide) = len(images), model.grid(images.shape[1:3]), model.patch_size
    x = (
        images.reshape(b, rows, high, columns, wide, -1)
        .swapaxes(2, 3)
        .reshape(b, rows * columns, -1)
    )
    x = x @ p["patch_embedding"]["kernel"].reshape(-1, c)
    x = x + p["patch_embedding"]["bias"]
    front = [jnp.tile(p[name], (b, 1, 1)) for name in model.prefix]
    x = jnp.concatenate([*front, x], axis=1)
    if model.position_embedding == "learned":
        grid = dict(old_grid=model.position_grid or (rows, columns), new_grid=(rows, columns))
        x = x + resize_positions(p["position_embedding"], num_prefix=len(front), **grid)
    if model.num_registers:
        registers, cut = jnp.tile(p["registers"], (b, 1, 1)), len(front)
        x = jnp.concatenate([x[:, :cut], registers, x[:, cut:]], axis=1)
    return x


def attend(model, p, x, memory, maps, added):
    def project(name, y):
        return jnp.einsum("bnc,chd->bnhd", y, p[name]["kernel"]) + p[name]["bias"]

    query, key, value = project("query", x), project("key", memory), project("value", memory)
    if model.block.qk_norm:
        query, key = norm(query, p["query_norm"]), norm(key, p["key_norm"])
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
    if "relative_positions" in p:
        table, m = p["relative_positions"]["embedding"], x.shape[1] - model.num_prefix
        offsets = [[one - other + m - 1 for other in range(m)] for one in range(m)]
        keys = table[jnp.asarray(offsets)]  # [q, k, d]
        more = jnp.einsum("bqhd,qkd->bhqk", query[:, model.num_prefix :], keys)
        scores = scores.at[:, :, model.num_prefix :, model.num_prefix :].add(more)
    weights = jax.nn.softmax(scores / query.shape[-1] ** 0.5)
    maps.append(weights)
    x = jnp.einsum("bhqk,bkhd->bqhd", weights + added, value)
    return jnp.einsum("bqhd,hdc->bqc", x, p["out"]["kernel"]) + p["out"]["bias"]


def norm(x, p):
    centred = x - x.mean(axis=-1, keepdims=True)
    spread = jnp.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return centred / spread * p["scale"] + p["bias"]


def mlp(x, p):
    hidden = jax.nn.gelu(x @ p["up"]["kernel"] + p["up"]["bias"], approximate=True)
    return hidden @ p["down"]["kernel"] + p["down"]["bias"]
