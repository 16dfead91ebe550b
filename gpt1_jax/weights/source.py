"""Weights of any layout, read: the parameters, the model and the tokenizer of a source.

    openai:D       the released arrays and vocabulary (openai.py)
    hf:D, hf:NAME  a folder of transformers, or a model on the Hub (huggingface.py)
    native:D, D    a workdir (workdir.py)

Parameters stay what they are, bit for bit in float32. Neither torch nor TensorFlow takes part, and
nothing that is read is ever executed: a pickle is refused with the way out.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt1_jax import disk
from gpt1_jax.data.tasks import NO_TASK, Task
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.storage.places import here
from gpt1_jax.tokenization import loading, sentencepiece_bpe
from gpt1_jax.tokenization.sentencepiece_bpe import SentencePieceTokenizer
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.tokenization.tokenizer_json import SPECIALS
from gpt1_jax.weights import (
    huggingface,
    huggingface_heads,
    huggingface_tokenizer,
    openai,
    weights,
    workdir,
)
from gpt1_jax.weights.weights import Weights

FORMATS = ("openai", "hf", "native")
# How the text of foreign weights is made into ids, where nothing says it.
DEFAULT_MODES = {"openai": "original", "hf": "hf_basic"}
# Of one example, where no file says how many there are.
MOST_CHOICES = 100
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".jl", ".joblib", ".ckpt", ".h5")


def parse_source(source: str | Path) -> tuple[str, str]:
    """The format and the folder (or name) of `openai:D`, `hf:D`, `native:D` or a plain workdir."""
    kind, colon, rest = str(source).partition(":")
    if not colon or rest.startswith("//") or "/" in kind:
        kind, rest = "native", str(source)
    if kind not in FORMATS and Path(source).expanduser().exists():
        kind, rest = "native", str(source)  # a run may be called 12:30
    if kind not in FORMATS:
        raise UserError(f"{source}: unknown format {kind!r}; expected openai:D, hf:D or native:D")
    if not rest:
        raise UserError(f"{source}: no folder after the colon")
    if rest.endswith(_PICKLES):
        raise UserError(f"{rest}: {huggingface.way_out(rest)}")
    return kind, rest


def absolute_source(source: str | None) -> str | None:
    """A source as it is found from any folder; names on the Hub and of object stores stay."""
    if source is None:
        return None
    kind, name = parse_source(source)
    folder = Path(name).expanduser()
    if "://" in name or (kind == "hf" and not folder.exists()):
        return source
    prefix = "" if kind == "native" else f"{kind}:"
    return prefix + str(folder.absolute())


def read_weights(
    source: str | Path,
    tokenizer: str | None = None,
    step: int | None = None,
    for_task: bool = False,
) -> Weights:
    """The weights of a source (see the module).

    `tokenizer` is the mode of foreign weights, by default what `convert` recorded, else `original`
    for openai: and `hf_basic` for hf:; `step` chooses a checkpoint of a workdir; `for_task`: the
    head is what is wanted, so one that cannot be used is refused rather than left out. Raises
    UserError, in one line, for whatever is missing, damaged, of other sizes or does not fit
    together.
    """
    kind, name = parse_source(source)
    disk.require_text_name(Path(name).absolute(), str(source), "rename the folder")
    if kind == "native":
        found = workdir.read_workdir(here(name), step)
        _check_mode(found.tokenizer.mode, tokenizer, str(source))
        return dataclasses.replace(found, source=str(source))
    if step is not None:
        raise UserError(f"--step={step} chooses a checkpoint of a workdir; {source} has no steps")
    if kind == "openai":
        return _read_openai(here(name), str(source), tokenizer, for_task)
    return _read_huggingface(huggingface.folder_of(name), str(source), tokenizer, for_task)


def _check_mode(recorded: str, asked: str | None, source: str) -> None:
    if asked not in (None, recorded):
        raise UserError(
            f"--tokenizer={asked}, but {source} was trained with {recorded}; leave it out, ids of "
            "two tokenizers never meet"
        )


@dataclass
class _Foreign:
    """What a foreign folder holds. arrays: by our names. added: rows of tokens beyond the
    vocabulary. record: what `convert` wrote beside them, empty if it did not make the folder.
    task, labels: of the head, if there is one. name_of: what the folder calls an array."""

    folder: Path
    source: str
    arrays: dict[str, np.ndarray]
    model: ModelConfig
    tokenizer: Tokenizer
    added: Mapping[str, int]
    record: Mapping[str, Any]
    task: Task
    labels: tuple[str | int, ...]
    name_of: Callable[[str], str]


def _read_openai(folder: Path, source: str, asked: str | None, for_task: bool) -> Weights:
    if not (folder / openai.SHAPES).exists():
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix in _PICKLES:
                raise UserError(f"{path}: {huggingface.way_out(path.name)}")
    record = weights.read_record(folder)
    arrays, sizes = openai.read_arrays(folder)
    text = _tokenizer(folder, source, record, asked)
    n_rows = len(arrays["wte/embedding"]) - record.get("model", {}).get("n_padding", 0)
    special = n_rows == text.vocab_size + len(SPECIALS)
    added = {name: text.vocab_size + i for i, name in enumerate(SPECIALS) if special}
    if n_rows != text.vocab_size + len(added):
        raise UserError(
            f"the vocabulary in {folder} has {text.vocab_size} tokens, the weights {n_rows}; "
            "expected the vocabulary that they were trained with"
        )
    if record:
        model = _recorded(record, sizes, record["model"], folder / openai.SHAPES)
    else:
        n_head = openai.n_head(sizes["n_embd"], folder)
        model = _model({**sizes, "n_head": n_head}, folder / openai.SHAPES)
    task, labels = _openai_task(len(arrays.get("clf/bias", ())))
    name_of = openai.name_of
    found = _Foreign(folder, source, arrays, model, text, added, record, task, labels, name_of)
    return _assembled(found, for_task)


def _openai_task(n_outputs: int) -> tuple[Task, tuple[int, ...]]:
    """What a head of so many outputs is for; the layout has no place for names."""
    if n_outputs == 0:
        return NO_TASK, ()
    if n_outputs == 1:
        return Task("multiple_choice", "multiple_choice", "accuracy"), tuple(range(MOST_CHOICES))
    return Task("classification", "classification", "accuracy"), tuple(range(n_outputs))


def _read_huggingface(folder: Path, source: str, asked: str | None, for_task: bool) -> Weights:
    config = huggingface.read_config(folder)
    record = weights.read_record(folder)
    sizes = huggingface.sizes(config)
    path = folder / huggingface.CONFIG
    if record:
        known = huggingface.own_sizes(_model(record["model"], folder / weights.RECORD))
        model = _recorded(record, sizes, known, path)
    else:
        model = _model(sizes, path)
    arrays, shape = huggingface.read_arrays(folder, model.n_layer)
    text = _tokenizer(folder, source, record, asked)
    added = huggingface_tokenizer.added_tokens(folder)
    n_outputs = len(arrays.get("clf/bias", ()))
    task, labels = NO_TASK, ()
    if not record:
        task, labels = huggingface_heads.foreign_task(
            config, shape, n_outputs, MOST_CHOICES, added, path
        )
    name_of = huggingface.name_of
    found = _Foreign(folder, source, arrays, model, text, added, record, task, labels, name_of)
    return _assembled(found, for_task)


def _model(sizes: Mapping[str, Any], path: Path) -> ModelConfig:
    """The model of the sizes that a file gives. UserError, with the file, for absurd ones."""
    try:
        return ModelConfig(**sizes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recorded(record: dict, sizes: dict, known: dict, path: Path) -> ModelConfig:
    """The model that `convert` wrote down, if the sizes in the folder are still its own."""
    model = _model(record["model"], path.parent / weights.RECORD)
    for name, value in sizes.items():
        if value != known[name]:
            raise UserError(
                f"{path} says {name} {value}, {weights.RECORD} beside it {known[name]}; expected "
                "the two as `convert` wrote them"
            )
    return model


def _assembled(found: _Foreign, for_task: bool) -> Weights:
    """Weights with their shapes checked and the special rows in their places."""
    arrays, record, folder = found.arrays, found.record, found.folder
    table, n_special, n_padding = weights.token_rows(
        arrays["wte/embedding"], found.tokenizer, found.added, folder
    )
    if n_padding:
        say(f"{folder}: {n_padding} row(s) of the token table belong to no token")
    arrays["wte/embedding"] = table
    task, labels = found.task, found.labels
    if record:
        task, labels = record["task"], record["labels"]
    elif not n_special:
        task, labels = NO_TASK, ()
    if not task.has_head:
        dropped = [arrays.pop(path) for path in ("clf/kernel", "clf/bias") if path in arrays]
        without = f"it has no rows {', '.join(SPECIALS)}, between which a head reads its text here"
        if dropped and for_task:
            raise UserError(f"{folder}: its head cannot answer, because {without}")
        if dropped:
            say(f"{folder}: its head is left out, because {without}")
    elif "clf/bias" not in arrays:
        raise UserError(
            f"{folder} has no "
            + (
                f"head, but {weights.RECORD} says it is for {task.name}"
                if record
                else "multiple_choice_head.summary.bias beside the weight; copy it again"
            )
        )
    n_outputs = len(arrays["clf/bias"]) if task.has_head else 0
    vocab_size = found.tokenizer.vocab_size
    model = dataclasses.replace(
        found.model, vocab_size=vocab_size, n_special=n_special, n_padding=n_padding
    )
    config = workdir.foreign_config(
        model, found.tokenizer, task, labels, n_outputs, record.get("separator"), found.source
    )
    return Weights(
        params=weights.tree(arrays, model, task, n_outputs, found.name_of, folder),
        model=model,
        tokenizer=found.tokenizer,
        config=config,
        source=found.source,
        step=record.get("step", 0),
        task=task,
        labels=labels,
    )


def _tokenizer(folder: Path, source: str, record: dict, asked: str | None) -> Tokenizer:
    """The tokenizer of a foreign folder, in the mode that was recorded, asked for or usual."""
    kept = record.get("tokenizer", {})
    if kept:
        _check_mode(kept["mode"], asked, source)
    mode = kept.get("mode") or asked or DEFAULT_MODES[source.partition(":")[0]]
    path = folder / sentencepiece_bpe.MODEL
    if mode == "sentencepiece":
        if not path.is_file():
            raise UserError(f"{path} is missing; the weights were trained with sentencepiece")
        found = SentencePieceTokenizer(path.read_bytes())
    else:
        found = loading.from_vocabulary(folder, mode)
    if kept and found.fingerprint != kept["fingerprint"]:
        raise UserError(
            f"the vocabulary in {folder} is not the one that these weights were trained with "
            f"({found.fingerprint[:12]}, expected {kept['fingerprint'][:12]}); copy it again"
        )
    return found
