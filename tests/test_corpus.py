"""Shards hold the ids of the documents in order, whatever the workers, cuts and interruptions."""

import gzip
import json
import lzma
import random
import signal
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import faults
import numpy as np
import pytest

from gpt1_jax.__main__ import main
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.text import corpus, encoding, shards, sources, workers
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.corpus import prepare
from gpt1_jax.text.shards import Tokens, read_manifest, verify
from gpt1_jax.text.sources import TEXT_SETS, Document
from gpt1_jax.tokenization import text_rules, vocabulary
from gpt1_jax.tokenization.loading import load
from gpt1_jax.tokenization.sentencepiece_bpe import train_sentencepiece

GOLDEN = Path(__file__).parent / "golden"
WORDS = ["the", "a", "of", "model", "learns", "text", "then", "it", "was", ",", "—", "naïve"]


def text(seed: int, words: int = 300) -> str:
    generator = random.Random(seed)
    spaces = [" ", " ", " ", "\n", "\r\n", "  ", "\n\n"]
    return "".join(generator.choice(WORDS) + generator.choice(spaces) for _ in range(words))


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_texts(tmp_path)


def write_texts(folder: Path) -> Path:
    """One to four are documents of their own; five.jsonl holds two, and one that is empty."""
    (folder / "one.txt").write_bytes(text(1).encode())
    (folder / "two.txt").write_bytes(b"\xef\xbb\xbf" + text(2, 3000).encode())
    (folder / "three.txt.gz").write_bytes(gzip.compress(text(3).encode()))
    (folder / "four.txt.xz").write_bytes(lzma.compress(text(4).encode()))
    rows = [{"text": text(5)}, {"text": " \n"}, {"text": text(6), "other": 1}]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    (folder / "five.jsonl").write_text(lines)
    (folder / "blank.txt").write_text(" \n \n")
    return folder


FILES = ("one.txt", "two.txt", "three.txt.gz", "four.txt.xz", "five.jsonl", "blank.txt")
DOCUMENTS = [text(1), text(2, 3000), text(3), text(4), text(5), text(6)]


def config(folder: Path, **changes) -> PrepareConfig:
    inputs = tuple(str(folder / name) for name in FILES)
    defaults = {
        "output": str(folder / "out"),
        "inputs": inputs,
        "vocab_size": 320,
        "valid_fraction": 0.0,
        "workers": 1,
    }
    return PrepareConfig(**defaults | changes)


def memory(folder: Path, **changes) -> PrepareConfig:
    return config(folder, **{"inputs": (), "vocab_size": None, "valid_fraction": None} | changes)


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def decoded(folder: Path, split: str) -> str:
    return load(folder).decode(Tokens.open(folder, split).read(0, len(Tokens.open(folder, split))))


# What is written


def test_shards_hold_the_ids_of_the_documents_in_order(folder):
    summary = prepare(config(folder, shard_tokens=500))
    out = folder / "out"
    tokenizer = load(out)
    expected = [tokenizer.encode(document) for document in DOCUMENTS]
    manifest = verify(out)
    train = manifest["splits"]["train"]
    stored = [np.load(out / shard["file"]) for shard in train["shards"]]

    assert np.concatenate(stored).tolist() == list(chain.from_iterable(expected))
    assert {ids.dtype for ids in stored} == {np.dtype(np.uint16)}
    assert [len(ids) for ids in stored[:-1]] == [500] * (len(stored) - 1)
    starts = np.load(out / train["starts"]["file"])
    assert starts.dtype == np.int64
    assert starts.tolist() == [sum(map(len, expected[:index])) for index in range(6)]
    assert train["documents"] == 6
    assert train["characters"] == sum(map(len, DOCUMENTS))
    assert train["bytes"] == sum(len(document.encode()) for document in DOCUMENTS)
    assert train["words"] == sum(len(document.split()) for document in DOCUMENTS)
    assert manifest["tokenizer"]["fingerprint"] == tokenizer.fingerprint
    assert summary["splits"]["train"]["shards"] == len(stored)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["manifest.json", "tokenizer", "documents-train.npy"]
        + [shard["file"] for shard in train["shards"]]
    )


