"""Weights in a workdir: what `train` leaves, and what `convert` makes for the other verbs."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from gpt1_jax import disk, run_files
from gpt1_jax.data.tasks import Task
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.run_files import read_config
from gpt1_jax.storage.retention import CheckpointConfig
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization import tokenizer as tokenizers
from gpt1_jax.weights import checkpoint
from gpt1_jax.weights.checkpoint import Checkpoints
from gpt1_jax.weights.weights import Weights, model_of, task_json, task_of


def resolved(tokenizer, task: Task, labels: tuple, n_outputs: int, **others) -> dict:
    """What the section `resolved` of config.json says of a model."""
    return {
        **others,
        "tokenizer": tokenizer.fingerprint,
        "task": task_json(task),
        "labels": list(labels),
        "n_outputs": n_outputs,
    }


def foreign_config(
    model: ModelConfig,
    tokenizer: tokenizers.Tokenizer,
    task: Task,
    labels: tuple,
    n_outputs: int,
    separator: str | None,
    source: str,
) -> dict:
    """config.json of weights that no run here has made: no update, no data. What it leaves out has
    its default for whoever reads it."""
    settings = {"model": dataclasses.asdict(model)}
    if separator is not None:
        settings["data"] = {"separator": separator}
    if task.has_head:
        settings["task"] = {"name": task.name, "shape": task.shape, "metric": task.metric}
    description = resolved(tokenizer, task, labels, n_outputs, total_steps=0, data=None)
    # Through JSON once, so that it compares equal to itself when read back.
    config = json.loads(json.dumps({**settings, "resolved": description, "identity": {}}))
    return _converted(config, source)


def _converted(config: dict, source: str) -> dict:
    """The config of weights that were copied: another run than any that `train` could continue."""
    changes = {"steps": 0, "epochs": None, "initial": source}
    return {**config, **changes, "identity": {**config["identity"], **changes}}


def read_workdir(workdir: Path, step: int | None = None) -> Weights:
    """The weights of a run at `step`; by default at its best step if it is fine-tuned, else at the
    newest whose files are sound. Raises UserError if there is none, and for the tokenizer of
    another run."""
    config = read_config(workdir)
    step, params = checkpoint.read_params(workdir, step, run_files.made_by(config))
    found, path = config["resolved"], workdir / "config.json"
    tokenizer = loading.load(workdir / "tokenizer")
    if found.get("tokenizer", tokenizer.fingerprint) != tokenizer.fingerprint:
        raise UserError(
            f"{workdir / 'tokenizer'} is not the one of the run (fingerprint "
            f"{tokenizer.fingerprint[:12]}, its config.json says {found['tokenizer'][:12]}); copy "
            "the folder of the run again"
        )
    return Weights(
        params=params,
        model=model_of(config["model"], f"{path}: model"),
        tokenizer=tokenizer,
        config=config,
        source=str(workdir),
        step=step,
        task=task_of(found["task"], f"{path}: resolved.task"),
        labels=tuple(found["labels"]),
        result=run_files.read_result(workdir),
    )


def write_workdir(weights: Weights, folder: Path) -> None:
    """A workdir with one checkpoint, for every verb that reads one and to start a training from."""
    config = _converted(weights.config, weights.source)
    checkpoints = Checkpoints(folder, CheckpointConfig(), run_files.made_by(config))
    progress = {"step": weights.step, "best_step": None, "best_score": None}
    # There are no moments to keep, and Orbax saves no item that is empty.
    checkpoints.save(weights.step, weights.params, {"count": np.zeros((), np.int32)}, progress)
    checkpoints.wait()
    checkpoints.close()
    weights.tokenizer.save(folder / "tokenizer")
    disk.write_json(folder / "config.json", config)
