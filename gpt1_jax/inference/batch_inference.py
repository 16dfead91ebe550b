"""Whole files through a model, in bounded memory: all rows are checked before the first of them is
computed, and the output appears whole or not at all."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.inference import log_probabilities
from gpt1_jax.inference.row_output import row_writer, table_dialect, written
from gpt1_jax.inference.row_progress import counting
from gpt1_jax.inference.trained_model import TrainedModel
from gpt1_jax.messages import tell
from gpt1_jax.run_files import files_of
from gpt1_jax.text import sources

# Numbers of a line that are turned to text at a time.
CHUNK = 1024


def score(
    model: TrainedModel,
    pattern: str,
    output: str | None,
    stride: int | None,
    text_key: str | None = None,
) -> dict:
    """Writes a JSON line, or a row of CSV or TSV, for each document of the files that `pattern`
    names: `ids`, `logprobs` in nats (null for the first token), `mean_logprob`, `perplexity`.
    Returns the totals; their loss and perplexity are over all tokens but the first of each
    document.

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
        write = _writer(output, file)
        began, total, n_tokens = time.monotonic(), 0.0, 0
        scored = model.log_probabilities(_encoded(model, paths, text_key), stride)
        with counting(n_documents, "documents") as add:
            for ids, logprobs_L in scored:
                write(ids, logprobs_L)
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


def _writer(output: str | None, file: TextIO) -> Callable[[np.ndarray, np.ndarray], Any]:
    """What writes the scores of a document: the ids, and the log-probabilities of all but the
    first."""

    def as_line(ids: np.ndarray, logprobs_L: np.ndarray) -> None:
        # In pieces: as one string that of a long document would be many times its arrays.
        file.write('{"ids": ')
        file.writelines(_numbers(ids))
        file.write(', "logprobs": ')
        file.writelines(_numbers(logprobs_L[1:], "null"))
        file.write(", " + json.dumps(log_probabilities.summary(logprobs_L))[1:] + "\n")

    if table_dialect(output) is None:
        return as_line
    write = row_writer(output, file, ["ids", "logprobs", *log_probabilities.summary(np.zeros(1))])

    def as_row(ids: np.ndarray, logprobs_L: np.ndarray) -> None:
        lists = {"ids": _numbers(ids), "logprobs": _numbers(logprobs_L[1:], "null")}
        cells = {name: "".join(parts) for name, parts in lists.items()}
        write(cells | log_probabilities.summary(logprobs_L))

    return as_row


def _numbers(numbers: np.ndarray, first: str | None = None) -> Iterator[str]:
    """A list of JSON in pieces, with the shortest digits that give each number back."""
    yield "[" if first is None else f"[{first}"
    for start in range(0, len(numbers), CHUNK):
        if start or first is not None:
            yield ", "
        yield ", ".join(numbers[start : start + CHUNK].astype(str))
    yield "]"
