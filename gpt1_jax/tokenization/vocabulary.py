"""The vocabulary of GPT-1: an id table and the ordered merges of its byte-pair encoding.

The layout of the released one (model/ in openai/finetune-transformer-lm), which a learned one has
too:

    0                 <unk>, which is also the padding of the released code
    1 ...             characters inside a word
    ...               the same characters at the end of a word: "e</w>"
    ...               what the merges make, in their order
    the last          the line end, "\\n</w>"
"""

import hashlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt1_jax import disk, json_files
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.tokenizer_json import FILE as TOKENIZER_JSON
from gpt1_jax.tokenization.tokenizer_json import UNKNOWN, WORD_END, read_tokenizer_json

NEWLINE = "\n" + WORD_END

ENCODER, MERGES = "encoder_bpe_40000.json", "vocab_40000.bpe"  # whatever the number of merges
_HUB_FILES = ("vocab.json", "merges.txt")  # the same contents by their names on the Hub
_HEADER = "#version: 0.2"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")

_CHARACTERS = 238  # of the released vocabulary; rarer ones are unknown
_REPEATS = 2**14  # how often a word stands in one string that goes to the trainer


@dataclass(frozen=True)
class Vocabulary:
    """Ids of the symbols, and pairs of symbols in the order in which they merge."""

    encoder: dict[str, int]
    merges: list[tuple[str, str]]

    def fingerprint(self, mode: str) -> str:
        """Hexadecimal SHA-256 over the mode, the symbols by id, and the merges."""
        symbols = sorted(self.encoder, key=self.encoder.get)
        return hashlib.sha256(json.dumps([mode, symbols, self.merges]).encode()).hexdigest()

    def files(self) -> dict[str, bytes]:
        """The two files under their released names; of the released vocabulary, the same bytes."""
        lines = [_HEADER, *(f"{left} {right}" for left, right in self.merges), ""]
        return {ENCODER: json.dumps(self.encoder).encode(), MERGES: "\n".join(lines).encode()}

    def model(self):
        """The byte-pair encoding of single words, of the tokenizers library."""
        try:
            from tokenizers.models import BPE
        except ImportError:
            raise UserError(
                "the vocabulary of GPT-1 needs the package tokenizers; pip install tokenizers"
            ) from None
        return BPE(self.encoder, self.merges, unk_token=UNKNOWN, end_of_word_suffix=WORD_END)


# Reading


