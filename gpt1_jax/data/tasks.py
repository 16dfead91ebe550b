"""The tasks as a table, and their examples read from JSONL folders.

A folder holds train and dev, and test if there is one, as `.jsonl`, `.jsonl.gz` or `.jsonl.xz`: one
object a line, with the keys of its shape (FIELDS), `choices` for multiple choice, and `label`.
"""

import difflib
import gzip
import json
import lzma
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.scores import METRICS

FIELDS = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("text_a", "text_b"),
    "multiple_choice": ("context", "question"),
}
"""The keys of the texts of an example, by shape (Radford et al. 2018, section 3.3)."""

REGRESSION = ("pearson", "spearman")
"""Metrics of tasks whose label is a score, 0 to 5, rather than a class."""

HIGHEST_SCORE = 5


@dataclass(frozen=True)
class TaskConfig:
    """Which task: the name of a row of TASKS, or a shape and a metric of one's own, which also
    override the row's; and the folder with its files. `labels` fixes the classes and their order,
    by default those of the training set, sorted."""

    name: str | None = None
    path: str | None = None
    shape: str | None = None
    metric: str | None = None
    labels: tuple[str | int, ...] | None = None


@dataclass(frozen=True)
class Task:
    """A row of the table: what goes in (`shape`) and what is measured (`metric`)."""

    name: str
    shape: str
    metric: str

    @property
    def regression(self) -> bool:
        """Whether a label is a score rather than a class."""
        return self.metric in REGRESSION


TASKS = {
    task.name: task
    for task in (
        # The twelve of the paper (its table 1), with the metrics of its tables 2 to 4.
        Task("snli", "entailment", "accuracy"),
        Task("mnli", "entailment", "accuracy"),
        Task("qnli", "entailment", "accuracy"),
        Task("rte", "entailment", "accuracy"),
        Task("scitail", "entailment", "accuracy"),
        Task("race", "multiple_choice", "accuracy"),
        Task("story_cloze", "multiple_choice", "accuracy"),
        Task("mrpc", "similarity", "f1"),
        Task("qqp", "similarity", "f1"),
        Task("stsb", "similarity", "pearson"),
        Task("sst2", "classification", "accuracy"),
        Task("cola", "classification", "matthews"),
        # No column of the paper, but part of its GLUE score of 72.8.
        Task("wnli", "entailment", "accuracy"),
        # Of the paper's zero-shot figure.
        Task("dprd", "multiple_choice", "accuracy"),
        # Small stand-ins: for SNLI, and for the two sets of multiple choice.
        Task("snli_small", "entailment", "accuracy"),
        Task("codah", "multiple_choice", "accuracy"),
        Task("comve_validation", "multiple_choice", "accuracy"),
        Task("comve_explanation", "multiple_choice", "accuracy"),
    )
}


@dataclass(frozen=True, slots=True)
class Example:
    """One line of a file: the texts of its shape in the order of FIELDS, the choices if it is a
    multiple choice, and the label, None where the file has none. `read` gives the label as it is
    written, `load` the index of a class or choice, or a float if it is a score."""

    texts: tuple[str, ...]
    choices: tuple[str, ...]
    label: Any
    line: int


@dataclass(frozen=True)
class LoadedTask:
    """A task with its examples by split: train, dev, and test if there is one. `labels` are the
    names of the classes by index; of a multiple choice 0, 1, ...; none for a score."""

    task: Task
    labels: tuple[str | int, ...]
    splits: dict[str, list[Example]]

    @property
    def n_outputs(self) -> int:
        """Outputs of the head: classes; 1 for each choice; the 6 whole scores of a regression."""
        if self.task.shape == "multiple_choice":
            return 1
        return HIGHEST_SCORE + 1 if self.task.regression else len(self.labels)

    def targets(self, split: str) -> np.ndarray | None:
        """What the loss compares with: int32 [N], or float32 [N, 6] for scores
        (`score_distribution`); None for a split without labels."""
        labels = [example.label for example in self.splits[split]]
        if labels[0] is None:
            return None
        return score_distribution(labels) if self.task.regression else np.array(labels, np.int32)


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


def load(config: TaskConfig) -> LoadedTask:
    """The task with its examples, labels checked and turned to indices.

    Raises UserError for an unknown name, shape or metric; a missing folder or split; and for each
    fault of a file, with its line (see `read`), a label outside the set among them.
    """
    task = _task(config)
    files = _files(Path(config.path).expanduser())
    splits = {split: read(path, task.shape) for split, path in files.items()}
    for split, examples in splits.items():
        _require_labels(files[split], examples, optional=split == "test")
    if task.shape == "multiple_choice":
        _require_same_choices(files, splits)
    labels = _labels(task, config.labels, files["train"], splits["train"])
    indexed = {split: _indexed(task, labels, files[split], splits[split]) for split in splits}
    return LoadedTask(task, labels, indexed)


