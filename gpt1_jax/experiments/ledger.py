"""The ledger of a reproduction: what was asked for, so that the same command goes on with it."""

import contextlib
import statistics
from pathlib import Path

from gpt1_jax import json_files
from gpt1_jax.disk import write_json
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.results.finished_runs import REPRODUCTION, Reproduction
from gpt1_jax.results.paper import read_paper


class Ledger:
    """reproduction.json: which runs there are, and why others are not."""

    def __init__(self, workdir: Path, scale: str, seeds: tuple[int, ...]):
        """Goes on with what the folder has. UserError if that is of another scale."""
        self.workdir = workdir
        self.content = {
            "scale": scale,
            "seeds": list(seeds),
            "runs": [],
            "pretraining": {},
            "missing": [],
            "baselines": {},
            "probes": [],
            "anchors": {},
        }
        with contextlib.suppress(FileNotFoundError):
            remedy = "copy it again, or move it away to begin again"
            self.content |= json_files.read(workdir / REPRODUCTION, Reproduction, remedy)
        if self.content["scale"] != scale:
            raise UserError(
                f"{workdir} reproduces at --scale={self.content['scale']}, not {scale}; choose "
                "another --workdir"
            )
        self.content["seeds"] = sorted({*self.content["seeds"], *seeds})

    def save(self) -> None:
        write_json(self.workdir / REPRODUCTION, self.content)

    def add(self, entry: dict) -> None:
        """A run that was finished, which is not missing any more."""
        self.content["runs"].append(entry)
        self.forgive(entry["variant"], entry["task"], entry["figure"])
        self.save()

    def has(self, folder: Path) -> bool:
        return any(one["folder"] == str(folder) for one in self.content["runs"])

    def miss(self, variant: str, task: str, figure: str | None, reason: str) -> None:
        self.forgive(variant, task, figure)
        entry = {"variant": variant, "task": task, "figure": figure, "reason": reason}
        self.content["missing"].append(entry)
        say(f"{variant} {task}: {reason}")

    def forgive(self, variant: str, task: str, figure: str | None) -> None:
        key = (variant, task, figure)
        self.content["missing"] = [
            one
            for one in self.content["missing"]
            if (one["variant"], one["task"], one["figure"]) != key
        ]

    def table(self, names: list[str]) -> dict[str, dict[str, float | None]]:
        """Medians over seeds by variant and task, None without a run."""
        table = {}
        for variant in read_paper().variants:
            table[variant] = {}
            for name in names:
                found = [
                    value
                    for one in self.content["runs"]
                    if (one["variant"], one["task"], one["figure"]) == (variant, name, None)
                    for value in [one["value"]]
                ]
                table[variant][name] = statistics.median(found) if found else None
        return table
