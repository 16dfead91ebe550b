"""Text <-> ids.

The vocabulary is followed by three special tokens in the order of the released code: start,
delimiter, classify. They belong to the tokenizer and not to any text: no text encodes to them.

There are three modes:

    sentencepiece  byte-pair encoding trained on one's own corpus; keeps every character
    original       what the released weights were trained on: ftfy, spaCy, the vocabulary of GPT-1
    hf_basic       what transformers 5 makes of that vocabulary: the text rules of BERT before it

The mode is a part of the fingerprint, which every set of shards and every run records, so that ids
of two tokenizers never meet.
"""

import hashlib
import io
import json
import os
import re
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import accumulate, chain
from pathlib import Path

from gpt1_jax.errors import UserError
from gpt1_jax.text import original, vocabulary
from gpt1_jax.text.vocabulary import Vocabulary

MODES = ("sentencepiece", "original", "hf_basic")
SIZES = range(300, 2**20 + 1)  # 256 bytes, <unk> and end leave room for at least 42 pieces
DESCRIPTION = "tokenizer.json"
MODEL = "sentencepiece.model"

# Pieces are learnt from units: a run of line ends, or a word with the spaces before it. No piece
# mixes the two, and none has a space after another character, so a text may be cut in front of any
# space or line end without changing its ids. Tabs and NUL always encode as bytes; U+2581 stands
# for the space inside SentencePiece and also encodes as bytes, or it would decode as a space. The
# upper limits are far over the longest piece (16); SentencePiece ends at units over 65,535.
_UNIT = re.compile(r"[\r\n]{1,64}| {1,64}[^ \t\r\n\0▁▅]{0,256}|[^ \t\r\n\0▁▅]{1,256}")
# Lines, with long ones cut before a space: encoding time grows faster than the length of the input.
_STRETCH = re.compile(r"[\r\n]*[^\r\n]{1,1000} *[^ \r\n]*|[\r\n]+")
_SPACE_MARK = "▁"
_UNKNOWN_AND_END = 2
_BYTES = 256
_REMEMBERED = 2**19  # distinct words whose ids are kept; about 150 MB
_LONGEST_REMEMBERED = 256  # characters
# Share of the characters of a corpus that get a piece of their own; rarer ones encode as bytes.
_CHARACTER_COVERAGE = 0.9999


class Tokenizer(ABC):
    """Ids 0 ... vocab_size - 1 stand for text; start, delimiter, classify follow.

    Attributes:
      mode: the kind of tokenizer, one of MODES.
      vocab_size: number of ids below the special tokens.
      end: id of the end-of-document token, below vocab_size; no text encodes to it. None where
        the vocabulary has none.
      newline: id of a line end, None where there is no single one.
      fingerprint: hexadecimal SHA-256 over the mode and everything that decides about ids.
    """

    mode: str
    vocab_size: int
    end: int | None
    newline: int | None = None
    fingerprint: str

    @property
    def start(self) -> int:
        return self.vocab_size

    @property
    def delimiter(self) -> int:
        return self.vocab_size + 1

    @property
    def classify(self) -> int:
        return self.vocab_size + 2

    @property
    def size(self) -> int:
        """Number of ids with the special tokens."""
        return self.vocab_size + 3

    def separator(self, asked: str) -> int | None:
        """Id between documents where data.separator is `asked`: end, or none.

        Raises:
          UserError: end of a vocabulary that has no such token.
        """
        if asked == "end" and self.end is None:
            raise UserError(
                f"data.separator=end: the vocabulary of the mode {self.mode} has no end token; "
                "use data.separator=none"
            )
        return self.end if asked == "end" else None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, each below vocab_size."""

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of each text."""
        return [self.encode(text) for text in texts]

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens, end and padding have none."""

    def versions(self) -> dict[str, str]:
        """Of the libraries whose rules decide about ids, beside what the fingerprint covers."""
        return {}

    @abstractmethod
    def save(self, folder: str | os.PathLike) -> None:
        """Write the files that `load` reads into `folder`, which is made if it is missing."""


class SentencePieceTokenizer(Tokenizer):
    """SentencePiece BPE with byte fallback, white space and line ends kept as they are.

    `decode(encode(text)) == text` for every text that has a UTF-8 form.

    Args:
      model: the serialised SentencePiece model, as `train_sentencepiece` makes it.

    Raises:
      UserError: the bytes are not such a model.
    """

    mode = "sentencepiece"

    def __init__(self, model: bytes):
        from sentencepiece import SentencePieceProcessor

        try:
            self._processor = SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UserError(f"not a SentencePiece model ({_one_line(error)})") from None
        self.vocab_size = self._processor.vocab_size()
        self.end = self._processor.eos_id()
        self.fingerprint = hashlib.sha256(b"sentencepiece\0" + model).hexdigest()
        self._model = model
        self._bytes_of = [_bytes_of(self._processor, index) for index in range(self.vocab_size)]
        self._space_mark = self._processor.piece_to_id(
            [f"<0x{byte:02X}>" for byte in _SPACE_MARK.encode()]
        )
        if self.end < 0 or self._processor.unk_id() in self._space_mark:
            raise UserError("the SentencePiece model has no end piece or no byte fallback")

    def encode(self, text: str) -> list[int]:
        """Ids of a text, each below vocab_size; the empty text has none.

        Raises:
          UserError: half of a surrogate pair in the text, which has no UTF-8 form.
        """
        if _SPACE_MARK in text:
            first, *others = (self.encode(part) for part in text.split(_SPACE_MARK))
            return first + [index for ids in others for index in (*self._space_mark, *ids)]
        _require_utf8(text)
        # One thread: the cores are for workers, and starting threads would take half of the time.
        stretches = self._processor.encode(_STRETCH.findall(text), num_threads=1)
        return list(chain.from_iterable(stretches))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; U+FFFD stands where the bytes are no UTF-8, as a sample may end in."""
        size = self.vocab_size
        pieces = (self._bytes_of[index] for index in ids if index < size)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def save(self, folder: str | os.PathLike) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / MODEL, self._model)
        _write_description(self, folder)


