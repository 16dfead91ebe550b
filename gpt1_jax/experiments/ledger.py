"""The ledger of a reproduction: what was asked for, so that the same command goes on with it."""

import contextlib
import statistics
from pathlib import Path
from typing import Any

from gpt1_jax import json_files
from gpt1_jax.disk import write_json
from gpt1_jax.errors import UserError
from gpt1_jax.experiments.config import Request
from gpt1_jax.messages import say
from gpt1_jax.results.finished_runs import REPRODUCTION, Reproduction, pretrainings
from gpt1_jax.training.claim import AnotherRun


class Ledger:
    """reproduction.json: which runs there are, and why others are not.

    `failures` has a line about each cell that failed in this call, and `refused` an entry about
    each whose settings are not those of the run that is there; the file has neither.
    """

    def __init__(self, request: Request):
        """Goes on with what the workdir has. UserError if that is of another scale."""
        self.workdir = Path(request.workdir).expanduser()
        self.failures: list[str] = []
        self.refused: list[dict[str, Any]] = []
        self.content: dict[str, Any] = {
            "scale": request.scale,
            "seeds": [],
            "runs": [],
            "pretraining": {},
            "missing": [],
            "baselines": {},
            "by_labels": {},
            "probes": [],
            "anchors": {},
        }
        path = self.workdir / REPRODUCTION
        with contextlib.suppress(FileNotFoundError):
            remedy = "copy it again, or move it away to begin again"
            known = json_files.read(path, Reproduction, remedy)
            self.content |= {**known, "pretraining": pretrainings(known)}
        if self.content["scale"] != request.scale:
            raise UserError(
                f"{self.workdir} reproduces at --scale={self.content['scale']}, not "
                f"{request.scale}; choose another --workdir"
            )

    def save(self) -> None:
        write_json(self.workdir / REPRODUCTION, self.content)

    def add_run(self, entry: dict) -> None:
        """A run that was finished, which is not missing any more; in place of what was known of it,
        for it may have been trained on meanwhile."""
        self.content["seeds"] = sorted({*self.content["seeds"], entry["seed"]})
        known = self.run(entry["folder"], entry["figure"])
        if known is None:
            self.content["runs"].append(entry)
        else:
            known |= entry
        self._forget(entry["variant"], entry["task"], entry["figure"])
        self.save()

    def run(self, folder: str, figure: str | None) -> dict | None:
        """What is known of a run as one of that figure, or of the tables; it may be both."""
        for one in self.content["runs"]:
            if (one["folder"], one.get("figure")) == (folder, figure):
                return one
        return None

    def add_pretraining(self, body: str, folder: str) -> None:
        """One that a run of here began with, beside those that others did."""
        known = self.content["pretraining"].setdefault(body, [])
        if folder not in known:
            known.append(folder)
        self.save()

    def add_probes(self, body: str, rows: list[dict], figure: str) -> None:
        """What the probes of a body found, in place of what they found before."""
        others = [row for row in self.content["probes"] if row["body"] != body]
        self.content["probes"] = others + rows
        self.content["anchors"] |= {row["probe"]: row["anchors"] for row in rows}
        self._forget(body, "probes", figure)
        self.save()

    def add_absent(self, variant: str, task: str, figure: str | None, reason: str) -> None:
        """A cell that cannot run, and why."""
        self._forget(variant, task, figure)
        self.content["missing"].append(_missing(variant, task, figure, reason))
        say(f"{variant} {task}: {reason}")

    def add_failure(self, variant: str, task: str, figure: str | None, error: UserError) -> None:
        """A cell that could have run, and failed; or that was refused, and is what it was."""
        self.failures.append(f"{variant} {task}: {error}")
        if isinstance(error, AnotherRun):
            self.refused.append(_missing(variant, task, figure, str(error)))
            say(self.failures[-1])
        else:
            self.add_absent(variant, task, figure, str(error))

    @property
    def missing(self) -> list[dict[str, Any]]:
        """Why there is no run of a cell, or none as this call asked for it."""
        return [*self.content["missing"], *self.refused]

    def _forget(self, variant: str, task: str, figure: str | None) -> None:
        """Whatever was missing of a cell."""
        key = (variant, task, figure)
        self.content["missing"] = [
            one
            for one in self.content["missing"]
            if (one["variant"], one["task"], one["figure"]) != key
        ]

    def table(self, variants: list[str], tasks: list[str]) -> dict[str, dict[str, float | None]]:
        """Medians over seeds by variant and task, None without a run."""
        values: dict[tuple[str, str], list[float]] = {}
        for one in self.content["runs"]:
            if one["figure"] is None:
                values.setdefault((one["variant"], one["task"]), []).append(one["value"])
        return {
            variant: {
                task: statistics.median(found) if (found := values.get((variant, task))) else None
                for task in tasks
            }
            for variant in variants
        }


def _missing(variant: str, task: str, figure: str | None, reason: str) -> dict[str, Any]:
    return {"variant": variant, "task": task, "figure": figure, "reason": reason}
