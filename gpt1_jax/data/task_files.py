"""Tasks from files: rows of tables as examples, and where the splits of a task stand.

A folder holds train and dev, and test if there is one, each a file of any kind that table_files.py
reads; a single file is divided into train and dev. A row has the keys of its shape (FIELDS),
`choices` for multiple choice, and `label`; columns.py says which columns may stand for them. A
definite pronoun resolution may also say `pronoun_starts`.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gpt1_jax import json_files
from gpt1_jax.data.columns import CHOICES, LABEL, Columns, required_keys
from gpt1_jax.data.split_files import SPLIT_NAMES, Pieces, one_table, split_files
from gpt1_jax.data.tasks import FIELDS, Example, RawSplit, Row, Shape, folded
from gpt1_jax.errors import UserError
from gpt1_jax.files.table_files import SUFFIXES, Kind, TableFile, open_table
from gpt1_jax.files.text_lines import plain_suffix
from gpt1_jax.messages import shown, visible

# The part of a single file that becomes dev.
DEV_SHARE = 0.1


@dataclass(frozen=True)
class RowFormat:
    """What a row is: `shape` and `columns` as of Columns, and the known task, if it is one, whose
    rows these are."""

    shape: Shape
    columns: tuple[str, ...] | None = None
    task: Row | None = None

    def open(self, path: Path) -> TableFile:
        """The file, ready to be read. UserError as in `open_table`."""
        if self.task is None:
            return open_table(path)
        served = self.task.columns or self.task.features
        # MRPC's authors call their tables .txt.
        kind: Kind | None = "TSV" if plain_suffix(path) == ".txt" else None
        return open_table(path, served, self.task.headerless, kind)

    @cached_property
    def names(self) -> Columns:
        """The columns of the shape. UserError for a mistake in `columns`."""
        return Columns(self.shape, self.columns, self.task)


class TaskFolder:
    """The splits of a folder. `more` names those that may stand beside train, dev and test. With
    `pronouns`, examples know where theirs stands."""

    kind = "files"

    def __init__(
        self,
        folder: Path,
        row_format: RowFormat,
        more: tuple[str, ...] = (),
        pronouns: bool = False,
    ):
        """Raises UserError if `folder` is none, or has a split twice."""
        if not folder.is_dir():
            raise UserError(
                f"task.path={folder} is not a folder or a file; expected a folder with train and "
                f"dev.jsonl (or {', '.join(SUFFIXES)}), or one such file"
            )
        self.where = str(folder)
        self._format, self._pronouns = row_format, pronouns
        splits = dict.fromkeys(("train", "dev", "test", *more))
        names = {split: split for split in splits} | SPLIT_NAMES
        if row_format.task and more:
            names |= {name: split for split, name in row_format.task.splits.items()}
            names |= {name: split for split, name in row_format.task.files.items()}
        self._files = split_files(folder, names)
        self.splits = tuple(split for split in splits if split in self._files)

    def read(self, split: str) -> RawSplit:
        """Raises UserError for each fault of the files (see `stream_examples`)."""
        return read_split(self._files[split], self._format, self._pronouns)


class TaskFile:
    """The splits of a single file: a part of its rows, drawn by a hash of `seed` and their texts,
    is dev, and rows with the same texts stay together; of `classes` no one is in dev alone. `whole`
    does not divide: whichever split is asked for is all of the file."""

    kind = "file"
    splits: tuple[str, ...] = ("train", "dev")

    def __init__(
        self,
        path: Path,
        row_format: RowFormat,
        seed: int,
        whole: bool,
        pronouns: bool = False,
        classes: bool = True,
    ):
        self.where = str(path)
        self._classes = classes
        self._path, self._format, self._pronouns = path, row_format, pronouns
        self._seed, self._whole = seed, whole

    def read(self, split: str) -> RawSplit:
        """Raises UserError as that of TaskFolder does, and for rows too few to be divided."""
        if self._whole:
            return replace(self._read, countable=False)
        in_dev = self._dev_lines
        examples = [e for e in self._read.examples if (e.line in in_dev) == (split == "dev")]
        note = (
            f"{self._path}: divided into {len(self._read.examples) - len(in_dev)} rows for train "
            f"and {len(in_dev)} for dev by a hash of their texts and task.split_seed={self._seed}"
        )
        notes = (*self._read.notes, note) if split == "train" else self._read.notes
        return replace(self._read, examples=examples, notes=notes, countable=False)

    @cached_property
    def _read(self) -> RawSplit:
        return read_split([self._path], self._format, self._pronouns)

    @cached_property
    def _dev_lines(self) -> set[int]:
        groups: dict[bytes, list[Example]] = {}
        for example in self._read.examples:
            texts = json.dumps([self._seed, example.texts, example.choices])
            groups.setdefault(hashlib.sha256(texts.encode()).digest(), []).append(example)
        if len(groups) < 2:
            raise UserError(
                f"{self._path}: {len(groups)} different row(s), too few for train and dev; give "
                "more rows, or a folder with both"
            )
        wanted = max(1, round(DEV_SHARE * len(self._read.examples)))
        left = Counter(map(self._class_key, self._read.examples))
        lines: set[int] = set()
        for key in sorted(groups)[:-1]:
            classes = Counter(map(self._class_key, groups[key]))
            # A class that would be in dev alone could not be learned.
            if len(lines) < wanted and all(left[name] > n for name, n in classes.items()):
                left -= classes
                lines |= {example.line for example in groups[key]}
        if not lines:
            raise UserError(
                f"{self._path}: no row can be spared for dev, each has a class of its own; give "
                "more rows, or a folder with train and dev"
            )
        return lines

    def _class_key(self, example: Example) -> str:
        return folded(str(example.label)) if self._classes else ""


def pronoun_starts(sentence: str, pronoun: str) -> list[int]:
    """Where a pronoun stands in a sentence as a word.

    >>> pronoun_starts("He hit it with its own spit, it seems.", "it")
    [7, 29]
    """
    return [match.start() for match in re.finditer(rf"\b{re.escape(pronoun)}\b", sentence)]


def _given_starts(row: dict, example: Example, place: str) -> list[int]:
    """`pronoun_starts` of a line, or where the pronoun is found."""
    context, pronoun = example.texts
    if "pronoun_starts" not in row:
        starts = pronoun_starts(context, pronoun)
        if not starts:
            raise UserError(
                f"{place}: the question {shown(pronoun)} is no word of the context; expected a "
                "pronoun that stands there"
            )
        return starts
    starts = row["pronoun_starts"]
    fits = isinstance(starts, list) and all(
        type(start) is int and start >= 0 and context.startswith(pronoun, start) for start in starts
    )
    if not (fits and starts):
        raise UserError(
            f"{place}: pronoun_starts is {shown(starts)}; expected a list of the places in the "
            f"context, counted from 0, at which {shown(pronoun)} stands"
        )
    return starts


def read_split(paths: list[Path], row_format: RowFormat, pronouns: bool = False) -> RawSplit:
    """The split that a file holds, or several pieces of one."""
    table = one_table([row_format.open(path) for path in paths])
    reader = _RowReader(table, row_format, leaves_out=True)
    examples, unclear = [], set()
    for row, example in reader.examples():
        if pronouns:
            starts = _given_starts(row, example, table.place(example.line))
            example = replace(example, pronoun_start=starts[0])
            if len(starts) > 1:
                unclear.add(example.line)
        examples.append(example)
    n = reader.incomplete
    left_out = f"{table.path}: {n} row(s) with too few or too many columns are left out"
    return RawSplit(
        str(table.path),
        examples,
        unit=table.unit,
        kind=reader.description,
        text_labels=table.text_cells,
        unclear=frozenset(unclear),
        countable=table.served,
        notes=(left_out,) if n else (),
    )


def read_examples(path: Path, row_format: RowFormat) -> list[Example]:
    """The examples of one file, labels as they are written and None where there is none.

    Raises UserError with file and line for what is no table, not UTF-8, or no row; a key that is
    missing or of the wrong type; an empty text, though a multiple choice may lack context, question
    and even some of its choices (three rows of ComVE do); a number of choices that changes; and for
    a file that is unreadable or empty.
    """
    return [example for _, example in stream_examples(path, row_format)]


def stream_examples(
    path: Path, row_format: RowFormat, leaves_out: bool = False
) -> Iterator[tuple[dict, Example]]:
    """The rows of a file with the examples that `read_examples` gives, one after the other; a fault
    is raised at its line. `leaves_out`: as training does, some rows of files of GLUE's server."""
    return _RowReader(row_format.open(path), row_format, leaves_out).examples()


