"""Tiny networks of MAE and DINO with weights that hide nothing, and their files."""

import jax
import jax.numpy as jnp
import numpy as np
from pretrained import SETTINGS, SIZE
from toys import random_like

from vit_jax import models, weights
from vit_jax.models import dino, mae
from vit_jax.weights import timm
from vit_jax.weights.mapping import to_theirs

ARCHITECTURE = "vit_tiny_patch4_8"
HEAD = dict(depth=3, hidden_dim=7, bottleneck_dim=5, num_prototypes=6)
IMAGE = jnp.zeros((1, *SIZE, 3))


def backbone(**settings):
    settings = {**SETTINGS, "activation": "gelu", "num_classes": 0, **settings}
    return models.build("vit", **settings)


def mae_network(depth=1, **settings):
    """The model, what it is a part of, and random variables of that."""
    model = backbone(**settings)
    decoder = mae.build_decoder(
        model, image_shape=(*SIZE, 3), width=8, depth=depth, num_heads=2, mlp_dim=12
    )
    network = mae.MaskedAutoencoder(model, decoder)
    masking = mae.Masking.of(jnp.zeros((1, 4)), 2)
    return described(model, lambda: network.init(jax.random.key(0), IMAGE, masking))


def dino_network(normalise_last=True, patch_head=False, **settings):
    model = backbone(**settings)
    heads = [
        dino.build_head(dtype=jnp.float32, normalise_last=normalise_last, **HEAD)
        for _ in range(1 + patch_head)
    ]
    network, taken = dino.DinoNetwork(model, *heads), jnp.zeros((1, 1), jnp.int32)
    views = IMAGE[:, None]
    taken = taken if patch_head else None
    return described(model, lambda: network.init(jax.random.key(0), views, taken=taken))


def described(model, init):
    variables = jax.eval_shape(init)
    return model, weights.Network(("backbone",), init), random_like(variables)


def published(params, table=timm.TIMM):
    """The arrays of a network as its authors' code names them."""
    arrays = dict(to_theirs(table, params["backbone"]))
    for name, tree in params.items():
        if name != "backbone":
            part = timm.Table(family="part", rules=table.parts[name].rules)
            arrays |= to_theirs(part, {name: tree})
    return arrays


def source(folder, arrays):
    np.savez(folder / "a.npz", **arrays)
    return weights.read(folder / "a.npz", architecture=ARCHITECTURE)


def load(found, model, network, **settings):
    size = settings.pop("size", SIZE)
    return weights.load_into(model, found, image_shape=(*size, 3), network=network, **settings)
