"""The cells that fine-tuning fills, task by task: tables 2 to 5, figure 2 (left), and two curves
that the paper does not have, by labels and by tokens of pre-training."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
from gpt1_jax.messages import say, tell
from gpt1_jax.recipe import experiment
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.results.finished_runs import is_of
from gpt1_jax.results.paper import Paper, Variant
from gpt1_jax.typed_values import nearest

# The columns of the paper that are other splits of a task, or a part of it that is a task as well:
# by the name the report knows them by, the task (None: itself) and its split.
FURTHER: dict[str, dict[str, tuple[str | None, str]]] = {
    "mnli": {"dev_mismatched": (None, "dev_mismatched")},
    "race": {"dev_middle": ("race_middle", "dev"), "dev_high": ("race_high", "dev")},
}
# Training examples on which figure 2 (left) is drawn as well.
TRAIN_EXAMPLES = 500
# Labels of the curve by labels, before all that there are; and the updates for which few of them
# are gone through again: three epochs of a hundred would leave a classifier where it began.
LABELS, LEAST_UPDATES = (100, 300, 1000, 3000), 300


@dataclass(frozen=True)
class FineTuning:
    """What all cells have in common. `settings` are config keys for each of them; `ready` are
    results of runs that other processes have trained, by workdir."""

    request: Request
    variants: tuple[Variant, ...]
    settings: dict[str, str]
    ready: Mapping[Path, dict] = field(default_factory=dict)

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

    def work(self, source: TaskSource, weights: Weights) -> tuple[int, float]:
        """How many runs a task has, and the FLOPs of their products by a guess of how many tokens a
        text has. UserError where the task cannot be read."""
        described, _ = experiment.load(*self.config(self.variants[0], source))
        loaded = task_loading.load_task(described.task)
        tokens, runs, flops = tokens_of_an_epoch(loaded) * (described.epochs or 1), 0, 0.0
        for variant in self.variants:
            model = weights.model(body_of(variant))
            lengths = [1.0]
            if self.request.figure == "2left":
                lengths = [1.0] * (model.n_layer + 1)
            elif self.request.figure == "tokens":
                lengths = [1.0] * (len(weights.lengths()) + 1)
            elif self.request.figure == "labels":
                lengths = _parts_by_labels(described, loaded)
            runs += len(lengths)
            flops += sum(lengths) * tokens * model.flops_per_token(model.n_ctx // 2)
        return runs * len(self.request.seeds), flops * len(self.request.seeds)

    def fill(self, source: TaskSource, weights: Weights, ledger: Ledger, count: Count) -> None:
        """Runs what is missing of a task. What fails is noted, and the rest goes on."""
        figure = self.request.figure
        try:
            described, _ = experiment.load(*self.config(self.variants[0], source))
            loaded = task_loading.load_task(described.task)
        except UserError as error:
            for variant in self.variants:
                ledger.add_failure(variant.name, source.name, figure, error)
            return
        if source.name not in ledger.content["baselines"]:
            ledger.content["baselines"][source.name] = task_baselines(loaded)
            ledger.save()
        if figure == "labels" and source.name not in ledger.content["by_labels"]:
            ledger.content["by_labels"][source.name] = [
                task_baselines(
                    task_loading.load_task(replace(described.task, train_examples=count))
                )
                for count in label_counts(loaded)
            ]
            ledger.save()
        for variant in self.variants:
            try:
                self.fill_cell(variant, source, weights, ledger, count)
            except UserError as error:
                ledger.add_failure(variant.name, source.name, figure, error)

    def runs(self, source: TaskSource, weights: Weights, ledger: Ledger) -> list[list[Run]]:
        """What is to be trained of a task, by variant, but for what has no weights."""
        found, figure = [], self.request.figure
        for variant in self.variants:
            with contextlib.suppress(UserError):
                points = self.points(variant, source, weights)
                found.append([p.run for p in points if ledger.run(p.folder, figure) is None])
        return found

    def points(self, variant: Variant, source: TaskSource, weights: Weights) -> list["Point"]:
        """The runs of one variant on one task: a seed each, in a figure also a place on its axis
        each. UserError where its weights could not be had."""
        spec, common = self.config(variant, source)
        found = []
        for place in self.places(variant, source, weights):
            for seed in self.request.seeds:
                folder = Path("finetuned", place.kind, f"{source.name}-{seed}")
                workdir = weights.workdir / folder
                initial = weights.as_begun(workdir, place.initial)
                own = {"initial": initial, "seed": str(seed), **place.settings}
                run = Run(spec, {**common, **own}, workdir)
                found.append(Point(run, seed, place, str(folder)))
        return found

    def places(self, variant: Variant, source: TaskSource, weights: Weights) -> list["Place"]:
        """What is different between the runs of a variant on a task, but for seeds."""
        figure = self.request.figure
        if figure == "tokens":
            return by_tokens(weights)
        initial = weights.of(body_of(variant))
        if figure == "labels":
            return self.by_labels(variant, source, initial)
        if figure == "2left":
            return by_depth(initial, weights.model("transformer").n_layer)
        return [Place(variant.name, initial)]

    def by_labels(self, variant: Variant, source: TaskSource, initial: str) -> list["Place"]:
        """Few labels and more; with all of them it is the run of the table."""
        described, _ = experiment.load(*self.config(variant, source))
        counts = label_counts(task_loading.load_task(described.task))
        found = []
        for count in counts:
            settings = {} if count == counts[-1] else {"task.train_examples": str(count)}
            epochs = epochs_of(count, described)
            if epochs != described.epochs:
                settings["epochs"] = str(epochs)
            kind = f"{variant.name}_{count}_labels" if settings else variant.name
            found.append(Place(kind, initial, settings, labels=count))
        return found

    def fill_cell(
        self, variant: Variant, source: TaskSource, weights: Weights, ledger: Ledger, count: Count
    ) -> None:
        """Trains what is missing of one variant on one task."""
        points, figure = self.points(variant, source, weights), self.request.figure
        for point in points:
            known = ledger.run(point.folder, figure)
            with count.run(made=known is None):
                result = self.ready.get(point.run.workdir) or point.run.result()
            weights.add_given(body_of(variant))
            best = result["best"]
            if best["score"] is None:
                raise UserError(
                    f"{point.folder}: its metric is undefined on dev, whose labels are all the same"
                )
            far = count.said(len(points))
            tell(
                f"{point.place.kind} {source.name}, seed {point.seed}: {best['score']:.3f} ({far})"
            )
            ledger.add_run(
                {
                    "variant": variant.name,
                    "task": source.name,
                    "seed": point.seed,
                    "n_transfer": point.place.depth,
                    "figure": figure,
                    "tokens": point.place.tokens,
                    "labels": point.place.labels,
                    "folder": point.folder,
                    "value": best["score"],
                    "step": best["step"],
                    "further": further(point.run.workdir, source, best, known)
                    if figure is None
                    else {},
                }
            )


@dataclass(frozen=True)
class Place:
    """A kind of run, by whose name its folder goes: its weights and its settings; in figure 2
    (left) how many blocks are transferred, in the curve by tokens what the weights have read, in
    that by labels how many there are."""

    kind: str
    initial: str
    settings: Mapping[str, str] = field(default_factory=dict)
    depth: int | None = None
    tokens: int | None = None
    labels: int | None = None


@dataclass(frozen=True)
class Point:
    """A run of a place with a seed, and its folder within the workdir."""

    run: Run
    seed: int
    place: Place
    folder: str


def by_depth(initial: str, n_layer: int) -> list[Place]:
    """Figure 2 (left)."""
    shown = {"eval.train_examples": str(TRAIN_EXAMPLES)}
    return [
        Place(f"transfer_{depth}", initial, {"n_transfer": str(depth), **shown}, depth)
        for depth in range(n_layer + 1)
    ]


def by_tokens(weights: Weights) -> list[Place]:
    """From no pre-training at all to the whole of it, which are the runs of two rows of table 5."""
    whole = weights.of("transformer")
    *shorter, (_, all_tokens) = weights.lengths()
    found = [Place("no_pretraining", whole, {"n_transfer": "-1"}, tokens=0)]
    for steps, tokens in shorter:
        found.append(Place(f"tokens_{tokens}", weights.after(steps), tokens=tokens))
    return [*found, Place("full", whole, tokens=all_tokens)]


def tokens_of_an_epoch(loaded: LoadedTask) -> int:
    """About so many: four characters to a token, by the first examples."""
    examples = loaded.splits["train"]
    some = examples[:200]
    letters = sum(
        len(" ".join(one.texts)) * max(1, len(one.choices)) + len("".join(one.choices))
        for one in some
    )
    return round(len(examples) * letters / max(1, len(some)) / 4)


def epochs_of(count: int, described: Experiment) -> float | None:
    """Those of so many labels in the curve by labels; None where updates are counted."""
    if described.epochs is None:
        return None
    return max(described.epochs, math.ceil(LEAST_UPDATES / max(1, count // described.batch_size)))


def _parts_by_labels(described: Experiment, loaded: LoadedTask) -> list[float]:
    """How much is trained for each point of the curve by labels, of what is for all."""
    whole = len(loaded.splits["train"]) * (described.epochs or 1)
    return [count * (epochs_of(count, described) or 1) / whole for count in label_counts(loaded)]


def label_counts(loaded: LoadedTask) -> list[int]:
    """Those of the curve by labels that there are, and all."""
    there = len(loaded.splits["train"])
    return [*(count for count in LABELS if count < there), there]


def variants_of(request: Request, paper: Paper) -> tuple[Variant, ...]:
    """The ways to train that a table or figure compares, or those of them that were asked for.
    UserError for one that it has not."""
    found = {variant.name: variant for variant in _compared(request, paper)}
    asked = found if request.variants is None else request.variants
    for name in asked:
        if name not in found:
            near = nearest(name, found)
            hint = f"did you mean {near}?" if near else f"expected some of {', '.join(found)}"
            raise UserError(f"--variants={name} is no row of what was asked for; {hint}")
    return tuple(variant for name, variant in found.items() if name in asked)


def _compared(request: Request, paper: Paper) -> tuple[Variant, ...]:
    """With and without pre-training by labels; of another figure the full way."""
    if request.figure == "labels":
        return paper.variants["full"], paper.variants["no_pretraining"]
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


def further(
    folder: Path, source: TaskSource, best: Mapping, known: Mapping | None
) -> dict[str, dict[str, float]]:
    """The metrics of a run on the other splits that the paper has columns of. What is known of its
    best checkpoint is not measured again."""
    found = {}
    if known is not None and is_of(known, best["step"], best["score"]):
        found = dict(known["further"])
    for column, (name, split) in FURTHER.get(source.name, {}).items():
        if column in found:
            continue
        part = name and source.path and str(Path(source.path).with_name(name))
        try:
            found[column], *_ = trained_model.load(folder).evaluate_task(part or name, split)
        except UserError as error:
            say(f"{source.name} {column}: {error}")
    return found
