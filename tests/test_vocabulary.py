"""Vocabularies in the format of GPT-1 are read, written and learned; what is none is named."""

import json
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.tokenization import vocabulary
from gpt1_jax.tokenization.vocabulary import ENCODER, MERGES, learn, read

pytest.importorskip("tokenizers")

WORDS = Counter(
    {"low": 5, "lower": 2, "newest": 6, "widest": 3, "the": 40, "other": 9, "l.o": 2, "é": 1}
)


def write(folder, names=(ENCODER, MERGES), vocab=None):
    folder.mkdir(exist_ok=True)
    files = (vocab or learn(WORDS, 40)).files()
    for name, content in zip(names, files.values(), strict=True):
        (folder / name).write_bytes(content)
    return folder


# Learning


def test_a_learned_vocabulary_has_the_layout_of_the_released_one():
    learned = learn(WORDS, 50)
    symbols = list(learned.encoder)
    assert list(learned.encoder.values()) == list(range(len(symbols)))
    characters = [symbol for symbol in symbols[1:] if len(symbol) == 1]
    count = len(characters)
    assert symbols[0] == "<unk>"
    assert symbols[1 : 1 + count] == characters
    assert characters[:3] == ["e", "t", "h"]  # the most frequent first
    assert symbols[1 + count : 1 + 2 * count] == [character + "</w>" for character in characters]
    assert symbols[1 + 2 * count : -1] == ["".join(pair) for pair in learned.merges]
    assert symbols[-1] == "\n</w>"


def test_each_merge_is_of_a_most_frequent_pair():
    """Learned the slow way: all pairs counted anew after each merge."""
    learned = learn(WORDS, n_merges=30)
    cut = {word: [*word[:-1], word[-1] + "</w>"] for word in WORDS}
    for merge in learned.merges:
        pairs = Counter()
        for word, symbols in cut.items():
            for pair in pairwise(symbols):
                pairs[pair] += WORDS[word]
        assert pairs[merge] == max(pairs.values()) >= 2
        for word, symbols in cut.items():
            cut[word] = _merged(symbols, merge)
    pairs = Counter(pair for symbols in cut.values() for pair in pairwise(symbols))
    assert len(learned.merges) == 30 or max(pairs.values(), default=0) < 2


def _merged(symbols, merge):
    merged = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == merge:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def test_forty_thousand_merges_make_the_papers_vocabulary():
    draw = random.Random(0)
    characters = [chr(0x100 + index) for index in range(238)]
    words = Counter({"".join(draw.choices(characters, k=8)): 2 for _ in range(10_000)})
    learned = learn(words)
    assert len(learned.merges) == 40_000
    assert len(learned.encoder) == 40_478


def test_sizes_are_kept():
    draw = random.Random(0)
    words = Counter("".join(draw.choices("abcde", k=6)) for _ in range(2000))
    assert len(learn(words, 300).encoder) == 300
    assert len(learn(WORDS, n_merges=7).merges) == 7
    # Few words have few pairs.
    assert len(learn(WORDS).merges) < 40
    # Not more than half of the ids are for characters; the rarest have none.
    many = Counter({chr(0x4E00 + index) * 2: 300 - index for index in range(300)})
    assert "\u4e00" in learn(many, 302).encoder
    assert sum(len(symbol) == 1 for symbol in learn(many, 302).encoder) == 75
    assert sum(len(symbol) == 1 for symbol in learn(many).encoder) == 238


def test_equal_counts_learn_equal_vocabularies():
    script = (
        "from collections import Counter\nfrom gpt1_jax.tokenization.vocabulary import learn\n"
        f"words = dict(sorted({dict(WORDS)!r}.items()))\n"
        "print(learn(Counter(words), 45).fingerprint('original'))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    backwards = Counter(dict(sorted(WORDS.items(), reverse=True)))
    prints = {learn(words, 45).fingerprint("original") for words in [WORDS, backwards] * 5}
    assert prints == {done.stdout.strip()}
    assert learn(WORDS + Counter(["new"]), 45).fingerprint("original") not in prints


def test_a_word_is_learned_from_however_often_it_occurs(monkeypatch):
    monkeypatch.setattr(vocabulary, "_REPEATS", 3)
    assert list(vocabulary._repeated(Counter(a=7, b=3), ["a", "b"])) == [
        *("a\na\na\n", "a\na\na\n", "a\n"),
        *("b\nb\nb\n", ""),
    ]


def test_learning_needs_words():
    with pytest.raises(UserError, match="no words"):
        learn(Counter(), 300)


# Reading


def test_the_names_of_the_files_do_not_matter(tmp_path):
    learned = learn(WORDS, 40)
    released = read(write(tmp_path / "released"))
    hub = read(write(tmp_path / "hub", ("vocab.json", "merges.txt")))
    tokenizer_json = {
        "model": {
            "type": "BPE",
            "vocab": learned.encoder,
            "merges": learned.merges,
            "end_of_word_suffix": "</w>",
        }
    }
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "tokenizer.json").write_text(json.dumps(tokenizer_json))
    assert learned == released == hub == read(tmp_path / "whole")
    assert learned.fingerprint("original") != learned.fingerprint("hf_basic")
    other = vocabulary.Vocabulary(learned.encoder, learned.merges[::-1])
    assert other.fingerprint("original") != learned.fingerprint("original")


