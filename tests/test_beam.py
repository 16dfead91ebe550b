"""`prepare` over Apache Beam makes what it makes without, byte for byte, also after a kill."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import runs

WORDS = [
    "the",
    "a",
    "of",
    "model",
    "learns",
    "text",
    "then",
    "it",
    "was",
    ",",
    "—",
    "naïve",
    "Ship",
]
needs_beam = pytest.mark.skipif(find_spec("apache_beam") is None, reason="Beam is not installed")
# What Beam's own code warns of.
pytestmark = pytest.mark.filterwarnings("ignore")
# One process, which starts at once.
INLINE = "--beam_options=--runner=DirectRunner"


def text(seed: int, words: int) -> str:
    generator = random.Random(seed)
    spaces = [" ", " ", " ", "\n", "\r\n", "  ", "\n\n"]
    return "".join(generator.choice(WORDS) + generator.choice(spaces) for _ in range(words))


@pytest.fixture
def books(tmp_path) -> Path:
    """Files of each kind: two texts, one of them compressed, rows, and one with nothing in it."""
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "one.txt").write_text(text(1, 400))
    (folder / "two.txt.gz").write_bytes(gzip.compress(text(2, 3000).encode()))
    (folder / "blank.txt").write_text(" \n \n")
    rows = [{"text": text(seed, 40)} for seed in range(3, 40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def prepare(books: Path, name: str, *words: str) -> runs.Outcome:
    output = books.parent / name
    return runs.verb(
        "prepare", f"--output={output}", "--input", f"{books}/*", "--workers=1", *words
    )


KINDS = {
    "trained": ["--vocab_size=320", "--valid_fraction=0.3"],
    "original": ["--tokenizer=original", "--vocab_size=300", "--valid_fraction=0.3"],
    "valid files": ["--vocab_size=320", "--valid", "{books}/one.txt"],
}


@needs_beam
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_a_local_run(books, kind):
    words = [word.format(books=books) for word in KINDS[kind]]
    for name, more in {"local": [], "beam": ["--runner=beam", INLINE]}.items():
        outcome = prepare(books, name, *words, *more)
        assert outcome.status == 0, outcome.said
    found = tree(books.parent / "beam")
    assert found == tree(books.parent / "local")
    assert {"manifest.json", "train-00000.npy", "documents-valid.npy"} <= set(found)
    # Neither is told from the other afterwards.
    assert any("already prepared" in line for line in prepare(books, "beam", *words).said)


@needs_beam
def test_a_single_text_gives_its_tail(books):
    for path in books.iterdir():
        if path.name != "one.txt":
            path.unlink()
    for name, more in {"local": [], "beam": ["--runner=beam", INLINE]}.items():
        assert prepare(books, name, "--vocab_size=300", *more).status == 0
    assert tree(books.parent / "beam") == tree(books.parent / "local")


@needs_beam
def test_a_killed_run_continues_with_what_is_missing(books):
    words = KINDS["trained"]
    assert prepare(books, "local", *words).status == 0
    output = books.parent / "beam"
    command = [sys.executable, "-m", "gpt1_jax", "prepare", f"--output={output}", "--runner=beam"]
    command += ["--input", f"{books}/*", *words, INLINE]
    units = output / "unfinished" / "units"
    running = subprocess.Popen(command, cwd=runs.ROOT, stderr=subprocess.DEVNULL)
    while not list(units.glob("encode-*.json")):
        assert running.poll() is None
        time.sleep(0.002)
    running.send_signal(signal.SIGKILL)
    running.wait()
    left = {path.name: path.stat().st_mtime_ns for path in units.glob("*.json")}
    assert "manifest.json" not in os.listdir(output)
    # A unit that is done is not done again, one that was begun is.
    done = subprocess.run(command, cwd=runs.ROOT, capture_output=True, text=True, check=True)
    missing = 4 - sum(name.startswith("encode") for name in left)
    assert [line for line in done.stderr.splitlines() if "over Beam" in line] == (
        [f"encoding: {missing} of 4 files over Beam"] if missing else []
    )
    assert tree(output) == tree(books.parent / "local")


@needs_beam
def test_what_is_wrong_with_a_file_is_one_line(books):
    (books / "z.txt").write_bytes(b"a text\n" * 200_000 + bytes(range(256)) * 40)
    outcome = prepare(books, "beam", "--vocab_size=320", "--runner=beam", INLINE)
    assert outcome.status == 2
    assert "z.txt" in outcome.said[-1]
    (books / "z.txt").write_text(text(5, 30))
    again = prepare(books, "beam", "--vocab_size=320", "--runner=beam", INLINE)
    assert again.status == 0, again.said


def test_beam_that_is_not_installed_names_the_extra(books, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    outcome = prepare(books, "beam", "--vocab_size=320", "--runner=beam")
    assert outcome.status == 2
    assert "gpt1-jax[beam]" in outcome.said[-1]


def test_only_files_are_divided(tmp_path):
    outcome = runs.verb("prepare", f"--output={tmp_path}/out", "--docs", "--runner=beam")
    assert outcome.status == 2
    assert "give --input" in outcome.said[-1]
