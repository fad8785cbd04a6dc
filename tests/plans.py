"""Configs of data that is nowhere, for the tests of plans."""

from vit_jax.planning import Told

TINY = dict(width=16, depth=3, mlp_dim=32, num_heads=2, patch_size=4, pool="gap")
TOLD = Told(num_examples=1000, num_classes=10, channels=3)


def make_config(*, model=None, task=None, data=None, optimizer=None, train=None, mesh=None):
    """A config of data that is nowhere."""
    return dict(
        task=dict(name="classification", model=TINY if model is None else model, **task or {}),
        data=dict(source="tfds:nowhere", image_size=16, batch_size=64) | (data or {}),
        optimizer=dict(learning_rate=1e-3) | (optimizer or {}),
        train=dict(num_steps=100) if train is None else train,
        mesh=mesh or {},
    )
