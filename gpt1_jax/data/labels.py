"""Labels of a task: classes and scores, from what its files say to the numbers of a batch."""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt1_jax.data.tasks import Example, RawSplit, Row, Task, folded
from gpt1_jax.errors import UserError
from gpt1_jax.messages import shown

Label = str | int
Splits = dict[str, RawSplit]

HIGHEST_SCORE = 5
MOST_SPELLINGS = 2**12  # that are remembered
# How the files of known tasks say that there is no gold label: SNLI where annotators did not agree,
# GLUE's test sets.
NO_GOLD = (-1, "-1", "-1.0", "-")
# Numbers as programs write them; 01 and 1e3 may be names.
_WHOLE = re.compile(r"-?(0|[1-9]\d{0,14})(\.0+)?")
_DECIMAL = re.compile(r"[+-]?(\d{1,15}(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?", re.IGNORECASE)


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


@dataclass(frozen=True)
class Classes:
    """The classes of a task. A label is one of them if a person would read it as its name.

    names: by index, as predictions say them.
    row: the known task whose classes these are, in words or in numbers; None: one's own.
    """

    names: tuple[Label, ...]
    row: Row | None = None
    # Of each spelling met so far; files have few, and many rows.
    _known: dict[Label, int | None] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of_model(cls, names: tuple[Label, ...], row: Row | None) -> "Classes":
        """The classes of a trained model: those of the row of the table, if all of them are."""
        numbers = [row.class_number(name) if row else None for name in names]
        known = None not in numbers and len(set(numbers)) == len(numbers)
        return cls(names, row if known else None)

    def index(self, label: Label) -> int | None:
        """The index of the class that a label names, None if it names none."""
        if label not in self._known:
            if len(self._known) >= MOST_SPELLINGS:  # a column of something else
                self._known.clear()
            self._known[label] = self._found(label)
        return self._known[label]

    def _found(self, label: Label) -> int | None:
        if self.row is not None:
            number = self.row.class_number(label)
            numbers = [self.row.class_number(name) for name in self.names]
            return numbers.index(number) if number is not None and number in numbers else None
        if label in self.names:
            return self.names.index(label)
        # What is a number in one file may be text in another.
        if isinstance(label, str) and _WHOLE.fullmatch(label.strip()):
            number = _whole(label.strip())
            if number in self.names:
                return self.names.index(number)
        alike = [isinstance(n, str) and folded(n) == folded(str(label)) for n in self.names]
        return alike.index(True) if alike.count(True) == 1 else None


def read_classes(
    task: Task, row: Row | None, given: tuple[Label, ...] | None, labelled: list[RawSplit]
) -> Classes | None:
    """The classes where they do not depend on the training set: those `given`, or those of the row
    of the table in the order of their names; None for a task of one's own.

    Of two classes whose F1 is measured, the positive one comes last.
    """
    known = row is not None and bool(row.labels) and row.shape == task.shape
    if given is not None:
        # Those of a known task are the same in words and in numbers, whichever the file has.
        numbered = [_whole(n) if isinstance(n, str) and _WHOLE.fullmatch(n) else n for n in given]
        of_row = Classes.of_model(tuple(numbered), row if known else None)
        if of_row.row and len(given) > 1:
            return of_row
        return Classes.of_model(_given(given, labelled), None)
    if row is None or not known:
        return None
    found = [example.label for part in labelled for example in part.examples]
    named = any(isinstance(label, str) and not re.fullmatch(r"[+-]?\d+", label) for label in found)
    names = row.words if row.words and named else tuple(sorted(row.labels, key=str))
    if task.metric == "f1" and len(names) == 2 and row.positive is not None:
        positive = row.class_number(row.positive)
        names = tuple(sorted(names, key=lambda name: row.class_number(name) == positive))
    return Classes(names, row)


