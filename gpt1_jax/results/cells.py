"""Cells of the paper's tables as rows of text."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gpt1_jax.results.averages import rounded
from gpt1_jax.results.finished_runs import Run
from gpt1_jax.results.tables import BASELINES, Entry, Grid

CELL_HEADER = (
    "cell",
    "published (test)",
    "median",
    "min",
    "max",
    "n",
    "split",
    *BASELINES.values(),
)


def with_scores(shown: Grid) -> list[Entry]:
    return [entry for entry in shown.entries if entry.scores]


def cell_values(entry: Entry) -> list[str]:
    """What CELL_HEADER names, but for the cell itself."""
    scores = entry.scores
    numbers = (scores.median, min(scores.values), max(scores.values))
    baselines = [entry.baselines.get(name) for name in BASELINES]
    return [
        published(entry),
        *(str(rounded(number)) for number in numbers),
        str(scores.n),
        " + ".join(scores.splits),
        *("–" if value is None else str(rounded(value)) for value in baselines),
    ]


def config(entry: Entry) -> str:
    """The config strings that give the paper's value; none for an average."""
    return f"{entry.config} from {entry.variant.pretraining}" if entry.config else ""


def cell_name(entry: Entry) -> str:
    return f"{entry.variant.title}: {entry.column.title}"


def published(entry: Entry) -> str:
    """The published value, with that on the data of now where they have changed."""
    if entry.published is None:
        return "–"
    changed = entry.column.current is not None and entry.variant.name == "full"
    return f"{entry.published}" + (f" ({entry.column.current} on v2)" if changed else "")


REASONS_HEADER = ("cell", "config", "why")


def reasons(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Why there is no value, with the config string that would give it."""
    return [
        (cell_name(entry), config(entry), entry.scores.reason)
        for entry in entries
        if not entry.scores
    ]


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config as dotted keys, without what follows from them."""
    found = {}
    for name, value in tree.items():
        if not prefix and name in ("identity", "resolved"):
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def config_lines(config: Mapping[str, Any]) -> str:
    """One `key = value` a line."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in flat(config).items())


def differences(run: Run, reference: Run) -> list[str]:
    """What a run was told otherwise than another: `seed = 1 (0)`."""
    mine, theirs = flat(run.config), flat(reference.config)
    return [
        f"{key} = {json.dumps(mine.get(key))} ({json.dumps(theirs.get(key))})"
        for key in dict.fromkeys((*mine, *theirs))
        if mine.get(key) != theirs.get(key)
    ]


def reference(entry: Entry, grid: Grid) -> Run | None:
    """The run that others of a task are compared with: the full row's first seed."""
    for other in grid.entries:
        same_task = other.column.task == entry.column.task
        if other.variant.name == "full" and same_task and other.scores.runs:
            return other.scores.runs[0]
    return None


def command(run: Run) -> str:
    """What was typed."""
    return run.result.get("command", "not recorded")
