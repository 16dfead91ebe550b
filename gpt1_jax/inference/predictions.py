"""Predictions of a fine-tuned model for each row of a table, beside what the row has already."""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gpt1_jax.data.columns import LABEL
from gpt1_jax.data.labels import Classes, gold_label
from gpt1_jax.data.metrics import METRICS, undefined
from gpt1_jax.data.task_files import RowFormat, stream_examples
from gpt1_jax.data.tasks import Example
from gpt1_jax.errors import UserError
from gpt1_jax.inference.row_output import row_writer, written
from gpt1_jax.inference.row_progress import counting
from gpt1_jax.inference.trained_model import TrainedModel
from gpt1_jax.messages import say, tell
from gpt1_jax.run_files import files_of
from gpt1_jax.storage import places

CHUNK = 1024  # rows held at a time
ADDED = ("label", "probability", "probabilities", "gold")


def predict(model: TrainedModel, path: str, output: str) -> dict:
    """Writes each row of the table `path`, in their order and with all its keys, and beside them

        label           the class, choice or score that is predicted
        probability     of that class or choice
        probabilities   of all of them, in the order of `labels`
        gold            the row's own label, where it has one

    as JSON lines or, where the name of `output` ends so, as CSV or TSV. The rows are like those of
    the task's files. All are checked before the first is computed; CHUNK rows are held at a time.
    A column of the table that has one of these names, and is not that of the labels, would be lost.

    Returns:
      step, examples, truncated (cut to fit the context), output, labels; where rows have labels
      also how many (`labelled`), the task's metrics over them, and for classes and choices
      `confusion_matrix`: a list for each gold label of how often each label was predicted.

    Raises:
      UserError: a language model; a row that is none of the task's, with its line; a column that
        would be lost; an output that cannot be written.
    """
    table = places.here(path)
    row_format = model.row_format
    inputs = [table, *files_of(model.workdir)]
    with written(output, inputs) as file:
        count, keys = _surveyed(stream_examples(table, row_format))
        _require_room(path, keys, row_format)
        tell(f"{path}: {row_format.open(table).description}")
        added = (name for name in ADDED if name not in keys)
        write = row_writer(output, file, [*keys, *added])
        measured = Comparison(model, row_format.open(table).text_cells)
        n_truncated = 0
        rows = stream_examples(table, row_format)
        with counting(count, "examples") as add:
            while chunk := list(itertools.islice(rows, CHUNK)):
                answers, n_cut = model.answers([example for _, example in chunk])
                for (row, example), answer in zip(chunk, answers, strict=True):
                    write(row | _answer(answer) | measured.gold(example, answer))
                n_truncated += n_cut
                add(len(chunk))
    return {
        "step": model.step,
        "examples": count,
        "truncated": n_truncated,
        "output": output,
        **measured.result(),
    }


# Of more classes no screen shows the matrix.
MOST_SHOWN = 10


def confusion_lines(result: Mapping[str, Any]) -> list[str]:
    """The confusion matrix of what `predict` returned, to be read: a row for each gold label. None
    where there is none, or one of more than MOST_SHOWN classes."""
    matrix = result.get("confusion_matrix", [])
    if not 0 < len(matrix) <= MOST_SHOWN:
        return []
    labels = result.get("labels", [])
    names = [str(name) for name in (labels if len(labels) == len(matrix) else range(len(matrix)))]
    rows = [["gold, predicted:", *names]]
    rows += [[name, *map(str, counts)] for name, counts in zip(names, matrix, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([first.ljust(widths[0]), *map(str.rjust, rest, widths[1:])])
        for first, *rest in rows
    ]


class Comparison:
    """Gold labels beside predictions: those of a row, and the metrics over all. `text`: whether the
    labels of the table are text, as in CSV."""

    def __init__(self, model: TrainedModel, text: bool):
        self._task, self._text = model.require_task(), text
        self._classes = Classes.of_model(model.labels, model.row_format.task)
        # Classes are counted, scores kept: their correlation is that of all.
        self._counts: Counter[tuple[int, int]] = Counter()
        self._scores = array("d"), array("d")
        self._n_unknown = 0

    def gold(self, example: Example, answer: dict) -> dict:
        """{"gold": ...} of a row that has a label, which is counted; else nothing."""
        if example.label is None or not str(example.label).strip():
            return {}
        choosing = self._task.shape == "multiple_choice"
        classes = Classes(tuple(range(len(example.choices)))) if choosing else self._classes
        found = gold_label(self._task, classes, example.label, self._text)
        if found is None:
            self._n_unknown += 1
            return {"gold": example.label}
        if self._task.regression:
            for scores, score in zip(self._scores, (found, answer["label"]), strict=True):
                scores.append(score)
            return {"gold": found}
        self._counts[int(found), classes.names.index(answer["label"])] += 1
        return {"gold": classes.names[int(found)]}

    def result(self) -> dict:
        """The metrics, None for one that is undefined; nothing where no row has a label that the
        task knows."""
        if self._n_unknown:
            say(f"rows whose label the task has not: {self._n_unknown}; no metric counts them")
        names: dict[str, Any] = (
            {} if self._task.regression else {"labels": list(self._classes.names)}
        )
        if self._task.regression:
            gold, predicted = self._scores
            if not gold:
                return names
            return {"labelled": len(gold), **self._metrics(len(gold), gold, predicted)}
        if not self._counts:
            return names
        gold, predicted = map(list, zip(*self._counts, strict=True))
        times = list(self._counts.values())
        metrics = self._metrics(sum(times), gold, predicted, times)
        size = max(len(self._classes.names), 1 + max(*gold, *predicted))
        matrix = np.zeros((size, size), int)
        matrix[gold, predicted] = times
        measured = {"labelled": sum(times), "confusion_matrix": matrix.tolist()}
        return names | metrics | measured

    def _metrics(self, count: int, *compared: Sequence) -> dict[str, float | None]:
        found: dict[str, float | None] = {
            name: METRICS[name](*compared) for name in self._task.metrics
        }
        for line in undefined(found, count):
            say(line)
        return found


def _answer(answer: dict) -> dict:
    probabilities = answer["probabilities"]
    if probabilities is None or isinstance(answer["label"], float):
        return answer
    return {"label": answer["label"], "probability": max(probabilities), **answer}


def _surveyed(rows: Iterator[tuple[dict, Example]]) -> tuple[int, list[str]]:
    """The number of rows, all of which are read and checked, and all their keys."""
    count, keys = 0, {}
    for row, _ in rows:
        count += 1
        keys |= dict.fromkeys(row)
    return count, list(keys)


def _require_room(path: str, keys: list[str], row_format: RowFormat) -> None:
    """UserError for a column whose place an answer would take."""
    labels = row_format.names.find(keys, path).get(LABEL)
    lost = [name for name in ADDED if name in keys and not name == labels == "label"]
    if lost:
        raise UserError(
            f"{path}: the column {lost[0]} would be lost, for predict writes one of that name; "
            "rename it, or leave it out"
        )
