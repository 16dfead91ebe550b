"""The batch of step n as a pure function of (seed, n).

A checkpoint therefore holds no iterator, a resumed run sees the batches of an uninterrupted one,
and every process of a pod takes its rows of the same global batch.

A batch is a dict of numpy arrays, B examples of C candidates of L tokens:

    tokens   int32   [B, C, L]   0 on padding
    weights  float32 [B, C, L]   1 on tokens, the special ones included; 0 on padding
    rows     uint32  [B]         place in the global batch: dropout masks are a function of it
    extract  int32   [B, C]      tasks: index of the classify token
    label    int32   [B]         tasks with labels: the class or choice; float32 [B, 6] or, by mse,
                                 [B] for scores
    places   int32   [T]         where tokens may be packed: the index of each in the flattened
                                 [B, C, L], then B * C * L as often as there is room for more; [0]
                                 in a batch that had better be left as it is
"""

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from gpt1_jax.errors import UserError

Batch = dict[str, np.ndarray]
Driver = Literal["auto", "tfdata", "thread"]
MOST_PREFETCHED = 10_000
# Places for packed tokens, as few as are compiled for.
FEWEST_PLACES = 128
# Where more than this of a batch is no padding, packing is not worth another compilation.
FULL = 0.75


@dataclass(frozen=True)
class DataConfig:
    """Tokens and the way they become batches. `path` is a folder made by `prepare`. `windows`:
    "permuted" reads each token at most once an epoch, "iid" draws with replacement. `separator`:
    "end" puts an end token after each document. `driver` and `prefetch` (batches made ahead)
    change the speed alone, and so does `packing`, which leaves the padding out where tokens do not
    meet (model/packing.py); None does so where that was measured to be faster, on a CPU. `buckets`:
    the lengths to which batches of examples are padded, those over model.n_ctx aside. Raises
    UserError for a number outside its range."""

    path: str | None = None
    windows: Literal["permuted", "iid"] = "permuted"
    separator: Literal["none", "end"] = "none"
    driver: Driver = "auto"
    prefetch: int = 2
    buckets: tuple[int, ...] = (64, 128, 256, 512)
    packing: bool | None = None

    def __post_init__(self):
        if self.path == "":
            raise UserError("data.path is empty; expected a folder that prepare made")
        if not 1 <= self.prefetch <= MOST_PREFETCHED:
            raise UserError(f"data.prefetch={self.prefetch}; expected 1 to {MOST_PREFETCHED}")
        if any(bucket < 1 for bucket in self.buckets):
            raise UserError(f"data.buckets={self.buckets}; expected lengths of at least 1")


class TokenStream(Protocol):
    """What Windows needs of text.corpus.Tokens."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> np.ndarray:
        """The ids start ... stop - 1, int32."""
        ...


class Source(Protocol):
    """What `stream` drives: Windows or Examples."""

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of step `step`, or its rows."""
        ...


class Windows:
    """Batches of windows of `n_ctx` tokens for the language model (C = 1).

    `permuted`: an epoch cuts the stream, as a ring, into tokens // n_ctx windows at a random
    offset, and takes them in a random order. The ring is what lets each epoch have the same number
    of windows at any offset: one of them may go on from the last document into the first, as others
    go from one document into the next. Batches run through the end of an epoch, with window number
    step * batch_size + row, so that no window is left out.

        10 tokens, n_ctx 3, offset 2:   [2 3 4] [5 6 7] [8 9 0]   then shuffled; token 1 is left out

    `iid`: each window begins anywhere in the stream, drawn independently (with replacement).
    """

    def __init__(self, tokens: TokenStream, n_ctx: int, batch_size: int, seed: int, mode: str):
        """Raises UserError if the stream is shorter than one window."""
        if len(tokens) < n_ctx:
            raise UserError(
                f"the corpus has {len(tokens)} tokens, fewer than one window of "
                f"model.n_ctx={n_ctx}; give more text or a smaller model.n_ctx"
            )
        self.tokens = tokens
        self.n_ctx = n_ctx
        self.batch_size = batch_size
        self.seed = seed
        self.mode = mode
        self.windows_per_epoch = len(tokens) // n_ctx

    @property
    def steps_per_epoch(self) -> float:
        """Steps in which each window is seen once; not a whole number, as batches run through."""
        return self.windows_per_epoch / self.batch_size

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """Tokens, weights (all 1) and rows of a step."""
        rows_B = _rows(self.batch_size, rows)
        if self.mode == "iid":
            n_starts = len(self.tokens) - self.n_ctx + 1
            starts = _random_numbers(self.seed, step, self.batch_size)[rows_B] % n_starts
        else:
            starts = [self._permuted_start(step * self.batch_size + int(row)) for row in rows_B]
        tokens_BL = np.empty((len(rows_B), self.n_ctx), np.int32)
        for place, start in enumerate(starts):
            tokens_BL[place] = self._read(int(start))
        weights_BL = np.ones(tokens_BL.shape, np.float32)
        return {"tokens": tokens_BL[:, None], "weights": weights_BL[:, None], "rows": rows_B}

    def _permuted_start(self, window: int) -> int:
        epoch, place = divmod(window, self.windows_per_epoch)
        offset, order = _shuffle(self.seed, epoch, self.windows_per_epoch)
        return (offset % self.n_ctx) + int(order[place]) * self.n_ctx

    def _read(self, start: int) -> np.ndarray:
        stop = start + self.n_ctx
        beyond = stop - len(self.tokens)
        if beyond <= 0:
            return self.tokens.read(start, stop)
        pieces = self.tokens.read(start, len(self.tokens)), self.tokens.read(0, beyond)
        return np.concatenate(pieces)


