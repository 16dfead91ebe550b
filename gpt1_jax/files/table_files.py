"""Files of rows, whatever their kind: JSON lines, a JSON list, CSV, TSV, Parquet, Arrow.

The name of a file says what it should be, and a look inside what it is: a .json file may have an
object on each line, a .csv file semicolons, a .tsv file quotation marks that quote or that are just
marks. Text is UTF-8, or UTF-16 with its byte order mark, as spreadsheets save it; it may be packed,
.gz or .xz. All kinds but a JSON list are read row by row.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.files import columnar_files, delimited_text
from gpt1_jax.files.columnar_files import Columnar
from gpt1_jax.files.delimited_text import Delimited, DelimitedKind
from gpt1_jax.files.text_lines import PACKED, first_line, opened, plain_suffix, text_lines
from gpt1_jax.messages import shown

Row = dict[str, Any]
Kind = Literal["JSON lines", "a JSON list"] | DelimitedKind | Columnar

SUFFIXES: dict[str, Kind] = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "a JSON list",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
}
EXPECTED = f"expected {', '.join(SUFFIXES)}; text also packed as {' or '.join(PACKED)}"
# What begins like this is no table, whatever its name says.
FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or another zip archive; save the table as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; save the table as CSV UTF-8",
    b"<": "a page or another kind of markup; expected rows",
}
LOOK = 2**16  # bytes of a look inside


@dataclass(frozen=True)
class TableFile:
    """A file of rows.

    kind: as it turned out; `description` says it with its details.
    unit: what is counted, lines or rows, from 1.
    columns: the names in the header, None of JSON, whose rows each name their values.
    form: of CSV and TSV.
    """

    path: Path
    kind: Kind
    description: str
    columns: tuple[str, ...] | None = None
    form: Delimited | None = None

    @property
    def unit(self) -> str:
        """What is counted, from 1."""
        return "row" if self.kind in ("Parquet", "Arrow", "a JSON list") else "line"

    @property
    def text_cells(self) -> bool:
        """Whether every value is text, since the kind has nothing else."""
        return self.form is not None

    @property
    def served(self) -> bool:
        """Whether it is a file of GLUE's server, by its columns and its quotation marks."""
        return self.form is not None and self.form.served

    def place(self, number: int) -> str:
        """For messages: the file and the line or row."""
        return f"{self.path}, {self.unit} {number}"

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Each row as {column: value} with the number of its line or row; blank ones are passed
        over, and of a row of text that is too short the last columns are absent. What a row of
        GLUE's server has too much stands under None. Raises UserError for what cannot be read, at
        its line."""
        if self.form is not None:
            return delimited_text.rows(self.path, self.form)
        if self.kind == "Parquet" or self.kind == "Arrow":
            return columnar_files.rows(self.path, self.kind)
        return _json_lines(self) if self.kind == "JSON lines" else _json_list(self)


def open_table(
    path: Path,
    served: tuple[str, ...] = (),
    headerless: tuple[str, ...] = (),
    kind: Kind | None = None,
) -> TableFile:
    """The file with its kind, after a look inside.

    Args:
      kind: what it should be; None is what its name says.
      served: columns of a TSV file of GLUE's server, in which quotation marks do not quote.
      headerless: all its columns, where the first row has as many cells and none of these names.

    Raises:
      UserError: a file that cannot be read, has no rows, or is no table.
    """
    by_name = kind or SUFFIXES.get(plain_suffix(path))
    with opened(path) as file:
        look = file.read(LOOK)
    for beginning, what in FOREIGN.items():
        if look.lstrip().startswith(beginning):
            raise UserError(f"{path} is {what}")
    kind = "Parquet" if look.startswith(b"PAR1") else by_name
    if kind == "Parquet" or kind == "Arrow":
        return TableFile(path, kind, kind, columnar_files.columns(path, kind))
    first = first_line(path)
    if by_name is None and not first.startswith(("{", "[")):
        raise UserError(f"{path} is no table by its name; {EXPECTED}")
    if first.startswith("[") and by_name in (None, "a JSON list", "JSON lines"):
        return TableFile(path, "a JSON list", "a JSON list of rows")
    rows_of_json = first.startswith("{") and _is_object(first)
    if (by_name == "CSV" or by_name == "TSV") and not rows_of_json:
        form = delimited_text.look_inside(path, by_name, served, headerless)
        return TableFile(path, by_name, form.description, form.columns, form)
    if by_name == "a JSON list" and not _is_object(first):
        raise UserError(f"{path}: expected a JSON list of rows, or a row on each line")
    return TableFile(path, "JSON lines", "JSON lines")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


# JSON


def _json_lines(table: TableFile) -> Iterator[tuple[int, Row]]:
    for number, line in text_lines(table.path):
        if not line.strip():
            continue
        try:
            value = json_files.decode(line)
        except ValueError as error:
            raise UserError(
                f"{table.place(number)}: not JSON ({error}); expected one object a line"
            ) from None
        yield number, _row(value, table.place(number))


def _json_list(table: TableFile) -> Iterator[tuple[int, Row]]:
    text = "".join(line for _, line in text_lines(table.path))
    blank = re.compile(r"\s*")
    at = blank.match(text, blank.match(text).end() + 1).end()  # type: ignore[union-attr]
    number = 0
    while not text.startswith("]", at):
        number += 1
        try:
            value, at = json_files.decode_from(text, at)
        except ValueError as error:
            raise UserError(
                f"{table.place(number)}: not JSON ({error}); expected a list of objects"
            ) from None
        yield number, _row(value, table.place(number))
        at = blank.match(text, at).end()  # type: ignore[union-attr]
        if not text.startswith((",", "]"), at):
            line = text.count("\n", 0, at) + 1
            raise UserError(
                f"{table.path}, line {line}: not JSON; expected , or ] after row {number}"
            )
        if text.startswith(",", at):
            at = blank.match(text, at + 1).end()  # type: ignore[union-attr]
    if text[at + 1 :].strip():
        raise UserError(f"{table.path}: there is more after the list of rows")


def _row(value: Any, place: str) -> Row:
    if not isinstance(value, dict):
        raise UserError(f"{place}: {shown(value)} is not an object; expected {{...}}")
    return value
