"""The notebooks, run from their own folder in tiny form; and what is committed of them."""

import ast
import csv
import re
import subprocess
import sys
from collections import Counter

import nbclient
import nbformat
import pytest
from pages import ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
REPOSITORY = re.search(r'url="https://github.com/(.+)"', (ROOT / "setup.py").read_text())[1]
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no clone")
def test_a_notebook_that_comes_alone_fetches_its_repository(tmp_path, monkeypatch):
    """As on Colab; git is told that this clone stands for what is published."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{ROOT}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", f"https://github.com/{REPOSITORY}")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    first = re.sub(r"^%pip install .*$", "", code("quickstart")[0], flags=re.MULTILINE)
    cells = map(nbformat.v4.new_code_cell, (first, "%ls film_reviews.csv ../setup.py"))
    notebook = nbformat.v4.new_notebook(cells=list(cells))
    resources = {"metadata": {"path": tmp_path}}
    nbclient.NotebookClient(notebook, timeout=60, resources=resources).execute()
    assert "No such file" not in str(outputs(notebook))
    assert (tmp_path / REPOSITORY.split("/")[1] / "notebooks" / "pods.ipynb").exists()


def test_where_the_project_is_published_stands_in_one_place():
    for name in NAMES:
        badge = f"colab.research.google.com/github/{REPOSITORY}/blob/main/notebooks/{name}.ipynb"
        assert badge in read(name).cells[0].source
        assert f"https://github.com/{REPOSITORY}\n" in code(name)[0]
    for name in ("README.md", "CITATION.cff"):
        assert REPOSITORY in (ROOT / name).read_text()


def test_a_move_is_written_everywhere(tmp_path):
    names = ["setup.py", "README.md", "CITATION.cff", "scripts/badges.py"]
    for name in (*names, *(f"notebooks/{name}.ipynb" for name in NAMES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        moved = (ROOT / name).read_text()
        if name == "setup.py":
            moved = moved.replace(REPOSITORY, "somebody/else")
        (tmp_path / name).write_text(moved)
    subprocess.run([sys.executable, tmp_path / "scripts" / "badges.py"], check=True)
    for path in [path for path in tmp_path.rglob("*") if path.suffix in (".md", ".cff", ".ipynb")]:
        assert "somebody/else" in path.read_text()
        assert REPOSITORY not in path.read_text()
    assert "%cd -q else/notebooks" in (tmp_path / "notebooks" / "pods.ipynb").read_text()


def test_the_film_reviews_are_distinct_and_balanced():
    with open(FOLDER / "film_reviews.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["verdict"] for row in rows) == {"good": 100, "bad": 100}
    assert len({row["review"] for row in rows}) == 200
