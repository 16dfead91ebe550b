"""Weights in every direction: from any layout (source.py) to any, as new folders."""

import shutil
import time
from pathlib import Path
from typing import cast

from gpt1_jax.disk import new_folder, require_new, write_json
from gpt1_jax.errors import UserError
from gpt1_jax.messages import amount, say
from gpt1_jax.storage import places
from gpt1_jax.tokenization.gpt1_bpe import VocabularyTokenizer
from gpt1_jax.weights import (
    huggingface,
    huggingface_heads,
    huggingface_tokenizer,
    model_card,
    openai,
    released,
    space,
    weights,
    workdir,
)
from gpt1_jax.weights.source import parse_source, read_weights
from gpt1_jax.weights.weights import Weights


def write_weights(found: Weights, target: str) -> None:
    """Writes a new folder, whole or not at all; what is there already is never overwritten.

    Raises UserError for a model that the layout cannot represent, with the reason.
    """
    kind, folder = _target(target)
    require_new(folder)
    _check_fits(kind, folder, found)
    with new_folder(folder, "--to") as temporary, space.as_user_error(folder):
        _WRITERS[kind](found, temporary)


def _target(target: str) -> tuple[str, Path]:
    """The format and the folder of a target."""
    kind, name = parse_source(target)
    return kind, Path(name).expanduser().absolute()


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
        raise UserError(f"{made} has {amount(free)} free, the weights take {amount(needed)}")


def _write_openai(found: Weights, folder: Path) -> None:
    openai.write_arrays(found.flat, found.model.n_layer, folder)
    if found.tokenizer.mode == "sentencepiece":
        found.tokenizer.save(folder)
    else:
        names = openai.VOCABULARY
        vocabulary = cast(VocabularyTokenizer, found.tokenizer)
        huggingface_tokenizer.write_vocabulary(vocabulary, folder, names)
    write_json(folder / weights.RECORD, weights.record(found))


def _write_huggingface(found: Weights, folder: Path) -> None:
    huggingface.write_model(found, folder)
    huggingface_tokenizer.write_tokenizer(found, folder)
    model_card.write_card(found, huggingface_heads.architecture(found), folder)
    write_json(folder / weights.RECORD, weights.record(found))


_WRITERS = {
    "openai": _write_openai,
    "hf": _write_huggingface,
    "native": workdir.write_workdir,
}


def convert(
    source: str, target: str, tokenizer: str | None = None, step: int | None = None
) -> dict:
    """Reads weights from `source` and writes them to `target`; returns what they are. Of arrays in
    OpenAI's layout and size it says whether they are OpenAI's own (`released`)."""
    began = time.monotonic()
    if parse_source(target) == ("native", target):
        raise UserError(f"--to={target}: no format; expected openai:D, hf:D or native:D")
    kind, name = parse_source(target)
    if kind == "native" and places.is_url(name):
        raise UserError(f"--to={target}: only openai: and hf: are written there; give native:D")
    with places.output(name, new=True) as folder:
        require_new(folder.absolute())
        found = read_weights(source, tokenizer, step)
        n_parameters = weights.n_parameters(found.flat)
        known = {}
        made, place = parse_source(source)
        if made == "openai" and n_parameters == released.N_PARAMETERS:
            known["released"], line = released.verdict(places.here(place))
            say(line)
        write_weights(found, f"{kind}:{folder}")
    say(f"tokenizer: {found.tokenizer.mode} ({found.tokenizer.fingerprint[:12]})")
    return {
        "from": source,
        "to": target,
        "parameters": n_parameters,
        **known,
        "step": found.step,
        "tokenizer": found.tokenizer.mode,
        "fingerprint": found.tokenizer.fingerprint,
        "task": found.task.name if found.task.has_head else None,
        "seconds": time.monotonic() - began,
    }
