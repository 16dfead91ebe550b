"""The update of an experiment as shapes: nothing of its data or weights needs to be there."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from gpt1_jax.data import task_loading
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.data.tasks import NO_TASK, TASKS, Task
from gpt1_jax.model.attention import AttentionConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.recipe.network import network
from gpt1_jax.storage.places import is_url
from gpt1_jax.text import shards
from gpt1_jax.training.resolve import FREE_MODEL_KEYS, N_SPECIAL, check_devices, check_lengths
from gpt1_jax.training.state import Origin, initial_state
from gpt1_jax.training.update import Update, update_function
from gpt1_jax.weights.source import read_weights
from gpt1_jax.weights.weights import without_padding

# Of a run whose length is in epochs: it changes a constant of the schedule, and nothing else.
ANY_STEPS = 1000
# Classes of a task of one's own that does not say them in `task.labels`.
ANY_CLASSES = 2


@dataclass(frozen=True)
class Step:
    """The update of `experiment`, whose sizes and attention are those that a run would have, on a
    mesh.

    batch: shapes and dtypes of the longest batch, by name, as data/batches.py makes them.
    """

    experiment: Experiment
    network: Network
    mesh: Mesh
    batch: dict[str, jax.ShapeDtypeStruct]

    @property
    def update(self) -> Update:
        """The function that the training loop calls."""
        config = self.experiment
        return update_function(
            self.network,
            config.optimizer,
            config.objective.lm_coef,
            config.steps or ANY_STEPS,
            self.mesh,
            self.experiment.mesh.fsdp,
        )

    @property
    def origin(self) -> Origin:
        """Where a training of it begins."""
        config = self.experiment
        return initial_state(self.network, config.optimizer, self.mesh, config.mesh.fsdp)

    def lowered(self) -> jax.stages.Lowered:
        """The update for the devices of the mesh, before it is compiled."""
        return self.update.lower(self.origin.abstract, self.batch, self.experiment.seed)

    @property
    def argument_bytes(self) -> int:
        """What state and batch take on one device, without the padding that layouts add."""
        return sum(
            math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
            for leaf in jax.tree.leaves((self.origin.abstract, self.batch))
        )


def step(experiment: Experiment, devices: list[jax.Device]) -> Step:
    """The update of an experiment on `devices`, all of which the mesh must take.

    The vocabulary is that of the folder `data.path`, if it is there, else `model.vocab_size`; the
    sizes are those of `initial`, if it is given; a task has as many classes as its row of the
    table, or `task.labels`, says. Raises UserError for what does not fit.
    """
    task = task_loading.task_of(experiment.task) if experiment.is_task else NO_TASK
    experiment = _with_sizes(experiment, task)
    check_lengths(experiment)
    mesh = sharding.mesh(experiment.mesh, devices)
    check_devices(experiment, mesh)
    loaded = LoadedTask(task, _classes(experiment, task), {})
    net, attention = network(experiment, task.shape, loaded.n_outputs, mesh)
    experiment = dataclasses.replace(
        experiment, attention=AttentionConfig(attention.implementation)
    )
    shapes = batch_shapes(experiment, task, loaded.n_outputs)
    rows = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=rows)
        for name, (shape, dtype) in shapes.items()
    }
    return Step(experiment, net, mesh, batch)


def _with_sizes(experiment: Experiment, task: Task) -> Experiment:
    model, path = experiment.model, experiment.data.path
    if experiment.initial is not None:
        free = {name: getattr(model, name) for name in FREE_MODEL_KEYS}
        model = dataclasses.replace(without_padding(read_weights(experiment.initial)).model, **free)
    elif path is not None and (is_url(path) or Path(path).expanduser().exists()):
        manifest = shards.read_manifest(path)
        model = dataclasses.replace(model, vocab_size=manifest["tokenizer"]["vocab_size"])
    if task.has_head:
        model = dataclasses.replace(model, n_special=N_SPECIAL)
    return dataclasses.replace(experiment, model=model)


def _classes(experiment: Experiment, task: Task) -> tuple[str | int, ...]:
    row = TASKS.get(task.name)
    known = experiment.task.labels or (row.labels if row and row.shape == task.shape else ())
    return known or tuple(range(ANY_CLASSES))


def batch_shapes(
    experiment: Experiment, task: Task, n_outputs: int
) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape and dtype of each array of the longest batch, which is padded to n_ctx."""
    size, row = experiment.batch_size, TASKS.get(task.name)
    candidates = {"similarity": 2, "multiple_choice": row.choices if row else 2}.get(task.shape, 1)
    shape = (size, candidates, experiment.model.n_ctx)
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "tokens": (shape, np.int32),
        "weights": (shape, np.float32),
        "rows": ((size,), np.uint32),
    }
    if task.has_head:
        shapes["extract"] = (shape[:2], np.int32)
        shapes["label"] = ((size,), np.int32)
        if task.regression:
            score = (size,) if task.score_loss == "mse" else (size, n_outputs)
            shapes["label"] = (score, np.float32)
    return shapes
