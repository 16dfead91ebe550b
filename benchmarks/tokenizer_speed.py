"""Speed of the tokenizers with the vocabulary of GPT-1, per core, beside transformers.

    python benchmarks/tokenizer_speed.py VOCAB NOVEL [RESULT.json]

VOCAB: a folder with the released vocabulary. NOVEL: a text file, also .xz. Medians of ROUNDS rounds
in which everything runs once, on one core: "first" with a new tokenizer, which has to learn every
word of the novel, "again" with one that has seen it, as a worker has that encodes many books.
`tokenizers` is the library used plainly, encode_batch of the lines. `transformers` is measured
where it is installed. With RESULT.json the result is added to that file.
"""

import argparse
import json
import lzma
import os
import platform
import statistics
import sys
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from gpt1_jax import errors
from gpt1_jax.tokenization import loading

ROUNDS = 5


def main(vocab: Path, novel: Path, result: Path | None) -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    opener = lzma.open if novel.suffix == ".xz" else open
    with opener(novel, "rt", encoding="utf-8", newline="") as stream:
        text = stream.read()
    size = len(text.encode()) / 1e6
    rows = [row for _ in range(ROUNDS) for row in _round(vocab, text)]
    names = list(dict.fromkeys(name for name, _ in rows))
    speeds = {
        name: round(statistics.median(size / s for other, s in rows if other == name), 2)
        for name in names
    }
    measured = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": _versions(),
        "novel": novel.name,
        "megabytes": round(size, 3),
        "rounds": ROUNDS,
        "megabytes_per_s_per_core": speeds,
    }
    print(json.dumps(measured))
    if result is not None:
        before = json.loads(result.read_text()) if result.exists() else []
        result.write_text(json.dumps([*before, measured], indent=1) + "\n")


def _round(vocab: Path, text: str):
    """(name, seconds) of each."""
    lines = text.split("\n")
    for mode in ("original", "hf_basic"):
        try:
            tokenizer = loading.from_vocabulary(vocab, mode)
        except errors.UserError as error:
            print(error, file=sys.stderr)
            continue
        for when in ("first", "again"):
            yield f"{mode}, {when}", _seconds(tokenizer.encode, text)
    plain = loading.from_vocabulary(vocab, "hf_basic").pipeline
    for when in ("first", "again"):
        yield f"tokenizers, {when}", _seconds(plain.encode_batch, lines)
    if peer := _transformers(vocab):
        for when in ("first", "again"):
            yield f"transformers, {when}", _seconds(peer, text)


def _seconds(function, argument) -> float:
    began = time.perf_counter()
    function(argument)
    return time.perf_counter() - began


def _transformers(vocab: Path):
    try:
        from transformers import OpenAIGPTTokenizer
    except ImportError:
        return None
    released = loading.from_vocabulary(vocab, "hf_basic")
    return OpenAIGPTTokenizer(vocab=released.encoder, merges=released.merges)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for package in ("tokenizers", "spacy", "ftfy", "transformers"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("vocab", type=Path)
    parser.add_argument("novel", type=Path)
    parser.add_argument("result", nargs="?", type=Path, help="the JSON file that it is added to")
    words = parser.parse_args()
    main(words.vocab, words.novel, words.result)
