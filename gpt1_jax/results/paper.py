"""The published numbers as cells: table, row, column, value, and the config that produces it.

The numbers themselves are data, in configs/paper.py. Nothing here knows of models or of JAX.
"""

import runpy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gpt1_jax.config_files import find_config

INDEX = "configs/paper.py"
FINETUNING = "configs/finetune.py"

FigureName = Literal["2left", "2right", "labels", "tokens"]
"""Those of the paper, and two that it does not have."""
Source = Literal["paper", "quoted", "leaderboard"]
"""Whose number it is: the paper's own, one that it quotes, or what stands beside its row on the
leaderboard of GLUE."""


@dataclass(frozen=True)
class Variant:
    """A way to train: a row of table 5. The run of a task is `finetuning(task)`, started from what
    `pretraining` left."""

    name: str
    title: str
    arguments: str = ""
    pretraining: str = "configs/pretrain.py"

    def finetuning(self, task: str) -> str:
        """The config string, as in `configs/finetune.py:rte,lm_coef=0`."""
        return f"{FINETUNING}:{task}" + (f",{self.arguments}" if self.arguments else "")


@dataclass(frozen=True)
class Column:
    """A column of a table: a task and a metric, or an average over other columns.

    metric: a key of data.metrics.METRICS; `glue` or `average` where the column is computed.
    split: where the paper measured; splits: where runs do, the mean of them if there are several.
    current: what the full model scores on the data as they are distributed now, if those changed.
    headline: the column which stands for its task, of those that share it.
    """

    title: str
    metric: str
    task: str | None = None
    split: str = "test"
    splits: tuple[str, ...] = ("dev",)
    current: float | None = None
    headline: bool = True
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A method with its printed values by column, None where the paper has a dash. `variant` is
    given for the paper's own models; the others are quoted by it."""

    title: str
    values: tuple[float | None, ...]
    variant: str | None = None

    @property
    def numbers(self) -> tuple[float, ...]:
        """The values of a row without a dash, as the paper's own are. ValueError if it has one."""
        found = tuple(value for value in self.values if value is not None)
        if len(found) < len(self.values):
            raise ValueError(f"the row {self.title} has a dash")
        return found


@dataclass(frozen=True)
class Table:
    """A table as it is printed."""

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure: which config strings draw it, and what the paper says that it shows, "" where the
    paper does not have it."""

    name: FigureName
    title: str
    tasks: tuple[str, ...]
    configs: tuple[str, ...]
    claim: str = ""


@dataclass(frozen=True)
class Setting:
    """What the paper states of its recipe: the value of a config key, None for no limit."""

    stage: Literal["pre-training", "fine-tuning"]
    key: str
    title: str
    value: float | None


@dataclass(frozen=True)
class Cell:
    """A published value. `config` and `pretraining` are config strings, None where nothing here
    produces the value."""

    table: int | None
    row: str
    column: str
    value: float
    metric: str
    split: str
    source: Source
    task: str | None = None
    variant: str | None = None
    config: str | None = None
    pretraining: str | None = None


@dataclass(frozen=True)
class Paper:
    """The whole index."""

    variants: dict[str, Variant]
    tables: dict[int, Table]
    figures: dict[str, Figure]
    leaderboard: tuple[Cell, ...]
    settings: tuple[Setting, ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Every printed value of the tables, and those of the leaderboard."""
        found = [cell for table in self.tables.values() for cell in self._cells(table)]
        return (*found, *self.leaderboard)

    def tasks(self, number: int) -> tuple[str, ...]:
        """The tasks of a table, in the order of its columns."""
        return tuple(dict.fromkeys(c.task for c in self.tables[number].columns if c.task))

    def headlines(self) -> dict[str, tuple[int, Column]]:
        """The column that stands for each of the twelve tasks, with the number of its table."""
        return {
            column.task: (number, column)
            for number in (2, 3, 4)
            for column in self.tables[number].columns
            if column.task and column.headline
        }

    def _cells(self, table: Table) -> Iterator[Cell]:
        for row in table.rows:
            variant = self.variants[row.variant] if row.variant else None
            for column, value in zip(table.columns, row.values, strict=True):
                if value is None:
                    continue
                config = pretraining = None
                if variant and column.task:
                    config, pretraining = variant.finetuning(column.task), variant.pretraining
                yield Cell(
                    table=table.number,
                    row=row.title,
                    column=column.title,
                    value=value,
                    metric=column.metric,
                    split=column.split,
                    source="paper" if variant else "quoted",
                    task=column.task,
                    variant=row.variant,
                    config=config,
                    pretraining=pretraining,
                )


def read_paper() -> Paper:
    """The index of configs/paper.py, from the current folder or the installation."""
    index = runpy.run_path(str(find_config(INDEX)))
    return Paper(
        variants={variant.name: variant for variant in index["VARIANTS"]},
        tables={table.number: table for table in index["TABLES"]},
        figures={figure.name: figure for figure in index["FIGURES"]},
        leaderboard=index["LEADERBOARD"],
        settings=index["SETTINGS"],
    )
