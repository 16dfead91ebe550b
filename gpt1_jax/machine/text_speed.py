"""How fast text becomes tokens, and shards become batches. On one core each."""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt1_jax.data.batches import Windows, stream
from gpt1_jax.errors import UserError
from gpt1_jax.machine import peer
from gpt1_jax.machine.config import PrepareBenchmark
from gpt1_jax.messages import say
from gpt1_jax.run_files import versions
from gpt1_jax.text import corpus, documentation, text_files
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.shards import Tokens
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization.tokenizer import Tokenizer, VocabularyMode

_BLOCK = 2**20  # bytes that are read of a file at a time
_MODES: tuple[VocabularyMode, ...] = ("original", "hf_basic")  # with the vocabulary of GPT-1
# Of the SentencePiece tokenizer that is trained here on the text itself.
_VOCAB_SIZE = 8192
# Batches as pre-training has them.
_BATCH, _LENGTH, _N_BATCHES = 64, 512, 200


def prepare(asked: PrepareBenchmark) -> dict[str, Any]:
    """`gpt1 benchmark prepare`: MB/s of each tokenizer, and tokens/s of the batches of each driver.

    "first" is a tokenizer that is new to the text and has to learn its words; "again" one that has
    seen them, as a worker has that encodes many books. Those of GPT-1's vocabulary need the folder
    that holds it and are left out without one. Raises UserError for an input that cannot be read.
    """
    kind = {"peer": "gpt1-jax", "mode": "prepare"}
    line = peer.read(asked.output.vs, kind) if asked.output.vs else None
    if asked.vocab is not None:
        for mode in _MODES:
            loading.from_vocabulary(asked.vocab, mode)  # a mistake is said before the clock
    text = _text(asked)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "text.txt"
        source.write_text(text, encoding="utf-8", newline="")
        tokens, began = Path(folder) / "tokens", time.perf_counter()
        config = PrepareConfig(
            output=str(tokens), inputs=(str(source),), vocab_size=_VOCAB_SIZE, workers=1
        )
        corpus.prepare(config)
        whole = time.perf_counter() - began
        makers: dict[str, Callable[[], Tokenizer]] = {"sentencepiece": lambda: loading.load(tokens)}
        if asked.vocab is not None:
            for mode in _MODES:
                makers[mode] = partial(loading.from_vocabulary, asked.vocab, mode)
        speeds = _speeds(makers, text, asked.rounds)
        batches = _batches(tokens, asked.rounds)
    result = {
        **kind,
        "megabytes": len(text.encode()) / 1e6,
        "rounds": asked.rounds,
        "megabytes_per_s": speeds,
        "prepare_seconds": whole,
        "tokens_per_s": max(batches.values()),
        "batches_tokens_per_s": batches,
        "help_seconds": _help_seconds(),
        "device": "cpu",
        "versions": versions(),
    }
    return result if line is None else {**result, **peer.compared(result, line)}


def _text(asked: PrepareBenchmark) -> str:
    if asked.input is None:
        found = documentation.documents(packages=["python"])
        whole = "\n".join(document.text for document in found.documents)
    else:
        path = Path(asked.input).expanduser()
        if not path.is_file():
            found = "is a folder" if path.is_dir() else "there is no such file"
            raise UserError(f"--input={asked.input}: {found}; expected a file of text")
        whole = "".join(text_files.decoded(path, _BLOCK))
    # Characters are bytes but for a few.
    text = whole[: int(asked.megabytes * 1e6)]
    if not text.strip():
        named = "the documentation" if asked.input is None else f"--input={asked.input}"
        raise UserError(f"{named} has no text in its first {asked.megabytes:g} megabytes")
    return text


def _speeds(
    makers: dict[str, Callable[[], Tokenizer]], text: str, rounds: int
) -> dict[str, dict[str, float]]:
    size, found = len(text.encode()) / 1e6, {}
    for name, make in makers.items():
        taken: dict[str, list[float]] = {"first": [], "again": []}
        for _ in range(rounds):
            tokenizer = make()
            for when in taken:
                taken[when].append(_seconds(partial(tokenizer.encode, text)))
        found[name] = {when: size / statistics.median(times) for when, times in taken.items()}
        say(f"{name}: {found[name]['first']:.3g} MB/s, {found[name]['again']:.3g} when seen before")
    return found


def _batches(folder: Path, rounds: int) -> dict[str, float]:
    """Tokens/s of each driver, after its first batch."""
    source = Windows(Tokens.open(folder, "train"), _LENGTH, _BATCH, 0, "permuted")
    found = {}
    for driver in ("thread", "tfdata"):
        if driver == "tfdata" and find_spec("tensorflow") is None:
            continue
        taken = []
        for _ in range(rounds):
            batches = stream(source, 0, _N_BATCHES + 1, driver, 2)
            next(batches)
            taken.append(_seconds(partial(list, batches)))
        found[driver] = _BATCH * _LENGTH * _N_BATCHES / statistics.median(taken)
    return found


def _help_seconds() -> float:
    """From the start of a process to its end, the best of some."""
    command = [sys.executable, "-m", "gpt1_jax", "--help"]

    def run() -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    return min(_seconds(run) for _ in range(5))


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
