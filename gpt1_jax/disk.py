"""Files on disk, one way for each thing: a file or a folder written whole or not at all, a lock,
and reading only what is a file.

A file is written under a name of its own beside its place, opened exclusively, which also follows
no link, and renamed over a regular file only when all of it is on the disk. What was there before
outlives whatever happens until then, and what was begun is taken away, also where a signal ends the
process.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

import filelock

from gpt1_jax import signals
from gpt1_jax.errors import UserError

LOCK = ".lock"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
WHILE_WRITING = NO_ROOM | {errno.EPIPE}
# What a disk says of a place that a person can mend.
UNWRITABLE = NO_ROOM | {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY, errno.EEXIST, errno.EIO, errno.ESTALE),
}


def way_out(error: OSError) -> str:
    """What to do about what a disk refused."""
    if error.errno == errno.EFBIG:
        return "allow larger files (ulimit -f)"
    return "free some space" if error.errno in NO_ROOM else "mend that"


def reason(error: OSError) -> str:
    """What went wrong with a place on disk and, where it is full, the way out."""
    hint = f"; {way_out(error)}, then start again" if error.errno in NO_ROOM else ""
    return f"{error.strerror or error}{hint}"


@contextmanager
def as_user_error(place: object, numbers: Iterable[int] = UNWRITABLE) -> Iterator[None]:
    """Turns what a disk refuses (full, read-only, no such folder, ...) into one line."""
    try:
        yield
    except OSError as error:
        if error.errno not in numbers:
            raise
        raise UserError(f"{place} cannot be written: {reason(error)}") from None


# Files


def require_here(path: Path) -> None:
    """UserError for a name in an object store, where storage/places.py sends some outputs."""
    # However often it was taken for a path: its two slashes are one then.
    if found := re.search(r"(?:^|/)([a-z][a-z0-9+.-]+):/(.*)", str(path)):
        raise UserError(
            f"{found[1]}://{found[2]} is no folder of this machine, and this is not written there; "
            "write here, and copy what was made"
        )


def require_text_name(path: object, shown: str, remedy: str) -> None:
    """UserError for a name that the libraries and the files of a run have no form for."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(f"{shown}: not UTF-8; {remedy}") from None


def output_path(path: Path, inputs: Iterable[Path] = ()) -> Path:
    """Where writing to `path` ends, links followed.

    Raises UserError if that is a folder, read-only, in no folder, a loop of links, or one of
    `inputs`, by whatever name.
    """
    require_here(path)
    real = Path(os.path.realpath(path))
    with as_user_error(path):
        if not real.parent.is_dir():
            raise UserError(f"{path} cannot be written: there is no folder {real.parent}")
        if real.is_symlink():
            raise UserError(f"{path} cannot be written: a loop of links")
        if real.is_dir():
            raise UserError(f"{path} is a folder; expected a file in it")
        if any(_is_same(real, other) for other in inputs):
            raise UserError(f"{path} is the file of --input or of the model; choose another")
        if not os.access(real if real.exists() else real.parent, os.W_OK):
            raise UserError(f"{path} cannot be written: no permission")
    return real


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file; either may be deleted meanwhile."""
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


@contextmanager
def replacing(path: Path, binary: bool = False, inputs: Iterable[Path] = ()) -> Iterator[IO[Any]]:
    """A file to write to that takes the place of `path` when all went well.

    A pipe or a device is written to as it is, for there is nothing of it to keep, and so is what
    the process has open, by its number (/dev/stdout, /dev/fd/3). Raises UserError where `path`
    cannot be written, as `output_path` has it.
    """
    options: dict[str, Any] = {} if binary else {"encoding": "utf-8"}
    kind = "b" if binary else ""
    if (descriptor := _special(path)) is not None:
        with as_user_error(path, WHILE_WRITING), open(descriptor, "w" + kind, **options) as file:
            yield file
        return
    real = output_path(path, inputs)
    with _temporary(real) as temporary:
        with as_user_error(path):
            file = open(temporary, "x" + kind, **options)  # noqa: SIM115, the next line closes it
        # What else goes wrong meanwhile may be about another file, which its user reads.
        with as_user_error(path, WHILE_WRITING), file:
            if real.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(real.stat().st_mode))
            yield file
            file.flush()
            os.fsync(file.fileno())
        signals.settle()
        with as_user_error(path):
            os.replace(temporary, output_path(path))
            _sync_names(real.parent)


def _special(path: Path) -> int | None:
    """A descriptor of a pipe or a device, None for a file, a folder or a free name. UserError if
    nobody reads the pipe, and for a socket."""
    if already := re.fullmatch(r"/dev/(?:fd/(\d+)|(stdout|stderr))", str(path)):
        number = {"stdout": 1, "stderr": 2}.get(already[2]) or int(already[1])
        with as_user_error(path, {errno.EBADF}):
            return os.dup(number)
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise UserError(f"{path} is neither a file nor a pipe; choose another output")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UserError(f"{path} is a pipe that nobody reads; start its reader first") from None
        raise UserError(f"{path} cannot be written: {reason(error)}") from None
    os.set_blocking(descriptor, True)
    return descriptor


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` in one step, so that a reader or a crash never sees half of it."""
    with replacing(path, binary=True) as file:
        file.write(content)


