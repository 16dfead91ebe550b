"""What has run: the files of a `reproduce`, and of single runs, as they were copied from anywhere.

A reproduction is a folder with reproduction.json, which names its runs (see reproduce.py). Run
folders that lie under no reproduction.json are single runs.
"""

import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.results.averages import mean, percent
from gpt1_jax.run_files import Result, read_rows

REPRODUCTION = "reproduction.json"
_REMEDY = "expected a file of a run; copy it again or delete the run"


class Place(TypedDict):
    """A run of a reproduction: where it lies, and which cell it is for."""

    folder: str
    variant: str
    task: str
    seed: int
    n_transfer: NotRequired[int | None]
    figure: NotRequired[str | None]
    further: NotRequired[dict[str, dict[str, float]]]


class Missing(TypedDict):
    """Why a cell has no run."""

    reason: str
    variant: NotRequired[str | None]
    task: NotRequired[str | None]
    figure: NotRequired[str | None]
    table: NotRequired[int | None]


class Reproduction(TypedDict):
    """reproduction.json."""

    scale: str
    runs: list[Place]
    seeds: NotRequired[list[int]]
    pretraining: NotRequired[dict[str, str]]
    missing: NotRequired[list[Missing]]
    baselines: NotRequired[dict[str, dict[str, Any]]]
    probes: NotRequired[list[dict[str, Any]]]
    anchors: NotRequired[dict[str, dict[str, Any]]]


class _Config(TypedDict):
    """config.json, as far as a report needs it."""

    task: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run: what it was told (config.json) and what it left (result.json, metrics.jsonl).

    folder: where it lies, relative to the folder of all runs. variant, task, seed, n_transfer,
    figure: its place in the reproduction, None where it has none. further: metrics on splits that
    were measured after the training.
    """

    folder: str
    config: dict
    result: dict
    rows: list[dict]
    variant: str | None = None
    task: str | None = None
    seed: int | None = None
    n_transfer: int | None = None
    figure: str | None = None
    further: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def metric(self) -> str | None:
        """The metric of its task, None for a pre-training."""
        return self.config["task"]["metric"]

    def score(self, metric: str, split: str = "dev") -> float | None:
        """The value at the best step, as in the metrics; None if it was not measured."""
        best = self.result.get("best")
        if best is None:
            return None
        if metric == self.metric and split == "dev":
            return best["score"]
        for row in self.rows:
            if row["step"] == best["step"] and row["split"] == split and metric in row:
                return row[metric]
        return self.further.get(split, {}).get(metric)

    def curve(self, split: str, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric."""
        rows = [row for row in self.rows if row["split"] == split and metric in row]
        return [row["step"] for row in rows], [row[metric] for row in rows]


