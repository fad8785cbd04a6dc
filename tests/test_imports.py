"""Who may import whom, what importing does (nothing), and how long the files are.

A room is a folder below vit_jax/, or a file directly in it.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vit_jax"
FILES = sorted(PACKAGE.rglob("*.py"))

# What protocols draw with.
OF_EVALUATION = {
    f"analysis.{kind}_figures"
    for kind in ("classification", "probe", "reconstruction", "retrieval", "shift")
}

# May be imported by every room; they know none themselves but each other.
FOUNDATIONS = {"core", "errors", "sections"}
# What else a room may import, beside itself. Rooms that are not named here compose the others.
ALLOWED = {
    "core": set(),
    "errors": set(),
    "config_files": set(),
    "sections": {"errors"},
    "workdir": set(),
    "xla_flags": set(),
    "layers": set(),
    "losses": set(),
    "models": {"layers"},
    "tasks": {"models", "layers", "losses", "data.mixing"},
    "data": set(),
    "train": set(),
    "evaluation": {"data", *OF_EVALUATION},
    # Files state their preprocessing; a run of one's own is a source of weights, too.
    "weights": {"models", "layers", "data.images.preprocessing", "train.checkpoint"},
    "analysis": {"models", "layers", "train.sinks", "data.batching.rows"},
}
# The composition root, which nothing below it may know.
ROOTS = {
    "evaluators",
    "experiment",
    "explain",
    "restoring",
    "sweeps",
    "initial",
    "learner",
    "one_run",
    "planning",
    "papers",
    "previewing",
    "reporting",
    "teacher_source",
    "__main__",
    "commands",
    "launch",
    "workdir",
}


def imports(path):
    """Full names of everything a file imports, at the top or inside a function.

    `from vit_jax import sections` is 'vit_jax.sections'.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def inner_imports(path):
    """What a file imports of vit_jax, without that prefix: 'data.mixing.Mixing'."""
    names = (name for name in imports(path) if name.split(".")[0] == "vit_jax")
    return [name.removeprefix("vit_jax.") for name in names]


def is_within(name, allowed):
    return any(name == room or name.startswith(room + ".") for room in allowed)


def ids(path):
    return path.relative_to(ROOT).as_posix()


def test_every_room_is_known_to_this_test():
    rooms = {room_of(path) for path in FILES}
    assert rooms - {"__init__"} <= ALLOWED.keys() | ROOTS


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) in ALLOWED], ids=ids)
def test_rooms_import_only_what_stands_below_them(path):
    room = room_of(path)
    allowed = {room, *ALLOWED[room]} | (FOUNDATIONS if room not in FOUNDATIONS else set())
    for name in inner_imports(path):
        assert is_within(name, allowed), f"{path} imports {name}"


@pytest.mark.parametrize("name", sorted(OF_EVALUATION))
def test_figures_of_protocols_draw_and_know_no_model(name):
    """Or else evaluation would reach through them what it may not import."""
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    for name in inner_imports(path):
        assert is_within(name, {"errors", "analysis.figures", *OF_EVALUATION}), name


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) not in ROOTS], ids=ids)
def test_only_commands_and_the_entry_point_import_the_experiment(path):
    for name in inner_imports(path):
        assert not is_within(name, ROOTS - {"workdir"}), f"{path} imports {name}"


@pytest.mark.parametrize("path", [p for p in FILES if room_of(p) == "sweeps"], ids=ids)
def test_sweeps_know_nothing_of_papers(path):
    """Whose tables are sweeps."""
    assert not [name for name in inner_imports(path) if is_within(name, {"papers"})]


@pytest.mark.parametrize("room", ["explain", "sweeps", "sweeps/reports"])
def test_a_room_of_many_files_says_what_each_holds(room):
    told = ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))
    names = {path.name for path in (PACKAGE / room).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"\w+\.py", told)) == names