def test_the_released_files_are_written_as_they_are_read(real_data):
    released = read(real_data / "gpt1_bpe")
    assert len(released.encoder) == 40_478
    assert len(released.merges) == 40_000
    for name, content in released.files().items():
        assert content == (real_data / "gpt1_bpe" / name).read_bytes()


def _change(name, change):
    def damage(folder):
        (folder / name).write_text(change((folder / name).read_text()))

    return damage


def _table(**changes):
    return _change(ENCODER, lambda text: json.dumps(json.loads(text) | changes))


def _line(number, line):
    def change(text):
        lines = text.split("\n")
        lines[number - 1] = line
        return "\n".join(lines)

    return _change(MERGES, change)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / MERGES).unlink(), "vocab_40000.bpe: missing; it belongs beside"),
        (lambda folder: (folder / ENCODER).unlink(), "encoder_bpe_40000.json: missing"),
        (_change(ENCODER, lambda text: text[:-9]), "encoder_bpe_40000.json: not JSON"),
        (_change(ENCODER, lambda text: '["a"]'), "encoder_bpe_40000.json: no object"),
        (_table(e="1"), "the id of 'e' is '1'; expected an integer"),
        (_table(e=True), "the id of 'e' is True"),
        (_table(e=999), "no symbol has the id 1; expected the ids 0 to 33"),
        (_table(e=2), "no symbol has the id 1;"),
        (_table(**{"<unk>": 1, "e": 0}), "<unk> has the id 1; expected 0"),
        (_change(ENCODER, lambda text: '{"a": 0}'), "<unk> has the id None; expected 0"),
        (_line(1, "t h"), "vocab_40000.bpe, line 1: 't h'; expected the header"),
        (_line(3, "t h e"), "vocab_40000.bpe, line 3: 't h e'; expected two symbols"),
        (_line(3, ""), "vocab_40000.bpe, line 3: ''; expected two symbols"),
        (_line(3, "th "), "vocab_40000.bpe, line 3: 'th '; expected two symbols"),
        (_line(4, "q q"), "vocab_40000.bpe, line 4: 'q' is not in the id table"),
        (_line(4, "e e"), "vocab_40000.bpe, line 4: 'ee' is not in the id table"),
        (lambda folder: (folder / MERGES).write_bytes(b"\xff"), "vocab_40000.bpe: not UTF-8"),
    ],
)
def test_a_damaged_vocabulary_is_named(tmp_path, damage, message):
    damage(write(tmp_path / "v"))
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path / "v")
    assert "\n" not in str(raised.value)


def test_a_merge_that_stands_twice_is_named(tmp_path):
    folder = write(tmp_path / "v")
    lines = (folder / MERGES).read_text().split("\n")
    (folder / MERGES).write_text("\n".join([*lines[:2], lines[1], *lines[2:]]))
    with pytest.raises(UserError, match=r"line 3: .* stands there twice"):
        read(folder)


def test_a_place_without_vocabulary_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no vocabulary here; expected the files encoder_bpe"):
        read(tmp_path)
    with pytest.raises(UserError, match=r"nowhere: no such folder; .* or a Hub name"):
        read(tmp_path / "nowhere")
    (tmp_path / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
    with pytest.raises(UserError, match=r"tokenizer\.json: no vocabulary of GPT-1 in it"):
        read(tmp_path)


def test_the_hub_without_a_network_is_one_line(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="some-owner/some-model: no such folder, and") as raised:
        read("some-owner/some-model")
    assert "\n" not in str(raised.value)


def test_the_hub_provides_the_two_files(tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    folder = write(tmp_path / "v", ("vocab.json", "merges.txt"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda name, file: str(folder / file))
    assert read("a/b") == learn(WORDS, 40)
