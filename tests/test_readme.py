"""What README and docs/ tell a reader to type is typed, in their order, and the notebook is run.

The package is installed from a wheel, the folder is empty but for what a reader brings along, and
the commands come out of the Markdown. TINY makes them small; nothing else is changed.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
import reproductions
import runs

import gpt1_jax
from gpt1_jax.recipe import experiment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
NOTEBOOK = ROOT / "notebooks" / "explore.ipynb"
VOCABULARY = ROOT / "tests" / "golden" / "huggingface" / "language_model"

# What is no command of gpt1: the parts of the line that .ci/run types as it stands, and a download,
# in place of which RELEASED makes the same files.
OTHERS = [
    r"python3 -m venv \.venv",
    r"\.venv/bin/pip install .*",
    r"\.venv/bin/pytest.*",
    "git clone https://github.com/openai/finetune-transformer-lm",
]
SIZES = {
    "model.n_layer": 2,
    "model.n_embd": 64,
    "model.n_head": 1,  # the layout of OpenAI has heads of 64
    "model.n_ctx": 64,
    "batch_size": 8,
    "eval.windows": 8,
    "eval.batch_size": 8,
    "mesh.data": 1,
}
KEYS = [f"--config.{key}={value}" for key, value in SIZES.items()]
BENCHMARK = ["--batch=8", "--seq=16", "--layers=1", "--d=16", "--heads=1", "--vocab=300"]
BENCHMARK += ["--rounds=1", "--steps=1", "--dtype=float32"]
# How one of its words begins, and what is added to such a command.
TINY = [
    ("--config=configs/pretrain.py", [*KEYS, "--config.stop_after=2"]),
    ("--config=configs/finetune.py", ["--config.stop_after=2", "--config.mesh.data=1"]),
    ("reproduce", [*KEYS, "--config.model.n_units=16", "--config.steps=2"]),
    ("reproduce", ["--scale=small", "--tasks=cola", "--seeds=0", "--task_data=tasks"]),
    ("prepare", ["--workers=1"]),
    ("sample", ["--length=2"]),
    ("compile", ["--config.batch_size=16", "--config.mesh.data=-1", "--config.model.n_layer=1"]),
    ("benchmark", BENCHMARK),
]
# The last because no test reaches the Hub.
INSTEAD = {
    "--vocab_size=8192": "--vocab_size=300",
    "--stride=128": "--stride=32",
    "hf:openai-community/openai-gpt": "hf:export",
}
SMALLER = {
    '"n_layer": 3': '"n_layer": 1',
    '"n_embd": 128': '"n_embd": 32',
    '"n_units": 320': '"n_units": 32',
    '"buckets": (32, 48)': '"buckets": (48,)',
}


@dataclass(frozen=True)
class Command:
    """What a page says to type, and where."""

    page: str
    text: str

    def words(self) -> list[str]:
        """Those after `gpt1`, as the shell hands them over, in tiny form."""
        said = shlex.split(self.text, comments=True)[1:]
        for long, short in INSTEAD.items():
            said = [word.replace(long, short) for word in said]
        more = [added for start, added in TINY if any(word.startswith(start) for word in said)]
        return said + [word for added in more for word in added]


def commands(page: str) -> list[Command]:
    """Each line of the page's bash blocks, and each part of one that `&&` joins."""
    blocks = re.findall(r"```(?:bash|sh|shell|console)\n(.*?)```", (ROOT / page).read_text(), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [Command(page, part) for part in parts if part and not part.startswith("#")]


ALL = [command for page in PAGES for command in commands(page)]
TYPED = [command for command in ALL if command.text.split()[0] in ("gpt1", ".venv/bin/gpt1")]


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


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder into which a wheel of the package was installed, without what it needs."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("gpt1_jax", "configs"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    for words in (
        ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source)],
        ["install", "--no-deps", f"--target={folder / 'site'}", "gpt1-jax"],
    ):
        if words[0] == "install":
            words[-1] = str(next(folder.glob("*.whl")))
        subprocess.run([*pip, *words], check=True, cwd=folder, env=quiet)
    return folder / "site"


