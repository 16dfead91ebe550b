"""The page and the notebook about using models do what they say, on models of a test."""

import ast
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from gpt1_jax.__main__ import requested

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "using_models.md").read_text()
NOTEBOOK = json.loads((ROOT / "notebooks" / "explore.ipynb").read_text())
CELLS = ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, new."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def placed(folder, **workdirs):
    for name, workdir in workdirs.items():
        place = folder / "runs" / name.replace("__", "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(workdir)


def run(blocks):
    """Executes the blocks one after the other, and returns the names that they leave."""
    names = {}
    for block in blocks:
        exec(compile(block, "block", "exec"), names)
    return names


def test_the_code_of_the_page_runs(folder, pretrained, finetuned, capsys):
    placed(folder, lm=pretrained, reviews=finetuned)
    names = run(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
    assert len(names["samples"]) == 3
    assert "'rain'" in capsys.readouterr().out
    assert names["long_context"]["ids"] == names["short_context"]["ids"]
    assert names["long_context"]["logprobs"] != names["short_context"]["logprobs"]
    length = len(names["pieces"])
    assert "".join(names["pieces"]) == names["text"]
    assert names["states"].shape == (3, length, 16)
    weights = names["weights"]
    assert weights.shape == (2, 2, length, length)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not np.triu(weights, 1).any()


def test_the_commands_of_the_page_parse():
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines():
        assert requested(shlex.split(line)[1:])


def test_the_notebook_calls_the_package_and_defines_nothing():
    code = "\n".join(CELLS[1:])
    assert CELLS[0].startswith("%pip install")
    assert "\n" not in CELLS[0]
    assert sum(bool(line.strip()) for line in code.splitlines()) < 60
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, definitions)]
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in NOTEBOOK["cells"]}) == len(NOTEBOOK["cells"])
    assert not any(c["outputs"] for c in NOTEBOOK["cells"] if c["cell_type"] == "code")


def test_the_notebook_runs(folder, pretrained, finetuned, capsys):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    placed(
        folder,
        quickstart__pretrained=pretrained,
        **{"quickstart__finetuned__full__next_word-0": finetuned},
    )
    (folder / "runs" / "quickstart" / "result.json").write_text("{}")
    # The prompts are those of a larger vocabulary, whose words are not spelt byte by byte.
    short = {"This function returns": "the cat", "Return the name of the file.": "the cat sat"}
    cells = CELLS[1:]
    for long, fitting in short.items():
        assert sum(long in cell for cell in cells) == 1
        cells = [cell.replace(long, fitting) for cell in cells]
    names = run(cells)
    assert capsys.readouterr().out.count("the cat") >= 3
    assert len(pyplot.get_fignums()) == 3
    pyplot.close("all")
    assert sum(names["answer"]["probabilities"]) == pytest.approx(1)
