"""What a file of text holds: a document, or a table with a document in each row.

The name of a file says what it should be, and a look inside what it is. Rows are read as rows,
which take a word about their column unless it is the usual one of JSON. What is plainly not the
text of a document is refused: a pointer to a file that was never fetched, the page that a server
sent in its place, the markup of a tool, pages in print, subtitles.
"""

import codecs
import csv
import difflib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gpt1_jax.errors import UserError
from gpt1_jax.files import text_encoding
from gpt1_jax.files.table_files import LOOK, SUFFIXES, Kind, TableFile, open_table
from gpt1_jax.files.text_lines import opened, plain_suffix
from gpt1_jax.messages import shown, visible

TEXT_KEY = "text"  # of rows of JSON, unless told otherwise
_SUBTITLES = "subtitles, with the times of their lines"
_NO_TEXT = {
    rb"\s*<(!doctype|[!?]?[a-z][\w:-]*)[^<>|]*>": "markup, as of a page or a tool",
    rb"%PDF-|%!PS": "a page in print (PDF or PostScript)",
    rb"\{\\rtf": "a document of a word processor (RTF)",
    rb"PK\x03\x04|\xd0\xcf\x11\xe0": "a document of an office program, or another archive",
    rb"WARC/\d": "a file of a tool",
    rb"WEBVTT": _SUBTITLES,
    rb"\s*(\d+\s+)?\d{1,2}:\d\d(:\d\d)?[.,]\d{1,3}\s*(-->|,)\s*\d{1,2}:\d\d": _SUBTITLES,  # SubRip
    rb"\{\d+\}\{\d+\}": _SUBTITLES,  # MicroDVD, which counts pictures
    rb"\[script info\]": _SUBTITLES,  # SubStation Alpha
    rb"(\[[a-z]+:[^\]\n]*\]\s*)*\[\d+:\d\d\.\d\d\]": _SUBTITLES,  # LRC, of songs
    rb"\x1f\x8b": "packed by gzip; give it a name with .gz",
    rb"\xfd7zXZ": "packed by xz; give it a name with .xz",
    rb"BZh\d1AY&SY": "packed by bzip2; unpack it first",
    rb"\x28\xb5\x2f\xfd": "packed by zstd; unpack it first",
    # What servers send in place of a file, and nothing beside it.
    rb"(\d{3}:? )?(file |page |entry |repository )?not found\W*$": "the error message of a server",
    rb"(\d{3}:? )?(forbidden|access denied|unauthorized|too many requests)\W*$": "the error "
    "message of a server",
}
_FOREIGN = [(re.compile(text, re.IGNORECASE), what) for text, what in _NO_TEXT.items()]
_JSON = re.compile(rb'\s*(\[\s*)?\{\s*"[^"\n]*"\s*:')
_HEADER = re.compile(r'"?\w+"?(?:([,;|\t])"?\w+"?)(?:\1"?\w+"?)*')


def table_of(path: Path, text_key: str | None) -> TableFile | None:
    """The table that a file is; None of a document.

    Raises:
      UserError: what cannot be read, is neither, or is a table without the column.
    """
    kind = SUFFIXES.get(plain_suffix(path))
    if kind is None:
        with opened(path) as stream:
            look = stream.read(LOOK).removeprefix(codecs.BOM_UTF8)
        for pattern, what in _FOREIGN:
            if pattern.match(look):
                raise UserError(f"{path}: {what}; expected the text of a document")
        if not _JSON.match(look):
            kind = _kind_of_rows(look)
            if kind is None:
                return None
    table = open_table(path, kind=kind)
    if table.columns is not None:
        _check_column(table, text_key)
    return table


