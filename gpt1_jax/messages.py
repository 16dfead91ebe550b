"""What is said to a person: lines on standard error, which leave standard output to the result."""

import contextlib
import functools
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TextIO

from gpt1_jax.errors import UserError

if TYPE_CHECKING:
    from tqdm import tqdm

_HUSHED = ContextVar("hushed", default=False)


@contextlib.contextmanager
def hushed(quiet: bool = True) -> Iterator[None]:
    """While it lasts, progress is not told where `quiet` is; what is wrong still is said."""
    before = _HUSHED.set(quiet)
    try:
        yield
    finally:
        _HUSHED.reset(before)


def is_hushed() -> bool:
    """Whether progress is not told."""
    return _HUSHED.get()


def tell(line: str) -> None:
    """`say`, for a line of progress, which those who ask for quiet do without."""
    if not is_hushed():
        say(line)


def say(line: str) -> None:
    """One line, at once, whatever is in the names that it has; above the progress bars, where there
    are any. Where nobody can read it the work goes on."""
    show(visible(line))


def show(text: str) -> None:
    """The same with text that has lines of its own."""
    if sys.stderr is None:  # closed by whoever started us; print would take standard output
        return
    # Without the class there are no bars: the module is not loaded, or a signal speaks meanwhile.
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    try:
        if bars is None:
            print(text, file=sys.stderr)
        else:
            _of_this_process(bars).write(text, file=sys.stderr)
        sys.stderr.flush()
    except OSError:
        _give_up(sys.stderr)


def bar(quiet: bool = False, **settings: Any) -> "tqdm":
    """A progress bar with tqdm's settings; `disable` says afterwards that none is drawn, as for
    those who ask for quiet and where there is no terminal."""
    from tqdm import tqdm

    columns = rows = 0
    # Some terminals say that they have no columns, and tqdm would then draw nothing.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        columns, rows = os.get_terminal_size(sys.stderr.fileno())
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return _of_this_process(tqdm)(
        ncols=(columns or 100) - 1,
        nrows=rows or 24,
        disable=quiet or is_hushed() or not terminal,
        **settings,
    )


@functools.cache
def _of_this_process(bars: "type[tqdm]") -> "type[tqdm]":
    """A process of ours draws its bars alone. The lock between processes that tqdm makes otherwise
    has semaphores, of which Python complains where a signal ends the process."""
    bars.set_lock(threading.RLock())
    return bars


def answer(line: str) -> None:
    """One line on standard output, at once. UserError where that is full, closed, or read by
    nobody."""
    if sys.stdout is None:
        raise UserError("standard output is closed, and the result goes nowhere")
    try:
        print(line, flush=True)
    except OSError as error:
        raise no_output(error) from None


def no_output(error: OSError) -> UserError:
    """What is said where standard output takes no more; nothing more is written to it."""
    _give_up(sys.stdout)
    return UserError(f"standard output takes no more ({error.strerror}); write to a file instead")


def _give_up(stream: TextIO) -> None:
    """What the stream still holds would otherwise fail again when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def amount(n_bytes: int) -> str:
    """Bytes in the unit that suits them.

    >>> amount(900), amount(4_200_000)
    ('900 bytes', '4.2 MB')
    """
    size, units = float(n_bytes), ["TB", "GB", "MB", "kB"]
    if size < 1000:
        return f"{n_bytes} bytes"
    while (size := size / 1000) >= 1000 and len(units) > 1:
        units.pop()
    return f"{size:.1f} {units[-1]}"


def visible(text: str) -> str:
    """`text` on one line: line breaks, control characters and bytes that are no text, which names
    of files and tasks may have, as escapes."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def shown(value: Any) -> str:
    """A value for a message, cut if it is long."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:40] + "..."