def test_the_tokenizer_is_trained_on_training_documents_only(folder):
    prepare(config(folder, valid_fraction=None, valid=(str(folder / "two.txt"),)))
    train = [document for index, document in enumerate(DOCUMENTS) if index != 1]
    assert load(folder / "out").fingerprint == train_sentencepiece(train, 320).fingerprint
    assert decoded(folder / "out", "train") == "".join(train)
    assert decoded(folder / "out", "valid") == DOCUMENTS[1]


def test_a_given_tokenizer_is_used_as_it_is(folder):
    train_sentencepiece(["quite another text"], 300).save(folder / "vocabulary")
    prepare(config(folder, vocab=str(folder / "vocabulary"), vocab_size=None))
    assert tree(folder / "out" / "tokenizer") == tree(folder / "vocabulary")
    assert decoded(folder / "out", "train") == "".join(DOCUMENTS)


def test_a_large_vocabulary_takes_four_bytes(folder, monkeypatch):
    assert encoding.id_dtype(SimpleNamespace(size=2**16 - 1)) == np.uint16
    assert encoding.id_dtype(SimpleNamespace(size=2**16)) == np.uint32
    for module in (encoding, corpus):
        monkeypatch.setattr(module, "id_dtype", lambda tokenizer: np.dtype("<u4"))
    assert prepare(config(folder))["dtype"] == "uint32"
    assert decoded(folder / "out", "train") == "".join(DOCUMENTS)
    assert np.load(folder / "out" / "train-00000.npy").dtype == np.uint32


@pytest.mark.parametrize(("characters", "vocab_size"), [(20_000, 300), (50_000, 500)])
def test_the_vocabulary_fits_the_corpus_by_default(folder, characters, vocab_size):
    generator = random.Random(0)
    letters = "".join(generator.choices("abcdefghij     ", k=characters))
    manifest = prepare(memory(folder, valid_fraction=0.0), [Document("letters", letters)])
    assert manifest["tokenizer"]["vocab_size"] == vocab_size
    larger = memory(folder, valid_fraction=0.0, vocab_size=800, output=str(folder / "larger"))
    manifest = prepare(larger, [Document("letters", letters)])
    assert manifest["tokenizer"]["vocab_size"] == 800


def test_a_tokenizer_can_be_trained_on_a_sample(folder, monkeypatch, capsys):
    monkeypatch.setattr(sources, "BLOCK", 500)
    manifest = prepare(config(folder, sample_characters=4000))
    everything = prepare(config(folder, output=str(folder / "all")))
    assert manifest["tokenizer"]["fingerprint"] != everything["tokenizer"]["fingerprint"]
    again = prepare(config(folder, output=str(folder / "again"), sample_characters=4000))
    assert manifest["tokenizer"]["fingerprint"] == again["tokenizer"]["fingerprint"]


def test_long_documents_pass_in_blocks(folder, monkeypatch):
    prepare(config(folder, shard_tokens=500))
    monkeypatch.setattr(sources, "BLOCK", 101)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 1000)
    prepare(config(folder, shard_tokens=500, output=str(folder / "blocks")))
    assert tree(folder / "blocks") == tree(folder / "out")


# The same bytes, always


def test_workers_do_not_change_the_result(folder, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 2000)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 3000)
    one = config(folder, valid_fraction=0.3, shard_tokens=700)
    prepare(one)
    two = config(
        folder, valid_fraction=0.3, shard_tokens=700, workers=2, output=str(folder / "two")
    )
    prepare(two)
    assert tree(folder / "two") == tree(folder / "out")


# Many blocks, pieces and shards of little text.
SMALL = """
import functools
from gpt1_jax.text import encoding, sources, workers
sources.BLOCK, workers.PIECE_CHARACTERS, encoding._JOURNAL_SECONDS = 500, 700, 0.0
encoding.Shards = functools.partial(
    lambda cls, folder, split, dtype, limit, state: cls(folder, split, dtype, 700, state),
    encoding.Shards,
)
"""


def in_small_parts(monkeypatch) -> None:
    for name in ("BLOCK", "PIECE_CHARACTERS", "_JOURNAL_SECONDS", "Shards"):
        for module in (sources, workers, encoding):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))
    exec(SMALL)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> dict:
    """What the command leaves."""
    folder = write_texts(tmp_path_factory.mktemp("uninterrupted"))
    with pytest.MonkeyPatch.context() as patch:
        in_small_parts(patch)
        assert main(words(folder)) == 0
    return tree(folder / "out")


