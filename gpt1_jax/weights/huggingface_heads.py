"""The head of a fine-tuned model in transformers: which can be represented, and how.

    multiple_choice           OpenAIGPTDoubleHeadsModel: multiple_choice_head.summary, one output
                              with its bias, read at mc_token_ids, the places of the classify tokens
    classification,           OpenAIGPTForSequenceClassification: score, k outputs without a bias,
    entailment                read at the last token that is not padding, which is the classify
                              token; a bias is folded into the kernel (see `folded`)
    similarity                none: one answer is read off the sum of the states of two sequences,
                              and no class of transformers looks at two

Both are transposed: [k, D] where the kernel is [D, k].

Folding. The state that a head reads is the output of a LayerNorm, h = g * x + b, where x has mean
zero. Therefore sum(h / g) is the same for every input, namely c = sum(b / g), and

    h . W + a  =  h . (W + (1 / g) a / c)

holds exactly, whatever the text. The body and its language model stay as they are, bit for bit.
Rounding grows with 1 / c, so a norm without a shift to speak of leaves no place for a bias. The
head as it was goes into a file beside the model, so that it comes back bit for bit.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt1_jax.data.tasks import NO_TASK, Shape, Task
from gpt1_jax.errors import UserError
from gpt1_jax.tokenization.tokenizer_json import SPECIALS
from gpt1_jax.weights.weights import Weights

LANGUAGE_MODEL = "OpenAIGPTLMHeadModel"
DOUBLE_HEADS = "OpenAIGPTDoubleHeadsModel"
CLASSIFIER = "OpenAIGPTForSequenceClassification"
ORIGINAL = "gpt1.safetensors"

_CHOICE = {
    "clf/kernel": "multiple_choice_head.summary.weight",
    "clf/bias": "multiple_choice_head.summary.bias",
}
_SCORE = "score.weight"
# Logits may differ by this through folding, as they do through other orders of summation.
_TOLERANCE = 1e-5


def architecture(weights: Weights) -> str:
    """The class of transformers that represents the model; UserError with the reason if none."""
    if not weights.task.has_head:
        return LANGUAGE_MODEL
    if weights.task.shape == "multiple_choice":
        return DOUBLE_HEADS
    if weights.task.shape == "similarity":
        raise UserError(
            f"{weights.source} is fine-tuned on a similarity, whose answer is read off the sum of "
            "the states of both orders; no model of transformers does that"
        )
    if folded(weights.flat, weights.model.n_layer) is None:
        raise UserError(
            f"the classifier of {weights.source} has a bias, the one of transformers has none, and "
            "the last norm has no shift to fold it into, so its logits would differ"
        )
    return CLASSIFIER


def folded(flat: Mapping[str, np.ndarray], n_layer: int) -> np.ndarray | None:
    """The kernel [D, k] that does the work of kernel and bias; None where rounding would show."""
    kernel, bias = flat["clf/kernel"], flat["clf/bias"]
    if not bias.any():
        return kernel
    norm = f"h_{n_layer - 1}/ln_2"
    gain, shift = (flat[f"{norm}/{leaf}"].astype(np.float64) for leaf in ("scale", "bias"))
    if not gain.all():
        return None
    ratio = shift / gain
    constant = ratio.sum()
    # Of the sum that stands for the constant: float32 rounds each of its terms.
    error = np.finfo(np.float32).eps * np.sqrt(1 + ratio**2).sum() * np.abs(bias).max()
    if error >= _TOLERANCE * abs(constant):
        return None
    return (kernel + np.outer(1 / gain, bias / constant)).astype(np.float32)


def tensors(weights: Weights) -> dict[str, np.ndarray]:
    """The head under the names of transformers."""
    kind, flat = architecture(weights), weights.flat
    if kind == LANGUAGE_MODEL:
        return {}
    if kind == CLASSIFIER:
        return {_SCORE: np.ascontiguousarray(folded(flat, weights.model.n_layer).T)}
    return {name: np.ascontiguousarray(flat[path].T) for path, name in _CHOICE.items()}


def original(weights: Weights) -> dict[str, np.ndarray]:
    """The head as it is, where transformers gets it folded."""
    if architecture(weights) != CLASSIFIER or not weights.params["clf"]["bias"].any():
        return {}
    return {path: np.ascontiguousarray(weights.flat[path]) for path in _CHOICE}


def restore(
    arrays: dict[str, np.ndarray], kept: Mapping[str, np.ndarray], n_layer: int, folder: Path
) -> Shape | None:
    """Gives the head among arrays our names and form, and says the shape of its task.

    `kept` is what was `original`. Raises UserError if that is another head.
    """
    if _SCORE in arrays:
        score = np.ascontiguousarray(arrays.pop(_SCORE).T)
        arrays |= {"clf/kernel": score, "clf/bias": np.zeros(score.shape[-1], np.float32)}
        if kept and f"h_{n_layer - 1}/ln_2/bias" in arrays:
            arrays |= kept
            made = folded(arrays, n_layer)
            if made is None or made.shape != score.shape or not np.allclose(made, score):
                raise UserError(
                    f"{_SCORE} in {folder} is not the head in {ORIGINAL} beside it; if it was "
                    f"trained further, remove {ORIGINAL}"
                )
        return "classification"
    if _CHOICE["clf/kernel"] not in arrays:
        return None
    for path, name in _CHOICE.items():
        if name in arrays:
            arrays[path] = np.ascontiguousarray(arrays.pop(name).T)
    return "multiple_choice"


def foreign_task(
    config: Mapping[str, Any],
    shape: Shape | None,
    n_outputs: int,
    n_choices: int,
    added: Mapping[str, int],
    where: Path,
) -> tuple[Task, tuple[str | int, ...]]:
    """The task of a head that was trained elsewhere, and its labels by the number of the output, as
    transformers reads them off config.json. `added`: the rows of tokens beyond the vocabulary.

    Raises UserError for kinds of problems that have no form here.
    """
    if shape is None:
        return NO_TASK, ()
    if shape == "multiple_choice":
        _require_summary(config, where)
        return Task(name=shape, shape=shape, metric="accuracy"), tuple(range(n_choices))
    pad = config.get("pad_token_id")
    if pad is not None and pad == added.get(SPECIALS[-1]):
        raise UserError(
            f"{where}: pad_token_id is {pad}, the row of {SPECIALS[-1]}, which transformers then "
            "skips where it looks for the last token, so answers would differ; expected another row"
        )
    problem = config.get("problem_type")
    if problem == "regression" or (problem is None and n_outputs == 1):
        if n_outputs != 1:
            raise UserError(
                f"{where}: problem_type is regression with {n_outputs} outputs; expected one, the "
                "score"
            )
        # The output is the score itself.
        return Task("regression", "classification", "pearson", score_loss="mse"), ()
    if problem not in (None, "single_label_classification"):
        several = problem == "multi_label_classification"
        what = "in which several labels may hold at once" if several else "which is unknown"
        raise UserError(
            f"{where}: problem_type is {problem!r}, {what}; expected single_label_classification "
            "or regression"
        )
    counted = config.get("num_labels") if config.get("id2label") is None else None
    if n_outputs == 1 or counted not in (None, n_outputs):
        expected = "two classes or more" if n_outputs == 1 else f"{counted}, as num_labels says"
        raise UserError(f"{where}: the head has {n_outputs} output(s); expected {expected}")
    return Task(name=shape, shape="classification", metric="accuracy"), _labels(
        config.get("id2label"), n_outputs, where
    )


# How the double-heads model of transformers reads a choice off its states: at mc_token_ids, by the
# projection that is its head, with nothing after it.
_SUMMARY = {
    "summary_type": ("cls_index",),
    "summary_activation": (None, ""),
    "summary_use_proj": (True,),
    "summary_proj_to_labels": (True,),
}


def _require_summary(config: Mapping[str, Any], where: Path) -> None:
    for key, allowed in _SUMMARY.items():
        if (value := config.get(key, allowed[0])) not in allowed:
            raise UserError(
                f"{where}: {key} is {value!r}, with which transformers reads a choice in another "
                f"way than is done here; expected {allowed[0]!r}"
            )


def _labels(names: Mapping[str, str] | None, n_outputs: int, where: Path) -> tuple[str, ...]:
    """The label of each output. The key is its number, wherever in the file it stands; without
    names they are LABEL_0, LABEL_1, ..., as in transformers."""
    if names is None:
        return tuple(f"LABEL_{number}" for number in range(n_outputs))
    numbers = {key: int(key) if re.fullmatch(r"\s*\d{1,9}\s*", key) else -1 for key in names}
    if sorted(numbers.values()) != list(range(n_outputs)):
        raise UserError(
            f"{where}: id2label names {', '.join(sorted(names)[:12])}, the head has {n_outputs} "
            f"outputs; expected a name for each of 0 to {n_outputs - 1}"
        )
    return tuple(names[key] for key in sorted(names, key=numbers.__getitem__))
