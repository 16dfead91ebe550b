"""A task with its examples: a row of the table, or one's own, read from where it lies and checked.

Sources: TensorFlow Datasets where `task.path` is not set; else a folder, of JSON lines
(task_files.py) or of the files that the authors of SciTail and Story Cloze hand out.
"""

import difflib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from gpt1_jax.data.labels import (
    HIGHEST_SCORE,
    class_of,
    distinct_labels,
    given_labels,
    indexed,
    require_labels,
    require_same_choices,
    score_distribution,
)
from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.task_files import JsonlFolder, official_files
from gpt1_jax.data.task_files import read as read  # what predicts reads no whole task
from gpt1_jax.data.tasks import (
    FIELDS,
    REGRESSION,
    SCORE_LOSSES,
    TASKS,
    Division,
    Example,
    Part,
    Row,
    Task,
)
from gpt1_jax.data.tfds_tasks import TfdsSets
from gpt1_jax.data.transformations import TRUNCATIONS
from gpt1_jax.errors import UserError

CHOICES = {
    "check_counts": ("warn", "strict", "off"),
    "ambiguous_pronouns": ("skip", "first"),
    "score_loss": SCORE_LOSSES,
}


@dataclass(frozen=True)
class TaskConfig:
    """Which task: the name of a row of TASKS, or a shape and a metric of one's own, which also
    override the row's; and the folder with its files, without which TFDS is asked (`data_dir`:
    where it keeps its data). `labels` fixes the classes and their order, by default those of the
    training set, sorted.

    truncation: a rule of transformations.TRUNCATIONS, by default the task's own.
    check_counts: what a number of examples other than the table's does: "warn", "strict" refuses.
    ambiguous_pronouns: "skip" examples whose pronoun stands in several places, or take the "first".
    train_examples, dev_examples: as many examples of these splits at most, always the same ones.
    score_loss: how a score is learned, one of SCORE_LOSSES; the released code has soft6 for STS-B,
      the paper says nothing.
    split_seed: of the division into train and dev where the source has no dev (Story Cloze,
      definite pronouns), by default the row's.

    Raises UserError for a value outside its set.
    """

    name: str | None = None
    path: str | None = None
    shape: str | None = None
    metric: str | None = None
    labels: tuple[str | int, ...] | None = None
    data_dir: str | None = None
    truncation: str | None = None
    check_counts: str = "warn"
    ambiguous_pronouns: str = "skip"
    train_examples: int | None = None
    dev_examples: int | None = None
    split_seed: int | None = None
    score_loss: str = SCORE_LOSSES[0]

    def __post_init__(self):
        for key, known in CHOICES.items():
            _known(key, getattr(self, key), known)
        for key in ("train_examples", "dev_examples"):
            value = getattr(self, key)
            if value is not None and value < 1:
                raise UserError(f"task.{key}={value}; expected at least 1")
        if self.split_seed is not None and not 0 <= self.split_seed < 2**32:
            raise UserError(f"task.split_seed={self.split_seed}; expected 0 to 2**32 - 1")


class Source(Protocol):
    """Where a task lies. `kind` chooses among the counts of a row, `where` is for messages, and
    `splits` names what can be read."""

    kind: str
    where: str
    splits: tuple[str, ...]

    def read(self, split: str) -> Part: ...


@dataclass(frozen=True)
class LoadedTask:
    """A task with its examples by split. `labels` are the names of the classes by index; of a
    multiple choice 0, 1, ...; none for a score. `where` it was read; `notes` are lines that the
    user should see: examples left out, counts that differ. `available` are all splits that the
    source has, read or not."""

    task: Task
    labels: tuple[str | int, ...]
    splits: dict[str, list[Example]]
    where: str = ""
    notes: tuple[str, ...] = ()
    available: tuple[str, ...] = ()

    @property
    def n_outputs(self) -> int:
        """Outputs of the head: classes; 1 for each choice; the 6 whole scores of a regression, or
        by mse the score itself; 0 where there is none."""
        if not self.task.has_head:
            return 0
        if self.task.shape == "multiple_choice" or self.task.score_loss == "mse":
            return 1
        return HIGHEST_SCORE + 1 if self.task.regression else len(self.labels)

    def targets(self, split: str) -> np.ndarray | None:
        """What the loss compares with: int32 [N], or for scores float32 [N, 6]
        (`score_distribution`) or by mse float32 [N]; None for a split without labels."""
        labels = [example.label for example in self.splits[split]]
        if labels[0] is None:
            return None
        if self.task.score_loss == "mse":
            return np.array(labels, np.float32)
        return score_distribution(labels) if self.task.regression else np.array(labels, np.int32)

    def require_labels(self, split: str) -> None:
        """Raises UserError for a split whose labels are hidden."""
        if self.targets(split) is None:
            row = TASKS.get(self.task.name)
            server = "; predict --glue writes the file that the GLUE server scores"
            raise UserError(
                f"the {split} split of {self.where} has no labels to compare with, they are hidden"
                + (server if row and row.glue else "")
            )


