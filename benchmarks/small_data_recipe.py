"""What to fine-tune a small model with, where there are some hundred labels.

    gpt1 prepare --output=tokens --input 'books/train/*' --valid 'books/valid/*' --vocab_size=8192
    gpt1 train --config=configs/pretrain.py:tiny --workdir=runs/tiny --config.data.path=tokens
    python benchmarks/small_data_recipe.py choose TASKS runs/tiny RUNS RESULT.json
    python benchmarks/small_data_recipe.py report TASKS runs/tiny RUNS RESULT.json

TASKS: a folder with a folder of each task, train and dev as .jsonl.xz. RUNS: where the runs are
kept; the same command again does what is missing. RESULT.json: what was measured is added to it.

Every task is cut into folders of their own, by one shuffle of its train split at a fixed seed:

    train   the first 300 or 1,000 of the shuffled rows; 300 is a part of 1,000
    dev     200 rows behind them, as a user would have them: the epoch is chosen on it
    test    `choose`: 600 further rows of the original train; `report`: the original dev

so recipes are compared on rows that are never reported, and reported on rows that chose nothing.
Each recipe is trained by `gpt1 train` and measured by `gpt1 evaluate --split=test`.
"""

import contextlib
import io
import json
import lzma
import os
import platform
import random
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from gpt1_jax.__main__ import main as gpt1
from gpt1_jax.data.task_loading import TaskConfig, load
from gpt1_jax.evaluation.baselines import baselines

SHUFFLE = 0
N_DEV, N_TEST = 200, 600
LARGEST = 1000

# Shape and metric; the first three are those that `choose` compares on.
TASKS = {
    "sst2": ("classification", "accuracy"),
    "snli_small": ("entailment", "accuracy"),
    "mrpc": ("similarity", "accuracy"),
    "cola": ("classification", "matthews"),
    "comve_validation": ("multiple_choice", "accuracy"),
    "rte": ("entailment", "accuracy"),
}
CHOOSING = ("sst2", "snli_small", "mrpc")

# The argument of configs/finetune.py, and keys set beside it.
RECIPES = {
    "default": ("", {}),
    # Its caps on rows are those of `reproduce`, and would hide rows from it that the others have.
    "small": ("small", {"task.train_examples": None, "task.dev_examples": None}),
    "small_data": ("small_data", {}),
}


def candidate(**changes) -> tuple[str, dict]:
    """A recipe to choose from: the middle of the search, with changes."""
    middle = {
        "epochs": 20,
        "batch_size": 16,
        "objective.lm_coef": 0.0,
        "optimizer.learning_rate": 1e-3,
        "optimizer.warmup": 0.1,
    }
    return "", middle | {key.replace("__", "."): value for key, value in changes.items()}


CANDIDATES = {
    "middle": candidate(),
    "rate 3e-4": candidate(optimizer__learning_rate=3e-4),
    "rate 3e-3": candidate(optimizer__learning_rate=3e-3),
    "lm_coef 0.5": candidate(objective__lm_coef=0.5),
    "batch 8": candidate(batch_size=8),
    "10 epochs": candidate(epochs=10),
    "40 epochs": candidate(epochs=40),
    "dropout 0.2": candidate(model__dropout=0.2),
}


def main(phase: str, data: Path, initial: Path, runs: Path, result: Path) -> None:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    model = initial.resolve().name
    if phase == "choose":
        plan = [
            (recipe, task, rows, seed)
            for recipe in CANDIDATES
            for rows in (300,)
            for task in CHOOSING
            for seed in (0,)
        ]
    else:
        plan = [
            (recipe, task, rows, seed)
            for rows in (300, LARGEST)
            for task in TASKS
            for recipe in RECIPES
            for seed in (0, 1, 2)
        ]
    cells: dict[tuple, list[dict]] = {}
    for recipe, task, rows, seed in plan:
        folder = cut(data / task, runs / "tasks" / phase / f"{task}-{rows}", rows, phase)
        workdir = runs / phase / model / recipe.replace(" ", "_") / f"{task}-{rows}" / str(seed)
        found = run(recipe, task, folder, initial, workdir, seed)
        cells.setdefault((recipe, task, rows), []).append(found)
        say(f"{model}, {recipe}, {task}, {rows} rows, seed {seed}: {found}")
    write(result, phase, model, initial, cells, runs)


