"""What is learned: one file a method. `TASKS` maps a config's `task.name` to its builder.

A builder takes the keys of `config.task` and `info`, what the data says of itself.
"""

from vit_jax.tasks import classification, dino, distillation, mae

TASKS = {
    "classification": classification.build,
    "mae": mae.build,
    "dino": dino.build,
    "distillation": distillation.build,
}
