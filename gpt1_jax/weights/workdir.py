"""Weights in a workdir: what `train` leaves, and what `convert` makes for the other verbs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpt1_jax import disk, run_files
from gpt1_jax.data.tasks import Task
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.run_files import read_config
from gpt1_jax.storage import digests, places
from gpt1_jax.storage.retention import CheckpointConfig
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization import tokenizer as tokenizers
from gpt1_jax.weights.checkpoint import Checkpoints, Gone
from gpt1_jax.weights.weights import Weights, model_of, task_json, task_of

# How often a checkpoint that is deleted while it is read is given up for the next.
_ATTEMPTS = 10


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
    resolved = {key: value for key, value in config["resolved"].items() if key != "initial"}
    identity = {**config["identity"], **changes}
    return {**config, **changes, "resolved": resolved, "identity": identity}


def read_workdir(workdir: Path, step: int | None = None) -> Weights:
    """The weights of a run at `step`; by default at its best step if it is fine-tuned, else at the
    newest whose files are sound. Raises UserError if there is none, and for the tokenizer of
    another run."""
    config = read_config(workdir)
    step, params = _read_params(workdir, step, run_files.made_by(config))
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


def content(workdir: Path, step: int) -> str | None:
    """What tells the parameters of a step from others, also where the run was moved or copied to;
    None where nothing does."""
    return digests.content(places.original(workdir) / "checkpoints" / str(step) / "params")


def _read_params(
    workdir: Path, step: int | None, made_by: Mapping[str, Any]
) -> tuple[int, dict[str, Any]]:
    """A step of a run and its parameters as numpy arrays; for None its best step if it is
    fine-tuned, else the newest sound one (see `Checkpoints.newest_params`). `made_by` is what the
    run's config.json says.

    Another process may train there: where it deletes what is being read, the next one is taken.
    Raises UserError if there is no such checkpoint, or none that is sound.
    """
    for attempt in range(_ATTEMPTS):
        checkpoints = Checkpoints(workdir)
        try:
            if step is None:
                found, params = checkpoints.newest_params()
            elif step in (steps := checkpoints.steps()):
                found, params = step, checkpoints.load_params(step)
            else:
                known = ", ".join(map(str, steps)) or "none"
                raise UserError(f"{workdir} has no checkpoint of step {step}; it has {known}")
            checkpoints.require_made_by(found, made_by)
            return found, params
        except Gone:
            if attempt == _ATTEMPTS - 1:
                raise
        finally:
            checkpoints.close()
    raise AssertionError


def write_workdir(weights: Weights, folder: Path) -> None:
    """A workdir with one checkpoint, for every verb that reads one and to start a training from."""
    config = _converted(weights.config, weights.source)
    checkpoints = Checkpoints(folder, CheckpointConfig(), run_files.made_by(config))
    progress = {"step": weights.step, "best_step": None, "best_score": None}
    # There are no moments to keep, and Orbax saves no item that is empty.
    try:
        checkpoints.save(weights.step, weights.params, {"count": np.zeros((), np.int32)}, progress)
        checkpoints.wait()
    finally:
        checkpoints.close()
    weights.tokenizer.save(folder / "tokenizer")
    disk.write_json(folder / "config.json", config)
