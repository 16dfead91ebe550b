"""Grids as Markdown and CSV, and the appendix with the config of every run."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gpt1_jax.results.averages import rounded
from gpt1_jax.results.cells import (
    CELL_HEADER,
    REASONS_HEADER,
    cell_name,
    cell_values,
    command,
    config,
    config_lines,
    differences,
    reasons,
    reference,
    with_scores,
)
from gpt1_jax.results.finished_runs import Run
from gpt1_jax.results.tables import BASELINES, Entry, Grid

APPENDIX = "runs.md"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: bool = True) -> str:
    """A Markdown table; all columns but the first are set to the right, or none."""
    lines = [header, ["---", *["---:" if right else "---"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(_escaped(cell) for cell in line)} |\n" for line in lines)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def grid(shown: Grid) -> str:
    """The table, the cells of ours with links to their configs, footnotes, what is missing."""
    rows = [(_title(line), *_cells(line)) for line in shown.lines]
    parts = [f"# {shown.title}\n", table(shown.header, rows)]
    if any(entry.scores for entry in shown.entries):
        parts += ["## Cell by cell\n", table(CELL_HEADER, map(_cell_row, with_scores(shown)))]
    if shown.notes:
        parts.append("".join(f"- {note}\n" for note in shown.notes))
    missing = reasons(shown.entries)
    if missing:
        parts += ["## Cells without a run\n", table(REASONS_HEADER, missing, right=False)]
    return "\n".join(parts)


def _title(line) -> str:
    return f"**{line.title}**" if line.kind == "ours" else line.title


def _cells(line) -> list[str]:
    if line.kind != "ours":
        return list(line.cells)
    return [
        f"[{cell}]({APPENDIX}#{entry.name})" if entry.scores.runs else cell
        for cell, entry in zip(line.cells, line.entries, strict=True)
    ]


def _cell_row(entry: Entry) -> list[str]:
    name = cell_name(entry)
    linked = f"[{name}]({APPENDIX}#{entry.name})" if entry.scores.runs else name
    return [linked, *cell_values(entry)]


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated values with a header."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


CSV_HEADER = (
    "scale",
    "table",
    "row",
    "column",
    "task",
    "metric",
    "source",
    "published",
    "published_split",
    "published_current_data",
    "median",
    "min",
    "max",
    "n",
    "seeds",
    "split",
    *BASELINES,
    "config",
    "pretraining",
    "runs",
    "reason",
)


def grid_csv(shown: Grid, scale: str | None) -> str:
    """Every cell of a grid in a row: quoted ones with their value, ours beside the paper's."""
    rows = []
    for line in shown.lines:
        if line.kind == "quoted":
            for title, cell in zip(shown.header[1:], line.cells, strict=True):
                if cell != "–":
                    values = {"row": line.title, "column": title, "published": cell}
                    rows.append({"scale": "published", "source": "quoted", **values})
    rows += [_entry_values(entry, scale) for entry in shown.entries]
    number = shown.entries[0].table
    return to_csv(
        CSV_HEADER, [[{"table": number, **row}.get(k, "") for k in CSV_HEADER] for row in rows]
    )


def _entry_values(entry: Entry, scale: str | None) -> dict[str, Any]:
    scores, column = entry.scores, entry.column
    values = {
        "scale": scale or "",
        "row": entry.variant.title,
        "column": column.title,
        "task": column.task or "",
        "metric": column.metric,
        "source": "ours",
        "published": "" if entry.published is None else entry.published,
        "published_split": "" if entry.published is None else column.split,
        "config": entry.config if entry.published is not None and entry.config else "",
        "pretraining": entry.variant.pretraining if entry.published is not None else "",
        "reason": scores.reason,
        **{name: rounded(value, 2) for name, value in entry.baselines.items()},
    }
    if column.current is not None and entry.variant.name == "full":
        values["published_current_data"] = column.current
    if scores:
        values |= {
            "median": rounded(scores.median, 2),
            "min": rounded(min(scores.values), 2),
            "max": rounded(max(scores.values), 2),
            "n": scores.n,
            "seeds": " ".join(map(str, scores.by_seed)),
            "split": " ".join(scores.splits),
            "runs": " ".join(run.folder for run in scores.runs),
        }
    return values


# The appendix


def appendix(grids: Sequence[Grid], single: Sequence[Run], scale_title: str) -> str:
    """The runs behind every cell: command, what differs from the full row, the whole config."""
    parts = [f"# The runs of the tables ({scale_title})\n"]
    for shown in grids:
        for entry in with_scores(shown):
            if not entry.scores.runs:
                continue
            parts.append(f'<a id="{entry.name}"></a>\n')
            parts.append(f"## {shown.name}: {cell_name(entry)}\n")
            parts.append(_of_entry(entry, reference(entry, shown)))
    for run in single:
        parts += [f"## Single run {run.folder}\n", _of_run(run)]
    return "\n".join(parts)


def _of_entry(entry: Entry, against: Run | None) -> str:
    runs = entry.scores.runs
    lines = []
    if isinstance(entry.table, int):
        lines.append(f"- the paper's: `{config(entry)}`")
    for run, value in zip(runs, entry.scores.values, strict=True):
        lines.append(f"- seed {run.seed}: {rounded(value, 2)}, {run.folder}, `{command(run)}`")
    if against is not None and against is not runs[0]:
        changed = differences(runs[0], against)
        lines.append(f"- otherwise than {against.folder}: {'; '.join(changed) or 'nothing'}")
    return "\n".join(lines) + "\n\n" + _of_run(runs[0])


def _of_run(run: Run) -> str:
    return f"```\n{config_lines(run.config)}```\n"
