"""The processes of one run: how they find each other, and how they end.

The coordination service of XLA, in process 0, hears of each process every few seconds. Where one
falls silent, or the service itself does, XLA writes a page of text and aborts each process that is
left. Here such an end is one line and exit status 75: what XLA writes goes through a pipe, and what
aborts the process is met by a handler of the signal, in which the pipe says why. Any other abort
stays what it is, with its text.
"""

import contextlib
import ctypes
import os
import re
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

from gpt1_jax.errors import UserError
from gpt1_jax.flags import Flag

RESUMABLE = 75
# Seconds of silence after which a process is lost (JAX's own 100 are long to wait for it), and for
# which one that ends waits for the others to end as well.
_SILENCE = 30
# What XLA writes before it aborts because another process ended, in the line that begins it.
_FATAL = b"JAX distributed service detected fatal errors"
# What the libraries raise where another process no longer answers.
_UNANSWERED = re.compile(
    r"Gloo|NCCL|heartbeat|coordination service|UNAVAILABLE|Socket closed"
    r"|Connection (reset|closed|refused)",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Several processes by hand: the three flags go together. Where Slurm, Open MPI, Kubernetes or
    Cloud TPU started them, JAX finds out by itself."""

    coordinator: Annotated[str | None, Flag("of several processes", "HOST:PORT")] = None
    num_processes: Annotated[int | None, Flag()] = None
    process_id: Annotated[int | None, Flag()] = None

    def connect(self) -> None:
        """Joins the others, if there are any, before JAX looks for devices. Raises UserError for
        flags that do not fit, and where the others cannot be found."""
        if (self.coordinator, self.num_processes, self.process_id) == (None, None, None):
            if starter := started_by():
                _join(starter)
            return
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            raise UserError("--coordinator, --num_processes and --process_id go together")
        if not re.fullmatch(r".+:\d+", self.coordinator):
            raise UserError(
                f"--coordinator={self.coordinator}; expected HOST:PORT, as in 10.0.0.2:8476"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise UserError(
                f"--process_id={self.process_id}; expected 0 to {self.num_processes - 1}, one less "
                "than --num_processes"
            )
        if self.process_id == 0:
            _require_free(int(self.coordinator.rpartition(":")[2]))
        _join("--coordinator", self.coordinator, self.num_processes, self.process_id)


def _require_free(port: int) -> None:
    """UserError for a port on which the service cannot listen: XLA would not survive it."""
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        socket.create_server(("", port), family=family, dualstack_ipv6=both).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--coordinator: process 0 cannot listen on port {port} ({error}); choose another"
        ) from None


def started_by() -> str | None:
    """What may have started several processes of which this is one, as its environment says."""
    if _count("SLURM_NTASKS") > 1 and "SLURM_STEP_NODELIST" in os.environ:
        return "Slurm"
    if _count("OMPI_COMM_WORLD_SIZE") > 1:
        return "Open MPI"
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys():
        return "Kubernetes"
    if has_tpu():
        return "Cloud TPU"
    return None


def has_tpu() -> bool:
    """Whether this machine may have a TPU, by the files of its driver."""
    return any(Path("/dev").glob("accel*")) or Path("/dev/vfio").exists()


def _count(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0


def require_alone(verb: str) -> None:
    """UserError in a process that is one of several, for a verb that wants one."""
    starter = started_by()
    if starter == "Kubernetes" and _count("JOB_COMPLETION_INDEX") == 0:
        return  # the first of several, or the only one
    if starter == "Cloud TPU":
        # How many hosts a slice has, JAX finds out.
        _join(starter)
        if _joined is None:
            return
    if starter:
        raise UserError(
            f"gpt1 {verb} runs in one process, and {starter} started several; start one, on one "
            "machine"
        )


class _Joined:
    """A process among several. `status` is the exit status that it ends with, once that is known.

    From here on sys.stderr is where people read, and what the libraries write is passed on to it.
    """

    def __init__(self):
        self.status: int | None = None
        self._lock = threading.RLock()
        self._held = b""
        try:
            self._told = os.dup(2)
        except OSError:  # closed by whoever started us
            self._told = os.open(os.devnull, os.O_WRONLY)
        self._stderr = sys.stderr
        sys.stderr = open(  # noqa: SIM115, it stays
            self._told, "w", buffering=1, errors="backslashreplace", closefd=False
        )
        self._reading, writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.dup2(writing, 2)
        os.close(writing)
        threading.Thread(target=self._pass_on, name="stderr", daemon=True).start()
        # Python's own handlers run later, in the main thread, and this signal leaves no later.
        self._handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self._aborted)
        self._libc = ctypes.CDLL(None)
        self._libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
        self._libc.signal(signal.SIGABRT, ctypes.cast(self._handler, ctypes.c_void_p))

    def undo(self) -> None:
        """Standard error and aborting as they were before."""
        self._libc.signal(signal.SIGABRT, None)
        os.dup2(self._told, 2)
        sys.stderr = self._stderr

    def _pass_on(self) -> None:
        while True:
            select.select([self._reading], [], [])
            with self._lock:
                if not self._read():
                    return

    def _read(self) -> bool:
        """Passes on what whole lines there are, up to the one that says that another process is
        lost; whether there may be more. Under the lock, so that nothing is read and not yet held
        while the process is aborted."""
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._reading, 2**16):
                self._held += chunk
                if _FATAL not in self._held:
                    lines, newline, self._held = self._held.rpartition(b"\n")
                    _write(self._told, lines + newline)
            return False
        return True

    def _aborted(self, number: int) -> None:
        with self._lock:
            self._read()
            if _FATAL in self._held:
                self.lost(_whom(self._held.partition(_FATAL)[2].decode(errors="replace")))
            _write(self._told, self._held)
            # The signal comes once more, and ends the process.
            self._libc.signal(signal.SIGABRT, None)

    def lost(self, whom: str) -> NoReturn:
        """Ends the process, since another one has ended."""
        with self._lock:  # one thread alone says it
            if self.status is None:
                line = f"{whom} is lost; the same command continues from the newest checkpoint"
                _write(self._told, f"gpt1: {line}\n".encode())
            os._exit(RESUMABLE if self.status is None else self.status)


# This process, if it is one of several.
_joined: _Joined | None = None


def _write(descriptor: int, content: bytes) -> None:
    with contextlib.suppress(OSError):
        while content:
            content = content[os.write(descriptor, content) :]


def _whom(text: str) -> str:
    """Which process is lost, as far as the text of XLA says."""
    if found := re.search(r"Task (\d+) heartbeat timeout|sending heartbeats\):\s*(\d+)", text):
        return f"process {found[1] or found[2]}"
    of_service = re.search(r"Failed to send RPC|CoordinationService/Heartbeat", text)
    return "process 0" if of_service else "another process"


def _join(
    starter: str,
    coordinator: str | None = None,
    count: int | None = None,
    number: int | None = None,
) -> None:
    """Becomes one of several processes; stays alone where JAX finds that it is the only one."""
    global _joined
    # What is not fatal is told by the exceptions that are raised of it.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import jax

    on_term = signal.getsignal(signal.SIGTERM)
    joined = _joined = _Joined()
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            number,
            heartbeat_timeout_seconds=_SILENCE,
            shutdown_timeout_seconds=_SILENCE,
        )
        if jax.process_count() > 1:
            return
        # XLA has put a handler of its own in its place, which only several processes ask.
        signal.signal(signal.SIGTERM, on_term)
    except (ValueError, OSError) as error:
        # A machine with a TPU that is part of no slice.
        if starter != "Cloud TPU":
            raise UserError(
                f"{starter}: the other processes cannot be found "
                f"({' '.join(str(error).split())}); give --coordinator, --num_processes and "
                "--process_id"
            ) from None
    joined.undo()
    _joined = None


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """What is raised within because another process is lost ends this one: to close what is open
    would wait for it."""
    try:
        yield
    except Exception as error:
        if _joined and _UNANSWERED.search("\n".join(_chain(error))):
            _joined.lost("another process")
        raise


def _chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def leave(status: int) -> None:
    """To be called when all is said. The others end as well, or this process waits a while: where
    process 0 goes first, with the service, it takes them with it."""
    global _joined
    if _joined is None:
        return
    import jax

    _joined.status = status
    try:
        jax.distributed.shutdown()
    except Exception:
        sys.stderr.flush()
        os._exit(status)
    _joined.undo()
    _joined = None


def leave_by_a_bug() -> None:
    """Says the exception that is handled, and ends the process if it is one of several."""
    if _joined is not None:
        traceback.print_exc()
        leave(1)
        os._exit(1)
