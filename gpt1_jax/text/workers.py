"""Work on much text: in several processes, in order, with a word about the progress."""

import multiprocessing
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from gpt1_jax import signals
from gpt1_jax.messages import bar_size, say

PIECE_CHARACTERS = 2**20  # about as much text as a worker gets at a time


def number(asked: int | None, characters: int) -> int:
    """No more than there are pieces: a process takes longer to start than a small corpus."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(asked or cores, characters // PIECE_CHARACTERS))


@contextmanager
def mapping(workers: int) -> Iterator[Callable]:
    """A function like map: results in order, computed by so many processes, few at a time."""
    if workers == 1:
        yield map
        return
    # Where a signal ends this process, Python's own tracker frees what the pool had in the kernel,
    # which it need not say.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")
    # Not forked: a fork of a process with threads, as JAX and TensorFlow start them, may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_follow_parent)

    def mapped(function: Callable, items: Iterable) -> Iterator:
        waiting = deque()
        for item in items:
            # The first starts the processes.
            with signals.kept_from_children():
                waiting.append(pool.submit(function, item))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    try:
        yield mapped
    finally:
        pool.shutdown(cancel_futures=True)


def _follow_parent() -> None:
    """A worker ends with its parent, however that ends."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class Progress:
    """Characters done: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, what: str, total: int | None):
        self._what, self._total = what, total
        self._done, self._told = 0, time.monotonic()
        self._bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self._what, total=self._total, unit="ch", unit_scale=True, **bar_size()
            )
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def add(self, characters: int) -> None:
        self._done += characters
        if self._bar is not None:
            self._bar.update(characters)
        elif time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            total = f" of {self._total / 1e6:.1f}" if self._total else ""
            say(f"{self._what}: {self._done / 1e6:.1f}{total} million characters")
