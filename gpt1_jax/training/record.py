"""What a run leaves behind: config.json, metrics.jsonl, result.json and TensorBoard events.

Only process 0 writes. A row is on disk before a checkpoint of its step commits, and each
(step, split) stands once, also after a resume.
"""

import json
import os
from pathlib import Path

from gpt1_jax.disk import write_json
from gpt1_jax.recipe.experiment import LogConfig
from gpt1_jax.run_files import read_rows


class MetricsWriter:
    """The metrics of one run. Rows are {"step", "split", name: value, ...}.

    newest: the last values of each split among the rows that a resumed run keeps.
    """

    def __init__(self, workdir: Path, config: LogConfig, resumed_from: int, active: bool = True):
        """Drops rows after step `resumed_from`, and a last line that a crash has torn."""
        self.workdir = workdir
        self._active = active
        self._file = self._events = None
        self.newest: dict[str, dict[str, float]] = {}
        if not active:
            return
        path = workdir / "metrics.jsonl"
        rows = [row for row in read_rows(path) if row["step"] <= resumed_from]
        for row in rows:
            values = {name: value for name, value in row.items() if name not in ("step", "split")}
            self.newest[row["split"]] = values
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(temporary, path)
        self._file = path.open("a")
        if config.tensorboard:
            from tensorboardX import SummaryWriter

            # purge_step hides what an interrupted run had drawn beyond its last checkpoint.
            self._events = SummaryWriter(str(workdir / "events"), purge_step=resumed_from + 1)

    def row(self, step: int, split: str, values: dict[str, float]) -> None:
        """Adds one row, to be made durable by `flush`."""
        if not self._active:
            return
        self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
        if self._events:
            for name, value in values.items():
                self._events.add_scalar(f"{split}/{name}", value, step)

    def flush(self) -> None:
        """Returns when all rows are on disk."""
        if self._active:
            self._file.flush()
            os.fsync(self._file.fileno())

    def result(self, result: dict) -> None:
        """Writes result.json."""
        if self._active:
            write_json(self.workdir / "result.json", result)

    def close(self) -> None:
        if self._active:
            self.flush()
            self._file.close()
            if self._events:
                self._events.close()
