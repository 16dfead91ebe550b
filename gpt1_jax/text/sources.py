"""Raw text -> documents: files, TFDS text sets, texts in memory.

A source can be read as often as it takes and yields its documents in a fixed order, each as

    name, blocks      the name tells it from the others, on every machine the same;
                      blocks are about a million characters or less, and add up to the text

so that a document of any length passes through bounded memory. A block ends in front of a space or
a line end, where a text can be cut without changing its ids (see tokenizer.py), unless it has none.
"""

import copy
import difflib
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gpt1_jax.errors import UserError
from gpt1_jax.files.text_lines import PIPE
from gpt1_jax.storage import places
from gpt1_jax.text import text_files
from gpt1_jax.text.tfds_records import TfdsSplit

BLOCK = 2**20  # bytes read at a time, and characters of a block that was text already

# Text sets of TFDS: the key of the text, and the split that is held out.
TEXT_SETS = {
    "pg19": ("book_text", "validation"),
    "lm1b": ("text", "test"),
    "wiki40b": ("text", "validation"),
    "tiny_shakespeare": ("text", "validation"),
}


class NamedText(Protocol):
    """A text in memory and what it is called."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Document:
    """A text in memory. Documents of one name are never divided between training and validation."""

    name: str
    text: str


class TextChanged(UserError):
    """A text that is not what it was when it was read before."""


class Source(Protocol):
    """Documents in a fixed order.

    Attributes:
      description: what the manifest tells about the source, JSON values.
      identity: a line that changes when the documents change, if the source is `fixed`; else when
        their names or sizes do.
      fixed: whether the identity tells all changes.
      paths: the files that it reads, if they are the user's own.
      units: the same documents in parts that can be read on their own, in order.
    """

    description: dict
    identity: str
    fixed: bool
    paths: tuple[Path, ...]

    @property
    def units(self) -> "list[Source]": ...

    def documents(self) -> Iterator[tuple[str, Iterator[str]]]: ...


class Texts:
    """Documents in memory.

    Raises:
      UserError: a text without UTF-8 form.
    """

    fixed = True
    paths: tuple[Path, ...] = ()

    def __init__(self, documents: Iterable[NamedText]):
        self._documents = tuple(documents)
        digest = hashlib.sha256()
        for document in self._documents:
            digest.update(document.name.encode() + b"\xff")
            digest.update(
                text_files.require_utf8(document.text, f"document {document.name}") + b"\xff"
            )
        self.identity = f"{len(self._documents)} texts, sha256 {digest.hexdigest()}"
        self.description = {"kind": "texts", "documents": len(self._documents)}

    @property
    def units(self) -> list[Source]:
        return [self]

    def documents(self) -> Iterator[tuple[str, Iterator[str]]]:
        for document in self._documents:
            yield document.name, _blocks(_slices(document.text))


class Files:
    """Text files, a document each, and tables, a document a row; also .gz, .xz. See text_files.py.

    Args:
      paths: the files, in the order of their documents.
      root: the folder that names are relative to.
      text_key: the column of the text in tables; None is the usual one of JSON.

    Raises:
      UserError: a file that is neither, or a table without the column.
      TextChanged: on reading, a file that is changed meanwhile.
    """

    fixed = False

    def __init__(self, paths: list[Path], root: Path, text_key: str | None = None):
        self.paths = tuple(paths)
        self._paths = {_name(path, root): path for path in paths}
        self._states = {path: _state(path) for path in paths}
        self._text_key = text_key
        found = {path: text_files.table_of(path, text_key) for path in paths}
        self._tables = {path: table for path, table in found.items() if table}
        sizes = {name: self._states[path][0] for name, path in self._paths.items()}
        digest = hashlib.sha256(json.dumps(sizes).encode()).hexdigest()
        self.identity = f"{len(paths)} files, sha256 of names and sizes {digest}"
        self.description = {"kind": "files", "files": sizes}

    @property
    def units(self) -> list[Source]:
        """Each file."""
        return [self._only(name) for name in self._paths]

    def _only(self, name: str) -> "Files":
        one, path = copy.copy(self), self._paths[name]
        one.paths, one._paths = (path,), {name: path}
        one._states = {path: self._states[path]}
        one._tables = {path: self._tables[path]} if path in self._tables else {}
        size, changed = self._states[path]
        one.description = {"kind": "files", "files": {name: size}}
        one.identity = f"{name}, {size} bytes, written to at {changed}"
        return one

    @property
    def n_tables(self) -> int:
        return len(self._tables)

    def describe(self) -> str:
        """What was decided about the files, in a line."""
        n_texts = len(self.paths) - self.n_tables
        return text_files.described(n_texts, list(self._tables.values()), self._text_key)

    def documents(self) -> Iterator[tuple[str, Iterator[str]]]:
        for name, path in self._paths.items():
            if path in self._tables:
                for number, text in text_files.rows(self._tables[path], self._text_key):
                    yield f"{name}:{number}", _blocks(_slices(text))
            else:
                yield name, _blocks(text_files.decoded(path, BLOCK))
            if _state(path) != self._states[path]:
                raise TextChanged(
                    f"{path}: changed while it was read; start again when nobody writes to it"
                )


class TextSet:
    """A split of a text set of TFDS, downloaded when it is not there yet.

    Args:
      name: a key of TEXT_SETS, with a TFDS config or version if need be: wiki40b/en, lm1b:1.1.0.

    Raises:
      UserError: an unknown set; on reading, one that TFDS cannot provide.
    """

    fixed = True
    paths: tuple[Path, ...] = ()

    def __init__(self, name: str, split: str, data_dir: str | None):
        self._name, self._split, self._data_dir = name, split, data_dir
        self._key, _ = text_set(name)
        self.identity = f"tfds {name}, {split}"
        self.description = {"kind": "tfds", "name": name, "split": split}

    @property
    def units(self) -> list[Source]:
        return [self]

    def documents(self) -> Iterator[tuple[str, Iterator[str]]]:
        split = TfdsSplit(self._name, self._split, self._data_dir, "prepare from files")
        for index, record in enumerate(split.records()):
            text = record[self._key].decode("utf-8", errors="replace")
            yield f"{self._name}:{self._split}:{index}", _blocks(_slices(text))


def text_set(name: str) -> tuple[str, str]:
    """Text key and held-out split of a TFDS set; UserError names the known ones."""
    base = name.split("/")[0].split(":")[0]
    if base not in TEXT_SETS:
        near = difflib.get_close_matches(base, TEXT_SETS, 1)
        meant = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"tfds={name}: unknown; expected one of {', '.join(TEXT_SETS)}{meant}")
    return TEXT_SETS[base]


def matching(patterns: Iterable[str]) -> list[Path]:
    """The files that globs name, each once: globs in the order given, files of one glob sorted;
    those of an object store as copies.

    Raises:
      UserError: a pattern that matches no file, or a link to none, or is a folder.
    """
    paths = {}
    for pattern in patterns:
        files = places.matching(pattern) if places.is_url(pattern) else _here(pattern)
        if not files:
            raise UserError(f"{pattern}: no file matches; expected text files, .jsonl, .gz or .xz")
        paths.update((os.path.realpath(path), path) for path in files)
    return list(paths.values())


def _here(pattern: str) -> list[Path]:
    expanded = os.path.expanduser(pattern)
    if os.path.isdir(expanded):
        raise UserError(f"{pattern}: a folder; expected files, for example {pattern}/*.txt")
    exists = os.path.exists(expanded)  # a file name may itself have brackets
    if exists and not os.path.isfile(expanded):
        raise UserError(f"{pattern} {PIPE}")
    found = [expanded] if exists else sorted(glob.glob(expanded, recursive=True))
    for name in found:
        if not os.path.exists(name):
            raise UserError(
                f"{name} is a link to {os.readlink(name)}, which is not there; fetch the file, or "
                "remove the link"
            )
    return [Path(name) for name in found if os.path.isfile(name)]


def last_cut(text: str) -> int:
    """The last place where a text may be cut: in front of spaces or line ends; 0 if there is none.

    >>> last_cut("one two  thr")
    7
    """
    after = 1 + max(text.rfind(space) for space in " \r\n")
    return len(text[:after].rstrip(" \r\n"))


def _blocks(parts: Iterable[str]) -> Iterator[str]:
    """The same text, in parts that end at a cut."""
    rest = ""
    for part in parts:
        text = rest + part
        cut = last_cut(text) or len(text)
        rest = text[cut:]
        if cut:
            yield text[:cut]
    if rest:
        yield rest


def _name(path: Path, root: Path) -> str:
    """What a file is called in the manifest: text, also where its name has bytes that are none."""
    name = Path(os.path.relpath(path, root)).as_posix()
    return os.fsencode(name).decode(errors="backslashreplace")


def _state(path: Path) -> tuple[int, int]:
    """What changes with a file: its size, and the time in ns at which it was written to."""
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return found.st_size, found.st_mtime_ns


def _slices(text: str) -> Iterator[str]:
    return (text[start : start + BLOCK] for start in range(0, len(text), BLOCK))