def read(path: Path, shape: str) -> list[Example]:
    """The examples of one file, labels as they are written and None where there is none.

    Raises UserError with file and line for what is not UTF-8, not JSON or not an object; a key
    that is missing or of the wrong type; an empty text, though a multiple choice may lack context,
    question and even some of its choices (three rows of ComVE do); a label that is null; a number
    of choices that changes; and for a file that is unreadable or empty.
    """
    return list(stream(path, shape))


def stream(path: Path, shape: str) -> Iterator[Example]:
    """The examples that `read` gives, one after the other; a fault is raised at its line."""
    first = None
    for line, row in _rows(path):
        example = _example(row, shape, path, line)
        first = first or example
        if len(example.choices) != len(first.choices):
            raise UserError(
                f"{_place(path, line)}: {len(example.choices)} choices, but "
                f"{len(first.choices)} on line {first.line}; give each example as many"
            )
        yield example
    if first is None:
        raise UserError(f"{path}: no examples; expected one JSON object a line")


def from_rows(rows: Iterable[dict | Example], shape: str) -> list[Example]:
    """The examples of rows in memory; those that are Examples are taken as they are. UserError as
    in `read`, with the number of the row."""
    examples = [
        row if isinstance(row, Example) else _example(row, shape, Path("rows"), number)
        for number, row in enumerate(rows, 1)
    ]
    if not examples:
        raise UserError("no rows; expected at least one")
    return examples


def _task(config: TaskConfig) -> Task:
    own = config.path and config.shape and config.metric
    if config.name is not None and config.name not in TASKS and not own:
        raise UserError(
            f"task.name={config.name} is not known{_nearest(config.name, TASKS)}; a task of one's "
            "own needs task.path, task.shape and task.metric"
        )
    if config.path is None:
        if config.name is None:
            raise UserError("no task: set task.name and task.path, the folder of its JSONL files")
        raise UserError(
            f"task.path is needed for task.name={config.name}: a folder with train.jsonl, dev.jsonl"
        )
    name = config.name or Path(config.path).expanduser().resolve().name
    row = TASKS.get(config.name)
    shape = _known("shape", config.shape or (row and row.shape), FIELDS)
    metric = _known("metric", config.metric or (row and row.metric), METRICS)
    if shape == "multiple_choice" and metric != "accuracy":
        raise UserError(f"task.metric={metric} does not fit multiple_choice; expected accuracy")
    return Task(name, shape, metric)


def _known(key: str, value: str | None, known: Iterable[str]) -> str:
    if value is None:
        raise UserError(f"task.{key} is needed for a task of one's own: one of {', '.join(known)}")
    if value not in known:
        raise UserError(
            f"task.{key}={value} is not known{_nearest(value, known)}; "
            f"expected one of {', '.join(known)}"
        )
    return value


def _nearest(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {nearest[0]}?)" if nearest else ""


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(
            f"task.path={folder} is not a folder; expected one with train and dev.jsonl"
        )
    files = {}
    for split in ("train", "dev", "test"):
        names = [f"{split}.jsonl{suffix}" for suffix in ("", ".gz", ".xz")]
        found = [folder / name for name in names if (folder / name).is_file()]
        if len(found) > 1:
            raise UserError(f"{found[0]} stands beside {found[1].name}; keep one of them")
        if found:
            files[split] = found[0]
        elif split != "test":
            raise UserError(
                f"{folder} has no {split}.jsonl (nor .gz, .xz); train and dev are needed"
            )
    return files


def _place(path: Path, line: int) -> str:
    return f"{path}, line {line}"


def _rows(path: Path) -> Iterator[tuple[int, dict]]:
    """The objects of a file with the numbers of their lines; blank lines are passed over."""
    opener = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    try:
        with opener(path, "rb") as file:
            for line, data in enumerate(file, 1):
                if data.strip():
                    yield line, _row(data, _place(path, line))
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _row(data: bytes, place: str) -> dict:
    try:
        row = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not UTF-8 at byte {error.start}; save the file as UTF-8"
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: not JSON ({error}); expected one object a line") from None
    if not isinstance(row, dict):
        raise UserError(f"{place}: {_shown(row)} is not an object; expected {{...}}")
    return row


def _shown(value) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 40 else text[:40] + "..."


def _example(row: dict, shape: str, path: Path, line: int) -> Example:
    place = _place(path, line)
    choosing = shape == "multiple_choice"
    keys = _keys(shape)
    for key in keys:
        if key not in row:
            fitting = [other for other in FIELDS if all(key in row for key in _keys(other))]
            hint = f"; its keys are those of task.shape={fitting[0]}" if fitting else ""
            raise UserError(f"{place}: no key {key}; {shape} needs {', '.join(keys)}{hint}")
    texts = tuple(_text(row[key], key, place, may_be_empty=choosing) for key in FIELDS[shape])
    choices = _choices(row["choices"], place) if choosing else ()
    if "label" in row and row["label"] is None:
        raise UserError(f"{place}: label is null; leave the key out where there is no label")
    return Example(texts, choices, row.get("label"), line)


