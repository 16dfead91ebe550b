"""Where a run begins: everything that can be known before the first step, checked before it.

Starting points in order: the newest sound checkpoint of the workdir; the weights of `initial`;
fresh parameters.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from gpt1_jax import disk, run_files
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import probes
from gpt1_jax.evaluation.probes import Question
from gpt1_jax.messages import say
from gpt1_jax.model.config import MOST
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import memory, sharding
from gpt1_jax.recipe.experiment import Experiment, run_config
from gpt1_jax.recipe.network import network
from gpt1_jax.runtime import agreement
from gpt1_jax.storage import places
from gpt1_jax.text import shards
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.training.claim import Claim, claim, schedule_begins_after
from gpt1_jax.training.goal import Goal, goal, loaded_task
from gpt1_jax.training.resolve import (
    check_devices,
    check_lengths,
    named_source,
    packs,
    resolved,
    the_tokenizer,
    with_absolute_paths,
    with_softmax_positions,
)
from gpt1_jax.training.state import (
    Initial,
    Origin,
    Standing,
    TrainState,
    begun,
    initial_state,
    resumed,
)
from gpt1_jax.training.text_samples import TextSamples, text_samples
from gpt1_jax.weights import space
from gpt1_jax.weights import workdir as workdirs
from gpt1_jax.weights.checkpoint import Checkpoints, reached


@dataclass
class Run:
    """A run that is ready to take its next step, the one after `first_step`.

    state: on the devices of `mesh`. questions: the zero-shot probes, none where they are off.
    samples: of text, None where they are off. config: config.json.
    """

    experiment: Experiment
    workdir: Path
    mesh: Mesh
    network: Network
    goal: Goal
    questions: list[Question]
    samples: TextSamples | None
    total_steps: int
    first_step: int
    state: TrainState
    standing: Standing
    checkpoints: Checkpoints
    held: Claim
    schedule_after: int
    config: dict[str, Any]

    @property
    def last_step(self) -> int:
        """Where this call ends, which `stop_after` may put before the end of the run."""
        return min(self.experiment.stop_after or self.total_steps, self.total_steps)

    def close(self) -> None:
        """Ends writing, and lets another process have the workdir."""
        self.checkpoints.close()
        self.held.release()

    @property
    def rows(self) -> slice:
        """The rows of each global batch that the devices of this process hold."""
        shape = (self.experiment.batch_size,)
        indices = sharding.batch_sharding(self.mesh).addressable_devices_indices_map(shape)
        starts, stops, _ = zip(*(rows.indices(*shape) for (rows,) in indices.values()), strict=True)
        return slice(min(starts), max(stops))


@dataclass(frozen=True)
class _Plan:
    """A run as far as its settings and its data say, before anything of it is on the devices."""

    experiment: Experiment
    initial: Initial | None
    tokenizer: Tokenizer
    mesh: Mesh
    network: Network
    goal: Goal
    questions: list[Question]
    samples: TextSamples | None
    total_steps: int
    config: dict[str, Any]

    @property
    def origin(self) -> Origin:
        return initial_state(
            self.network, self.experiment.optimizer, self.mesh, self.experiment.mesh.fsdp
        )


def start(
    experiment: Experiment, explicit: set[str], workdir: Path, tell: Callable[[str], None] = say
) -> Run:
    """The run, resumed or new. `explicit` are the config keys that were set rather than defaulted;
    `tell` gets a line about each thing worth knowing. Raises UserError for whatever does not fit.
    """
    with contextlib.ExitStack() as undone:
        with agreement.agreed() as facts:
            plan = _planned(experiment, explicit, workdir, tell)
            experiment, config = plan.experiment, plan.config
            held = claim(workdir, config, experiment.extend)
            undone.callback(held.release)
            facts |= agreement.of_a_run(config, workdir)
        with agreement.agreed():
            reached(workdir)
            space.check_space(workdir, plan.origin.shapes)
            if not experiment.is_task:
                known = workdir / shards.VERIFIED
                shards.verify(experiment.data.path, known, jax.process_index() == 0)
        checkpoints = Checkpoints(workdir, experiment.checkpoint, run_files.made_by(config))
        undone.callback(checkpoints.close)
        origin = plan.origin
        found = resumed(checkpoints, origin, plan.total_steps, tell)
        with agreement.agreed():
            if found is None:
                held.require_nothing_saved(workdir, plan.total_steps)
        state, standing = found or begun(experiment, origin, plan.initial)
        config["resolved"]["spared"] = spared = held.spare(checkpoints)
        if spared:
            tell(
                f"checkpoints {', '.join(map(str, spared))} stay, as checkpoint.keep and "
                "checkpoint.per_decade of an earlier command had it; delete what you do not need"
            )
        extensions = held.extensions(experiment.extend, standing.step, plan.total_steps)
        schedule_after = schedule_begins_after(extensions)
        experiment.optimizer.require_room(plan.total_steps - schedule_after)
        config["resolved"]["extensions"] = extensions
        if jax.process_index() == 0:
            disk.write_json(workdir / "config.json", config)
            plan.tokenizer.save(workdir / "tokenizer")
            places.send(workdir)
        undone.pop_all()
    return Run(
        experiment=experiment,
        workdir=workdir,
        mesh=plan.mesh,
        network=plan.network,
        goal=plan.goal,
        questions=plan.questions,
        samples=plan.samples,
        total_steps=plan.total_steps,
        first_step=standing.step,
        state=state,
        standing=standing,
        checkpoints=checkpoints,
        held=held,
        schedule_after=schedule_after,
        config=config,
    )


def _planned(
    experiment: Experiment, explicit: set[str], workdir: Path, tell: Callable[[str], None]
) -> _Plan:
    experiment = with_absolute_paths(experiment, workdir)
    initial = named_source(experiment, workdir)
    tokenizer = the_tokenizer(experiment, initial)
    loaded = loaded_task(experiment)
    experiment = resolved(experiment, explicit, initial, tokenizer, loaded)
    check_lengths(experiment)
    memory.check_training(experiment)
    mesh = sharding.mesh(experiment.mesh)
    check_devices(experiment, mesh)
    packed = packs(experiment, mesh)
    towards = goal(experiment, tokenizer, loaded, tell, packed)
    questions = _questions(experiment, tokenizer, tell)
    experiment = with_softmax_positions(experiment, towards)
    total = _updates(experiment, towards)
    experiment.optimizer.require_room(total)
    net, attention = network(experiment, loaded.task.shape, loaded.n_outputs, mesh)
    tell(f"attention: {attention.implementation} ({attention.reason})")
    return _Plan(
        experiment,
        initial,
        tokenizer,
        mesh,
        net,
        towards,
        questions,
        text_samples(experiment, tokenizer, loaded),
        total,
        _config(experiment, initial, tokenizer, towards, total, questions),
    )


def _updates(experiment: Experiment, towards: Goal) -> int:
    """Of the whole run. UserError for more than can be counted."""
    epochs = experiment.epochs
    if epochs is None:
        return experiment.steps
    updates = epochs * towards.source.steps_per_epoch
    if not updates <= MOST:
        raise UserError(f"epochs is {epochs:g}, which is {updates:g} updates; at most {MOST}")
    return max(1, int(updates))


def _questions(
    experiment: Experiment, tokenizer: Tokenizer, tell: Callable[[str], None]
) -> list[Question]:
    config = experiment.probes
    if not config.per_decade:
        return []
    separator = tokenizer.separator(experiment.data.separator)
    beginning = [] if separator is None else [separator]
    questions = probes.prepare(config, tokenizer, beginning, experiment.model.n_ctx)
    for question in questions:
        dev = question.dev
        tell(f"{question.probe}: {len(dev.labels)} of {question.task}, {dev.cut} cut to fit n_ctx")
    return questions


def _config(
    experiment: Experiment,
    initial: Initial | None,
    tokenizer: Tokenizer,
    towards: Goal,
    total: int,
    questions: list[Question],
) -> dict:
    """config.json: the whole experiment, what it was resolved to, and the identity of the run."""
    loaded = towards.loaded
    resolved = workdirs.resolved(
        tokenizer,
        loaded.task,
        loaded.labels,
        loaded.n_outputs,
        total_steps=total,
        data=towards.digest,
    )
    config = run_config(experiment, resolved)
    # What is only looked at, or is in the digest of all, makes no other run.
    config["resolved"]["initial"] = initial and initial.content
    config["resolved"]["digests"] = towards.digests
    config["resolved"]["anchors"] = {question.probe: question.anchors for question in questions}
    return config
