"""The notebooks, run from their own folder in tiny form; and what is committed of them."""

import ast
import csv
import re
from collections import Counter

import nbclient
import nbformat
import pytest
from pages import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
# Pictures that each draws.
PICTURES = {
    "finetune_your_task": 2,
    "look_inside": 4,
    "paper_tables": 1,
    "pods": 1,
    "quickstart": 2,
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(name: str) -> list[str]:
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def outputs(notebook: nbformat.NotebookNode) -> list:
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pictures(notebook: nbformat.NotebookNode) -> int:
    return sum("image/png" in output.get("data", ()) for output in outputs(notebook))


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_in_tiny_form(request, installed, tmp_path, monkeypatch, name):
    """On what the quickstart left, from its own folder, with its cells as they are committed."""
    if "GPT1_QUICKSTART" in "".join(code(name)):
        folder, _ = request.getfixturevalue("reader")
        monkeypatch.setenv("GPT1_QUICKSTART", str(folder / "runs" / "quickstart"))
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    found = read(name)
    first = next(cell for cell in found.cells if cell.cell_type == "code")
    assert "\nTINY = False\n" in first.source
    # The installation has been done, by the fixture.
    tiny = re.sub(r"^%pip install .*$", "", first.source, count=1, flags=re.MULTILINE)
    first.source = tiny.replace("TINY = False", "TINY = True", 1)
    resources = {"metadata": {"path": FOLDER}}
    nbclient.NotebookClient(found, timeout=300, resources=resources).execute()
    assert pictures(found) == PICTURES[name]


@pytest.mark.parametrize("name", NAMES)
def test_it_calls_the_package_and_defines_nothing(name):
    cells = code(name)
    assert cells[0].count('%pip install -q -c {constraints} "..[notebooks]"') == 1
    plain = re.sub(r"^(\s*)[%!].*$", r"\1...", "\n".join(cells), flags=re.MULTILINE)
    assert sum(bool(line.strip()) for line in plain.splitlines()) < 110
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(plain)) if isinstance(node, definitions)]
    nbformat.validate(read(name))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_committed_with_what_a_whole_run_showed(name):
    notebook = read(name)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert pictures(notebook) == PICTURES[name]
    shown = outputs(notebook)
    assert not [output for output in shown if output.output_type == "error"]
    assert not re.search(r"/(root|home|tmp|work|Users)/", str(shown))


def test_the_first_cells_are_the_same():
    assert len({code(name)[0] for name in NAMES}) == 1


def test_the_film_reviews_are_distinct_and_balanced():
    with open(FOLDER / "film_reviews.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["verdict"] for row in rows) == {"good": 100, "bad": 100}
    assert len({row["review"] for row in rows}) == 200
