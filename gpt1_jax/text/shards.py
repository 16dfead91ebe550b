"""Token shards on disk: written, described by a manifest, read as one stream.

A folder of shards holds

    manifest.json         counts, checksums, tokenizer, source
    tokenizer/            see tokenizer.py
    train-00000.npy       one-dimensional arrays of ids, as many as it takes; documents follow each
    valid-00000.npy       other without separator, and may go on in the next shard
    documents-train.npy   where documents start in the split, int64
    documents-valid.npy

A folder of format 1 has no documents-*.npy, but the starts of each shard's documents in the
manifest.
"""

import contextlib
import io
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

import numpy as np
from pydantic import NonNegativeInt, StringConstraints
from typing_extensions import TypedDict

from gpt1_jax import disk, json_files, npy_files
from gpt1_jax.errors import UserError
from gpt1_jax.storage.places import here
from gpt1_jax.tokenization import loading

MANIFEST = "manifest.json"
FORMAT = 2
READABLE = (1, FORMAT)
UNFINISHED = "unfinished"  # subfolder in which a folder of shards is made
# Of a run: which shards were found to be what they were, at which size and time of change.
VERIFIED = "verified.json"
_HEADER_BYTES = 128  # of a one-dimensional .npy file, whatever its length
REMEDY = "copy the file again"
WHOLE = 2**62  # tokens of a shard that holds whatever there is
_CHECKED = 2**20  # ids looked at together


# Writing


class Encoded(NamedTuple):
    """The ids of the blocks of one split in one piece, and where documents start among them."""

    ids: np.ndarray
    starts: list[int]
    counts: Counter  # documents, characters, bytes, words


FileName = Annotated[str, StringConstraints(pattern=r"^[\w-]+\.npy$")]


class Shard(TypedDict):
    """A file of ids. In format 1 documents start at `offsets` in it."""

    file: FileName
    tokens: NonNegativeInt
    sha256: str
    offsets: NotRequired[list[NonNegativeInt]]


class Starts(TypedDict):
    """The file of the places in a split where its documents start."""

    file: FileName
    sha256: str


class State(TypedDict):
    """How far the shards of a split have come."""

    shards: list[Shard]
    open_tokens: int
    counts: dict[str, int]


class Split(TypedDict):
    """A split in the manifest: what it counts of its text, and its files."""

    tokens: NonNegativeInt
    documents: NonNegativeInt
    characters: NonNegativeInt
    bytes: NonNegativeInt
    words: NonNegativeInt
    shards: list[Shard]
    starts: NotRequired[Starts]


class TokenizerInfo(TypedDict):
    mode: str
    fingerprint: str
    vocab_size: int


class SourceInfo(TypedDict):
    sha256: str


class Manifest(TypedDict):
    """manifest.json: tokenizer, source and arguments of the shards, and the shards by split."""

    format: int
    tokenizer: TokenizerInfo
    dtype: Literal["uint16", "uint32"]
    source: SourceInfo
    arguments: dict[str, Any]
    splits: dict[str, Split]


class _OpenArray:
    """A .npy file of numbers in one row while it is written: its header is still missing."""

    def __init__(self, path: Path, dtype: np.dtype, length: int):
        """Goes on after `length` numbers; what stands behind them is cut off."""
        self.path, self.length, self._dtype = path, length, dtype
        self._stream = _opened_at(path, (_HEADER_BYTES + length * dtype.itemsize) if length else 0)
        if not length:
            self._stream.write(bytes(_HEADER_BYTES))

    def add(self, numbers: np.ndarray) -> None:
        self._stream.write(numbers.astype(self._dtype, copy=False).tobytes())
        self.length += len(numbers)

    def sync(self) -> None:
        """Returns when everything so far is on disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def finish(self) -> str:
        """Writes the header; the checksum of the file."""
        self._stream.seek(0)
        self._stream.write(_header(self._dtype, self.length))
        self.sync()
        self.close()
        return disk.sha256(self.path)

    def close(self) -> None:
        self._stream.close()


class Shards:
    """The shards of a split while they are written.

    `state` tells how far everything has come; with a state of earlier, what was written after it is
    cut off and written again.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, limit: int, state: State | None):
        state = state or {"shards": [], "open_tokens": 0, "counts": {}}
        self.counts = Counter(state["counts"])
        self._folder, self._split, self._dtype, self._limit = folder, split, dtype, limit
        self._shards = list(state["shards"])
        self._tokens = sum(shard["tokens"] for shard in self._shards) + state["open_tokens"]
        self._starts = _OpenArray(
            folder / f"documents-{split}.npy", np.dtype("<i8"), self.counts["documents"]
        )
        self._last = self._opened(state["open_tokens"]) if state["open_tokens"] else None

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_) -> None:
        for array in filter(None, (self._starts, self._last)):
            array.close()

    def add(self, encoded: Encoded) -> None:
        self._starts.add(np.asarray(encoded.starts, np.int64) + self._tokens)
        self._tokens += len(encoded.ids)
        self.counts.update(encoded.counts)
        ids = encoded.ids
        while len(ids):
            self._last = self._last or self._opened(0)
            part, ids = np.split(ids, [self._limit - self._last.length])
            self._last.add(part)
            if self._last.length == self._limit:
                self._close()

    def state(self) -> State:
        """The state after everything so far is on disk."""
        for array in filter(None, (self._starts, self._last)):
            array.sync()
        return {
            "shards": self._shards,
            "open_tokens": self._last.length if self._last else 0,
            "counts": self.counts,
        }

    def finish(self) -> dict:
        """The split as it stands in the manifest."""
        if self._last:
            self._close()
        starts = Starts(file=self._starts.path.name, sha256=self._starts.finish())
        return {"tokens": self._tokens, **self.counts, "shards": self._shards, "starts": starts}

    def _opened(self, length: int) -> _OpenArray:
        path = self._folder / f"{self._split}-{len(self._shards):05d}.npy"
        return _OpenArray(path, self._dtype, length)

    def _close(self) -> None:
        last, self._last = self._last, None
        self._shards.append(Shard(file=last.path.name, tokens=last.length, sha256=last.finish()))


