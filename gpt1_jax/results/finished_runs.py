"""What has run: the files of a `reproduce`, and of single runs, as they were copied from anywhere.

A reproduction is a folder with reproduction.json, which names its runs (experiments/ledger.py
writes it). Run folders that lie under no reproduction.json are single runs.
"""

import itertools
import os
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple, NotRequired

from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.results.averages import mean, percent
from gpt1_jax.results.paper import FigureName
from gpt1_jax.run_files import Result, folders_below, read_rows, why_no_result

REPRODUCTION = "reproduction.json"
_REMEDY = "expected a file of a run; copy it again or delete the run"

Scale = Literal["paper", "small"]
"""How large a reproduction is: as the paper's, or a small model on capped training sets."""


class Place(TypedDict):
    """A run of a reproduction: where it lies, and which cell it is for. `value` and `step` are
    those of the checkpoint that was measured on `further` splits."""

    folder: str
    variant: str
    task: str
    seed: int
    n_transfer: NotRequired[int | None]
    figure: NotRequired[FigureName | None]
    tokens: NotRequired[int | None]
    labels: NotRequired[int | None]
    value: NotRequired[float]
    step: NotRequired[int]
    further: NotRequired[dict[str, dict[str, float]]]


class Missing(TypedDict):
    """Why a cell of the tables or a figure has no run; of probes, the variant is a body."""

    variant: str
    task: str
    figure: FigureName | None
    reason: str


class Baselines(TypedDict):
    """What those who cannot read score on a task, as fractions, by tables.BASELINES; and how many
    examples it has by split."""

    metric: str
    examples: NotRequired[dict[str, int]]


class ProbeRow(TypedDict):
    """A zero-shot score of a checkpoint."""

    body: str
    step: int
    probe: str
    task: str
    metric: str
    value: float
    n: int
    commonest: NotRequired[float]


class Anchors(TypedDict):
    """What a probe is relative to, in per cent of its metric: chance, and the best known score."""

    random: float
    best: float
    source: NotRequired[str]


class Reproduction(TypedDict):
    """reproduction.json."""

    scale: Scale
    runs: list[Place]
    seeds: NotRequired[list[int]]
    pretraining: NotRequired[dict[str, str | list[str]]]
    missing: NotRequired[list[Missing]]
    baselines: NotRequired[dict[str, Baselines]]
    by_labels: NotRequired[dict[str, list[Baselines]]]
    probes: NotRequired[list[ProbeRow]]
    anchors: NotRequired[dict[str, Anchors]]


class _Task(TypedDict):
    metric: str | None


class _Log(TypedDict):
    every: int


class _Config(TypedDict):
    """config.json, as far as a report needs it."""

    task: _Task
    log: NotRequired[_Log]


