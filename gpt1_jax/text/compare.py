"""What a change of tokenizer does to the ids of a text: original beside hf_basic, line by line."""

import difflib
import functools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.text import workers
from gpt1_jax.text.config import CompareConfig
from gpt1_jax.text.sources import Files, matching
from gpt1_jax.tokenization import loading, text_rules
from gpt1_jax.tokenization.gpt1_bpe import VocabularyTokenizer
from gpt1_jax.tokenization.tokenizer import VocabularyMode

DEFINITION = (
    "an id differs if difflib.SequenceMatcher (autojunk off), applied to the ids of the two modes "
    "for each line with the line end before it, finds no partner for it"
)
_EXAMPLES = 10
_LONGEST_EXAMPLE = 40  # characters


class _Counts(NamedTuple):
    documents: int
    characters: int
    ids: Counter  # by mode, and alike: differing, unknown
    differing: Counter
    unknown: Counter
    replaced: Counter  # (symbols of the one mode, of the other): occurrences


def compare(config: CompareConfig) -> dict:
    """Counts of ids for each mode, how many of them differ (see DEFINITION) and their share, and
    the most frequent differences as symbols of either mode.

    Raises:
      UserError: other modes than the two, no vocabulary, or text that cannot be read.
    """
    _check(config)
    vocab = str(config.vocab)
    for mode in config.modes:
        loading.from_vocabulary(vocab, mode)  # what is wrong with it is said before the work
    paths = matching(config.inputs)
    files = Files(paths, Path(paths[0]).parent, config.text_key)
    say(files.describe())
    characters = sum(path.stat().st_size for path in paths)
    totals = _Counts(0, 0, Counter(), Counter(), Counter(), Counter())
    work = functools.partial(_compared, vocab, config.modes)
    processes = workers.number(config.workers, characters)
    with (
        workers.Progress("comparing", None) as progress,
        workers.mapping(processes) as mapped,
    ):
        for part in mapped(work, _parts(files)):
            totals = _Counts(*(total + more for total, more in zip(totals, part, strict=True)))
            progress.add(part.characters)
    return _report(config, totals)


def _check(config: CompareConfig) -> None:
    if len(config.modes) != 2 or len(set(config.modes)) != 2:
        given, known = (",".join(modes) for modes in (config.modes, get_args(VocabularyMode)))
        raise UserError(f"--compare={given}: expected two different modes, as in {known}")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers}: expected at least 1")


def _parts(files: Files) -> Iterator[tuple[bool, str, str]]:
    """Whether a document begins, what stands for its earlier text, and some whole lines of it."""
    for _, blocks in files.documents():
        before, first = "", True
        for block in text_rules.whole_lines(blocks):
            yield first, before, block
            before, first = text_rules.before(before, block), False


def _compared(
    vocab: str, modes: tuple[VocabularyMode, ...], part: tuple[bool, str, str]
) -> _Counts:
    first, before, text = part
    pair = [_tokenizer(vocab, mode) for mode in modes]
    ids, differing, unknown, replaced = Counter(), Counter(), Counter(), Counter()
    for line in text.split("\n"):
        encoded = [
            tokenizer.encode(before + line)[len(tokenizer.encode(before)) :] for tokenizer in pair
        ]
        for mode, of_line in zip(modes, encoded, strict=True):
            ids[mode] += len(of_line)
            unknown[mode] += of_line.count(0)
        for spans in _differences(*encoded):
            differing.update({mode: len(span) for mode, span in zip(modes, spans, strict=True)})
            symbols = tuple(
                " ".join(tokenizer.symbols[index] for index in span)
                for tokenizer, span in zip(pair, spans, strict=True)
            )
            if max(map(len, symbols)) <= _LONGEST_EXAMPLE:
                replaced[symbols] += 1
        before = text_rules.before(before, line)
    return _Counts(int(first), len(text), ids, differing, unknown, replaced)


def _differences(one: list[int], other: list[int]) -> Iterator[tuple[list[int], list[int]]]:
    if one == other:
        return
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    for tag, first, last, other_first, other_last in matcher.get_opcodes():
        if tag != "equal":
            yield one[first:last], other[other_first:other_last]


@functools.lru_cache(maxsize=2)
def _tokenizer(vocab: str, mode: str) -> VocabularyTokenizer:
    return loading.from_vocabulary(vocab, mode)


def _report(config: CompareConfig, totals: _Counts) -> dict:
    report: dict[str, Any] = {
        "documents": totals.documents,
        "characters": totals.characters,
        "definition": DEFINITION,
    }
    for mode in config.modes:
        count = totals.ids[mode]
        report[mode] = {
            "ids": count,
            "unknown": totals.unknown[mode],
            "differing": totals.differing[mode],
            "share": totals.differing[mode] / count if count else 0.0,
        }
        say(
            f"{mode}: {count} ids, {totals.differing[mode]} of them "
            f"({100 * report[mode]['share']:.2f}%) differ, {totals.unknown[mode]} unknown"
        )
    ordered = sorted(totals.replaced.items(), key=lambda item: (-item[1], item[0]))
    report["examples"] = [
        dict(zip(config.modes, symbols, strict=True)) | {"count": count}
        for symbols, count in ordered[:_EXAMPLES]
    ]
    for example in report["examples"]:
        one, other = (example[mode] for mode in config.modes)
        say(f"{example['count']} times {one!r} beside {other!r}")
    return report