@dataclass(frozen=True)
class Scores:
    """A metric of one cell in per cent: a value for each seed that has run, or the reason why there
    is none."""

    by_seed: dict[int, float] = field(default_factory=dict)
    runs: tuple[Run, ...] = ()
    splits: tuple[str, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.by_seed)

    @property
    def values(self) -> list[float]:
        return list(self.by_seed.values())

    @property
    def n(self) -> int:
        return len(self.by_seed)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Between the best and the worst seed."""
        return max(self.values) - min(self.values)


@dataclass(frozen=True)
class Measured:
    """All that is known of what has run. `scale` is None where there are only single runs."""

    scale: str | None
    runs: tuple[Run, ...] = ()
    unfinished: dict[tuple, str] = field(default_factory=dict)
    pretraining: dict[str, Run] = field(default_factory=dict)
    missing: tuple[dict, ...] = ()
    baselines: dict[str, dict] = field(default_factory=dict)
    probes: tuple[dict, ...] = ()
    anchors: dict[str, dict] = field(default_factory=dict)
    single: tuple[Run, ...] = ()

    def of_cell(self, variant: str, task: str) -> tuple[Run, ...]:
        """The runs of a cell of a table by seed; those of figures stay out."""
        found = [
            run for run in self.runs if (run.variant, run.task, run.figure) == (variant, task, None)
        ]
        return tuple(sorted(found, key=lambda run: run.seed))

    def scores(
        self,
        variant: str,
        task: str,
        metric: str,
        splits: tuple[str, ...],
        table: int | None = None,
    ) -> Scores:
        """The scores of a cell, the mean over those of `splits` that all of its runs measured."""
        runs = self.of_cell(variant, task)
        measured = [
            split for split in splits if all(run.score(metric, split) is not None for run in runs)
        ]
        if not runs or not measured:
            reason = self._reason(variant, task, metric, splits, table, bool(runs))
            return Scores(reason=reason)
        by_seed = {
            run.seed: percent(mean(run.score(metric, split) for split in measured)) for run in runs
        }
        return Scores(by_seed, runs, tuple(measured))

    def _reason(self, variant, task, metric, splits, table, has_runs: bool) -> str:
        if has_runs:
            return f"its runs did not measure {metric} on {' and '.join(splits)}"
        if (variant, task) in self.unfinished:
            return self.unfinished[variant, task]
        for entry in self.missing:
            wanted = {"table": table, "variant": variant, "task": task, "figure": None}
            if all(entry.get(name) in (None, value) for name, value in wanted.items()):
                return entry["reason"]
        return self._to_run(f"--table={table} --tasks={task}") if table else "not run"

    def _to_run(self, flags: str) -> str:
        scale = f" --scale={self.scale}" if self.scale else ""
        return f"not run: gpt1 reproduce {flags}{scale}"

    def why_no_figure(self, name: str) -> str:
        """Why a figure cannot be drawn."""
        reasons = [entry["reason"] for entry in self.missing if entry.get("figure") == name]
        return "; ".join(dict.fromkeys(reasons)) or self._to_run(f"--figure={name}")


def load(folder: Path) -> Measured:
    """What lies under a folder.

    Raises UserError if there is no such folder, no run in it or more than one reproduction; and,
    with the file, for what is not JSON or lacks a key.
    """
    if not folder.is_dir():
        raise UserError(f"--runs={folder} is not a folder; expected one that `reproduce` filled")
    roots = sorted(path.parent for path in folder.rglob(REPRODUCTION))
    if len(roots) > 1:
        raise UserError(
            f"--runs={folder} holds {len(roots)} reproductions, {roots[0]} and {roots[1]} among "
            "them; report one at a time"
        )
    single = [
        _run(path.parent, path.parent.relative_to(folder).as_posix())
        for path in sorted(folder.rglob("config.json"))
        if _finished(path.parent) and not any(root in path.parents for root in roots)
    ]
    if roots:
        return _reproduction(roots[0], tuple(single))
    if not single:
        raise UserError(
            f"--runs={folder} has no results: neither a {REPRODUCTION} nor a folder with "
            "config.json and result.json"
        )
    return Measured(scale=None, single=tuple(single))


def _reproduction(root: Path, single: tuple[Run, ...]) -> Measured:
    path = root / REPRODUCTION
    whole = json_files.read(path, Reproduction, _REMEDY)
    runs, unfinished = [], {}
    for entry in whole["runs"]:
        folder = root / entry["folder"]
        if _finished(folder):
            place = {k: entry.get(k) for k in ("variant", "task", "seed", "n_transfer", "figure")}
            further = entry.get("further", {})
            runs.append(_run(folder, entry["folder"], further=further, **place))
        else:
            unfinished[entry["variant"], entry["task"]] = (
                f"{entry['folder']} has no result.json: not finished, or not copied"
            )
    for row in whole.get("probes", ()):
        if row["probe"] not in whole.get("anchors", {}):
            raise UserError(f"{path}: no anchors of the probe {row['probe']}; probe again")
    pretraining = {
        name: _run(root / folder, folder)
        for name, folder in whole.get("pretraining", {}).items()
        # Released weights, or a folder that was not copied, left no files here.
        if _finished(root / folder)
    }
    return Measured(
        scale=whole["scale"],
        runs=tuple(runs),
        unfinished=unfinished,
        pretraining=pretraining,
        missing=tuple(whole.get("missing", ())),
        baselines=whole.get("baselines", {}),
        probes=tuple(whole.get("probes", ())),
        anchors=whole.get("anchors", {}),
        single=single,
    )


def _finished(folder: Path) -> bool:
    return (folder / "config.json").exists() and (folder / "result.json").exists()


def _run(folder: Path, name: str, **place) -> Run:
    config = json_files.read(folder / "config.json", _Config, _REMEDY)
    return Run(
        folder=name,
        config=config,
        result=json_files.read(folder / "result.json", Result, _REMEDY),
        rows=read_rows(folder / "metrics.jsonl"),
        **place,
    )
