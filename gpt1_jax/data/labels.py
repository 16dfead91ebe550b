"""Labels of a task: classes and scores, from what its files say to the numbers of a batch."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gpt1_jax.data.task_files import read as read  # what predicts reads no whole task
from gpt1_jax.data.tasks import Example, Part, Task
from gpt1_jax.errors import UserError

HIGHEST_SCORE = 5


def score_distribution(scores: Iterable[float]) -> np.ndarray:
    """Scores [N] from 0 to 5 as probabilities float32 [N, 6] of the whole scores 0 ... 5: the two
    neighbours share the mass so that the expectation is the score. The released code has it for
    STS-B, from Tai et al. 2015.

    3.8 -> [0, 0, 0, 0.2, 0.8, 0]        5.0 -> [0, 0, 0, 0, 0, 1]
    """
    scores_N1 = np.asarray(list(scores), np.float64)[:, None]
    distance_N6 = np.abs(scores_N1 - np.arange(HIGHEST_SCORE + 1.0)[None, :])
    return np.maximum(1.0 - distance_N6, 0.0).astype(np.float32)


def expected_score(probabilities: np.ndarray) -> np.ndarray:
    """The prediction [N] of probabilities [N, 6]: the inverse of `score_distribution`."""
    return np.asarray(probabilities, np.float64) @ np.arange(HIGHEST_SCORE + 1.0)


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else text[:40] + "..."


def require_labels(part: Part, optional: bool) -> None:
    """All examples have a label or, where that is allowed, none has."""
    if optional and all(example.label is None for example in part.examples):
        return
    for example in part.examples:
        if example.label is None:
            rest = f"; other {part.unit}s have one" if optional else ""
            raise UserError(f"{part.place(example)}: no key label{rest}")


def require_same_choices(parts: dict[str, Part]) -> None:
    first, *others = parts.values()
    expected = len(first.examples[0].choices)
    for part in others:
        found = len(part.examples[0].choices)
        if found != expected:
            raise UserError(
                f"{part.place(part.examples[0])}: {found} choices, but {expected} in "
                f"{Path(first.where).name}; give each example as many"
            )


def distinct_labels(train: Part) -> tuple:
    """The labels of the training set, sorted."""
    first = class_of(train, train.examples[0])
    found = set()
    for example in train.examples:
        label = class_of(train, example)
        if type(label) is not type(first):
            raise UserError(
                f"{train.place(example)}: label is {_shown(label)}, but {_shown(first)} on "
                f"{train.unit} {train.examples[0].line}; expected all integers or all strings"
            )
        found.add(label)
    if len(found) < 2:
        raise UserError(
            f"{train.where}: all labels are {_shown(first)}; expected two or more classes"
        )
    return tuple(sorted(found))


def given_labels(given: tuple, kind: type | None) -> tuple:
    """A command line gives strings only; where the file has integers, integers are meant."""
    try:
        labels = tuple(kind(label) if kind else label for label in given)
    except ValueError:
        raise UserError(
            f"task.labels={','.join(map(str, given))}, but the labels of the file are integers"
        ) from None
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UserError(
            f"task.labels={','.join(map(str, given))}; expected two or more labels, each once"
        )
    return labels


def class_of(part: Part, example: Example) -> int | str:
    label = example.label
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise UserError(
            f"{part.place(example)}: label is {_shown(label)}; expected an integer or a string"
        )
    return label


def _score(part: Part, example: Example) -> float:
    label = example.label
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if not (number and 0 <= label <= HIGHEST_SCORE):
        raise UserError(
            f"{part.place(example)}: label is {_shown(label)}; expected a number from 0 to "
            f"{HIGHEST_SCORE}"
        )
    return float(label)


def indexed(task: Task, labels: tuple, part: Part) -> list[Example]:
    """The examples with the index of their class or choice, or with their score, as the label."""
    if part.examples[0].label is None:
        return part.examples
    if task.regression:
        return [replace(example, label=_score(part, example)) for example in part.examples]
    indices = {label: index for index, label in enumerate(labels)}
    indexed = []
    for example in part.examples:
        index = indices.get(class_of(part, example))
        if index is None:
            raise UserError(
                f"{part.place(example)}: label {_shown(example.label)} is outside the set "
                f"{', '.join(_shown(label) for label in labels[:10])}"
                + (", ..." if len(labels) > 10 else "")
            )
        indexed.append(replace(example, label=index))
    return indexed
