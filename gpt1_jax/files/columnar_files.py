"""Parquet; and Arrow, as the stream that `save_to_disk` of the library datasets writes, or as the
file that other libraries do."""

import contextlib
import itertools
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from gpt1_jax.errors import UserError
from gpt1_jax.messages import shown, visible

Columnar = Literal["Parquet", "Arrow"]
_ARROW_FILE = b"ARROW1"
BATCH = 1024  # rows of Parquet held at a time


def columns(path: Path, kind: Columnar) -> tuple[str, ...]:
    """The names of the columns. UserError for a file that cannot be read, or has a name twice."""
    with _batches(path, kind) as (names, _):
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: two columns are called {shown(twice[0])}")
        return tuple(names)


def rows(path: Path, kind: Columnar) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row with its number, from 1. UserError for what cannot be read."""
    with _batches(path, kind) as (_, batches):
        found = itertools.chain.from_iterable(_values(path, batch) for batch in batches)
        for number, row in enumerate(found, 1):
            # Tables of numbers have no other word for an empty cell.
            yield number, {k: None if v != v else v for k, v in row.items()}


@contextlib.contextmanager
def _batches(path: Path, kind: Columnar) -> Iterator[tuple[list[str], Iterator[Any]]]:
    """The names of the columns, and the rows by batches."""
    import pyarrow
    from pyarrow import ipc, parquet

    try:
        if kind == "Parquet":
            with parquet.ParquetFile(path) as file:
                yield file.schema_arrow.names, file.iter_batches(batch_size=BATCH)
        else:
            with pyarrow.memory_map(str(path)) as source:
                beginning = source.read(len(_ARROW_FILE))
                source.seek(0)
                if beginning == _ARROW_FILE:
                    with ipc.open_file(source) as file:
                        count = file.num_record_batches
                        yield file.schema.names, map(file.get_batch, range(count))
                    return
                with ipc.open_stream(source) as stream:
                    yield stream.schema.names, iter(stream)
    except (OSError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as {kind}: {reason}") from None


def _values(path: Path, batch: Any) -> list[dict[str, Any]]:
    """The rows of a batch."""
    columns = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns.append(_listed(column))
        except (ValueError, OverflowError) as error:
            raise UserError(
                f"{path}: the column {visible(name)} ({column.type}) cannot be read "
                f"({' '.join(str(error).split())[:100]}); save it as text, or leave it out"
            ) from None
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _listed(column: Any) -> list[Any]:
    """The values of a column as JSON has them. Times become text, since Python has none of a
    billionth of a second; so do bytes that are UTF-8, since old writers do not say that they are
    text; and decimals, as which databases keep labels too, become numbers of the same digits."""
    import pyarrow
    from pyarrow import types

    kind = column.type
    if types.is_temporal(kind):
        column = column.cast(pyarrow.int64() if types.is_duration(kind) else pyarrow.string())
    elif types.is_binary(kind) or types.is_large_binary(kind):
        with contextlib.suppress(pyarrow.ArrowInvalid):
            column = column.cast(pyarrow.string())
    values = column.to_pylist()
    return [_number(value, kind.scale) for value in values] if types.is_decimal(kind) else values


def _number(value: Decimal | None, scale: int) -> Decimal | float | int | None:
    """A decimal as another number; as itself where a float would lose digits."""
    if value is None or scale <= 0:
        return value if value is None else int(value)
    number = float(value)
    return number if Decimal(repr(number)) == value else value
