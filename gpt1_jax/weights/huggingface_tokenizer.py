"""Vocabularies in the files of transformers, written and read.

A GPT-1 vocabulary is vocab.json and merges.txt, or the tokenizer.json that holds both. Whatever
mode it has here, transformers 5 encodes with it as the mode `hf_basic` does.

A SentencePiece model becomes a tokenizer.json of the library tokenizers which gives the same ids:
merges in the order of the pieces' scores, bytes for what is no piece. Its pieces have spaces where
SentencePiece has U+2581, so that this character, when it stands in a text, encodes as bytes as it
does here; and text is cut where no piece can go on, which changes no id and makes it fast.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, cast

from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.gpt1_bpe import VocabularyTokenizer
from gpt1_jax.tokenization.sentencepiece_bpe import MODEL
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.tokenization.tokenizer_json import FILE, SPECIALS, UNKNOWN, WORD_END
from gpt1_jax.tokenization.vocabulary import ENCODER, MERGES, Vocabulary
from gpt1_jax.weights.weights import Weights

VOCABULARY = ("vocab.json", "merges.txt")
CONFIG, ADDED = "tokenizer_config.json", "added_tokens.json"
END = "<|endoftext|>"
_SPACE_MARK = "▁"
# Runs of line ends, and words with the spaces before them (tokenization/tokenizer.py).
_UNITS = r"[\r\n]+| +[^ \r\n]*|[^ \r\n]+"


class Added(TypedDict):
    """A token beyond the vocabulary, as tokenizer.json lists it."""

    content: str
    id: int


class Description(TypedDict):
    """tokenizer.json, as far as it is read here."""

    added_tokens: NotRequired[list[Added] | None]


class Decoder(TypedDict):
    """A token beyond the vocabulary, as tokenizer_config.json lists it by row."""

    content: str


class Settings(TypedDict):
    """tokenizer_config.json, as far as it is read here."""

    added_tokens_decoder: NotRequired[dict[str, Decoder] | None]


def write_tokenizer(found: Weights, folder: Path) -> None:
    """The files that AutoTokenizer opens, the special tokens of the model at the end."""
    tokenizer = found.tokenizer
    config: dict[str, Any] = {
        "model_max_length": found.model.n_ctx,
        "clean_up_tokenization_spaces": False,
    }
    if tokenizer.mode == "sentencepiece":
        made = _from_sentencepiece(tokenizer, folder)
        config |= {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    else:
        vocabulary = cast(VocabularyTokenizer, tokenizer)
        write_vocabulary(vocabulary, folder, VOCABULARY)
        made = _basic(vocabulary)
        made.add_special_tokens([UNKNOWN])
        config |= {"tokenizer_class": "OpenAIGPTTokenizer", "unk_token": UNKNOWN}
    specials = list(SPECIALS[: found.model.n_special])
    made.add_special_tokens(specials)
    if specials:
        config["extra_special_tokens"] = specials
    if found.task.has_head:
        made.post_processor = _frame(made)
    made.save(str(folder / FILE))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _frame(made):
    """What puts the special tokens around a text and between two, as fine-tuning did: the head of a
    classifier then reads the last token, where transformers reads it."""
    from tokenizers.processors import TemplateProcessing

    start, delimiter, classify = SPECIALS
    return TemplateProcessing(
        single=f"{start} $A {classify}",
        pair=f"{start} $A {delimiter} $B {classify}",
        special_tokens=[(name, made.token_to_id(name)) for name in SPECIALS],
    )


def write_vocabulary(tokenizer: VocabularyTokenizer, folder: Path, names: tuple[str, str]) -> None:
    """The ids as JSON and the merges as lines, as OpenAI and transformers both have them."""
    files = Vocabulary(tokenizer.encoder, tokenizer.merges).files()
    for name, content in zip(names, (files[ENCODER], files[MERGES]), strict=True):
        (folder / name).write_bytes(content)


def _basic(tokenizer: VocabularyTokenizer):
    """What transformers makes of a GPT-1 vocabulary."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    made = Fast(
        models.BPE(
            vocab=tokenizer.encoder,
            merges=[(first, second) for first, second in tokenizer.merges],
            unk_token=UNKNOWN,
            continuing_subword_prefix="",
            end_of_word_suffix=WORD_END,
            fuse_unk=False,
        )
    )
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.BPEDecoder(suffix=WORD_END)
    return made


def _from_sentencepiece(tokenizer: Tokenizer, folder: Path):
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Fast

    tokenizer.save(folder)  # its tokenizer.json makes room for theirs, the model stays
    processor = SentencePieceProcessor(model_file=str(folder / MODEL))
    pieces = [
        processor.id_to_piece(index).replace(_SPACE_MARK, " ")
        for index in range(processor.vocab_size())
    ]
    pieces[tokenizer.end] = END
    made = Fast(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=list(_merges(processor, pieces)),
            byte_fallback=True,
            fuse_unk=False,
        )
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex(_UNITS), "isolated")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([END])
    return made


def _merges(processor, pieces: list[str]) -> Iterator[tuple[str, str]]:
    """Each way to put a piece together from two others, best score first: SentencePiece keeps no
    merges, it joins the two neighbours whose sum is the best piece."""
    normal = {
        piece: processor.get_score(index)
        for index, piece in enumerate(pieces)
        if not (processor.is_control(index) or processor.is_unknown(index))
        and not processor.is_byte(index)
    }
    for piece in sorted(normal, key=lambda piece: -normal[piece]):
        for cut in range(1, len(piece)):
            if piece[:cut] in normal and piece[cut:] in normal:
                yield piece[:cut], piece[cut:]


def added_tokens(folder: Path) -> dict[str, int]:
    """The tokens beyond the vocabulary by name: from tokenizer.json, and what older versions of
    transformers wrote. UserError where two of these files contradict each other, and for two
    tokens in one row."""
    found: dict[str, int] = {}
    origin: dict[str, str] = {}
    for name, listed in _listed(folder).items():
        for token, row in listed.items():
            if found.setdefault(token, row) != row:
                raise UserError(
                    f"{folder / name} gives {token} the row {row}, {origin[token]} beside it "
                    f"{found[token]}; remove whichever is not of these weights"
                )
            origin.setdefault(token, name)
    rows = {row: token for token, row in found.items()}
    for token, row in found.items():
        if rows[row] != token:
            raise UserError(
                f"{folder / origin[token]} gives {token} and {rows[row]} the same row, {row}; "
                "expected a row for each"
            )
    return found


def _listed(folder: Path) -> dict[str, dict[str, int]]:
    """The tokens that each file lists, by its name."""
    found: dict[str, dict[str, int]] = {}
    remedy = "copy the file again"
    with contextlib.suppress(FileNotFoundError):
        whole = json_files.read(folder / FILE, Description, remedy)
        found[FILE] = {token["content"]: token["id"] for token in whole.get("added_tokens") or []}
    with contextlib.suppress(FileNotFoundError):
        config = json_files.read(folder / CONFIG, Settings, remedy)
        decoder = config.get("added_tokens_decoder") or {}
        for row in decoder:
            if not row.isdecimal():
                raise UserError(
                    f"{folder / CONFIG}: added_tokens_decoder has {row!r}; expected the numbers of "
                    "rows"
                )
        found[CONFIG] = {token["content"]: int(row) for row, token in decoder.items()}
    with contextlib.suppress(FileNotFoundError):
        found[ADDED] = json_files.read(folder / ADDED, dict[str, int], remedy)
    return found
