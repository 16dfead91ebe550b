"""A harness for faults: a verb in a process of its own, something that happens to it at a named
moment, and what came of it. A new fault is three lines:

    outcome = faults.run(words, at="before result.json", do="kill")
    assert outcome.status == -9
    faults.run(words).done()

A moment is before or after (the default) a file takes its place ("journal.json"), or a function
runs ("before gpt1_jax.weights.checkpoint:Checkpoints.save"); "%12" behind it is the twelfth time.
"""

import atexit
import functools
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import runs

_SCRIPT = """
import importlib, os, pathlib, signal, sys
at, do, settings, words = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
exec(settings)
number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}

def strike():
    if do in number:
        os.kill(os.getpid(), number[do])
    else:
        exec(do)

when, _, name = at.rpartition(" ")
name, _, wanted = name.partition("%")
seen = []

def noted(where):
    if where == (when or "after"):
        seen.append(where)
        if len(seen) == int(wanted or 1):
            strike()

def around(function):
    def wrapped(*arguments, **named):
        noted("before")
        found = function(*arguments, **named)
        noted("after")
        return found
    return wrapped

replace = os.replace
if ":" in name:
    module, _, path = name.partition(":")
    owner = importlib.import_module(module)
    *parents, last = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, last, around(getattr(owner, last)))
elif name:
    noting = around(replace)
    os.replace = lambda one, two: (noting if pathlib.Path(two).match(name) else replace)(one, two)

from gpt1_jax.__main__ import main
if __name__ == "__main__":
    sys.exit(main(words))
"""


@functools.cache
def _script() -> Path:
    """A file, because the processes that a verb spawns import it too."""
    folder = Path(tempfile.mkdtemp(prefix="gpt1-faults-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "faulty.py").write_text(_SCRIPT)
    return folder / "faulty.py"


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


def start(words, at: str = "", do: str = "", settings: str = "", **options) -> subprocess.Popen:
    """The verb in a process. `at` a moment (see the module; "%n" is the n-th time) it gets a signal
    (kill, term, int) or runs the Python statement `do`; `settings` runs before anything else."""
    command = [sys.executable, str(_script()), at, do, settings, *map(str, words)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    environment = runs.environment(1) | {"PYTHONPATH": str(runs.ROOT)}
    return subprocess.Popen(command, cwd=runs.ROOT, env=environment, text=True, **options)


def run(words, at: str = "", do: str = "", settings: str = "", **options) -> Outcome:
    """The same, awaited."""
    process = start(words, at, do, settings, **options)
    output, errors = process.communicate(timeout=300)
    return Outcome(process.returncode, output or "", errors or "")


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
