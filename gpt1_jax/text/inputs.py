"""The documents that the settings of `prepare` name."""

import os
from pathlib import Path
from typing import NamedTuple

from gpt1_jax.errors import UserError
from gpt1_jax.messages import tell
from gpt1_jax.text.config import VALID_FRACTION, PrepareConfig
from gpt1_jax.text.sources import Files, Source, Texts, TextSet, matching, text_set
from gpt1_jax.tokenization import sentencepiece_bpe

# The two splits of a corpus.
TRAIN, VALID = "train", "valid"


class Inputs(NamedTuple):
    train: Source
    valid: Source | None  # None: validation documents are taken from those of train
    fraction: float

    @property
    def fixed(self) -> bool:
        """Whether the identities of the sources tell all changes of their text."""
        return all(source.fixed for source in (self.train, self.valid) if source)

    @property
    def splits(self) -> list[str]:
        """Those that are made of them."""
        return [TRAIN, VALID] if self.valid or self.fraction > 0 else [TRAIN]

    @property
    def chance(self) -> float:
        """Of a document of `train` to be chosen for validation."""
        return 0.0 if self.valid else self.fraction

    @property
    def units(self) -> "list[Unit]":
        """All documents in parts that can be read on their own, in order."""
        train = [Unit(source, False) for source in self.train.units]
        return train + [Unit(source, True) for source in (self.valid.units if self.valid else [])]

    @property
    def paths(self) -> list[Path]:
        """The user's files that are read."""
        return [path for source in (self.train, self.valid) if source for path in source.paths]


class Unit(NamedTuple):
    """Documents of one source, and whether all of them are for validation."""

    source: Source
    held_out: bool


def check_config(config: PrepareConfig) -> None:
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
    if config.runner == "beam" and not config.inputs:
        raise UserError("runner=beam divides files; give --input")
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
        train = Files(paths, root, config.text_key)
    valid = Files(valid_paths, root, config.text_key) if valid_paths else None
    if config.text_key is not None and not any(
        isinstance(source, Files) and source.n_tables for source in (train, valid)
    ):
        raise UserError(f"--text_key={config.text_key}: no table is among the files")
    if valid_documents is not None:
        valid = Texts(valid_documents)
    elif config.tfds is not None and not any(held_out):
        valid = TextSet(config.tfds, text_set(config.tfds)[1], config.data_dir)
    fraction = VALID_FRACTION if config.valid_fraction is None else config.valid_fraction
    return Inputs(train, valid, fraction)


def _without(paths: list[Path], valid_paths: list[Path]) -> list[Path]:
    if not valid_paths:
        return paths
    held_out = {path.resolve() for path in valid_paths}
    kept = [path for path in paths if path.resolve() not in held_out]
    if paths and not kept:
        raise UserError("valid matches all input files; none is left to train on")
    if len(kept) < len(paths):
        tell(f"{len(paths) - len(kept)} input files are validation files, kept out of training")
    return kept
