"""What README and docs/ tell a reader to type is typed, in their order."""

import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import reproductions
import runs
from pages import ALL, ROOT, TYPED

import gpt1_jax
from gpt1_jax.recipe import experiment

README = (ROOT / "README.md").read_text()

# What is no command of gpt1: the parts of the line that .ci/run types as it stands, and a download,
# in place of which pages.RELEASED makes the same files.
OTHERS = [
    r"python3 -m venv \.venv --upgrade-deps",
    r"\.venv/bin/pip install .*",
    r"\.venv/bin/pytest.*",
    "git clone https://github.com/openai/finetune-transformer-lm",
]


def test_every_command_is_one_that_somebody_runs():
    """Here, or those of the first two blocks by .ci/run, as they stand."""
    ran = (ROOT / ".ci" / "run").read_text()
    line = re.search(r"grep -m1 -E '([^']+)'", ran).group(1)
    assert re.search(line, README, re.MULTILINE)
    for command in set(ALL) - set(TYPED):
        assert any(re.fullmatch(known, command.text) for known in OTHERS), command


def test_the_first_two_blocks_install_run_and_test_in_one_line_each():
    quickstart, test = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)[:2]
    assert quickstart.count("\n") == test.count("\n") == 1
    assert quickstart.rstrip().endswith("gpt1 quickstart")
    assert test.rstrip().endswith("pytest")
    assert "[test]" in test


@pytest.mark.parametrize("command", TYPED, ids=lambda command: f"{command.page}: {command.text}")
def test_the_command_does_what_it_should(reader, command):
    outcome = reader[1][command]
    assert outcome["status"] == 0, outcome["errors"]
    assert json.loads(outcome["output"].splitlines()[-1])


def test_what_was_typed_is_there(reader):
    folder, _ = reader
    for workdir in ("runs/quickstart", "runs/lm", "runs/reviews"):
        assert json.loads((folder / workdir / "result.json").read_text())
    answers = (folder / "labels.jsonl").read_text().splitlines()
    assert {json.loads(line)["label"] for line in answers} <= {"rain", "sun"}
    assert len(answers) == 5
    assert (folder / "report" / "report.html").exists()


def keys(value) -> set[str]:
    """Of an object and of the objects in it, with dots."""
    inner = {key: keys(one) for key, one in value.items() if isinstance(one, dict)}
    return {*value, *(f"{key}.{name}" for key, names in inner.items() for name in names)}


def test_what_tests_of_the_report_make_up_has_the_form_of_what_reproduce_leaves(reader, tmp_path):
    made, left = reproductions.write(tmp_path / "made"), reader[0] / "runs" / "table5"
    ledgers = [json.loads((f / "reproduction.json").read_text()) for f in (made, left)]
    assert set(ledgers[0]) <= set(ledgers[1])
    entries = [next(e for e in one["runs"] if e["variant"] == "full") for one in ledgers]
    assert set(entries[0]) <= set(entries[1])
    folders = [f / entry["folder"] for f, entry in zip((made, left), entries, strict=True)]
    for name in ("config.json", "result.json"):
        written, found = (json.loads((folder / name).read_text()) for folder in folders)
        assert keys(written) <= keys(found), name
    splits = [{row["split"] for row in runs.rows(folder)} for folder in folders]
    assert splits[0] - {"train_examples"} <= splits[1]


def test_every_verb_is_in_the_readme_and_the_other_way_round(installed):
    done = subprocess.run(
        [sys.executable, "-m", "gpt1_jax", "--help"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
        check=True,
    )
    verbs = re.findall(r"^ {2,4}(\w+) +[A-Za-z]", done.stdout, re.MULTILINE)
    assert {c.words()[0] for c in TYPED if c.page == "README.md"} == set(verbs)


def run_code(page: str) -> dict:
    """The names that the Python blocks of a page leave, run from top to bottom."""
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        exec(compile(block, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_code_of_the_page_about_the_library_runs(reader, tmp_path, monkeypatch):
    shutil.copytree(reader[0] / "books", tmp_path / "books")
    monkeypatch.chdir(tmp_path)
    names = run_code("docs/library.md")
    assert names["result"]["step"] == 4
    assert names["losses"][4] == names["result"]["metrics"]["valid"]["loss"]
    sent = dict(names["sent"])
    assert sent[4]["valid/loss"] == names["losses"][4]
    assert names["settings"]["model"]["n_layer"] == 1
    assert len(names["look"].places) == len(names["scored"]["ids"])
    assert "no_such_run" in names["said"]
    assert names["hidden"].shape == (1, 8, 32)


@pytest.mark.slow
def test_the_code_of_the_page_about_using_models_runs(reader, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(reader[0])
    names = run_code("docs/using_models.md")
    assert len(names["samples"]) == 3
    said = capsys.readouterr().out
    assert "'rain'" in said
    assert len(names["rows"]) == 5
    assert said.count(" sure of ") == len(names["mistakes"])
    assert names["long_context"]["ids"] == names["short_context"]["ids"]
    assert names["long_context"]["logprobs"] != names["short_context"]["logprobs"]
    length = len(names["pieces"])
    assert "".join(names["pieces"]) == names["text"]
    model = gpt1_jax.load("runs/lm").model_config
    assert names["states"].shape == (model.n_layer + 1, length, model.n_embd)
    weights = names["weights"]
    assert weights.shape == (model.n_layer, model.n_head, length, length)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert not np.triu(weights, 1).any()
    assert len(names["surprise"]) == length
    assert 0 < names["likeliest"].probability <= 1
    assert (reader[0] / "look.html").read_text().startswith("<!DOCTYPE html>")


def test_every_key_of_the_table_of_settings_exists():
    page = (ROOT / "docs" / "settings.md").read_text()
    rows = [line.split("|")[1:4] for line in page.splitlines() if line.startswith("| `")]
    assert rows
    for sections, _, keys in rows:
        for section in re.findall(r"`(\w+)`", sections):
            found = {key for key in experiment.KEYS if key.startswith(f"{section}.")}
            assert found
            if len(re.findall("`", sections)) == 2:
                assert {f"{section}.{key}" for key in re.findall(r"`(\w+)`", keys)} <= found


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/settings.md"])
def test_files_that_the_page_names_are_there(page):
    for name in re.findall(r"`((?:\w+/)*\w+\.py)", (ROOT / page).read_text()):
        assert (ROOT / name).exists() or (ROOT / "gpt1_jax" / name).exists(), name
