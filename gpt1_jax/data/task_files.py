"""Tasks from files: folders of JSON lines, and the files in which some authors hand theirs out.

A JSONL folder holds train and dev, and test if there is one, as `.jsonl`, `.jsonl.gz` or
`.jsonl.xz`: one object a line, with the keys of its shape (FIELDS), `choices` for multiple choice,
and `label`. A definite pronoun resolution may also say `pronoun_starts`.
"""

import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from gpt1_jax.data.tasks import FIELDS, Example, Part, Row
from gpt1_jax.errors import UserError


class JsonlFolder:
    """The splits of a folder of JSON lines; `more` names those that may stand beside train, dev
    and test. With `pronouns`, examples know where theirs stands."""

    kind = "jsonl"

    def __init__(
        self, folder: Path, shape: str, more: tuple[str, ...] = (), pronouns: bool = False
    ):
        """Raises UserError if `folder` is none, or has a split twice."""
        if not folder.is_dir():
            raise UserError(
                f"task.path={folder} is not a folder; expected one with train and dev.jsonl"
            )
        self.where = str(folder)
        self._shape, self._pronouns, self._files = shape, pronouns, {}
        for split in dict.fromkeys(("train", "dev", "test", *more)):
            names = [f"{split}.jsonl{suffix}" for suffix in ("", ".gz", ".xz")]
            found = [folder / name for name in names if (folder / name).is_file()]
            if len(found) > 1:
                raise UserError(f"{found[0]} stands beside {found[1].name}; keep one of them")
            if found:
                self._files[split] = found[0]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def read(self, split: str) -> Part:
        path = self._files[split]
        if not self._pronouns:
            return Part(str(path), read(path, self._shape))
        examples, unclear = [], set()
        for row, example in _read(path, self._shape):
            starts = _given_starts(row, example, _place(path, example.line))
            examples.append(replace(example, pronoun_start=starts[0]))
            if len(starts) > 1:
                unclear.add(example.line)
        return Part(str(path), examples, unclear=frozenset(unclear))


class SciTailFiles:
    """scitail_1.0_{train,dev,test}.tsv, as the Allen Institute hands them out: premise, hypothesis
    and label between tabs, with no header and no quoting. A reader of CSV that takes quotation
    marks for quotes loses rows of the training set."""

    kind = "official"

    def __init__(self, folder: Path):
        self.where = str(folder)
        paths = {split: folder / f"scitail_1.0_{split}.tsv" for split in ("train", "dev", "test")}
        self._files = {split: path for split, path in paths.items() if path.is_file()}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def read(self, split: str) -> Part:
        path = self._files[split]
        examples = []
        for line, text in enumerate(_text_of(path).split("\n"), 1):
            columns = text.rstrip("\r").split("\t")
            if columns == [""]:
                continue
            place = _place(path, line)
            if len(columns) != 3:
                raise UserError(
                    f"{place}: {len(columns)} columns; expected premise, hypothesis and label "
                    "between tabs"
                )
            premise, hypothesis, label = columns
            texts = _text(premise, "premise", place), _text(hypothesis, "hypothesis", place)
            examples.append(Example(texts, (), label, line))
        return Part(str(path), _some(examples, path), countable=True)


