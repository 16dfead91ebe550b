"""GPT-1 at its own size on a GPU that is lent for minutes: pre-trained, then fine-tuned on five
tasks with and without that pre-training.

    benchmarks/study_gpu.sh pack DATA        where there is a network
    benchmarks/study_gpu.sh run [RESULTS]    on the machine with the GPU

The second unpacks what the first has packed and calls this file. Cells that need no pre-training
are filled beside it, on the same GPU, from its first updates on: what their start and compilation
would cost afterwards is most of what a cell costs. So no tokens/s of these rows is a measurement of
speed; benchmarks/run.py has those.

Each row is in RESULTS/study.jsonl as soon as it is there, beside it the scores of the majority and
of a bag of words on the same labels; pretraining.jsonl is metrics.jsonl of the pre-training so far,
study.log what the runs say. Pre-training that does not end in time is stopped by a signal, which
saves it; its weights of then are fine-tuned, and the same command goes on with it where its folder
still is. The exit status is 75 while rows are missing, and 1 where pre-training failed, which ends
all. Environment:

    LIMIT     seconds after which everything is ended, by default 400
    STEPS     updates of pre-training, by default 3000: 98 million tokens
    AT_ONCE   cells at a time, by default 2 beside the pre-training, and 3 after it
    TASKS     which, in their order, by default stsb,cola,sst2,mrpc,rte
    SEEDS     of fine-tuning, by default 0; another is begun when a whole round is done
    PACKED    the folder with tokens/ and tasks/
    WORK      the folder of the runs
    TINY      any value: tiny sizes, to see that all of it works
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

LIMIT = float(os.environ.get("LIMIT", "400"))
STEPS = int(os.environ.get("STEPS", "3000"))
SEEDS = os.environ.get("SEEDS", "0").split(",")
PACKED = Path(os.environ.get("PACKED", "carried"))
WORK = Path(os.environ.get("WORK", "runs/study"))
TINY = "TINY" in os.environ
# Seconds at the end that pre-training leaves to the cells, and those that a cell takes at least.
FOR_CELLS, LEAST = (20, 5) if TINY else (100, 25)

# The longest example of each, in one bucket: the compiler runs once for all updates. Of SST-2 a
# part, as its 6,300 updates would take as long as half of pre-training.
TASKS = {"stsb": 128, "cola": 64, "sst2": 64, "mrpc": 128, "rte": 320}
TRAIN_EXAMPLES = {"sst2": 16_000}
CHOSEN = os.environ.get("TASKS", ",".join(TASKS)).split(",")

ONCE = {
    "checkpoint.every": "1000000",
    "checkpoint.keep": "1",
    "log.tensorboard": "false",
    "model.dtype": "bfloat16",
}
# The paper's warm-up of 2,000 updates is a 500th of its run. Here it is a sixth, 500, since a norm
# after each sum needs a slow start; and the rate is a little above 2.5e-4. All else is as there.
PRETRAINING = {
    "steps": str(STEPS),
    "optimizer.learning_rate": os.environ.get("RATE", "3e-4"),
    "optimizer.warmup": "0.167",
    "eval.every": str(max(1, STEPS // 6)),
}
FINE_TUNING = {"eval.every": "1000000"}
TINY_PRETRAINING = {
    "model.n_layer": "1",
    "model.n_embd": "32",
    "model.n_head": "2",
    "model.n_ctx": "64",
    "batch_size": "2",
    "eval.windows": "4",
}
TINY_MODEL = {key: value for key, value in TINY_PRETRAINING.items() if key.startswith("model.")}
TINY_TASK = {"epochs": "1", "task.train_examples": "64", "task.dev_examples": "40"}


class Job(NamedTuple):
    """A command of the package; its last line on standard output is what it found. `task` and
    `variant` name a cell, `updates` those of the pre-training that it needs."""

    name: str
    words: list[str]
    task: str = ""
    variant: str = ""
    updates: int = 0
    seed: str = ""

    @property
    def folder(self) -> Path:
        return WORK / self.name.replace(" ", "-")


def pretraining() -> Job:
    """Of the paper's sizes, on the novels."""
    settings = {"data.path": str(PACKED / "tokens"), **PRETRAINING, **ONCE}
    settings |= TINY_PRETRAINING if TINY else {}
    job = Job("pretraining", ["train", "--config=configs/pretrain.py", *_flags(settings)])
    job.words.append(f"--workdir={job.folder}")
    return job