def encoded_in(folder: Path, split: Split, dtype: np.dtype) -> Encoded:
    """What `Shards` wrote into a folder, as one shard or none."""
    ids = [npy_files.read(folder / s["file"], [dtype.str], REMEDY) for s in split["shards"]]
    starts = npy_files.read(folder / split["starts"]["file"], ["int64"], REMEDY)
    counts = {k: v for k, v in split.items() if k not in ("tokens", "shards", "starts")}
    return Encoded(ids[0] if ids else np.empty(0, dtype), starts.tolist(), Counter(counts))


def _opened_at(path: Path, position: int) -> io.BufferedRandom:
    """The file, cut off after so many bytes, to write on from there."""
    if position and (not path.exists() or path.stat().st_size < position):
        raise UserError(f"{path}: shorter than the journal says; delete {path.parent}")

    # Never through a link, wherever it may lead.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)

    stream = open(path, "r+b", opener=opener)  # noqa: SIM115, it outlives this call
    stream.truncate(position)
    stream.seek(position)
    return stream


def _header(dtype: np.dtype, length: int) -> bytes:
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(header, description)
    assert header.tell() == _HEADER_BYTES
    return header.getvalue()


def files(manifest: Manifest) -> list[str]:
    """The arrays of a folder, by name."""
    found = []
    for split in manifest["splits"].values():
        found += [shard["file"] for shard in split["shards"]]
        found += [split["starts"]["file"]] if "starts" in split else []
    return found


# Manifest


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """The manifest of a folder that `prepare` made.

    Raises:
      UserError: no such folder, an unfinished or a damaged one, or one of another format.
    """
    path = here(folder) / MANIFEST
    remedy = "expected the manifest that prepare wrote; copy it again"
    try:
        found = json_files.read(path, dict[str, Any], remedy, "damaged")
    except FileNotFoundError:
        if (path.parent / UNFINISHED).is_dir():
            raise UserError(
                f"{folder}: unfinished; the prepare command that began it continues"
            ) from None
        raise UserError(f"{path}: missing; expected a folder that prepare made") from None
    if found.get("format", FORMAT) not in READABLE:
        known = " or ".join(map(str, READABLE))
        raise UserError(f"{path}: format {found['format']}, expected {known}; prepare it again")
    manifest = json_files.shaped(found, Manifest, f"{path}: damaged", remedy)
    for name, split in manifest["splits"].items():
        there = sum(shard["tokens"] for shard in split["shards"])
        if there != split["tokens"] or (there and not split["bytes"]):
            raise UserError(
                f"{path}: damaged: splits.{name} says {split['tokens']} tokens of {split['bytes']} "
                f"bytes, its shards have {there}; {remedy}"
            )
    return manifest


def verify(
    folder: str | os.PathLike, known: Path | None = None, remember: bool = False
) -> Manifest:
    """The manifest, once every shard and the tokenizer have been found to be what it says.

    A file of which `known`, a file of JSON, says that it was verified at its size and time of
    change is not read again; with `remember`, `known` is told what was verified now.

    Raises:
      UserError: names the first file that is not what it was.
    """
    manifest = read_manifest(folder)
    folder = here(folder)
    before, seen = _verified_before(known), {}
    for split in manifest["splits"].values():
        for file in [*split["shards"], *([split["starts"]] if "starts" in split else [])]:
            path = folder.absolute() / file["file"]
            try:
                status = path.stat()
                state = [file["sha256"], status.st_size, status.st_mtime_ns]
                sound = before.get(str(path)) == state or disk.sha256(path) == file["sha256"]
            except FileNotFoundError:
                sound = False
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            if not sound:
                raise UserError(f"{path}: not the file that was prepared (checksum); copy it again")
            if before.get(str(path)) != state and file is not split.get("starts"):
                _check_ids(path, manifest)
            seen[str(path)] = state
    if loading.load(folder).fingerprint != manifest["tokenizer"]["fingerprint"]:
        raise UserError(f"{folder}/tokenizer: not the tokenizer of these shards; copy it again")
    if remember and known and seen != before:
        disk.write_json(known, seen)
    return manifest