def cut(source: Path, folder: Path, n_train: int, phase: str) -> Path:
    """The folder with train, dev and test, made if it is not there."""
    if folder.exists():
        return folder
    train = lines(source / "train.jsonl.xz")
    random.Random(SHUFFLE).shuffle(train)
    splits = {"train": train[:n_train], "dev": train[LARGEST : LARGEST + N_DEV]}
    behind = LARGEST + N_DEV
    test = train[behind : behind + N_TEST]
    splits["test"] = test if phase == "choose" else lines(source / "dev.jsonl.xz")
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return folder


def lines(path: Path) -> list[str]:
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def run(recipe: str, task: str, folder: Path, initial: Path, workdir: Path, seed: int) -> dict:
    """Trains and measures: the score on test, how often the commonest answer was given there, the
    number of updates, the one that was kept, and the seconds of training."""
    saved = workdir / "found.json"
    if saved.exists():
        return json.loads(saved.read_text())
    argument, keys = (RECIPES | CANDIDATES)[recipe]
    shape, metric = TASKS[task]
    described = f"path={folder},shape={shape},metric={metric}"
    keys = {"seed": seed, "checkpoint.keep": 1, "log.tensorboard": False} | keys
    trained = verb(
        "train",
        f"--config=configs/finetune.py:{','.join(filter(None, (argument, described)))}",
        f"--workdir={workdir}",
        f"--initial={initial}",
        "--quiet",
        *(f"--config.{key}={value}" for key, value in keys.items()),
    )
    measured = verb("evaluate", f"--workdir={workdir}", "--split=test")
    labels = workdir / "labels.jsonl"
    verb("predict", f"--workdir={workdir}", f"--input={folder}/test.jsonl", f"--output={labels}")
    answers = [json.loads(line)["label"] for line in labels.read_text().splitlines()]
    found = {
        "score": round(measured["metrics"]["test"][metric], 4),
        "commonest_answer": round(max(Counter(answers).values()) / len(answers), 3),
        "updates": trained["step"],
        "kept": measured["step"],
        "seconds": round(trained["seconds"], 1),
    }
    saved.write_text(json.dumps(found))
    return found


def verb(*words: str) -> dict:
    """The last line that the verb printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = gpt1(list(words))
    if status != 0:
        raise SystemExit(status)
    return json.loads(printed.getvalue().splitlines()[-1])


def write(path: Path, phase: str, model: str, initial: Path, cells: dict, runs: Path) -> None:
    """Adds to the file what was measured, and prints it as a table."""
    rows = []
    for (recipe, task, n_rows), found in cells.items():
        scores = [one["score"] for one in found]
        row = {"recipe": recipe, "task": task, "rows": n_rows, "metric": TASKS[task][1]}
        row |= {"mean": round(statistics.mean(scores), 4), "scores": scores}
        row |= {key: [one[key] for one in found] for key in found[0] if key != "score"}
        rows.append(row)
    references = {}
    for task, n_rows in dict.fromkeys((row["task"], row["rows"]) for row in rows):
        folder = runs / "tasks" / phase / f"{task}-{n_rows}"
        references[f"{task}-{n_rows}"] = without_reading(folder, *TASKS[task])
    pretrained = json.loads((initial / "result.json").read_text())
    measured = {
        "phase": phase,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": pretrained["versions"],
        "model": model,
        "pretraining": {"updates": pretrained["step"], **pretrained["metrics"]["valid"]},
        "recipes": {name: (RECIPES | CANDIDATES)[name] for name in {row["recipe"] for row in rows}},
        "references": references,
        "rows": rows,
    }
    before = json.loads(path.read_text()) if path.exists() else []
    others = [one for one in before if (one["phase"], one["model"]) != (phase, model)]
    path.write_text(json.dumps([*others, measured], indent=1) + "\n")


def without_reading(folder: Path, shape: str, metric: str) -> dict[str, float]:
    """Chance, majority and a bag of words on test, learned from the same train."""
    task = load(TaskConfig(path=str(folder), shape=shape, metric=metric))
    return {name: round(score, 4) for name, score in baselines(task, "test").items()}


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
