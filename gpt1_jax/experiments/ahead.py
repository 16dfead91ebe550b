"""Runs that are trained several at a time, in processes of their own, before their results are
asked for.

What such a process leaves is the run, which is not done again when its result is asked for; one
that failed there fails again here, and is reported then.
"""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Collection, Iterable
from multiprocessing import connection

from gpt1_jax import signals
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.experiments.runs import Run
from gpt1_jax.messages import hushed, is_hushed, tell

STOPPED = 75
# Seconds after which a signal is noticed.
_INTERVAL = 0.2


def share_devices() -> None:
    """To be called before JAX looks for a GPU: it would take most of its memory for one process."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def train(groups: Iterable[list[Run]], workers: int) -> None:
    """Trains the runs of each group one after the other, so many groups at a time, each in a
    process that has its share of the processor's cores.

    Raises Interrupted after a signal, when the runs that had begun are saved.
    """
    waiting = deque(group for group in groups if group)
    running: dict[int, multiprocessing.process.BaseProcess] = {}
    with signals.noted() as stopped:
        while running or (waiting and not stopped()):
            for place in set(range(workers)) - set(running):
                if waiting and not stopped():
                    running[place] = _begun(waiting.popleft(), place, workers)
            connection.wait([each.sentinel for each in running.values()], timeout=_INTERVAL)
            running = {place: each for place, each in running.items() if each.is_alive()}
            if stopped():
                _stop(running.values())
                running = {}
        if stopped():
            raise Interrupted(
                "stopped by a signal; the runs that had begun are saved, and the same command goes "
                "on with them"
            )


def _stop(processes: Collection[multiprocessing.process.BaseProcess]) -> None:
    """Once: a second signal would have them end without saving."""
    for each in processes:
        each.terminate()
    for each in processes:
        each.join()


def _begun(runs: list[Run], place: int, workers: int) -> multiprocessing.process.BaseProcess:
    # Not forked: JAX has threads, and a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_train, args=(runs, place, workers, is_hushed()), daemon=True)
    with signals.kept_from_children():
        process.start()
    return process


def _train(runs: list[Run], place: int, workers: int, quiet: bool) -> None:
    """What a process does."""
    signals.follow_parent()
    signals.start()
    _take_cores(place, workers)
    for run in runs:
        try:
            run.result()
        except UserError:
            continue
        except Interrupted:
            sys.exit(STOPPED)
        with hushed(quiet):
            tell(f"{run.workdir} is trained")


def _take_cores(place: int, workers: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[place::workers] or cores)