def words(folder: Path) -> list[str]:
    """The command line that prepares the files of `folder`."""
    files = [str(folder / name) for name in FILES]
    flags = ["--vocab_size=320", "--valid_fraction=0.3", "--workers=2"]
    return ["prepare", f"--output={folder / 'out'}", "--input", *files, *flags]


def _torn(unfinished: Path) -> None:
    """What a kill may leave behind the place where the journal ends."""
    if (unfinished / "manifest.json").exists() or not (unfinished / "journal.json").exists():
        return
    journal = json.loads((unfinished / "journal.json").read_text())
    for name, state in journal["splits"].items():
        for file in (f"{name}.starts", f"{name}-{len(state['shards']):05d}.npy"):
            if (unfinished / file).exists():
                with open(unfinished / file, "ab") as stream:
                    stream.write(b"torn" * 9999)


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("arguments.json", marks=pytest.mark.exhaustive),
        pytest.param("survey.json", marks=pytest.mark.exhaustive),
        pytest.param("journal.json", marks=pytest.mark.exhaustive),
        "journal.json%12",
        pytest.param("unfinished/manifest.json", marks=pytest.mark.slow),
        pytest.param("out/train-00000.npy", marks=pytest.mark.exhaustive),
        pytest.param("out/manifest.json", marks=pytest.mark.slow),
    ],
)
def test_a_killed_preparation_continues_to_the_same_bytes(
    folder, uninterrupted, monkeypatch, moment
):
    killed = faults.run(words(folder), at=moment, do="kill", settings=SMALL)
    assert killed.status == -signal.SIGKILL, killed.errors
    if moment != "out/manifest.json":
        with pytest.raises(UserError, match="unfinished"):
            read_manifest(folder / "out")
    _torn(folder / "out" / "unfinished")
    in_small_parts(monkeypatch)
    assert main(words(folder)) == 0
    assert tree(folder / "out") == uninterrupted


def test_an_interrupted_preparation_encodes_nothing_twice(folder, monkeypatch, capsys):
    monkeypatch.setattr(sources, "BLOCK", 500)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 700)
    monkeypatch.setattr(encoding, "_JOURNAL_SECONDS", 0.0)
    encoded = []
    original = encoding._encoded

    def counting(*arguments):
        if len(encoded) == 10:
            encoded.append("interrupted")
            raise KeyboardInterrupt
        encoded.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(encoding, "_encoded", counting)
    with pytest.raises(Interrupted, match="the same command continues"):
        prepare(config(folder))
    prepare(config(folder))
    assert "continuing after 10 pieces" in capsys.readouterr().err
    encoded.remove("interrupted")
    assert "".join(block.text for piece in encoded for block in piece) == "".join(DOCUMENTS)


def test_a_finished_folder_is_left_alone(folder, capsys):
    first = prepare(config(folder))
    before = tree(folder / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()}
    again = prepare(config(folder, workers=2))
    assert "already prepared with these arguments; nothing to do" in capsys.readouterr().err
    assert first | {"seconds": 0} == again | {"seconds": 0}
    assert tree(folder / "out") == before
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").iterdir()} == stamps


def test_other_arguments_do_not_touch_a_folder(folder):
    prepare(config(folder))
    before = tree(folder / "out")
    other_files = (str(folder / "one.txt"),)
    others = {"vocab_size": 310, "seed": 1, "valid_fraction": 0.5, "inputs": other_files}
    for changes in ({key: value} for key, value in others.items()):
        with pytest.raises(UserError, match=r"out: prepared with other arguments \("):
            prepare(config(folder, **changes))
    (folder / "one.txt").write_text("changed")
    with pytest.raises(UserError, match=r"other arguments \(input"):
        prepare(config(folder))
    assert tree(folder / "out") == before


def test_other_arguments_do_not_touch_an_unfinished_folder(folder, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "encode_blocks", stopped)
        with pytest.raises(Interrupted):
            prepare(config(folder))
    before = tree(folder / "out")
    with pytest.raises(UserError, match=r"other arguments \(vocab_size: 320, now 310\)"):
        prepare(config(folder, vocab_size=310))
    assert tree(folder / "out") == before
    prepare(config(folder))
    assert decoded(folder / "out", "train") == "".join(DOCUMENTS)


