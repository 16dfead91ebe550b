"""Signals that ask a run to save and stop."""

import os
import signal
import sys

import jax
from jax.experimental import multihost_utils


class Signals:
    """Notes SIGTERM and SIGINT while training, and leaves at once on the second.

    With several processes the notice comes from the coordination service, which makes all of them
    stop at the same step; a handler of our own would take the signal away from it.
    """

    def __init__(self):
        self.received = False
        self._several = jax.process_count() > 1
        self._before = {}

    def __enter__(self):
        if not self._several:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.received:
            os._exit(130)
        self.received = True
        print("stopping after this step; once more leaves at once", file=sys.stderr)

    def stop(self, step: int) -> bool:
        """Whether to save and stop after `step`; asked once a step by every process."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.received
