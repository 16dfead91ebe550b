"""How much the quickstart trains: what fits into its time, and never so little that its table says
nothing."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax import json_files
from gpt1_jax.disk import write_json

# How the two were found stands in docs/quickstart.md. The labels are whole groups of each task.
LEAST_UPDATES = 400
LEAST_LABELS = 400
# Rows come in groups in which all labels are equally frequent; this is a whole number of groups.
LABELS_STEP = 40
# A checkpoint is kept at each quarter of pre-training.
CHECKPOINTS = 4
# A run of fine-tuning starts in this part of the time that the runs which show the speed need for
# it: it evaluates less, and its seeds share what is compiled.
FINE_TUNING_START = 0.5
# Of the time for training, what pre-training both bodies takes.
PRETRAINING_SHARE = 0.45
# Of the time asked for, what is planned: a few updates do not show everything.
PLANNED_SHARE = 0.95


@dataclass(frozen=True)
class Plan:
    """How much is trained: updates of pre-training, the same for both bodies, and labels of each
    task."""

    pretraining_steps: int
    labels: int

    @property
    def says_something(self) -> bool:
        """Whether it is enough for a table that tells a difference from the seeds'."""
        return self.pretraining_steps >= LEAST_UPDATES and self.labels >= LEAST_LABELS

    @property
    def is_least(self) -> bool:
        """Whether there was no time for more than says something."""
        return self.pretraining_steps == LEAST_UPDATES or self.labels == LEAST_LABELS


@dataclass(frozen=True)
class Costs:
    """What a machine needs for each thing, in seconds, as a few updates have shown.

    update: of pre-training, by body. label: in one run of fine-tuning, by task and body.
    run: of each run, what is no training (starting, compiling, evaluating, saving), by body.
    """

    update: dict[str, float]
    label: dict[str, dict[str, float]]
    run: dict[str, float]

    def pretraining(self, body: str, plan: Plan) -> float:
        return self.run[body] + plan.pretraining_steps * self.update[body]

    def fine_tuning(self, task: str, body: str, plan: Plan) -> float:
        return FINE_TUNING_START * self.run[body] + plan.labels * self.label[task][body]


@dataclass(frozen=True)
class Work:
    """All that a plan is for: the bodies to pre-train, the runs of fine-tuning as (task, body), and
    how long the rest takes."""

    bodies: tuple[str, ...]
    fine_tunings: tuple[tuple[str, str], ...]
    other_seconds: float

    def seconds(self, plan: Plan, costs: Costs) -> float:
        """How long everything takes by a plan."""
        return (
            sum(costs.pretraining(body, plan) for body in self.bodies)
            + sum(costs.fine_tuning(task, body, plan) for task, body in self.fine_tunings)
            + self.other_seconds
        )


def plan_within(seconds: float, work: Work, costs: Costs, most_labels: int) -> Plan:
    """The plan that takes so long: PRETRAINING_SHARE of the training is pre-training, unless one of
    the two would be too little, and never less than says something."""
    training = max(0.0, seconds - work.seconds(Plan(0, 0), costs))
    of_update = sum(costs.update[body] for body in work.bodies)
    of_label = sum(costs.label[task][body] for task, body in work.fine_tunings)
    # What the least of the other leaves bounds each from above.
    updates = min(training * PRETRAINING_SHARE, training - LEAST_LABELS * of_label) / of_update
    updates = max(LEAST_UPDATES, int(updates) // CHECKPOINTS * CHECKPOINTS)
    labels = min(training * (1 - PRETRAINING_SHARE), training - updates * of_update) / of_label
    labels = max(LEAST_LABELS, int(labels) // LABELS_STEP * LABELS_STEP)
    return Plan(pretraining_steps=updates, labels=min(labels, most_labels))


@dataclass(frozen=True)
class SavedPlan:
    """What a quickstart that goes on keeps to."""

    plan: Plan
    costs: Costs


def save_plan(path: Path, plan: Plan, costs: Costs) -> None:
    write_json(path, dataclasses.asdict(SavedPlan(plan, costs)))


def saved_plan(path: Path) -> SavedPlan | None:
    """The plan of before, if there is one. UserError where the file is something else."""
    try:
        return json_files.read(path, SavedPlan, "choose another --workdir, or delete it")
    except FileNotFoundError:
        return None
