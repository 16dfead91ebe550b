"""Vocabularies in the files of transformers, written and read.

A GPT-1 vocabulary is vocab.json and merges.txt, or the tokenizer.json that holds both. Whatever
mode it has here, transformers 5 encodes with it as the mode `hf_basic` does.

A SentencePiece model becomes a tokenizer.json of the library tokenizers which gives the same ids:
merges in the order of the pieces' scores, bytes for what is no piece. Its pieces have spaces where
SentencePiece has U+2581, so that this character, when it stands in a text, encodes as bytes as it
does here; and text is cut where no piece can go on, which changes no id and makes it fast.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.sentencepiece_bpe import MODEL
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.tokenization.vocabulary import ENCODER, MERGES, UNKNOWN, WORD_END, Vocabulary
from gpt1_jax.weights.weights import SPECIALS

VOCABULARY = ("vocab.json", "merges.txt")
DESCRIPTION = "tokenizer.json"
END = "<|endoftext|>"
_HEADER = "#version: 0.2"
_SPACE_MARK = "▁"
# Runs of line ends, and words with the spaces before them (tokenization/tokenizer.py).
_UNITS = r"[\r\n]+| +[^ \r\n]*|[^ \r\n]+"


def write(tokenizer: Tokenizer, n_special: int, n_ctx: int, folder: Path) -> None:
    """The files that AutoTokenizer opens, with `n_special` (0 or 3) special tokens at the end."""
    config = {"model_max_length": n_ctx, "clean_up_tokenization_spaces": False}
    if tokenizer.mode == "sentencepiece":
        made = _from_sentencepiece(tokenizer, folder)
        config |= {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END}
    else:
        write_vocabulary(tokenizer, folder, VOCABULARY)
        made = _basic(tokenizer)
        made.add_special_tokens([UNKNOWN])
        config |= {"tokenizer_class": "OpenAIGPTTokenizer", "unk_token": UNKNOWN}
    specials = list(SPECIALS[:n_special])
    made.add_special_tokens(specials)
    if specials:
        config["extra_special_tokens"] = specials
    made.save(str(folder / DESCRIPTION))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_vocabulary(tokenizer: Tokenizer, folder: Path, names: tuple[str, str]) -> None:
    """The ids as JSON and the merges as lines, as OpenAI and transformers both have them."""
    files = Vocabulary(tokenizer.encoder, tokenizer.merges).files()
    for name, content in zip(names, (files[ENCODER], files[MERGES]), strict=True):
        (folder / name).write_bytes(content)


def _basic(tokenizer: Tokenizer):
    """What transformers makes of a GPT-1 vocabulary."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    made = Fast(
        models.BPE(
            vocab=tokenizer.encoder,
            merges=[tuple(pair) for pair in tokenizer.merges],
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
    """The tokens beyond the vocabulary by name: from tokenizer.json, or what older versions of
    transformers wrote."""
    found = {}
    if (description := _read(folder / DESCRIPTION)) is not None:
        found |= {token["content"]: token["id"] for token in description.get("added_tokens", [])}
    if (config := _read(folder / "tokenizer_config.json")) is not None:
        decoder = config.get("added_tokens_decoder", {})
        found |= {token["content"]: int(row) for row, token in decoder.items()}
    if (old := _read(folder / "added_tokens.json")) is not None:
        found |= old
    return found


def has_vocabulary(folder: Path) -> bool:
    return all((folder / name).is_file() for name in VOCABULARY)


def unpack(folder: Path, target: Path) -> None:
    """Writes vocab.json and merges.txt from the tokenizer.json of a folder that has only that.

    Raises UserError if it has none, or it is another kind of tokenizer than GPT-1's.
    """
    path = folder / DESCRIPTION
    description = _read(path)
    if description is None:
        raise UserError(
            f"hf:{folder} has no vocabulary; expected {' and '.join(VOCABULARY)}, or {DESCRIPTION}"
        )
    model = description.get("model") or {}
    if model.get("type") != "BPE" or model.get("end_of_word_suffix") != WORD_END:
        raise UserError(
            f"{path} is no vocabulary of GPT-1 (BPE with {WORD_END} at the end of words); "
            "expected the one that these weights were trained with"
        )
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (target / VOCABULARY[0]).write_text(json.dumps(model["vocab"]))
    (target / VOCABULARY[1]).write_text("\n".join([_HEADER, *pairs]) + "\n", encoding="utf-8")


def _read(path: Path) -> dict | None:
    try:
        return json_files.read(path, dict[str, Any], "copy it again")
    except FileNotFoundError:
        return None
