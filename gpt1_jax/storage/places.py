"""Folders by name: of this machine, or of an object store (gs://, s3://, whatever fsspec knows).

An object store has whole objects and no folders, locks or lines that are added. So a folder of one
is worked on as a copy in the user's caches: `here` fetches what is not here yet, and `send` puts
there what was changed here. `matching` fetches the files that a glob names, and what is made in one
go is written to an `output`, which is sent when it is whole. The rest of the package knows only
files and folders of this machine. Checkpoints alone are not copied where Orbax can write and read
them as they are, from every process at once: on gs://.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from gpt1_jax import disk, signals
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.messages import say

T = TypeVar("T")
# Orbax's paths go through fsspec, too: TensorFlow takes seconds to import, and all of a GPU. They
# look at this once, so it is said before the first one is made.
os.environ.setdefault("EPATH_USE_TF", "false")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
# What stays where it is: Orbax's own, what is only looked at with other tools, what `prepare` has
# not finished.
_CHECKPOINTS, _NOT_COPIED = "checkpoints", {"damaged", "profile", "unfinished"}
_UNFINISHED = ".orbax-checkpoint-tmp"  # within the name of a checkpoint that Orbax is writing
# By the beginning of a URL: fsspec's names of this machine's files, which stand in for a store; and
# where Orbax writes to. It has no way to s3://, though TensorStore has.
_OF_THIS_MACHINE, _OF_ORBAX = ("file", "local"), ("gs",)
# Beside a copy: its URL, and by name which of its files are the same there.
_RECORD = ".place.json"
# What changes with an object, in the words of one store or another.
_TOLD_BY = ("size", "generation", "etag", "ETag", "mtime", "LastModified", "created")
# Seconds between tries, doubled each time, and in all until a store is given up.
FIRST_PAUSE, PATIENCE = 1.0, 300.0
# Who trains sends, and so does the thread that has saved a checkpoint.
_sending = threading.Lock()
# What no second try mends.
_FINAL = (FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError)


def is_url(name: object) -> bool:
    return bool(_URL.match(str(name)))


def here(name: str | os.PathLike, new: bool = False) -> Path:
    """The folder or file of a name on this machine: itself, or a copy that is up to date.

    With `new`, of a folder that may not be there yet. Raises UserError where there is nothing of
    that name in its store, and for a store that nobody knows; Interrupted for one that cannot be
    reached.
    """
    if not is_url(name):
        return Path(name).expanduser()
    url = str(name).rstrip("/")
    store = _Store(url)
    listed = store.listed()
    if not listed and not new:
        raise UserError(f"{url}: nothing is there")
    copy = _copy(url, url)
    if set(listed) == {""}:  # a file
        copy.parent.mkdir(parents=True, exist_ok=True)
        store.fetch("", copy)
        return copy
    _bring_up_to_date(copy, store, listed)
    return copy


def matching(glob: str) -> list[Path]:
    """Copies of the files that a glob of URLs names, sorted. Those of one bucket lie as they lie in
    it, whatever globs named them."""
    files, path = store_of(glob)

    def find() -> dict[str, Any]:
        files.invalidate_cache()
        return {path: files.info(path)} if files.isfile(path) else files.glob(path, detail=True)

    root = "/" * path.startswith("/")
    bucket = f"{glob.partition('://')[0]}://{root}{path.lstrip('/').partition('/')[0]}"
    store = _Store(bucket)
    found = patiently(find, glob)
    listed = store.told({name: info for name, info in found.items() if info["type"] == "file"})
    copy = _copy(bucket, f"files of {bucket}")
    _bring_up_to_date(copy, store, listed, whole=False)
    return [copy / name for name in sorted(listed)]


@contextlib.contextmanager
def output(name: str | os.PathLike, new: bool = False) -> Iterator[Path]:
    """Where to write the file or the folder of a name: itself or, of an object store, a place of
    this machine, which is sent there when all went well, a file after the other.

    With `new`, UserError if there is something of that name in its store. Raises Interrupted for
    one that cannot be reached, before anything is written too.
    """
    if not is_url(name):
        yield Path(name).expanduser()
        return
    url = str(name).rstrip("/")
    store = _Store(url)
    if store.listed() and new:
        raise UserError(f"{url} is there already; choose a new or an empty folder")
    around = Path(tempfile.mkdtemp(prefix="gpt1-"))
    with signals.at_the_end(lambda: shutil.rmtree(around, ignore_errors=True)):
        made = around / url.rpartition("/")[2]
        yield made
        for path in _files(made, url) if made.is_dir() else [made]:
            name_there = path.relative_to(made).as_posix()
            store.put(path, "" if path == made else name_there)


def _copy(url: str, key: str) -> Path:
    """The copy of a URL on this machine; those of other keys lie elsewhere."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(caches) / "gpt1_jax" / "places" / digest / url.rpartition("/")[2]


