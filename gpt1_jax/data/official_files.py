"""The files in which the authors of SciTail, MRPC and the Story Cloze Test hand theirs out."""

from dataclasses import replace
from pathlib import Path

from gpt1_jax.data.task_files import RowFormat, TaskFile, read_split, stream_examples
from gpt1_jax.data.tasks import Example, RawSplit, Row
from gpt1_jax.errors import UserError
from gpt1_jax.files.table_files import open_table
from gpt1_jax.files.text_lines import text_lines
from gpt1_jax.messages import shown


class SciTailFiles:
    """scitail_1.0_{train,dev,test}.tsv, as the Allen Institute hands them out: premise, hypothesis
    and label between tabs, with no header and no quoting. A reader of CSV that takes quotation
    marks for quotes loses rows of the training set."""

    kind = "official"

    def __init__(self, folder: Path):
        self.where = str(folder)
        paths = {split: folder / f"scitail_1.0_{split}.tsv" for split in ("train", "dev", "test")}
        self._files = {split: path for split, path in paths.items() if path.is_file()}
        self.splits = tuple(self._files)

    def read(self, split: str) -> RawSplit:
        """Raises UserError for what is not UTF-8, or a line that has not three columns."""
        path = self._files[split]
        examples = []
        for line, text in text_lines(path):
            columns = text.rstrip("\r\n").split("\t")
            if columns == [""]:
                continue
            if len(columns) != 3:
                raise UserError(
                    f"{path}, line {line}: {len(columns)} columns; expected premise, hypothesis "
                    "and label between tabs"
                )
            for key, value in zip(("premise", "hypothesis"), columns, strict=False):
                _require_text(value, key, f"{path}, line {line}")
            examples.append(Example((columns[0], columns[1]), (), columns[2], line))
        if not examples:
            raise UserError(f"{path}: no examples; expected one a line")
        return RawSplit(str(path), examples, kind="the authors' TSV", countable=True)


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
        self.splits = tuple(self._files)

    def read(self, split: str) -> RawSplit:
        """Raises UserError for what is no CSV, and for a story that is not whole, with its line."""
        path = self._files[split]
        table = open_table(path)
        examples = [self._example(row, table.place(line), line) for line, row in table.rows()]
        if not examples:
            raise UserError(f"{path}: no examples; expected one a row")
        return RawSplit(str(path), examples, kind="the authors' CSV", countable=True)

    def _example(self, row: dict, place: str, line: int) -> Example:
        for key in (*self.SENTENCES, *self.ENDINGS):
            if key not in row:
                raise UserError(f"{place}: no column {key}; expected those of the Story Cloze Test")
            _require_text(row[key], key, place)
        context = " ".join(row[key] for key in self.SENTENCES)
        endings = tuple(row[key] for key in self.ENDINGS)
        return Example((context, ""), endings, story_cloze_label(row.get(self.ANSWER), place), line)


def story_cloze_label(answer: str | int | None, place: str) -> int | None:
    """The index of the right ending, of a number from 1, or None where there is no answer."""
    if answer is None or str(answer) == "-1":
        return None
    if str(answer) not in ("1", "2"):
        raise UserError(f"{place}: the right ending is {shown(answer)}; expected 1 or 2")
    return int(answer) - 1


class ParaphraseFiles:
    """msr_paraphrase_train.txt and msr_paraphrase_test.txt, as Microsoft hands out MRPC. Which of
    the training pairs GLUE holds out stands in its dev_ids.tsv, beside them; without that, a part
    of them is drawn as of any single file."""

    kind = "official"
    IDS = ("#1 ID", "#2 ID")

    def __init__(self, folder: Path, row_format: RowFormat, seed: int):
        self.where = str(folder)
        self._format = row_format
        self._test = folder / "msr_paraphrase_test.txt"
        self._train = folder / "msr_paraphrase_train.txt"
        self._ids = folder / "dev_ids.tsv"
        self._drawn = TaskFile(self._train, row_format, seed, whole=False)
        whole = self._train.is_file()
        self.splits = ("train", "dev", *(["test"] * self._test.is_file())) if whole else ()

    def read(self, split: str) -> RawSplit:
        """Raises UserError for each fault of the files (see `stream_examples`)."""
        if split == "test":
            return replace(read_split([self._test], self._format), countable=True)
        if not self._ids.is_file():
            return self._drawn.read(split)
        held_out = {tuple(line.split()) for _, line in text_lines(self._ids)}
        examples = [
            example
            for row, example in stream_examples(self._train, self._format, leaves_out=True)
            if (tuple(row[key] for key in self.IDS) in held_out) == (split == "dev")
        ]
        if not examples:
            raise UserError(f"{self._ids} leaves no pair of {self._train.name} for {split}")
        whole = read_split([self._train], self._format)
        return replace(whole, examples=examples, countable=True)


def official_files(
    row: Row, folder: Path, row_format: RowFormat, seed: int
) -> SciTailFiles | StoryClozeFiles | ParaphraseFiles | None:
    """The files of a folder as the task's authors hand them out, if it has any. `row_format` and
    `seed`: of rows, and of the division of a file, where there is one."""
    if row.name == "scitail":
        files = SciTailFiles(folder)
    elif row.name == "mrpc" and not any(folder.glob("train*")):
        files = ParaphraseFiles(folder, row_format, seed)
    elif row.name.startswith("story_cloze"):
        files = StoryClozeFiles(folder, row.builders[0].rpartition("/")[2])
    else:
        return None
    return files if files.splits else None


def _require_text(value: str, key: str, place: str) -> None:
    if not value.strip():
        raise UserError(f"{place}: {key} is empty; fill it or leave the line out")
