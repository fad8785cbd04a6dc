"""python -m vit_jax <command> ...; also installed as `vit-jax`.

Exit codes: 0 done; 1 an audit found problems, or trials of a sweep failed; 2 bad input, explained
in one sentence; 3 the loss or gradient became NaN or infinite; 69 another process is gone or never
came; 75 stopped by SIGTERM with everything saved, so the same command continues.
"""

import logging
import sys
from collections.abc import Callable

from vit_jax.errors import InputError

EXIT_BAD_INPUT = 2
EXIT_DIVERGED = 3


# Imported on use: a command need not wait for what only another one needs.
def _train(arguments):
    from vit_jax.commands import train

    return train.main(arguments)


def _evaluate(arguments):
    from vit_jax.commands import evaluate

    return evaluate.main(arguments)


def _predict(arguments):
    from vit_jax.commands import predict

    return predict.main(arguments)


def _explain(arguments):
    from vit_jax.commands import explain

    return explain.main(arguments)


def _convert(arguments):
    from vit_jax.commands import convert

    return convert.main(arguments)


def _prepare(arguments):
    from vit_jax.commands import prepare

    return prepare.main(arguments)


def _plan(arguments):
    from vit_jax.commands import plan

    return plan.main(arguments)


def _sweep(arguments):
    from vit_jax.commands import sweep

    return sweep.main(arguments)


COMMANDS = {
    "train": (_train, "train what a config describes, or continue"),
    "sweep": (_sweep, "run many trials of a config, or search for the best"),
    "evaluate": (_evaluate, "measure a checkpoint, or published weights"),
    "plan": (_plan, "tell parameters, FLOPs, memory and length of a run, without running it"),
    "predict": (_predict, "classify image files with a checkpoint"),
    "explain": (_explain, "draw what a model attends to and has learned, as a page"),
    "prepare": (_prepare, "images as sharded ArrayRecord; or an audit of a data set"),
    "convert": (_convert, "published weights or a run's, written as another library wants them"),
}


def main(arguments: list[str] | None = None) -> None:
    quiet_libraries()
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print("usage: python -m vit_jax <command> [--help | options]\n")
        for name, (_, text) in COMMANDS.items():
            print(f"  {name:10} {text}")
        return
    name, *rest = arguments
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    sys.exit(exit_code(lambda: COMMANDS[name][0](rest)))


def quiet_libraries() -> None:
    # Orbax warns by this name of what is as it should be: reading read-only, several items a step.
    logging.getLogger("absl").setLevel(logging.ERROR)


def exit_code(command: Callable[[], int]) -> int:
    """What the command returns, or the code of its mistake, which is told in one sentence."""
    try:
        return command()
    except InputError as error:
        from vit_jax.reporting import Diverged

        print(f"error: {error}", file=sys.stderr)
        return EXIT_DIVERGED if isinstance(error, Diverged) else EXIT_BAD_INPUT


if __name__ == "__main__":
    main()