def _check_ids(path: Path, manifest: Manifest) -> None:
    """UserError for an id that the tokenizer does not have."""
    size = manifest["tokenizer"]["vocab_size"]
    ids = npy_files.read(path, [manifest["dtype"]], REMEDY)
    largest = max(
        (int(ids[at : at + _CHECKED].max()) for at in range(0, len(ids), _CHECKED)), default=0
    )
    if largest >= size:
        raise UserError(
            f"{path}: the id {largest} is beyond the vocabulary of {size}; prepare the text again"
        )


def require_own(known: Path) -> None:
    """UserError if what `verify` would write over is none of its files, but somebody's."""
    with contextlib.suppress(FileNotFoundError):
        json_files.read(known, dict[str, list[str | int]], "move it away")


def _verified_before(known: Path | None) -> dict[str, list]:
    """By path: checksum, size, time of change. Nothing where that cannot be read: it is only known
    to save time."""
    try:
        return json_files.read(known, dict[str, list[str | int]], "") if known else {}
    except (FileNotFoundError, UserError):
        return {}


# Reading


class Tokens:
    """The token stream of a split, mapped from disk.

    With a separator, one stands after every document; it is not on disk:

        documents [5 6 7] [8 9], separator 1:  5 6 7 1 8 9 1

    Attributes:
      split_info: the split as it stands in the manifest (tokens, documents, bytes, words, ...).
    """

    def __init__(
        self,
        shards: list[np.ndarray],
        split_info: Split,
        starts: np.ndarray | None = None,
        separator: int | None = None,
    ):
        """`starts`, where documents start, int64 [documents], is needed for a separator."""
        self.split_info = split_info
        self._shards = shards
        self._first = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])])
        self._separator = separator
        # Where separators stand in the stream: document d ends before that of d + 1 starts, and d
        # separators come before it.
        ends = np.empty(0, np.int64)
        if separator is not None:
            ends = np.concatenate([starts, self._first[-1:]])[1:]
        self._separators = ends + np.arange(len(ends))

    @classmethod
    def open(cls, folder: str | os.PathLike, split: str, separator: int | None = None) -> "Tokens":
        """The stream of a split (train, valid) of a folder that `prepare` made.

        Raises:
          UserError: no manifest, no such split, a shard that is missing, short or of another type.
        """
        folder = here(folder)
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise UserError(f"{folder}: no split {split!r}; it has {', '.join(manifest['splits'])}")
        info = manifest["splits"][split]
        shards = [_mapped(folder, shard, manifest["dtype"]) for shard in info["shards"]]
        starts = None if separator is None else _starts(folder, info)
        return cls(shards, info, starts, separator)

    def __len__(self) -> int:
        return int(self._first[-1]) + len(self._separators)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Ids start ... stop - 1 of the stream, int32 [stop - start].

        Raises:
          IndexError: the range is not within the stream.
        """
        if not 0 <= start <= stop <= len(self):
            raise IndexError(f"tokens {start} to {stop} of {len(self)}")
        low, high = np.searchsorted(self._separators, [start, stop])
        ids = np.empty(stop - start, np.int32)
        inside = np.ones(stop - start, bool)
        inside[self._separators[low:high] - start] = False
        ids[inside] = self._stored(start - int(low), stop - int(high))
        ids[~inside] = self._separator if self._separator is not None else 0
        return ids

    def _stored(self, start: int, stop: int) -> np.ndarray:
        """Ids without separators, int32 [stop - start]."""
        ids = np.empty(stop - start, np.int32)
        index = int(np.searchsorted(self._first, start, side="right")) - 1
        position = start
        while position < stop:
            first = int(self._first[index])
            part = self._shards[index][position - first : stop - first]
            ids[position - start : position - start + len(part)] = part
            position += len(part)
            index += 1
        return ids


def _starts(folder: Path, info: Split) -> np.ndarray:
    """Where the documents of a split start, int64 [documents]."""
    if "starts" in info:
        return _array(folder / info["starts"]["file"], "int64")
    first = np.cumsum([0, *(shard["tokens"] for shard in info["shards"])])
    pairs = zip(info["shards"], first, strict=False)
    return np.concatenate([np.asarray(shard["offsets"], np.int64) + at for shard, at in pairs])


def _array(path: Path, dtype: str) -> np.ndarray:
    try:
        return npy_files.read(path, [dtype], REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; copy the folder again, or prepare it again") from None


def _mapped(folder: Path, shard: Shard, dtype: str) -> np.ndarray:
    path = folder / shard["file"]
    ids = _array(path, dtype)
    if len(ids) != shard["tokens"]:
        raise UserError(
            f"{path}: {len(ids)} tokens, expected {shard['tokens']} as the manifest says; {REMEDY}"
        )
    return ids
