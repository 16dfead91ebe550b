"""spaCy's tokenizer in linear time.

spaCy takes a chunk between spaces apart from both its ends, a mark at a time, and for each mark
searches all that is left: 20,000 apostrophes without a space take it minutes. Here the ends of a
long chunk are looked for at its ends alone, by the same rules in the same order. spaCy is told the
places between its words as if they had been found within the chunk, and goes on from there.
"""

import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, NamedTuple

LONG = 256  # characters; shorter chunks are left to spaCy
# No rule for the ends of a chunk matches as many characters as WINDOW, but that for runs of dots,
# nor looks at as many beside them as EDGE.
WINDOW, EDGE = 32, 8
# How spaCy's pattern of addresses begins.
_SCHEME, _USER = r"(?:(?:[\w\+\-\.]{2,})://)?", r"(?:\S+(?::\S*)?@)?"


class Cut(NamedTuple):
    """A place between two words, as a match of nothing."""

    place: int

    def start(self) -> int:
        return self.place

    def end(self) -> int:
        return self.place


def linear_tokenizer(tokenizer: Any, vocab: Any, with_exceptions: bool) -> Any:
    """A tokenizer of spaCy with the rules of another one and its results."""
    from spacy.symbols import ORTH
    from spacy.tokenizer import Tokenizer

    rules = tokenizer.rules if with_exceptions else {}
    exceptions = {text: [token[ORTH] for token in tokens] for text, tokens in rules.items()}
    chunks = LongChunks(tokenizer, exceptions)
    return Tokenizer(
        vocab,
        rules=rules,
        prefix_search=_unless_long(tokenizer.prefix_search),
        suffix_search=_unless_long(tokenizer.suffix_search),
        infix_finditer=chunks.infixes,
        url_match=_unless_long(tokenizer.url_match),
    )


class LongChunks:
    """The words of long chunks by the rules of a tokenizer.

    Args:
      exceptions: the words of each of its exceptions.
    """

    def __init__(self, tokenizer: Any, exceptions: dict[str, list[str]]):
        self._prefix, self._suffix = tokenizer.prefix_search, tokenizer.suffix_search
        self._infixes = tokenizer.infix_finditer
        self._is_address = _address(tokenizer.url_match)
        self._exceptions = exceptions
        self._longest = max(map(len, exceptions), default=0)

    def infixes(self, chunk: str) -> Iterator[Any]:
        """What spaCy takes for the marks within a chunk."""
        return self._infixes(chunk) if len(chunk) <= LONG else map(Cut, self.cuts(chunk))

    def cuts(self, chunk: str) -> Iterator[int]:
        """Where words begin and end; as in spaCy's `_split_affixes` and `_attach_tokens`."""
        start, end, suffixes = 0, len(chunk), []
        size = -1
        while start < end and end - start != size and not self._is_exception(chunk, start, end):
            size = end - start
            prefix = self._prefix_length(chunk, start, end)
            if prefix and self._is_exception(chunk, start + prefix, end):
                start += prefix
                yield start
                break
            suffix = self._suffix_length(chunk, start + prefix, end)
            if suffix and self._is_exception(chunk, start, end - suffix):
                end -= suffix
                suffixes.append(end)
                break
            if prefix:
                start += prefix
                yield start
            if suffix and prefix + suffix <= size:
                end -= suffix
                suffixes.append(end)
        yield from (start + place for place in self._cuts_within(chunk[start:end]))
        yield from reversed(suffixes)

    def _cuts_within(self, text: str) -> Iterator[int]:
        """The same for what is left without its ends."""
        if text in self._exceptions:
            yield from accumulate(map(len, self._exceptions[text]))
        elif "." not in text or not self._is_address(text):  # no address is without a dot
            for match in self._infixes(text):
                if match.start() > 0:
                    yield match.start()
                    yield match.end()

    def _is_exception(self, chunk: str, start: int, end: int) -> bool:
        return end - start <= self._longest and chunk[start:end] in self._exceptions

    def _prefix_length(self, chunk: str, start: int, end: int) -> int:
        size = WINDOW
        while True:
            match = self._prefix(chunk[start : min(end, start + size)])
            length = match.end() - match.start() if match else 0
            if start + size >= end or length < size - EDGE:
                return length
            size *= 2

    def _suffix_length(self, chunk: str, start: int, end: int) -> int:
        size = WINDOW
        while True:
            match = self._suffix(chunk[max(start, end - size) : end])
            length = match.end() - match.start() if match else 0
            if start + size >= end or length < size - EDGE:
                return length
            size *= 2


def _address(rule: Callable) -> Callable[[str], bool]:
    """Whether a text is an address, by spaCy's pattern in linear time. What stands before the last
    "@" may be anything, but the pattern tries each colon in it with each "@"."""
    pattern = getattr(getattr(rule, "__self__", None), "pattern", "").removeprefix("(?u)")
    beginning = f"^{_SCHEME}{_USER}"
    if not pattern.startswith(beginning):
        return lambda text: bool(rule(text))
    host = re.compile(pattern.removeprefix(beginning))
    without_user = re.compile(f"{_SCHEME}{host.pattern}")

    def matches(text: str) -> bool:
        places = (match.end() for match in re.finditer("@", text) if match.start())
        # A host has no "@" in it, so that each part is looked at once.
        return bool(without_user.match(text) or any(host.match(text, at) for at in places))

    return matches


def _unless_long(rule: Callable) -> Callable:
    return lambda chunk: rule(chunk) if len(chunk) <= LONG else None
