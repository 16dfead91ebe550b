"""What a run leaves behind: config.json, metrics.jsonl, result.json and TensorBoard events.

Only process 0 writes. A row is on disk before a checkpoint of its step commits, and each
(step, split) stands once, also after a resume.
"""

import json
import os
import time
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.disk import as_user_error, write_json, write_text
from gpt1_jax.messages import say
from gpt1_jax.recipe.experiment import LogConfig
from gpt1_jax.run_files import read_rows
from gpt1_jax.storage import places


class MetricsWriter:
    """The metrics of one run. Rows are {"step", "split", name: value, ...}.

    newest: the last values of each split among the rows that a resumed run keeps.
    """

    def __init__(
        self,
        workdir: Path,
        config: LogConfig,
        resumed_from: int,
        active: bool = True,
        settings: Mapping[str, Any] | None = None,
    ):
        """Drops rows after step `resumed_from`, and a last line that a crash has torn; says where
        none are left of those before. `settings` of the run, by key, are what TensorBoard sets its
        runs beside each other by."""
        self.workdir = workdir
        self._active = active
        self._file = self._events = None
        self.newest: dict[str, dict[str, float]] = {}
        if not active:
            return
        path = workdir / "metrics.jsonl"
        rows = [row for row in read_rows(path) if row["step"] <= resumed_from]
        if not rows and resumed_from and (resumed_from >= config.every or not path.exists()):
            say(
                f"{path} has no rows any more: what was measured up to step {resumed_from} is lost "
                f"unless you copy it back, and the record goes on with step {resumed_from + 1}"
            )
        for row in rows:
            values = {name: value for name, value in row.items() if name not in ("step", "split")}
            self.newest[row["split"]] = values
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        if config.tensorboard:
            self._events = _Events(workdir / "events", resumed_from + 1, settings or {})
        self._file = path.open("ab", buffering=0)

    def row(
        self,
        step: int,
        split: str,
        values: dict[str, float],
        passing: Mapping[str, float] | None = None,
    ) -> None:
        """Adds one row, to be made durable by `flush`. What is `passing`, as a speed is, goes to
        the events alone, for a row says what another run would say too. UserError where the disk
        refuses it."""
        if not self._active:
            return
        with as_user_error(self.workdir):
            _append(self._file, json.dumps({"step": step, "split": split, **values}) + "\n")
            if self._events:
                self._events.add(step, split, {**values, **(passing or {})})

    def text(self, step: int, name: str, text: str) -> None:
        """Adds a text to the events, if these are written."""
        if self._active and self._events:
            with as_user_error(self.workdir):
                self._events.add_text(step, name, text)

    def flush(self) -> None:
        """Returns when all rows are on disk."""
        if self._active:
            with as_user_error(self.workdir):
                os.fsync(self._file.fileno())
            places.send(self.workdir)

    def result(self, result: dict) -> None:
        """Writes result.json."""
        if self._active:
            write_json(self.workdir / "result.json", result)
            places.send(self.workdir)

    def close(self) -> None:
        if self._active:
            self.flush()
            self._file.close()
            if self._events:
                with as_user_error(self.workdir):
                    self._events.close()


def _append(file: FileIO, line: str) -> None:
    """Adds a whole line or, on a full disk, nothing."""
    content, before = line.encode(), os.fstat(file.fileno()).st_size
    try:
        while content:
            content = content[file.write(content) :]
    except OSError:
        file.truncate(before)
        raise


_PLAIN = (bool, int, float, str)
# What runs are compared by; a run has those that it measures.
_COMPARED = ("train/loss", "valid/loss", *(f"dev/{name}" for name in ("loss", *METRICS)))


class _Events:
    """TensorBoard events, written by the thread that trains: what goes wrong with them is raised
    where it happens, and no queue of another thread can fill up."""

    def __init__(self, folder: Path, first_step: int, settings: Mapping[str, Any]):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import hparams, scalar, text

        self._event, self._scalar, self._text = Event, scalar, text
        with as_user_error(folder):
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
        # Hides what an interrupted run had drawn beyond its last checkpoint.
        start = SessionLog(status=SessionLog.START)
        self._write(first_step, session_log=start)
        # The page HPARAMS of TensorBoard: a row for each run, a column for each setting.
        plain = {key: v if isinstance(v, _PLAIN) else str(v) for key, v in settings.items()}
        for summary in hparams(plain, dict.fromkeys(_COMPARED))[:2]:
            self._write(first_step, summary=summary)

    def add(self, step: int, split: str, values: dict[str, float]) -> None:
        for name, value in values.items():
            if value is not None:
                self._write(step, summary=self._scalar(f"{split}/{name}", value))

    def add_text(self, step: int, name: str, text: str) -> None:
        # TensorBoard reads Markdown; as code, a text stays as it is.
        shown = "".join(f"    {line}\n" for line in text.splitlines())
        self._write(step, summary=self._text(name, shown))

    def _write(self, step: int, **content) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=step, **content))

    def close(self) -> None:
        self._writer.close()
