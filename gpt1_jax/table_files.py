"""Files of rows, whatever their kind: JSON lines, a JSON list, CSV, TSV, Parquet, Arrow.

The name of a file says what it should be, and a look inside what it is: a .json file may have an
object on each line, a .csv file semicolons, a .tsv file quotation marks that quote or that are just
marks. Text is UTF-8, or UTF-16 with its byte order mark, as spreadsheets save it; it may be packed,
.gz or .xz. All kinds but a JSON list are read row by row.
"""

import codecs
import contextlib
import csv
import gzip
import io
import itertools
import json
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

from gpt1_jax import disk, json_files, text_encoding
from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible

Row = dict[str, Any]
Kind = Literal["JSON lines", "a JSON list", "CSV", "TSV", "Parquet", "Arrow"]

# What quotation marks do in a file; of some it does not say.
Marks = Literal["quote", "text", "either"]

SUFFIXES: dict[str, Kind] = {
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "a JSON list",
    ".csv": "CSV",
    ".tsv": "TSV",
    ".parquet": "Parquet",
    ".arrow": "Arrow",
}
PIPE = "is a pipe or a device, which is read only once; save it to a file first"
PACKED = (".gz", ".xz")
EXPECTED = f"expected {', '.join(SUFFIXES)}; text also packed as {' or '.join(PACKED)}"
# What begins like this, also where it should be packed, stands for a file that was never fetched.
POINTERS = {
    b"version https://git-lfs": "a pointer of Git LFS, not the file; fetch it by git lfs pull",
    b"/annex/objects/": "a pointer of git-annex, not the file; fetch it by git annex get",
}
# What begins like this is no table, whatever its name says.
FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or another zip archive; save the table as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; save the table as CSV UTF-8",
    b"<": "a page or another kind of markup; expected rows",
}
LONGEST_POINTER = max(map(len, POINTERS))
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_CELL = 2**26  # characters; an unpaired quotation mark swallows what follows it
LOOK = 2**16  # bytes of a look inside
LOOK_ROWS = 20
BATCH = 1024  # rows of Parquet held at a time