class Best(NamedTuple):
    """A checkpoint, and its score on dev as a fraction."""

    step: int
    score: float


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One run: what it was told (config.json) and what it left (result.json, metrics.jsonl).

    folder: where it lies, relative to the folder of all runs. further: metrics by split that were
    measured after the training.
    """

    folder: str
    config: dict[str, Any]
    result: Result
    rows: list[dict[str, Any]]
    further: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def metric(self) -> str | None:
        """The metric of its task, None for a pre-training."""
        return self.config["task"]["metric"]

    @property
    def task_name(self) -> str | None:
        """Of its task, or of the folder that a task of one's own lies in; None for a
        pre-training."""
        if self.metric is None:
            return None
        task = self.config["task"]
        return task.get("name") or PurePath(task.get("path") or "unnamed").name

    @property
    def best(self) -> Best | None:
        """The checkpoint that was chosen, None where no task was learned."""
        best = self.result.get("best")
        if best is None or best["step"] is None or best["score"] is None:
            return None
        return Best(best["step"], best["score"])

    def score(self, metric: str, split: str = "dev") -> float | None:
        """The value at the best step, as in the metrics; None if it was not measured."""
        best = self.best
        if best is None:
            return None
        if metric == self.metric and split == "dev":
            return best.score
        for row in self.rows:
            if row["step"] == best.step and row["split"] == split and metric in row:
                return row[metric]
        return self.further.get(split, {}).get(metric)

    @property
    def stopped(self) -> str:
        """Words about a run that was stopped on purpose before its end; none of a whole one."""
        step, total = self.result["step"], self.config.get("resolved", {}).get("total_steps")
        cut_short = isinstance(total, int) and step < total
        return f"stopped after {step:,} of {total:,} updates" if cut_short else ""

    def curve(self, split: str, metric: str) -> tuple[list[int], list[float]]:
        """Steps and values of a metric."""
        rows = [row for row in self.rows if row["split"] == split and row.get(metric) is not None]
        return [row["step"] for row in rows], [row[metric] for row in rows]

    @property
    def gap(self) -> str | None:
        """What a curve does not show, the record of a run having begun late."""
        every = self.config["log"]["every"] if "log" in self.config else 1
        first = min((row["step"] for row in self.rows), default=None)
        if first is None:
            return f"{self.folder}: metrics.jsonl has no rows, so there is no curve."
        if first > every:
            return f"{self.folder}: metrics.jsonl has no rows before those of step {first}."
        return None


@dataclass(frozen=True, kw_only=True)
class ReproducedRun(FinishedRun):
    """A fine-tuning with its place in a reproduction. n_transfer: how many blocks it took over,
    where that was chosen; figure: which figure it is for, None for the tables; tokens: those of its
    pre-training, and labels: how many it has, where it is about them."""

    variant: str
    task: str
    seed: int
    n_transfer: int | None = None
    figure: FigureName | None = None
    tokens: int | None = None
    labels: int | None = None

    @property
    def metric(self) -> str:
        """The metric of its task."""
        return self.config["task"]["metric"]


@dataclass(frozen=True)
class Scores:
    """A metric of one cell in per cent: a value for each seed that has run, or the reason why there
    is none."""

    by_seed: dict[int, float] = field(default_factory=dict)
    runs: tuple[ReproducedRun, ...] = ()
    splits: tuple[str, ...] = ()
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.by_seed)

    @property
    def values(self) -> list[float]:
        """A value for each seed."""
        return list(self.by_seed.values())

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.by_seed)

    @property
    def median(self) -> float:
        """Of the seeds."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """Between the best and the worst seed."""
        return max(self.values) - min(self.values)

    def paired(self, other: "Scores") -> list[float]:
        """What another cell has more, for each seed that both have."""
        both = self.by_seed.keys() & other.by_seed
        return [other.by_seed[seed] - self.by_seed[seed] for seed in both]


@dataclass(frozen=True)
class FinishedRuns:
    """All that is known of what has run.

    scale: None where there are only single runs. runs: those of the tables and of figures with
    fine-tuning. unfinished: by variant and task, why a run of the reproduction is not in `runs`.
    pretraining: by body, in the order in which runs came to start from them. by_labels: by task,
    baselines on few labels and on more. missing, baselines, probes, anchors: as in
    reproduction.json. single: runs of no reproduction. folder: that of the reproduction, as it was
    named. left_out: by folder, why what looks like a run is none of these.
    """

    scale: Scale | None
    folder: Path | None = None
    runs: tuple[ReproducedRun, ...] = ()
    unfinished: dict[tuple[str, str], str] = field(default_factory=dict)
    pretraining: dict[str, tuple[FinishedRun, ...]] = field(default_factory=dict)
    missing: tuple[Missing, ...] = ()
    baselines: dict[str, Baselines] = field(default_factory=dict)
    by_labels: dict[str, list[Baselines]] = field(default_factory=dict)
    probes: tuple[ProbeRow, ...] = ()
    anchors: dict[str, Anchors] = field(default_factory=dict)
    single: tuple[FinishedRun, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def used(self) -> list[str]:
        """The folders of the runs of the reproduction, relative to its own."""
        return [run.folder for run in itertools.chain(self.runs, *self.pretraining.values())]

    def started_from(self, folder: Path) -> bool:
        """Whether a run here began with the weights of a folder, wherever both lay then."""
        ends = {PurePath(str(run.config.get("initial"))).parts[-2:] for run in self.runs}
        return folder.parts[-2:] in ends

    def of_cell(self, variant: str, task: str) -> tuple[ReproducedRun, ...]:
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
        splits: Sequence[str],
        table: int | None = None,
    ) -> Scores:
        """The scores of a cell, the mean over those of `splits` that all of its runs measured."""
        runs = self.of_cell(variant, task)
        measured: dict[str, list[float]] = {}
        for split in splits:
            found = [run.score(metric, split) for run in runs]
            values = [value for value in found if value is not None]
            if runs and len(values) == len(runs):
                measured[split] = values
        if not measured:
            reason = self._reason(variant, task, metric, splits, table, bool(runs))
            return Scores(reason=reason)
        means = [percent(mean(values)) for values in zip(*measured.values(), strict=True)]
        by_seed = {run.seed: value for run, value in zip(runs, means, strict=True)}
        return Scores(by_seed, runs, tuple(measured))

    def _reason(
        self,
        variant: str,
        task: str,
        metric: str,
        splits: Sequence[str],
        table: int | None,
        has_runs: bool,
    ) -> str:
        if has_runs:
            return f"its runs did not measure {metric} on {' and '.join(splits)}"
        if (variant, task) in self.unfinished:
            return self.unfinished[variant, task]
        for entry in self.missing:
            if (entry["variant"], entry["task"], entry["figure"]) == (variant, task, None):
                return entry["reason"]
        return self._not_run(f"--table={table}", f"--tasks={task}") if table else "not run"

    def _not_run(self, *flags: str) -> str:
        return f"not run: {self.command(*flags)}, with the flags of before that name data"

    def command(self, *flags: str) -> str:
        """What to type so that what the flags name is run, too."""
        where = [f"--workdir={self.folder}"] if self.folder else []
        scale = [f"--scale={self.scale}"] if self.scale else []
        return shlex.join(["gpt1", "reproduce", *flags, *where, *scale])

    def why_no_figure(self, name: str) -> str:
        """Why a figure cannot be drawn."""
        reasons = [entry["reason"] for entry in self.missing if entry.get("figure") == name]
        return "; ".join(dict.fromkeys(reasons)) or self._not_run(f"--figure={name}")


def pretrainings(whole: Reproduction) -> dict[str, list[str]]:
    """The folders by body; where a body could have only one, the file has just its name."""
    found = whole.get("pretraining", {}).items()
    return {body: [named] if isinstance(named, str) else named for body, named in found}


def is_of(entry: Mapping[str, Any], step: int, score: float) -> bool:
    """Whether what reproduction.json has of a run is of this checkpoint; before it had steps, a
    score told that."""
    return (entry.get("step", step), entry.get("value", score)) == (step, score)


def read_runs(folder: Path) -> FinishedRuns:
    """What lies under a folder, also where links lead to it.

    Raises UserError if there is no such folder, no run in it or more than one reproduction; and,
    with the file, for what is not JSON or lacks a key.
    """
    if not folder.is_dir():
        raise UserError(f"--runs={folder} is not a folder; expected one that `reproduce` filled")
    below, left_out = folders_below(folder)
    roots = [path for path in below if (path / REPRODUCTION).exists()]
    if roots[:1] == [folder]:  # others within it are copies of it, or lie there by chance
        left_out |= dict.fromkeys(roots[1:], "a reproduction of its own; report it by itself")
        below = [path for path in below if not any(one in path.parents for one in roots[1:])]
        roots = roots[:1]
    if len(roots) > 1:
        raise UserError(
            f"--runs={folder} holds {len(roots)} reproductions, {roots[0]} and {roots[1]} among "
            "them; report one at a time"
        )
    found, absent = _reproduction(roots[0]) if roots else (FinishedRuns(scale=None), {})
    used = {os.path.realpath(roots[0] / name) for name in found.used} if roots else set()
    single = []
    for path in below:
        if reason := why_no_result(path):
            left_out[path] = reason
        elif not _finished(path) or os.path.realpath(path) in used:
            continue
        elif not any(root in path.parents for root in roots):
            single.append(FinishedRun(**_files(path, _named(path, folder))))
        elif not found.started_from(path):
            left_out[path] = f"{REPRODUCTION} does not list it"
    left_out |= absent
    if not roots and not single:
        reasons = [f"; {path}: {why}" for path, why in sorted(left_out.items())][:1]
        raise UserError(
            f"--runs={folder} has no results: neither a {REPRODUCTION} nor a folder with "
            f"config.json and result.json{''.join(reasons)}"
        )
    return replace(
        found,
        single=tuple(sorted(single, key=lambda run: run.folder)),
        left_out={_named(path, folder): left_out[path] for path in sorted(left_out)},
    )


def _named(path: Path, folder: Path) -> str:
    """What is called so below a folder; the folder itself by its own name."""
    within = os.path.relpath(path, folder)
    return folder.absolute().name if within == "." else Path(within).as_posix()


def _reproduction(root: Path) -> tuple[FinishedRuns, dict[Path, str]]:
    """A reproduction, and why runs that it lists are not in it."""
    path = root / REPRODUCTION
    whole = json_files.read(path, Reproduction, _REMEDY)
    runs, unfinished, absent = [], {}, {}
    for entry in whole["runs"]:
        folder, reason = entry["folder"], "has no result.json: not finished, or not copied"
        if _finished(root / folder):
            run = _reproduced(root, entry)
            if not run.stopped:
                runs.append(run)
                continue
            reason = f"was {run.stopped}"
        absent[root / folder] = reason
        if entry.get("figure") is None:
            unfinished[entry["variant"], entry["task"]] = f"{folder} {reason}"
    for row in whole.get("probes", ()):
        if row["probe"] not in whole.get("anchors", {}):
            raise UserError(f"{path}: no anchors of the probe {row['probe']}; probe again")
    pretraining = {
        # Released weights, or a folder that was not copied, left no files here.
        body: tuple(
            FinishedRun(**_files(root / name, name)) for name in named if _finished(root / name)
        )
        for body, named in pretrainings(whole).items()
    }
    found = FinishedRuns(
        scale=whole["scale"],
        folder=root,
        runs=tuple(runs),
        unfinished=unfinished,
        pretraining=pretraining,
        missing=tuple(whole.get("missing", ())),
        baselines=whole.get("baselines", {}),
        by_labels=whole.get("by_labels", {}),
        probes=tuple(whole.get("probes", ())),
        anchors=whole.get("anchors", {}),
    )
    return found, absent


def _finished(folder: Path) -> bool:
    return (folder / "config.json").exists() and (folder / "result.json").exists()


def _reproduced(root: Path, entry: Place) -> ReproducedRun:
    """The run of an entry of reproduction.json."""
    files = _files(root / entry["folder"], entry["folder"])
    best = FinishedRun(**files).best
    run = ReproducedRun(
        **files,
        further=entry.get("further", {}) if best and is_of(entry, *best) else {},
        variant=entry["variant"],
        task=entry["task"],
        seed=entry["seed"],
        n_transfer=entry.get("n_transfer"),
        figure=entry.get("figure"),
        tokens=entry.get("tokens"),
        labels=entry.get("labels"),
    )
    if run.metric is None:
        raise UserError(f"{root / run.folder}/config.json names no metric; it is no fine-tuning")
    return run


def _files(folder: Path, name: str) -> dict[str, Any]:
    """What a FinishedRun is made of."""
    place = folder / "config.json"
    # As it stands there: what was checked has the keys in another order.
    config = json_files.read(place, dict[str, Any], _REMEDY)
    json_files.shaped(config, _Config, str(place), _REMEDY)
    return {
        "folder": name,
        "config": config,
        "result": json_files.read(folder / "result.json", Result, _REMEDY),
        "rows": read_rows(folder / "metrics.jsonl"),
    }
