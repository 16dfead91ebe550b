"""The small scale of the paper's tables on a GPU that is lent for minutes: what it is set to, and
the tables themselves.

    benchmarks/small_scale.sh pack DATA          where there is a network
    benchmarks/small_scale.sh search [RESULTS]   on the machine with the GPU
    benchmarks/small_scale.sh run [RESULTS]

`search` pre-trains both bodies at several rates, and keeps the one with the least loss on held-out
novels; then it fine-tunes the Transformer's at several rates, epochs and weights of the auxiliary
loss. For that each task is divided anew: a part of what is for training is held out, and the dev
set of the tables is never looked at. search.jsonl has a row for each run.

`run` makes table 5 and the curves by labels and by tokens, by `gpt1 reproduce`, as far as the time
goes, and packs what a report is made of: config.json, result.json, metrics.jsonl,
reproduction.json. Environment:

    LIMIT     seconds after which nothing more is begun, and what runs is stopped; by default 420
    AT_ONCE   runs at a time, by default 10
    STEPS     updates of pre-training in a search, by default 2000
    SIZES     keys of pre-training, as in "model.n_layer=6 model.n_embd=256"
    KEYS      keys for `run`, as they were found
    TASKS     which, by default all that are carried
    TINY      any value: tiny sizes, to see that all of it works
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BEGAN = time.monotonic()
LIMIT = float(os.environ.get("LIMIT", "420"))
AT_ONCE = int(os.environ.get("AT_ONCE", "10"))
WORK = Path(os.environ.get("WORK", "runs/small_scale"))
CARRIED = WORK / "carried"
TINY = "TINY" in os.environ
HELD_OUT = 1000  # examples at most, of each task's train
BODIES = {"transformer": "configs/pretrain.py:small", "lstm": "configs/pretrain.py:small,lstm"}
RATES = ("5e-4", "1e-3", "2e-3", "4e-3")
FINE_TUNED = ("sst2", "cola", "snli_small", "mrpc")
RECIPES = list(itertools.product(("3e-4", "1e-3"), ("3", "6"), ("0.0", "0.5")))
TINY_SIZES = "steps=2 batch_size=4 model.n_layer=1 model.n_embd=16 model.n_head=2 model.n_ctx=32"
REPORTED = ("config.json", "result.json", "metrics.jsonl", "reproduction.json")


def main(what: str, results: Path) -> int:
    if what == "search":
        return search(results / "search.jsonl")
    return run(results / "runs.tar.gz")


def divide(tasks: Path, output: Path) -> None:
    """Each task with a part of its train as dev, and without its own dev."""
    from gpt1_jax.files.text_lines import text_lines

    for folder in sorted(tasks.iterdir()):
        (path,) = folder.glob("train.jsonl*")
        lines = [line.rstrip("\n") for _, line in text_lines(path)]
        held_out = min(HELD_OUT, len(lines) // 5)
        for split, part in (("dev", lines[:held_out]), ("train", lines[held_out:])):
            place = output / folder.name / f"{split}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("".join(f"{line}\n" for line in part))


def search(path: Path) -> int:
    """Pre-training, then fine-tuning of the best Transformer."""
    steps = {"steps": "2" if TINY else os.environ.get("STEPS", "2000"), **_keys("SIZES")}
    jobs = {}
    for (body, config), rate in itertools.product(BODIES.items(), RATES[:2] if TINY else RATES):
        settings = {"data.path": str(CARRIED / "tokens"), "optimizer.learning_rate": rate, **steps}
        jobs[f"{body} {rate}"] = [f"--config={config}", *_flags(settings)]
    rows = _trained(jobs, path)
    losses = {row["name"]: row["result"]["metrics"]["valid"]["loss"] for row in rows}
    best = min((name for name in losses if name.startswith("transformer")), key=losses.__getitem__)
    jobs = {}
    for task, (rate, epochs, lm_coef) in itertools.product(_tasks(FINE_TUNED), RECIPES):
        settings = {"optimizer.learning_rate": rate, "epochs": epochs, "objective.lm_coef": lm_coef}
        settings |= {"initial": str(_folder(best))}
        settings |= {"task.train_examples": "16", "batch_size": "4"} if TINY else {}
        config = f"--config=configs/finetune.py:small,{task},path={CARRIED / 'divided' / task}"
        jobs[f"{task} {rate} {epochs} {lm_coef}"] = [config, *_flags(settings)]
    rows += _trained(jobs, path)
    return 0 if len(rows) == len(BODIES) * len(RATES) + len(jobs) or TINY else 75


def run(path: Path) -> int:
    """The table and the curves, as far as the time goes."""
    work = WORK / "study"
    status = 0
    for asked in ("--table=5", "--figure=labels", "--figure=tokens"):
        words = [asked, "--scale=small", f"--workdir={work}", f"--workers={AT_ONCE}"]
        words += [f"--data={CARRIED / 'tokens'}", f"--task_data={CARRIED / 'tasks'}"]
        words += [f"--tasks={','.join(_tasks(p.name for p in (CARRIED / 'tasks').iterdir()))}"]
        words += ["--seeds=0"] if TINY else []
        status = _within_time(["reproduce", *words, *_flags(_keys("KEYS"))]) or status
    with tarfile.open(path, "w:gz") as archive:
        for name in REPORTED:
            for found in sorted(work.rglob(name)):
                archive.add(found, found.relative_to(work))
    return status


def _trained(jobs: dict[str, list[str]], path: Path) -> list[dict]:
    """Rows of the trainings that ended in time, each written as it is there."""

    def train(name: str) -> dict | None:
        words = ["train", *jobs[name], "--quiet", f"--workdir={_folder(name)}"]
        began = time.monotonic()
        if _within_time(words) != 0:
            return None
        result = json.loads((_folder(name) / "result.json").read_text())
        row = {"name": name, "seconds": time.monotonic() - began, "result": result}
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        return row

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [row for row in pool.map(train, jobs) if row]


def _within_time(words: list[str]) -> int:
    """The exit status of a verb, which is stopped by a signal when the time is over."""
    left = LIMIT - (time.monotonic() - BEGAN)
    if left < 1:
        return 75
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt1_jax", *words], stdout=subprocess.DEVNULL
    )
    try:
        return process.wait(left)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
        return process.wait()


def _folder(name: str) -> Path:
    return WORK / "search" / name.replace(" ", "_")


def _keys(variable: str) -> dict[str, str]:
    given = TINY_SIZES if TINY else os.environ.get(variable, "")
    return dict(pair.split("=", 1) for pair in given.split())


def _tasks(names: Iterable[str]) -> list[str]:
    chosen = os.environ.get("TASKS", "").split(",")
    return [name for name in sorted(names) if chosen == [""] or name in chosen]


def _flags(settings: dict[str, str]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


if __name__ == "__main__":
    if sys.argv[1] == "divide":
        divide(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1], Path(sys.argv[2])))