def own_classes(train: RawSplit) -> Classes:
    """The classes of a training set, sorted, each under its commonest spelling."""
    spellings: dict[Label, Counter] = {}
    first = class_of(train, train.examples[0])
    for example in train.examples:
        label = class_of(train, example)
        if type(label) is not type(first):
            raise UserError(
                f"{train.place(example)}: label is {shown(label)}, but {shown(first)} on "
                f"{train.unit} {train.examples[0].line}; expected all integers or all strings"
            )
        fold = folded(label) if isinstance(label, str) else label
        spellings.setdefault(fold, Counter())[label] += 1
    if len(spellings) < 2:
        (written,) = spellings.values()
        others = ", ".join(shown(name) for name in written if name != first)
        alike = f" or read like it ({others}; task.labels keeps such apart)" if others else ""
        raise UserError(
            f"{train.where}: all labels are {shown(first)}{alike}; expected two or more classes"
        )
    names = (counts.most_common(1)[0][0] for counts in spellings.values())
    return Classes(tuple(sorted(n.strip() if isinstance(n, str) else n for n in names)))


def _given(given: tuple[Label, ...], labelled: list[RawSplit]) -> tuple[Label, ...]:
    """A command line gives strings only; where the file has integers, integers are meant."""
    text = ",".join(map(str, given))
    some = next((part for part in labelled if part.examples), None)
    kind = type(class_of(some, some.examples[0])) if some else None
    try:
        labels = tuple(int(label) if kind is int else label for label in given)
    except ValueError:
        raise UserError(f"task.labels={text}, but the labels of the file are integers") from None
    if len(set(labels)) < len(labels) or len(labels) < 2:
        raise UserError(f"task.labels={text}; expected two or more labels, each once")
    return labels


def with_numbers(splits: Splits, given: tuple[Label, ...] | None, scores: bool) -> Splits:
    """Labels that had to be text are numbers where all of them, and those `given`, look like it:
    whole ones, or any if they are `scores`."""
    parts = [part for part in splits.values() if part.text_labels]
    if scores:
        for part in parts:
            _require_scores(part)
    labels = [example.label.strip() for part in parts for example in part.examples if example.label]
    pattern, number = (_DECIMAL, float) if scores else (_WHOLE, _whole)
    if labels and all(pattern.fullmatch(label) for label in [*labels, *map(str, given or ())]):
        return {name: _numbered(part, number) for name, part in splits.items()}
    return splits


def _require_scores(part: RawSplit) -> None:
    """UserError for the first label that is no number."""
    for example in part.examples:
        if example.label and not _DECIMAL.fullmatch(example.label.strip()):
            raise _no_score(part, example)


def _no_score(part: RawSplit, example: Example) -> UserError:
    return UserError(
        f"{part.place(example)}: label is {shown(example.label)}; expected a number from 0 to "
        f"{HIGHEST_SCORE}"
    )


def _numbered(part: RawSplit, number: Callable[[str], float]) -> RawSplit:
    if not part.text_labels:
        return part
    examples = [e if e.label is None else replace(e, label=number(e.label)) for e in part.examples]
    return replace(part, examples=examples, text_labels=False)


def _whole(text: str) -> int:
    return int(text.partition(".")[0])


def with_gold(part: RawSplit, row: Row | None, hidden: bool) -> RawSplit:
    """A split of a known task without the rows that have no gold label, which a note counts; a
    `hidden` split that has none at all keeps its rows. Tasks of one's own give each label its own
    meaning, -1 too."""
    if row is None:
        return part

    def is_gold(example: Example) -> bool:
        label = example.label
        if isinstance(label, str):
            label = label.strip()
        return label is not None and label != "" and label not in NO_GOLD

    gold = [example for example in part.examples if is_gold(example)]
    n_left_out = len(part.examples) - len(gold)
    if not n_left_out:
        return part
    if hidden and not gold:
        return replace(part, examples=[replace(e, label=None) for e in part.examples])
    if not gold:
        raise UserError(f"{part.where}: no example has a gold label; {row.name} needs some")
    note = f"{part.where}: {n_left_out} examples without a gold label are left out"
    return replace(part, examples=gold, notes=(*part.notes, note))


def require_labels(part: RawSplit, optional: bool) -> None:
    """All examples have a label or, where that is allowed, none has."""
    if optional and all(example.label is None for example in part.examples):
        return
    for example in part.examples:
        if example.label is None:
            rest = f"; other {part.unit}s have one" if optional else ""
            raise UserError(
                f"{part.place(example)}: no label{rest}; columns=label:NAME says where it stands"
            )


