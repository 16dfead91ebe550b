"""Every text decodes to itself, none makes a special token, equal texts make equal tokenizers."""

import hashlib
import json
import lzma
import sys
from collections import Counter
from pathlib import Path

import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.tokenization import vocabulary
from gpt1_jax.tokenization.gpt1_bpe import BasicTokenizer
from gpt1_jax.tokenization.loading import from_vocabulary, load
from gpt1_jax.tokenization.sentencepiece_bpe import (
    SIZES,
    SentencePieceTokenizer,
    count_units,
    train_sentencepiece,
)

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from texts import HARD  # noqa: E402

TEXT = (
    "It was the best of times, it was the worst of times; it was the age of wisdom.\r\n"
    "\r\n"
    '  "What is it?" she asked.\r\n'
    "\tHe said: nothing, nothing at all, and they went on with the rest of the day.\n\n"
) * 20


@pytest.fixture(scope="module")
def tokenizer() -> SentencePieceTokenizer:
    return train_sentencepiece([TEXT], 400)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n",
        "\t",
        "\0",
        "a\0b",
        "  two before, two after  ",
        "many     inside",
        "\r\n\r\n  after line ends \n",
        "e\u0301 is not \u00e9, \ufb01 is not fi",
        "\u2581 stands\u2581for a space\u2581\u2581",
        "\u2585 \u2047 \ufffd \ufeff",
        "family 👩‍👩‍👧, flag 🇪🇺",
        "日本語 العربية ქართული",
        "</s><unk><s><pad><0x0A><end>",
        TEXT,
    ],
)
def test_a_text_decodes_to_itself(tokenizer, text):
    ids = tokenizer.encode(text)
    assert all(0 < index < tokenizer.vocab_size and index != tokenizer.end for index in ids)
    assert tokenizer.decode(ids) == text


def test_every_character_decodes_to_itself(tokenizer):
    characters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    for start in range(0, len(characters), 2**14):
        text = "a".join(characters[start : start + 2**14])
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"character 2 .*U\+D800"):
        tokenizer.encode("ab\ud800")


def test_special_tokens_follow_the_vocabulary(tokenizer):
    size = tokenizer.vocab_size
    specials = [tokenizer.start, tokenizer.delimiter, tokenizer.classify]
    assert specials == [size, size + 1, size + 2]
    assert tokenizer.size == size + 3
    ids = tokenizer.encode("the day")
    shown = [tokenizer.start, *ids, tokenizer.delimiter, tokenizer.classify, tokenizer.end, 0]
    assert tokenizer.decode(shown) == "the day"


def test_a_cut_character_decodes_to_the_replacement_character(tokenizer):
    ids = tokenizer.encode("ü")
    assert len(ids) == 2
    assert tokenizer.decode(ids[:1]) == "\ufffd"


def test_a_text_can_be_cut_before_spaces_and_line_ends(tokenizer):
    text = ("the rest  of\r\n\r\n  the day, " * 3 + "x" * 1200 + "   end  of it\n") * 3
    whole = tokenizer.encode(text)
    for cut in range(1, len(text)):
        if text[cut] in " \r\n" and text[cut - 1] not in " \r\n":
            assert tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:]) == whole
    line = "the rest  of    the day, they went on " * 200
    for uncut in (text, *(line[start:] for start in range(40))):
        assert tokenizer.encode(uncut) == tokenizer._processor.encode(uncut)


def test_no_piece_crosses_a_line_end_or_goes_on_after_a_space(tokenizer):
    pieces = [tokenizer.decode([index]) for index in range(tokenizer.vocab_size)]
    assert "\r\n" in pieces
    assert " the" in pieces
    for piece in pieces:
        assert not piece.strip("\r\n") or not set(piece) & set("\r\n")
        assert " " not in piece.lstrip(" ")


