"""Work on much text: in several processes, in order, with a word about the progress; or over
Apache Beam."""

import logging
import multiprocessing
import os
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from gpt1_jax import signals
from gpt1_jax.errors import UserError
from gpt1_jax.messages import bar, tell

PIECE_CHARACTERS = 2**20  # about as much text as a worker gets at a time


def number(asked: int | None, characters: int) -> int:
    """No more than there are pieces: a process takes longer to start than a small corpus."""
    return max(1, min(asked or cores(), characters // PIECE_CHARACTERS))


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


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
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=signals.follow_parent)

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


def over_beam(job: Callable, items: Iterable, options: str | None, workers: int) -> None:
    """Does job(item) for each, over Apache Beam, and returns when all are done. A job may be done
    more than once, and its files have to be where its item says. `options` are Beam's own flags, by
    default those of so many processes on this machine.

    Raises UserError where Beam is not installed. What a job raises comes as Beam has it.
    """
    beam, flags = _beam(options, workers)
    with beam.Pipeline(options=flags) as pipeline:
        # Apart, so that each item can be done by another worker.
        pipeline | beam.Create(list(items)) | beam.Reshuffle() | beam.Map(job)


def _beam(options: str | None, workers: int):
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # at import it says which of its parts are not installed
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError:
        raise UserError(
            "runner=beam needs Apache Beam, which is not installed: pip install 'gpt1-jax[beam]'"
        ) from None
    finally:
        root.setLevel(level)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    if options is None:
        options = f"--runner=DirectRunner --direct_num_workers={workers}"
        options += " --default_sdk_harness_log_level=ERROR"
        if workers > 1:
            options += " --direct_running_mode=multi_processing"
    return apache_beam, PipelineOptions(shlex.split(options))


class Progress:
    """Characters done: a bar on a terminal, elsewhere a line every ten seconds."""

    def __init__(self, what: str, total: int | None):
        self._what, self._total = what, total
        self._done, self._told = 0, time.monotonic()
        self._bar = bar(desc=what, total=total, unit="ch", unit_scale=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def add(self, characters: int) -> None:
        self._done += characters
        self._bar.update(characters)
        if self._bar.disable and time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            total = f" of {self._total / 1e6:.1f}" if self._total else ""
            tell(f"{self._what}: {self._done / 1e6:.1f}{total} million characters")
