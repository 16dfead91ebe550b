"""The shape of the house: imports go one way, and the command line starts without JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import gpt1_jax

PACKAGE = Path(gpt1_jax.__file__).parent

RANKS = (
    "dropout errors scores task_table workers",
    "attention baselines batches checkpoint config_files documentation optimizer original "
    "record sharding sources task_files vocabulary",
    "documentation_tasks gpt measured openai_format paper task_sets tokenizer",
    "compare lstm shards transformations",
    "corpus objective tasks",
    "evaluate glue sample tables weights",
    "figures huggingface_heads huggingface_tokenizer internals markdown probes scoring sentences",
    "experiment huggingface_format model_card page",
    "native_format report",
    "released_weights",
    "start trained",
    "files train zero_shot",
    "reproduce",
    "quickstart",
    "__main__",
)
RANK = {module: rank for rank, row in enumerate(RANKS) for module in row.split()}


def modules():
    return [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]


def imported(path):
    """The modules of the package that a file imports, wherever in the file it does."""
    known = {module.stem for module in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpt1_jax"):
            last = node.module.rpartition(".")[2]
            names = [last] if last in known else [alias.name for alias in node.names]
            yield from (name for name in names if name in known)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("gpt1_jax.")]
            yield from (name.rpartition(".")[2] for name in names)


def test_every_module_has_a_rank_and_every_rank_a_module():
    assert sorted(RANK) == sorted(path.stem for path in modules())


def test_imports_go_down_the_ranks():
    wrong = [
        f"{path.stem} imports {name}"
        for path in modules()
        for name in imported(path)
        if RANK[name] >= RANK[path.stem]
    ]
    assert not wrong


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
