"""What `reproduce` leaves, with chosen scores: files of runs that nobody trained, in a ledger of
its own making. test_report.py holds their form against that of a real reproduction."""

import csv
import json
from pathlib import Path

import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.experiments.config import Request
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.results import finished_runs, paper, tables
from gpt1_jax.results.report import report

METRICS = {
    "cola": ("classification", "matthews"),
    "sst2": ("classification", "accuracy"),
    "mrpc": ("similarity", "f1"),
    "stsb": ("similarity", "pearson"),
    "qqp": ("similarity", "f1"),
    "rte": ("entailment", "accuracy"),
    "qnli": ("entailment", "accuracy"),
    "wnli": ("entailment", "accuracy"),
    "mnli": ("entailment", "accuracy"),
    "codah": ("multiple_choice", "accuracy"),
}
SEEDS = (0, 1, 2)
RESOLVED = {"tokenizer": "", "task": None, "labels": [], "n_outputs": 0, "total_steps": 6}
# By variant and task, the scores of seeds 0, 1, 2.
SCORES = {
    "full": {
        "cola": (0.10, 0.14, 0.12),
        "mrpc": (0.80, 0.82, 0.81),
        "rte": (0.60, 0.50, 0.55),
        "codah": (0.40, 0.44, 0.42),
    },
    "no_pretraining": {
        "cola": (0.0, 0.01, 0.02),
        "mrpc": (0.80, 0.81, 0.82),
        "rte": (0.51, 0.52, 0.53),
        "codah": (0.25, 0.26, 0.27),
    },
    "lstm": {"cola": (0.2, 0.2, 0.2), "mrpc": (0.7, 0.7, 0.7)},
}


def write_run(folder: Path, task: str | None, seed: int = 0, score: float = 0.5, **config) -> None:
    """config.json, result.json and metrics.jsonl of one run of six updates, the best of them 4."""
    shape, metric = METRICS.get(task, ("classification", "accuracy")) if task else (None, None)
    whole = {
        "seed": seed,
        "n_transfer": None,
        "objective": {"lm_coef": 0.5},
        "model": {"body": "transformer", "n_layer": 4},
        "task": {"name": task, "shape": shape, "metric": metric},
        "identity": {"seed": seed},
        "resolved": RESOLVED,
        **config,
    }
    result = {"step": 6, "metrics": {}, "command": f"gpt1 train --config.seed={seed}"}
    rows = [
        {"step": step, "split": "train", "loss": 3.0 - step / 4 + seed / 10, "task_loss": 1 / step}
        for step in range(1, 7)
    ]
    if task:
        result["best"] = {"step": 4, "score": score}
        rows += [
            {"step": 2, "split": "dev", "loss": 1.8, metric: 0.01, "accuracy": 0.01},
            {"step": 2, "split": "train_examples", metric: 0.02},
            {"step": 4, "split": "dev", "loss": 1.5, metric: score, "accuracy": score},
            {"step": 6, "split": "dev", "loss": 1.6, metric: score / 2},
            {"step": 4, "split": "train_examples", metric: score + 0.1},
        ]
    else:
        rows.append({"step": 6, "split": "valid", "loss": 1.9})
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write(root: Path, scores: dict = SCORES, **changes) -> Path:
    """A folder with reproduction.json, runs of tables and of both figures, and its two bodies."""
    entries = []

    def add(folder: str, variant: str, task: str, seed: int, score: float, **place) -> None:
        body = "lstm" if variant == "lstm" else "transformer"
        transfer = -1 if variant == "no_pretraining" else place.get("n_transfer")
        model = {"body": body, "n_layer": 2}
        write_run(root / folder, task, seed, score, n_transfer=transfer, model=model)
        place = {"n_transfer": None, "figure": None, **place}
        found = {"folder": folder, "value": score, "further": {}}
        entries.append({"variant": variant, "task": task, "seed": seed, **found, **place})

    for variant, row in scores.items():
        for task, values in row.items():
            for seed, value in zip(SEEDS, values, strict=False):
                add(f"finetuned/{variant}/{task}-{seed}", variant, task, seed, value)
    for task in ("rte", "mrpc"):
        for blocks in range(3):
            folder = f"finetuned/transfer_{blocks}/{task}-0"
            add(folder, "full", task, 0, 0.5 + blocks / 10, n_transfer=blocks, figure="2left")
    for body in ("transformer", "lstm"):
        write_run(root / "pretrained" / body, None)
    ledger = Ledger(Request(table=5, workdir=str(root), scale="small", seeds=SEEDS))
    ledger.add_absent("full", "qqp", None, "its files are not here")
    ledger.add_absent("full", "sst2", None, "no folder")
    ledger.content |= {
        "runs": entries,
        "pretraining": {body: [f"pretrained/{body}"] for body in ("transformer", "lstm")},
        "baselines": {
            "cola": baseline("matthews", 0.0, 0.0, 0.05),
            "rte": {**baseline("accuracy", 0.5, 0.527, 0.56), "hypothesis_only": 0.54},
        },
        "probes": [
            {"body": body, "step": step, "probe": "sentiment", "task": "sst2", "n": 100}
            | {"metric": "accuracy", "value": 0.5 + step / 10_000 + (body == "lstm") / 100}
            | {"commonest": 1.0 - step / 2000}
            for body in ("transformer", "lstm")
            for step in (0, 10, 100, 1000)
        ],
        "anchors": {"sentiment": {"random": 50.0, "best": 90.0}},
        **changes,
    }
    ledger.save()
    return root


def baseline(metric: str, chance: float, majority: float, bag_of_words: float) -> dict:
    return {
        "split": "dev",
        "metric": metric,
        "chance": chance,
        "majority": majority,
        "bag_of_words": bag_of_words,
        "examples": {"train": 1000, "dev": 200},
    }


# What a report makes of it


INDEX = paper.read_paper()
SMALL = Path(__file__).resolve().parents[1] / "results" / "small"


def entries(folder):
    grids = tables.grids(INDEX, finished_runs.read_runs(folder))
    return {entry.name: entry for grid in grids for entry in grid.entries}


def grid(folder, name):
    (found,) = (
        one for one in tables.grids(INDEX, finished_runs.read_runs(folder)) if one.name == name
    )
    return found


def read_csv(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def every_task_once(value=0.5):
    """One seed of all eight columns of table 5, for two rows."""
    tasks = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
    return {variant: dict.fromkeys(tasks, (value,)) for variant in ("full", "no_aux_lm")}


def refused(runs, output) -> str:
    with pytest.raises(UserError) as error:
        report(runs, output)
    assert "\n" not in str(error.value)
    return str(error.value)