def _keys(shape: str) -> tuple[str, ...]:
    return (*FIELDS[shape], "choices") if shape == "multiple_choice" else FIELDS[shape]


def _text(value, key: str, place: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {key} is {_shown(value)}; expected a string")
    if not (value.strip() or may_be_empty):
        raise UserError(f"{place}: {key} is empty; fill it or leave the line out")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair, which no text contains
        raise UserError(
            f"{place}: {key} has half a surrogate pair, which is no character"
        ) from None
    return value


def _choices(value, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise UserError(f"{place}: choices is {_shown(value)}; expected a list of two or more")
    choices = tuple(
        _text(choice, f"choices[{index}]", place, may_be_empty=True)
        for index, choice in enumerate(value)
    )
    if not any(choice.strip() for choice in choices):
        raise UserError(f"{place}: all choices are empty; fill them or leave the line out")
    return choices


def _require_labels(path: Path, examples: list[Example], optional: bool) -> None:
    """All examples have a label or, where that is allowed, none has."""
    if optional and all(example.label is None for example in examples):
        return
    for example in examples:
        if example.label is None:
            rest = "; other lines have one" if optional else ""
            raise UserError(f"{_place(path, example.line)}: no key label{rest}")


def _require_same_choices(files: dict[str, Path], splits: dict[str, list[Example]]) -> None:
    expected = len(splits["train"][0].choices)
    for split, examples in splits.items():
        found = len(examples[0].choices)
        if found != expected:
            raise UserError(
                f"{_place(files[split], examples[0].line)}: {found} choices, "
                f"but {expected} in {files['train'].name}; give each example as many"
            )


def _labels(task: Task, given: tuple | None, path: Path, train: list[Example]) -> tuple:
    """The classes in the order of their indices: those given, or the training set's, sorted."""
    if task.regression or task.shape == "multiple_choice":
        if given is not None:
            raise UserError("task.labels is for classes; scores and choices have none")
        return () if task.regression else tuple(range(len(train[0].choices)))
    first = _class(train[0].label, _place(path, train[0].line))
    found = set()
    for example in train:
        label = _class(example.label, _place(path, example.line))
        if type(label) is not type(first):
            raise UserError(
                f"{_place(path, example.line)}: label is {_shown(label)}, but {_shown(first)} on "
                f"line {train[0].line}; expected all integers or all strings"
            )
        found.add(label)
    labels = tuple(sorted(found)) if given is None else _given_labels(given, type(first))
    if len(labels) < 2:
        raise UserError(f"{path}: all labels are {_shown(first)}; expected two or more classes")
    if task.metric == "f1" and len(labels) != 2:
        raise UserError(
            f"{path}: {len(labels)} classes, but task.metric=f1 is for two, the second of them "
            "positive; use accuracy or matthews"
        )
    return labels


def _given_labels(given: tuple, kind: type) -> tuple:
    """A command line gives strings only; where the file has integers, integers are meant."""
    try:
        labels = tuple(kind(label) for label in given)
    except ValueError:
        raise UserError(
            f"task.labels={','.join(map(str, given))}, but the labels of the file are integers"
        ) from None
    if len(set(labels)) < len(labels):
        raise UserError(f"task.labels={','.join(map(str, given))} names a label twice")
    return labels


def _class(label, place: str) -> int | str:
    if isinstance(label, float) and label.is_integer():
        return int(label)
    if isinstance(label, bool) or not isinstance(label, int | str) or label == "":
        raise UserError(f"{place}: label is {_shown(label)}; expected an integer or a string")
    return label


def _score(label, place: str) -> float:
    number = isinstance(label, int | float) and not isinstance(label, bool)
    if not (number and 0 <= label <= HIGHEST_SCORE):
        raise UserError(
            f"{place}: label is {_shown(label)}; expected a number from 0 to {HIGHEST_SCORE}"
        )
    return float(label)


def _indexed(task: Task, labels: tuple, path: Path, examples: list[Example]) -> list[Example]:
    """The examples with the index of their class or choice, or with their score, as the label."""
    if examples[0].label is None:
        return examples
    indices = {label: index for index, label in enumerate(labels)}
    indexed = []
    for example in examples:
        place = _place(path, example.line)
        if task.regression:
            label = _score(example.label, place)
        else:
            label = indices.get(_class(example.label, place))
        if label is None:
            raise UserError(
                f"{place}: label {_shown(example.label)} is outside the set "
                f"{', '.join(_shown(label) for label in labels[:10])}"
                + (", ..." if len(labels) > 10 else "")
            )
        indexed.append(replace(example, label=label))
    return indexed