@pytest.mark.parametrize(
    "rooms, module, reason",
    [
        ({"data"}, "flax", "data is NumPy"),
        ({"core"}, "optax", "the contract is jax and flax alone"),
        ({room_of(p) for p in FILES} - {"commands"}, "absl.flags", "flags live in commands alone"),
        ({room_of(p) for p in FILES}, "tensorflow", "no TensorFlow at run time"),
        (
            {room_of(p) for p in FILES},
            "experiments",
            "experiments import vit_jax, never the reverse",
        ),
        ({room_of(p) for p in FILES}, "configs", "configs are read as files"),
        ({room_of(p) for p in FILES}, "tests", "tests are no part of it"),
    ],
)
def test_libraries_stay_in_their_rooms(rooms, module, reason):
    for path in FILES:
        if room_of(path) in rooms:
            for name in imports(path):
                assert not is_within(name, {module}), f"{path} imports {name}: {reason}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_is_imported_by_string(path):
    text = path.read_text()
    names = [name for name in imports(path) if is_within(name, {"importlib", "pkgutil", "imp"})]
    assert all(is_within(name, {"importlib.metadata"}) for name in names), names
    called = {n.func.id for n in ast.walk(ast.parse(text)) if is_named_call(n)}
    assert not called & {"__import__", "exec", "eval"}


def is_named_call(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name)


CONFIGS = sorted((ROOT / "configs").rglob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=ids)
def test_configs_are_plain_data(path):
    for name in imports(path):
        allowed = {"ml_collections", "configs.common", "vit_jax.sweeps.trials"}
        assert is_within(name, allowed), f"{path} imports {name}"


def test_these_tests_see_what_they_forbid(tmp_path):
    """Imports inside functions, of packages and of names."""
    path = tmp_path / "a.py"
    path.write_text(
        "import jax.numpy as jnp, os\n"
        "from vit_jax import models, core\n"
        "def f():\n    from vit_jax.train.step import add\n    import vit_jax.experiment\n"
    )
    assert set(inner_imports(path)) == {"models", "core", "train.step.add", "experiment"}
    assert {"jax.numpy", "os"} <= set(imports(path))
    assert is_within("train.step.add", {"train"}) and not is_within("training", {"train"})
    path.write_text("from . import step\n")
    with pytest.raises(AssertionError, match="relative"):
        list(imports(path))


# what importing does

IMPORT_ALL = """
import sys
{imports}
from absl import flags
from jax._src import xla_bridge
assert not xla_bridge._backends, f"devices were opened: {{xla_bridge._backends}}"
optional = ("torch", "safetensors", "huggingface_hub", "wandb", "submitit", "matplotlib.pyplot")
for name in ("tensorflow", "optuna", "cmaes", *optional):
    assert name not in sys.modules, f"{{name}} was imported"
own = [m for m in flags.FLAGS.flags_by_module_dict() if m.startswith("vit_jax")]
assert not own, f"global flags were defined in {{own}}"
print("done", end="")
"""


def test_importing_everything_does_no_work():
    modules = [
        path.relative_to(ROOT)
        .with_suffix("")
        .as_posix()
        .replace("/", ".")
        .removesuffix(".__init__")
        for path in FILES
    ]
    assert len(modules) > 40
    program = IMPORT_ALL.format(imports="\n".join(f"import {module}" for module in modules))
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert (found.returncode, found.stdout) == (0, "done"), found.stderr


# lengths


def lines(path):
    return len(path.read_text().splitlines())


def test_a_whole_training_run_can_be_read_in_fifteen_minutes():
    path = (
        "experiment",
        "core",
        "train/loop",
        "train/step",
        "tasks/classification",
        "models/vit_network",
    )
    files = [ROOT / "configs" / "digits.py", *(PACKAGE / f"{name}.py" for name in path)]
    assert sum(map(lines, files)) < 1000


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_files_stay_short(path):
    assert lines(path) < 500
