"""Weights in every direction: OpenAI's arrays, folders of transformers, workdirs.

    openai:D       the released arrays and vocabulary (openai.py)
    hf:D, hf:NAME  a folder of transformers, or a model on the Hub (huggingface.py)
    native:D, D    a workdir (workdir.py)

Parameters stay what they are, bit for bit in float32. Neither torch nor TensorFlow takes part, and
nothing that is read is ever executed: a pickle is refused with the way out.
"""

import dataclasses
import shutil
import sys
import tempfile
import time
from pathlib import Path

from gpt1_jax.data.tasks import NO_TASK, Task
from gpt1_jax.disk import write_json
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.tokenization import loading, sentencepiece_bpe
from gpt1_jax.tokenization.sentencepiece_bpe import SentencePieceTokenizer
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.weights import (
    huggingface,
    huggingface_heads,
    huggingface_tokenizer,
    model_card,
    openai,
    weights,
    workdir,
)
from gpt1_jax.weights.weights import SPECIALS, Weights

FORMATS = ("openai", "hf", "native")
# How the text of foreign weights is made into ids, where nothing says it.
DEFAULT_MODES = {"openai": "original", "hf": "hf_basic"}
# Of one example, where no file says how many there are.
MOST_CHOICES = 100
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".jl", ".joblib", ".ckpt", ".h5")


def parse(source: str | Path) -> tuple[str, str]:
    """The format and the folder (or name) of `openai:D`, `hf:D`, `native:D` or a plain workdir."""
    kind, colon, rest = str(source).partition(":")
    if not colon or rest.startswith("//") or "/" in kind:
        kind, rest = "native", str(source)
    if kind not in FORMATS:
        raise UserError(f"{source}: unknown format {kind!r}; expected openai:D, hf:D or native:D")
    if not rest:
        raise UserError(f"{source}: no folder after the colon")
    if rest.endswith(_PICKLES):
        raise UserError(f"{rest}: {huggingface.way_out(rest)}")
    return kind, rest


def absolute(source: str | None) -> str | None:
    """A source as it is found from any folder; names on the Hub and of object stores stay."""
    if source is None:
        return None
    kind, name = parse(source)
    folder = Path(name).expanduser()
    if "://" in name or (kind == "hf" and not folder.exists()):
        return source
    prefix = "" if kind == "native" else f"{kind}:"
    return prefix + str(folder.absolute())


def read(source: str | Path, tokenizer: str | None = None, step: int | None = None) -> Weights:
    """The weights of a source (see the module).

    `tokenizer` is the mode of foreign weights, by default what `convert` recorded, else `original`
    for openai: and `hf_basic` for hf:; `step` chooses a checkpoint of a workdir. Raises UserError,
    in one line, for whatever is missing, damaged, of other sizes or does not fit together.
    """
    kind, name = parse(source)
    if kind == "native":
        found = workdir.read(Path(name).expanduser(), step)
        _check_mode(found.tokenizer.mode, tokenizer, str(source))
        return dataclasses.replace(found, source=str(source))
    if step is not None:
        raise UserError(f"--step={step} chooses a checkpoint of a workdir; {source} has no steps")
    if kind == "openai":
        return _read_openai(Path(name).expanduser(), str(source), tokenizer)
    return _read_huggingface(huggingface.folder_of(name), str(source), tokenizer)


def _check_mode(recorded: str, asked: str | None, source: str) -> None:
    if asked not in (None, recorded):
        raise UserError(
            f"--tokenizer={asked}, but {source} was trained with {recorded}; leave it out, ids of "
            "two tokenizers never meet"
        )


def _read_openai(folder: Path, source: str, asked: str | None) -> Weights:
    if not (folder / openai.SHAPES).exists():
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            if path.suffix in _PICKLES:
                raise UserError(f"{path}: {huggingface.way_out(path.name)}")
    record = weights.read_record(folder)
    arrays, sizes = openai.read(folder)
    text = _tokenizer(folder, source, record, asked, openai.VOCABULARY)
    n_rows = len(arrays["wte/embedding"])
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
        heads = openai.n_head(sizes["n_embd"], folder)
        model = ModelConfig(**sizes, n_head=heads)
    shape, labels = None, ()
    if "clf/bias" in arrays:
        n_outputs = len(arrays["clf/bias"])
        shape = "multiple_choice" if n_outputs == 1 else "classification"
        labels = tuple(range(n_outputs)) if n_outputs > 1 else ()
    return _assembled(
        arrays, model, text, added, record, shape, labels, openai.name_of, folder, source
    )


def _read_huggingface(folder: Path, source: str, asked: str | None) -> Weights:
    config = huggingface.read_config(folder)
    record = weights.read_record(folder)
    sizes = huggingface.sizes(config)
    if record:
        known = huggingface.own_sizes(ModelConfig(**record["model"]))
        model = _recorded(record, sizes, known, folder / huggingface.CONFIG)
    else:
        model = ModelConfig(**sizes)
    arrays, shape = huggingface.read(folder, model.n_layer)
    if "wte/embedding" not in arrays:
        raise UserError(f"{folder} has no tokens_embed.weight; expected the weights of GPT-1")
    text = _tokenizer(folder, source, record, asked, huggingface_tokenizer.VOCABULARY)
    added = huggingface_tokenizer.added_tokens(folder)
    labels = tuple(config.get("id2label", {}).values()) if shape == "classification" else ()
    return _assembled(
        arrays,
        model,
        text,
        added,
        record,
        shape,
        labels,
        huggingface.name_of,
        folder,
        source,
    )