def load(config: TaskConfig, only: str | None = None) -> LoadedTask:
    """The task with its examples, labels checked and turned to indices.

    Without `only` these are train and dev, and all else that a JSONL folder has; with it that split
    alone, which then need not have the others beside it.

    Raises UserError for an unknown name, shape or metric; a missing folder or split; a set that
    TFDS cannot provide; and for each fault of a file, with its line (see `read`), a label outside
    the set among them.
    """
    task, row = _task(config), TASKS.get(config.name)
    reader = _Reader(config, row, _source(config, task, row))
    parts = reader.parts(only)
    if task.shape == "multiple_choice":
        require_same_choices(parts)
    for split, part in parts.items():
        require_labels(part, optional=split.startswith("test"))
    labels = _labels(task, row, config.labels, parts, reader)
    splits = {split: indexed(task, labels, part) for split, part in parts.items()}
    for split, most in (("train", config.train_examples), ("dev", config.dev_examples)):
        if split in splits and most is not None and most < len(splits[split]):
            splits[split] = _some_of(splits[split], most)
    where, notes = reader.source.where, tuple(reader.notes)
    return LoadedTask(task, labels, splits, where, notes, reader.splits)


def _some_of(examples: list[Example], most: int) -> list[Example]:
    """So many of the examples, in their order; drawn by a hash, since files often have a rhythm."""
    places = sorted(range(len(examples)), key=lambda p: hashlib.sha256(b"%d" % p).digest())
    return [examples[place] for place in sorted(places[:most])]


class _Reader:
    """Reads the splits of a source, each part once, and takes note of what is not in them."""

    def __init__(self, config: TaskConfig, row: Row | None, source: Source):
        self.source, self.notes = source, []
        self._config, self._row, self._read = config, row, {}
        self._division = row.division if row and "dev" not in source.splits else None

    @property
    def splits(self) -> tuple[str, ...]:
        if self._division is None or self._division.of not in self.source.splits:
            return self.source.splits
        others = [split for split in self.source.splits if split != self._division.of]
        return ("train", "dev", *others)

    def parts(self, only: str | None) -> dict[str, Part]:
        """The parts that `load` speaks of, by split. Raises UserError where one is not there."""
        if only is not None:
            return {only: self.part(only)}
        for split in ("train", "dev"):
            if split not in self.splits:
                names = ", ".join(self.splits) or "none"
                raise UserError(
                    f"{self.source.where} has no {split}{self._suffix}; train and dev are needed, "
                    f"it has {names}"
                )
        eager = self.splits if self.source.kind == "jsonl" else ("train", "dev")
        return {split: self.part(split) for split in eager}

    @property
    def _suffix(self) -> str:
        return ".jsonl (nor .gz, .xz)" if self.source.kind == "jsonl" else " split"

    def part(self, split: str) -> Part:
        """The examples of a split, those left out that the config does not want."""
        if split not in self.splits:
            names = ", ".join(self.splits) or "none"
            raise UserError(f"{self.source.where} has no {split} split; it has {names}")
        if split not in self._read:
            if self._division and split in ("train", "dev"):
                self._read |= self._divided(self._division)
            else:
                self._read[split] = self._checked(split)
        return self._read[split]

    def _divided(self, division: Division) -> dict[str, Part]:
        whole = self._checked(division.of)
        seed = division.seed if self._config.split_seed is None else self._config.split_seed
        train, dev = divided(whole.examples, division, seed)
        return {"train": replace(whole, examples=train), "dev": replace(whole, examples=dev)}

    def _checked(self, source_split: str) -> Part:
        part = self.source.read(source_split)
        self._check_count(source_split, part)
        if part.unlabelled:
            self.notes.append(
                f"{part.where}: {part.unlabelled} examples without a gold label are left out"
            )
        if self._config.ambiguous_pronouns == "first" or not part.unclear:
            return part
        clear = [example for example in part.examples if example.line not in part.unclear]
        if not clear:
            raise UserError(
                f"{part.where}: no example whose pronoun stands in one place alone; "
                "task.ambiguous_pronouns=first takes the first place"
            )
        self.notes.append(
            f"{part.where}: {len(part.unclear)} of {len(part.examples)} examples are left out, "
            "whose pronoun stands in several places (task.ambiguous_pronouns=first keeps them)"
        )
        return replace(part, examples=clear)

    def _check_count(self, split: str, part: Part) -> None:
        if self._row is None or not part.countable or self._config.check_counts == "off":
            return
        expected = self._row.counts.get(self.source.kind, {}).get(split)
        found = len(part.examples)
        if expected is None or found == expected:
            return
        line = f"{part.where}: {found} examples, but {expected} are expected of {self._row.name}"
        if self._config.check_counts == "strict":
            raise UserError(f"{line}; task.check_counts=warn goes on with them")
        self.notes.append(line)


