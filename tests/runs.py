"""Whole runs small enough for a test: tokens, task folders, experiments that train in a second.

Every experiment here has the same sizes where a test does not ask for others, because the update is
compiled once per process for each network, optimiser and number of steps.
"""

import contextlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from gpt1_jax.__main__ import main
from gpt1_jax.recipe import experiment
from gpt1_jax.run_files import read_rows
from gpt1_jax.text import corpus
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.training.train import train
from gpt1_jax.weights.checkpoint import Checkpoints

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("the", "a", "cat", "dog", "sat", "on", "mat", "ran", "to", "hill", "and", "saw", "fell")

# Dropout is on, as by default. Steps 3 and 6 are evaluated, 2, 4 and 6 saved.
PRETRAINING = {
    "steps": 6,
    "batch_size": 8,
    "model.n_layer": 1,
    "model.n_embd": 16,
    "model.n_head": 2,
    "model.n_ctx": 16,
    "model.init_std": 0.1,
    "optimizer.learning_rate": 1e-2,
    "optimizer.warmup": 0.1,
    "objective.lm_coef": 1.0,
    "eval.every": 3,
    "eval.batch_size": 8,
    "eval.windows": 8,
    "checkpoint.every": 2,
    "log.every": 1,
    "log.tensorboard": False,
    "mesh.data": 1,
}
# Batches of one padded length, 16; a bucket that is never needed.
FINE_TUNING = {
    "steps": 6,
    "batch_size": 8,
    "data.buckets": (8,),
    "optimizer.learning_rate": 1e-2,
    "optimizer.schedule": "warmup_linear",
    "eval.every": 3,
    "eval.batch_size": 8,
    "checkpoint.every": 2,
    "log.every": 1,
    "log.tensorboard": False,
    "mesh.data": 1,
}
METRIC = {
    "classification": "accuracy",
    "entailment": "matthews",
    "similarity": "f1",
    "multiple_choice": "accuracy",
}


def sentence(draw: random.Random, n_words: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(n_words))


def write_documents(folder: Path, count: int = 6, n_words: int = 400, seed: int = 0) -> str:
    """Text files; returns the glob of them."""
    draw = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.txt").write_text(sentence(draw, n_words))
    return str(folder / "*.txt")


def prepare(folder: Path, glob: str, **settings) -> Path:
    """Tokens in `folder`."""
    settings = {"workers": 1} | settings
    if "vocab" not in settings:
        settings["vocab_size"] = settings.get("vocab_size", 300)
    corpus.prepare(PrepareConfig(output=str(folder), inputs=(glob,), **settings))
    return folder


def pretraining(tokens: Path, **changes) -> dict:
    return {**PRETRAINING, "data.path": str(tokens), **changes}


def fine_tuning(initial: Path, task: Path, shape: str, metric: str | None = None, **changes):
    chosen = {"task.shape": shape, "task.metric": metric or METRIC[shape]}
    return {**FINE_TUNING, "initial": str(initial), "task.path": str(task), **chosen, **changes}


def run(given: dict, workdir: Path, quiet: bool = True) -> dict:
    """Trains on the experiment of dotted keys, and returns the result."""
    return train(experiment.experiment(given), set(given), workdir, quiet=quiet)


def words(given: dict, workdir: Path) -> list[str]:
    """The command line that trains on `given`, on top of the pre-training config."""
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    return ["train", "--config=configs/pretrain.py", f"--workdir={workdir}", *flags]


class Outcome(NamedTuple):
    """What a verb left: exit status, the object of its last line (None: no such line), and the
    lines that it said."""

    status: int
    result: dict | None
    said: list[str]