def cell(task: str, variant: str, seed: str, updates: int = 0) -> Job:
    """Fine-tuning by the paper's recipe, of the weights after so many updates of pre-training."""
    name = f"{task} {variant} {seed}" + (f" {updates}" if updates else "")
    settings = {"data.buckets": str(TASKS[task]), "seed": seed, **FINE_TUNING, **ONCE}
    if task in TRAIN_EXAMPLES:
        settings["task.train_examples"] = str(TRAIN_EXAMPLES[task])
    if updates:
        settings["initial"] = str(pretraining().folder)
    else:
        settings["data.path"] = str(PACKED / "tokens")  # whose tokenizer it takes
    if TINY:
        settings |= TINY_TASK if updates else TINY_TASK | TINY_MODEL
    config = f"--config=configs/finetune.py:{task},path={PACKED / 'tasks' / task}"
    job = Job(name, ["train", config, "--quiet", *_flags(settings)], task, variant, updates, seed)
    job.words.append(f"--workdir={job.folder}")
    return job


def sample(updates: int) -> Job:
    length = f"--length={20 if TINY else 80}"
    words = "--prompt=The old man", length, "--num_samples=3", "--top_k=40", "--seed=0"
    words = ["sample", f"--workdir={pretraining().folder}", *words]
    return Job(f"sample {updates}", words)