def test_two_processes_do_not_prepare_one_folder(folder, monkeypatch):
    inner = []

    def second(*_):
        with pytest.raises(UserError, match="another process"):
            inner.append(prepare_unpatched())
        raise KeyboardInterrupt

    def prepare_unpatched():
        return prepare(config(folder))

    monkeypatch.setattr(corpus, "_tokenizer", second)
    with pytest.raises(Interrupted):
        prepare(config(folder))
    assert not inner


# Held-out documents


def names(folder: Path, split: str, documents: list[Document]) -> set[str]:
    held = decoded(folder, split)
    return {document.name for document in documents if document.text in held}


MANY = [Document(f"document {index}", f"text number <{index}> ends.\n") for index in range(200)]


def test_whole_documents_are_held_out_by_a_seeded_hash(folder):
    valid = {}
    for seed in (0, 1):
        out = str(folder / f"seed{seed}")
        prepare(memory(folder, valid_fraction=0.2, seed=seed, output=out), MANY)
        valid[seed] = names(Path(out), "valid", MANY)
        assert names(Path(out), "train", MANY) == {d.name for d in MANY} - valid[seed]
        assert 20 <= len(valid[seed]) <= 60
    assert valid[0] != valid[1]
    # A document keeps its side when others come or go.
    prepare(memory(folder, valid_fraction=0.2, output=str(folder / "fewer")), MANY[:100])
    assert names(folder / "fewer", "valid", MANY) == valid[0] & {d.name for d in MANY[:100]}


@pytest.mark.parametrize(("fraction", "held_out"), [(1e-9, 1), (0.999999, 2)])
def test_each_side_gets_a_document_at_least(folder, fraction, held_out):
    manifest = prepare(memory(folder, valid_fraction=fraction), MANY[:3])
    assert manifest["splits"]["valid"]["documents"] == held_out
    assert manifest["splits"]["train"]["documents"] == 3 - held_out


@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.4])
@pytest.mark.parametrize("block", [2**20, 64])
def test_a_single_document_gives_its_tail(folder, monkeypatch, block, fraction):
    monkeypatch.setattr(sources, "BLOCK", block)
    manifest = prepare(memory(folder, valid_fraction=fraction), [Document("one", text(1))])
    train, valid = decoded(folder / "out", "train"), decoded(folder / "out", "valid")
    assert train + valid == text(1)
    assert valid[0] in " \r\n"
    assert abs(len(valid) / len(text(1)) - fraction) < 0.02
    assert [split["documents"] for split in manifest["splits"].values()] == [1, 1]


def test_nothing_is_held_out_with_a_fraction_of_zero(folder):
    manifest = prepare(memory(folder, valid_fraction=0.0), MANY)
    assert list(manifest["splits"]) == ["train"]
    with pytest.raises(UserError, match="no split 'valid'; it has train"):
        Tokens.open(folder / "out", "valid")


def test_documents_of_one_name_stay_on_one_side(folder):
    twins = [Document(d.name, d.text + side) for d in MANY for side in ("left", "right")]
    prepare(memory(folder, valid_fraction=0.3), twins)
    held = decoded(folder / "out", "valid")
    assert held.count("left") == held.count("right") > 0
    namesakes = [Document("x", "a b"), Document("x", "c")]
    with pytest.raises(UserError, match="all documents have one name"):
        prepare(memory(folder, output=str(folder / "namesakes")), namesakes)


def test_validation_documents_can_be_given(folder):
    prepare(memory(folder), MANY[:5], valid_documents=MANY[5:9])
    assert decoded(folder / "out", "train") == "".join(d.text for d in MANY[:5])
    assert decoded(folder / "out", "valid") == "".join(d.text for d in MANY[5:9])


def test_validation_files_are_taken_out_of_the_input(folder, capsys):
    valid = (str(folder / "t*.txt*"),)
    prepare(config(folder, valid_fraction=None, valid=valid))
    assert "2 input files are validation files" in capsys.readouterr().err
    assert decoded(folder / "out", "train") == "".join(DOCUMENTS[i] for i in (0, 3, 4, 5))
    assert decoded(folder / "out", "valid") == DOCUMENTS[2] + DOCUMENTS[1]