def write_text(path: Path, content: str) -> None:
    """The same with text, in UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: object, indent: int | None = 1) -> None:
    """The same with JSON values; `indent` None puts all on one line."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def opened(path: Path) -> BufferedReader:
    """A file to read from. OSError for what is none: a pipe would be waited for and a device read
    without end."""

    def at_once(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK)

    file = open(path, "rb", opener=at_once)  # noqa: SIM115  who asked for it closes it
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "a pipe or a device, and no file", str(path))
    return file


def content(path: Path) -> bytes:
    """All that is in a file. OSError like `opened`."""
    with opened(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name that nobody has, in the same folder, for a file or a folder. What has it at the end is
    deleted."""
    temporary = path.with_name(f".gpt1-{secrets.token_hex(8)}.tmp")
    with signals.at_the_end(lambda: _delete(temporary)):
        yield temporary


def _delete(path: Path) -> None:
    """A folder is tried again for a while: where a thread of a library failed, others of it may
    still write there."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    for seconds in (0, 0.1, 0.3, 1):
        time.sleep(seconds)
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return


def _sync_names(folder: Path) -> None:
    """Makes the names in a folder durable, where its file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# Folders


@contextmanager
def new_folder(path: Path, flag: str) -> Iterator[Path]:
    """A folder to fill that takes its place, which must be free or an empty folder, when all went
    well. Its lock is held meanwhile: of two that fill the same one, the second is refused."""
    real = Path(os.path.realpath(path))
    require_new(path)
    with WorkdirLock(real, "writing", flag) as lock, _temporary(real) as temporary:
        require_new(path)
        with as_user_error(path):
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
            lock.release()  # an empty folder may be taken the place of
            temporary.replace(real)
            _sync_names(real.parent)


def require_new(path: Path) -> None:
    """UserError unless there is nothing at `path`, or an empty folder, the lock of one who fills it
    aside."""
    with as_user_error(path):
        if path.is_dir():
            found = any(inside.name != LOCK for inside in path.iterdir())
        else:
            found = path.exists()
    if found:
        raise UserError(f"{path} is there already; choose a new or an empty folder")


def _missing(folder: Path) -> list[Path]:
    """The folders that would have to be made, the innermost first."""
    folder = folder.absolute()
    return [place for place in (folder, *folder.parents) if not place.exists()]


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


class WorkdirLock:
    """Keeps a second process from writing to the same folder. The kernel drops the lock with the
    process that holds it, however that dies."""

    def __init__(self, workdir: Path, doing: str = "training in", flag: str = "--workdir"):
        """Makes the folder if need be. UserError if another process has it: it is `doing` it; and
        for a name that the libraries and the files of a run have no form for."""
        require_here(workdir)
        require_text_name(workdir.absolute(), f"{flag}={workdir}", "choose a name that is")
        self._made = _missing(workdir)
        self._lock = filelock.FileLock(workdir / LOCK, thread_local=False)
        self._held = contextlib.ExitStack()
        self._held.enter_context(signals.at_the_end(self._let_go))
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(blocking=False)
        except OSError as error:
            self.release()
            if isinstance(error, filelock.Timeout):
                raise UserError(
                    f"another process is {doing} {workdir}; wait for it or choose another {flag}"
                ) from None
            raise UserError(f"{flag}={workdir} cannot be written: {reason(error)}") from None

    def release(self) -> None:
        """Lets go, and takes away the lock and what was made for it and stayed empty."""
        self._held.close()

    def _let_go(self) -> None:
        path = Path(self._lock.lock_file)
        with contextlib.suppress(OSError):
            # Whoever waits for it notices that it lost its name; what is not empty is not ours.
            status = path.lstat()
            if self._lock.is_locked and stat.S_ISREG(status.st_mode) and not status.st_size:
                path.unlink()
        self._lock.release()
        _remove_empty(self._made)

    def __enter__(self) -> "WorkdirLock":
        return self

    def __exit__(self, *_) -> None:
        self.release()
