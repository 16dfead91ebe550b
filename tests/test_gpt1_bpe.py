"""The text pipeline of GPT-1: equal to a slow one written from its description, on any text."""

import json
import lzma
import random
import re
import string
import sys
import time
from collections import Counter
from itertools import chain, pairwise
from pathlib import Path

import pytest

from gpt1_jax.tokenization import long_chunks, text_rules, vocabulary
from gpt1_jax.tokenization.gpt1_bpe import OriginalTokenizer
from gpt1_jax.tokenization.loading import from_vocabulary

ftfy = pytest.importorskip("ftfy")
spacy = pytest.importorskip("spacy")

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from texts import HARD  # noqa: E402

SENTENCES = (
    "Mr. Hall's \"horse\" isn't here; it's gone, they're told -- gone at 10 a.m.\n"
    "'Tis a pity: we can't do nothin' about it, 'cause we won't. (So she said!)\n\n"
) * 30


# The pipeline once more, slow and plain


def slow_words(text: str) -> list[str]:
    """ftfy, standardisation, spaCy, lower case."""
    text = ftfy.fix_text(text)
    for found, put in (("—", "-"), ("–", "-"), ("―", "-"), ("…", "..."), ("´", "'")):
        text = text.replace(found, put)
    runs = "|".join(re.escape(symbol) + "+" for symbol in '-~!";?+,)(/*[]}{|_')
    text = re.sub(f"({runs})", lambda run: f" {run[0]} ", text)
    text = re.sub(r"\s+", lambda run: " \n " if "\n" in run[0] else " ", text).strip()
    return [word.text.lower() for word in slow_words.spacy(text)]


slow_words.spacy = spacy.blank("en").tokenizer