# The vocabulary of GPT-1


NOVEL = (
    "Mr. Hall isn't here.\r\n\r\n  “It's &lt;gone&gt;,” she said — “gone!”\r\n"
    "Nothin' at 10 a.m.\n \x01\n<b> &lt; cafÃ©\n"
) * 9


@pytest.fixture(scope="module")
def gpt1(tmp_path_factory) -> Path:
    """A folder with a small vocabulary in the released format."""
    pytest.importorskip("spacy")
    folder = tmp_path_factory.mktemp("gpt1")
    for name, content in vocabulary.learn(text_rules.count_words(NOVEL), 300).files().items():
        (folder / name).write_bytes(content)
    return folder


def with_vocabulary(folder: Path, vocab: Path, mode: str, **changes) -> PrepareConfig:
    chosen = {"tokenizer": mode, "vocab": str(vocab), "inputs": (), "vocab_size": None}
    return config(folder, **chosen | changes)


@pytest.mark.parametrize("mode", ["original", "hf_basic"])
def test_a_document_has_the_ids_of_the_whole_text_however_it_is_read(
    tmp_path, gpt1, monkeypatch, mode
):
    documents = [Document(str(index), NOVEL[index:]) for index in range(0, 60, 7)]
    documents.append(Document("blank first", "\x01\x02\n \n" * 20 + NOVEL))
    documents.append(Document("one line", "it's gone " * 50))
    prepare(with_vocabulary(tmp_path, gpt1, mode, output=str(tmp_path / "whole")), documents)
    tokenizer = load(tmp_path / "whole")
    expected = [tokenizer.encode(document.text) for document in documents]
    tokens = Tokens.open(tmp_path / "whole", "train")
    assert tokenizer.mode == mode
    assert tokens.read(0, len(tokens)).tolist() == list(chain.from_iterable(expected))
    monkeypatch.setattr(sources, "BLOCK", 40)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 900)
    blocks = with_vocabulary(tmp_path, gpt1, mode, output=str(tmp_path / "blocks"), workers=2)
    prepare(blocks, documents)
    assert tree(tmp_path / "blocks") == tree(tmp_path / "whole")
    assert prepare(blocks, documents)["tokenizer"]["mode"] == mode


def test_a_single_document_of_the_original_text_is_cut_at_a_line_end(tmp_path, gpt1, monkeypatch):
    monkeypatch.setattr(sources, "BLOCK", 16)
    prepare(
        with_vocabulary(tmp_path, gpt1, "original", valid_fraction=0.3), [Document("one", NOVEL)]
    )
    tokenizer = load(tmp_path / "out")
    ids = [
        Tokens.open(tmp_path / "out", split).read(0, len(Tokens.open(tmp_path / "out", split)))
        for split in ("train", "valid")
    ]
    # What comes after a "<" keeps its entities; the second part does not know of the first.
    cuts = [index + 1 for index, character in enumerate(NOVEL) if character == "\n"]
    cut = max(index for index in cuts if index <= round(0.7 * len(NOVEL)))
    assert ids[0].tolist() == tokenizer.encode(NOVEL[:cut])
    assert ids[1].tolist() == tokenizer.encode(NOVEL[cut:])


@pytest.mark.slow
def test_a_vocabulary_is_learned_from_training_documents(tmp_path, monkeypatch):
    pytest.importorskip("spacy")
    documents = [Document(str(index), NOVEL) for index in range(9)]
    held_out = [Document("other", "quite another text " * 9)]
    settings = {"tokenizer": "original", "vocab_size": 300}
    prepare(memory(tmp_path, **settings), documents, held_out)
    expected = vocabulary.learn(
        Counter({w: 9 * c for w, c in text_rules.count_words(NOVEL).items()}), 300
    )
    tokenizer = load(tmp_path / "out")
    assert tokenizer.encoder == expected.encoder
    assert tokenizer.merges == expected.merges
    monkeypatch.setattr(sources, "BLOCK", 50)
    monkeypatch.setattr(workers, "PIECE_CHARACTERS", 2000)
    prepare(
        memory(tmp_path, **settings, workers=2, output=str(tmp_path / "two")), documents, held_out
    )
    assert tree(tmp_path / "two") == tree(tmp_path / "out")
    # A prepared folder is a vocabulary, too; by default it has a merge for each hundred characters.
    prepare(
        with_vocabulary(tmp_path, tmp_path / "out", "original", output=str(tmp_path / "b")),
        documents,
    )
    assert load(tmp_path / "b").fingerprint == tokenizer.fingerprint
    with pytest.raises(UserError, match="of the mode original, not sentencepiece; say tokenizer"):
        prepare(
            memory(tmp_path, vocab=str(tmp_path / "out"), output=str(tmp_path / "c")), documents
        )


