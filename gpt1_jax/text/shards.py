"""Token shards on disk: written, described by a manifest, read as one stream.

A folder of shards holds

    manifest.json     counts, document starts, checksums, tokenizer, source
    tokenizer/        see tokenizer.py
    train-00000.npy   one-dimensional arrays of ids, as many as it takes; documents follow each
    valid-00000.npy   other without separator, and may go on in the next shard
"""

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
from gpt1_jax.tokenization import loading

MANIFEST = "manifest.json"
FORMAT = 1
UNFINISHED = "unfinished"  # subfolder in which a folder of shards is made
# Of a run: which shards were found to be what they were, at which size and time of change.
VERIFIED = "verified.json"
_HEADER_BYTES = 128  # of a one-dimensional .npy file, whatever its length
REMEDY = "copy the file again"
_CHECKED = 2**20  # ids looked at together


# Writing


class Encoded(NamedTuple):
    """The ids of the blocks of one split in one piece, and where documents start among them."""

    ids: np.ndarray
    starts: list[int]
    counts: Counter  # documents, characters, bytes, words


class Shard(TypedDict):
    """A file of ids; documents start at `offsets` in it."""

    file: Annotated[str, StringConstraints(pattern=r"^[\w-]+\.npy$")]
    tokens: NonNegativeInt
    sha256: str
    offsets: NotRequired[list[NonNegativeInt]]


class State(TypedDict):
    """How far the shards of a split have come."""

    shards: list[Shard]
    open_tokens: int
    counts: dict[str, int]


class Split(TypedDict):
    """A split in the manifest, which also has the counts of documents, characters, bytes, words."""

    tokens: int
    shards: list[Shard]


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


class Shards:
    """The shards of a split while they are written.

    The last shard is open: its header is still missing. `state` tells how far everything has come;
    with a state of earlier, what was written after it is cut off and written again.
    """

    def __init__(self, folder: Path, split: str, dtype: np.dtype, limit: int, state: State | None):
        state = state or {"shards": [], "open_tokens": 0, "counts": {}}
        self.counts = Counter(state["counts"])
        self._folder, self._split, self._dtype, self._limit = folder, split, dtype, limit
        self._shards = list(state["shards"])
        self._open_tokens = state["open_tokens"]
        self._starts = _opened_at(folder / f"{split}.starts", 8 * self.counts["documents"])
        self._stream: io.BufferedRandom | None = None

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_) -> None:
        for stream in filter(None, (self._starts, self._stream)):
            stream.close()

    def add(self, encoded: Encoded) -> None:
        starts = np.asarray(encoded.starts, np.int64) + self._tokens()
        self._starts.write(starts.tobytes())
        self.counts.update(encoded.counts)
        ids = encoded.ids
        while len(ids):
            part, ids = np.split(ids, [self._limit - self._open_tokens])
            self._open().write(part.tobytes())
            self._open_tokens += len(part)
            if self._open_tokens == self._limit:
                self._close()

    def state(self) -> State:
        """The state after everything so far is on disk."""
        for stream in filter(None, (self._starts, self._stream)):
            stream.flush()
            os.fsync(stream.fileno())
        return {
            "shards": self._shards,
            "open_tokens": self._open_tokens,
            "counts": self.counts,
        }

    def finish(self) -> dict:
        """The split as it stands in the manifest."""
        if self._open_tokens:
            self._close()
        self._starts.flush()
        starts = np.fromfile(self._starts.name, np.int64)
        first = 0
        shards = []
        for shard in self._shards:
            inside = starts[(starts >= first) & (starts < first + shard["tokens"])]
            shards.append({**shard, "offsets": (inside - first).tolist()})
            first += shard["tokens"]
        return {"tokens": first, **self.counts, "shards": shards}

    def _tokens(self) -> int:
        return sum(shard["tokens"] for shard in self._shards) + self._open_tokens

    def _open(self) -> io.BufferedRandom:
        if self._stream is None and self._open_tokens:
            written = _HEADER_BYTES + self._open_tokens * self._dtype.itemsize
            self._stream = _opened_at(self._path(), written)
        elif self._stream is None:
            self._stream = _opened_at(self._path(), 0)
            self._stream.write(bytes(_HEADER_BYTES))
        return self._stream

    def _close(self) -> None:
        stream = self._open()
        stream.seek(0)
        stream.write(_header(self._dtype, self._open_tokens))
        stream.flush()
        os.fsync(stream.fileno())
        stream.close()
        path = self._path()
        self._shards.append(
            Shard(file=path.name, tokens=self._open_tokens, sha256=disk.sha256(path))
        )
        self._stream, self._open_tokens = None, 0

    def _path(self) -> Path:
        return self._folder / f"{self._split}-{len(self._shards):05d}.npy"


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


