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

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from gpt1_jax import disk
from gpt1_jax.errors import UserError

DESCRIPTION = "tokenizer.json"
# Those that take the vocabulary of GPT-1, and all of them.
VocabularyMode = Literal["original", "hf_basic"]
Mode = Literal["sentencepiece", VocabularyMode]


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

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special tokens, end and padding have none."""

    def versions(self) -> dict[str, str]:
        """Of the libraries whose rules decide about ids, beside what the fingerprint covers."""
        return {}

    @abstractmethod
    def save(self, folder: str | os.PathLike) -> None:
        """Write the files that `load` reads into `folder`, which is made if it is missing."""


def require_utf8(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of a text is half of a surrogate pair "
            f"(U+{ord(text[error.start]):04X}); expected text that has a UTF-8 form"
        ) from None


def write_description(tokenizer: Tokenizer, folder: Path) -> None:
    description = {
        "mode": tokenizer.mode,
        "fingerprint": tokenizer.fingerprint,
        "vocab_size": tokenizer.vocab_size,
    }
    if versions := tokenizer.versions():
        description["versions"] = versions
    disk.write_json(folder / DESCRIPTION, description)
