"""A tokenizer from a folder or a vocabulary, whatever its mode."""

import os
from pathlib import Path
from typing import NotRequired, get_args

from typing_extensions import TypedDict

from gpt1_jax import disk, json_files
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.storage.places import here, is_url
from gpt1_jax.tokenization import vocabulary
from gpt1_jax.tokenization.gpt1_bpe import BasicTokenizer, OriginalTokenizer, VocabularyTokenizer
from gpt1_jax.tokenization.sentencepiece_bpe import MODEL, SentencePieceTokenizer
from gpt1_jax.tokenization.tokenizer import DESCRIPTION, Mode, Tokenizer
from gpt1_jax.tokenization.tokenizer_json import FILE, read_tokenizer_json

MODES: tuple[Mode, ...] = get_args(Mode)


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
    source = here(source) if is_url(source) else source
    inside = Path(source).expanduser() / "tokenizer"
    folder = inside if inside.is_dir() else Path(source).expanduser()
    made = _OF_VOCABULARY[mode](vocabulary.read(inside if inside.is_dir() else source))
    # One of ours, which describes a tokenizer in another way, has the same name.
    if (folder / FILE).is_file() and not (folder / vocabulary.ENCODER).exists():
        whole = read_tokenizer_json(folder / FILE)
        if (whole.encoder, whole.merges) != (made.encoder, made.merges):
            raise UserError(
                f"{folder / FILE} has other symbols or merges than the vocabulary beside it; "
                "remove whichever is not of these weights"
            )
        if mode == "hf_basic":
            whole.require_basic()
    return made


_OF_VOCABULARY = {"original": OriginalTokenizer, "hf_basic": BasicTokenizer}


class Description(TypedDict):
    """What a saved tokenizer says of itself."""

    mode: str
    fingerprint: str
    versions: NotRequired[dict[str, str]]


def load(folder: str | os.PathLike) -> Tokenizer:
    """The tokenizer saved in `folder`, or in its subfolder `tokenizer` (prepared data, a run).

    Raises:
      UserError: no tokenizer there, one of another mode, or files that were changed.
    """
    given, folder = folder, here(folder)
    if not (folder / DESCRIPTION).is_file():
        folder = folder / "tokenizer"
    try:
        description = json_files.read(folder / DESCRIPTION, Description, "copy the folder again")
        mode, fingerprint = description["mode"], description["fingerprint"]
    except FileNotFoundError:
        raise UserError(
            f"{given}: no tokenizer here; expected a folder with {DESCRIPTION}, as prepare makes it"
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
        say(f"{folder}: made with {then}, here is {now}; ids may differ")
    return tokenizer


def _loaded_sentencepiece(folder: Path) -> SentencePieceTokenizer:
    try:
        return SentencePieceTokenizer(disk.content(folder / MODEL))
    except FileNotFoundError:
        raise UserError(f"{folder / MODEL}: missing") from None
    except OSError as error:
        raise UserError(f"{folder / MODEL}: cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"{folder / MODEL}: {error}") from None
