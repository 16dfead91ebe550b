"""How far a verb has come with a file: a bar on a terminal, elsewhere a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gpt1_jax.messages import bar, tell

EVERY = 10.0  # seconds between lines


@contextmanager
def counting(total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """A function that takes how many more of `total` are done."""
    done, told = 0, time.monotonic()
    with bar(total=total, unit=unit) as drawn:

        def add(more: int) -> None:
            nonlocal done, told
            done += more
            drawn.update(more)
            if drawn.disable and time.monotonic() - told > EVERY:
                told = time.monotonic()
                tell(f"{done} of {total} {unit}")

        yield add