class Examples:
    """Batches of encoded examples, shuffled each epoch by (seed, epoch) alone.

    A batch is padded to the smallest bucket that holds the longest candidate of the global batch,
    so every process pads alike, and lengths change neither which examples meet nor the number of
    updates. The last partial batch of an epoch is dropped, as in the released code.
    """

    def __init__(
        self,
        candidates: Sequence[Sequence[Sequence[int]]],
        targets: np.ndarray | None,
        *,
        n_ctx: int,
        batch_size: int,
        seed: int,
        buckets: tuple[int, ...],
        packed: bool = False,
    ):
        """`candidates[example][candidate]` are ids that end in the classify token (the form of
        transformations.encode_all), as many candidates for each example; `targets` as of
        LoadedTask.targets, or None without labels. `packed` batches, which have to be asked for as
        a whole, say where their tokens are, if that is worth while."""
        self.targets = targets
        self.packed = packed
        self.batch_size = batch_size
        self.seed = seed
        self.lengths = sorted({bucket for bucket in buckets if bucket < n_ctx} | {n_ctx})
        flat = [ids for example in candidates for ids in example]
        shape = (len(candidates), len(candidates[0]))
        self._length_NC = np.array([len(ids) for ids in flat]).reshape(shape)
        self._start_NC = np.cumsum(self._length_NC).reshape(shape) - self._length_NC
        self._ids = np.concatenate([np.asarray(ids, np.int32) for ids in flat])

    def __len__(self) -> int:
        return len(self._length_NC)

    @property
    def longest(self) -> int:
        """Tokens of the longest candidate."""
        return int(self._length_NC.max())

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in an epoch. Raises UserError if there is none."""
        if len(self) < self.batch_size:
            raise UserError(
                f"the training set has {len(self)} examples, fewer than "
                f"batch_size={self.batch_size}; give more examples or a smaller batch_size"
            )
        return len(self) // self.batch_size

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The training batch of a step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        _, order = _shuffle(self.seed, epoch, len(self))
        first = place * self.batch_size
        return self._padded(order[first : first + self.batch_size], self.batch_size, rows)

    def evaluation(self, batch_size: int, rows: slice | None = None) -> Iterator[Batch]:
        """All examples in their order, once. The last batch is filled up with rows of weight 0
        (and label 0), which stand after the last example: the caller cuts them off."""
        for first in range(0, len(self), batch_size):
            chosen = np.arange(first, min(first + batch_size, len(self)))
            yield self._padded(chosen, batch_size, rows)

    def _padded(self, chosen: np.ndarray, batch_size: int, rows: slice | None) -> Batch:
        """The chosen examples as a batch, of which the rows are materialised."""
        longest = self._length_NC[chosen].max()
        length = next(bucket for bucket in self.lengths if bucket >= longest)
        rows_B = _rows(batch_size, rows)
        present_B = rows_B < len(chosen)
        example_B = chosen[np.where(present_B, rows_B, 0)]
        length_BC = self._length_NC[example_B] * present_B[:, None]
        place_L = np.arange(length)
        real_BCL = place_L[None, None, :] < length_BC[:, :, None]
        index_BCL = np.where(
            real_BCL, self._start_NC[example_B][:, :, None] + place_L[None, None], 0
        )
        batch = {
            "tokens": np.where(real_BCL, self._ids[index_BCL], np.int32(0)),
            "weights": real_BCL.astype(np.float32),
            "rows": rows_B,
            "extract": np.maximum(length_BC - 1, 0).astype(np.int32),
        }
        if self.packed:
            places_T = _places(real_BCL)
            worth = len(places_T) <= FULL * real_BCL.size
            batch["places"] = places_T if worth else places_T[:0]
        if self.targets is not None:
            label = self.targets[example_B]
            present = present_B.reshape(-1, *[1] * (label.ndim - 1))
            batch["label"] = np.where(present, label, np.zeros_like(label))
        return batch


def _places(real_BCL: np.ndarray) -> np.ndarray:
    """Of the batches; their number is a power of two or one and a half times such a number."""
    found = np.flatnonzero(real_BCL)
    room = FEWEST_PLACES
    while room < len(found):
        room = room * 3 // 2 if room & (room - 1) == 0 else room * 4 // 3
    return np.pad(found, (0, room - len(found)), constant_values=real_BCL.size).astype(np.int32)


def _rows(batch_size: int, rows: slice | None) -> np.ndarray:
    return np.arange(batch_size, dtype=np.uint32)[slice(None) if rows is None else rows]


def _random_numbers(seed: int, index: int, count: int) -> np.ndarray:
    """uint64 [count], a function of (seed, index).

    Raw numbers of a counter-based generator: numpy promises these for all time, but not what its
    distributions and permutations make of them, and batches must not change with the version.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(index,))
    return np.random.Philox(sequence).random_raw(count)


