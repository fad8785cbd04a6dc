"""Eight virtual CPU devices, and the shapes in the annotations checked at every call."""

import os

# Before JAX starts. Tests that need one device make their own mesh of it.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = os.environ.get("TEST_PLATFORM", "cpu")  # 'cuda' for `-m gpu`
# Tests compile far longer than they compute; unoptimised, a test takes a third of the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

from jaxtyping import install_import_hook

# Where arrays are. `core` is left out, since its trees hold shapes or shardings at times, and
# so are builders of a user's settings: there a wrong type must reach the code's own `InputError`.
ROOMS = (
    "data.mixing",
    "evaluation",
    "layers",
    "losses",
    "models",
    "tasks",
    "train",
)
install_import_hook([f"vit_jax.{room}" for room in ROOMS], "beartype.beartype")
