"""The tables of the paper with what has run here beside each published value.

An entry is one cell of ours; a grid is a table as it is shown, the rows of others included.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from gpt1_jax.data.tasks import TASKS
from gpt1_jax.messages import visible
from gpt1_jax.results.averages import GLUE, glue_score, mean, percent, rounded
from gpt1_jax.results.finished_runs import FinishedRuns, Scores
from gpt1_jax.results.paper import Column, Paper, Row, Table, Variant

FURTHER = "further"
"""The table of tasks that no table of the paper has."""

BASELINES = {
    "chance": "Chance",
    "majority": "Majority",
    "bag_of_words": "Bag of words",
    "word_pairs": "Words and pairs of words, TF-IDF",
    "hypothesis_only": "Bag of words, hypothesis only",
}
_MNLI_SPLITS = {"matched": "dev", "mismatched": "dev_mismatched"}

LineKind = Literal["quoted", "paper", "ours", "baseline", "examples"]
"""Whose numbers a row has: of a method that the paper quotes, of the paper's own model, of ours, of
what cannot read; or how many examples there were."""


@dataclass(frozen=True)
class Entry:
    """One cell of ours. published: the paper's value, None where it has none; baselines: what those
    who cannot read score on the same examples, in per cent."""

    table: int | str
    variant: Variant
    column: Column
    published: float | None
    scores: Scores
    baselines: dict[str, float]

    @property
    def name(self) -> str:
        """Unique among the entries, and fit for a link."""
        column = re.sub(r"[\s,.()-]+", "-", self.column.title.lower())
        column = re.sub(r"[^a-z0-9-]", lambda found: f"_{ord(found[0]):x}_", column)
        return f"table-{self.table}-{self.variant.name.replace('_', '-')}-{column}"

    @property
    def config(self) -> str | None:
        """The config string of its runs, None for an average."""
        return self.variant.finetuning(self.column.task) if self.column.task else None


ScoresOf = dict[Column, dict[str, Scores]]
"""By column and the name of a variant."""


@dataclass(frozen=True)
class Line:
    """A row of a grid; `entries` are the cells of ours."""

    title: str
    kind: LineKind
    cells: tuple[str, ...]
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table as it is shown, with its footnotes and what each empty cell of ours lacks."""

    name: str
    title: str
    header: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    entries: tuple[Entry, ...] = ()


def scale_words(scale: str | None) -> str:
    """How an output names the scale of its runs."""
    return f"{scale} scale" if scale else "single runs"


def task_title(name: str) -> str:
    """How the paper names a task; a task of one's own has its own name."""
    return TASKS[name].title if name in TASKS else visible(name)


def shown(scores: Scores) -> str:
    """The median, and the range of several seeds: `45.4 (44.0 to 46.2)`; a dash without a run."""
    if not scores:
        return "–"
    text = str(rounded(scores.median))
    if scores.n == 1:
        return text
    return f"{text} ({rounded(min(scores.values))} to {rounded(max(scores.values))})"


def tasks_by_group(paper: Paper) -> dict[str, list[str]]:
    """Table 1, from the tasks table: the titles of the paper's twelve tasks by their kind."""
    groups: dict[str, list[str]] = {}
    headlines = paper.headlines()
    for name, task in TASKS.items():
        if name in headlines and task.group:
            groups.setdefault(task.group, []).append(task.title)
    return groups


def grids(paper: Paper, finished: FinishedRuns) -> list[Grid]:
    """Tables 2 to 5 with what has run, and the tasks that only we have, if there are any."""
    found = [_grid(paper, finished, table) for table in paper.tables.values()]
    own = _further(paper, finished)
    return [*found, _grid(paper, finished, own)] if own else found


def _grid(paper: Paper, finished: FinishedRuns, table: Table) -> Grid:
    variants = [paper.variants[row.variant] for row in table.rows if row.variant]
    columns = {column: _column(finished, table, variants, column) for column in table.columns}
    table, columns = _with_average_of_some(table, variants, columns)
    entries = [
        entry for variant in variants for entry in _entries(finished, table, variant, columns)
    ]
    name = f"table{table.number}" if table.number else FURTHER
    title = f"Table {table.number}: {table.title}" if table.number else table.title
    return Grid(
        name=name,
        title=f"{title} ({scale_words(finished.scale)})",
        header=("", *(column.title for column in table.columns)),
        lines=tuple(_lines(finished, table, variants, entries)),
        notes=tuple(_notes(finished, table, entries)),
        entries=tuple(entries),
    )