# TFDS


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TEXT_SETS))
def test_a_text_set_of_tfds_is_read(folder, name, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr("gpt1_jax.text.tfds_records.require_reachable", lambda urls: None)
    key, held_out = TEXT_SETS[name]
    asked = []

    def rows(self, split, **_):
        import tensorflow as tf

        asked.append(split)
        row = {key: f"{split} of {name}\n — the end"}
        return tf.data.Dataset.from_tensors(row).repeat(3)

    with tfds.testing.mock_data(as_dataset_fn=rows):
        manifest = prepare(memory(folder, tfds=name, data_dir=str(folder / "tfds"), vocab_size=300))
    assert set(asked) == {"train", held_out}
    assert decoded(folder / "out", "train") == f"train of {name}\n — the end" * 3
    assert decoded(folder / "out", "valid") == f"{held_out} of {name}\n — the end" * 3
    assert manifest["splits"]["valid"]["documents"] == 3


@pytest.mark.slow
def test_a_text_set_can_be_divided_by_fraction(folder, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setattr("gpt1_jax.text.tfds_records.require_reachable", lambda urls: None)
    with tfds.testing.mock_data(num_examples=20):
        manifest = prepare(
            memory(folder, tfds="lm1b", data_dir=str(folder / "tfds"), valid_fraction=0.2)
        )
    documents = [split["documents"] for split in manifest["splits"].values()]
    assert sum(documents) == 20
    assert min(documents) > 0


def test_an_unknown_text_set_is_refused(folder):
    with pytest.raises(UserError, match=r"tfds=pg91: unknown; .*did you mean pg19\?"):
        prepare(memory(folder, tfds="pg91"))


# Bad input


def _written(name: str, content: bytes):
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return str(folder / name)

    return write


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: str(folder / "none*.txt"), r"none\*\.txt: no file matches"),
        (lambda folder: str(folder), r"a folder; expected files, for example .*/\*\.txt"),
        (_written("bad.txt", b"binary \0 file"), r"bad\.txt: binary \(a NUL at byte 7\)"),
        (_written("bad.txt", b"x" * 70 + b"\xff"), r"bad\.txt: not UTF-8 at byte 70 \("),
        (_written("bad.txt", b"x" * 63 + b"\xe2\x82A"), r"bad\.txt: not UTF-8 at byte 63 \("),
        (_written("bad.txt", b"x" * 64 + b"\xe2\x82"), r"bad\.txt: not UTF-8 at byte 64 \("),
        (
            _written("bad.txt.xz", lzma.compress(b"abc\xc3")),
            r"bad\.txt\.xz: not UTF-8 at byte 3 of the unpacked text",
        ),
        (_written("bad.txt.gz", gzip.compress(b"some text" * 99)[:-9]), r"bad\.txt\.gz: damaged"),
        (_written("bad.txt.xz", lzma.compress(b"some text" * 99)[:-9]), r"bad\.txt\.xz: damaged"),
        (_written("bad.gz", b"no gzip at all"), r"bad\.gz: damaged or cut off"),
        (_written("bad.xz", b"no xz at all"), r"bad\.xz: damaged or cut off"),
        (
            _written("bad.jsonl", b'{"text": "a"}\n\n{"text": "a"\n'),
            r"bad\.jsonl, line 3: not JSON",
        ),
        (
            _written("bad.jsonl", b'{"text": "a"}\n{"texts": "a"}\n'),
            r'bad\.jsonl, line 2: the row has texts; expected {"text": "\.\.\."}',
        ),
        (_written("bad.jsonl", b"[1]"), r"bad\.jsonl, row 1: 1 is not an object"),
        (_written("bad.jsonl", b'{"text": null}'), r"bad\.jsonl, line 1: text is "),
        (
            _written("bad.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n'),
            r"bad\.jsonl, line 2: not UTF-8 at byte 10",
        ),
        (
            _written("bad.jsonl", b'{"text": "a\\ud83d"}'),
            r"bad\.jsonl, line 1: .*text has half a surrogate pair",
        ),
    ],
)
def test_bad_files_are_named_and_leave_nothing(folder, monkeypatch, make, message):
    monkeypatch.setattr(sources, "BLOCK", 64)
    with pytest.raises(UserError, match=message) as raised:
        prepare(config(folder, inputs=(str(folder / "one.txt"), make(folder))))
    assert "\n" not in str(raised.value)
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": ()}, "exactly one of"),
        ({"tfds": "pg19"}, "exactly one of"),
        ({"inputs": ("blank.txt",)}, "blank.txt: nothing but white space"),
        ({"valid": ("blank.txt",), "valid_fraction": None}, "blank.txt: nothing but white space"),
        ({"valid": ("*",), "valid_fraction": None}, "none is left to train on"),
        ({"valid": ("one.txt",)}, "valid and valid_fraction"),
        ({"valid_fraction": 1.0}, "valid_fraction=1.0: expected at least 0"),
        ({"valid_fraction": -0.1}, "valid_fraction=-0.1"),
        ({"valid_fraction": float("nan")}, "valid_fraction=nan"),
        ({"vocab_size": 299}, "vocab_size=299: expected 300 to 1048576"),
        ({"vocab": "."}, "vocab and vocab_size: give one"),
        ({"vocab": "nowhere", "vocab_size": None}, "nowhere: no tokenizer here"),
        ({"tokenizer": "hf_basic"}, "tokenizer=hf_basic: needs vocab"),
        ({"tokenizer": "original", "vocab": ".", "vocab_size": None}, "no vocabulary here"),
        ({"workers": 0}, "workers=0: expected at least 1"),
        ({"shard_tokens": 0}, "shard_tokens=0"),
    ],
)
def test_bad_arguments_are_refused(folder, monkeypatch, changes, message):
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=message):
        prepare(config(folder, **changes))
    assert not (folder / "out").exists()


