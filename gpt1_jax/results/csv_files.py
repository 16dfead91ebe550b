"""Grids as comma-separated values, a row for each cell."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from gpt1_jax.messages import visible
from gpt1_jax.results.averages import rounded
from gpt1_jax.results.finished_runs import Scale
from gpt1_jax.results.tables import BASELINES, Entry, Grid

HEADER = (
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


def to_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Comma-separated values with a header; a text is one line."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([visible(value) if isinstance(value, str) else value for value in row])
    return file.getvalue()


def grid(shown: Grid, scale: Scale | None) -> str:
    """Every cell of a grid in a row: quoted ones with their value, ours beside the paper's."""
    rows = []
    for line in shown.lines:
        if line.kind == "quoted":
            for title, cell in zip(shown.header[1:], line.cells, strict=True):
                if cell != "–":
                    values = {"row": line.title, "column": title, "published": cell}
                    rows.append({"scale": "published", "source": "quoted", **values})
    rows += [_values(entry, scale) for entry in shown.entries]
    number = shown.entries[0].table
    return to_csv(
        HEADER, [[{"table": number, **row}.get(key, "") for key in HEADER] for row in rows]
    )


def _values(entry: Entry, scale: Scale | None) -> dict[str, Any]:
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