def _recorded(record: dict, sizes: dict, known: dict, path: Path) -> ModelConfig:
    """The model that `convert` wrote down, if the sizes in the folder are still its own."""
    model = ModelConfig(**record["model"])
    for name, value in sizes.items():
        if value != known[name]:
            raise UserError(
                f"{path} says {name} {value}, {weights.RECORD} beside it {known[name]}; expected "
                "the two as `convert` wrote them"
            )
    return model


def _assembled(
    arrays, model, tokenizer, added, record, shape, labels, name_of, folder, source
) -> Weights:
    """Weights from arrays by path, their shapes checked, special rows in their places."""
    table, n_special, said = weights.token_rows(arrays["wte/embedding"], tokenizer, added, folder)
    if said:
        print(said, file=sys.stderr)
    arrays["wte/embedding"] = table
    task = record.get("task", NO_TASK)
    if not record and shape and n_special:
        task = Task(name=shape, shape=shape, metric="accuracy")
        labels = labels or tuple(range(MOST_CHOICES))
    if not task.has_head:
        dropped = [arrays.pop(path) for path in ("clf/kernel", "clf/bias") if path in arrays]
        if dropped:
            print(
                f"{folder}: its head is left out, because it has no rows {', '.join(SPECIALS)} "
                "that it could be read at",
                file=sys.stderr,
            )
    elif "clf/bias" not in arrays:
        raise UserError(f"{folder} has no head, but {weights.RECORD} says it is for {task.name}")
    n_outputs = len(arrays["clf/bias"]) if task.has_head else 0
    model = dataclasses.replace(model, vocab_size=tokenizer.vocab_size, n_special=n_special)
    params = weights.tree(arrays, model, task, n_outputs, name_of, folder)
    labels = record.get("labels", labels)
    config = workdir.foreign_config(
        model, tokenizer, task, labels, n_outputs, record.get("separator"), source
    )
    return Weights(
        params=params,
        model=model,
        tokenizer=tokenizer,
        config=config,
        source=source,
        step=record.get("step", 0),
        task=task,
        labels=labels,
    )


def _tokenizer(
    folder: Path, source: str, record: dict, asked: str | None, names: tuple[str, str]
) -> Tokenizer:
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
    elif names != huggingface_tokenizer.VOCABULARY or huggingface_tokenizer.has_vocabulary(folder):
        found = loading.from_vocabulary(folder, mode)
    else:
        with tempfile.TemporaryDirectory() as unpacked:
            huggingface_tokenizer.unpack(folder, Path(unpacked))
            found = loading.from_vocabulary(unpacked, mode)
    if kept and found.fingerprint != kept["fingerprint"]:
        raise UserError(
            f"the vocabulary in {folder} is not the one that these weights were trained with "
            f"({found.fingerprint[:12]}, expected {kept['fingerprint'][:12]}); copy it again"
        )
    return found


def write(found: Weights, target: str) -> None:
    """Writes a new folder, whole or not at all; what is there already is never overwritten.

    Raises UserError for a model that the layout cannot represent, with the reason.
    """
    kind, folder = _new_folder(target)
    _check_fits(kind, folder, found)
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _WRITERS[kind](found, temporary)
        temporary.replace(folder)
    except OSError as error:
        raise UserError(f"--to={target} cannot be written: {error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _new_folder(target: str) -> tuple[str, Path]:
    """The format and the folder of a target, which must be new or empty."""
    kind, name = parse(target)
    folder = Path(name).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already; choose a new or an empty folder")
    return kind, folder


def _check_fits(kind: str, folder: Path, found: Weights) -> None:
    """What can be known before the first byte."""
    if kind != "native" and found.model.body != "transformer":
        raise UserError(
            f"{found.source} is an LSTM, for which {kind}: has no form; only native:D takes it"
        )
    if kind == "hf":
        huggingface_heads.architecture(found)
    needed = 4 * weights.n_parameters(found.flat)
    made = next(place for place in folder.parents if place.exists())
    if (free := shutil.disk_usage(made).free) < needed:
        raise UserError(
            f"{made} has {free / 1e9:.2f} GB free, the weights take {needed / 1e9:.2f} GB"
        )


def _write_openai(found: Weights, folder: Path) -> None:
    openai.write(found.flat, found.model.n_layer, folder)
    if found.tokenizer.mode == "sentencepiece":
        found.tokenizer.save(folder)
    else:
        names = openai.VOCABULARY
        huggingface_tokenizer.write_vocabulary(found.tokenizer, folder, names)
    write_json(folder / weights.RECORD, weights.record(found))


def _write_huggingface(found: Weights, folder: Path) -> None:
    huggingface.write(found, folder)
    huggingface_tokenizer.write(found.tokenizer, found.model.n_special, found.model.n_ctx, folder)
    model_card.write(found, huggingface_heads.architecture(found), folder)
    write_json(folder / weights.RECORD, weights.record(found))


_WRITERS = {
    "openai": _write_openai,
    "hf": _write_huggingface,
    "native": workdir.write,
}


def convert(
    source: str, target: str, tokenizer: str | None = None, step: int | None = None
) -> dict:
    """Reads weights from `source` and writes them to `target`; returns what they are."""
    began = time.monotonic()
    if parse(target) == ("native", target):
        raise UserError(f"--to={target}: no format; expected openai:D, hf:D or native:D")
    _new_folder(target)
    found = read(source, tokenizer, step)
    write(found, target)
    print(
        f"tokenizer: {found.tokenizer.mode} ({found.tokenizer.fingerprint[:12]})", file=sys.stderr
    )
    return {
        "from": source,
        "to": target,
        "parameters": weights.n_parameters(found.flat),
        "step": found.step,
        "tokenizer": found.tokenizer.mode,
        "fingerprint": found.tokenizer.fingerprint,
        "task": found.task.name if found.task.has_head else None,
        "seconds": time.monotonic() - began,
    }