def divided(
    examples: list[Example], division: Division, seed: int
) -> tuple[list[Example], list[Example]]:
    """Train and dev: the division of scikit-learn at `seed`, which for the 1,871 stories of Story
    Cloze is the released one. Raises UserError if there are too few examples."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    if len(examples) < 2:
        raise UserError(f"{len(examples)} example(s) cannot be divided into train and dev")
    if not division.twins:
        n_dev = min(max(1, round(division.share * len(examples))), len(examples) - 1)
        return tuple(train_test_split(examples, test_size=n_dev, random_state=seed))
    groups = [" / ".join(sorted(example.choices)) for example in examples]
    if len(set(groups)) < 2:
        raise UserError("all examples have the same choices, so they cannot be divided by them")
    splitter = GroupShuffleSplit(n_splits=1, test_size=division.share, random_state=seed)
    ((train, dev),) = splitter.split(examples, groups=groups)
    return [examples[index] for index in train], [examples[index] for index in dev]


def _task(config: TaskConfig) -> Task:
    own = config.path and config.shape and config.metric
    row = TASKS.get(config.name)
    if config.name is not None and row is None and not own:
        raise UserError(
            f"task.name={config.name} is not known{_nearest(config.name, TASKS)}; a task of one's "
            "own needs task.path, task.shape and task.metric"
        )
    if config.name is None and config.path is None:
        raise UserError("no task: set task.name, or task.path, the folder of its JSONL files")
    name = config.name or Path(config.path).expanduser().resolve().name
    shape = _known("shape", config.shape or (row and row.shape), FIELDS)
    metric = _known("metric", config.metric or (row and row.metric), METRICS)
    if shape == "multiple_choice" and metric != "accuracy":
        raise UserError(f"task.metric={metric} does not fit multiple_choice; expected accuracy")
    as_in_table = row is not None and shape == row.shape
    score_loss = config.score_loss
    if score_loss == "mse" and metric not in REGRESSION:
        raise UserError(
            f"task.score_loss=mse is for labels that are scores, which task.metric={metric} has "
            f"not; expected task.metric {' or '.join(REGRESSION)}"
        )
    truncation = config.truncation or (row.truncation if as_in_table else None)
    return Task(
        name,
        shape,
        metric,
        further=row.further if as_in_table and metric == row.metric else (),
        truncation=_known("truncation", truncation or TRUNCATIONS[shape][0], TRUNCATIONS[shape]),
        score_loss=score_loss,
    )


def _source(config: TaskConfig, task: Task, row: Row | None) -> Source:
    if config.path is not None:
        folder = Path(config.path).expanduser()
        official = row and official_files(row, folder)
        if official:
            return official
        more = tuple(row.splits) if row and not row.division else ()
        pronouns = row is not None and row.pronouns and task.shape == row.shape
        return JsonlFolder(folder, task.shape, more, pronouns)
    if not row.builders:
        raise UserError(
            f"task.path is needed for task.name={config.name}, which TFDS does not have: a folder "
            "with train.jsonl, dev.jsonl"
        )
    if task.shape != row.shape:
        raise UserError(
            f"task.shape={task.shape}, but {config.name} of TFDS is {row.shape}; leave it out, or "
            "give task.path"
        )
    return TfdsSets(row, config.data_dir)


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


def _labels(
    task: Task, row: Row | None, given: tuple | None, parts: dict[str, Part], reader: _Reader
) -> tuple:
    """The classes in the order of their indices: those given, else those of the table or of the
    training set, sorted."""
    some = next(iter(parts.values()))
    if task.regression or task.shape == "multiple_choice":
        if given is not None:
            raise UserError("task.labels is for classes; scores and choices have none")
        return () if task.regression else tuple(range(len(some.examples[0].choices)))
    labelled = [part for part in parts.values() if part.examples[0].label is not None]
    kind = type(class_of(labelled[0], labelled[0].examples[0])) if labelled else None
    in_table = row is not None and task.shape == row.shape and row.labels
    if given is not None:
        labels = given_labels(given, kind)
    elif in_table and kind in (None, type(row.labels[0])):
        labels = tuple(sorted(row.labels))
    else:
        labels = distinct_labels(parts.get("train") or reader.part("train"))
    if task.metric == "f1" and len(labels) != 2:
        raise UserError(
            f"{some.where}: {len(labels)} classes, but task.metric=f1 is for two, the second of "
            "them positive; use accuracy or matthews"
        )
    return labels
