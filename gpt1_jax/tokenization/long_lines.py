"""Lines of any length in bounded memory, for the pipeline of 2018: ftfy and spaCy are given parts
of a line, and their results are those of the whole.

ftfy reads a line in segments of SEGMENT characters itself, so the segments are given to it one by
one. spaCy cuts chunks between spaces by themselves, exceptions aside, which may reach across a
space; where a word stands that no exception has, nothing reaches across.
"""

import re
from typing import NamedTuple

from gpt1_jax.tokenization import text_rules
from gpt1_jax.tokenization.text_rules import SEGMENT

# A plain word among others. Where its line was cut, there is one before it on the same line.
_WORD = re.compile(r"(?<=[a-z] )[a-z]{2,}(?= )")
_LOOK = 2**12  # characters at the end of a segment in which such a word is looked for first


class Part(NamedTuple):
    """A part of a long line.

    fixed: its text after ftfy, from one cut to another; the raw text of a segment has its cuts
      elsewhere.
    lead: whether the id of a line end comes before it.
    joined: whether the segment begins within a word.
    """

    fixed: str
    lead: bool
    joined: bool


def is_open(text: str) -> bool:
    """Whether a block of `text_rules.whole_lines` is a part of a long line that goes on."""
    return len(text) >= SEGMENT and not text.endswith("\n")


class LongLine:
    """The parts of a long line, of its segments in their order.

    before: what stands for the text before the line, as of `text_rules.before`.
    """

    def __init__(self, before: str):
        self._markup, self._lead = "<" in before, bool(before)
        self._words = False
        self._rest, self._last = "", " "

    def add(self, segment: str) -> Part:
        """What a segment makes certain."""
        joined = not (self._last.isspace() or segment[0].isspace())
        fixed = text_rules.fix_segment(segment, self._markup)
        self._markup, self._last = self._markup or "<" in segment, segment[-1]
        text = self._rest + fixed
        cut = _last_cut(text, len(self._rest))
        self._rest = text[cut:]
        return self._part(text[:cut], joined)

    def finish(self) -> Part:
        """What is left."""
        rest, self._rest = self._rest, ""
        return self._part(rest, joined=False)

    @property
    def before(self) -> str:
        """What stands for the text up to here, the line with it."""
        return "<\n" if self._markup else ".\n" if self._words or self._lead else ""

    def _part(self, fixed: str, joined: bool) -> Part:
        words = bool(fixed.strip())
        lead = words and self._lead and not self._words
        self._words = self._words or words
        return Part(fixed, lead, joined)


def _last_cut(text: str, known: int) -> int:
    """The last place that nothing reaches across; 0 if there is none. Up to `known` there is none
    but what lacked a space behind it."""
    first, size = max(0, known - 64), _LOOK
    while True:
        start = max(first, len(text) - size)
        for match in reversed(list(_WORD.finditer(text, start))):
            if match.group() not in text_rules.english().words_of_exceptions:
                return match.start()
        if start == first:
            return 0
        size *= 8
