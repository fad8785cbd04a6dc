"""python -m vit_jax predict --workdir=DIR IMAGE_OR_FOLDER ... [--output=DIR]"""

import sys
from pathlib import Path

from absl import flags

from vit_jax.commands import parsing, processes
from vit_jax.errors import InputError

SHEET = 60  # images on the contact sheet


def main(arguments: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("checkpoint", "last", "last, best or a step", flag_values=values)
    flags.DEFINE_string(
        "output", None, "folder for the tables; by default WORKDIR/predictions", flag_values=values
    )
    flags.DEFINE_integer("top_k", 5, "classes to tell of", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("batch_size", 64, "images at a time", lower_bound=1, flag_values=values)
    paths = parsing.parse(values, "predict", arguments, doc=__doc__)
    workdir = parsing.require(values, "workdir")
    if not paths:
        raise InputError("no image is named; allowed: image files and folders of them.")
    processes.refuse("predict")
    output = Path(values.output or Path(workdir) / "predictions")

    from vit_jax import restoring
    from vit_jax.analysis import figures
    from vit_jax.evaluation import prediction
    from vit_jax.workdir import check_writable

    images = prediction.find_images(paths)
    check_writable(output)
    learner, state, _ = restoring.restore(workdir, checkpoint=values.checkpoint)
    bad: list[str] = []
    readable = prediction.read_all(images, learner.info.preprocessing, on_bad=bad.append)
    predictions, sheet = [], []
    for path, image, probabilities in learner.probabilities(state, readable, values.batch_size):
        found = prediction.top_classes(path, probabilities, learner.info.class_names, values.top_k)
        predictions.append(found)
        sheet += [image] if len(sheet) < SHEET else []
        pairs = zip(found.classes, found.probabilities, strict=True)
        print(path, " ".join(f"{name} {share:.1%}" for name, share in pairs), sep="\t")
    for message in bad:
        print(f"error: {message}", file=sys.stderr)
    if predictions:
        prediction.write_csv(predictions, output / "predictions.csv")
        prediction.write_json(predictions, output / "predictions.json")
        captions = [f"{p.classes[0]} {p.probabilities[0]:.0%}" for p in predictions[:SHEET]]
        figures.draw_predictions(sheet, captions, output / "predictions.png")
        print(f"wrote predictions.csv, .json and .png to {output}", file=sys.stderr)
    return 2 if bad else 0
