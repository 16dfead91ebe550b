"""The tokenizers of GPT-1's vocabulary: the pipeline of 2018, and what transformers does."""

import os
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

from gpt1_jax import disk
from gpt1_jax.tokenization import text_rules, vocabulary
from gpt1_jax.tokenization.tokenizer import Tokenizer, require_utf8, write_description
from gpt1_jax.tokenization.tokenizer_json import UNKNOWN, WORD_END
from gpt1_jax.tokenization.vocabulary import Vocabulary

_REMEMBERED = 2**19  # distinct words whose ids are kept; about 150 MB


_LONGEST_REMEMBERED = 256  # characters


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
            disk.write_bytes(folder / name, content)
        write_description(self, folder)


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
        self._english = text_rules.english()
        self._ids_of_chunk = _Remembered(self._chunk)
        self._ids_of_word = _Remembered(self._word)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, each below vocab_size; a text without words has none."""
        return self.encode_fixed(text_rules.fix(text))

    def encode_fixed(self, text: str) -> list[int]:
        """The same of a text that ftfy has seen already."""
        ids = []
        for line in text_rules.lines(text):
            parts = list(map(self._ids_of_chunk.__getitem__, line))
            if None in parts:
                parts = map(self._ids_of_word.__getitem__, self._english.words(line))
            ids.extend(chain.from_iterable(parts))
            ids.append(self.newline)
        return ids[:-1]

    def _chunk(self, chunk: str) -> tuple[int, ...] | None:
        words = self._english.words_of_chunk(chunk)
        return None if words is None else tuple(chain.from_iterable(map(self._word, words)))

    def _word(self, word: str) -> tuple[int, ...]:
        return tuple(part.id for part in self._model.tokenize(word.lower()))

    def decode(self, ids: Iterable[int]) -> str:
        """The symbols of ids, with a space for each end of a word; special tokens have no text."""
        size = self.vocab_size
        symbols = (self.symbols[index] for index in ids if index < size)
        return "".join(symbols).replace(WORD_END, " ")

    def versions(self) -> dict[str, str]:
        return text_rules.versions()


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
        self.pipeline.decoder = decoders.BPEDecoder(suffix=WORD_END)
        unknown = AddedToken(UNKNOWN, normalized=False, special=True)
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
        require_utf8(chunk)
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
