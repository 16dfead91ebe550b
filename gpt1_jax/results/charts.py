"""Charts that the page itself draws, row by row: ours beside the published value of each cell; and
where the recipe of our runs is not the paper's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gpt1_jax.results import cells
from gpt1_jax.results.averages import rounded
from gpt1_jax.results.finished_runs import FinishedRun, FinishedRuns
from gpt1_jax.results.paper import Paper
from gpt1_jax.results.tables import BASELINES, Entry, Grid, shown


@dataclass(frozen=True)
class Row:
    """A cell: places in per cent of the width, None where there is no such value, and the same in
    words."""

    title: str
    of_ours: str
    of_paper: str
    spoken: str
    published: float | None
    ours: float | None
    low: float | None
    high: float | None
    guess: float | None


@dataclass(frozen=True)
class Chart:
    """A table as a picture: the cells by column, and the ends of the axis. Where every column has
    one cell they are one group without a name, whose rows are called like the columns."""

    groups: dict[str, tuple[Row, ...]]
    least: int
    most: int


def chart(grid: Grid) -> Chart:
    """The cells of a grid that have a value, published or ours."""
    entries = [entry for entry in grid.entries if entry.scores or entry.published is not None]
    values = [value for entry in entries for value in _values(entry)]
    least = min(0, *(10 * (int(value) // 10) for value in values)) if values else 0
    columns = [entry.column.title for entry in entries]
    single = len(set(columns)) == len(columns)
    groups: dict[str, tuple[Row, ...]] = {}
    for entry in entries:
        name = "" if single else entry.column.title
        title = entry.column.title if single else entry.variant.title
        groups[name] = (*groups.get(name, ()), _row(entry, title, least, 100))
    return Chart(groups, least, 100)


def _values(entry: Entry) -> Iterator[float]:
    yield from entry.scores.values
    if entry.published is not None:
        yield entry.published


def _row(entry: Entry, title: str, least: int, most: int) -> Row:
    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - least) / (most - least), 2)

    scores = entry.scores
    guess = max(entry.baselines, key=lambda name: entry.baselines[name], default=None)
    said = []
    if entry.published is not None:
        said.append(f"published {entry.published}")
    said.append(f"ours {shown(scores)}" if scores else "not run here")
    if guess is not None:
        said.append(f"{BASELINES[guess].lower()} {rounded(entry.baselines[guess])}")
    return Row(
        title=title,
        of_ours=str(rounded(scores.median)) if scores else "–",
        of_paper=str(entry.published) if entry.published is not None else "",
        spoken=", ".join(said),
        published=place(entry.published),
        ours=place(scores.median) if scores else None,
        low=place(min(scores.values)) if scores else None,
        high=place(max(scores.values)) if scores else None,
        guess=place(None if guess is None else entry.baselines[guess]),
    )


def settings(paper: Paper, finished: FinishedRuns) -> list[tuple[str, str, str, str]]:
    """(stage, what, the paper's, ours) of each setting that is not the paper's in all of our runs
    of the Transformer."""
    ours: Mapping[str, Sequence[FinishedRun]] = {
        "pre-training": finished.pretraining.get("transformer", ()),
        "fine-tuning": [run for run in finished.runs if run.variant == "full"],
    }
    rows: list[tuple[str, str, str, str]] = []
    for setting in paper.settings:
        flat = [dict(cells.flat(run.config)) for run in ours[setting.stage]]
        found = list(dict.fromkeys(_ours(one, setting.key) for one in flat if setting.key in one))
        if found and found != [setting.value]:
            values = " or ".join(map(_number, found))
            rows.append((setting.stage, setting.title, _number(setting.value), values))
    return rows


def _ours(flat: Mapping, key: str) -> float | str | None:
    """The value of a key; where the length of a run was given in updates, these."""
    if key == "epochs" and flat[key] is None:
        return f"{flat['steps']:,} updates"
    return flat[key]


def _number(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "not set"
    return f"{value:,.10g}"