def examples_of_rows(rows: Iterable[dict | Example], row_format: RowFormat) -> list[Example]:
    """The examples of rows in memory; those that are Examples are taken as they are. UserError as
    in `read_examples`, with the number of the row."""
    table = TableFile(Path("rows"), "JSON lines", "rows")
    reader = _RowReader(table, row_format)
    examples = [
        row if isinstance(row, Example) else reader.example(row, number)
        for number, row in enumerate(rows, 1)
    ]
    if not examples:
        raise UserError("no rows; expected at least one")
    return examples


class _RowReader:
    """Makes examples of the rows of a table. Of a file of GLUE's server with `leaves_out` it leaves
    out, and counts, rows with too few or too many columns, of which QQP has some."""

    def __init__(self, table: TableFile | Pieces, row_format: RowFormat, leaves_out: bool = False):
        self._table, self._format = table, row_format
        self._leaves_out = leaves_out and table.served
        self._columns: dict[tuple[str, ...], dict[str, str | list[str]]] = {}
        self._choosing = row_format.shape == "multiple_choice"
        self.incomplete = 0
        if table.columns is not None:
            found = self._find(table.columns, str(table.path))
            self._required(found, table.columns, str(table.path))

    @property
    def description(self) -> str:
        """The kind of the table, and what is read from which column where the names differ."""
        found = next(iter(self._columns.values()), {})
        others = [f"{key} from {column}" for key, column in found.items() if column != key]
        return visible("; ".join([self._table.description, *filter(None, [", ".join(others)])]))

    def examples(self) -> Iterator[tuple[dict, Example]]:
        first = None
        for line, row in self._table.rows():
            if self._leaves_out and not self._complete(row):
                self.incomplete += 1
                continue
            example = self.example(row, line)
            first = first or example
            if len(example.choices) != len(first.choices):
                raise UserError(
                    f"{self._table.place(line)}: {len(example.choices)} choices, but "
                    f"{len(first.choices)} on {self._table.unit} {first.line}; give each example "
                    "as many"
                )
            yield row, example
        if first is None:
            raise UserError(f"{self._table.path}: no examples; expected at least one row")

    def example(self, row: dict, line: int) -> Example:
        place = self._table.place(line)
        if None in row:
            raise UserError(f"{place}: more columns than the header has; expected as many")
        found = self._find(row, place)
        self._required(found, row, place)
        empty = self._choosing or self._table.served
        keys = FIELDS[self._format.shape]
        texts = tuple(_text(row[str(found[key])], key, place, empty) for key in keys)
        choices = self._choices(row, found[CHOICES], place) if self._choosing else ()
        for index, choice in enumerate(choices):
            if not "".join((*texts, choice)).strip():
                raise UserError(
                    f"{place}: choices[{index}] is empty, and so are context and question; fill "
                    "one of them or leave the line out"
                )
        label = row.get(str(found[LABEL])) if LABEL in found else None
        if self._table.text_cells and label is not None and not label.strip():
            label = None
        return Example(texts, choices, label, line)

    def _find(self, names: Iterable[str], place: str) -> dict[str, str | list[str]]:
        names = tuple(names)
        if names not in self._columns:
            self._columns[names] = self._format.names.find(names, place)
        return self._columns[names]

    def _complete(self, row: dict) -> bool:
        columns = self._find(self._table.columns or row, str(self._table.path))
        needed = (column for column in columns.values() if isinstance(column, str))
        return None not in row and all(column in row for column in needed)

    def _required(self, found: dict, names: Iterable[str], place: str) -> None:
        for key in required_keys(self._format.shape):
            if key not in found:
                fitting = [
                    other
                    for other in FIELDS
                    if all(k in Columns(other).find(names, place) for k in required_keys(other))
                ]
                hint = f"its keys are those of task.shape={fitting[0]}" if fitting else ""
                here = visible(", ".join(str(name) for name in names)) or "nothing"
                needs = ", ".join(required_keys(self._format.shape))
                where = f"columns={key}:NAME of the training says which it is; or rename it"
                raise UserError(
                    f"{place}: no key {key}; {self._format.shape} needs {needs}; "
                    + (hint or f"there is {here[:200]} ({where})")
                )

    def _choices(self, row: dict, columns: str | list[str], place: str) -> tuple[str, ...]:
        value: Any = [row.get(name) for name in columns]
        if isinstance(columns, str):
            value = row[columns]
        if isinstance(value, str) and value.lstrip().startswith("["):  # a list in a cell
            with contextlib.suppress(ValueError):
                value = json_files.decode(value)
        if not isinstance(value, list) or len(value) < 2:
            raise UserError(
                f"{place}: choices is {shown(value)}; expected a list of two or more, or "
                "columns=choices:FIRST|SECOND of the training"
            )
        choices = tuple(
            _text(choice, f"choices[{index}]", place, may_be_empty=True)
            for index, choice in enumerate(value)
        )
        if not any(choice.strip() for choice in choices):
            raise UserError(f"{place}: all choices are empty; fill them or leave the line out")
        return choices


def _text(value: Any, key: str, place: str, may_be_empty: bool = False) -> str:
    if not isinstance(value, str):
        raise UserError(f"{place}: {key} is {shown(value)}; expected a string")
    if not (value.strip() or may_be_empty):
        raise UserError(f"{place}: {key} is empty; fill it or leave the line out")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON can escape half of a surrogate pair, which no text contains
        raise UserError(
            f"{place}: {key} has half a surrogate pair, which is no character"
        ) from None
    return value