def require_same_choices(splits: Splits) -> None:
    """Each split has as many choices as the first."""
    first, *others = splits.values()
    expected = len(first.examples[0].choices)
    for part in others:
        found = len(part.examples[0].choices)
        if found != expected:
            raise UserError(
                f"{part.place(part.examples[0])}: {found} choices, but {expected} in "
                f"{Path(first.where).name}; give each example as many"
            )


def class_of(part: RawSplit, example: Example) -> Label:
    """The label of an example as a class, 1.0 as 1, and true as the word that it is in a file of
    text. UserError if it cannot be one."""
    label: Any = _worded(example.label)
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if not isinstance(label, int | str) or not str(label).strip():
        raise UserError(
            f"{part.place(example)}: label is {shown(label)}; expected an integer or a string"
        )
    return label


def _worded(label: Any) -> Any:
    return str(label).lower() if isinstance(label, bool) else label


def _placed(task: Task, label: Any) -> Any:
    """The place of the choice that a letter stands for, B as 1; any other label as it is."""
    letter = task.shape == "multiple_choice" and re.fullmatch(r"\s*[A-Za-z]\s*", str(label))
    return ord(label.strip().upper()) - ord("A") if letter else label


def _score(part: RawSplit, example: Example) -> float:
    label: Any = example.label
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if not (number and 0 <= label <= HIGHEST_SCORE):
        raise _no_score(part, example)
    return float(label)


def gold_label(task: Task, classes: Classes, label: Any, text: bool) -> float | None:
    """The index of the class that a row of new data names, or its score, as `with_indices` has it;
    None for a label that the task has not. `text`: numbers may be written as text."""
    label = label.strip() if isinstance(label, str) else label
    if text and task.regression and _DECIMAL.fullmatch(label):
        label = float(label)
    label = _placed(task, _worded(label))
    if not isinstance(label, int | float | str):
        return None
    if task.regression:
        return float(label) if not isinstance(label, str) and 0 <= label <= HIGHEST_SCORE else None
    if isinstance(label, float):
        label = int(label) if label.is_integer() else str(label)
    return classes.index(label)


def _counted_from_one(task: Task, n_choices: int, label: Label, part: RawSplit) -> str:
    """What to do about the places of choices if they are counted from 1, as it seems: the last one
    is there, and no first."""
    of_last = task.shape == "multiple_choice" and str(label) == str(n_choices)
    if not of_last or any(_placed(task, class_of(part, one)) in (0, "0") for one in part.examples):
        return ""
    last = chr(ord("A") + n_choices - 1)
    return (
        f"; the places of choices are counted from 0: write 0 to {n_choices - 1} for 1 to "
        f"{n_choices}, or letters, A to {last}"
    )


def with_indices(
    task: Task, classes: Classes, part: RawSplit
) -> tuple[list[Example], tuple[str, ...]]:
    """The examples with the index of their class or choice, or with their score, as the label; and
    notes about labels that are not spelled like their class."""
    if not part.examples or part.examples[0].label is None:
        return part.examples, ()
    if task.regression:
        return [replace(example, label=_score(part, example)) for example in part.examples], ()
    examples, spelled = [], Counter()
    for example in part.examples:
        written = class_of(part, example)
        index = classes.index(label := _placed(task, written))
        if index is None:
            names = ", ".join(shown(name) for name in classes.names[:10])
            more = ", ..." if len(classes.names) > 10 else ""
            raise UserError(
                f"{part.place(example)}: label {shown(written)} is outside the set {names}{more}"
                + _counted_from_one(task, len(classes.names), label, part)
            )
        if label != classes.names[index]:
            spelled[label, index] += 1
        examples.append(replace(example, label=index))
    pairs = [
        f"{shown(label)} as {shown(classes.names[index])} ({count})"
        for (label, index), count in spelled.most_common(10)
    ]
    return examples, (f"{part.where}: labels are read {', '.join(pairs)}",) if pairs else ()