def _flags(settings: dict[str, str]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


class Running:
    """A job at work. Its standard output is kept in a file, as a pipe might fill up."""

    def __init__(self, job: Job, log):
        self.job, self.began = job, time.monotonic()
        self.stopped = False
        self._output = job.folder.with_suffix(".out")
        with self._output.open("w") as stream:
            command = [sys.executable, "-m", "gpt1_jax", *job.words]
            self.process = subprocess.Popen(command, stdout=stream, stderr=log)

    def stop(self) -> None:
        if not self.stopped:
            self.process.terminate()
        self.stopped = True

    def found(self) -> dict | None:
        """What it printed last; None if it failed or was stopped."""
        lines = self._output.read_text().splitlines()
        return json.loads(lines[-1]) if self.process.returncode == 0 and lines else None


class Study:
    """Which rows are there, what is at work, and what is next."""

    def __init__(self, results: Path, log):
        self.began = time.monotonic()
        self.results, self.log = results, log
        self.rows = WORK / "study.jsonl"
        lines = self.rows.read_text().splitlines() if self.rows.exists() else []
        self.done = {json.loads(line)["row"] for line in lines}
        self.running: list[Running] = []
        self.tried: set[str] = set()
        self.updates = 0  # of the pre-training, once it has ended or was stopped
        self.rules = json.loads((PACKED / "rules.json").read_text())
        self.first = pretraining()
        self.failed = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def run(self) -> int:
        """Until all rows are there or the time is up. Returns the exit status."""
        first = Running(self.first, self.log)
        self.running.append(first)
        try:
            while self.running and not self.failed and self.seconds < LIMIT:
                time.sleep(0.2)
                for running in [r for r in self.running if r.process.poll() is not None]:
                    self.running.remove(running)
                    self.finished(running)
                if self.seconds > LIMIT - FOR_CELLS:
                    first.stop()
                self.begin(first)
                self.copy()
        finally:
            for running in self.running:
                running.process.kill()
                running.process.wait()
                self.say(f"{running.job.name}: ended before it was done")
        self.copy()
        complete = self.updates == STEPS and all(job.name in self.done for job in self.jobs())
        return 1 if self.failed else 0 if complete else 75

    def jobs(self) -> Iterator[Job]:
        """The cells in their order, those with pre-training as soon as there is one."""
        for seed in SEEDS:
            if self.updates:
                yield from (cell(task, "with", seed, self.updates) for task in CHOSEN)
            yield from (cell(task, "without", seed) for task in CHOSEN)
        if self.updates:
            yield sample(self.updates)

    def begin(self, first: Running) -> None:
        """Begins what there is room and time for. Nothing runs beside the compilation of the
        pre-training, which times its kernels to choose among them."""
        if self.failed or (first in self.running and not _lines(self.metrics)):
            return
        room = int(os.environ.get("AT_ONCE", "2")) + 1 - len(self.running)
        for job in self.jobs():
            if room < 1 or self.seconds > LIMIT - LEAST:
                return
            if job.name in self.done | self.tried:
                continue
            self.tried.add(job.name)
            self.running.append(Running(job, self.log))
            room -= 1

    def finished(self, running: Running) -> None:
        """Writes the row of a job that has ended."""
        job, found, status = running.job, running.found(), running.process.returncode
        seconds = time.monotonic() - running.began
        self.say(f"{job.name}: status {status} after {seconds:.0f} s")
        if job is self.first:
            steps = [int(path.name) for path in (job.folder / "checkpoints").glob("[0-9]*")]
            self.updates = max(steps, default=0)
            self.failed = status not in (0, 75) or not self.updates
            if not self.failed:
                self.write(f"pretraining {self.updates}", seconds, self.pretrained(found))
        elif found:
            row = self.cell_row(job, found) if job.task else {"samples": found}
            self.write(job.name, seconds, row)
            shutil.rmtree(job.folder, ignore_errors=True)  # 1.4 GB

    def write(self, name: str, seconds: float, row: dict) -> None:
        if name in self.done:
            return
        self.done.add(name)
        row = {"row": name, "seconds": round(seconds, 1), "date": time.strftime("%Y-%m-%d"), **row}
        with self.rows.open("a") as stream:
            stream.write(json.dumps(row) + "\n")

    @property
    def metrics(self) -> Path:
        return self.first.folder / "metrics.jsonl"

    def pretrained(self, found: dict | None) -> dict:
        """How far it came, and what was measured of the held-out novels on the way."""
        config = json.loads((self.first.folder / "config.json").read_text())
        return {
            "updates": self.updates,
            "of": STEPS,
            "tokens": self.updates * config["batch_size"] * config["model"]["n_ctx"],
            "valid": [row for row in _lines(self.metrics) if row["split"] == "valid"],
            "result": found,
        }

    def cell_row(self, job: Job, found: dict) -> dict:
        return {
            "task": job.task,
            "variant": job.variant,
            "seed": job.seed,
            "pretraining_updates": job.updates,
            "score": found["best"]["score"],
            "rules": self.rules[job.task],
            "updates": found["step"],
            "result": found,
        }

    def copy(self) -> None:
        """What there is, to where it is kept."""
        for path, name in ((self.rows, "study.jsonl"), (self.metrics, "pretraining.jsonl")):
            if path.exists():
                shutil.copyfile(path, self.results / name)

    def say(self, line: str) -> None:
        print(f"{self.seconds:5.0f} s  {line}", file=sys.stderr, flush=True)


def rules(task: str) -> dict:
    """What those score that cannot read, on the labels of a cell, by its metric. They need no GPU,
    so they are packed."""
    from gpt1_jax.data.task_loading import TaskConfig, load_task
    from gpt1_jax.evaluation.baselines import baselines

    path = str(PACKED / "tasks" / task)
    loaded = load_task(TaskConfig(name=task, path=path, train_examples=TRAIN_EXAMPLES.get(task)))
    examples = {split: len(found) for split, found in loaded.splits.items()}
    return {"metric": loaded.task.metric, "examples": examples, **baselines(loaded)}


def _lines(path: Path) -> list[dict]:
    """The whole lines of a file of JSON lines that may be cut off."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def main(results: Path) -> int:
    results.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    with (results / "study.log").open("a") as log:
        return Study(results, log).run()


if __name__ == "__main__":
    if sys.argv[1] == "rules":
        print(json.dumps({task: rules(task) for task in TASKS}))
    else:
        sys.exit(main(Path(sys.argv[2])))
