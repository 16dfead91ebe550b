"""What a run leaves behind: config.json, metrics.jsonl, result.json and TensorBoard events.

Only process 0 writes. A row is on disk before a checkpoint of its step commits, and each
(step, split) stands once, also after a resume.
"""

import functools
import json
import os
import time
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.disk import as_user_error, output_path, write_json, write_text
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
        self._file = self._events = self._new_events = None
        self.newest: dict[str, dict[str, float]] = {}
        if not active:
            return
        output_path(workdir / "result.json")  # not only when all is done
        self._path = path = workdir / "metrics.jsonl"
        rows = [row for row in read_rows(path) if row["step"] <= resumed_from]
        if not rows and resumed_from and (resumed_from >= config.every or not path.exists()):
            say(
                f"{path} has no rows any more: what was measured up to step {resumed_from} is lost "
                f"unless you copy it back, and the record goes on with step {resumed_from + 1}"
            )
        for row in rows:
            values = {name: value for name, value in row.items() if name not in ("step", "split")}
            self.newest[row["split"]] = values
        if config.tensorboard:
            folder, settings = workdir / "events", settings or {}
            self._new_events = functools.partial(_Events, folder, settings)
            self._events = self._new_events(resumed_from + 1)
        self._file = self._opened(rows)

    def _opened(self, rows: Iterable[dict[str, Any]]) -> FileIO:
        """metrics.jsonl with these rows, to be read and continued."""
        write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        return self._path.open("a+b", buffering=0)

    def _require_there(self, step: int) -> None:
        """What is written goes where a reader looks for it, also where somebody has deleted or
        replaced that under the training: the rows that are not there any more are written again."""
        if not (self.workdir / "config.json").exists():
            return  # the whole run is gone, which the next checkpoint says
        if not _is_at(self._file.fileno(), self._path):
            self._file.seek(0)
            rows, there = map(json.loads, self._file.readlines()), read_rows(self._path)
            known = {(row["step"], row["split"]) for row in there}
            missing = [row for row in rows if (row["step"], row["split"]) not in known]
            with self._file:
                self._file = self._opened([*there, *missing])
            say(
                f"{self._path} was deleted or replaced while it was written; {len(missing)} rows "
                "that were not there are written again"
            )
        if self._events and not self._events.is_there():
            say(
                f"{self._events.folder} was deleted or replaced while it was written; it goes on "
                f"with step {step}, and metrics.jsonl has the rows of before"
            )
            self._events.close()
            self._events = self._new_events(step)

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
            self._require_there(step)
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


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one of this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


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

    def __init__(self, folder: Path, settings: Mapping[str, Any], first_step: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.summary import hparams, scalar, text

        self._event, self._scalar, self._text = Event, scalar, text
        self.folder = folder
        with as_user_error(folder):
            folder.mkdir(exist_ok=True)
            self._writer = EventsWriter(str(folder / "events"))
            self._file = Path(self._writer._file_name)
            self._descriptor = os.open(self._file, os.O_RDONLY)
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

    def is_there(self) -> bool:
        """Whether what is written can be found."""
        return _is_at(self._descriptor, self._file)

    def close(self) -> None:
        self._writer.close()
        os.close(self._descriptor)