@dataclass(frozen=True)
class TableFile:
    """A file of rows.

    kind: as it turned out; `description` says it with its details.
    unit: what is counted, lines or rows, from 1.
    columns: the names in the header, None of JSON, whose rows each name their values.
    text_cells: whether every value is text, since the kind has nothing else.
    separator, quotes: of CSV and TSV, what stands between columns, and whether quotation marks
      quote; `first_line` is that of the header, or of the first row where none `has_header`.
    served: whether it is a file of GLUE's server, by its columns and its quotation marks.
    blanks: whether those behind a separator are part of a text.
    """

    path: Path
    kind: Kind
    description: str
    columns: tuple[str, ...] | None = None
    separator: str = ","
    quotes: bool = True
    first_line: int = 1
    has_header: bool = True
    served: bool = False
    blanks: bool = True

    @property
    def unit(self) -> str:
        return "row" if self.kind in ("Parquet", "Arrow", "a JSON list") else "line"

    @property
    def text_cells(self) -> bool:
        return self.kind in ("CSV", "TSV")

    def place(self, number: int) -> str:
        """For messages: the file and the line or row."""
        return f"{self.path}, {self.unit} {number}"

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Each row as {column: value} with the number of its line or row; blank ones are passed
        over, and of a row of text that is too short the last columns are absent. What a row of
        GLUE's server has too much stands under None. Raises UserError for what cannot be read, at
        its line."""
        if self.kind == "JSON lines":
            return _json_lines(self)
        if self.kind == "a JSON list":
            return _json_list(self)
        return _arrow_rows(self) if self.kind in ("Parquet", "Arrow") else _text_rows(self)


def plain_suffix(path: Path) -> str:
    """The suffix in small letters, that of the packing aside."""
    name = path.name.lower()
    for packing in PACKED:
        name = name.removesuffix(packing)
    return Path(name).suffix


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
    if look.startswith(b"PAR1") or by_name == "Parquet":
        return _arrow_table(path, "Parquet")
    if by_name == "Arrow":
        return _arrow_table(path, "Arrow")
    first = _first_line(path)
    if by_name is None and not first.startswith(("{", "[")):
        raise UserError(f"{path} is no table by its name; {EXPECTED}")
    if first.startswith("[") and by_name in (None, "a JSON list", "JSON lines"):
        return TableFile(path, "a JSON list", "a JSON list of rows")
    if by_name in ("CSV", "TSV") and not (first.startswith("{") and _is_object(first)):
        return _text_table(path, by_name, served, headerless)
    if by_name == "a JSON list" and not _is_object(first):
        raise UserError(f"{path}: expected a JSON list of rows, or a row on each line")
    return TableFile(path, "JSON lines", "JSON lines")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes of a file. UserError where they cannot be read."""
    if path.is_fifo() or path.is_char_device():  # to open one may be to wait for its writer
        raise UserError(f"{path} {PIPE}")
    packing = path.suffix.lower()
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(packing)
    try:
        with disk.opened(path) as packed:
            beginning = packed.read(LONGEST_POINTER)
            for pointer, what in POINTERS.items():
                if beginning.startswith(pointer):
                    raise UserError(f"{path} is {what}")
            packed.seek(0)
            if opener is None:
                yield packed
                return
            with opener(packed, "rb") as file:
                yield file
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise UserError(
            f"{path}: damaged or cut off ({error}); expected a whole {packing} file"
        ) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; expected a file in it") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers and ends; a byte order mark is no part of it.
    UserError for a line that is no text."""
    with opened(path) as file:
        mark = file.read(4)
        if mark in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
            raise _binary(path, 1)
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            file.seek(0)
            yield from _decoded_lines(path, file, "utf-16")
            return
        file.seek(0)
        offset = 0
        for number, data in enumerate(file, 1):
            try:
                line = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                place = f"at byte {error.start}"
                sample = text_encoding.read_around(file, offset + error.start)
                raise text_encoding.not_utf8(path, place, sample, number) from None
            offset += len(data)
            if "\0" in line:
                raise _binary(path, number)
            if text_encoding.ESCAPE in line:
                text_encoding.require_unescaped(path, data, f", line {number}")
            yield number, line


def _binary(path: Path, number: int) -> UserError:
    """What is said of a line with a NUL, and of text with several bytes for each character."""
    with opened(path) as file:
        sample = file.read(text_encoding.SAMPLE)
    if text_encoding.named(sample) is None:
        return UserError(f"{path}, line {number}: binary (a NUL); {EXPECTED}")
    return text_encoding.not_utf8(path, "at byte 0", sample)


def _decoded_lines(path: Path, file: BinaryIO, encoding: str) -> Iterator[tuple[int, str]]:
    number = 0
    try:
        with io.TextIOWrapper(file, encoding, newline="\n") as text:
            for number, line in enumerate(text, 1):
                yield number, line
    except UnicodeDecodeError:
        raise UserError(f"{path}, line {number + 1}: not UTF-16; save the file as UTF-8") from None


def _first_line(path: Path) -> str:
    """The first line with something on it, without white space around it."""
    stripped = (line.strip() for _, line in text_lines(path))
    return next((line for line in stripped if line), "")


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


def shown(value: Any) -> str:
    """A value for a message, cut if it is long."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:40] + "..."


# CSV and TSV


def _text_table(
    path: Path, kind: Kind, served: tuple[str, ...], headerless: tuple[str, ...]
) -> TableFile:
    """The table with what its first lines say of it."""
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
    description = kind
    if separator != own:
        description += f" with {SEPARATORS.get(separator, repr(separator))} between columns"
    if quotes != (kind == "CSV"):
        description += ", quotation marks " + ("quote" if quotes else "are text")
    table = TableFile(
        path, kind, description, headerless, separator, quotes, number, not bare, as_served
    )
    if bare:
        return table
    # In what is written by hand, a mark that quotes may stand behind a blank.
    first = (cell for _, cells in itertools.islice(_records(table), LOOK_ROWS) for cell in cells)
    if quotes and any(re.match(' +"', cell) for cell in first):
        table = replace(table, blanks=False)
    header = next(_records(table), None)
    if header is None:
        raise UserError(f"{path}: no rows; expected a header and a row or more")
    names = tuple(cell.strip() for cell in header[1])
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f"{table.place(number)}: two columns are called {shown(twice[0])}")
    return replace(table, columns=names)


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


