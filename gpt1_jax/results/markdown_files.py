"""The Markdown files of a report: the index, a file for each table, the configs of all runs."""

from collections.abc import Mapping, Sequence

from gpt1_jax.results import cells
from gpt1_jax.results.averages import percent, rounded
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import FinishedRun, FinishedRuns
from gpt1_jax.results.markdown import block, code, escaped, items, table
from gpt1_jax.results.tables import Entry, Grid, Line

APPENDIX = "runs.md"


def index(
    title: str,
    introduction: Sequence[str],
    said: Mapping[str, Sequence[str]],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    single: Sequence[FinishedRun],
) -> str:
    """The file that leads to the others. introduction: paragraphs; said: lists by heading; both in
    Markdown."""
    parts = [f"# {title}\n", *(f"{line}\n" for line in introduction), "## Tables\n"]
    files = [
        "[Table 1: the tasks](table1.md) ([CSV](table1.csv))",
        *(f"[{grid.title}]({grid.name}.md) ([CSV]({grid.name}.csv))" for grid in grids),
        f"[The runs behind them]({APPENDIX})",
        "report.html: all of it on one page",
    ]
    parts.append(items(files))
    for heading, lines in said.items():
        parts += [f"## {heading}\n", items(lines)]
    for drawing in drawings:
        parts += [f"## {drawing.title}\n", f"![{drawing.title}]({drawing.name}.svg)\n"]
        notes = [*drawing.notes, *([f"[CSV]({drawing.name}.csv)"] if drawing.rows else [])]
        parts.append(items(notes))
    if single:
        header = ("run", "task", "metric", "best dev")
        parts += ["## Single runs\n", table(header, map(_single_row, single))]
    return "\n".join(parts)


def _single_row(run: FinishedRun) -> list[str]:
    score = "–" if run.best is None else str(rounded(percent(run.best.score)))
    score += f" ({run.stopped})" if run.stopped else ""
    task = escaped(run.task_name or "pre-training")
    return [f"[{escaped(run.folder)}]({APPENDIX})", task, escaped(run.metric or "–"), score]


def tasks(groups: Mapping[str, Sequence[str]]) -> str:
    """Table 1: the titles of the tasks by kind."""
    rows = [(kind, ", ".join(names)) for kind, names in groups.items()]
    return f"# Table 1: the tasks\n\n{table(('Kind', 'Tasks'), rows, right=False)}"


def grid(shown: Grid) -> str:
    """The table, the cells of ours with links to their configs, footnotes, what is missing."""
    rows = [(_title(line), *_cells(line)) for line in shown.lines]
    parts = [f"# {shown.title}\n", table([escaped(title) for title in shown.header], rows)]
    found = cells.with_scores(shown)
    if found:
        values = [(_linked(cells.title(entry), entry), *cells.values(entry)) for entry in found]
        parts += ["## Cell by cell\n", table(cells.HEADER, values)]
    if shown.notes:
        parts.append(items(shown.notes))
    missing = [tuple(map(escaped, row)) for row in cells.reasons(shown.entries)]
    if missing:
        parts += ["## Cells without a run\n", table(cells.REASONS_HEADER, missing, right=False)]
    return "\n".join(parts)


def _title(line: Line) -> str:
    title = escaped(line.title)
    return f"**{title}**" if line.kind == "ours" else title


def _cells(line: Line) -> list[str]:
    if line.kind != "ours":
        return [escaped(cell) for cell in line.cells]
    return [_linked(cell, entry) for cell, entry in zip(line.cells, line.entries, strict=True)]


def _linked(text: str, entry: Entry) -> str:
    """A text that leads to the configs of a cell, if it has runs of its own."""
    return f"[{escaped(text)}]({APPENDIX}#{entry.name})" if entry.scores.runs else escaped(text)


def appendix(grids: Sequence[Grid], found: FinishedRuns, scale_title: str) -> str:
    """The runs behind every cell: command, what differs from the full row, the whole config; and
    why others are in no table."""
    parts = [f"# The runs of the tables ({scale_title})\n"]
    for shown in grids:
        for entry in cells.with_scores(shown):
            if entry.scores.runs:
                parts += [
                    f'<a id="{entry.name}"></a>\n',
                    f"## {shown.name}: {escaped(cells.title(entry))}\n",
                    items(_of_entry(entry, cells.reference(entry, shown))),
                    block(cells.config_lines(entry.scores.runs[0])),
                ]
    for run in found.single:
        title = escaped(run.folder) + (f" ({run.stopped})" if run.stopped else "")
        parts += [f"## Single run {title}\n", block(cells.config_lines(run))]
    if found.left_out:
        lines = [f"{escaped(name)}: {escaped(why)}" for name, why in found.left_out.items()]
        parts += ["## Runs that are not in the report\n", items(lines)]
    return "\n".join(parts)


def _of_entry(entry: Entry, against: FinishedRun | None) -> list[str]:
    runs, lines = entry.scores.runs, []
    if isinstance(entry.table, int):
        lines.append(f"the paper's: {code(cells.config(entry))}")
    for run, value in zip(runs, entry.scores.values, strict=True):
        folder, command = escaped(run.folder), code(cells.command(run))
        lines.append(f"seed {run.seed}: {rounded(value, 2)}, {folder}, {command}")
    for seed, changed in cells.beyond_the_seed(runs).items():
        words = escaped("; ".join(changed.values()))
        lines.append(f"seed {seed} otherwise than seed {runs[0].seed}: {words}")
    if against is not None and against is not runs[0]:
        changed = escaped("; ".join(cells.differences(runs[0], against).values()) or "nothing")
        lines.append(f"otherwise than {escaped(against.folder)}: {changed}")
    return lines