def rows(table: TableFile, text_key: str | None) -> Iterator[tuple[int, str]]:
    """The text of each row, with the number of its line or row. UserError where it has none."""
    key = text_key or TEXT_KEY
    for number, row in table.rows():
        value = row.get(key)
        if value is None and table.columns is not None:
            value = ""  # an empty cell
        if not isinstance(value, str):
            has = visible(", ".join(row)) or "no keys"
            found = f"{key} is {shown(value)}" if key in row else f"the row has {has}"
            raise UserError(
                f"{table.place(number)}: {found}; "
                f'expected {{"{key}": "..."}}, a string; another key is named by --text_key'
            )
        require_utf8(value, table.place(number))
        yield number, value


def decoded(path: Path, block: int) -> Iterator[str]:
    """The text of a file, so many bytes at a time; a byte order mark at its start is no part of
    it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with opened(path) as stream:
        while part := stream.read(block):
            waiting = decoder.getstate()[0]
            try:
                text = decoder.decode(part)
            except UnicodeDecodeError as error:
                raise _no_text(path, offset - len(waiting), waiting + part, error) from None
            if "\0" in text:
                raise _no_text(path, offset, part, None)
            text_encoding.require_unescaped(path, text, part, offset=offset)
            yield text.removeprefix("\ufeff") if offset == 0 else text
            offset += len(part)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _no_text(path, offset - len(error.object), error.object, error) from None


def require_utf8(text: str, place: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise UserError(
            f"{place}: character {error.start} is half of a surrogate pair (U+{code:04X}); "
            "expected text that has a UTF-8 form"
        ) from None


def described(n_texts: int, tables: list[TableFile], text_key: str | None) -> str:
    """What was decided about files, in a line."""
    parts = [f"{n_texts} text file{'s' * (n_texts > 1)}, a document each"] if n_texts else []
    for description, count in Counter(table.description for table in tables).items():
        first = next(table for table in tables if table.description == description)
        more = f" and {count - 1} more" if count > 1 else ""
        key = text_key or TEXT_KEY
        parts.append(f"{first.path}{more}: {description}, a document a row, column {key}")
    return visible("; ".join(parts))


def _check_column(table: TableFile, text_key: str | None) -> None:
    columns = [name for name in table.columns or () if name]
    shown = visible(", ".join(columns))
    if text_key is None:
        raise UserError(
            f"{table.path}: a table ({table.description}) with the columns {shown}; say which one "
            "holds the text of a document: --text_key=COLUMN"
        )
    if text_key not in columns:
        near = difflib.get_close_matches(text_key, columns, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{table.path}: no column {text_key}; it has {shown}{meant}")


def _kind_of_rows(look: bytes) -> Kind | None:
    """CSV or TSV if the beginning of a file is that of a table without doubt: the same number of
    columns in three rows and more, below names of columns or with tabs between."""
    first = look.split(b"\n", 1)[0]
    if len(look) == LOOK:
        look = look[: look.rfind(b"\n") + 1]
    lines = [line for line in look.decode("utf-8-sig", "replace").splitlines() if line.strip()]
    if len(lines) < 3:
        return None
    header = _HEADER.fullmatch(lines[0])
    if b"\t" in first and len({line.count("\t") for line in lines}) == 1:
        return "TSV"
    if header is None or header[1] == "\t":
        return None
    try:
        cells = list(csv.reader(lines, delimiter=header[1]))
    except csv.Error:
        return None
    return "CSV" if len({len(row) for row in cells}) == 1 else None


def _no_text(path: Path, offset: int, data: bytes, error: UnicodeDecodeError | None) -> UserError:
    """What is said of bytes, at this offset in the file, that are not UTF-8 or hold a NUL."""
    zero = data.find(0)
    at = zero if error is None else error.start
    packed = " of the unpacked text" if plain_suffix(path) != path.suffix.lower() else ""
    sample = text_encoding.around(data, at)
    if error is None and text_encoding.named(sample) is None:
        return UserError(
            f"{path}: binary (a NUL at byte {offset + zero}{packed}); expected UTF-8 text"
        )
    reason = "a NUL" if error is None else error.reason
    return text_encoding.not_utf8(path, f"at byte {offset + at}{packed} ({reason})", sample)
