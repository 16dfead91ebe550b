r"""A pre-training that is killed again and again, beside one that nobody disturbs.

    gpt1 prepare --output=TOKENS --input 'books/train/*' --valid 'books/valid/*' --vocab_size=2048
    python benchmarks/kills.py --data=TOKENS --runs=RUNS --result=benchmarks/results/kills.json

Both are the same command, on a core of their own each. One is stopped at moments that are drawn
from the seed: half of them by SIGKILL, half by SIGTERM; some seconds after it was started, at a
step of the training, or while a checkpoint is written. Each time the same command goes on. In the
end the parameters, what the optimizer remembers and the rows of metrics of both are compared, bit
for bit, and RESULT gets a row for every kill. Ends with 1 where anything differs, and at once where
a process ends otherwise than it should.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from gpt1_jax.run_files import read_result, versions

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "configs/pretrain.py:tiny"
KEYS = {
    "eval.every": 250,
    "eval.windows": 64,
    "checkpoint.every": 50,
    "log.every": 1,
}
WHEN = ("training", "training", "saving", "starting")  # in turn, then shuffled
IN_A_START = 15.0  # seconds: most of what a start takes where two share two cores
IN_A_STEP, IN_A_SAVE = 1.0, 0.3
# What a process that was stopped ends with: before it has begun to train it has nothing to save.
ENDS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (75, 128 + signal.SIGTERM)}


class Moment(NamedTuple):
    """When a process is stopped, and by what: `delay` seconds after its start, or after the run
    has got to `step`, or after a checkpoint was begun behind that step."""

    when: str
    step: int
    delay: float
    by: signal.Signals


class Run:
    """A training on one core, started as often as it takes."""

    def __init__(self, name: str, flags: argparse.Namespace, core: int):
        self.workdir = flags.runs / name
        self.said = flags.runs / f"{name}.err"
        keys = {"steps": flags.steps, "data.path": flags.data.resolve(), **KEYS}
        words = ["train", f"--config={CONFIG}", f"--workdir={self.workdir}"]
        words += [f"--config.{key}={value}" for key, value in keys.items()]
        self.command = ["taskset", "-c", str(core), sys.executable, "-m", "gpt1_jax", *words]

    def start(self) -> subprocess.Popen:
        with self.said.open("wb") as said:
            return subprocess.Popen(self.command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=said)

    def lines(self) -> list[str]:
        """What the newest process said."""
        return self.said.read_text().splitlines()

    def resumed(self) -> int:
        """The step after which the newest process went on."""
        found = [line for line in self.lines() if "resuming after step " in line]
        return int(found[0].rpartition(" ")[2].replace(",", "")) if found else 0

    def rows(self) -> tuple[int, int]:
        """The last step in metrics.jsonl, and the number of the file, another for each process that
        has begun to train; zeros where there is none."""
        try:
            with (self.workdir / "metrics.jsonl").open("rb") as file:
                number = os.fstat(file.fileno()).st_ino
                file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
                whole = file.read().rpartition(b"\n")[0].splitlines()
        except FileNotFoundError:
            return 0, 0
        return (json.loads(whole[-1])["step"] if whole else 0), number

    def saving(self) -> bool:
        folder = self.workdir / "checkpoints"
        return folder.is_dir() and any("tmp" in path.name for path in folder.iterdir())


def moments(seed: int, kills: int, steps: int) -> list[Moment]:
    """In the order of their steps. Those of a start come when the run has got somewhere near."""
    draw = random.Random(seed)
    when = [WHEN[number % len(WHEN)] for number in range(kills)]
    by = [(signal.SIGKILL, signal.SIGTERM)[number % 2] for number in range(kills)]
    draw.shuffle(when)
    draw.shuffle(by)
    longest = {"starting": IN_A_START, "training": IN_A_STEP, "saving": IN_A_SAVE}
    at = sorted(draw.randrange(1, steps) for _ in range(kills))
    return [
        Moment(*one, draw.uniform(0, longest[one[0]]), signal_)
        for *one, signal_ in zip(when, at, by, strict=True)
    ]


def disturb(run: Run, moment: Moment) -> dict:
    """A process of the run from its start to the moment that ends it; what became of it."""
    _, before = run.rows()
    began = time.monotonic()
    process = run.start()
    if moment.when != "starting":
        await_until(lambda: run.rows()[1] != before and run.rows()[0] >= moment.step, process)
    if moment.when == "saving":
        await_until(run.saving, process, pause=0.005)
    time.sleep(moment.delay)
    saving, seconds = run.saving(), time.monotonic() - began
    process.send_signal(moment.by)
    status = process.wait(timeout=600)
    if status not in ENDS[moment.by]:
        sys.exit(f"{moment} ended it with {status}: {run.lines()[-5:]}")
    reached, now = run.rows()
    trained = now != before
    return {
        "when": moment.when,
        "by": moment.by.name,
        "seconds": round(seconds, 1),
        "status": status,
        "resumed_after": run.resumed() if trained else None,
        "reached": reached if trained else None,
        "while_saving": saving,
        "damaged": sum("damaged" in line for line in run.lines()),
    }


def await_until(condition, process: subprocess.Popen, pause: float = 0.1) -> None:
    """Returns when the condition holds. Ends the script if the process ends before."""
    while not condition():
        if process.poll() is not None:
            sys.exit(f"it ended by itself, with {process.returncode}")
        time.sleep(pause)


def count_lost(kills: list[dict], last_resumed: int) -> None:
    """Adds to each process that trained what the next one that trained did again."""
    after = last_resumed
    for kill in reversed(kills):
        if kill["reached"] is None:
            kill["lost"] = 0
            continue
        kill["lost"] = kill["reached"] - after
        after = kill["resumed_after"]


def digests(workdir: Path, step: int) -> dict[str, str]:
    """SHA-256 over all arrays of the parameters, and of the optimizer, with their names."""
    found = {}
    for item in ("params", "optimizer"):
        tree = ocp.PyTreeCheckpointer().restore(
            workdir.resolve() / "checkpoints" / str(step) / item
        )
        digest = hashlib.sha256()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            array = np.asarray(leaf)
            digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
            digest.update(array.tobytes())
        found[item] = digest.hexdigest()
    found["metrics.jsonl"] = hashlib.sha256((workdir / "metrics.jsonl").read_bytes()).hexdigest()
    return found


def both(flags: argparse.Namespace) -> dict:
    """Trains both, and returns what there is to say."""
    cores = [int(core) for core in flags.cores.split(",")]
    whole, killed = (Run(n, flags, c) for n, c in zip(("whole", "killed"), cores, strict=True))
    began = time.monotonic()
    undisturbed = whole.start()
    kills: list[dict] = []
    for moment in moments(flags.seed, flags.kills, flags.steps):
        kills.append(disturb(killed, moment))
        print(json.dumps(kills[-1]), file=sys.stderr, flush=True)
    for process, run in ((killed.start(), killed), (undisturbed, whole)):
        if process.wait() != 0:
            sys.exit(f"{run.workdir} ended with {process.returncode}: {run.lines()[-5:]}")
        seconds = time.monotonic() - began
    count_lost(kills, killed.resumed())
    manifest = json.loads((flags.data / "manifest.json").read_text())
    found = {run.workdir.name: digests(run.workdir, flags.steps) for run in (whole, killed)}
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": versions(),
        "config": CONFIG,
        "keys": {"steps": flags.steps, **KEYS},
        "tokens": {name: split["tokens"] for name, split in manifest["splits"].items()},
        "tokenizer": manifest["tokenizer"]["fingerprint"],
        "seed": flags.seed,
        "minutes": round(seconds / 60, 1),
        "metrics": read_result(whole.workdir)["metrics"],
        "kills": len(kills),
        "kinds": Counter(f"{kill['by']}, {kill['when']}" for kill in kills),
        "lost": sum(kill["lost"] for kill in kills),
        "most_lost": max((kill["lost"] for kill in kills), default=0),
        "digests": found,
        "equal": found["whole"] == found["killed"],
        "each": kills,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="a folder of gpt1 prepare")
    parser.add_argument(
        "--runs", type=Path, required=True, help="a new folder, where both are trained"
    )
    parser.add_argument("--result", type=Path, required=True, help="the JSON file")
    parser.add_argument("--kills", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=3000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default: %(default)s")
    parser.add_argument("--cores", default="0,1", help="one for each; default: %(default)s")
    flags = parser.parse_args()
    if flags.runs.exists():
        parser.error(f"--runs={flags.runs} is there already; name a new folder")
    flags.runs.mkdir(parents=True)
    found = both(flags)
    flags.result.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(not found["equal"])


if __name__ == "__main__":
    main()
