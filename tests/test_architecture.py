"""The shape of the house: imports go one way, and the command line starts without JAX."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import gpt1_jax

PACKAGE = Path(gpt1_jax.__file__).parent

# The rooms from the top of the house down. Those of one line do not know each other, and the
# modules of `.` are those beside the rooms; `__main__` may call all of them.
ROOMS = """
experiments
machine
training inference
runtime
recipe
evaluation weights results
data
model
kernels
text
tokenization
storage
files
.
"""
FLOOR = {room: n for n, line in enumerate(ROOMS.split("\n")) for room in line.split()}


def modules():
    return [path for path in PACKAGE.rglob("*.py") if not path.stem.startswith("__")]


def room(path):
    return path.relative_to(PACKAGE).parent.as_posix()


def imported(path):
    """The rooms of the package that a file imports from, wherever in the file it does."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt1_jax"):
            first = [*node.module.split("."), *(alias.name for alias in node.names)][1]
            yield first if first in FLOOR else "."
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("gpt1_jax.") for alias in node.names), path


def test_a_room_imports_only_rooms_below_it():
    wrong = [
        f"{path.relative_to(PACKAGE)} imports from {other}"
        for path in modules()
        for other in imported(path)
        if other != room(path) and FLOOR[other] <= FLOOR[room(path)]
    ]
    assert not wrong


def test_the_page_about_it_shows_the_rooms_in_this_order():
    page = Path(__file__).resolve().parents[1] / "docs" / "architecture.md"
    shown = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert shown == [name for name in FLOOR if name != "." and (PACKAGE / name).is_dir()]


def test_rooms_modules_and_functions_stay_small():
    for name in FLOOR:
        assert len([path for path in modules() if room(path) == name]) <= 13, name
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert text.count("\n") <= 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_no_module_imports_configs():
    assert not [path for path in modules() if "import configs" in path.read_text()]


def test_the_model_reads_no_files():
    for path in (PACKAGE / "model").glob("*.py"):
        assert not {"open(", "pathlib", "import os", "jax.sharding"} & set(path.read_text().split())


def test_help_imports_neither_jax_nor_tensorflow():
    script = (
        "import sys\nfrom gpt1_jax.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'jax', 'numpy', 'tensorflow', 'flax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
