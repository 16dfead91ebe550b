"""Text without the line ends or spaces that a tokenizer hopes for: the ids of the whole, in bounded
memory and linear time."""

import json
import random
import time

import pytest

ftfy = pytest.importorskip("ftfy")
spacy = pytest.importorskip("spacy")

import runs  # noqa: E402

from gpt1_jax.text import sources  # noqa: E402
from gpt1_jax.text.shards import Tokens  # noqa: E402
from gpt1_jax.tokenization import loading, long_chunks, long_lines, text_rules  # noqa: E402

PLAIN = ["the", "cat", "and", "a", "dog", "ran"]
# Contractions and exceptions of spaCy, some across a space; what ftfy decodes, unescapes and makes
# line ends of; markup, after which it unescapes nothing.
ODD = "isn't Mr. :D Zoë caf\u00c3\u00a9 “so” &amp; &lt; a.m. 'Tis nothin' ( Ã  -- x.co/a ... \u2028"
SEGMENT = 300


@pytest.fixture
def short_segments(monkeypatch):
    """Lines are long from 300 characters on, for ftfy as well."""
    fix_text = ftfy.fix_text

    def fixed(text, config=None, **settings):
        return fix_text(text, config, max_decode_length=SEGMENT, **settings)

    monkeypatch.setattr(ftfy, "fix_text", fixed)
    for module in (text_rules, long_lines):
        monkeypatch.setattr(module, "SEGMENT", SEGMENT)
    monkeypatch.setattr(sources, "BLOCK", SEGMENT + 37)


def document(draw):
    lines = []
    for _ in range(draw.randint(1, 4)):
        odd = [*PLAIN * 4, *ODD.split(" "), *(["<b>"] * draw.randint(0, 1))]
        words = [draw.choice(odd) for _ in range(draw.choice((3, 200, 700)))]
        lines.append(" ".join(words) + draw.choice(("\n", "\n\n", " ")))
    return "Once upon a time " + "".join(lines)


@pytest.mark.parametrize("fraction", [0, 0.3])
def test_long_lines_have_the_ids_of_the_whole(short_segments, tmp_path, fraction):
    draw = random.Random(11)
    for number in range(8):
        text = document(draw)
        (tmp_path / "text.txt").write_text(text, newline="")
        output = tmp_path / f"tokens{number}"
        words = ["--tokenizer=original", "--vocab_size=330", "--workers=1", f"--output={output}"]
        words += [f"--valid_fraction={fraction}", "--input", tmp_path / "text.txt"]
        outcome = runs.verb("prepare", *words)
        assert outcome.status == 0, outcome.said
        tokenizer = loading.load(output)
        splits = json.loads((output / "manifest.json").read_text())["splits"]
        place = splits["train"]["characters"]
        parts = {"train": text[:place], "valid": text[place:]}
        for split, counts in splits.items():
            stream = Tokens.open(output, split)
            assert stream.read(0, len(stream)).tolist() == tokenizer.encode(parts[split])
            assert counts["words"] == len(parts[split].split())


UNITS = ("a:a.", "a:1.", "a@a.", "a:b@c.d/", "://", "'", "..", "-a", "a.b:")


@pytest.mark.parametrize("unit", UNITS)
def test_a_chunk_without_a_space_takes_linear_time(unit):
    """Of `a:a.` 20,000 took 28 seconds; four times as much text takes some four times as long."""
    english = text_rules.english()

    def seconds(count):
        (chunk, *others), *_ = text_rules.lines(unit * count)
        began = time.process_time()
        for each in (chunk, *others):
            english.words_of_chunk(each)
        return time.process_time() - began

    assert seconds(8_000) < max(1.0, 10 * seconds(2_000))


def test_addresses_are_those_of_spacy(monkeypatch):
    monkeypatch.setattr(long_chunks, "LONG", 0)
    rule = spacy.blank("en").tokenizer.url_match
    matches = long_chunks._address(rule)
    draw, found = random.Random(3), 0
    parts = "a ab 1 10 127 . : :80 @ / :// http:// ? # co com x.co - _ é 8.8.8.8 :: a:a. @@"
    pieces = parts.split(" ")
    for _ in range(20_000):
        text = "".join(draw.choice(pieces) for _ in range(draw.randint(1, 9)))
        assert matches(text) == bool(rule(text)), text
        found += matches(text)
    assert found > 500
