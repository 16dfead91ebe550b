"""The words of GPT-1: the steps of its text before byte-pair encoding (text_utils.py in
openai/finetune-transformer-lm).

    ftfy        repairs what was decoded wrongly, curly quotes become straight ones
    standardize spaces around dashes and most punctuation, one form of white space
    spaCy       the rules of its English tokenizer: do n't, it 's, Mr.

No word reaches across a line end, and only one thing that ftfy knows does: it leaves HTML entities
alone from the first line with a "<" on. So a document may be cut after a line end; see `before`.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.long_chunks import linear_tokenizer

_DASHES = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})
# Runs of one and the same. The backslash is not among them: in the released pattern, which is no
# raw string, the alternative meant for it is a second plus.
_PADDED = re.compile(r'([-~!";?+,)(/*\[\]}{|_])\1*')
# ftfy changes nothing in a line of other characters than these, its end aside. "&" begins an HTML
# entity.
# ftfy reads a line in parts of so many characters, from its start on.
SEGMENT = 10**6
_TO_FIX = re.compile(r"[^\t\r\n !-%'-~]")


def fix(text: str) -> str:
    """ftfy.fix_text(text), in less time."""
    fix_text = _ftfy().fix_text
    parts, position = [], 0
    markup = text.find("<")
    while found := _TO_FIX.search(text, position):
        start = text.rfind("\n", position, found.start()) + 1 or position
        end = text.find("\n", found.start()) + 1 or len(text)
        unescape = False if 0 <= markup < start else "auto"
        parts.append(_line_ends(text[position:start]))
        parts.append(fix_text(text[start:end], unescape_html=unescape))
        position = end
    return "".join([*parts, _line_ends(text[position:])])


def fix_segment(text: str, markup: bool) -> str:
    """A part of a line that ftfy would fix by itself, at most SEGMENT characters. `markup`: whether
    there is a "<" before it."""
    if not _TO_FIX.search(text):
        return _line_ends(text)
    return _ftfy().fix_text(text, unescape_html=False if markup else "auto")


def _line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def standardize(text: str) -> str:
    """Dashes, dots and accents in one form; spaces around punctuation; single spaces, and a space
    on each side of a run of line ends.

    >>> standardize("A word—another,\\n\\n  \\\\ and  more!!")
    'A word - another , \\n \\\\ and more !!'
    """
    return " \n ".join(" ".join(chunks) for chunks in lines(text))


def lines(text: str) -> Iterator[list[str]]:
    """The chunks between spaces of the standardised text, for each line that has any."""
    padded = _PADDED.sub(r" \g<0> ", text.translate(_DASHES))
    return (chunks for line in padded.split("\n") if (chunks := line.split()))


def whole_lines(blocks: Iterable[str]) -> Iterator[str]:
    """The text of blocks, in blocks that end with a line end, the last one aside; a line that is
    longer than blocks are comes in parts of SEGMENT characters."""
    rest, within = "", False
    for block in blocks:
        rest += block
        while True:
            end = rest.find("\n", 0, SEGMENT) if within else rest.rfind("\n")
            if end >= 0:
                yield rest[: end + 1]
                rest, within = rest[end + 1 :], False
            elif len(rest) >= SEGMENT:
                yield rest[:SEGMENT]
                rest, within = rest[SEGMENT:], True
            else:
                break
    if rest:
        yield rest


def before(text: str, part: str) -> str:
    """A short text that stands for text + part, which ends with a line end, when the ids of what
    follows are asked for: encode(text + part + more) ends with what encode(before(text, part) +
    more) has after its first id.

    Nothing stands for text that has no words.
    """
    if "<" in text + part:
        return "<\n"
    if text or any(next(lines(fix(line)), None) for line in part.split("\n")):
        return ".\n"
    return ""


class English:
    """spaCy's tokenizer of English, without any of its models.

    words_of_exceptions: of which its exceptions consist.

    spaCy cuts chunks between spaces one by one, so a chunk can be cut once and remembered. After
    that its exceptions with punctuation inside ("Mr.", ":D") are looked for among the words of
    all chunks, and the longest match counts: one that reaches across a space changes nothing
    itself, but may hide one within a chunk. Where an exception may have had its effect in this
    way, the whole line goes to spaCy.
    """

    def __init__(self):
        try:
            import spacy
        except ImportError:
            raise UserError(_missing("spacy")) from None
        nlp = spacy.blank("en")
        # What spaCy finds out about each word, whether it looks like an address and more, is not
        # asked for here, and takes quadratic time for long ones.
        vocab: Any = nlp.vocab
        vocab.lex_attr_getters = {}
        # spaCy's types also allow any function in its place.
        rules: Any = nlp.tokenizer
        self._tokenizer = linear_tokenizer(rules, nlp.vocab, with_exceptions=True)
        self._without_exceptions = linear_tokenizer(rules, nlp.vocab, with_exceptions=False)
        exceptions = {text: self.words([text]) for text in rules.rules}
        self._exceptions = frozenset(exceptions)
        self.words_of_exceptions = frozenset(
            word
            for text, words in exceptions.items()
            for word in (*words, *self._plain(text), *text.split())
        )
        self._traces = frozenset(
            words[0] for text, words in exceptions.items() if words != self._plain(text)
        )

    def words(self, chunks: list[str]) -> list[str]:
        """The words of a line."""
        return [word.text for word in self._tokenizer(" ".join(chunks))]

    def words_of_chunk(self, chunk: str) -> list[str] | None:
        """The words of a chunk in whatever line; None if the line may matter."""
        if chunk in self._exceptions:
            return self.words([chunk])
        # All rules but the exceptions are about punctuation, symbols and digits.
        if chunk.isascii() and chunk.isalpha():
            return [chunk]
        words = self.words([chunk])
        untouched = self._traces.isdisjoint(words) or words == self._plain(chunk)
        return words if untouched else None

    def _plain(self, text: str) -> list[str]:
        return [word.text for word in self._without_exceptions(text)]


def count_words(text: str) -> Counter[str]:
    """How often each word occurs in a text, in lower case, line ends aside.

    Counts of parts that begin after line ends add up to the counts of the whole.
    """
    return count_fixed_words(fix(text))


def count_fixed_words(text: str) -> Counter[str]:
    """The same of a text that ftfy has seen already."""
    chunks, counts = Counter(), Counter()
    cutter = english()
    for line in lines(text):
        if None in map(cutter.words_of_chunk, line):
            counts.update(cutter.words(line))
        else:
            chunks.update(line)
    for chunk, count in chunks.items():
        for word in cutter.words_of_chunk(chunk):
            counts[word] += count
    lower = Counter()
    for word, count in counts.items():
        lower[word.lower()] += count
    return lower


@functools.cache
def english() -> English:
    """The one of this process; it takes half a second to make."""
    return English()


def versions() -> dict[str, str]:
    """Of the libraries whose rules decide about words."""
    import spacy

    return {"ftfy": _ftfy().__version__, "spacy": spacy.__version__}


def _ftfy():
    try:
        import ftfy
    except ImportError:
        raise UserError(_missing("ftfy")) from None
    return ftfy


def _missing(package: str) -> str:
    return f"the original text pipeline needs the package {package}; pip install {package}"
