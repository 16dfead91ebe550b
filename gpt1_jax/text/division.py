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
from gpt1_jax.text.inputs import TRAIN, VALID, Inputs, Unit
from gpt1_jax.text.sources import Source, TextChanged, last_cut
from gpt1_jax.tokenization import text_rules
from gpt1_jax.tokenization.long_lines import LongLine, Part, is_open

_NAMED = 5  # empty documents that are named
_CHANGED = "the text changed while it was prepared; start again when nobody writes to it"
_SHARE_UNSAID = 0.02  # of the text, by which valid may differ from what was asked for


@dataclass(frozen=True)
class Survey:
    """Counts, and what it takes to divide the documents without having all their names at hand."""

    documents: int
    empty: int
    characters: int  # of everything
    train_characters: int  # of the documents to train on
    sha256: str  # of the digests of all units
    tail: int | None = None  # the single document's characters from here on are for validation
    always_valid: str | None = None
    always_train: str | None = None


@dataclass
class Count:
    """Counts of the documents of some units, and the digests of their texts."""

    documents: int = 0
    empty: int = 0
    empty_names: list[str] = field(default_factory=list)  # of the first
    characters: int = 0
    chosen: int = 0
    chosen_characters: int = 0
    # (hash, name, characters) of the documents next to be chosen and to be left
    lowest: tuple[float, str, int] = (2.0, "", 0)
    highest: tuple[float, str, int] = (-1.0, "", 0)
    digests: list[str] = field(default_factory=list)

    @classmethod
    def of_all(cls, counts: "list[Count]") -> "Count":
        """Those of several units together, in order."""
        sums = ("documents", "empty", "characters", "chosen", "chosen_characters")
        return cls(
            **{name: sum(getattr(one, name) for one in counts) for name in sums},
            empty_names=list(chain.from_iterable(one.empty_names for one in counts))[:_NAMED],
            lowest=min((one.lowest for one in counts), default=cls.lowest),
            highest=max((one.highest for one in counts), default=cls.highest),
            digests=list(chain.from_iterable(one.digests for one in counts)),
        )


def take_survey(inputs: Inputs, config: PrepareConfig) -> Survey:
    """Reads everything once."""
    with workers.Progress("reading", None) as progress:
        counts = [count(unit, config.seed, inputs.fraction, progress.add) for unit in inputs.units]
    return survey_of(inputs, counts)


def survey_of(inputs: Inputs, counts: list[Count]) -> Survey:
    """The survey from the counts of all units, in order. UserError where there is no text."""
    pairs = list(zip(inputs.units, counts, strict=True))
    count = Count.of_all([one for unit, one in pairs if not unit.held_out])
    held_out = Count.of_all([one for unit, one in pairs if unit.held_out])
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
    division = _division(count, inputs.chance)
    share = 1 - division["train_characters"] / count.characters
    if abs(share - inputs.chance) > _SHARE_UNSAID:
        say(
            f"valid gets {share:.0%} of the text rather than {inputs.chance:.0%}, for documents "
            "stay whole; --valid names its files, --valid_fraction=0 leaves all to train"
        )
    return Survey(
        documents=count.documents + held_out.documents,
        empty=empty,
        characters=count.characters + held_out.characters,
        sha256=_together(count.digests + held_out.digests),
        **division,
    )


def _together(digests: Iterable[str]) -> str:
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def count(
    unit: Unit, seed: int, chance: float, told: Callable[[int], None] = lambda characters: None
) -> Count:
    """What there is to say of a unit that is read; `told` gets the characters of each block."""
    found, digest = Count(), hashlib.sha256()
    for name, blocks in _seen(unit.source, digest):
        characters = 0
        for block in blocks:
            characters += len(block)
            told(len(block))
        if not characters:
            found.empty += 1
            found.empty_names += [name] * (found.empty <= _NAMED)
            continue
        place = unit_hash(seed, name)
        found.documents += 1
        found.characters += characters
        if place < chance and not unit.held_out:
            found.chosen += 1
            found.chosen_characters += characters
        found.lowest = min(found.lowest, (place, name, characters))
        found.highest = max(found.highest, (place, name, characters))
    found.digests.append(digest.hexdigest())
    return found


def _division(count: Count, fraction: float) -> dict:
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
    """All documents in order, each block with its split; a block can be encoded on its own.
    Raises TextChanged at the end where it is not the text of the survey."""
    return chain.from_iterable(divided_units(inputs, survey, config))


def divided_units(
    inputs: Inputs, survey: Survey, config: PrepareConfig
) -> Iterator[Iterator[Block]]:
    """The same by unit, each to be taken whole before the next."""
    digests = []
    for unit in inputs.units:
        digest = hashlib.sha256()
        yield _blocks_of(unit, inputs.chance, survey, config, digest)
        digests.append(digest.hexdigest())
    if _together(digests) != survey.sha256:
        raise TextChanged(_CHANGED)


def blocks_of_unit(
    unit: Unit, expected: str, chance: float, survey: Survey, config: PrepareConfig
) -> Iterator[Block]:
    """Those of one unit, whose digest is to be `expected`. Raises TextChanged like
    `divided_blocks`."""
    digest = hashlib.sha256()
    yield from _blocks_of(unit, chance, survey, config, digest)
    if digest.hexdigest() != expected:
        raise TextChanged(_CHANGED)


def _blocks_of(
    unit: Unit, chance: float, survey: Survey, config: PrepareConfig, digest
) -> Iterator[Block]:
    if config.tokenizer != "original":
        yield from _split(unit, chance, survey, config.seed, digest, _before_a_word, iter)
        return
    whole = text_rules.whole_lines
    blocks = _split(unit, chance, survey, config.seed, digest, _after_a_line, whole)
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
    unit: Unit,
    chance: float,
    survey: Survey,
    seed: int,
    digest,
    cut: Callable,
    regrouped: Callable,
) -> Iterator[Block]:
    for name, blocks in _seen(unit.source, digest):
        text = regrouped(blocks)
        if unit.held_out:
            yield from _labelled(text, VALID)
        elif survey.tail is not None:
            yield from _with_tail(text, survey.tail, cut, regrouped)
        else:
            by_hash = unit_hash(seed, name) < chance
            chosen = (by_hash and name != survey.always_train) or name == survey.always_valid
            yield from _labelled(text, VALID if chosen else TRAIN)


def _seen(source: Source, digest) -> Iterator[tuple[str, Iterator[str]]]:
    """The documents without blank ones, each of which passes through the digest when it is read."""

    def seen(blocks: Iterable[str]) -> Iterator[str]:
        for block in _unless_blank(blocks):
            digest.update(block.encode())
            yield block

    for name, blocks in source.documents():
        yield name, seen(blocks)
        digest.update(b"\xff")  # a byte that UTF-8 never has keeps documents apart


def sampled(blocks: Iterable[Block], number: int, seed: int, share: float) -> Iterator[Block]:
    """Of the blocks of unit `number` those that the tokenizer is trained on: a share of the
    training text."""
    training = (block for block in blocks if block.split == TRAIN)
    for index, block in enumerate(training):
        if share == 1 or unit_hash(seed, "tokenizer", number, index) < share:
            yield block


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
