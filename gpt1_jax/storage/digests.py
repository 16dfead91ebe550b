"""Digests of a checkpoint's files, because Orbax itself restores a flipped bit as a wrong number
without noticing: its handlers, which leave a list of them beside what they write, and the check."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from gpt1_jax import disk, json_files
from gpt1_jax.errors import UserError
from gpt1_jax.storage import places

DIGESTS = "digests.json"
_AT_THE_COMMIT = {"commit_success.txt"}  # what Orbax adds when the digests are written


def _opened(path: epath.Path) -> Any:
    """A file to read from, as `disk.opened` has it where it is of this machine."""
    return path.open("rb") if places.is_url(path) else disk.opened(Path(path))


def _digest(path: epath.Path) -> str:
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, in order, the list of digests aside."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif path.name != DIGESTS:
            yield path


class _Digested:
    """Adds the list of digests to an Orbax handler, as the last act before the commit."""

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)  # type: ignore[misc]  # of the handler beside it
        if jax.process_index() == 0:
            digests = {str(p.relative_to(directory)): _digest(p) for p in _files(directory)}
            (directory / DIGESTS).write_text(json.dumps(digests, indent=1))


class TreeHandler(_Digested, ocp.PyTreeCheckpointHandler):
    """Writes and reads a tree of arrays."""


class JsonHandler(_Digested, ocp.JsonCheckpointHandler):
    """Writes and reads a JSON object."""


# Orbax finds a handler by the type of the arguments, so each handler has types of its own.
@ocp.args.register_with_handler(TreeHandler, for_save=True)
@dataclass
class TreeSave(ocp.args.PyTreeSave):
    """What a TreeHandler writes."""


@ocp.args.register_with_handler(TreeHandler, for_restore=True)
@dataclass
class TreeRestore(ocp.args.PyTreeRestore):
    """What a TreeHandler reads."""


@ocp.args.register_with_handler(JsonHandler, for_save=True)
@dataclass
class JsonSave(ocp.args.JsonSave):
    """What a JsonHandler writes."""


@ocp.args.register_with_handler(JsonHandler, for_restore=True)
@dataclass
class JsonRestore(ocp.args.JsonRestore):
    """What a JsonHandler reads."""


def content(folder: epath.Path) -> str | None:
    """What tells an item from others wherever it lies, the digest of its list of digests; None
    where that cannot be read."""
    try:
        return _digest(folder / DIGESTS)
    except OSError:
        return None


def damage(folder: epath.Path) -> str | None:
    """What is wrong with the files of an item of a checkpoint, or None."""
    path = folder / DIGESTS
    try:
        with _opened(path) as file:
            content, remedy = file.read(), "copy it again"
        expected = json_files.parse(content, dict[str, str], str(path), remedy)
        found = {str(p.relative_to(folder)): p for p in _files(folder)}
        if missing := sorted(set(expected) - set(found)):
            return f"{folder / missing[0]} is missing"
        if unknown := sorted(set(found) - set(expected) - _AT_THE_COMMIT):
            return f"{path} has no digest of {unknown[0]}"
        for name, digest in expected.items():
            if _digest(found[name]) != digest:
                return f"{found[name]} does not have the digest it was written with"
    except UserError as error:
        return str(error)
    except FileNotFoundError as error:
        return f"{error.filename or path} is missing"
    except OSError as error:
        return f"{error.filename or path} cannot be read ({error.strerror or 'missing'})"
    return None
