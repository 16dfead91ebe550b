"""Writing to disk, one way for each thing: whole files in one step, a lock on a folder."""

import fcntl
import json
import os
from pathlib import Path

from gpt1_jax.errors import UserError


def write_json(path: Path, value: object) -> None:
    """Replaces `path` in one step, so that a reader or a crash never sees half of it."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w") as file:
        json.dump(value, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


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
