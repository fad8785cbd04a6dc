"""What a planned model is: its tokens and its parameters."""

from typing import Any

from vit_jax.analysis import cost
from vit_jax.core import Tree
from vit_jax.layers.embed import grid_size
from vit_jax.learner import Learner
from vit_jax.models.mixer import Mixer
from vit_jax.models.vit import VisionTransformer
from vit_jax.planning.work import Work, without_places


def setting(learner: Learner, name: str, default: Any = None) -> Any:
    """Of the task's model; the default where it has no such setting, or is none."""
    return getattr(getattr(learner.task, "model", None), name, default)


def count_tokens(learner: Learner) -> dict[str, int] | None:
    """Length of the sequence that the blocks work on; None for models without one."""
    model, size = getattr(learner.task, "model", None), learner.info.preprocessing.image_size
    if isinstance(model, VisionTransformer):
        (rows, columns), prefix = model.grid(size), model.num_prefix
    elif isinstance(model, Mixer):
        (rows, columns), prefix = grid_size(size, model.patch_size), 0
    else:
        return None
    return {"patches": rows * columns, "prefix": prefix, "sequence": rows * columns + prefix}


def parameters(work: Work, depth: int) -> dict[str, Any]:
    params, transform = without_places(work.state.params), work.learner.optimizer.transform

    def update(gradients: Tree, params: Tree) -> Tree:
        return transform.update(gradients, transform.init(params), params)[0]

    return {
        "total": cost.count_parameters(params),
        "trainable": cost.count_trained(update, params),
        "table": [row._asdict() for row in cost.parameter_table(params, depth)],
    }
