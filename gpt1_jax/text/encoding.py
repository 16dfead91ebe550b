"""Blocks of text to ids, in worker processes, journalled so that a killed run goes on."""

import functools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from typing_extensions import TypedDict

from gpt1_jax import disk, json_files
from gpt1_jax.messages import tell
from gpt1_jax.text import workers
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.division import Block, Survey, divided_blocks
from gpt1_jax.text.inputs import Inputs
from gpt1_jax.text.shards import WHOLE, Encoded, Shards, State, encoded_in
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization.gpt1_bpe import OriginalTokenizer
from gpt1_jax.tokenization.tokenizer import Tokenizer

_JOURNAL_SECONDS = 2.0


def encode_blocks(
    folder: Path, inputs: Inputs, survey: Survey, config: PrepareConfig, tokenizer: Tokenizer
) -> dict[str, dict]:
    """Write the shards, from where the journal ends; returns the splits of the manifest."""
    journal = _journal_so_far(folder)
    first = journal["pieces"]
    if first:
        tell(f"continuing after {first} pieces")
    dtype = id_dtype(tokenizer)
    encode = functools.partial(
        _encoded, str(folder / "tokenizer"), tokenizer.fingerprint, dtype.str
    )
    pieces = islice(in_pieces(divided_blocks(inputs, survey, config)), first, None)
    with ExitStack() as stack:
        splits = {}
        for name in inputs.splits:
            state = journal["splits"].get(name)
            shards = Shards(folder, name, dtype, config.shard_tokens, state)
            splits[name] = stack.enter_context(shards)
        progress = stack.enter_context(workers.Progress("encoding", survey.characters))
        progress.add(sum(split.counts["characters"] for split in splits.values()))
        mapped = stack.enter_context(
            workers.mapping(workers.number(config.workers, survey.characters))
        )
        saved = time.monotonic()
        for done, piece in enumerate(mapped(encode, pieces), first + 1):
            for name, encoded in piece.items():
                splits[name].add(encoded)
                progress.add(encoded.counts["characters"])
            if time.monotonic() - saved > _JOURNAL_SECONDS:
                _save_journal(folder, done, splits)
                saved = time.monotonic()
        return {name: split.finish() for name, split in splits.items()}


def encode_unit(blocks: Iterable[Block], tokenizer_folder: Path, target: Path) -> dict:
    """The blocks of one unit, each split in one shard of the folder `target`; the splits as they
    would stand in a manifest."""
    tokenizer = loading.load(tokenizer_folder)
    dtype = id_dtype(tokenizer)
    encode = functools.partial(_encoded, str(tokenizer_folder), tokenizer.fingerprint, dtype.str)
    with ExitStack() as stack:
        splits: dict[str, Shards] = {}
        for piece in map(encode, in_pieces(blocks)):
            for name, encoded in piece.items():
                if name not in splits:
                    shards = Shards(target, name, dtype, WHOLE, None)
                    splits[name] = stack.enter_context(shards)
                splits[name].add(encoded)
        return {name: split.finish() for name, split in splits.items()}


def join_units(
    folder: Path, units: Iterable[tuple[Path, dict]], names: list[str], limit: int, dtype: np.dtype
) -> dict[str, dict]:
    """The shards of a folder from what `encode_unit` made, in order: the folder and the splits of
    each unit. Returns the splits of the manifest."""
    # That of a run without Beam, whose shards are written over.
    (folder / "journal.json").unlink(missing_ok=True)
    with ExitStack() as stack:
        splits = {
            name: stack.enter_context(Shards(folder, name, dtype, limit, None)) for name in names
        }
        for place, found in units:
            for name, split in found.items():
                splits[name].add(encoded_in(place, split, dtype))
        return {name: split.finish() for name, split in splits.items()}


def in_pieces(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks in groups of about the same amount of text."""
    piece, characters = [], 0
    for block in blocks:
        piece.append(block)
        characters += len(block.text)
        if characters >= workers.PIECE_CHARACTERS:
            yield piece
            piece, characters = [], 0
    if piece:
        yield piece


def _encoded(folder: str, fingerprint: str, dtype: str, piece: list[Block]) -> dict[str, Encoded]:
    tokenizer = _loaded(folder, fingerprint)
    parts: dict[str, Encoded] = {}
    ids: dict[str, list[int]] = {}
    for block in piece:
        part = parts.setdefault(block.split, Encoded(np.empty(0, dtype), [], Counter()))
        stream = ids.setdefault(block.split, [])
        if block.first:
            part.starts.append(len(stream))
        stream.extend(_ids(tokenizer, block))
        part.counts["documents"] += block.first
        part.counts["characters"] += len(block.text)
        part.counts["bytes"] += len(block.text.encode())
        within_a_word = block.part is not None and block.part.joined
        part.counts["words"] += len(block.text.split()) - within_a_word
    return {name: part._replace(ids=np.array(ids[name], dtype)) for name, part in parts.items()}


def _ids(tokenizer: Tokenizer, block: Block) -> list[int]:
    if block.part is not None:
        original = cast(OriginalTokenizer, tokenizer)
        lead = [cast(int, original.newline)] * block.part.lead
        return lead + original.encode_fixed(block.part.fixed)
    return tokenizer.encode(block.before + block.text)[len(tokenizer.encode(block.before)) :]


@functools.lru_cache(maxsize=1)
def _loaded(folder: str, fingerprint: str) -> Tokenizer:
    """The tokenizer, once in each worker; another one in the same folder is another one."""
    tokenizer = loading.load(folder)
    assert tokenizer.fingerprint == fingerprint
    return tokenizer


def id_dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.size < 2**16 else "<u4")


class _Journal(TypedDict):
    """How many pieces are done, and what came of them by split."""

    pieces: int
    splits: dict[str, State]


def _journal_so_far(folder: Path) -> _Journal:
    remedy = f"delete {folder} and prepare again"
    try:
        return json_files.read(folder / "journal.json", _Journal, remedy)
    except FileNotFoundError:
        return {"pieces": 0, "splits": {}}


def _save_journal(folder: Path, pieces: int, splits: dict[str, Shards]) -> None:
    states = {name: split.state() for name, split in splits.items()}
    disk.write_json(folder / "journal.json", {"pieces": pieces, "splits": states}, indent=None)
