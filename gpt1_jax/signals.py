"""SIGINT, SIGTERM and SIGHUP at any moment of a command.

Nothing is raised in the code that runs: it may be a callback of a library, which loses an exception
or dies of it, or C code, which an exception does not reach. A thread reads the signals and decides.
As a rule it ends the process: what the command was writing is taken away, one line is said, and the
exit status is 128 + the number of the signal. Within `noted` the first is only noted, so that a
training saves; the second ends the process at once, with 130.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator

from gpt1_jax.messages import say

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AT_ONCE = 130
# Seconds for taking away what is unfinished, where a disk or a reader of our lines hangs.
_PATIENCE = 1.5
# The same signal so soon after the first is that one once more: a terminal that is closed sends
# SIGHUP by way of the shell and by itself, `timeout` SIGTERM to its child and to the child's group.
_ONE_SIGNAL = 0.25

# What is to be done at the end of blocks that run, in the order in which they began.
_at_the_end: dict[object, Callable[[], object]] = {}
_changing = threading.RLock()
_listener: "_Listener | None" = None


@contextlib.contextmanager
def at_the_end(action: Callable[[], object]) -> Iterator[None]:
    """Calls `action` at the end of the block, also where that is a signal that ends the process:
    then in another thread than the one that is in the block."""
    key = object()
    with _changing:
        _at_the_end[key] = action
    try:
        yield
    finally:
        with _changing:
            del _at_the_end[key]
            action()


def start(quiet: bool = False) -> None:
    """Listens from now on, to the end of the process; `quiet`, where another process says that it
    was stopped."""
    global _listener
    _listener = _listener or _Listener(NUMBERS, quiet)


def settle() -> None:
    """Returns when all signals so far were acted on, never if one of them ends the process. To be
    called before what cannot be taken back."""
    if _listener is not None and threading.current_thread() is threading.main_thread():
        _listener.settle()


def conclude() -> None:
    """Returns like `settle`; to be called before the command says its last. From then on the first
    signal changes nothing of what it says or of its exit status; the second ends the process at
    once."""
    if _listener is not None and threading.current_thread() is threading.main_thread():
        _listener.conclude()


@contextlib.contextmanager
def listening(numbers: Collection[int] = NUMBERS) -> Iterator[None]:
    """Listens within, unless it is done already. A signal that came within is acted on within,
    whatever ends it."""
    global _listener
    if threading.current_thread() is not threading.main_thread():
        # Python gives no other thread a say in signals.
        yield
        return
    outermost = _listener is None
    listener = _listener = _listener or _Listener(numbers)
    try:
        yield
    finally:
        listener.settle()
        if outermost:
            _listener = None
            listener.close()


@contextlib.contextmanager
def noted(instead: int | None = None) -> Iterator[Callable[[], bool]]:
    """Within, the first signal ends nothing; what this gives says whether there was one. It is
    passed on as the signal `instead`, to which somebody else listens."""
    with listening([number for number in NUMBERS if number != instead]):
        listener = _listener
        if listener is None:
            yield lambda: False
            return
        listener.note(True, instead)
        try:
            yield lambda: listener.first is not None
        finally:
            listener.note(False)


@contextlib.contextmanager
def kept_from_children() -> Iterator[None]:
    """A process that is started within never gets a SIGINT: a Ctrl-C is for the one that started
    it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def follow_parent() -> None:
    """To be called in a process that Python's multiprocessing has started: it ends with its parent,
    however that ends."""
    import multiprocessing  # not before the signals are listened to: it takes long to import

    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Listener:
    """The thread that reads signals. `first` is the number of the first, None before."""

    def __init__(self, numbers: Collection[int], quiet: bool = False):
        self.first: int | None = None
        self._came = 0.0
        self._say = (lambda line: None) if quiet else say
        self._noting = False
        self._instead: int | None = None
        self._ending = self._concluded = False
        self._lock = threading.Lock()
        self._settled = threading.Semaphore(0)
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        # Python writes the number of each signal that has a handler to this pipe, at once and also
        # while the main thread is in C code.
        self._woken = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {}
        for number in numbers:
            # nohup has it ignored, and so it stays.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, _nothing)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def note(self, noting: bool, instead: int | None = None) -> None:
        """Whether the first signal is only noted from now on."""
        with self._lock:
            self._noting, self._instead = noting, instead
        self.settle()

    def conclude(self) -> None:
        """Whoever was heard until now is answered; after it one signal is not."""
        with self._lock:
            self._concluded = True
        self.settle()

    def settle(self) -> None:
        """Returns when all signals so far were acted on, never if one of them ends the process."""
        os.write(self._writing, bytes(1))
        self._settled.acquire()
        if self._ending:
            threading.Event().wait()

    def close(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._woken)
        os.close(self._writing)

    def _listen(self) -> None:
        while byte := os.read(self._reading, 1):
            if byte[0] in NUMBERS:
                self._act(byte[0])
            elif not byte[0]:
                self._settled.release()
        os.close(self._reading)

    def _act(self, number: int) -> None:
        now, before = time.monotonic(), self.first
        if before is not None:
            if number == before and now - self._came < _ONE_SIGNAL:
                return
            os._exit(AT_ONCE)
        self.first, self._came = number, now
        with self._lock:
            if self._concluded:
                return
            self._ending = not self._noting
        if not self._ending:
            self._say("stopping after this step; once more leaves at once")
            if self._instead is not None:
                os.kill(os.getpid(), self._instead)
            return
        threading.Thread(target=_end, args=(number, self._say), daemon=True).start()


def _end(number: int, tell: Callable[[str], object]) -> None:
    tidying = threading.Thread(target=_tidy, args=(number, tell), daemon=True)
    tidying.start()
    tidying.join(_PATIENCE)
    os._exit(128 + number)


def _tidy(number: int, tell: Callable[[str], object]) -> None:
    # Nothing begins any more: the lock is never given back.
    _changing.acquire()
    for action in reversed(_at_the_end.values()):
        with contextlib.suppress(Exception):
            action()
    tell(f"gpt1: stopped by {signal.Signals(number).name}; start the same command again")
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()


def _nothing(number, frame) -> None:
    """What Python runs in the main thread."""