def verb(*words) -> Outcome:
    """`gpt1 WORDS` in this process."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main([str(word) for word in words])
    printed = output.getvalue().splitlines()
    result = json.loads(printed[-1]) if printed else None
    return Outcome(status, result, errors.getvalue().splitlines())


def refused(words, *named) -> str:
    """The one line that `gpt1 WORDS` ends with, with exit status 2; it has all that is named."""
    outcome = verb(*words)
    assert outcome.status == 2, outcome
    last = outcome.said[-1]
    assert last.startswith("gpt1: "), outcome.said
    assert last.isprintable()
    for name in named:
        assert name in last, last
    return last


def environment(devices: int = 8) -> dict[str, str]:
    """Of a process that has so many CPU devices."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={devices}")
    return {**os.environ, "XLA_FLAGS": " ".join(flags)}


def process(arguments: list[str], devices: int = 8) -> subprocess.Popen:
    """`python -m gpt1_jax ...`"""
    return subprocess.Popen(
        [sys.executable, "-m", "gpt1_jax", *arguments],
        cwd=ROOT,
        env=environment(devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def params(workdir: Path, step: int) -> dict:
    checkpoints = Checkpoints(workdir)
    try:
        return checkpoints.load_params(step)
    finally:
        checkpoints.close()


def rows(workdir: Path) -> list[dict]:
    return read_rows(workdir / "metrics.jsonl")


def assert_same_run(workdir: Path, expected: Path, step: int) -> None:
    """Bit for bit the same parameters at `step`, and the same rows of metrics."""
    assert rows(workdir) == rows(expected)
    found, wanted = params(workdir, step), params(expected, step)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    different = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, leaf), other in zip(
            jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(wanted), strict=True
        )
        if not np.array_equal(leaf, other)
    ]
    assert not different


def assert_close_rows(workdir: Path, expected: Path, tolerance: float = 1e-5) -> None:
    """The same steps and splits, and metrics that differ by rounding at most."""
    found, wanted = rows(workdir), rows(expected)
    assert [(row["step"], row["split"]) for row in found] == [
        (row["step"], row["split"]) for row in wanted
    ]
    for row, other in zip(found, wanted, strict=True):
        for name in ("loss", "lm_loss", "task_loss", "grad_norm"):
            assert (name in row) == (name in other)
            if name in row:
                np.testing.assert_allclose(
                    row[name], other[name], rtol=tolerance, err_msg=f"{row} {other}"
                )


def copied(workdir: Path, target: Path) -> Path:
    """A copy to go on with."""
    return Path(shutil.copytree(workdir, target))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, the empty lock aside."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files if p.name != ".lock"}


def write_jsonl(path: Path, lines: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def write_task(
    folder: Path,
    shape: str,
    score: bool = False,
    n_train: int = 32,
    n_dev: int = 12,
    classes: tuple | None = None,
):
    """A task whose answer is the word sun or rain: train, dev, and test without labels. `classes`:
    what those are called; 0 and 1 in a pair of texts, if no other names are given."""
    draw = random.Random(7)
    for split, count in (("train", n_train), ("dev", n_dev), ("test", 5)):
        made = [_example(draw, shape, number, score, classes) for number in range(count)]
        if split == "test":
            made = [{k: v for k, v in example.items() if k != "label"} for example in made]
        write_jsonl(folder / f"{split}.jsonl", made)
    return folder


def _example(draw: random.Random, shape: str, number: int, score: bool, classes: tuple) -> dict:
    label = number % 2
    weather = ("rain", "sun")
    telling = f"{weather[label]} {sentence(draw, draw.choice([1, 4]))}"
    other = sentence(draw, 2)
    if shape == "classification":
        return {"text": telling, "label": (classes or weather)[label]}
    if shape == "entailment":
        return {"premise": other, "hypothesis": telling, "label": (classes or (0, 1))[label]}
    if shape == "similarity":
        label = number % 6 / 1.25 if score else label
        return {"text_a": telling, "text_b": other, "label": label}
    choices = ["rain fell", "sun fell"] if label else ["sun fell", "rain fell"]
    return {"context": other, "question": "", "choices": choices, "label": label}
