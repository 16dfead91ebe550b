"""A task with its examples: a row of the table, or one's own, read from where it lies and checked.

Sources: TensorFlow Datasets where `task.path` is not set; else a folder of tables or a single one
(task_files.py), or the files that the authors of SciTail and Story Cloze hand out.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from gpt1_jax.data import labels as labelling
from gpt1_jax.data.labels import HIGHEST_SCORE, Classes, score_distribution
from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.official_files import official_files
from gpt1_jax.data.task_files import RowFormat, TaskFile, TaskFolder
from gpt1_jax.data.tasks import (
    FIELDS,
    REGRESSION,
    TASKS,
    Division,
    Example,
    Metric,
    RawSplit,
    Row,
    ScoreLoss,
    Shape,
    Task,
    Truncation,
)
from gpt1_jax.data.tfds_tasks import TfdsSplits
from gpt1_jax.data.transformations import TRUNCATIONS
from gpt1_jax.errors import UserError
from gpt1_jax.files.table_files import SUFFIXES
from gpt1_jax.messages import visible
from gpt1_jax.storage.places import here
from gpt1_jax.typed_values import nearest

MOST_SHOWN = 20  # classes in a line


@dataclass(frozen=True)
class TaskConfig:
    """Which task: the name of a row of TASKS, or a shape and a metric of one's own, which also
    override the row's; and the folder with its files or the single file, without which TFDS is
    asked (`data_dir`: where it keeps its data). `labels` fixes the classes and their order, by
    default those of the table or of the training set, sorted.

    columns: KEY:COLUMN for what has another name in the files, as in text:review,label:stars.
    truncation: a rule of transformations.TRUNCATIONS, by default the task's own.
    check_counts: what a number of examples other than the table's does: "warn", "strict" refuses.
    ambiguous_pronouns: "skip" examples whose pronoun stands in several places, or take the "first".
    train_examples, dev_examples: as many examples of these splits at most, always the same ones.
    score_loss: how a score is learned; the released code has soft6 for STS-B,
      the paper says nothing.
    split_seed: of the division into train and dev where the source has no dev (a single file,
      Story Cloze, definite pronouns), by default the row's, or 0.

    Raises UserError for a number outside its range.
    """

    name: str | None = None
    path: str | None = None
    shape: Shape | None = None
    metric: Metric | None = None
    labels: tuple[str | int, ...] | None = None
    columns: tuple[str, ...] | None = None
    data_dir: str | None = None
    truncation: Truncation | None = None
    check_counts: Literal["warn", "strict", "off"] = "warn"
    ambiguous_pronouns: Literal["skip", "first"] = "skip"
    train_examples: int | None = None
    dev_examples: int | None = None
    split_seed: int | None = None
    score_loss: ScoreLoss = Task.score_loss

    def __post_init__(self):
        if self.path == "":
            raise UserError("task.path is empty; expected a folder or a file of examples")
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

    def read(self, split: str) -> RawSplit: ...


@dataclass(frozen=True)
class LoadedTask:
    """A task with its examples by split. `labels` are the names of the classes by index; of a
    multiple choice 0, 1, ...; none for a score. `where` it was read; `notes` are lines that the
    user should see: examples left out, counts that differ. `available` are all splits that the
    source has, read or not; `kinds` says by split what its file turned out to be."""

    task: Task
    labels: tuple[str | int, ...]
    splits: dict[str, list[Example]]
    where: str = ""
    notes: tuple[str, ...] = ()
    available: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def positive(self) -> str | int | None:
        """The class whose F1 is measured, the last of the two; None where no F1 is."""
        return self.labels[-1] if "f1" in self.task.metrics and len(self.labels) == 2 else None

    def describe(self) -> list[str]:
        """What was found, a line each: the kinds of the files, the classes with their counts, which
        of them is positive, and what is odd about them; of scores, between which they lie."""
        counts = self._class_counts()
        lines = []
        for split, examples in self.splits.items():
            kind = f" of {self.kinds[split]}" if self.kinds.get(split) else ""
            line = f"{split}: {len(examples)} examples{kind}"
            pairs = list(zip(self.labels, counts.get(split, ()), strict=False))
            if pairs:
                line += "; " + ", ".join(f"{name} {n}" for name, n in pairs[:MOST_SHOWN])
            if len(pairs) > MOST_SHOWN:
                line += f" and {len(pairs) - MOST_SHOWN} more classes"
            scores = [e.label for e in examples if self.task.regression and e.label is not None]
            if scores:  # those of other programs lie between 0 and 1
                line += f"; scores {min(scores):g} to {max(scores):g} of 0 to {HIGHEST_SCORE}"
            lines.append(line if examples[0].label is not None else f"{line}; labels are hidden")
        if self.positive is not None:
            lines.append(
                f"f1 is that of the positive class, {self.positive} (task.labels names it last)"
            )
        train = counts.get("train", [])
        for place, (name, n) in enumerate(zip(self.labels, train, strict=False)):
            others = [split for split in counts if counts[split][place] and split != "train"]
            if n == 0:
                in_others = f", though {' and '.join(others)} has" if others else ""
                lines.append(f"train has no example of the class {name}{in_others}")
            elif n == 1:
                lines.append(f"train has a single example of the class {name}")
        return [visible(line) for line in lines]

    def _class_counts(self) -> dict[str, list[int]]:
        if not self.labels:
            return {}
        return {
            split: [found[index] for index in range(len(self.labels))]
            for split, examples in self.splits.items()
            if (found := Counter(e.label for e in examples if e.label is not None))
        }

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


def load_task(config: TaskConfig, only: str | None = None, whole: bool = False) -> LoadedTask:
    """The task with its examples, labels checked and turned to indices.

    Args:
      only: this split alone, which then need not have the others beside it; by default train and
        dev, and all else that a folder of tables has.
      whole: a single file is the split that is asked for, undivided.

    Raises:
      UserError: an unknown name, shape or metric; a missing folder or split; a set that TFDS cannot
        provide; and each fault of a file, with its line (see `read_examples`), a label outside the
        set among them.
    """
    task, row = task_of(config), TASKS.get(config.name or "")
    row_of_shape = row if row and row.shape == task.shape else None
    reader = _Reader(config, row_of_shape, _source(config, task, row, whole))
    parts = labelling.with_numbers(reader.parts(only), config.labels, task.regression)
    if task.shape == "multiple_choice":
        labelling.require_same_choices(parts)
    for split, part in parts.items():
        labelling.require_labels(part, optional=split.startswith("test"))
    classes = _classes(task, row_of_shape, config.labels, parts, reader)
    splits = {}
    for split, part in parts.items():
        splits[split], notes = labelling.with_indices(task, classes, part)
        reader.notes += notes
    for split, most in (("train", config.train_examples), ("dev", config.dev_examples)):
        if split in splits and most is not None and most < len(splits[split]):
            splits[split] = _some_of(splits[split], most)
    return LoadedTask(
        task,
        classes.names,
        splits,
        where=reader.source.where,
        notes=tuple(dict.fromkeys(reader.notes)),
        available=reader.splits,
        kinds={split: part.kind for split, part in parts.items()},
    )


def _some_of(examples: list[Example], most: int) -> list[Example]:
    """So many of the examples, in their order; drawn by a hash, since files often have a rhythm."""
    places = sorted(range(len(examples)), key=lambda p: hashlib.sha256(b"%d" % p).digest())
    return [examples[place] for place in sorted(places[:most])]


class _Reader:
    """Reads the splits of a source, each part once, and takes note of what is not in them."""

    def __init__(self, config: TaskConfig, row: Row | None, source: Source):
        self.source = source
        self.notes: list[str] = []
        self._config, self._row = config, row
        self._read: dict[str, RawSplit] = {}
        self._division = row.division if row and "dev" not in source.splits else None

    @property
    def splits(self) -> tuple[str, ...]:
        if self._division is None or self._division.of not in self.source.splits:
            return self.source.splits
        others = [split for split in self.source.splits if split != self._division.of]
        return ("train", "dev", *others)

    def parts(self, only: str | None) -> dict[str, RawSplit]:
        """The splits that `load_task` speaks of. Raises UserError where one is not there."""
        if only is not None:
            return {only: self.part(only)}
        for split in ("train", "dev"):
            if split not in self.splits:
                names = ", ".join(self.splits) or "none"
                raise UserError(
                    f"{self.source.where} has no {split}{self._suffix}; train and dev are needed, "
                    f"it has {names}"
                )
        eager = self.splits if self.source.kind == "files" else ("train", "dev")
        return {split: self.part(split) for split in eager}

    @property
    def _suffix(self) -> str:
        others = ", ".join(suffix for suffix in SUFFIXES if suffix != ".jsonl")
        return f".jsonl (nor {others})" if self.source.kind == "files" else " split"

    def part(self, split: str) -> RawSplit:
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

    def _divided(self, division: Division) -> dict[str, RawSplit]:
        whole = self._checked(division.of)
        seed = division.seed if self._config.split_seed is None else self._config.split_seed
        train, dev = divided(whole.examples, division, seed)
        return {"train": replace(whole, examples=train), "dev": replace(whole, examples=dev)}

    def _checked(self, source_split: str) -> RawSplit:
        hidden = source_split.startswith("test")
        part = labelling.with_gold(self.source.read(source_split), self._row, hidden)
        self._check_count(source_split, part)
        self.notes += part.notes
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

    def _check_count(self, split: str, part: RawSplit) -> None:
        if self._row is None or not part.countable or self._config.check_counts == "off":
            return
        counts = self._row.counts.get(self.source.kind) or self._row.counts.get("tfds", {})
        expected = counts.get(split)
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
        train, dev = train_test_split(range(len(examples)), test_size=n_dev, random_state=seed)
    else:
        groups = [" / ".join(sorted(example.choices)) for example in examples]
        if len(set(groups)) < 2:
            raise UserError("all examples have the same choices, so they cannot be divided by them")
        splitter = GroupShuffleSplit(n_splits=1, test_size=division.share, random_state=seed)
        ((train, dev),) = splitter.split(examples, groups=groups)
    return [examples[index] for index in train], [examples[index] for index in dev]


def task_of(config: TaskConfig) -> Task:
    """The task that is asked for, before anything of it is read. Raises UserError for an unknown
    name, shape or metric, and for what does not fit together."""
    own = config.path and config.shape and config.metric
    row = TASKS.get(config.name or "")
    if config.name is not None and row is None and not own:
        near = nearest(config.name, TASKS)
        hint = f" (did you mean {near}?)" if near else ""
        raise UserError(
            f"task.name={config.name} is not known{hint}; a task of one's "
            "own needs task.path, task.shape and task.metric"
        )
    if config.name is None and config.path is None:
        raise UserError("no task: set task.name, or task.path, the folder or file of its examples")
    path = Path(config.path or "").expanduser().resolve()
    name = config.name or (path.name.partition(".")[0] if path.is_file() else path.name)
    shape = config.shape or (row and row.shape)
    metric = config.metric or (row and row.metric)
    if shape is None or metric is None:
        key, known = ("metric", METRICS) if shape else ("shape", FIELDS)
        raise UserError(f"task.{key} is needed for a task of one's own: one of {', '.join(known)}")
    if shape == "multiple_choice" and metric != "accuracy":
        raise UserError(f"task.metric={metric} does not fit multiple_choice; expected accuracy")
    same = row if row and row.shape == shape else None
    score_loss = config.score_loss
    if score_loss == "mse" and metric not in REGRESSION:
        raise UserError(
            f"task.score_loss=mse is for labels that are scores, which task.metric={metric} has "
            f"not; expected task.metric {' or '.join(REGRESSION)}"
        )
    rules = TRUNCATIONS[shape]
    truncation = config.truncation or (same and same.truncation) or rules[0]
    if truncation not in rules:
        raise UserError(
            f"task.truncation={truncation} is not for task.shape={shape}; expected "
            f"{' or '.join(rules)}"
        )
    return Task(
        name,
        shape,
        metric,
        further=same.further if same and metric == same.metric else (),
        truncation=truncation,
        score_loss=score_loss,
    )


def _source(config: TaskConfig, task: Task, row: Row | None, whole: bool) -> Source:
    assert task.shape is not None  # it is none for language models alone
    if config.path is not None:
        path = here(config.path)
        same_shape = row is not None and task.shape == row.shape
        row_format = RowFormat(task.shape, config.columns, row if same_shape else None)
        seed = config.split_seed or 0
        official = row and path.is_dir() and official_files(row, path, row_format, seed)
        if official:
            return official
        pronouns = row is not None and row.pronouns and same_shape
        if path.is_file():
            return TaskFile(path, row_format, seed, whole, pronouns, classes=not task.regression)
        more = tuple(row.splits) if row and not row.division else ()
        return TaskFolder(path, row_format, more, pronouns)
    if row is None or not row.builders:
        raise UserError(
            f"task.path is needed for task.name={config.name}, which TFDS does not have: a folder "
            "with train.jsonl, dev.jsonl"
        )
    if task.shape != row.shape:
        raise UserError(
            f"task.shape={task.shape}, but {config.name} of TFDS is {row.shape}; leave it out, or "
            "give task.path"
        )
    return TfdsSplits(row, config.data_dir)


def _classes(
    task: Task,
    row: Row | None,
    given: tuple | None,
    parts: dict[str, RawSplit],
    reader: _Reader,
) -> Classes:
    """The classes in the order of their indices: those given, else those of the table or of the
    training set, sorted; the places of a multiple choice; none of a score."""
    some = next(iter(parts.values()))
    if task.regression or task.shape == "multiple_choice":
        if given is not None:
            raise UserError("task.labels is for classes; scores and choices have none")
        return Classes(() if task.regression else tuple(range(len(some.examples[0].choices))))
    labelled = [part for part in parts.values() if part.examples[0].label is not None]
    classes = labelling.read_classes(task, row, given, labelled)
    if classes is None:
        if "train" not in parts:
            parts = labelling.with_numbers({"train": reader.part("train")}, None, False)
        classes = labelling.own_classes(parts["train"])
    if task.metric == "f1" and len(classes.names) != 2:
        raise UserError(
            f"{some.where}: {len(classes.names)} classes, but task.metric=f1 is for two, the "
            "second of them positive; use accuracy or matthews"
        )
    return classes