def _column(
    finished: FinishedRuns, table: Table, variants: Sequence[Variant], column: Column
) -> dict[str, Scores]:
    """The scores of a column by variant; of an average, of what its other columns have."""
    if column.metric == "glue":
        return {variant.name: _glue(finished, variant.name) for variant in variants}
    if column.metric == "average":
        rest = [other for other in table.columns if other.task]
        return {
            variant.name: _average({c.title: _scores(finished, table, variant, c) for c in rest})
            for variant in variants
        }
    return {variant.name: _scores(finished, table, variant, column) for variant in variants}


def _scores(finished: FinishedRuns, table: Table, variant: Variant, column: Column) -> Scores:
    if column.task is None:
        raise ValueError(f"{column.title} is worked out from other columns")
    return finished.scores(
        variant.name, column.task, column.metric, column.splits, table.number or None
    )


def _average(columns: dict[str, Scores]) -> Scores:
    """The mean over columns, for each seed that all of them have."""
    missing = [title for title, scores in columns.items() if not scores]
    if missing:
        return Scores(reason=f"needs every column; without a value: {', '.join(missing)}")
    seeds = set.intersection(*(set(scores.by_seed) for scores in columns.values()))
    if not seeds:
        return Scores(reason="no seed has run in every column")
    by_seed = {
        seed: float(mean(scores.by_seed[seed] for scores in columns.values()))
        for seed in sorted(seeds)
    }
    splits = dict.fromkeys(split for scores in columns.values() for split in scores.splits)
    return Scores(by_seed, splits=tuple(splits))


def _glue(finished: FinishedRuns, variant: str) -> Scores:
    """The GLUE score of our runs, on dev."""
    found = {
        (task, metric): finished.scores(
            variant,
            task,
            "accuracy" if task == "mnli" else metric,
            (_MNLI_SPLITS.get(metric, "dev"),),
        )
        for task, metrics in GLUE.items()
        for metric in metrics
    }
    averaged = _average({f"{task} {metric}": scores for (task, metric), scores in found.items()})
    if not averaged:
        return averaged
    by_seed = {}
    for seed in averaged.by_seed:
        cells: dict[str, dict[str, float]] = {}
        for (task, metric), scores in found.items():
            cells.setdefault(task, {})[metric] = scores.by_seed[seed]
        by_seed[seed] = float(glue_score(cells))
    return dataclasses.replace(averaged, by_seed=by_seed)


def _with_average_of_some(
    table: Table, variants: Sequence[Variant], columns: ScoresOf
) -> tuple[Table, ScoresOf]:
    """Where Avg cannot be had, adds the mean over the columns that every row has which has any, and
    gives the published rows the mean over the same columns."""
    tasks = [column for column in table.columns if column.task]
    averages = [column for column in table.columns if column.metric == "average"]
    running = [v.name for v in variants if any(columns[column][v.name] for column in tasks)]
    common = [c for c in tasks if running and all(columns[c][name] for name in running)]
    if not averages or len(common) < 2 or len(common) == len(tasks):
        return table, columns
    names = ", ".join(column.title for column in common)
    extra = Column(
        f"Avg of {len(common)}",
        "average",
        split=averages[0].split,
        note=(
            f"Avg of {len(common)} is the mean of {names}, the columns which every row has that "
            "has any run; the published values beside it are means of the same columns."
        ),
    )
    places = [table.columns.index(column) for column in common]

    def widened(row: Row) -> Row:
        values = [value for value in (row.values[place] for place in places) if value is not None]
        whole = float(rounded(mean(values))) if len(values) == len(places) else None
        return dataclasses.replace(row, values=(whole, *row.values))

    scores = {
        v.name: _average({c.title: columns[c][v.name] for c in common})
        if v.name in running
        else Scores(reason="not run")
        for v in variants
    }
    rows = tuple(widened(row) for row in table.rows)
    table = dataclasses.replace(table, columns=(extra, *table.columns), rows=rows)
    return table, {extra: scores, **columns}


