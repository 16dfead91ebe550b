"""Weights as they travel: parameters with all that is needed to use them, whatever the files.

The parameters are the tree of model/objective.py in float32, and every layout is a renaming of it;
here it is flat, {"h_0/attn/c_attn/kernel": array}. What a foreign layout has no place for (the
kind of tokenizer, the number of heads, the labels of a task) stands beside it in a small file.

Shapes: V rows of the token table, D width, k outputs of a head.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.data.batches import DataConfig
from gpt1_jax.data.tasks import NO_TASK, Task
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.tokenization.tokenizer_json import SPECIALS

RECORD = "gpt1.json"
_REMEDY = "expected what `train` or `convert` wrote; copy it again"


@dataclass(frozen=True)
class Weights:
    """A model that was read, or is to be written.

    params: the tree, numpy arrays in float32. config: config.json of the run that made them, or
    what it would be. source: where they come from, as the user wrote it. step: updates so far.
    task, labels: of a fine-tuned model. result: result.json of the run, if it has one.
    """

    params: dict
    model: ModelConfig
    tokenizer: Tokenizer
    config: dict
    source: str
    step: int = 0
    task: Task = NO_TASK
    labels: tuple = ()
    result: dict | None = None

    @property
    def n_outputs(self) -> int:
        """k of the head, 0 without one; 1 for multiple choice."""
        return self.params["clf"]["bias"].shape[0] if "clf" in self.params else 0

    @property
    def separator(self) -> str:
        """What stood between the documents of the training, as data.separator has it."""
        return self.config.get("data", {}).get("separator", DataConfig.separator)

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """The parameters by path, `h_0/attn/c_attn/kernel`."""
        return flatten_dict(self.params, sep="/")


def n_parameters(arrays: Mapping[str, np.ndarray]) -> int:
    return sum(array.size for array in arrays.values())


def record(weights: Weights) -> dict[str, Any]:
    """What `RECORD` says of weights in a foreign layout."""
    return {
        "tokenizer": {
            "mode": weights.tokenizer.mode,
            "fingerprint": weights.tokenizer.fingerprint,
        },
        "model": dataclasses.asdict(weights.model),
        "step": weights.step,
        "separator": weights.separator,
        "task": task_json(weights.task),
        "labels": list(weights.labels),
    }


def task_json(task: Task) -> dict | None:
    """A task as JSON has it, null for NO_TASK."""
    return dataclasses.asdict(task) if task.has_head else None


def task_of(found: dict | None, place: str) -> Task:
    """The inverse of `task_json`. UserError, which names the `place`, if it is no task."""
    return NO_TASK if found is None else json_files.shaped(found, Task, place, _REMEDY)


def model_of(found: dict, place: str) -> ModelConfig:
    """Sizes and settings from JSON. UserError, which names the `place`, if they are none."""
    return json_files.shaped(found, ModelConfig, place, _REMEDY)


class _TokenizerRecord(TypedDict):
    mode: str
    fingerprint: str


class _Record(TypedDict):
    tokenizer: _TokenizerRecord
    model: dict[str, Any]
    step: int
    separator: str
    task: dict[str, Any] | None
    labels: list[Any]


def read_record(folder: Path) -> dict[str, Any]:
    """The `RECORD` of a folder, empty where there is none: the folder was not made here."""
    path = folder / RECORD
    try:
        found = json_files.read(path, _Record, _REMEDY)
    except FileNotFoundError:
        return {}
    return {
        **found,
        "model": dataclasses.asdict(model_of(found["model"], f"{path}: model")),
        "task": task_of(found["task"], f"{path}: task"),
        "labels": tuple(found["labels"]),
    }


def tree(
    arrays: Mapping[str, np.ndarray],
    model: ModelConfig,
    task: Task,
    n_outputs: int,
    name_of: Callable[[str], str],
    where: Path,
) -> dict:
    """The parameters of a model from arrays by path, each of the shape that it must have.

    `name_of` a path is what the file calls it. Raises UserError with one line that names what is
    missing, superfluous, transposed, of another shape, or holds a number that is none.
    """
    net = network(model, "plain", task.shape, n_outputs)
    shapes = flatten_dict(jax.eval_shape(net.init, jax.random.key(0)), sep="/")
    expected = {path: leaf.shape for path, leaf in shapes.items()}
    complaints = [
        *_listed("missing", (name_of(path) for path in expected if path not in arrays)),
        *_listed("not expected", (name_of(path) for path in arrays if path not in expected)),
        *_listed(
            "of another shape",
            (
                _misshapen(name_of(path), arrays[path].shape, shape)
                for path, shape in expected.items()
                if path in arrays and arrays[path].shape != shape
            ),
        ),
    ]
    if complaints:
        raise UserError(
            f"{where} does not hold the weights of its own sizes: " + "; ".join(complaints)
        )
    for path in expected:
        if not np.isfinite(arrays[path]).all():
            raise UserError(
                f"{name_of(path)} in {where} holds numbers that are not finite (nan or inf), so "
                "these weights are of no use; take an undamaged copy"
            )
    return unflatten_dict({path: arrays[path] for path in expected}, sep="/")


def _listed(what: str, names: Iterable[str]) -> list[str]:
    """One complaint, or none; three names tell enough."""
    names = list(names)
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]


def _misshapen(name: str, found: tuple, expected: tuple) -> str:
    transposed = " (transposed)" if found == expected[::-1] else ""
    return f"{name} is {list(found)}{transposed}, expected {list(expected)}"


def token_rows(
    table: np.ndarray, tokenizer: Tokenizer, added: Mapping[str, int], where: Path
) -> tuple[np.ndarray, int, int]:
    """The token table with its rows in our order.

    `added` are the names and rows of tokens after the vocabulary. Returns the table [V, D]: the
    vocabulary, the special rows, and those that pad it, which transformers has in its softmax, so
    that they are kept; and how many special rows and how many others there are. Raises UserError if
    the vocabulary is not that of the table.
    """
    size, n_rows = tokenizer.vocab_size, len(table)
    added = {name: row for name, row in added.items() if row >= size}
    if n_rows < max(added.values(), default=size - 1) + 1:
        raise UserError(
            f"the vocabulary in {where} has {size} tokens and {len(added)} added ones, the token "
            f"table {n_rows} rows; expected the vocabulary that these weights were trained with"
        )
    present = [name for name in SPECIALS if name in added]
    if present and len(present) < len(SPECIALS):
        absent = ", ".join(name for name in SPECIALS if name not in added)
        raise UserError(
            f"{where} has a row for {', '.join(present)} but none for {absent}; expected all of "
            "start, delimiter, classify or none"
        )
    others = {name: row for name, row in added.items() if name not in SPECIALS}
    unknown = [name for name in others if "pad" not in name.lower()]
    if unknown:
        raise UserError(
            f"the token {unknown[0]} (row {others[unknown[0]]}) in {where} is neither of the "
            f"vocabulary nor one of {', '.join(SPECIALS)}; take it out of the added tokens to "
            "leave its row out"
        )
    rows = [added[name] for name in present]
    padding = [row for row in range(size, n_rows) if row not in rows]
    order = [*rows, *padding]
    if order != list(range(size, n_rows)):
        table = np.concatenate([table[:size], table[order]])
    return table, len(present), len(padding)


def without_padding(found: Weights) -> Weights:
    """The same weights without the rows of the token table that belong to no token."""
    model = dataclasses.replace(found.model, n_padding=0)
    table = found.params["wte"]["embedding"][: model.n_rows]
    params = {**found.params, "wte": {"embedding": table}}
    return dataclasses.replace(found, params=params, model=model)
