"""A harness for faults: a verb in a process of its own, something that happens to it at a named
moment, and what came of it. A new fault is three lines:

    outcome = faults.run(words, at="before result.json", do="kill")
    assert outcome.status == -9
    faults.run(words).done()

A moment is before or after (the default) a file takes its place ("journal.json"), or a function
runs ("before gpt1_jax.weights.checkpoint:Checkpoints.save"); "%12" behind it is the twelfth time.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import runs


@dataclass(frozen=True)
class Outcome:
    """Exit status, standard output and standard error of a verb."""

    status: int
    output: str
    errors: str

    def done(self) -> dict:
        """The JSON of the last line."""
        assert self.status == 0, self.errors
        return json.loads(self.output.splitlines()[-1])

    def refused(self, *named: str, status: int = 2) -> str:
        """The one line that says what is wrong, with all that it names."""
        assert self.status == status, (self.status, self.errors)
        assert "Traceback" not in self.errors, self.errors
        last = self.errors.splitlines()[-1]
        assert last.startswith("gpt1: "), self.errors
        for name in named:
            assert name in last, last
        return last


class Process:
    """A verb that runs: what is used of subprocess.Popen."""

    def __init__(self, pid: int, reply: socket.socket, output: IO, errors: IO):
        self.pid = pid
        self.returncode: int | None = None
        self._reply, self._output, self._errors = reply, output, errors

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_) -> None:
        self.wait()
        for file in (self._output, self._errors):
            _read(file)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._reply], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("faulty", timeout)
            self.returncode = _number(self._reply)
            self._reply.close()
        return self.returncode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Standard output and standard error; "" for one that was given to `start`."""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return _read(self._output), _read(self._errors)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _number(replies: socket.socket) -> int:
    content = replies.recv(4, socket.MSG_WAITALL)
    assert content, "tests/faulty.py has ended"
    return struct.unpack("i", content)[0]


def _read(file: IO) -> str:
    """What a file of our own holds, which is closed then."""
    if file.closed or "+" not in file.mode:
        return ""
    with file:
        file.seek(0)
        return file.read().decode()


@functools.cache
def _requests() -> socket.socket:
    """To the process that forks for each fault: see faulty.py."""
    mine, its = socket.socketpair()
    command = [sys.executable, str(Path(__file__).with_name("faulty.py")), str(its.fileno())]
    environment = runs.environment() | {"PYTHONPATH": str(runs.ROOT)}
    process = subprocess.Popen(command, cwd=runs.ROOT, env=environment, pass_fds=[its.fileno()])
    its.close()

    def end():
        mine.close()
        process.wait()

    atexit.register(end)
    return mine


def start(
    words,
    at: str = "",
    do: str = "",
    settings: str = "",
    stdout: IO | None = None,
    stderr: IO | None = None,
    start_new_session: bool = False,
    devices: int = 8,
    variables: Mapping[str, str] | None = None,
) -> Process:
    """The verb in a process. `at` a moment (see the module; "%n" is the n-th time) it gets a signal
    (kill, term, int) or runs the Python statement `do`; `settings` runs before anything else. It
    has so many `devices` of the CPU, and these environment variables besides those of the tests."""
    environment = runs.environment(devices) | {"PYTHONPATH": str(runs.ROOT)} | (variables or {})
    request = {
        "arguments": [at, do, settings, *map(str, words)],
        "environment": environment,
        "session": start_new_session,
    }
    content = json.dumps(request).encode()
    # Closed when they are read.
    output, errors = (given or tempfile.TemporaryFile() for given in (stdout, stderr))  # noqa: SIM115
    mine, its = socket.socketpair()
    requests = _requests()
    with its:
        files = [output.fileno(), errors.fileno(), its.fileno()]
        socket.send_fds(requests, [struct.pack("i", len(content))], files)
        requests.sendall(content)
    return Process(_number(mine), mine, output, errors)


def run(words, at: str = "", do: str = "", settings: str = "", **options) -> Outcome:
    """The same, awaited."""
    process = start(words, at, do, settings, **options)
    output, errors = process.communicate(timeout=300)
    return Outcome(process.returncode, output, errors)


def flip_a_bit(path: Path) -> Path:
    """In the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    return path


def damage_checkpoint(workdir: Path, step: int, item: str = "params") -> Path:
    """Flips a bit of the largest file of an item of a checkpoint."""
    files = [p for p in (workdir / "checkpoints" / str(step) / item).rglob("*") if p.is_file()]
    return flip_a_bit(max(files, key=lambda path: path.stat().st_size))


# The words of verbs


def predict(model: Path, rows: Path, output: Path) -> list:
    return ["predict", f"--workdir={model}", f"--input={rows}", f"--output={output}"]


def prepare(texts: str, output: Path, *flags) -> list:
    words = ["prepare", f"--output={output}", "--input", texts, "--vocab_size=300", "--workers=1"]
    return [*words, *flags]


def train(tokens: Path, workdir: Path, **changes) -> list:
    return [*runs.words(runs.pretraining(tokens, **changes), workdir), "--quiet"]