def _entries(
    finished: FinishedRuns, table: Table, variant: Variant, columns: ScoresOf
) -> list[Entry]:
    (row,) = (row for row in table.rows if row.variant == variant.name)
    return [
        Entry(
            table=table.number or FURTHER,
            variant=variant,
            column=column,
            published=published,
            scores=columns[column][variant.name],
            baselines=_baselines(finished, column),
        )
        for column, published in zip(table.columns, row.values, strict=True)
    ]


def _baselines(finished: FinishedRuns, column: Column) -> dict[str, float]:
    found: Mapping[str, Any] = finished.baselines.get(column.task or "") or {}
    if found.get("metric") != column.metric:
        return {}
    return {name: percent(found[name]) for name in BASELINES if name in found}


def _lines(
    finished: FinishedRuns, table: Table, variants: Sequence[Variant], entries: list[Entry]
) -> Iterator[Line]:
    """The rows of the paper, then ours, then those who cannot read."""
    for row in table.rows:
        values = ["–" if value is None else str(Decimal(str(value))) for value in row.values]
        if any(value is not None for value in row.values):
            if row.variant:
                yield Line(f"{row.title}, published", "paper", tuple(values))
            else:
                yield Line(row.title, "quoted", tuple(values))
    for variant in variants:
        mine = tuple(entry for entry in entries if entry.variant == variant)
        title = f"{variant.title}, ours, {scale_words(finished.scale)}"
        yield Line(title, "ours", tuple(shown(entry.scores) for entry in mine), mine)
    for name, title in BASELINES.items():
        found = [_baselines(finished, column).get(name) for column in table.columns]
        if any(value is not None for value in found):
            cells = ["–" if value is None else str(rounded(value)) for value in found]
            yield Line(title, "baseline", tuple(cells))
    known: Mapping[str, Mapping[str, Any]] = finished.baselines
    examples = [known.get(column.task or "", {}).get("examples") for column in table.columns]
    if any(examples):
        cells = [f"{e['train']:,} + {e['dev']:,}" if e else "–" for e in examples]
        yield Line("Examples, train + dev", "examples", tuple(cells))


def _notes(finished: FinishedRuns, table: Table, entries: list[Entry]) -> Iterator[str]:
    """What stands below a table."""
    if finished.scale == "small":
        yield (
            "Small scale: a small model and capped training sets. These numbers are not those of "
            "GPT-1; what can be compared is which rows are ahead of which."
        )
    counts = sorted({entry.scores.n for entry in entries if entry.scores})
    if counts:
        runs = [run for entry in entries for run in entry.scores.runs]
        chosen = any(len(run.curve("dev", run.metric)[0]) > 1 for run in runs)
        yield (
            f"Ours: the median over seeds ({' or '.join(map(str, counts))} of them) and in "
            "brackets the lowest and the highest, in per cent, on dev, "
            + ("which also chose the checkpoint." if chosen else "at the end of training.")
        )
        if table.number:
            yield "Published: single runs on test, for the tasks of GLUE by its server."
    if table.note:
        yield table.note
    yield from dict.fromkeys(column.note for column in table.columns if column.note)


def _further(paper: Paper, finished: FinishedRuns) -> Table | None:
    """The tasks that have run and are in no table of the paper, by all variants that they have."""
    known = {column.task for table in paper.tables.values() for column in table.columns}
    runs = [run for run in finished.runs if run.figure is None and run.task not in known]
    if not runs:
        return None
    measured = list(dict.fromkeys((run.task, run.metric) for run in runs))
    names = [name for name, _ in measured]
    columns = tuple(
        Column(task_title(name) + (f" ({metric})" if names.count(name) > 1 else ""), metric, name)
        for name, metric in measured
    )
    if len(columns) > 1:
        columns = (Column("Avg", "average"), *columns)
    present = {run.variant for run in runs}
    empty = (None,) * len(columns)
    rows = tuple(Row(v.title, empty, v.name) for v in paper.variants.values() if v.name in present)
    return Table(0, "Tasks that are not in the paper", columns, rows)
