"""Where the splits of a task stand in a folder: a table each, or several pieces of one.

train.jsonl                             dev.csv
train-00000-of-00002.parquet            validation-00000-of-00001.parquet
data/train-00000-of-00002-1a2b.parquet  as the Hub keeps data sets
train/0000.parquet                      as it converts them
train/data-00000-of-00001.arrow         as `save_to_disk` leaves a DatasetDict
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.errors import UserError
from gpt1_jax.files.table_files import SUFFIXES, Row, TableFile
from gpt1_jax.files.text_lines import plain_suffix

# What others call our splits.
SPLIT_NAMES = {"validation": "dev", "valid": "dev", "val": "dev"}
_PIECE = re.compile(r"(?P<split>.+?)-(?P<number>\d{5})-of-(?P<count>\d{5})(-[0-9a-f]+)?")
# The folder beside the card of a data set on the Hub.
_DATA = "data"


@dataclass(frozen=True)
class Pieces:
    """Tables that are one: their rows after each other, numbered through. Has what a TableFile
    has."""

    tables: tuple[TableFile, ...]
    unit: str = "row"
    served: bool = False

    @property
    def path(self) -> str:
        return f"{self.tables[0].path} and {len(self.tables) - 1} more"

    @property
    def description(self) -> str:
        return f"{self.tables[0].description} in {len(self.tables)} pieces"

    @property
    def columns(self) -> tuple[str, ...] | None:
        return self.tables[0].columns

    @property
    def text_cells(self) -> bool:
        return self.tables[0].text_cells

    def place(self, number: int) -> str:
        return f"{self.path}, {self.unit} {number}"

    def rows(self) -> Iterator[tuple[int, Row]]:
        count = 0
        for table in self.tables:
            for _, row in table.rows():
                count += 1
                yield count, row


def one_table(tables: Sequence[TableFile]) -> TableFile | Pieces:
    """The table of one file or of several pieces. UserError for pieces of different kinds or with
    different columns."""
    first, *others = tables
    for table in others:
        if (table.kind, table.columns) != (first.kind, first.columns):
            raise UserError(
                f"{table.path} is another kind of table than {first.path.name}, or has other "
                "columns; expected the pieces of one"
            )
    return Pieces(tuple(tables)) if others else first


def split_files(folder: Path, names: Mapping[str, str]) -> dict[str, list[Path]]:
    """The files of each split. `names`: the splits by what files call them.

    Raises:
      UserError: a split that stands there twice, or not whole.
    """
    found = _found(folder, names)
    return found or (_found(folder / _DATA, names) if (folder / _DATA).is_dir() else {})


def _found(folder: Path, names: Mapping[str, str]) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        piece = _piece(path)
        split = names.get((piece["split"] if piece else path.name.partition(".")[0]).lower())
        if split is None or not (path.is_dir() or _is_table(path)):
            continue
        several = _tables(path) if path.is_dir() else [path]
        before = files.setdefault(split, [])
        if several and before and not (piece and _piece(before[0])):
            raise UserError(f"{before[0]} stands beside {path.name}; keep one of them")
        before += several
    whole = {split: paths for split, paths in files.items() if paths}
    for paths in whole.values():
        _require_all(paths)
    return whole


def _piece(path: Path) -> re.Match | None:
    return _PIECE.fullmatch(path.name.partition(".")[0])


def _is_table(path: Path) -> bool:
    return path.is_file() and plain_suffix(path) in SUFFIXES


def _tables(folder: Path) -> list[Path]:
    """The tables in the folder of a split; there is a description in JSON beside those of Arrow,
    and what a Macintosh notes of a file has its name behind a dot."""
    visible = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    tables = [path for path in visible if _is_table(path)]
    arrow = [path for path in tables if plain_suffix(path) == ".arrow"]
    return arrow or tables


def _require_all(paths: list[Path]) -> None:
    """Pieces that are counted are all there, each once."""
    pieces = [_piece(path) for path in paths]
    counted = [piece for piece in pieces if piece]
    if not counted:
        return
    wanted = {f"{number:05}" for number in range(int(counted[0]["count"]))}
    numbers = [piece["number"] for piece in counted]
    absent = sorted(wanted - {*numbers})
    if len(counted) < len(paths) or len({piece["count"] for piece in counted}) > 1:
        raise UserError(f"{paths[0]} stands beside {paths[-1].name}; keep one of them")
    if absent or len(numbers) > len(wanted):
        missing = f"piece {absent[0]} is missing" if absent else "a piece stands there twice"
        raise UserError(f"{paths[0]}: {missing}; expected {len(wanted)} pieces, copy them again")