def read(source: str | os.PathLike) -> Vocabulary:
    """The vocabulary in a folder, under the released names or those of Hugging Face (also the
    tokenizer.json that transformers 5 saves); or of a Hub name such as openai-community/openai-gpt.

    Raises:
      UserError: a file is missing or none of a vocabulary, or the Hub cannot provide it.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir() and _HUB_NAME.fullmatch(str(source)):
        table, merges = (_from_hub(str(source), name) for name in _HUB_FILES)
    else:
        table, merges = _in_folder(folder)
    if table == merges:
        return _of_tokenizer_json(table)
    encoder = _encoder(_json(table), table)
    return Vocabulary(encoder, list(_merges(merges, encoder)))


def _in_folder(folder: Path) -> tuple[Path, Path]:
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; expected one with {ENCODER} and {MERGES}, or a Hub name "
            "such as openai-community/openai-gpt"
        )
    layouts = ((ENCODER, MERGES), _HUB_FILES)
    for table, merges in layouts:
        if (folder / table).is_file() and (folder / merges).is_file():
            return folder / table, folder / merges
    if (folder / TOKENIZER_JSON).is_file():
        return folder / TOKENIZER_JSON, folder / TOKENIZER_JSON
    for names in layouts:
        for here, missing in (names, names[::-1]):
            if (folder / here).is_file():
                raise UserError(f"{folder / missing}: missing; it belongs beside {here}")
    known = " or ".join(" and ".join(names) for names in layouts)
    raise UserError(f"{folder}: no vocabulary here; expected the files {known}")


def _from_hub(name: str, file: str) -> Path:
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
    except ImportError:
        raise UserError(
            f"{name}: a name on the Hugging Face Hub needs the package huggingface_hub; install "
            "it, or give a folder with the two files"
        ) from None
    try:
        if isinstance(cached := hub.try_to_load_from_cache(name, file), str):
            return Path(cached)
        # A download would be tried for half a minute, with a line each time.
        hub.get_session().head(constants.ENDPOINT, timeout=10)
        return Path(hub.hf_hub_download(name, file))
    except Exception as error:  # whatever its downloader raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name}: no such folder, and the Hugging Face Hub cannot provide its {file} "
            f"({type(error).__name__}: {reason}); go online, or give a folder with the two files"
        ) from None


def _json(path: Path) -> object:
    remedy = "expected an object of symbols: ids"
    return json_files.parse(_text(path).encode(), Any, str(path), remedy)


def _of_tokenizer_json(path: Path) -> Vocabulary:
    found = read_tokenizer_json(path)
    return Vocabulary(_encoder(found.encoder, path), found.merges)


def _encoder(table: object, path: Path) -> dict[str, int]:
    if not isinstance(table, dict):
        raise UserError(f"{path}: no object; expected an id for each symbol")
    for symbol, index in table.items():
        if type(index) is not int:
            raise UserError(f"{path}: the id of {symbol!r} is {index!r}; expected an integer")
    if sorted(table.values()) != list(range(len(table))):
        missing = min(set(range(len(table))) - set(table.values()))
        raise UserError(
            f"{path}: no symbol has the id {missing}; expected the ids 0 to {len(table) - 1}, "
            "each once"
        )
    if table.get(UNKNOWN) != 0:
        raise UserError(f"{path}: {UNKNOWN} has the id {table.get(UNKNOWN)}; expected 0")
    return table


def _merges(path: Path, encoder: dict[str, int]) -> Iterator[tuple[str, str]]:
    header, *lines = _text(path).removesuffix("\n").split("\n")
    if not header.startswith("#version"):
        raise UserError(f"{path}, line 1: {header[:40]!r}; expected the header {_HEADER}")
    seen = set()
    for number, line in enumerate(lines, 2):
        pair = tuple(line.split(" "))
        if len(pair) != 2 or not all(pair):
            raise UserError(f"{path}, line {number}: {line[:40]!r}; expected two symbols")
        unknown = [symbol for symbol in (*pair, "".join(pair)) if symbol not in encoder]
        if unknown:
            raise UserError(f"{path}, line {number}: {unknown[0]!r} is not in the id table")
        if pair in seen:
            raise UserError(f"{path}, line {number}: {line!r} stands there twice")
        seen.add(pair)
        yield pair


def _text(path: Path) -> str:
    try:
        with io.TextIOWrapper(disk.opened(path), "utf-8-sig") as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


# Learning


def learn(words: Counter[str], vocab_size: int | None = None, n_merges: int = 40_000) -> Vocabulary:
    """A vocabulary of words and how often they occur; equal counts give equal vocabularies.

    Its characters are the 238 most frequent ones, or fewer where they would take more than half of
    the ids. Pairs that occur once do not merge, so that few words make a smaller vocabulary.

    Args:
      vocab_size: number of ids; without it, as many as n_merges need.

    Raises:
      UserError: no word.
    """
    if not words:
        raise UserError("no words to learn a vocabulary from; the training text is empty")
    frequency = Counter()
    for word, count in words.items():
        for character in word:
            frequency[character] += count
    room = _CHARACTERS if vocab_size is None else min(_CHARACTERS, (vocab_size - 2) // 4)
    ordered = sorted(frequency, key=lambda character: (-frequency[character], character))[:room]
    first = [UNKNOWN, *ordered, *(character + WORD_END for character in ordered)]
    size = len(first) + n_merges if vocab_size is None else vocab_size - 1
    merges = _learned_merges(words, first, size)
    symbols = dict.fromkeys([*first, *(left + right for left, right in merges), NEWLINE])
    return Vocabulary({symbol: index for index, symbol in enumerate(symbols)}, merges)


def _learned_merges(words: Counter[str], first: list[str], size: int) -> list[tuple[str, str]]:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import CharDelimiterSplit
    from tokenizers.trainers import BpeTrainer

    characters = set(first)
    known = sorted(word for word in words if characters.issuperset(word))
    # The trainer settles ties by id. It would number the characters at the end of a word as they
    # come out of a hash table; given as special tokens, they have their ids.
    trainer = BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=first,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = CharDelimiterSplit("\n")
    tokenizer.train_from_iterator(_repeated(words, known), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def _repeated(words: Counter[str], known: list[str]) -> Iterator[str]:
    """The trainer takes text and not counts: each word as often as it occurs."""
    for word in known:
        times, rest = divmod(words[word], _REPEATS)
        for count in [_REPEATS] * times + [rest]:
            yield f"{word}\n" * count