def _records(table: TableFile) -> Iterator[tuple[int, list[str]]]:
    """The cells of each row, the header's too, with the line on which it begins; rows without
    anything in them are passed over."""
    lines = ((n, line) for n, line in text_lines(table.path) if n >= table.first_line)
    if not table.quotes:
        for number, line in lines:
            if line.strip():
                yield number, line.rstrip("\r\n").split(table.separator)
        return
    csv.field_size_limit(LONGEST_CELL)
    # Lines may also end as they did on the first Macintosh.
    pieces = (piece for _, line in lines for piece in re.split(r"(?<=\r)(?!\n)", line) if piece)
    reader = csv.reader(
        pieces, delimiter=table.separator, strict=True, skipinitialspace=not table.blanks
    )
    number = table.first_line
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{table.place(number)}: not {table.kind} ({error}); expected quotation marks in "
                "pairs, and doubled where they are part of a text"
            ) from None
        if any(cell.strip() for cell in cells):
            yield number, cells
        number = table.first_line + reader.line_num


def _text_rows(table: TableFile) -> Iterator[tuple[int, Row]]:
    names, records = table.columns or (), _records(table)
    if table.has_header:
        next(records, None)
    for number, cells in records:
        beyond = [cell for cell in cells[len(names) :] if cell.strip()]
        if beyond and not table.served:
            raise UserError(
                f"{table.place(number)}: {len(cells)} columns, but the header has {len(names)}; "
                "a text with a separator in it is put in quotation marks"
            )
        # strict=False: programs leave out empty cells at the end of a row. A first column without a
        # name is the index of a table.
        places = enumerate(zip(names, cells, strict=False))
        row: Row = {name: cell for place, (name, cell) in places if name or place == 0}
        yield number, row | ({None: beyond} if beyond else {})  # type: ignore[dict-item]


# Parquet, and Arrow as `save_to_disk` of the library datasets writes it


def _arrow_table(path: Path, kind: Kind) -> TableFile:
    with _batches(path, kind) as (columns, _):
        twice = [name for name in columns if columns.count(name) > 1]
        if twice:
            raise UserError(f"{path}: two columns are called {shown(twice[0])}")
        return TableFile(path, kind, kind, tuple(columns))


@contextlib.contextmanager
def _batches(path: Path, kind: Kind) -> Iterator[tuple[list[str], Iterator[Any]]]:
    """The names of the columns, and the rows by batches."""
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if kind == "Parquet":
            with parquet.ParquetFile(path) as file:
                yield file.schema_arrow.names, file.iter_batches(batch_size=BATCH)
        else:
            with pyarrow.memory_map(str(path)) as source, ipc.open_stream(source) as stream:
                yield stream.schema.names, iter(stream)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as {kind}: {reason}") from None


def _arrow_rows(table: TableFile) -> Iterator[tuple[int, Row]]:
    with _batches(table.path, table.kind) as (_, batches):
        rows = itertools.chain.from_iterable(_values(table.path, batch) for batch in batches)
        for number, row in enumerate(rows, 1):
            # Tables of numbers have no other word for an empty cell.
            yield number, {k: None if v != v else v for k, v in row.items()}


def _values(path: Path, batch: Any) -> list[Row]:
    """The rows of a batch. Times are text, since Python has none of a billionth of a second."""
    import pyarrow

    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            if pyarrow.types.is_temporal(column.type):
                wide = pyarrow.types.is_duration(column.type)
                column = column.cast(pyarrow.int64() if wide else pyarrow.string())
            columns.append(column.to_pylist())
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: the column {visible(name)} ({column.type}) cannot be read "
                f"({' '.join(str(error).split())[:100]}); save it as text, or leave it out"
            ) from None
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]