def test_a_folder_with_something_else_is_left_alone(folder):
    (folder / "out").mkdir()
    prepare(config(folder, output=str(folder / "empty")))
    (folder / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"out: holds thesis\.tex"):
        prepare(config(folder))
    assert tree(folder / "out") == {"thesis.tex": b"precious"}
    for place in ("one.txt", "one.txt/below"):
        with pytest.raises(UserError, match=r"one\.txt"):
            prepare(config(folder, output=str(folder / place)))


def test_brackets_in_a_file_name_are_no_glob(folder):
    (folder / "a [1].txt").write_text(text(9))
    prepare(config(folder, inputs=(str(folder / "a [1].txt"),)))
    assert decoded(folder / "out", "train") == text(9)


# Reading


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    documents = [Document(str(index), text(index, 1 + 37 * index % 90)) for index in range(40)]
    prepare(memory(folder, shard_tokens=64, vocab_size=400, valid_fraction=0.2), documents)
    return folder / "out"


@pytest.mark.parametrize("separator", [None, 1])
def test_any_range_of_the_stream_can_be_read(prepared, separator):
    manifest = read_manifest(prepared)
    train = manifest["splits"]["train"]
    stored = np.concatenate([np.load(prepared / shard["file"]) for shard in train["shards"]])
    documents = np.split(stored, np.load(prepared / "documents-train.npy")[1:])
    after = [] if separator is None else [separator]
    stream = np.concatenate([[*document, *after] for document in documents]).astype(np.int32)

    tokens = Tokens.open(prepared, "train", separator)
    assert len(tokens) == len(stream)
    assert tokens.split_info == train
    generator = random.Random(0)
    ranges = [sorted(generator.choices(range(len(stream) + 1), k=2)) for _ in range(300)]
    end = len(stream)
    for start, stop in [(0, end), (0, end - 1), (0, 0), (end, end), *ranges]:
        read = tokens.read(start, stop)
        assert read.dtype == np.int32
        assert read.tolist() == stream[start:stop].tolist()
    for start, stop in [(-1, 3), (0, len(stream) + 1), (5, 4)]:
        with pytest.raises(IndexError):
            tokens.read(start, stop)


