"""python -m vit_jax convert --from=SOURCE --to=TARGET --format=LAYOUT

Reads published weights or a run's own, and writes them as another library wants them: a file *.npz
for --format=google or big_vision, a folder for huggingface or timm (with --architecture=NAME).
SOURCE is a file, a folder, hf:owner/name, https://... or gs://...; only the last three are fetched.
"""

from absl import flags

from vit_jax.commands import parsing
from vit_jax.config_files import literal


def main(arguments: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("from", None, "weights to read, see above", flag_values=values)
    flags.DEFINE_string("to", None, "file or folder to write", flag_values=values)
    flags.DEFINE_string("format", None, "layout to write", flag_values=values)
    flags.DEFINE_string(
        "architecture", None, "timm's name of the model to write", flag_values=values
    )
    flags.DEFINE_string(
        "source_architecture", None, "timm's name of the model to read", flag_values=values
    )
    flags.DEFINE_list("image_size", [], "other HEIGHT,WIDTH to resize to", flag_values=values)
    parsing.reject_positional(parsing.parse(values, "convert", arguments, doc=__doc__))
    source, target = parsing.require(values, "from"), parsing.require(values, "to")
    layout = parsing.require(values, "format")

    from vit_jax import weights

    size = tuple(literal(side) for side in values.image_size)
    found = weights.load(
        source,
        architecture=values.source_architecture,
        image_size=(size * 2)[:2] if size else None,
    )
    print(found.report)
    weights.save(
        target,
        found.model,
        found.variables,
        layout=layout,
        preprocessing=found.preprocessing,
        class_names=found.class_names,
        architecture=values.architecture,
    )
    print(f"wrote {target} as {layout}")
    return 0
