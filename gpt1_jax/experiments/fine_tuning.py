"""The cells that fine-tuning fills: tables 2 to 5 and figure 2 (left), task by task."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.data import task_loading
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import baselines
from gpt1_jax.experiments.clock import Count
from gpt1_jax.experiments.config import Request
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.experiments.pretraining import Weights
from gpt1_jax.experiments.requirements import TaskSource
from gpt1_jax.experiments.runs import Run, body_of, config_string
from gpt1_jax.inference import trained_model
from gpt1_jax.messages import say
from gpt1_jax.recipe import experiment
from gpt1_jax.results.paper import Paper, Variant

# The columns of the paper that are other splits of a task, or a part of it that is a task as well:
# by the name the report knows them by, the task (None: itself) and its split.
FURTHER: dict[str, dict[str, tuple[str | None, str]]] = {
    "mnli": {"dev_mismatched": (None, "dev_mismatched")},
    "race": {"dev_middle": ("race_middle", "dev"), "dev_high": ("race_high", "dev")},
}
# Training examples on which figure 2 (left) is drawn as well.
TRAIN_EXAMPLES = 500


@dataclass(frozen=True)
class FineTuning:
    """What all cells have in common. `settings` are config keys for each of them."""

    request: Request
    variants: tuple[Variant, ...]
    settings: dict[str, str]

    def config(self, variant: Variant, source: TaskSource) -> tuple[str, dict[str, str]]:
        """Config string and settings of a variant on a task, but for seed, weights and depth."""
        spec = config_string(self.request.scale, "finetune", source.name, variant.arguments)
        return spec, {**source.settings, **self.settings}

    def check(self, source: TaskSource) -> None:
        """Raises UserError for settings or files of a task that no cell of it could use. A set of
        TFDS is not read: that may download it."""
        described = [experiment.load(*self.config(variant, source))[0] for variant in self.variants]
        if source.path is not None:
            task_loading.load_task(described[0].task)

    def fill(self, source: TaskSource, weights: Weights, ledger: Ledger, count: Count) -> None:
        """Runs what is missing of a task. What fails is noted, and the rest goes on."""
        figure = self.request.figure
        try:
            described, _ = experiment.load(*self.config(self.variants[0], source))
            loaded = task_loading.load_task(described.task)
        except UserError as error:
            for variant in self.variants:
                ledger.add_failure(variant.name, source.name, figure, str(error))
            return
        if source.name not in ledger.content["baselines"]:
            ledger.content["baselines"][source.name] = task_baselines(loaded)
            ledger.save()
        for variant in self.variants:
            try:
                self.fill_cell(variant, source, weights, ledger, count)
            except UserError as error:
                ledger.add_failure(variant.name, source.name, figure, str(error))

    def runs(self, source: TaskSource, weights: Weights, ledger: Ledger) -> list[Run]:
        """What is to be trained of a task, but for what has no weights."""
        found = []
        for variant in self.variants:
            with contextlib.suppress(UserError):
                points = self.points(variant, source, weights)
                found += [point.run for point in points if not ledger.has_run(point.folder)]
        return found

    def points(self, variant: Variant, source: TaskSource, weights: Weights) -> list["Point"]:
        """The runs of one variant on one task: a seed each, in figure 2 also a depth each.
        UserError where its weights could not be had."""
        initial = weights.of(body_of(variant))
        spec, common = self.config(variant, source)
        depths: list[int | None] = [None]
        if self.request.figure == "2left":
            depths = list(range(trained_model.load(initial).model_config.n_layer + 1))
            common = {"eval.train_examples": str(TRAIN_EXAMPLES), **common}
        found = []
        for depth in depths:
            kind = variant.name if depth is None else f"transfer_{depth}"
            for seed in self.request.seeds:
                own = {"initial": initial, "seed": str(seed)}
                if depth is not None:
                    own["n_transfer"] = str(depth)
                folder = Path("finetuned", kind, f"{source.name}-{seed}")
                run = Run(spec, {**common, **own}, weights.workdir / folder)
                found.append(Point(run, kind, seed, depth, str(folder)))
        return found

    def fill_cell(
        self, variant: Variant, source: TaskSource, weights: Weights, ledger: Ledger, count: Count
    ) -> None:
        """Trains what is missing of one variant on one task."""
        points = self.points(variant, source, weights)
        for point in points:
            known = ledger.has_run(point.folder)
            with count.run(made=not known):
                score = point.run.result()["best"]["score"]
            far = count.said(len(points))
            say(f"{point.kind} {source.name}, seed {point.seed}: {score:.3f} ({far})")
            if known:
                continue
            ledger.add_run(
                {
                    "variant": variant.name,
                    "task": source.name,
                    "seed": point.seed,
                    "n_transfer": point.depth,
                    "figure": self.request.figure,
                    "folder": point.folder,
                    "value": score,
                    "further": {}
                    if point.depth is not None
                    else further(point.run.workdir, source),
                }
            )


@dataclass(frozen=True)
class Point:
    """A run with its place: the kind of its cell, a seed, in figure 2 (left) a depth, and its
    folder within the workdir."""

    run: Run
    kind: str
    seed: int
    depth: int | None
    folder: str


def variants_of(request: Request, paper: Paper) -> tuple[Variant, ...]:
    """The ways to train that a table compares; of a figure the full one."""
    rows = paper.tables[request.table].rows if request.table in paper.tables else ()
    found = tuple(paper.variants[row.variant] for row in rows if row.variant)
    return found or (paper.variants["full"],)


def task_baselines(loaded: LoadedTask) -> dict:
    """What needs no model, on dev, with the numbers of examples by split."""
    return {
        "split": "dev",
        "metric": loaded.task.metric,
        **baselines.baselines(loaded, pairs=True),
        "examples": {split: len(examples) for split, examples in loaded.splits.items()},
    }


def further(folder: Path, source: TaskSource) -> dict[str, dict[str, float]]:
    """The metrics of a run on the other splits that the paper has columns of."""
    found = {}
    for column, (name, split) in FURTHER.get(source.name, {}).items():
        part = name and source.path and str(Path(source.path).with_name(name))
        try:
            found[column], *_ = trained_model.load(folder).evaluate_task(part or name, split)
        except UserError as error:
            say(f"{source.name} {column}: {error}")
    return found
