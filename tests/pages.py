"""The commands of README and docs/ in tiny form, and a reader's folder in which they are typed.

The package is installed from a wheel, the folder is empty but for what a reader brings along, and
the commands come out of the Markdown. TINY makes them small; nothing else is changed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import runs

from gpt1_jax.disk import write_json

ROOT = runs.ROOT
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
VOCABULARY = ROOT / "tests" / "golden" / "huggingface" / "language_model"

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
    ("compile", ["--config.model.vocab_size=300"]),
    ("reproduce", ["--config.model.n_layer=1"]),
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
    '"windows": 256': '"windows": 16',
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


def install(folder: Path) -> Path:
    """A wheel of the package is installed into a folder, without what it needs; returns what is to
    be in PYTHONPATH."""
    source, site = folder / "source", folder / "site"
    for name in ("gpt1_jax", "configs"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}
    for words in (
        ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(source)],
        ["install", "--no-deps", f"--target={site}", "gpt1-jax"],
    ):
        if words[0] == "install":
            words[-1] = str(next(folder.glob("*.whl")))
        subprocess.run([*pip, *words], check=True, cwd=folder, env=quiet)
    return site


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


# At last, when all of it is there.
AGAIN = Command("", "gpt1 quickstart")
# Beside what was typed.
OUTCOMES = "outcomes.json"


def type_all(installed: Path, folder: Path) -> None:
    """Everything is typed in one folder, README first, then docs/ by name."""
    bring_along(folder)
    typed = [*(Command("", text) for text in RELEASED), *TYPED, AGAIN]
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "reader.py"],
        input=json.dumps([command.words() for command in typed]),
        # A laptop has one device.
        env={
            **runs.environment(1),
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
    found = [[one.page, one.text, outcome] for one, outcome in zip(typed, outcomes, strict=True)]
    write_json(folder / OUTCOMES, found)


def outcomes(folder: Path) -> dict[Command, dict]:
    """Of each command that was typed in a folder: its status, output and errors."""
    found = json.loads((folder / OUTCOMES).read_text())
    return {Command(page, text): outcome for page, text, outcome in found}