# Few are kept, since a permutation is as long as its epoch; parallel readers at the end of an epoch
# need two, a second source as many.
@functools.lru_cache(maxsize=4)
def _shuffle(seed: int, epoch: int, size: int) -> tuple[int, np.ndarray]:
    """A random number for the offset, and a permutation of 0 ... size - 1."""
    numbers = _random_numbers(seed, epoch, size + 1)
    order = np.argsort(numbers[1:], kind="stable")
    order.setflags(write=False)
    return int(numbers[0]), order


def stream(
    source: Source, first: int, last: int, driver: str, prefetch: int, rows: slice | None = None
) -> Iterator[Batch]:
    """The batches of the steps first ... last - 1, made ahead in the background.

    `driver`: "tfdata" or "thread", which yield the same, or "auto" (see `chosen_driver`). What goes
    wrong in the background is raised at its step. A generator that is closed or dropped leaves
    nothing running. Raises UserError if tf.data is asked for and TensorFlow is absent.
    """
    if chosen_driver(driver) == "tfdata":
        return _tfdata_stream(_tensorflow(), source, first, last, prefetch, rows)
    return _thread_stream(source, first, last, prefetch, rows)


def chosen_driver(driver: str) -> str:
    """Who makes the batches: "auto" is the thread unless TensorFlow is loaded already, whose import
    takes seconds."""
    if driver != "auto":
        return driver
    return "tfdata" if sys.modules.get("tensorflow") else "thread"


def _thread_stream(
    source: Source, first: int, last: int, prefetch: int, rows: slice | None
) -> Iterator[Batch]:
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    pending = deque()
    try:
        for step in range(first, last + prefetch):
            if step < last:
                pending.append(pool.submit(source.batch, step, rows))
            if step >= first + prefetch:
                yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _tensorflow():
    try:
        import tensorflow
    except ImportError:
        raise UserError(
            "data.driver=tfdata needs TensorFlow, which is not installed; use data.driver=thread"
        ) from None
    # TensorFlow would take all of the GPU's memory from JAX. It refuses once it is at work there,
    # which is then the wish of the user's own code.
    with contextlib.suppress(RuntimeError):
        tensorflow.config.set_visible_devices([], "GPU")
    return tensorflow


def _tfdata_stream(
    tensorflow, source: Source, first: int, last: int, prefetch: int, rows: slice | None
) -> Iterator[Batch]:
    if first >= last:
        return
    example = source.batch(first, rows)
    dtypes = [array.dtype for array in example.values()]
    errors = {}

    def arrays(step):
        try:
            return list(source.batch(int(step), rows).values())
        except Exception as error:
            # TensorFlow would log it with its traceback and raise an error of its own; an empty
            # batch says instead that this step failed.
            errors[int(step)] = error
            return [np.empty(0, dtype) for dtype in dtypes]

    def mapped(step):
        return tensorflow.numpy_function(arrays, [step], dtypes)

    dataset = tensorflow.data.Dataset.range(first, last)
    dataset = dataset.map(mapped, tensorflow.data.AUTOTUNE, deterministic=True).prefetch(prefetch)
    for step, values in enumerate(dataset.as_numpy_iterator(), first):
        if step in errors:
            raise errors[step]
        yield dict(zip(example, values, strict=True))