def test_a_folder_of_format_1_is_still_read(tmp_path):
    """Committed as the first version of the code made it, with the starts in the manifest."""
    old = GOLDEN / "tokens_format_1"
    now = PrepareConfig(
        output=str(tmp_path / "now"),
        inputs=(str(GOLDEN / "books.jsonl"),),
        vocab_size=300,
        valid_fraction=0.2,
        shard_tokens=128,
    )
    prepare(now)
    assert verify(old)["format"] == 1
    assert read_manifest(now.output)["format"] == 2
    for split in ("train", "valid"):
        streams = [Tokens.open(folder, split, separator=1) for folder in (old, now.output)]
        before, after = (stream.read(0, len(stream)).tolist() for stream in streams)
        assert before == after
        assert before.count(1) >= streams[0].split_info["documents"]


def test_starts_of_documents_that_are_damaged_are_named(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    path = folder / "documents-train.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"documents-train\.npy: not the file that was prepared"):
        verify(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"documents-train\.npy: missing"):
        Tokens.open(folder, "train", separator=1)


def _copy(prepared: Path, folder: Path) -> Path:
    for name, content in tree(prepared).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"train-00001\.npy: missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-2]), r"00001\.npy is damaged"),
        (lambda path: path.write_bytes(b""), r"00001\.npy is damaged"),
        (lambda path: np.save(path, np.zeros(63, np.uint16)), r"63 tokens, expected 64"),
        (
            lambda path: np.save(path, np.zeros(64, np.int64)),
            r"int64 \[64\]; expected one row of uint16",
        ),
    ],
)
def test_damaged_shards_are_named(prepared, tmp_path, damage, message):
    folder = _copy(prepared, tmp_path)
    damage(folder / "train-00001.npy")
    with pytest.raises(UserError, match=message):
        Tokens.open(folder, "train")
    with pytest.raises(UserError, match=r"train-00001\.npy: not the file that was prepared"):
        verify(folder)


def test_a_flipped_bit_is_found(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    assert verify(folder) == read_manifest(prepared)
    path = folder / "valid-00000.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"valid-00000\.npy: not the file"):
        verify(folder)


def test_the_tokenizer_belongs_to_the_shards(prepared, tmp_path):
    folder = _copy(prepared, tmp_path)
    train_sentencepiece(["another"], 300).save(folder / "tokenizer")
    with pytest.raises(UserError, match="not the tokenizer of these shards"):
        verify(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"manifest\.json: missing; expected a folder that prepare made"),
        ("{", r"manifest\.json: damaged"),
        ("[]", r"manifest\.json: damaged"),
        ("{}", r"manifest\.json: damaged"),
        ('{"format": 3}', r"manifest\.json: format 3, expected 1 or 2"),
    ],
)
def test_a_folder_without_a_manifest_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / shards.MANIFEST).write_text(content)
    with pytest.raises(UserError, match=message):
        Tokens.open(tmp_path, "train")


def test_preparing_and_reading_need_no_large_library():
    code = (
        "import sys, gpt1_jax.text.corpus; "
        "print({'jax', 'tensorflow', 'sentencepiece', 'flax'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


def test_novels_are_prepared(real_data, folder):
    novels = [f"{real_data}/books/train/Lee_*.txt.xz", f"{real_data}/books/train/Ford_G*.xz"]
    valid = (f"{real_data}/books/valid/Forster_Angels_1905.txt.xz",)
    prepare(config(folder, inputs=tuple(novels), valid=valid, valid_fraction=None, vocab_size=2000))
    manifest = verify(folder / "out")
    train, held_out = manifest["splits"]["train"], manifest["splits"]["valid"]
    assert [train["documents"], held_out["documents"]] == [4, 1]
    assert held_out["characters"] == 282_000
    for split in (train, held_out):
        assert 2.5 < split["bytes"] / split["tokens"] < 4.5
    with lzma.open(valid[0], "rt", encoding="utf-8", newline="") as stream:
        assert decoded(folder / "out", "valid") == stream.read()
