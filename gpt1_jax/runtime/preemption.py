"""Signals that ask a run to save and stop."""

import contextlib
import signal

import jax
from jax.experimental import multihost_utils

from gpt1_jax import signals


class Signals:
    """Asks, from the first update on, that signals be noted, for the run to save and stop.

    With several processes the notice comes from the coordination service, which makes all of them
    stop at the same step. It listens to SIGTERM itself, and a handler of our own would take that
    away from it; the other signals are passed on to it.
    """

    def __init__(self):
        self._several = jax.process_count() > 1
        self._noting = contextlib.ExitStack()
        self._came = lambda: False

    def __enter__(self) -> "Signals":
        return self

    def __exit__(self, *_) -> None:
        self._noting.close()

    def begin(self) -> None:
        """There is something to save."""
        if self._several:
            self._noting.enter_context(signals.noted(instead=signal.SIGTERM))
        else:
            self._came = self._noting.enter_context(signals.noted())

    @property
    def came(self) -> bool:
        """Whether a process that is alone was asked to stop."""
        return self._came()

    def stop(self, step: int) -> bool:
        """Whether to save and stop after `step`; asked once a step by every process."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.came
