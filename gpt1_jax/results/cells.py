"""What the report says of one cell of ours: its numbers, why it has none, and how its runs were
configured. Plain text; the page and the Markdown files each set it in their own way."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpt1_jax.results.averages import rounded
from gpt1_jax.results.finished_runs import FinishedRun, ReproducedRun
from gpt1_jax.results.tables import BASELINES, Entry, Grid

# Numbers

HEADER = (
    "cell",
    "published (test)",
    "median",
    "min",
    "max",
    "n",
    "split",
    *BASELINES.values(),
)


def with_scores(grid: Grid) -> list[Entry]:
    """The cells of a grid that have a value of ours."""
    return [entry for entry in grid.entries if entry.scores]


def title(entry: Entry) -> str:
    """The row and the column of a cell."""
    return f"{entry.variant.title}: {entry.column.title}"


def values(entry: Entry) -> list[str]:
    """What HEADER names, but for the cell itself."""
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


def published(entry: Entry) -> str:
    """The published value, with that on the data of now where they have changed."""
    if entry.published is None:
        return "–"
    changed = entry.column.current is not None and entry.variant.name == "full"
    return f"{entry.published}" + (f" ({entry.column.current} on v2)" if changed else "")


# Cells without a value

REASONS_HEADER = ("cell", "config", "why")


def reasons(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Why there is no value, with the config string that would give it."""
    return [
        (title(entry), config(entry), entry.scores.reason) for entry in entries if not entry.scores
    ]


# Configs


def config(entry: Entry) -> str:
    """The config strings that give the paper's value; none for an average."""
    return f"{entry.config} from {entry.variant.pretraining}" if entry.config else ""


def command(run: FinishedRun) -> str:
    """What was typed."""
    return str(run.result.get("command", "not recorded"))


def config_lines(run: FinishedRun) -> str:
    """The config of a run, one `key = value` a line."""
    return "".join(f"{_json(key)[1:-1]} = {_json(value)}\n" for key, value in flat(run.config))


def reference(entry: Entry, grid: Grid) -> FinishedRun | None:
    """The run that others of a task are compared with: the full row's first seed."""
    for other in grid.entries:
        same_task = other.column.task == entry.column.task
        if other.variant.name == "full" and same_task and other.scores.runs:
            return other.scores.runs[0]
    return None


def differences(run: FinishedRun, against: FinishedRun) -> dict[str, str]:
    """By key, what a run was told otherwise than another: `seed = 1 (0)`. A key that the version of
    one of them did not have counts only where it is on in the other."""
    mine, theirs = dict(flat(run.config)), dict(flat(against.config))
    found = {}
    for key in (*mine, *theirs):
        value, other = mine.get(key), theirs.get(key)
        known_to_both = key in mine and key in theirs
        if value != other and (known_to_both or value or other):
            found[key] = f"{key} = {_json(value)} ({_json(other)})"
    return found


def beyond_the_seed(runs: Sequence[ReproducedRun]) -> dict[int, dict[str, str]]:
    """By seed, what else a run of a cell was told otherwise than the first one of it."""
    found = {}
    for run in runs[1:]:
        changed = differences(run, runs[0])
        changed.pop("seed", None)
        if changed:
            found[run.seed] = changed
    return found


def _json(value: object) -> str:
    """JSON that opens no tag, wherever it is pasted."""
    return json.dumps(value).replace("<", "\\u003c")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """A config as dotted keys and values, without what follows from them."""
    for name, value in tree.items():
        if not prefix and name in ("identity", "resolved"):
            continue
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
