"""Documents -> token shards on disk, and the token stream they make.

`prepare` reads its documents three times, each time in their order and in bounded memory: to check
and count them, to count the words that the tokenizer is trained on, and to encode them into the
shards that shards.py describes. Until all is done everything is in a subfolder `unfinished`, with a
journal from which the same arguments continue. The result is a function of the arguments alone,
whatever the number of workers and however often it was interrupted.
"""

import errno
import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.text import original, vocabulary, workers
from gpt1_jax.text import tokenizer as tokenizers
from gpt1_jax.text.shards import (
    FORMAT,
    MANIFEST,
    UNFINISHED,
    Encoded,
    Shards,
    Tokens,
    read_manifest,
    verify,
    write_json,
)
from gpt1_jax.text.sources import (
    Document,
    Files,
    Source,
    Texts,
    TextSet,
    last_cut,
    matching,
    text_set,
)
from gpt1_jax.text.tokenizer import Tokenizer
from gpt1_jax.text.workers import say

__all__ = ["Document", "PrepareConfig", "Tokens", "prepare", "read_manifest", "verify"]

TRAIN, VALID = "train", "valid"

_JOURNAL_SECONDS = 2.0
_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR)


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and how.

    output: the folder to make.
    inputs: globs of text files, see sources.Files; or
    tfds: a text set of TFDS, with data_dir in place of its usual folder.
    tokenizer: its mode; vocab: a folder with a trained one, used as it is; of the modes original
      and hf_basic also one with the released vocabulary, or its name on the Hub.
    vocab_size: of the one to train (sentencepiece, original); None is 40,000 (original: merges),
      less for a corpus of under 4 million characters: one for each hundred. A corpus with fewer
      possible pieces gets what there are.
    valid: globs of the validation files; they are taken out of inputs. Otherwise
    valid_fraction: of the documents, chosen by a hash of seed and name, at least one; a single
      document gives its tail; 0 gives none. None is 0.01, or the held-out split of a TFDS set.
    workers: processes; None is the number of cores.
    shard_tokens: length of a shard; the last one is shorter.
    sample_characters: the tokenizer is trained on about as much text, drawn with seed.
    """

    output: str
    inputs: tuple[str, ...] = ()
    tfds: str | None = None
    data_dir: str | None = None
    tokenizer: str = "sentencepiece"
    vocab: str | None = None
    vocab_size: int | None = None
    valid: tuple[str, ...] = ()
    valid_fraction: float | None = None
    workers: int | None = None
    runner: str = "local"
    seed: int = 0
    shard_tokens: int = 2**26
    sample_characters: int = 2**27


def prepare(
    config: PrepareConfig,
    documents: Iterable[Document] | None = None,
    valid_documents: Iterable[Document] | None = None,
) -> dict:
    """Make the folder config.output, or finish it; progress goes to standard error.

    Args:
      documents: texts in memory in place of config.inputs and config.tfds.
      valid_documents: texts in memory in place of config.valid and config.valid_fraction.

    Returns:
      The manifest without document starts, with `output` and `seconds`.

    Raises:
      UserError: contradictory arguments, unreadable or empty text, a folder with other content.
      Interrupted: stopped by Ctrl-C or by the loss of a worker; what is done is kept.
    """
    began = time.monotonic()
    _check(config)
    inputs = _inputs(config, documents, valid_documents)
    trained = _given(config)
    arguments = _arguments(config, inputs, trained)
    output = Path(config.output)
    if (output / MANIFEST).exists():
        manifest = read_manifest(output)
        _check_same(output, manifest["arguments"], arguments)
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)
        say(f"{output} is already prepared with these arguments; nothing to do")
    else:
        manifest = _prepared(config, inputs, trained, arguments)
    return _summary(output, manifest) | {"seconds": round(time.monotonic() - began, 1)}


def _prepared(config: PrepareConfig, inputs: "_Inputs", trained, arguments: dict) -> dict:
    output = Path(config.output)
    _check_free(output, arguments)
    try:
        survey = _survey_so_far(output) or _survey(inputs, config)
        with _workplace(output, arguments, survey) as folder:
            if not (folder / MANIFEST).exists():
                tokenizer = _tokenizer(folder, inputs, survey, config, trained)
                splits = _encode(folder, inputs, survey, config, tokenizer)
                manifest = _manifest(inputs, survey, tokenizer, arguments, splits)
                write_json(folder / MANIFEST, manifest)
            _move_up(folder, output)
    except (KeyboardInterrupt, BrokenProcessPool) as error:
        reason = "a worker was lost" if isinstance(error, BrokenProcessPool) else "interrupted"
        raise Interrupted(f"{output}: {reason}; the same command continues") from None
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise UserError(
            f"{output}: {error.strerror}; mend that or choose another --output, and start again"
        ) from None
    return read_manifest(output)


# Arguments


class _Inputs(NamedTuple):
    train: Source
    valid: Source | None  # None: validation documents are taken from those of train
    fraction: float


def _check(config: PrepareConfig) -> None:
    if config.tokenizer not in tokenizers.MODES:
        known = ", ".join(tokenizers.MODES)
        raise UserError(f"tokenizer={config.tokenizer}: not available; expected one of: {known}")
    if config.runner != "local":
        raise UserError(f"runner={config.runner}: not available; expected: local")
    if config.tokenizer == "hf_basic" and not config.vocab:
        raise UserError(
            "tokenizer=hf_basic: needs vocab, a folder with the vocabulary of GPT-1 or a Hub name "
            "such as openai-community/openai-gpt; only sentencepiece and original can be trained"
        )
    if config.vocab and config.vocab_size is not None:
        raise UserError("vocab and vocab_size: give one; a trained tokenizer has its size")
    if config.vocab_size is not None and config.vocab_size not in tokenizers.SIZES:
        low, high = tokenizers.SIZES[0], tokenizers.SIZES[-1]
        raise UserError(f"vocab_size={config.vocab_size}: expected {low} to {high}")
    if config.valid_fraction is not None and not 0 <= config.valid_fraction < 1:
        raise UserError(
            f"valid_fraction={config.valid_fraction}: expected at least 0 and less than 1"
        )
    for name in ("workers", "shard_tokens", "sample_characters"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: expected at least 1")


def _given(config: PrepareConfig) -> Tokenizer | None:
    """The tokenizer that config.vocab names."""
    if not config.vocab:
        return None
    if config.tokenizer != "sentencepiece":
        return tokenizers.from_vocabulary(config.vocab, config.tokenizer)
    given = tokenizers.load(config.vocab)
    if given.mode != config.tokenizer:
        raise UserError(
            f"vocab={config.vocab}: a tokenizer of the mode {given.mode}, not {config.tokenizer}; "
            f"say tokenizer={given.mode}"
        )
    return given


def _inputs(config: PrepareConfig, documents, valid_documents) -> _Inputs:
    given = [bool(config.inputs), config.tfds is not None, documents is not None]
    if sum(given) != 1:
        raise UserError("expected exactly one of input (files), tfds (a text set), docs")
    held_out = [bool(config.valid), config.valid_fraction is not None, valid_documents is not None]
    if sum(held_out) > 1:
        raise UserError("valid and valid_fraction: give one of them, not both")
    valid_paths = matching(config.valid)
    paths = _without(matching(config.inputs), valid_paths)
    everything = [os.path.dirname(os.path.abspath(path)) for path in paths + valid_paths]
    root = Path(os.path.commonpath(everything)) if everything else Path()
    if documents is not None:
        train = Texts(documents)
    elif config.tfds is not None:
        train = TextSet(config.tfds, TRAIN, config.data_dir)
    else:
        train = Files(paths, root)
    valid = Files(valid_paths, root) if valid_paths else None
    if valid_documents is not None:
        valid = Texts(valid_documents)
    elif config.tfds is not None and not any(held_out):
        valid = TextSet(config.tfds, text_set(config.tfds)[1], config.data_dir)
    fraction = 0.01 if config.valid_fraction is None else config.valid_fraction
    return _Inputs(train, valid, fraction)


def _without(paths: list[Path], valid_paths: list[Path]) -> list[Path]:
    held_out = {path.resolve() for path in valid_paths}
    kept = [path for path in paths if path.resolve() not in held_out]
    if paths and not kept:
        raise UserError("valid matches all input files; none is left to train on")
    if len(kept) < len(paths):
        say(f"{len(paths) - len(kept)} input files are validation files, kept out of training")
    return kept


def _arguments(config: PrepareConfig, inputs: _Inputs, trained: Tokenizer | None) -> dict:
    """What the result depends on; JSON values."""
    return {
        "input": inputs.train.identity,
        "valid": inputs.valid.identity if inputs.valid else None,
        "valid_fraction": None if inputs.valid else inputs.fraction,
        "seed": config.seed,
        "tokenizer": config.tokenizer,
        "vocab": trained.fingerprint if trained else None,
        "vocab_size": config.vocab_size,
        "sample_characters": config.sample_characters,
        "shard_tokens": config.shard_tokens,
    }


def _check_same(folder: Path, theirs: dict, ours: dict) -> None:
    for key in ours:
        if theirs.get(key) != ours[key]:
            raise UserError(
                f"{folder}: prepared with other arguments ({key}: {theirs.get(key)}, now "
                f"{ours[key]}); choose another --output, or delete the folder"
            )


# The folder while it is made


def _check_free(output: Path, arguments: dict) -> None:
    """Nothing but an earlier attempt with the same arguments may be there."""
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; expected a folder to make")
    others = sorted(path.name for path in output.glob("*") if path.name != UNFINISHED)
    started = output / UNFINISHED / "arguments.json"
    if others and not (output / UNFINISHED / MANIFEST).exists():
        raise UserError(
            f"{output}: holds {others[0]} and no {MANIFEST}; choose an empty or a new folder"
        )
    if started.exists():
        _check_same(output, json.loads(started.read_bytes()), arguments)


def _survey_so_far(output: Path) -> "_Survey | None":
    try:
        return _Survey(**json.loads((output / UNFINISHED / "survey.json").read_bytes()))
    except FileNotFoundError:
        return None


@contextmanager
def _workplace(output: Path, arguments: dict, survey: "_Survey") -> Iterator[Path]:
    """The folder `unfinished`, this process alone in it."""
    folder = output / UNFINISHED
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{output}: another process is preparing it; wait for it") from None
        # In this order: a survey never stands beside the arguments of another attempt.
        write_json(folder / "arguments.json", arguments)
        write_json(folder / "survey.json", asdict(survey))
        yield folder


def _move_up(folder: Path, output: Path) -> None:
    """Put what is finished in its place; with the manifest, the last, the folder is valid."""
    for path in sorted(folder.glob("*.npy")):
        os.replace(path, output / path.name)
    if (folder / "tokenizer").exists():
        os.replace(folder / "tokenizer", output / "tokenizer")
    os.replace(folder / MANIFEST, output / MANIFEST)
    shutil.rmtree(folder)


# First reading: check, count, and divide


@dataclass(frozen=True)
class _Survey:
    """Counts, and what it takes to divide the documents without having all their names at hand."""

    documents: int
    empty: int
    characters: int  # of everything
    train_characters: int  # of the documents to train on
    sha256: str  # of all texts
    tail: int | None = None  # the single document's characters from here on are for validation
    always_valid: str | None = None
    always_train: str | None = None


@dataclass
class _Count:
    """Running counts of the documents of one source."""

    documents: int = 0
    empty: int = 0
    characters: int = 0
    chosen: int = 0
    chosen_characters: int = 0
    # (hash, name, characters) of the documents next to be chosen and to be left
    lowest: tuple = (2.0, "", 0)
    highest: tuple = (-1.0, "", 0)


def _survey(inputs: _Inputs, config: PrepareConfig) -> _Survey:
    digest = hashlib.sha256()
    with workers.Progress("reading", None) as progress:
        count = _counted(inputs.train, digest, progress, config.seed, inputs.fraction)
        held_out = _Count()
        if inputs.valid:
            held_out = _counted(inputs.valid, digest, progress, config.seed, 0.0)
    if not count.documents or (inputs.valid and not held_out.documents):
        blank = inputs.valid if count.documents else inputs.train
        files = list(blank.description.get("files", ["the documents"]))
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        raise UserError(f"{files[0]}{more}: nothing but white space; expected text")
    empty = count.empty + held_out.empty
    if empty:
        say(f"{empty} empty documents left out")
    return _Survey(
        documents=count.documents + held_out.documents,
        empty=empty,
        characters=count.characters + held_out.characters,
        sha256=digest.hexdigest(),
        **_division(count, 0.0 if inputs.valid else inputs.fraction),
    )


def _counted(
    source: Source, digest, progress: workers.Progress, seed: int, fraction: float
) -> _Count:
    count = _Count()
    for name, blocks in source.documents():
        characters = 0
        for block in _unless_blank(blocks):
            digest.update(block.encode())
            characters += len(block)
            progress.add(len(block))
        digest.update(b"\xff")  # a byte that UTF-8 never has keeps documents apart
        if not characters:
            count.empty += 1
            continue
        place = _hash(seed, name)
        count.documents += 1
        count.characters += characters
        if place < fraction:
            count.chosen += 1
            count.chosen_characters += characters
        count.lowest = min(count.lowest, (place, name, characters))
        count.highest = max(count.highest, (place, name, characters))
    return count


def _division(count: _Count, fraction: float) -> dict:
    """The fields of _Survey that say which documents are for validation, by the rules."""
    if fraction == 0:
        return {"train_characters": count.characters}
    if count.documents == 1:
        if count.characters < 2:
            raise UserError("input: a single character cannot be divided; expected more text")
        tail = min(count.characters - 1, max(1, round(count.characters * (1 - fraction))))
        return {"train_characters": tail, "tail": tail}
    if count.lowest[1] == count.highest[1]:
        raise UserError("all documents have one name, so that none can be held out from the rest")
    if count.chosen == 0:
        _, name, characters = count.lowest
        return {"train_characters": count.characters - characters, "always_valid": name}
    if count.chosen == count.documents:
        _, name, characters = count.highest
        return {"train_characters": characters, "always_train": name}
    return {"train_characters": count.characters - count.chosen_characters}


class _Block(NamedTuple):
    split: str
    first: bool  # of its document in this split
    text: str
    before: str = ""  # stands for the earlier text of its document, see original.before


def _divided(inputs: _Inputs, survey: _Survey, config: PrepareConfig) -> Iterator[_Block]:
    """All documents in order, each block with its split; a block can be encoded on its own."""
    if config.tokenizer != "original":
        yield from _split(inputs, survey, config.seed, _before_a_word, iter)
        return
    before = ""
    for block in _split(inputs, survey, config.seed, _after_a_line, original.whole_lines):
        before = "" if block.first else before
        yield block._replace(before=before)
        before = original.before(before, block.text)


def _split(
    inputs: _Inputs, survey: _Survey, seed: int, cut: Callable, regrouped: Callable
) -> Iterator[_Block]:
    for name, blocks in inputs.train.documents():
        text = regrouped(_unless_blank(blocks))
        if survey.tail is not None:
            yield from _with_tail(text, survey.tail, cut)
            continue
        by_hash = inputs.valid is None and _hash(seed, name) < inputs.fraction
        held_out = (by_hash and name != survey.always_train) or name == survey.always_valid
        yield from _labelled(text, VALID if held_out else TRAIN)
    if inputs.valid:
        for _, blocks in inputs.valid.documents():
            yield from _labelled(regrouped(_unless_blank(blocks)), VALID)


def _before_a_word(text: str, is_first: bool) -> int:
    """Where text, some characters of a block, is cut best; 0 is before the block."""
    return last_cut(text) or len(text)


def _after_a_line(text: str, is_first: bool) -> int:
    """Like `_before_a_word`, where a block begins after a line end. Not before the first one."""
    return text.rfind("\n") + 1 or (_before_a_word(text, True) if is_first else 0)


def _labelled(blocks: Iterable[str], split: str) -> Iterator[_Block]:
    for index, block in enumerate(blocks):
        yield _Block(split, index == 0, block)


def _with_tail(blocks: Iterable[str], tail: int, cut_of: Callable) -> Iterator[_Block]:
    """The blocks of one document, for validation from character `tail` or a little before on."""
    end = 0
    for index, block in enumerate(blocks):
        start, end = end, end + len(block)
        if end <= tail:
            yield _Block(TRAIN, index == 0, block)
        elif start >= tail:
            yield _Block(VALID, start == tail, block)
        else:
            cut = cut_of(block[: tail - start], index == 0)
            if cut:
                yield _Block(TRAIN, index == 0, block[:cut])
            yield _Block(VALID, True, block[cut:])


def _unless_blank(blocks: Iterable[str]) -> Iterator[str]:
    """The blocks, none if they are all white space."""
    waiting = []
    blocks = iter(blocks)
    for block in blocks:
        waiting.append(block)
        if not block.isspace():
            yield from waiting
            break
    yield from blocks


def _hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


# Second reading: the tokenizer


def _tokenizer(
    folder: Path, inputs: _Inputs, survey: _Survey, config: PrepareConfig, trained: Tokenizer | None
) -> Tokenizer:
    """The tokenizer in the folder; put there first, given or trained on training documents."""
    place = folder / "tokenizer"
    if (place / tokenizers.DESCRIPTION).exists():
        return tokenizers.load(place)
    tokenizer = trained or _trained(inputs, survey, config)
    tokenizer.save(place)
    return tokenizer


def _trained(inputs: _Inputs, survey: _Survey, config: PrepareConfig) -> Tokenizer:
    is_original = config.tokenizer == "original"
    share = min(1.0, config.sample_characters / survey.train_characters)
    training = (block for block in _divided(inputs, survey, config) if block.split == TRAIN)
    sample = (
        block
        for index, block in enumerate(training)
        if share == 1 or _hash(config.seed, "tokenizer", index) < share
    )
    characters = round(share * survey.train_characters)
    counts = Counter()
    processes = workers.number(config.workers, characters)
    with (
        workers.Progress("counting words", characters) as progress,
        workers.mapping(processes) as mapped,
    ):
        for part in mapped(_original_words if is_original else _units, _pieces(sample)):
            counts.update(part)
            progress.add(sum(len(unit) * count for unit, count in part.items()))
    usual = min(40_000, max(tokenizers.SIZES[0], survey.train_characters // 100))
    say(f"training a tokenizer on {len(counts)} distinct words")
    if is_original:
        learned = vocabulary.learn(counts, config.vocab_size, usual)
        return tokenizers.OriginalTokenizer(learned)
    size = config.vocab_size or usual
    tokenizer = tokenizers.train_sentencepiece(counts, size)
    if tokenizer.vocab_size < size:
        say(f"the text has only {tokenizer.vocab_size} pieces; vocab_size is reduced to that")
    return tokenizer


def _units(piece: list[_Block]) -> Counter[str]:
    counts = Counter()
    for block in piece:
        counts.update(tokenizers.count_units(block.text))
    return counts


def _original_words(piece: list[_Block]) -> Counter[str]:
    counts = Counter()
    for block in piece:
        counts.update(original.count_words(block.before + block.text))
        counts.subtract(original.count_words(block.before))
    return +counts


# Third reading: ids


def _encode(
    folder: Path, inputs: _Inputs, survey: _Survey, config: PrepareConfig, tokenizer: Tokenizer
) -> dict[str, dict]:
    """Write the shards, from where the journal ends; returns the splits of the manifest."""
    journal = _journal_so_far(folder)
    first = journal["pieces"]
    if first:
        say(f"continuing after {first} pieces")
    dtype = _dtype(tokenizer)
    encode = functools.partial(
        _encoded, str(folder / "tokenizer"), tokenizer.fingerprint, dtype.str
    )
    pieces = islice(_pieces(_divided(inputs, survey, config)), first, None)
    with ExitStack() as stack:
        splits = {}
        for name in [TRAIN, VALID] if inputs.valid or inputs.fraction > 0 else [TRAIN]:
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


def _pieces(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
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


def _encoded(folder: str, fingerprint: str, dtype: str, piece: list[_Block]) -> dict[str, Encoded]:
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
        part.counts["words"] += len(block.text.split())
    return {name: part._replace(ids=np.array(ids[name], dtype)) for name, part in parts.items()}


def _ids(tokenizer: Tokenizer, block: _Block) -> list[int]:
    return tokenizer.encode(block.before + block.text)[len(tokenizer.encode(block.before)) :]


@functools.lru_cache(maxsize=1)
def _loaded(folder: str, fingerprint: str) -> Tokenizer:
    """The tokenizer, once in each worker; another one in the same folder is another one."""
    tokenizer = tokenizers.load(folder)
    assert tokenizer.fingerprint == fingerprint
    return tokenizer


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype("<u2" if tokenizer.size < 2**16 else "<u4")


def _journal_so_far(folder: Path) -> dict:
    try:
        return json.loads((folder / "journal.json").read_bytes())
    except FileNotFoundError:
        return {"pieces": 0, "splits": {}}


def _save_journal(folder: Path, pieces: int, splits: dict[str, Shards]) -> None:
    states = {name: split.state() for name, split in splits.items()}
    write_json(folder / "journal.json", {"pieces": pieces, "splits": states})


# Manifest


def _manifest(
    inputs: _Inputs, survey: _Survey, tokenizer: Tokenizer, arguments: dict, splits: dict
) -> dict:
    source = {
        "train": inputs.train.description,
        "valid": inputs.valid.description if inputs.valid else None,
        "sha256": survey.sha256,
        "empty_documents": survey.empty,
    }
    return {
        "format": FORMAT,
        "tokenizer": {
            "mode": tokenizer.mode,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
        },
        "dtype": _dtype(tokenizer).name,
        "source": source,
        "arguments": arguments,
        "splits": splits,
    }


def _summary(output: Path, manifest: dict) -> dict:
    splits = {
        name: split | {"shards": len(split["shards"])} for name, split in manifest["splits"].items()
    }
    source = {"sha256": manifest["source"]["sha256"]}
    return {"output": str(output)} | manifest | {"source": source, "splits": splits}
