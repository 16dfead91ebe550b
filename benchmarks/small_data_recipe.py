r"""What to fine-tune a small model with, where there are some hundred labels.

    gpt1 prepare --output=tokens --input 'books/train/*' --valid 'books/valid/*' --vocab_size=8192
    gpt1 train --config=configs/pretrain.py:tiny,steps=2000 --workdir=runs/tiny2000 \
        --config.data.path=tokens
    python benchmarks/small_data_recipe.py choose --seeds=0 --tasks=sst2,snli_small --data=TASKS \
        --initial=runs/tiny2000 --runs=RUNS --result=benchmarks/results/small_data.json
    python benchmarks/small_data_recipe.py report --data=TASKS \
        --initial=runs/tiny2000 --runs=RUNS --result=benchmarks/results/small_data.json

TASKS is a folder with a folder of each task, train and dev as .jsonl.xz. The same command again
does what is missing in RUNS.

Every task is cut into folders of their own, by one shuffle of its train split at a fixed seed:

    train   the first 300 or 1,000 of the shuffled rows; 300 is a part of 1,000
    dev     200 rows behind them, as a user would have them: the epoch is chosen on it
    test    `choose`: 600 further rows of the original train; `report`: the original dev

so recipes are compared on rows that are never reported, and reported on rows that chose nothing.
Each recipe is trained by `gpt1 train` and measured by `gpt1 evaluate --split=test`.
"""

import argparse
import contextlib
import io
import itertools
import json
import lzma
import os
import platform
import random
import runpy
import statistics
import sys
import time
from collections import Counter
from pathlib import Path

from gpt1_jax.__main__ import main as gpt1
from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.evaluation.baselines import baselines

SHUFFLE = 0
N_DEV, N_TEST = 200, 600
LARGEST = 1000

# Shape and metric.
TASKS = {
    "sst2": ("classification", "accuracy"),
    "snli_small": ("entailment", "accuracy"),
    "mrpc": ("similarity", "accuracy"),
    "cola": ("classification", "matthews"),
    "comve_validation": ("multiple_choice", "accuracy"),
    "rte": ("entailment", "accuracy"),
}

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
    "10 epochs": candidate(epochs=10),
    "10 epochs, rate 3e-3": candidate(epochs=10, optimizer__learning_rate=3e-3),
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("phase", choices=("choose", "report"))
    parser.add_argument("--data", type=Path, required=True, help="a folder of each task's files")
    parser.add_argument("--initial", type=Path, required=True, help="a pre-trained workdir")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--result", type=Path, required=True, help="the JSON file to add to")
    parser.add_argument("--tasks", default="sst2,snli_small,mrpc", help="default: %(default)s")
    parser.add_argument("--recipes", help="of `report`, with commas; default: all")
    parser.add_argument("--rows", default="300", help="at most 1000; default: %(default)s")
    parser.add_argument("--seeds", default="0,1,2", help="default: %(default)s")
    flags = parser.parse_args(words)
    recipes = flags.recipes.split(",") if flags.recipes else RECIPES
    if flags.phase == "choose":
        recipes = CANDIDATES
    cells: dict[tuple, list[dict]] = {}
    for recipe, task, rows, seed in itertools.product(
        recipes,
        flags.tasks.split(","),
        map(int, flags.rows.split(",")),
        map(int, flags.seeds.split(",")),
    ):
        folder = cut(flags.data / task, flags.runs / "tasks" / flags.phase, task, rows)
        name = recipe.replace(", ", "-").replace(" ", "_")
        workdir = flags.runs / flags.phase / flags.initial.resolve().name / name
        found = run(recipe, task, folder, flags.initial, workdir / folder.name / str(seed), seed)
        cells.setdefault((recipe, task, rows), []).append(found)
        print(f"{recipe}, {task}, {rows} rows, seed {seed}: {found}", file=sys.stderr, flush=True)
    write(flags, cells)