# Manifest


def read_manifest(folder: str | os.PathLike) -> Manifest:
    """The manifest of a folder that `prepare` made.

    Raises:
      UserError: no such folder, an unfinished or a damaged one, or one of another format.
    """
    path = Path(folder) / MANIFEST
    remedy = "expected the manifest that prepare wrote; copy it again"
    try:
        found = json_files.read(path, dict[str, Any], remedy, "damaged")
    except FileNotFoundError:
        if (path.parent / UNFINISHED).is_dir():
            raise UserError(
                f"{folder}: unfinished; the prepare command that began it continues"
            ) from None
        raise UserError(f"{path}: missing; expected a folder that prepare made") from None
    if found.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path}: format {found['format']}, expected {FORMAT}; prepare it again")
    return json_files.shaped(found, Manifest, f"{path}: damaged", remedy)


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
    before, seen = _verified_before(known), {}
    for split in manifest["splits"].values():
        for shard in split["shards"]:
            path = Path(folder).absolute() / shard["file"]
            try:
                status = path.stat()
                state = [shard["sha256"], status.st_size, status.st_mtime_ns]
                sound = before.get(str(path)) == state or disk.sha256(path) == shard["sha256"]
            except FileNotFoundError:
                sound = False
            except OSError as error:
                raise UserError(f"{path}: cannot be read ({error.strerror})") from None
            if not sound:
                raise UserError(f"{path}: not the file that was prepared (checksum); copy it again")
            if before.get(str(path)) != state:
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

    def __init__(self, shards: list[np.ndarray], split_info: Split, separator: int | None = None):
        self.split_info = split_info
        self._shards = shards
        self._first = np.concatenate([[0], np.cumsum([len(shard) for shard in shards])])
        self._separator = separator
        # Where separators stand in the stream: document d ends before that of d + 1 starts, and d
        # separators come before it.
        ends = np.empty(0, np.int64)
        if separator is not None:
            starts = [
                np.asarray(shard["offsets"], np.int64) + first
                for shard, first in zip(split_info["shards"], self._first, strict=False)
            ]
            ends = np.concatenate([*starts, self._first[-1:]])[1:]
        self._separators = ends + np.arange(len(ends))

    @classmethod
    def open(cls, folder: str | os.PathLike, split: str, separator: int | None = None) -> "Tokens":
        """The stream of a split (train, valid) of a folder that `prepare` made.

        Raises:
          UserError: no manifest, no such split, a shard that is missing, short or of another type.
        """
        manifest = read_manifest(folder)
        if split not in manifest["splits"]:
            raise UserError(f"{folder}: no split {split!r}; it has {', '.join(manifest['splits'])}")
        info = manifest["splits"][split]
        shards = [_mapped(Path(folder), shard, manifest["dtype"]) for shard in info["shards"]]
        return cls(shards, info, separator)

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


def _mapped(folder: Path, shard: Shard, dtype: str) -> np.ndarray:
    path = folder / shard["file"]
    try:
        ids = npy_files.read(path, [dtype], REMEDY)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; copy the folder again, or prepare it again") from None
    if len(ids) != shard["tokens"]:
        raise UserError(
            f"{path}: {len(ids)} tokens, expected {shard['tokens']} as the manifest says; {REMEDY}"
        )
    return ids