def origin(folder: str | os.PathLike) -> str | None:
    """The URL of which a folder is a copy; None for any other folder."""
    return _record(Path(folder)).get("url")


def shown(folder: Path) -> str:
    """What a folder is called."""
    return origin(folder) or str(folder)


def original(folder: Path | str) -> epath.Path:
    """Where the checkpoints of a folder are: in its object store if it is a copy, and Orbax writes
    there; else in the folder."""
    url = origin(folder)
    if url is None or _copies_checkpoints(url):
        return epath.Path(folder).resolve()
    here = url.partition("://")[0] in _OF_THIS_MACHINE
    return epath.Path(store_of(url)[1] if here else url)


def is_alone(folder: Path | str) -> bool:
    """Whether one process alone can write the checkpoints of a folder, since they are copied."""
    url = origin(folder)
    return url is not None and _copies_checkpoints(url)


def _copies_checkpoints(url: str) -> bool:
    return url.partition("://")[0] not in _OF_THIS_MACHINE + _OF_ORBAX


def store_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, as fsspec has it, and the path of the URL in it. UserError for one
    that is not known."""
    import fsspec

    # Each try of their own, with a traceback; `patiently` says it in a line.
    for talkative in ("gcsfs", "google.auth"):
        logging.getLogger(talkative).setLevel(logging.CRITICAL)
    more = {"auto_mkdir": True} if url.partition("://")[0] in _OF_THIS_MACHINE else {}
    try:
        return fsspec.core.url_to_fs(url, **more)
    except (ImportError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{url}: no store that is known here ({reason})") from None


def send(folder: Path) -> None:
    """Returns when what was changed in a copy is in its object store, each file whole, and what was
    deleted in it is not; of any other folder there is nothing to send. Raises Interrupted where the
    store cannot be reached."""
    url = origin(folder)
    if url is None:
        return
    with _sending:
        store, same = _Store(url), _record(folder)["same"]
        paths = {path.relative_to(folder).as_posix(): path for path in _files(folder, url)}
        for name, path in paths.items():
            with contextlib.suppress(FileNotFoundError):  # a checkpoint that has just been deleted
                state = _state(path)
                if same.get(name, {}).get("here") != state:
                    store.put(path, name)
                    same[name] = {"here": state, "there": None}
        for name in same.keys() - paths.keys():
            store.delete(name)
            del same[name]
        disk.write_json(folder.with_name(_RECORD), {"url": url, "same": same}, indent=None)


def _bring_up_to_date(
    copy: Path, store: "_Store", listed: dict[str, str], whole: bool = True
) -> None:
    """Fetches what is not the same; where that is the `whole` folder, takes away what else there
    is."""
    copy.mkdir(parents=True, exist_ok=True)
    same = _record(copy).get("same", {})
    if whole:
        for path in list(_files(copy, store.url)):
            if path.relative_to(copy).as_posix() not in listed:
                path.unlink()
                _remove_empty(path.parent, copy)
        same = {name: known for name, known in same.items() if name in listed}
    for name, there in listed.items():
        path = copy / name
        known = same.get(name, {})
        if not path.exists() or known.get("there") != there or known.get("here") != _state(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            store.fetch(name, path)
            same[name] = {"here": _state(path), "there": there}
    disk.write_json(copy.with_name(_RECORD), {"url": store.url, "same": same}, indent=None)


def _remove_empty(folder: Path, top: Path) -> None:
    """Folders up to the one below `top`, as far as they are empty: a store has no such."""
    with contextlib.suppress(OSError):
        while folder != top:
            folder.rmdir()
            folder = folder.parent


def _record(copy: Path) -> dict[str, Any]:
    """{"url", "same"} of a copy, {} for any other folder."""
    try:
        found = json.loads(disk.content(copy.with_name(_RECORD)))
    except (OSError, ValueError):
        return {}
    return found if found["url"].rpartition("/")[2] == copy.name else {}


def _state(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _files(folder: Path, url: str) -> Iterator[Path]:
    """What is copied of a folder, to or from its place in a store."""
    for path in sorted(folder.iterdir()):
        if not _is_copied(path.name, url):
            continue
        if path.is_dir():
            with contextlib.suppress(FileNotFoundError):
                yield from _files(path, url)
        else:
            yield path


def _is_copied(name: str, url: str) -> bool:
    """By the name of a file or of a folder in a folder of the store."""
    if name == _CHECKPOINTS:
        return _copies_checkpoints(url)
    return not (name in _NOT_COPIED or name.startswith(".") or _UNFINISHED in name)


class _Store:
    """The objects below a URL, by name relative to it. Each call is tried again for a while."""

    def __init__(self, url: str):
        self.url = url
        self._files, self._root = store_of(url)

    def listed(self) -> dict[str, str]:
        """What tells each object from another of its name, by name; "" for the URL itself."""

        def find() -> dict[str, Any]:
            self._files.invalidate_cache()
            return self._files.find(self._root, detail=True)

        told = self.told(patiently(find, self.url))
        return {
            name: by
            for name, by in told.items()
            if all(_is_copied(part, self.url) for part in name.split("/") if part)
        }

    def told(self, found: dict[str, dict]) -> dict[str, str]:
        """The same of what the store says of its paths."""
        names = {path: path[len(self._root) :].lstrip("/") for path in found}
        return {
            name: json.dumps([str(found[path].get(key)) for key in _TOLD_BY])
            for path, name in names.items()
            if not any(part.startswith(".") for part in name.split("/"))
        }

    def fetch(self, name: str, target: Path) -> None:
        """Takes the place of `target` when it is whole."""
        temporary = target.with_name(f".gpt1-{secrets.token_hex(8)}.tmp")
        try:
            patiently(lambda: self._files.get_file(self._path(name), str(temporary)), self.url)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def put(self, source: Path, name: str) -> None:
        patiently(lambda: self._files.put_file(str(source), self._path(name)), self.url)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            patiently(lambda: self._files.rm_file(self._path(name)), self.url)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def patiently(action: Callable[[], T], place: str) -> T:
    """What `action` returns, which is tried again while a store does not answer. Raises Interrupted
    when that has lasted for PATIENCE seconds, and at once what no second try mends."""
    pause, began = FIRST_PAUSE, time.monotonic()
    while True:
        try:
            return action()
        except _FINAL as error:
            if isinstance(error, PermissionError):
                raise UserError(f"{place}: no permission ({error})") from None
            raise
        except Exception as error:  # each store has errors of its own
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            if time.monotonic() - began + pause > PATIENCE:
                raise Interrupted(
                    f"{place} did not answer for {time.monotonic() - began:.0f} seconds "
                    f"({reason}); the same command continues"
                ) from None
            say(f"{place} does not answer ({reason}); tried again in {pause:.0f} s")
        with contextlib.suppress(InterruptedError):
            time.sleep(pause)
        pause *= 2
