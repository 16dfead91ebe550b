"""Documents divided into train and valid, whole ones by a seeded hash."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.text import workers
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.inputs import TRAIN, VALID, Inputs
from gpt1_jax.text.sources import Source, TextChanged, last_cut
from gpt1_jax.tokenization import text_rules
from gpt1_jax.tokenization.long_lines import LongLine, Part, is_open

_NAMED = 5  # empty documents that are named
_SHARE_UNSAID = 0.02  # of the text, by which valid may differ from what was asked for


@dataclass(frozen=True)
class Survey:
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
    empty_names: list[str] = field(default_factory=list)  # of the first
    characters: int = 0
    chosen: int = 0
    chosen_characters: int = 0
    # (hash, name, characters) of the documents next to be chosen and to be left
    lowest: tuple = (2.0, "", 0)
    highest: tuple = (-1.0, "", 0)


def take_survey(inputs: Inputs, config: PrepareConfig) -> Survey:
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
        names = [*count.empty_names, *held_out.empty_names][:_NAMED]
        more = f" and {empty - len(names)} more" if empty > len(names) else ""
        say(f"{empty} empty documents left out: {', '.join(names)}{more}")
    fraction = 0.0 if inputs.valid else inputs.fraction
    division = _division(count, fraction)
    share = 1 - division["train_characters"] / count.characters
    if abs(share - fraction) > _SHARE_UNSAID:
        say(
            f"valid gets {share:.0%} of the text rather than {fraction:.0%}, for documents stay "
            "whole; --valid names its files, --valid_fraction=0 leaves all to train"
        )
    return Survey(
        documents=count.documents + held_out.documents,
        empty=empty,
        characters=count.characters + held_out.characters,
        sha256=digest.hexdigest(),
        **division,
    )


def _counted(
    source: Source, digest, progress: workers.Progress, seed: int, fraction: float
) -> _Count:
    count = _Count()
    for name, blocks in _seen(source, digest):
        characters = 0
        for block in blocks:
            characters += len(block)
            progress.add(len(block))
        if not characters:
            count.empty += 1
            count.empty_names += [name] * (count.empty <= _NAMED)
            continue
        place = unit_hash(seed, name)
        count.documents += 1
        count.characters += characters
        if place < fraction:
            count.chosen += 1
            count.chosen_characters += characters
        count.lowest = min(count.lowest, (place, name, characters))
        count.highest = max(count.highest, (place, name, characters))
    return count


def _division(count: _Count, fraction: float) -> dict:
    """The fields of Survey that say which documents are for validation, by the rules."""
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


class Block(NamedTuple):
    split: str
    first: bool  # of its document in this split
    text: str
    before: str = ""  # stands for the earlier text of its document, see text_rules.before
    part: Part | None = None  # of a long line, in place of `before`


def divided_blocks(inputs: Inputs, survey: Survey, config: PrepareConfig) -> Iterator[Block]:
    """All documents in order, each block with its split; a block can be encoded on its own."""
    if config.tokenizer != "original":
        yield from _split(inputs, survey, config.seed, _before_a_word, iter)
        return
    blocks = _split(inputs, survey, config.seed, _after_a_line, text_rules.whole_lines)
    before, line, split = "", None, TRAIN
    for block in blocks:
        if block.first:
            if line is not None:
                yield Block(split, False, "", part=line.finish())
            before, line, split = "", None, block.split
        goes_on = is_open(block.text)
        if line is None and not goes_on:
            yield block._replace(before=before)
            before = text_rules.before(before, block.text)
            continue
        line = line or LongLine(before)
        yield block._replace(part=line.add(block.text))
        if not goes_on:
            yield Block(split, False, "", part=line.finish())
            before, line = line.before, None
    if line is not None:
        yield Block(split, False, "", part=line.finish())


def _split(
    inputs: Inputs, survey: Survey, seed: int, cut: Callable, regrouped: Callable
) -> Iterator[Block]:
    digest = hashlib.sha256()
    for name, blocks in _seen(inputs.train, digest):
        text = regrouped(blocks)
        if survey.tail is not None:
            yield from _with_tail(text, survey.tail, cut, regrouped)
            continue
        by_hash = inputs.valid is None and unit_hash(seed, name) < inputs.fraction
        held_out = (by_hash and name != survey.always_train) or name == survey.always_valid
        yield from _labelled(text, VALID if held_out else TRAIN)
    if inputs.valid:
        for _, blocks in _seen(inputs.valid, digest):
            yield from _labelled(regrouped(blocks), VALID)
    if digest.hexdigest() != survey.sha256:
        raise TextChanged(
            "the text changed while it was prepared; start again when nobody writes to it"
        )


def _seen(source: Source, digest) -> Iterator[tuple[str, Iterator[str]]]:
    """The documents without blank ones, each of which passes through the digest when it is read."""

    def seen(blocks: Iterable[str]) -> Iterator[str]:
        for block in _unless_blank(blocks):
            digest.update(block.encode())
            yield block

    for name, blocks in source.documents():
        yield name, seen(blocks)
        digest.update(b"\xff")  # a byte that UTF-8 never has keeps documents apart


def _before_a_word(text: str, within: bool) -> int:
    """Where text, some characters of a block, is cut best; 0 is before the block."""
    return last_cut(text) or len(text)


def _after_a_line(text: str, within: bool) -> int:
    """Like `_before_a_word`, where a block begins after a line end: not the first one, nor one
    `within` a line."""
    return text.rfind("\n") + 1 or (_before_a_word(text, True) if within else 0)


def _labelled(blocks: Iterable[str], split: str) -> Iterator[Block]:
    for index, block in enumerate(blocks):
        yield Block(split, index == 0, block)


def _with_tail(
    blocks: Iterable[str], tail: int, cut_of: Callable, regrouped: Callable
) -> Iterator[Block]:
    """The blocks of one document, for validation from character `tail` or a little before on."""
    end, within, blocks = 0, True, iter(blocks)
    for index, block in enumerate(blocks):
        start, end = end, end + len(block)
        if end > tail:
            cut = cut_of(block[: tail - start], within)
            if cut:
                yield Block(TRAIN, index == 0, block[:cut])
            yield from _labelled(regrouped(chain([block[cut:]], blocks)), VALID)
            return
        yield Block(TRAIN, index == 0, block)
        within = not block.endswith("\n")


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


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    # Names of files may have bytes that are no text.
    name = "\0".join(map(str, parts)).encode(errors="surrogateescape")
    digest = hashlib.sha256(name).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
