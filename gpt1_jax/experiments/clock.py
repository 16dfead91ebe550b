"""What is being done in a long command, for how long it has run, and how long it will.

How long it takes is said before it starts where only its products are known: from a third of the
rate that the device could have to a tenth, between which small models were seen.
"""

import contextlib
import time
from collections.abc import Iterator

from gpt1_jax.messages import bar, tell


class Clock:
    """Parts, one after the other. Each is announced with the time left of all: in a bar on a
    terminal, elsewhere in a line.

    What is left is at first what remains of the time asked for, and once it is known what to
    `expect`, that, corrected by what the parts since then have taken: a machine that has become
    slow shows.
    """

    def __init__(self, seconds: float):
        """`seconds`: the time asked for."""
        self._began = time.monotonic()
        self._asked = seconds
        self._left: float | None = None
        self._expected = self._taken = 0.0
        self._bar = bar(total=100, bar_format="{desc} |{bar}|")

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """Of all parts."""
        if self._left is None:
            return max(0.0, self._asked - self.seconds)
        return self._left * (self._taken / self._expected if self._expected else 1.0)

    def expect(self, seconds: float) -> None:
        """All parts that are to come together take so long, by an estimate."""
        self._left, self._expected, self._taken = seconds, 0.0, 0.0

    @contextlib.contextmanager
    def part(
        self, name: str, expected: float = 0.0, done: bool = False, begun: bool = False
    ) -> Iterator[None]:
        """Announces a part and times it. `expected` is its share of what is expected of all. One
        that was `done` before takes no time, and says nothing about how long others take; nor does
        one that had `begun`."""
        if not done:
            self._announce(name)
        began = time.monotonic()
        yield
        if self._left is not None:
            self._left = max(0.0, self._left - expected)
            if not (done or begun):
                self._expected += expected
                self._taken += time.monotonic() - began

    def _announce(self, name: str) -> None:
        line = f"[{minutes(self.seconds)}] {name}; about {minutes(self.seconds_left)} left"
        if self._bar.disable:
            tell(line)
            return
        done = self.seconds / max(1e-9, self.seconds + self.seconds_left)
        self._bar.set_description_str(line, refresh=False)
        self._bar.n = round(100 * done)
        self._bar.refresh()

    def __enter__(self) -> "Clock":
        return self

    def __exit__(self, *_) -> None:
        self._bar.leave = False
        self._bar.close()


class Count:
    """Cells, one after the other, each of as many runs; and the time left, by the mean of the runs
    that this call made."""

    def __init__(self, cells: int):
        self._cells = cells
        self._seen = self._made = 0
        self._seconds = 0.0

    @contextlib.contextmanager
    def run(self, made: bool) -> Iterator[None]:
        """Times a run; one that was not `made` in this call was there before."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._seen += 1
            if made:
                self._made += 1
                self._seconds += time.monotonic() - began

    def said(self, runs_of_a_cell: int) -> str:
        """How far it is: `run 3 of 24, about 1:20 left`."""
        total = self._cells * runs_of_a_cell
        left = ""
        if self._made and self._seen < total:
            left = f", about {minutes(self._seconds / self._made * (total - self._seen))} left"
        return f"run {self._seen} of {total}{left}"


RATES = (1 / 3, 1 / 10)


def hours_at(flops: float, tflops: float) -> str:
    """For so many FLOPs on devices of so many TFLOP/s at most together.

    >>> hours_at(3.6e15, 1.0), hours_at(3.6e14, 1.0), hours_at(3.6e12, 1.0)
    ('3 to 10 hours', '18 to 60 minutes', 'about a minute')
    """
    seconds = [flops / (rate * tflops * 1e12) for rate in RATES]
    unit, name = (3600, "hours") if seconds[0] >= 3600 else (60, "minutes")
    first, last = (max(1, round(each / unit)) for each in seconds)
    return "about a minute" if first == last else f"{first:,} to {last:,} {name}"


def minutes(seconds: float) -> str:
    """m:ss, as in 1:05."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
