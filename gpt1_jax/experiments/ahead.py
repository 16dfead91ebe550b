"""Runs that are trained several at a time, in processes of their own, before their results are
asked for.

A run that failed there is tried again when its result is asked for, and its error is said then.
"""

import contextlib
import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Collection, Iterable
from multiprocessing import connection
from pathlib import Path
from typing import NamedTuple

from gpt1_jax import signals
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.experiments.runs import Run
from gpt1_jax.messages import hushed, is_hushed, tell

# Seconds after which a signal is noticed.
_INTERVAL = 0.2


def share_devices() -> None:
    """To be called before JAX looks for a GPU: it would take most of its memory for one process."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def train(groups: Iterable[list[Run]], workers: int) -> dict[Path, dict]:
    """Trains the runs of each group one after the other, so many groups at a time, each in a
    process that has its share of the processor's cores. Where there are fewer groups than workers,
    the largest are divided. Returns the results, by workdir, of those that ended.

    Raises Interrupted after a signal, when the runs that had begun are saved.
    """
    waiting = deque(divided(groups, workers))
    running: dict[int, _Worker] = {}
    results: dict[Path, dict] = {}
    with signals.noted() as stopped:
        while running or (waiting and not stopped()):
            for place in set(range(workers)) - set(running):
                if waiting and not stopped():
                    running[place] = _begun(waiting.popleft(), place, workers)
            connection.wait([each.process.sentinel for each in running.values()], _INTERVAL)
            # One that is found dead has said all that it will.
            ended = {place for place, each in running.items() if not each.process.is_alive()}
            for each in running.values():
                results |= each.said()
            running = {place: each for place, each in running.items() if place not in ended}
            if stopped():
                _stop([each.process for each in running.values()])
                running = {}
        if stopped():
            raise Interrupted(
                "stopped by a signal; the runs that had begun are saved, and the same command goes "
                "on with them"
            )
    return results


def divided(groups: Iterable[list[Run]], workers: int) -> list[list[Run]]:
    """The groups, the largest halved until there is one for each worker: to compile once more takes
    less time than to wait for others."""
    found = [group for group in groups if group]
    while found and len(found) < workers:
        at, largest = max(enumerate(found), key=lambda each: len(each[1]))
        if len(largest) == 1:
            break
        half = (len(largest) + 1) // 2
        found[at : at + 1] = [largest[:half], largest[half:]]
    return found


class _Worker(NamedTuple):
    process: multiprocessing.process.BaseProcess
    receiver: connection.Connection

    def said(self) -> dict[Path, dict]:
        """The results that it has sent since it was last asked."""
        found = {}
        with contextlib.suppress(EOFError):
            while self.receiver.poll():
                workdir, result = self.receiver.recv()
                found[workdir] = result
        return found


def _stop(processes: Collection[multiprocessing.process.BaseProcess]) -> None:
    """Once: a second signal would have them end without saving."""
    for each in processes:
        each.terminate()
    for each in processes:
        each.join()


def _begun(runs: list[Run], place: int, workers: int) -> _Worker:
    # Not forked: JAX has threads, and a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    given = runs, sender, place, workers, is_hushed(), sys.orig_argv
    process = context.Process(target=_train, args=given, daemon=True)
    with signals.kept_from_children(), sender:
        process.start()
    return _Worker(process, receiver)


def _train(
    runs: list[Run],
    sender: connection.Connection,
    place: int,
    workers: int,
    quiet: bool,
    typed: list[str],
) -> None:
    """What a process does. `typed` is what started the first, which result.json names."""
    sys.orig_argv = typed
    signals.follow_parent()
    signals.start(quiet=True)
    _take_cores(place, workers)
    with hushed(quiet):
        for run in runs:
            try:
                result = run.result()
            except UserError:
                continue
            except Interrupted:
                return
            sender.send((run.workdir, result))
            tell(f"{run.workdir} is trained")


def _take_cores(place: int, workers: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[place::workers] or cores)
