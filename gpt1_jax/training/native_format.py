"""Weights in a workdir: what `train` leaves, and what `convert` makes for the other verbs."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from gpt1_jax.data.tasks import Task, TaskConfig
from gpt1_jax.errors import UserError
from gpt1_jax.model.gpt import ModelConfig
from gpt1_jax.results import record
from gpt1_jax.text import tokenizer as tokenizers
from gpt1_jax.training.checkpoint import CheckpointConfig, Checkpoints
from gpt1_jax.training.experiment import Experiment, flatten, identity
from gpt1_jax.training.weights import Weights, task_of


def read_config(workdir: Path) -> dict:
    """config.json of a run. UserError if there is none, or it is not one that `train` wrote."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{workdir} is no workdir of a run: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not (isinstance(config, dict) and "resolved" in config and "identity" in config):
        foreign = isinstance(config, dict) and "model_type" in config
        hint = f"; if it is one of transformers, write hf:{workdir}" if foreign else ""
        raise UserError(f"{path} is not that of a run; expected a folder that `train` made{hint}")
    return config


def run_config(experiment: Experiment, resolved: dict) -> dict:
    """config.json of a run: the whole experiment, what it was resolved to, and its identity."""
    whole = identity(experiment) | flatten(resolved, "resolved.")
    # Through JSON once, so that it compares equal to itself when read back.
    return json.loads(
        json.dumps({**dataclasses.asdict(experiment), "resolved": resolved, "identity": whole})
    )


def resolved(tokenizer, task: Task | None, labels: tuple, n_outputs: int, **others) -> dict:
    """What the section `resolved` of config.json says of a model."""
    return {
        **others,
        "tokenizer": tokenizer.fingerprint,
        "task": dataclasses.asdict(task) if task else None,
        "labels": list(labels),
        "n_outputs": n_outputs,
    }


def foreign_config(
    model: ModelConfig,
    tokenizer: tokenizers.Tokenizer,
    task: Task | None,
    labels: tuple,
    n_outputs: int,
    separator: str | None,
    source: str,
) -> dict:
    """config.json of weights that no run here has made: no update, no data."""
    experiment = Experiment(steps=1, model=model)
    if separator is not None:
        data = dataclasses.replace(experiment.data, separator=separator)
        experiment = dataclasses.replace(experiment, data=data)
    if task is not None:
        chosen = TaskConfig(name=task.name, shape=task.shape, metric=task.metric)
        experiment = dataclasses.replace(experiment, task=chosen)
    description = resolved(tokenizer, task, labels, n_outputs, total_steps=0, data=None)
    return _converted(run_config(experiment, description), source)


def _converted(config: dict, source: str) -> dict:
    """The config of weights that were copied: another run than any that `train` could continue."""
    changes = {"steps": 0, "epochs": None, "initial": source}
    return {**config, **changes, "identity": {**config["identity"], **changes}}


def read(workdir: Path, step: int | None = None) -> Weights:
    """The weights of a run at `step`; by default at its best step if it is fine-tuned, else at the
    newest whose files are sound. Raises UserError if there is none."""
    config = read_config(workdir)
    checkpoints = Checkpoints(workdir)
    try:
        step = _chosen_step(checkpoints, workdir, step)
        params = checkpoints.load_params(step)
    finally:
        checkpoints.close()
    found = config["resolved"]
    return Weights(
        params=params,
        model=ModelConfig(**config["model"]),
        tokenizer=tokenizers.load(workdir / "tokenizer"),
        config=config,
        source=str(workdir),
        step=step,
        task=task_of(found["task"]),
        labels=tuple(found["labels"]),
        result=record.read_result(workdir),
    )


def _chosen_step(checkpoints: Checkpoints, workdir: Path, step: int | None) -> int:
    steps = checkpoints.steps()
    if step is not None:
        if step not in steps:
            known = ", ".join(map(str, steps)) or "none"
            raise UserError(f"{workdir} has no checkpoint of step {step}; it has {known}")
        return step
    newest, complaints = checkpoints.newest_sound()
    if newest is None:
        why = f": {complaints[0]}" if complaints else ""
        raise UserError(f"{workdir} has no usable checkpoint{why}")
    best = checkpoints.progress(newest).get("best_step")
    return best if best in steps else newest


def write(weights: Weights, folder: Path) -> None:
    """A workdir with one checkpoint, for every verb that reads one and to start a training from."""
    checkpoints = Checkpoints(folder, CheckpointConfig())
    progress = {"step": weights.step, "best_step": None, "best_score": None}
    # There are no moments to keep, and Orbax saves no item that is empty.
    checkpoints.save(weights.step, weights.params, {"count": np.zeros((), np.int32)}, progress)
    checkpoints.wait()
    checkpoints.close()
    weights.tokenizer.save(folder / "tokenizer")
    record.write_json(folder / "config.json", _converted(weights.config, weights.source))