def test_equal_texts_train_equal_tokenizers(tokenizer):
    lines = TEXT.splitlines(keepends=True)
    again = train_sentencepiece(reversed(lines), 400)
    counted = train_sentencepiece(sum(map(count_units, lines), Counter()), 400)
    other = train_sentencepiece([TEXT + " otherwise"], 400)
    assert train_sentencepiece(lines, 400).fingerprint == again.fingerprint == counted.fingerprint
    assert other.fingerprint != again.fingerprint


def test_no_line_is_skipped_for_its_length():
    tokenizer = train_sentencepiece(["short line\n" + "extraordinary " * 20_000], 320)
    assert len(tokenizer.encode(" extraordinary")) == 1


def test_a_word_of_any_length_can_be_trained_on():
    text = "z" * 200_000
    tokenizer = train_sentencepiece([text], 300)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_corpus_without_spaces_leaves_spaces_alone():
    tokenizer = train_sentencepiece(["nospace"], 300)
    assert tokenizer.decode(tokenizer.encode(" a  b\u2581")) == " a  b\u2581"


def test_a_small_corpus_reduces_the_vocabulary():
    tokenizer = train_sentencepiece(["a small corpus"], 40_000)
    assert tokenizer.vocab_size < 400
    assert tokenizer.decode(tokenizer.encode("Another text\n")) == "Another text\n"


def test_an_alphabet_larger_than_the_vocabulary_falls_back_to_bytes():
    text = "".join(chr(0x4E00 + index) for index in range(3000)) + "\u4e00\u4e01" * 50
    tokenizer = train_sentencepiece([text], 300)
    assert tokenizer.vocab_size == 300
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("\u4e00\u4e01")) == 1


@pytest.mark.parametrize("size", [-1, 0, SIZES[0] - 1, SIZES[-1] + 1])
def test_an_impossible_vocabulary_size_is_refused(size):
    with pytest.raises(UserError, match=f"vocab_size={size}.*expected 300 to"):
        train_sentencepiece([TEXT], size)


def test_training_needs_words():
    with pytest.raises(UserError, match="no words"):
        train_sentencepiece(["", "\t"], 300)


def test_a_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "run" / "tokenizer")
    for folder in (tmp_path / "run" / "tokenizer", tmp_path / "run"):
        loaded = load(folder)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.encode(TEXT) == tokenizer.encode(TEXT)
        assert (loaded.mode, loaded.vocab_size, loaded.end) == ("sentencepiece", 400, 1)


def _rewritten(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "no tokenizer here"),
        (
            lambda folder: (folder / "tokenizer.json").write_text("{"),
            "tokenizer.json: .*copy the",
        ),
        (
            lambda folder: (folder / "tokenizer.json").write_text("[]"),
            "tokenizer.json: .*copy the",
        ),
        (lambda folder: _rewritten(folder / "tokenizer.json", mode="words"), "mode 'words'"),
        (lambda folder: (folder / "sentencepiece.model").unlink(), "sentencepiece.model: missing"),
        (
            lambda folder: (folder / "sentencepiece.model").write_bytes(b"no model"),
            "sentencepiece.model: not a SentencePiece model",
        ),
        (
            lambda folder: (
                train_sentencepiece(["other"], 300).save(folder)
                or _rewritten(folder / "tokenizer.json", fingerprint="0" * 64)
            ),
            "not the model that tokenizer.json describes",
        ),
    ],
)
def test_a_damaged_folder_is_named(tokenizer, tmp_path, damage, message):
    tokenizer.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


# The vocabulary of GPT-1


@pytest.fixture(scope="module")
def vocab() -> vocabulary.Vocabulary:
    pytest.importorskip("tokenizers")
    words = Counter(word.strip("\"'.,;:?!").lower() for word in TEXT.split())
    return vocabulary.learn(words + Counter([".", ",", '"', "'", "<", ">"] * 2), 300)


@pytest.fixture(scope="module")
def basic(vocab) -> BasicTokenizer:
    return BasicTokenizer(vocab)