def cut(source: Path, folder: Path, task: str, n_train: int) -> Path:
    """The folder of a task with train, dev and test, made if it is not there; `folder` is named
    after the phase."""
    cut_folder = folder / f"{task}-{n_train}"
    if cut_folder.exists():
        return cut_folder
    train = lines(source / "train.jsonl.xz")
    random.Random(SHUFFLE).shuffle(train)
    behind = LARGEST + N_DEV
    splits = {
        "train": train[:n_train],
        "dev": train[LARGEST:behind],
        "test": train[behind : behind + N_TEST],
    }
    if folder.name == "report":
        splits["test"] = lines(source / "dev.jsonl.xz")
    cut_folder.mkdir(parents=True)
    for split, rows in splits.items():
        (cut_folder / f"{split}.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return cut_folder


def lines(path: Path) -> list[str]:
    opener = lzma.open if path.suffix == ".xz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return stream.read().splitlines()


def run(recipe: str, task: str, folder: Path, initial: Path, workdir: Path, seed: int) -> dict:
    """Trains and measures: the score on test, the number of updates, the one whose parameters were
    kept, and the seconds of training; of a recipe also how often its commonest answer was given."""
    saved = workdir / "found.json"
    if saved.exists():
        return json.loads(saved.read_text())
    argument, keys = (RECIPES | CANDIDATES)[recipe]
    shape, metric = TASKS[task]
    task_arguments = f"path={folder},shape={shape},metric={metric}"
    keys = {"seed": seed, "checkpoint.keep": 1, "log.tensorboard": False} | keys
    trained = verb(
        "train",
        f"--config=configs/finetune.py:{','.join(filter(None, (argument, task_arguments)))}",
        f"--workdir={workdir}",
        f"--initial={initial}",
        "--quiet",
        *(f"--config.{key}={value}" for key, value in keys.items()),
    )
    measured = verb("evaluate", f"--workdir={workdir}", "--split=test")
    found = {
        "score": round(measured["metrics"]["test"][metric], 4),
        "updates": trained["step"],
        "kept": measured["step"],
        "seconds": round(trained["seconds"], 1),
    }
    if recipe in RECIPES:
        found["commonest_answer"] = commonest_answer(workdir, folder / "test.jsonl")
    saved.write_text(json.dumps(found))
    return found


def commonest_answer(workdir: Path, rows: Path) -> float:
    """How often the model says what it says most: 1 of a constant classifier."""
    output = workdir / "labels.jsonl"
    verb("predict", f"--workdir={workdir}", f"--input={rows}", f"--output={output}")
    answers = Counter(json.loads(line)["label"] for line in lines(output))
    return round(max(answers.values()) / answers.total(), 3)


def verb(*words: str) -> dict:
    """The last line that the verb printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = gpt1(list(words))
    if status != 0:
        raise SystemExit(status)
    return json.loads(printed.getvalue().splitlines()[-1])


def write(flags: argparse.Namespace, cells: dict[tuple, list[dict]]) -> None:
    """Adds to the file what was measured, in place of the same phase of the same model."""
    rows = []
    for (recipe, task, n_rows), found in cells.items():
        scores = [one["score"] for one in found]
        row = {"recipe": recipe, "task": task, "rows": n_rows, "metric": TASKS[task][1]}
        row |= {"mean": round(statistics.mean(scores), 4), "scores": scores}
        rows.append(row | {key: [one[key] for one in found] for key in found[0] if key != "score"})
    folders = {f"{row['task']}-{row['rows']}": row["task"] for row in rows}
    pretrained = json.loads((flags.initial / "result.json").read_text())
    measured = {
        "phase": flags.phase,
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": pretrained["versions"],
        "model": flags.initial.resolve().name,
        "pretraining": {"updates": pretrained["step"], **pretrained["metrics"]["valid"]},
        "seeds": [int(seed) for seed in flags.seeds.split(",")],
        "recipes": {row["recipe"]: described(row["recipe"]) for row in rows},
        "references": {
            name: without_reading(flags.runs / "tasks" / flags.phase / name, *TASKS[task])
            for name, task in folders.items()
        },
        "rows": rows,
    }
    before = json.loads(flags.result.read_text()) if flags.result.exists() else []
    key = measured["phase"], measured["model"]
    others = [one for one in before if (one["phase"], one["model"]) != key]
    flags.result.write_text(json.dumps([*others, measured], indent=1) + "\n")
    print(table(measured))


def table(measured: dict) -> str:
    """Markdown: means and standard deviations over seeds, in percent, below what does not read; in
    brackets how often the commonest answer was given, in the seed in which it was most often."""
    columns = list(dict.fromkeys((row["task"], row["rows"]) for row in measured["rows"]))
    cells = {(row["recipe"], row["task"], row["rows"]): row for row in measured["rows"]}
    lines = [["", *(f"{task}, {n_rows} rows" for task, n_rows in columns)]]
    lines.append(["---"] * len(lines[0]))
    for name in ("majority", "bag_of_words"):
        scores = (measured["references"][f"{task}-{n_rows}"][name] for task, n_rows in columns)
        lines.append([name.replace("_", " "), *(f"{100 * score:.1f}" for score in scores)])
    lines += [
        [recipe, *(shown(cells[recipe, *column]) for column in columns)]
        for recipe in measured["recipes"]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(row: dict) -> str:
    scores = [100 * score for score in row["scores"]]
    spread = f" ±{statistics.stdev(scores):.1f}" if len(scores) > 1 else ""
    most = f" ({max(row['commonest_answer']):.0%})" if "commonest_answer" in row else ""
    return f"{statistics.mean(scores):.1f}{spread}{most}"


def described(recipe: str) -> dict:
    """What configs/finetune.py sets in a recipe, and the keys set beside it."""
    argument, keys = (RECIPES | CANDIDATES)[recipe]
    get_config = runpy.run_path("configs/finetune.py")["get_config"]
    return {"config": get_config(argument).to_dict(), "keys": keys}


def without_reading(folder: Path, shape: str, metric: str) -> dict[str, float]:
    """Chance, majority and a bag of words on test, learned from the same train."""
    task = load_task(TaskConfig(path=str(folder), shape=shape, metric=metric))
    return {name: round(score, 4) for name, score in baselines(task, "test").items()}


if __name__ == "__main__":
    main()
