"""What is to be prepared: the settings, and the documents that they name."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.text.sources import Files, Source, Texts, TextSet, matching, text_set
from gpt1_jax.tokenization import loading, sentencepiece_bpe

# The two splits of a corpus.
TRAIN, VALID = "train", "valid"


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare, and how.

    output: the folder to make.
    inputs: globs of text files, see sources.Files; or
    tfds: a text set of TFDS, with data_dir in place of its usual folder.
    tokenizer: its mode; vocab: a folder with a trained one, used as it is; of the modes original
      and hf_basic also one with the released vocabulary, or its name on the Hub.
    vocab_size: of the one to train (sentencepiece, original); None is 40,000 (original: merges),
      less for a corpus of under 4 million characters: one for each hundred. A corpus with fewer
      possible pieces gets what there are.
    valid: globs of the validation files; they are taken out of inputs. Otherwise
    valid_fraction: of the documents, chosen by a hash of seed and name, at least one; a single
      document gives its tail; 0 gives none. None is 0.01, or the held-out split of a TFDS set.
    workers: processes; None is the number of cores.
    shard_tokens: length of a shard; the last one is shorter.
    sample_characters: the tokenizer is trained on about as much text, drawn with seed.
    """

    output: str
    inputs: tuple[str, ...] = ()
    tfds: str | None = None
    data_dir: str | None = None
    tokenizer: str = "sentencepiece"
    vocab: str | None = None
    vocab_size: int | None = None
    valid: tuple[str, ...] = ()
    valid_fraction: float | None = None
    workers: int | None = None
    runner: str = "local"
    seed: int = 0
    shard_tokens: int = 2**26
    sample_characters: int = 2**27


class Inputs(NamedTuple):
    train: Source
    valid: Source | None  # None: validation documents are taken from those of train
    fraction: float

    @property
    def fixed(self) -> bool:
        """Whether the identities of the sources tell all changes of their text."""
        return all(source.fixed for source in (self.train, self.valid) if source)

    @property
    def paths(self) -> list[Path]:
        """The user's files that are read."""
        return [path for source in (self.train, self.valid) if source for path in source.paths]


def check_config(config: PrepareConfig) -> None:
    if config.tokenizer not in loading.MODES:
        known = ", ".join(loading.MODES)
        raise UserError(f"tokenizer={config.tokenizer}: not available; expected one of: {known}")
    if config.runner != "local":
        raise UserError(f"runner={config.runner}: not available; expected: local")
    if config.tokenizer == "hf_basic" and not config.vocab:
        raise UserError(
            "tokenizer=hf_basic: needs vocab, a folder with the vocabulary of GPT-1 or a Hub name "
            "such as openai-community/openai-gpt; only sentencepiece and original can be trained"
        )
    if config.vocab and config.vocab_size is not None:
        raise UserError("vocab and vocab_size: give one; a trained tokenizer has its size")
    if config.vocab_size is not None and config.vocab_size not in sentencepiece_bpe.SIZES:
        low, high = sentencepiece_bpe.SIZES[0], sentencepiece_bpe.SIZES[-1]
        raise UserError(f"vocab_size={config.vocab_size}: expected {low} to {high}")
    if config.valid_fraction is not None and not 0 <= config.valid_fraction < 1:
        raise UserError(
            f"valid_fraction={config.valid_fraction}: expected at least 0 and less than 1"
        )
    for name in ("workers", "shard_tokens", "sample_characters"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"{name}={value}: expected at least 1")


def find_inputs(config: PrepareConfig, documents, valid_documents) -> Inputs:
    given = [bool(config.inputs), config.tfds is not None, documents is not None]
    if sum(given) != 1:
        raise UserError("expected exactly one of input (files), tfds (a text set), docs")
    held_out = [bool(config.valid), config.valid_fraction is not None, valid_documents is not None]
    if sum(held_out) > 1:
        raise UserError("valid and valid_fraction: give one of them, not both")
    valid_paths = matching(config.valid)
    paths = _without(matching(config.inputs), valid_paths)
    everything = [os.path.dirname(os.path.abspath(path)) for path in paths + valid_paths]
    root = Path(os.path.commonpath(everything)) if everything else Path()
    if documents is not None:
        train = Texts(documents)
    elif config.tfds is not None:
        train = TextSet(config.tfds, TRAIN, config.data_dir)
    else:
        train = Files(paths, root)
    valid = Files(valid_paths, root) if valid_paths else None
    if valid_documents is not None:
        valid = Texts(valid_documents)
    elif config.tfds is not None and not any(held_out):
        valid = TextSet(config.tfds, text_set(config.tfds)[1], config.data_dir)
    fraction = 0.01 if config.valid_fraction is None else config.valid_fraction
    return Inputs(train, valid, fraction)


def _without(paths: list[Path], valid_paths: list[Path]) -> list[Path]:
    held_out = {path.resolve() for path in valid_paths}
    kept = [path for path in paths if path.resolve() not in held_out]
    if paths and not kept:
        raise UserError("valid matches all input files; none is left to train on")
    if len(kept) < len(paths):
        say(f"{len(paths) - len(kept)} input files are validation files, kept out of training")
    return kept