class VocabularyTokenizer(Tokenizer):
    """What the two modes with the vocabulary of GPT-1 have in common.

    Attributes:
      encoder: the id of each symbol; "</w>" is a part of those that end a word.
      symbols: the symbol of each id.
      merges: pairs of symbols in the order in which they merge.

    Args:
      vocab: the released vocabulary, or one in its format.
    """

    end = None

    def __init__(self, vocab: Vocabulary):
        self.encoder, self.merges = vocab.encoder, vocab.merges
        self.symbols = sorted(vocab.encoder, key=vocab.encoder.get)
        self.vocab_size = len(self.symbols)
        self.fingerprint = vocab.fingerprint(self.mode)
        self._vocabulary = vocab

    def save(self, folder: str | os.PathLike) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self._vocabulary.files().items():
            _write(folder / name, content)
        _write_description(self, folder)


class OriginalTokenizer(VocabularyTokenizer):
    """The pipeline of GPT-1 (text_utils.py of the released code), up to the ids.

    Words are in lower case; a run of line ends is one id; what is not in the vocabulary is 0, one
    for each symbol. `decode` has a space after every word, also before a full stop.
    """

    mode = "original"

    def __init__(self, vocab: Vocabulary):
        super().__init__(vocab)
        self.newline = self.encoder.get(vocabulary.NEWLINE, 0)
        self._model = vocab.model()
        self._english = original.english()
        self._ids_of_chunk = _Remembered(self._chunk)
        self._ids_of_word = _Remembered(self._word)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, each below vocab_size; a text without words has none."""
        ids = []
        for line in original.lines(original.fix(text)):
            parts = list(map(self._ids_of_chunk.__getitem__, line))
            if None in parts:
                parts = map(self._ids_of_word.__getitem__, self._english.words(line))
            ids.extend(chain.from_iterable(parts))
            ids.append(self.newline)
        return ids[:-1]

    def _chunk(self, chunk: str) -> tuple[int, ...] | None:
        words = self._english.words_of_chunk(chunk)
        return words and tuple(chain.from_iterable(map(self._word, words)))

    def _word(self, word: str) -> tuple[int, ...]:
        return tuple(part.id for part in self._model.tokenize(word.lower()))

    def decode(self, ids: Iterable[int]) -> str:
        """The symbols of ids, with a space for each end of a word; special tokens have no text."""
        size = self.vocab_size
        symbols = (self.symbols[index] for index in ids if index < size)
        return "".join(symbols).replace(vocabulary.WORD_END, " ")

    def versions(self) -> dict[str, str]:
        return original.versions()


class BasicTokenizer(VocabularyTokenizer):
    """The vocabulary of GPT-1 behind the text rules of BERT: the OpenAIGPTTokenizer of transformers
    5, through the tokenizers library.

    Words are in lower case and without accents, every punctuation character is a word, line ends
    are spaces. The text "<unk>" encodes to 0. `pipeline` is the object of the library.
    """

    mode = "hf_basic"

    def __init__(self, vocab: Vocabulary):
        super().__init__(vocab)
        model = vocab.model()  # says what is missing
        from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Pipeline

        self.pipeline = Pipeline(model)
        self.pipeline.normalizer = normalizers.BertNormalizer(lowercase=True)
        self.pipeline.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.pipeline.decoder = decoders.BPEDecoder(suffix=vocabulary.WORD_END)
        unknown = AddedToken(vocabulary.UNKNOWN, normalized=False, special=True)
        self.pipeline.add_special_tokens([unknown])
        self._ids_of_chunk = _Remembered(self._chunk)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, each below vocab_size; a text without words has none.

        Raises:
          UserError: half of a surrogate pair in the text, which has no UTF-8 form.
        """
        # No rule of BERT looks across one of these.
        chunks = text.replace("\n", " ").replace("\r", " ").replace("\t", " ").split(" ")
        return list(chain.from_iterable(map(self._ids_of_chunk.__getitem__, chunks)))

    def _chunk(self, chunk: str) -> tuple[int, ...]:
        _require_utf8(chunk)
        return tuple(self.pipeline.encode(chunk).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The symbols of ids, with a space for each end of a word but the last; special tokens have
        no text."""
        known = [index for index in ids if index < self.vocab_size]
        return self.pipeline.decode(known, skip_special_tokens=False)

    def versions(self) -> dict[str, str]:
        import tokenizers

        return {"tokenizers": tokenizers.__version__}


class _Remembered(dict):
    """What a function gives for a word, computed once; all forgotten when there are too many."""

    def __init__(self, function: Callable):
        super().__init__()
        self._function = function

    def __missing__(self, word: str):
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self._function(word)
        if len(word) <= _LONGEST_REMEMBERED:
            self[word] = value
        return value


def from_vocabulary(source: str | os.PathLike, mode: str) -> VocabularyTokenizer:
    """A tokenizer of the mode original or hf_basic with the vocabulary of a folder or Hub name.

    The folder has encoder_bpe_40000.json and vocab_40000.bpe, as OpenAI released them, or
    vocab.json and merges.txt; or it is a prepared one, or the workdir of a run.

    Raises:
      UserError: another mode, or no vocabulary there; see vocabulary.read.
    """
    if mode not in _OF_VOCABULARY:
        known = ", ".join(_OF_VOCABULARY)
        raise UserError(f"tokenizer={mode}: not available here; expected one of: {known}")
    inside = Path(source).expanduser() / "tokenizer"
    return _OF_VOCABULARY[mode](vocabulary.read(inside if inside.is_dir() else source))


_OF_VOCABULARY = {"original": OriginalTokenizer, "hf_basic": BasicTokenizer}


def load(folder: str | os.PathLike) -> Tokenizer:
    """The tokenizer saved in `folder`, or in its subfolder `tokenizer` (prepared data, a run).

    Raises:
      UserError: no tokenizer there, one of another mode, or files that were changed.
    """
    given, folder = Path(folder), Path(folder)
    if not (folder / DESCRIPTION).is_file():
        folder = folder / "tokenizer"
    try:
        description = json.loads((folder / DESCRIPTION).read_bytes())
        mode, fingerprint = description["mode"], description["fingerprint"]
    except OSError:
        raise UserError(
            f"{given}: no tokenizer here; expected a folder with {DESCRIPTION}, as prepare makes it"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{folder / DESCRIPTION}: damaged; expected an object with mode and fingerprint"
        ) from None
    if mode not in MODES:
        raise UserError(f"{folder / DESCRIPTION}: unknown mode {mode!r}; known: {', '.join(MODES)}")
    if mode == "sentencepiece":
        tokenizer = _loaded_sentencepiece(folder)
    else:
        tokenizer = from_vocabulary(folder, mode)
    if tokenizer.fingerprint != fingerprint:
        file = MODEL if mode == "sentencepiece" else vocabulary.ENCODER
        raise UserError(
            f"{folder / file}: not the model that {DESCRIPTION} describes (fingerprint "
            f"{tokenizer.fingerprint[:12]}, expected {fingerprint[:12]}); copy the folder again"
        )
    now, then = tokenizer.versions(), description.get("versions", {})
    if now != then:
        print(f"{folder}: made with {then}, here is {now}; ids may differ", file=sys.stderr)
    return tokenizer


def _loaded_sentencepiece(folder: Path) -> SentencePieceTokenizer:
    try:
        return SentencePieceTokenizer((folder / MODEL).read_bytes())
    except OSError:
        raise UserError(f"{folder / MODEL}: missing or unreadable") from None
    except UserError as error:
        raise UserError(f"{folder / MODEL}: {error}") from None


def count_units(text: str) -> Counter[str]:
    """How often each unit (a word with its spaces, a run of line ends) occurs in a text.

    Counts of parts add up to the counts of the whole, where parts begin at a space or line end, so
    a large corpus can be counted in parallel.
    """
    return Counter(_UNIT.findall(text))


def train_sentencepiece(
    texts: Iterable[str] | Counter[str], vocab_size: int
) -> SentencePieceTokenizer:
    """BPE trained on texts, or on their `count_units`; equal texts in any order give equal bytes.

    Nothing is skipped for its length. A corpus with fewer possible pieces gives a smaller
    vocabulary: look at `vocab_size` of the result.

    Raises:
      UserError: vocab_size outside SIZES, or no text.
    """
    if vocab_size not in SIZES:
        raise UserError(
            f"vocab_size={vocab_size}: expected {SIZES[0]} to {SIZES[-1]}; {_BYTES} single bytes "
            f"and {_UNKNOWN_AND_END} reserved ids come before the pieces"
        )
    counts = texts
    if not isinstance(texts, Counter):
        counts = Counter()
        for text in texts:
            counts.update(count_units(text))
    if not counts:
        raise UserError("no words to train a tokenizer on; the training text is empty")
    return SentencePieceTokenizer(_trained_model(counts, vocab_size))


def _trained_model(counts: Counter[str], vocab_size: int) -> bytes:
    from sentencepiece import SentencePieceTrainer

    frequent = _without_rare_characters(counts, vocab_size)
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=(f"{unit}\t{count}" for unit, count in frequent.items()),
        input_format="tsv",
        model_writer=model,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        required_chars=_SPACE_MARK,  # as bytes it would stand for itself, not for a space
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        unk_id=0,
        eos_id=1,
        bos_id=-1,
        pad_id=-1,
        max_sentence_length=2**16,  # in bytes; a unit has at most 320 characters
        num_threads=1,  # stored in the model, hence in its bytes; the counting is what takes time
        minloglevel=2,
    )
    return model.getvalue()


def _without_rare_characters(counts: Counter[str], vocab_size: int) -> Counter[str]:
    """Units cut where a rare character stands: it is no piece, so half of the room is for merges.

    SentencePiece has a setting for this, but it ends at alphabets that do not fit the vocabulary.
    """
    frequency = Counter()
    for unit, count in counts.items():
        for character in unit:
            frequency[character] += count
    ordered = sorted(frequency, key=lambda character: (-frequency[character], character))
    covered = accumulate(frequency[character] for character in ordered)
    wanted = 1 + sum(part < _CHARACTER_COVERAGE * frequency.total() for part in covered)
    room = (vocab_size - _BYTES - _UNKNOWN_AND_END) // 2
    rare = ordered[min(wanted, room) :]
    if not rare:
        return counts
    cut = re.compile(f"[{re.escape(''.join(rare))}]")
    kept = Counter()
    for unit, count in counts.items():
        for part in filter(None, cut.split(unit)):
            kept[part] += count
    return kept


def _bytes_of(processor, index: int) -> bytes:
    """What a piece adds to the text."""
    if processor.is_control(index) or processor.is_unknown(index):
        return b""
    piece = processor.id_to_piece(index)
    if processor.is_byte(index):
        return bytes([int(piece[1:-1], 16)])
    return piece.replace(_SPACE_MARK, " ").encode()


def _require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of a text is half of a surrogate pair "
            f"(U+{ord(text[error.start]):04X}); expected text that has a UTF-8 form"
        ) from None


def _write_description(tokenizer: Tokenizer, folder: Path) -> None:
    description = {
        "mode": tokenizer.mode,
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
    }
    if versions := tokenizer.versions():
        description["versions"] = versions
    _write(folder / DESCRIPTION, (json.dumps(description, indent=1) + "\n").encode())


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