class StoryClozeFiles:
    """cloze_test_{val,test}__spring2016.csv or ...winter2018.csv, which the University of Rochester
    sends on request; also under the longer names that the 2016 files come with.

    Labels are 1 and 2 there; files of a test whose answers are kept back lack the column.
    """

    kind = "official"
    SENTENCES = tuple(f"InputSentence{number}" for number in (1, 2, 3, 4))
    ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")
    ANSWER = "AnswerRightEnding"

    def __init__(self, folder: Path, year: str):
        """Raises UserError if one of the files stands there twice."""
        self.where = str(folder)
        season = {"2016": "spring2016", "2018": "winter2018"}[year]
        self._files = {}
        for split, short in (("validation", "val"), ("test", "test")):
            found = sorted(folder.glob(f"cloze_test_{short}__{season}*.csv"))
            if len(found) > 1:
                raise UserError(f"{found[0]} stands beside {found[1].name}; keep one of them")
            if found:
                self._files[split] = found[0]

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._files)

    def read(self, split: str) -> Part:
        path = self._files[split]
        reader = csv.DictReader(io.StringIO(_text_of(path), newline=""), strict=True)
        try:
            examples = [self._example(row, path, reader.line_num) for row in reader]
        except csv.Error as error:
            raise UserError(f"{_place(path, reader.line_num)}: not CSV ({error})") from None
        return Part(str(path), _some(examples, path), countable=True)

    def _example(self, row: dict, path: Path, line: int) -> Example:
        place = _place(path, line)
        for key in (*self.SENTENCES, *self.ENDINGS):
            if not isinstance(row.get(key), str):
                raise UserError(f"{place}: no column {key}; expected those of the Story Cloze Test")
        context = " ".join(_text(row[key], key, place) for key in self.SENTENCES)
        endings = tuple(_text(row[key], key, place) for key in self.ENDINGS)
        return Example((context, ""), endings, story_cloze_label(row.get(self.ANSWER), place), line)


def story_cloze_label(answer, place: str) -> int | None:
    """The index of the right ending, of a number from 1, or None where there is no answer."""
    if answer is None or str(answer) == "-1":
        return None
    if str(answer) not in ("1", "2"):
        raise UserError(f"{place}: the right ending is {_shown(answer)}; expected 1 or 2")
    return int(answer) - 1


def official_files(row: Row, folder: Path) -> SciTailFiles | StoryClozeFiles | None:
    """The files of a folder as the task's authors hand them out, if it has any."""
    if row.name == "scitail":
        files = SciTailFiles(folder)
    elif row.name.startswith("story_cloze"):
        files = StoryClozeFiles(folder, row.builders[0].rpartition("/")[2])
    else:
        return None
    return files if files.splits else None


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
                f"{place}: the question {_shown(pronoun)} is no word of the context; expected a "
                "pronoun that stands there"
            )
        return starts
    starts = row["pronoun_starts"]
    fits = isinstance(starts, list) and all(
        type(start) is int and start >= 0 and context.startswith(pronoun, start) for start in starts
    )
    if not (fits and starts):
        raise UserError(
            f"{place}: pronoun_starts is {_shown(starts)}; expected a list of the places in the "
            f"context, counted from 0, at which {_shown(pronoun)} stands"
        )
    return starts


def read(path: Path, shape: str) -> list[Example]:
    """The examples of one JSONL file, labels as they are written and None where there is none.

    Raises UserError with file and line for what is not UTF-8, not JSON or not an object; a key
    that is missing or of the wrong type; an empty text, though a multiple choice may lack context,
    question and even some of its choices (three rows of ComVE do); a label that is null; a number
    of choices that changes; and for a file that is unreadable or empty.
    """
    return list(stream(path, shape))


def stream(path: Path, shape: str) -> Iterator[Example]:
    """The examples that `read` gives, one after the other; a fault is raised at its line."""
    return (example for _, example in _read(path, shape))


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


def _read(path: Path, shape: str) -> Iterator[tuple[dict, Example]]:
    first = None
    for line, row in _rows(path):
        example = _example(row, shape, path, line)
        first = first or example
        if len(example.choices) != len(first.choices):
            raise UserError(
                f"{_place(path, line)}: {len(example.choices)} choices, but "
                f"{len(first.choices)} on line {first.line}; give each example as many"
            )
        yield row, example
    if first is None:
        raise UserError(f"{path}: no examples; expected one JSON object a line")


def _some(examples: list[Example], path: Path) -> list[Example]:
    if not examples:
        raise UserError(f"{path}: no examples; expected one a line")
    return examples


def _place(path: Path, line: int) -> str:
    return f"{path}, line {line}"


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise UserError(f"{_place(path, line)}: not UTF-8; save the file as UTF-8") from None


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
    for index, choice in enumerate(choices):
        if not "".join((*texts, choice)).strip():
            raise UserError(
                f"{place}: choices[{index}] is empty, and so are context and question; fill one of "
                "them or leave the line out"
            )
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
