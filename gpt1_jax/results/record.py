"""What a run leaves behind: config.json, metrics.jsonl, result.json and TensorBoard events.

Only process 0 writes. A row is on disk before a checkpoint of its step commits, and each
(step, split) stands once, also after a resume.
"""

import fcntl
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from gpt1_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


@dataclass(frozen=True)
class LogConfig:
    """Write a row of training metrics every `every` updates; `tensorboard` also writes events."""

    every: int = 10
    tensorboard: bool = True

    def __post_init__(self):
        if self.every < 1:
            raise UserError(f"log.every is {self.every}; expected at least 1")


def write_json(path: Path, value: object) -> None:
    """Replaces `path` in one step, so that a reader or a crash never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def provenance(config: dict) -> dict:
    """Versions, source revision, hash of the config and the command that was typed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    text = json.dumps(config, sort_keys=True)
    return {
        "versions": versions,
        "git": _git(),
        "config_hash": hashlib.sha256(text.encode()).hexdigest(),
        "command": shlex.join(sys.argv),
    }


def _git() -> dict | None:
    """Commit and whether the working tree differs from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


class WorkdirLock:
    """Keeps a second process from training in the same folder. The kernel drops the lock with the
    process that holds it, however that dies."""

    def __init__(self, workdir: Path):
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._file = (workdir / ".lock").open("w")
        except OSError as error:
            raise UserError(f"--workdir={workdir} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise UserError(
                f"another process is training in {workdir}; wait for it or choose another --workdir"
            ) from None

    def release(self) -> None:
        self._file.close()


class Record:
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


def read_result(workdir: Path) -> dict | None:
    """result.json, or None where there is none yet."""
    try:
        return json.loads((workdir / "result.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a torn last line; none if the file does not exist.

    Raises UserError for a line in the middle that is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number} is not a JSON object") from None
    return rows
