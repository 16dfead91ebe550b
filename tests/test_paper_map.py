"""docs/paper.md: what it names is there, and each row names code and a test or says none."""

import ast
import functools
import re
from pathlib import Path

import pytest

from gpt1_jax.recipe import experiment

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "paper.md").read_text()
REFERENCE = re.compile(r"`([\w/]+\.py):([^`]+)`")
SECTIONS = {key.partition(".")[0] for key in experiment.KEYS if "." in key}
CONFIG_KEY = re.compile(rf"`((?:{'|'.join(SECTIONS)})(?:\.\w+)+)(?:=\w+)?`")


@functools.cache
def symbols(path: Path) -> frozenset[str]:
    """What a file defines, as name, Class.method and Dataclass.field, without importing it."""

    def defined(body: list[ast.stmt], prefix: str = ""):
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from defined(node.body, f"{prefix}{node.name}.")
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            yield from (prefix + target.id for target in targets if isinstance(target, ast.Name))

    return frozenset(defined(ast.parse(path.read_text()).body))


def fault(file: str, symbol: str) -> str | None:
    """What is wrong with `file:symbol`; of configs, a symbol may also be the arguments."""
    if not (ROOT / file).is_file():
        return f"{file}: no such file"
    if symbol in symbols(ROOT / file):
        return None
    if file.startswith("configs/"):
        experiment.load(f"{file}:{symbol}")
        return None
    return f"{file} has no {symbol}"


def rows() -> list[list[str]]:
    """The cells of each row of the page's tables."""
    lines = [line for line in PAGE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if row[0] not in ("The paper says", "Not said", "---")]


def test_every_place_that_the_page_names_is_there():
    references = set(REFERENCE.findall(PAGE))
    assert len(references) > 150
    assert not list(filter(None, (fault(*reference) for reference in sorted(references))))


@pytest.mark.parametrize(
    "wrong",
    [
        ("gpt1_jax/model/gtp.py", "GPT"),
        ("gpt1_jax/model/gpt.py", "GPT2"),
        ("gpt1_jax/model/gpt.py", "GPT.encode"),
        ("tests/test_gpt.py", "test_that_nobody_wrote"),
    ],
)
def test_a_place_that_is_not_there_is_found(wrong):
    assert fault("gpt1_jax/model/gpt.py", "GPT.output") is None
    assert fault(*wrong)


def test_every_key_that_the_page_names_is_one():
    keys = set(CONFIG_KEY.findall(PAGE))
    assert len(keys) > 20
    assert keys <= set(experiment.KEYS)


def test_every_row_names_its_code_and_its_test_or_says_that_there_is_none():
    assert len(rows()) > 100
    for row in rows():
        statement, code, test = row
        assert REFERENCE.search(code) or CONFIG_KEY.search(code) or "none" in code, statement
        names = [symbol for file, symbol in REFERENCE.findall(test) if file.startswith("tests/")]
        assert names or test.startswith("none"), statement
        assert all(name.startswith("test_") for name in names), statement