def slow_symbols(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encoding of one word; the best pair merges wherever it stands, left to right."""
    if word == "\n ":
        return ["\n</w>"]
    symbols = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = [pair for pair in pairwise(symbols) if pair in ranks]
        if not pairs:
            return symbols
        best = min(pairs, key=ranks.get)
        merged = []
        while symbols:
            if tuple(symbols[:2]) == best:
                merged.append("".join(best))
                symbols = symbols[2:]
            else:
                merged.append(symbols.pop(0))
        symbols = merged


def slow_ids(text: str, tokenizer: OriginalTokenizer) -> list[int]:
    ranks = {pair: rank for rank, pair in enumerate(tokenizer.merges)}
    words = slow_words(text)
    ids = {
        word: [tokenizer.encoder.get(symbol, 0) for symbol in slow_symbols(word, ranks)]
        for word in set(words)
    }
    return [index for word in words for index in ids[word]]


@pytest.fixture(scope="module")
def tokenizer() -> OriginalTokenizer:
    """A tiny vocabulary of the released format."""
    return OriginalTokenizer(vocabulary.learn(text_rules.count_words(SENTENCES), 400))


@pytest.fixture(scope="module")
def released(real_data) -> OriginalTokenizer:
    return from_vocabulary(real_data / "gpt1_bpe", "original")


def odd_text(draw: random.Random) -> str:
    """Exceptions of spaCy, parts of them, and what ftfy repairs, with few spaces between."""
    exceptions = sorted(slow_words.spacy.rules)
    parts = sorted({part for text in exceptions for part in re.findall(r"\w+|\W", text)})
    others = ["'", "(", ":", ".", "_", "<", ">", "&", "km", "a.b/c", "“", "\r", "\t", "&amp;"]
    others += ["\x1b[31m", "Ã©", "3,000", "é", "\u2028", "D", "x", "-", "İ", "\xa0", "\x0c"]
    chosen = []
    for _ in range(draw.randint(1, 14)):
        chosen.append(draw.choice(draw.choice([exceptions, parts, parts, others])))
        chosen.append(draw.choice(["", "", "", " ", "  ", "\n", " \n "]))
    return "".join(chosen)


# Each step


@pytest.mark.parametrize(
    ("text", "standard"),
    [
        ("a—b – c―d", "a - b - c - d"),
        ("wait… ´tis", "wait... 'tis"),
        ('what?!"no";--,,(())', 'what ? ! " no " ; -- ,, (( ))'),
        ("1+2++3 a/b*c [d]{e}|f|_g_~", "1 + 2 ++ 3 a / b * c [ d ] { e } | f | _ g _ ~"),
        ("a\\b \\\\ c", "a\\b \\\\ c"),
        ("a.b:c'd $%&#@=<>^`", "a.b:c'd $%&#@=<>^`"),
        ("a \t\n \n\n b\x0b c\xa0\u2003d", "a \n b c d"),
        ("\n\n a \n", "a"),
        (" \n ", ""),
    ],
)
def test_the_text_is_standardised(text, standard):
    assert text_rules.standardize(text) == standard


def test_fixing_line_by_line_is_fixing():
    draw = random.Random(0)
    texts = [*HARD, *(odd_text(draw) for _ in range(300)), "\r", "a\r\nb\rc", "é\r\n" * 3 + "x"]
    texts += ["&lt; é\n<\n&lt;", "é &lt; <\n&lt;", "<\né &lt;", "&lt;\n" * 3 + "<é&lt;\n&lt;"]
    for text in texts:
        assert text_rules.fix(text) == ftfy.fix_text(text)


def test_letters_alone_are_a_word_unless_they_are_an_exception():
    """What `words_of_chunk` takes for granted, for all pairs of letters and for longer ones."""
    rules = slow_words.spacy
    letters = string.ascii_letters
    joined = [a + b for a in letters for b in letters]
    draw = random.Random(1)
    joined += ["".join(draw.choices(letters, k=draw.randint(3, 12))) for _ in range(5000)]
    for word in joined:
        assert not rules.find_prefix(word)
        assert not rules.find_suffix(word)
        assert not list(rules.find_infix(word))
        assert rules.url_match(word) is None
    assert rules.token_match is None


def test_words_of_chunks_are_those_of_the_whole_line():
    english = text_rules.English()
    draw = random.Random(2)
    alone = 0
    for _ in range(600):
        for line in text_rules.lines(odd_text(draw)):
            found = list(map(english.words_of_chunk, line))
            if None not in found:
                alone += len(line) > 1
                assert list(chain(*found)) == english.words(line)
    assert alone > 300


def test_long_chunks_have_the_words_of_spacy(monkeypatch):
    """With chunks called long that spaCy itself still cuts in no time."""
    monkeypatch.setattr(long_chunks, "LONG", 16)
    english = text_rules.English()
    draw = random.Random(5)
    marks = "'\"().,:;!?-_/*[]{}<>@#$%&+=~^|…°²km/h'sS’“”A1a9xé日"
    exceptions = sorted(slow_words.spacy.rules)
    for _ in range(600):
        parts = [
            draw.choice(draw.choice((exceptions, "abcX19", marks, marks)))
            * draw.choice((1, 1, 1, 2, 5, 40))
            for _ in range(draw.randint(1, 40))
        ]
        chunk = "".join("".join(parts).split())
        assert english.words([chunk]) == [word.text for word in slow_words.spacy(chunk)], chunk


def test_marks_without_a_space_take_no_longer_each(tokenizer):
    """20,000 take spaCy alone two minutes."""
    apostrophes = "'" * 20_000
    began = time.process_time()
    ids = tokenizer.encode(apostrophes)
    assert time.process_time() - began < 20
    few = slow_ids(apostrophes[:600], tokenizer)
    assert ids[:10] == few[:10]
    assert len(ids) - len(few) == 20_000 - 600


@pytest.mark.parametrize("text", ["( :D=foo", "nothin 'cause=foo", "foo=Mr. _ ."])
def test_an_exception_that_a_space_may_hide_is_left_to_the_line(text):
    english = text_rules.English()
    chunks = text.split(" ")
    assert english.words(chunks) != [word for chunk in chunks for word in english.words([chunk])]
    assert None in map(english.words_of_chunk, chunks)


# The whole of it


def test_ids_are_those_of_the_slow_pipeline(tokenizer):
    draw = random.Random(3)
    texts = [
        "( :D=foo",
        "nothin 'cause=foo",
        "foo=Mr. _ .",
        SENTENCES,
        *HARD[:-7],
        *HARD[-5:],
        *(odd_text(draw) for _ in range(300)),
    ]
    for text in texts:
        assert tokenizer.encode(text) == slow_ids(text, tokenizer)


def test_a_document_may_be_cut_after_line_ends(tokenizer):
    draw = random.Random(4)
    for _ in range(100):
        text = "".join(odd_text(draw) + "\n" * draw.randint(0, 2) for _ in range(4))
        blocks = list(text_rules.whole_lines(re.findall(r"(?s).{1,9}", text)))
        assert "".join(blocks) == text
        before, ids = "", []
        for block in blocks:
            ids += tokenizer.encode(before + block)[len(tokenizer.encode(before)) :]
            before = text_rules.before(before, block)
        assert ids == tokenizer.encode(text)


def test_words_are_counted_without_line_ends():
    once = dict.fromkeys([",", "is", "n't", "(", "here", ")"], 1)
    counts = text_rules.count_words("The horse, the Horse\n\nisn't (here)")
    assert counts == Counter({"the": 2, "horse": 2} | once)


def test_ids_are_remembered_within_bounds(tokenizer, monkeypatch):
    import gpt1_jax.tokenization.gpt1_bpe as module

    monkeypatch.setattr(module, "_REMEMBERED", 5)
    fresh = OriginalTokenizer(tokenizer._vocabulary)
    assert fresh.encode(SENTENCES + "x" * 300) == tokenizer.encode(SENTENCES + "x" * 300)
    assert len(fresh._ids_of_chunk) <= 5


def test_a_line_end_is_one_id_and_the_unknown_is_zero(tokenizer):
    assert tokenizer.newline == tokenizer.vocab_size - 1 == tokenizer.encoder["\n</w>"]
    (letter,) = tokenizer.encode("a")
    assert tokenizer.encode("a \r\n\n a") == [letter, tokenizer.newline, letter]
    assert tokenizer.encode("日本") == [0, 0]
    assert tokenizer.encode("") == tokenizer.encode(" \n") == []


def test_decoding_puts_a_space_after_each_word(tokenizer):
    ids = tokenizer.encode("It isn't\nhere.")
    assert tokenizer.decode(ids) == "it is n't \n here . "
    specials = [tokenizer.start, tokenizer.delimiter, tokenizer.classify]
    assert tokenizer.decode([*specials, *ids, tokenizer.classify]) == tokenizer.decode(ids)


def test_text_that_was_decoded_encodes_to_itself_where_case_and_unknown_do_not_matter(released):
    """Not stable are: exceptions of spaCy with capitals ("Mr.": decoded "mr.", which is two words),
    and the unknown, which decodes as "<unk>"."""
    stable = "it was n't a horse , \n she 'd said ... ca n't be ? "
    assert released.decode(released.encode(stable)) == stable
    assert released.decode(released.encode("Mr. Hall")) == "mr. hall "
    assert released.decode(released.encode("mr. hall")) == "mr . hall "
    assert released.decode(released.encode("日")) == "<unk>"


# The released vocabulary

LANDMARKS = {
    ".": [239],
    ",": [240],
    "-": [260],
    "—": [260],
    "the": [481],
    "…": [749],
    "very": [963],
    "positive": [6353],
    "negative": [9503],
    "can't": [993, 538],
    "Won't": [1497, 538],
    "gonna": [2113, 1599],
    "the\nvery": [481, 40477, 963],
}


def test_landmarks(released):
    assert {text: released.encode(text) for text in LANDMARKS} == LANDMARKS
    assert released.encode("it's")[1:] == [535]
    assert released.vocab_size == 40_478
    assert released.newline == 40_477
    assert released.end is None


def test_hard_texts_have_their_ids(released):
    golden = json.loads((GOLDEN / "original.json").read_text())
    assert [released.encode(text) for text in HARD] == golden["texts"]


def test_novels_have_the_ids_of_the_slow_pipeline(real_data, released):
    for path in sorted((real_data / "books" / "train").glob("*.txt.xz"))[::4]:
        with lzma.open(path, "rt", encoding="utf-8", newline="") as stream:
            text = stream.read(60_000)[-10_000:]
        assert released.encode(text) == slow_ids(text, released)
