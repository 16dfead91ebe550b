"""Ids of two modes that differ are counted and shown."""

import lzma
from collections import Counter

import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.text import sources, workers
from gpt1_jax.text.compare import compare
from gpt1_jax.text.config import CompareConfig
from gpt1_jax.tokenization import text_rules, vocabulary

pytest.importorskip("spacy")

TEXT = "It isn't the cat.\r\n\r\nThe dog… is Zoë's\n" * 7


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    """Each word of either mode, and each character, has an id."""
    folder = tmp_path_factory.mktemp("vocabulary")
    words = text_rules.count_words(TEXT) + Counter(["t", "s", "'", ".", "zoe", "isn"] * 30)
    for name, content in vocabulary.learn(words).files().items():
        (folder / name).write_bytes(content)
    return folder


def run(folder, vocabulary_folder, text, **changes):
    (folder / "text.txt").write_bytes(text.encode())
    defaults = {
        "modes": ("original", "hf_basic"),
        "inputs": (str(folder / "*.txt"),),
        "vocab": str(vocabulary_folder),
        "workers": 1,
    }
    return compare(CompareConfig(**defaults | changes))


def test_ids_are_counted_and_those_without_partner_differ(tmp_path, vocab):
    found = run(tmp_path, vocab, "It isn't the cat.\n\nThe cat\n")
    # it is n't the cat . \n the cat      it isn ' t the cat . the cat
    assert found["original"] == {"ids": 9, "unknown": 0, "differing": 3, "share": 3 / 9}
    assert found["hf_basic"] == {"ids": 9, "unknown": 0, "differing": 3, "share": 3 / 9}
    assert found["documents"] == 1
    assert found["characters"] == 27
    assert found["examples"] == [
        {"original": "\n</w>", "hf_basic": "", "count": 1},
        {"original": "is</w> n't</w>", "hf_basic": "isn</w> '</w> t</w>", "count": 1},
    ]


def test_equal_texts_do_not_differ(tmp_path, vocab):
    found = run(tmp_path, vocab, "The cat, the dog", modes=("hf_basic", "original"))
    for mode in ("original", "hf_basic"):
        assert found[mode]["differing"] == 0
        assert found[mode]["ids"] > 0
    assert found["examples"] == []


@pytest.mark.exhaustive
def test_blocks_and_workers_do_not_matter(tmp_path, vocab, monkeypatch):
    whole = run(tmp_path, vocab, TEXT)
    assert whole["original"]["differing"] > whole["hf_basic"]["unknown"]
    monkeypatch.setattr(sources, "BLOCK", 8)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 50)
    assert run(tmp_path, vocab, TEXT, workers=2) == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ("original", "original")}, "expected two different modes"),
        ({"modes": ("original",)}, "expected two different modes"),
        ({"workers": 0}, "workers=0"),
        ({"vocab": "nowhere"}, "nowhere: no such folder"),
        ({"inputs": ("none*.txt",)}, "no file matches"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, vocab, changes, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, vocab, TEXT, **changes)


def test_novels_differ_in_line_ends_and_contractions(tmp_path, real_data):
    path = real_data / "books" / "train" / "Lee_Penelope_1903.txt.xz"
    with lzma.open(path, "rt", encoding="utf-8", newline="") as stream:
        found = run(tmp_path, real_data / "gpt1_bpe", stream.read(30_000))
    assert 0.02 < found["original"]["share"] < 0.2
    assert found["examples"][0] == {
        "original": "\n</w>",
        "hf_basic": "",
        "count": found["examples"][0]["count"],
    }
