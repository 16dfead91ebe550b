"""A byte-pair vocabulary learned by SentencePiece, with byte fallback."""

import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, chain
from pathlib import Path

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.tokenizer import Tokenizer, require_utf8, write_description

SIZES = range(300, 2**20 + 1)  # 256 bytes, <unk> and end leave room for at least 42 pieces


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


# Share of the characters of a corpus that get a piece of their own; rarer ones encode as bytes.
_CHARACTER_COVERAGE = 0.9999


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
        require_utf8(text)
        # One after the other: of a list the library starts a thread at each call, which takes 15
        # times as long as the sentence of a task, and saves nothing on a book.
        return list(chain.from_iterable(map(self._processor.encode, _STRETCH.findall(text))))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; U+FFFD stands where the bytes are no UTF-8, as a sample may end in."""
        size = self.vocab_size
        pieces = (self._bytes_of[index] for index in ids if index < size)
        return b"".join(pieces).decode("utf-8", errors="replace")

    def save(self, folder: str | os.PathLike) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        disk.write_bytes(folder / MODEL, self._model)
        write_description(self, folder)


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
    counts = texts if isinstance(texts, Counter) else Counter[str]()
    if counts is not texts:
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


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
