"""The tokenizer.json of the library tokenizers: GPT-1's vocabulary, in each form that the library
has written over the years, and the settings in it that change ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from gpt1_jax import json_files
from gpt1_jax.errors import UserError

FILE = "tokenizer.json"
WORD_END = "</w>"
UNKNOWN = "<unk>"
# The tokens that fine-tuning adds, by the names of the released code: start, delimiter, classify.
SPECIALS = ("_start_", "_delimiter_", "_classify_")

# What each setting may be where transformers encodes as the mode hf_basic does, and the forms in
# which the library leaves out or writes a default.
_NORMALIZER = {
    "type": ("BertNormalizer",),
    "clean_text": (True, None),
    "handle_chinese_chars": (True, None),
    "strip_accents": (True, None),
    "lowercase": (True, None),
}
_PRE_TOKENIZER = {"type": ("BertPreTokenizer",)}
_MODEL = {
    "type": ("BPE", None),
    "dropout": (None, 0, 0.0),
    "unk_token": (UNKNOWN,),
    "continuing_subword_prefix": (None, ""),
    "end_of_word_suffix": (WORD_END,),
    "fuse_unk": (None, False),
    "byte_fallback": (None, False),
    "ignore_merges": (None, False),
}


# What a post-processor puts around texts where it does what fine-tuning does here.
_START, _DELIMITER, _CLASSIFY = SPECIALS
_FRAMES = {
    "single": [_START, "A", _CLASSIFY],
    "pair": [_START, "A", _DELIMITER, "B", _CLASSIFY],
}


def _alone(section: Any) -> Any:
    """A section of the file, out of the Sequence of one that newer tools write around it."""
    while isinstance(section, dict) and section.get("type") == "Sequence":
        inner = [value for value in section.values() if isinstance(value, list)]
        if len(inner) != 1 or len(inner[0]) != 1:
            break
        section = inner[0][0]
    return section


def _names(pieces: list[Any]) -> list[str]:
    """The texts, A and B, and the special tokens of a template, in their order."""
    inner = [value for piece in pieces if isinstance(piece, dict) for value in piece.values()]
    return [str(value.get("id")) for value in inner if isinstance(value, dict)]


@dataclass(frozen=True)
class TokenizerJson:
    """What a tokenizer.json holds: ids of the symbols, pairs in the order in which they merge, and
    tokens beyond the vocabulary by name."""

    encoder: dict[str, int]
    merges: list[tuple[str, str]]
    added: dict[str, int]
    path: Path
    content: Mapping[str, Any]

    def require_basic(self) -> None:
        """UserError for a setting with which transformers would make other ids than hf_basic."""
        places = (
            ("normalizer", _NORMALIZER),
            ("pre_tokenizer", _PRE_TOKENIZER),
            ("model", _MODEL),
        )
        for section, expected in places:
            found = _alone(self.content.get(section))
            found = found if isinstance(found, dict) else {"type": found}
            for key, allowed in expected.items():
                if (value := found.get(key)) not in allowed:
                    raise UserError(
                        f"{self.path}: {section}.{key} is {value!r}, which gives other ids than "
                        f"hf_basic; expected {allowed[0]!r}, or give --tokenizer=original if the "
                        "weights are OpenAI's"
                    )
        for name, row in self.added.items():
            if name not in (UNKNOWN, *SPECIALS) and row < len(self.encoder):
                raise UserError(
                    f"{self.path}: added_tokens has {name!r} (row {row}), which transformers finds "
                    "in texts before it looks at the vocabulary, so that ids would differ; take it "
                    "out of the added tokens if the weights were trained without it"
                )
        # Truncation and padding change no ids: transformers sets them anew at each call.
        self._require_no_foreign_frame()

    def _require_no_foreign_frame(self) -> None:
        """A post-processor may add the special tokens that a head of ours reads, nothing else."""
        frame = _alone(self.content.get("post_processor"))
        if frame is None:
            return
        kind = frame.get("type") if isinstance(frame, dict) else frame
        special = frame.get("special_tokens") if kind == "TemplateProcessing" else None
        if not isinstance(special, dict) or not set(special) <= set(SPECIALS):
            raise UserError(
                f"{self.path}: the post_processor {kind!r} adds tokens to every text, which is not "
                "done here; remove it from the file if the weights were trained without it"
            )
        for key, expected in _FRAMES.items():
            pieces = frame.get(key)
            found = _names(pieces if isinstance(pieces, list) else [])
            if set(found) & set(SPECIALS) and found != expected:
                raise UserError(
                    f"{self.path}: post_processor.{key} is {' '.join(found)}; here a text is read "
                    f"as {' '.join(expected)}, so answers would differ"
                )
        for name, token in special.items():
            rows = token.get("ids") if isinstance(token, dict) else token
            if rows != [self.added.get(name)]:
                raise UserError(
                    f"{self.path}: post_processor.special_tokens gives {name} the rows {rows}, "
                    f"added_tokens {self.added.get(name)}; expected one row in both"
                )


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """The vocabulary in the file. Merges are pairs of symbols, or lines "left right" in files from
    before 2024. Raises UserError for any other kind of tokenizer, with the file and the key."""
    remedy = "expected the vocabulary that the weights were trained with"
    content = json_files.read(path, dict[str, Any], remedy)
    model = content.get("model")
    if not isinstance(model, dict) or model.get("end_of_word_suffix") != WORD_END:
        raise UserError(
            f"{path}: no vocabulary of GPT-1 in it; expected a model with the end_of_word_suffix "
            f"{WORD_END}"
        )
    where = f"{path}: model"
    encoder = json_files.shaped(model.get("vocab"), dict[str, int], f"{where}.vocab", remedy)
    written = json_files.shaped(
        model.get("merges"), list[str | list[str]], f"{where}.merges", remedy
    )
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in written]
    for number, pair in enumerate(merges):
        if len(pair) != 2 or not all(pair):
            raise UserError(
                f"{where}.merges[{number}] is {written[number]!r}; expected two symbols"
            )
        unknown = [symbol for symbol in (*pair, "".join(pair)) if symbol not in encoder]
        if unknown:
            raise UserError(f"{where}.merges[{number}]: {unknown[0]!r} is not in the vocabulary")
    added = {}
    tokens = json_files.shaped(
        content.get("added_tokens") or [], list[dict[str, Any]], f"{path}: added_tokens", remedy
    )
    for number, token in enumerate(tokens):
        name, index = token.get("content"), token.get("id")
        if not isinstance(name, str) or not isinstance(index, int):
            raise UserError(f"{path}: added_tokens[{number}] has no content and id; {remedy}")
        added[name] = index
    return TokenizerJson(encoder, cast(list[tuple[str, str]], merges), added, path, content)
