"""Rows to a file: as JSON lines or, where its name ends so, as CSV or TSV."""

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.files.text_lines import PACKED, plain_suffix
from gpt1_jax.messages import no_output
from gpt1_jax.storage import places

# What other programs read by these names is a table; of these some are written.
TABLES = (".csv", ".tsv", ".parquet", ".arrow", ".xlsx", ".ods")
DIALECTS = {".csv": "excel", ".tsv": "excel-tab"}


@contextmanager
def written(output: str | None, inputs: Iterable[Path]) -> Iterator[TextIO]:
    """A file to write to, which takes the place of `output` when all went well; standard output for
    None. UserError where it cannot be written, is one of the inputs, should be packed, or has the
    name of a table that is not written here."""
    if output is None:
        if sys.stdout is None:
            raise UserError("standard output is closed; give --output")
        try:
            yield sys.stdout
            sys.stdout.flush()
        except OSError as error:
            if error.errno not in disk.WHILE_WRITING:
                raise
            raise no_output(error) from None
        return
    if output.lower().endswith(PACKED):
        raise UserError(f"--output={output}: what is written is not packed; give a plain name")
    suffix = plain_suffix(Path(output))
    if suffix in TABLES and suffix not in DIALECTS:
        raise UserError(
            f"--output={output}: {suffix} is not written; expected .jsonl, {' or '.join(DIALECTS)}"
        )
    with places.output(output) as path, disk.replacing(path, inputs=inputs) as file:
        yield cast(TextIO, file)


def table_dialect(output: str | None) -> str | None:
    """That of a table of CSV or TSV; None for JSON lines."""
    return None if output is None else DIALECTS.get(plain_suffix(Path(output)))


def row_writer(output: str | None, file: TextIO, columns: Sequence[str]) -> Callable[[dict], Any]:
    """What writes a row to the file in the form that the name of the output asks for; lists are
    JSON in a cell."""
    dialect = table_dialect(output)
    if dialect is None:
        return lambda row: file.write(json.dumps(_plain(row), default=str) + "\n")
    writer = csv.DictWriter(_Lines(file), columns, dialect=dialect)
    writer.writeheader()

    def cell(value: Any) -> Any:
        return json.dumps(value, default=str) if isinstance(value, list | dict) else value

    return lambda row: writer.writerow({key: cell(value) for key, value in row.items()})


class _Lines:
    """A file for a writer of CSV, which puts into quotation marks what its line end is made of. So
    a carriage return in a text is, though lines end without one."""

    def __init__(self, file: TextIO):
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def _plain(value: Any) -> Any:
    """A value of a table in the words of JSON, which has none for infinity and for what is no
    number."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