def test_chunks_have_the_ids_that_the_library_gives_the_whole_text(basic):
    spaces = [" ", "  ", "\n", "\r\n", "\t", "\xa0", "\x1c", "\x0b", "\u2028", "\x00", "\u200b"]
    texts = [
        *HARD,
        TEXT,
        *(f"the{a}day{b}{c}\u0301is" for a in spaces for b in spaces for c in spaces),
    ]
    for text in texts:
        assert basic.encode(text) == basic.pipeline.encode(text).ids


def test_transformers_gives_the_same_ids(basic):
    transformers = pytest.importorskip("transformers")
    peer = transformers.OpenAIGPTTokenizer(vocab=basic.encoder, merges=basic.merges)
    for text in [*HARD, TEXT]:
        ids = peer(text)["input_ids"]
        assert basic.encode(text) == ids
        assert basic.decode(ids) == peer.decode(ids)


def test_novels_have_the_ids_that_transformers_gave(real_data):
    """See golden/make_hf_basic.py."""
    golden = json.loads((GOLDEN / "hf_basic.json").read_text())
    tokenizer = from_vocabulary(real_data / "gpt1_bpe", "hf_basic")
    assert [tokenizer.encode(text) for text in HARD] == golden["texts"]
    assert len(golden["novels"]) == 20
    for name, digest in golden["novels"].items():
        path = real_data / "books" / "train" / name
        with lzma.open(path, "rt", encoding="utf-8", newline="") as stream:
            ids = tokenizer.encode(stream.read(20_000))
        assert hashlib.sha256(json.dumps(ids).encode()).hexdigest() == digest


def test_what_was_decoded_encodes_to_the_same_ids(basic):
    """With nothing unknown: as "<unk>" it ends the word that it stands in."""
    texts = [*HARD, TEXT, *TEXT.splitlines()[:4], *TEXT.split()]
    known = [ids for ids in map(basic.encode, texts) if 0 not in ids]
    assert len(known) > 100
    for ids in known:
        assert basic.encode(basic.decode(ids)) == ids


def test_half_a_surrogate_pair_is_refused_by_the_text_rules_of_bert(basic):
    with pytest.raises(UserError, match=r"half of a surrogate pair .U\+D800"):
        basic.encode("the ab\ud800")


def test_the_vocabulary_of_gpt1_has_no_end(basic, tokenizer):
    assert basic.end is None
    assert (basic.separator("none"), tokenizer.separator("none")) == (None, None)
    assert tokenizer.separator("end") == tokenizer.end
    with pytest.raises(UserError, match=r"data\.separator=end: .* hf_basic has no end token"):
        basic.separator("end")


@pytest.mark.parametrize("mode", ["original", "hf_basic"])
def test_each_mode_is_saved_and_loaded(vocab, tmp_path, capsys, mode):
    if mode == "original":
        pytest.importorskip("spacy")
    for name, content in vocab.files().items():
        (tmp_path / name).write_bytes(content)
    made = from_vocabulary(tmp_path, mode)
    made.save(tmp_path / "run" / "tokenizer")
    for loaded in (load(tmp_path / "run"), from_vocabulary(tmp_path / "run", mode)):
        assert (loaded.mode, loaded.fingerprint) == (mode, made.fingerprint)
        assert loaded.encode(TEXT) == made.encode(TEXT)
        assert loaded.merges == vocab.merges
        assert loaded.encoder == vocab.encoder
    assert capsys.readouterr().err == ""

    description = tmp_path / "run" / "tokenizer" / "tokenizer.json"
    _rewritten(description, versions={"spacy": "2.0.11"})
    load(tmp_path / "run")
    assert "made with {'spacy': '2.0.11'}" in capsys.readouterr().err
    _rewritten(description, mode="original" if mode == "hf_basic" else "hf_basic")
    with pytest.raises(UserError, match=r"not the model that tokenizer\.json describes"):
        load(tmp_path / "run")
    with pytest.raises(UserError, match=r"tokenizer=words: .* one of: original, hf_basic"):
        from_vocabulary(tmp_path, "words")
