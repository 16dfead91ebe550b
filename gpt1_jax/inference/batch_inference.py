"""Whole files through a model, in bounded memory: all rows are checked before the first of them is
computed, and the output appears whole or not at all."""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.inference import log_probabilities
from gpt1_jax.inference.row_progress import counting
from gpt1_jax.inference.trained_model import TrainedModel
from gpt1_jax.messages import no_output, tell
from gpt1_jax.run_files import files_of
from gpt1_jax.storage import places
from gpt1_jax.table_files import PACKED, plain_suffix
from gpt1_jax.text import sources

# Numbers of a line that are turned to text at a time.
CHUNK = 1024
# What other programs read by these names is a table.
TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".ods")


def score(
    model: TrainedModel,
    pattern: str,
    output: str | None,
    stride: int | None,
    text_key: str | None = None,
) -> dict:
    """Writes a JSON line for each document of the files that `pattern` names: `ids`, `logprobs` in
    nats (null for the first token), `mean_logprob`, `perplexity`. Returns the totals; their loss
    and perplexity are over all tokens but the first of each document.

    A .txt file is a document, and so is a row of a table, whose column `text_key` names; also .gz,
    .xz. `output` None writes to standard output. Held at a time is one document, or a batch of
    short ones. Raises UserError for what cannot be read, with file and line; an empty document; a
    stride that is not 1 to n_ctx.
    """
    paths = sources.matching([pattern])
    stride = model.stride(stride)
    n_ctx = model.model_config.n_ctx
    with written(output, [*paths, *files_of(model.workdir)]) as file:
        n_documents = _require_texts(pattern, paths, text_key)
        tell(
            f"windows of {n_ctx} tokens that start {stride} apart; each token but the first of a "
            "document is predicted once, from what stands before it in the first window it is in"
        )
        began, total, n_tokens = time.monotonic(), 0.0, 0
        scored = model.log_probabilities(_encoded(model, paths, text_key), stride)
        with counting(n_documents, "documents") as add:
            for ids, logprobs_L in scored:
                _write_scores(file, ids, logprobs_L)
                total += float(logprobs_L[1:].sum(dtype=np.float64))
                n_tokens += len(ids)
                add(1)
    n_scored = n_tokens - n_documents
    return {
        "step": model.step,
        "documents": n_documents,
        "tokens": n_tokens,
        "tokens_scored": n_scored,
        "loss": -total / n_scored if n_scored else None,
        **log_probabilities.mean_and_perplexity(total, n_scored),
        "n_ctx": n_ctx,
        "stride": stride,
        "tokens_per_s": n_tokens / (time.monotonic() - began),
        "output": output,
    }


@contextmanager
def written(
    output: str | None, inputs: Iterable[Path], forms: Sequence[str] = (".jsonl",)
) -> Iterator[TextIO]:
    """A file to write to, which takes the place of `output` when all went well; standard output for
    None. UserError where it cannot be written, is one of the inputs, should be packed, or has the
    name of a table that is none of `forms`."""
    if output is None:
        if sys.stdout is None:
            raise UserError("standard output is closed; give --output")
        try:
            yield sys.stdout
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in disk.WHILE_WRITING:
                raise
            raise no_output(error) from None
        return
    if output.lower().endswith(PACKED):
        raise UserError(f"--output={output}: what is written is not packed; give a plain name")
    suffix = plain_suffix(Path(output))
    if suffix in TABLES and suffix not in forms:
        raise UserError(f"--output={output}: no {suffix} is written; expected {' or '.join(forms)}")
    with places.output(output) as path, disk.replacing(path, inputs=inputs) as file:
        yield cast(TextIO, file)


def _documents(paths: list[Path], text_key: str | None) -> Iterator[tuple[str, Iterator[str]]]:
    """The place (file, or file:line) and the blocks of each document."""
    for path in paths:
        for name, blocks in sources.Files([path], path.parent, text_key).documents():
            yield str(path.parent / name), blocks


def _require_texts(pattern: str, paths: list[Path], text_key: str | None) -> int:
    """The number of documents, after reading them all. UserError names one without text."""
    count = 0
    for place, blocks in _documents(paths, text_key):
        blank = True
        for block in blocks:  # all of them: a later one may be what cannot be read
            blank = blank and block.isspace()
        if blank:
            raise UserError(f"{place}: nothing but white space; expected text, or leave it out")
        count += 1
    if not count:
        raise UserError(f'{pattern}: no documents; expected text, or rows of {{"text": "..."}}')
    return count


def _encoded(model: TrainedModel, paths: list[Path], text_key: str | None) -> Iterator[np.ndarray]:
    """The ids of each document, encoded as a whole."""
    for place, blocks in _documents(paths, text_key):
        ids = np.array(model.tokenizer.encode("".join(blocks)), np.int32)
        if not len(ids):
            raise UserError(f"{place}: the tokenizer finds no token in it; leave it out")
        yield ids


def _write_scores(file: TextIO, ids: np.ndarray, logprobs_L: np.ndarray) -> None:
    """A line, in pieces: that of a long document as one string would be many times its arrays."""
    file.write('{"ids": [')
    _write_numbers(file, ids)
    file.write('], "logprobs": [null')
    if len(ids) > 1:
        file.write(", ")
        _write_numbers(file, logprobs_L[1:])
    file.write("], " + json.dumps(log_probabilities.summary(logprobs_L))[1:] + "\n")


def _write_numbers(file: TextIO, numbers: np.ndarray) -> None:
    """The shortest digits that give each number back."""
    for start in range(0, len(numbers), CHUNK):
        file.write(", " * bool(start) + ", ".join(numbers[start : start + CHUNK].astype(str)))
