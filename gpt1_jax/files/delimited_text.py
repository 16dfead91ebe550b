"""CSV and TSV: what stands between the columns of a file, what its quotation marks do, its rows."""

import csv
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gpt1_jax.errors import UserError
from gpt1_jax.files.text_lines import text_lines
from gpt1_jax.messages import shown

DelimitedKind = Literal["CSV", "TSV"]
# What quotation marks do in a file; of some it does not say.
Marks = Literal["quote", "text", "either"]

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 2**26  # characters; an unpaired quotation mark swallows what follows it
LOOK_ROWS = 20


@dataclass(frozen=True)
class Delimited:
    """The form of a file.

    description: its kind with the details.
    columns: the names of the columns, in the header where it `has_header`.
    separator, quotes: what stands between columns, and whether quotation marks quote.
    first_line: that of the header, or of the first row where there is none.
    served: whether it is a file of GLUE's server, by its columns and its quotation marks.
    blanks: whether those behind a separator are part of a text.
    """

    kind: DelimitedKind
    description: str
    columns: tuple[str, ...]
    separator: str
    quotes: bool
    first_line: int
    has_header: bool
    served: bool
    blanks: bool = True


def look_inside(
    path: Path, kind: DelimitedKind, served: tuple[str, ...], headerless: tuple[str, ...]
) -> Delimited:
    """The form of a file, from its first lines and its quotation marks.

    Args:
      served, headerless: as of `open_table`.

    Raises:
      UserError: a file without rows, or with two columns of one name.
    """
    number, line = next(((n, x) for n, x in text_lines(path) if x.strip()), (1, ""))
    own = separator = "," if kind == "CSV" else "\t"
    if re.fullmatch(r"sep=[^\r\n]\s*", line, re.IGNORECASE):
        number, separator = number + 1, line[4]  # a note of Excel to itself
    else:
        separator = _separator(re.split("[\r\n]", line)[0], own)
    cells = {cell.strip() for cell in line.split("\t")}
    bare = bool(headerless) and len(line.split("\t")) == len(headerless)
    bare = bare and not cells & set(headerless)
    as_served = kind == "TSV" and (bare or (bool(served) and set(served) <= cells))
    marks = _marks(path, separator) if separator == "\t" else "quote"
    # Programs that save such a table again quote in it.
    as_served = as_served and marks != "quote"
    quotes = marks == "quote" or (marks == "either" and not as_served)
    description: str = kind
    if separator != own:
        description += f" with {SEPARATORS.get(separator, repr(separator))} between columns"
    if quotes != (kind == "CSV"):
        description += ", quotation marks " + ("quote" if quotes else "are text")
    found = Delimited(kind, description, headerless, separator, quotes, number, not bare, as_served)
    if bare:
        return found
    # In what is written by hand, a mark that quotes may stand behind a blank.
    first = (
        cell for _, cells in itertools.islice(_records(path, found), LOOK_ROWS) for cell in cells
    )
    if quotes and any(re.match(' +"', cell) for cell in first):
        found = replace(found, blanks=False)
    header = next(_records(path, found), None)
    if header is None:
        raise UserError(f"{path}: no rows; expected a header and a row or more")
    names = tuple(cell.strip() for cell in header[1])
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f"{path}, line {number}: two columns are called {shown(twice[0])}")
    return replace(found, columns=names)


def _separator(header: str, own: str) -> str:
    """What stands between the names of a header: what the kind of file has, or else whatever
    makes most columns of it. It stands in no name but between quotation marks."""

    def columns(separator: str) -> int:
        try:
            cells = next(csv.reader([header], delimiter=separator))
        except csv.Error:
            return 0
        return 0 if any('"' in cell for cell in cells) else len(cells)

    return own if columns(own) > 1 else max([own, *SEPARATORS], key=columns)


def _marks(path: Path, separator: str) -> Marks:
    """What the quotation marks of a file do. They quote where a quoted cell has a mark, doubled,
    or a line end in it. They are text where a cell begins with one and is not quoted as a whole,
    if each line is a whole row or a reader of quotes would swallow rows."""
    n_columns, alone, quoted, ragged = 0, False, False, False
    for _, line in text_lines(path):
        cells = line.rstrip("\r\n").split(separator)
        n_columns = n_columns or len(cells)
        ragged = ragged or (bool(line.strip()) and len(cells) != n_columns)
        for cell in cells:
            if cell.startswith('"'):
                whole = len(cell) > 1 and cell.endswith('"') and '"' not in _undoubled(cell)
                quoted = quoted or (whole and '""' in cell[1:-1])
                alone = alone or not whole
    if alone:
        return _quoted(path, separator) if ragged else "text"
    return "quote" if quoted else "either"


def _undoubled(cell: str) -> str:
    """What a quoted cell holds, without its doubled marks."""
    return cell[1:-1].replace('""', "")


def _quoted(path: Path, separator: str) -> Marks:
    """What the marks of a file do of whose lines not all are whole rows: text, if a reader of
    quotes makes one cell of what are rows, with line ends in it and what stands between columns."""
    csv.field_size_limit(LONGEST_CELL)
    lines = (line for _, line in text_lines(path))
    try:
        for cells in csv.reader(lines, delimiter=separator, strict=True):
            if any("\n" in cell and separator in cell for cell in cells):
                return "text"
    except csv.Error:
        return "either"
    return "quote"


def _records(path: Path, form: Delimited) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, the header's too, with the line on which it begins; rows without
    anything in them are passed over."""
    lines = ((n, line) for n, line in text_lines(path) if n >= form.first_line)
    if not form.quotes:
        for number, line in lines:
            if line.strip():
                yield number, line.rstrip("\r\n").split(form.separator)
        return
    csv.field_size_limit(LONGEST_CELL)
    # Lines may also end as they did on the first Macintosh.
    pieces = (piece for _, line in lines for piece in re.split(r"(?<=\r)(?!\n)", line) if piece)
    reader = csv.reader(
        pieces, delimiter=form.separator, strict=True, skipinitialspace=not form.blanks
    )
    number = form.first_line
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}, line {number}: not {form.kind} ({error}); expected quotation marks in "
                "pairs, and doubled where they are part of a text"
            ) from None
        if any(cell.strip() for cell in cells):
            yield number, cells
        number = form.first_line + reader.line_num


def rows(path: Path, form: Delimited) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row as {column: cell} with the number of its line (see `TableFile.rows`). UserError for
    what is no row, at its line."""
    names, records = form.columns, _records(path, form)
    if form.has_header:
        next(records, None)
    for number, cells in records:
        beyond = [cell for cell in cells[len(names) :] if cell.strip()]
        if beyond and not form.served:
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, but the header has {len(names)}; "
                "a text with a separator in it is put in quotation marks"
            )
        # strict=False: programs leave out empty cells at the end of a row. A first column without a
        # name is the index of a form.
        places = enumerate(zip(names, cells, strict=False))
        row: dict[str, Any] = {name: cell for place, (name, cell) in places if name or place == 0}
        yield number, row | ({None: beyond} if beyond else {})  # type: ignore[dict-item]