def bring_along(folder: Path) -> None:
    """What a reader has of their own: texts, rows of a task, and the vocabulary of 2018."""
    runs.write_documents(folder / "books", count=8)
    (folder / "book.txt").write_text((folder / "books" / "0.txt").read_text())
    runs.write_task(folder / "reviews", "classification")
    shutil.copy(folder / "reviews" / "test.jsonl", folder / "new.jsonl")
    numbered = (folder / "reviews" / "train.jsonl").read_text()
    for word, label in (('"rain"', "0"), ('"sun"', "1")):
        numbered = numbered.replace(f'"label": {word}', f'"label": {label}')
    for split in ("train", "dev"):
        (folder / "tasks" / "cola").mkdir(parents=True, exist_ok=True)
        (folder / "tasks" / "cola" / f"{split}.jsonl").write_text(numbered)
    runs.write_task(folder / "rte", "entailment")
    shutil.copytree(VOCABULARY, folder / "gpt1_bpe")
    # The quickstart with smaller models, one padded length, and so fewer programs to compile.
    smaller = (ROOT / "configs" / "quickstart.py").read_text()
    for long, short in SMALLER.items():
        assert long in smaller
        smaller = smaller.replace(long, short)
    (folder / "configs").mkdir()
    (folder / "configs" / "quickstart.py").write_text(smaller)


# They make the folder of the released weights, twice, as the pages have it in two places.
RELEASED = [
    "gpt1 prepare --output=short --input 'books/*.txt' --tokenizer=original --vocab=gpt1_bpe",
    "gpt1 train --config=configs/pretrain.py --workdir=short_run --config.data.path=short",
    "gpt1 convert --from=short_run --to=openai:model",
    "gpt1 convert --from=short_run --to=openai:finetune-transformer-lm/model",
]


@pytest.fixture(scope="module")
def reader(installed, tmp_path_factory):
    """(folder, outcomes): everything typed in one folder, README first, then docs/ by name."""
    folder = tmp_path_factory.mktemp("reader")
    bring_along(folder)
    typed = [*(Command("", text) for text in RELEASED), *TYPED]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "reader.py"],
        input=json.dumps([command.words() for command in typed]),
        env={
            **runs.environment(),
            "PYTHONPATH": str(installed),
            # Another test may have the compiler of TPUs open.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert [one["status"] for one in outcomes[: len(RELEASED)]] == [0] * len(RELEASED), outcomes
    return folder, dict(zip(typed, outcomes, strict=True))


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


def test_the_code_of_the_page_about_using_models_runs(reader, monkeypatch, capsys):
    monkeypatch.chdir(reader[0])
    names = {}
    for block in re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "using_models.md").read_text(), re.DOTALL
    ):
        exec(compile(block, "block", "exec"), names)
    assert len(names["samples"]) == 3
    assert "'rain'" in capsys.readouterr().out
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


def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_runs_on_what_the_quickstart_left(reader, installed, tmp_path, monkeypatch):
    """From its own folder, with its cells as they are committed."""
    monkeypatch.setenv("GPT1_QUICKSTART", str(reader[0] / "runs" / "quickstart"))
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    found = notebook()
    # The installation has been done, by the fixture.
    assert found.cells[1].source.startswith("%pip install")
    del found.cells[1]
    nbclient.NotebookClient(
        found, timeout=300, resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    outputs = [output for cell in found.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 3
    text = "".join(output.get("text", "") for output in outputs)
    assert text.count("This function returns") == 3


def test_the_notebook_calls_the_package_and_defines_nothing():
    cells = [cell.source for cell in notebook().cells if cell.cell_type == "code"]
    assert cells[0].startswith("%pip install")
    assert "\n" not in cells[0]
    code = re.sub(r"!gpt1 .*", "...", "\n".join(cells[1:]))
    assert sum(bool(line.strip()) for line in code.splitlines()) < 60
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(code)) if isinstance(node, definitions)]
    nbformat.validate(notebook())


def test_every_key_of_the_table_of_settings_exists():
    table = README.split("## Settings")[1].split("##")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    for sections, _, keys in rows:
        for section in re.findall(r"`(\w+)`", sections):
            found = {key for key in experiment.KEYS if key.startswith(f"{section}.")}
            assert found
            if len(re.findall("`", sections)) == 2:
                assert {f"{section}.{key}" for key in re.findall(r"`(\w+)`", keys)} <= found


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"`((?:\w+/)*\w+\.py)", README):
        assert (ROOT / name).exists() or (ROOT / "gpt1_jax" / name).exists(), name
