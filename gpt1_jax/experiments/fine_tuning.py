"""The cells that fine-tuning fills: tables 2 to 5 and figure 2 (left), task by task."""

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
from gpt1_jax.experiments.runs import body_of, config_string, result_of
from gpt1_jax.inference import trained_model
from gpt1_jax.messages import say, tell
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
                self.fill_cell(variant, source, weights.of(body_of(variant)), ledger, count)
            except UserError as error:
                ledger.add_failure(variant.name, source.name, figure, str(error))

    def fill_cell(
        self, variant: Variant, source: TaskSource, initial: str, ledger: Ledger, count: Count
    ) -> None:
        """The runs of one variant on one task: a seed each, in figure 2 also a depth each."""
        spec, common = self.config(variant, source)
        depths: list[int | None] = [None]
        seeds = self.request.seeds
        if self.request.figure == "2left":
            depths = list(range(trained_model.load(initial).model_config.n_layer + 1))
            common = {"eval.train_examples": str(TRAIN_EXAMPLES), **common}
        for depth in depths:
            kind = variant.name if depth is None else f"transfer_{depth}"
            for seed in seeds:
                own = {"initial": initial, "seed": str(seed)}
                if depth is not None:
                    own["n_transfer"] = str(depth)
                folder = Path("finetuned", kind, f"{source.name}-{seed}")
                with count.run(made=not ledger.has_run(folder)):
                    result = result_of(spec, {**common, **own}, ledger.workdir / folder)
                score, far = result["best"]["score"], count.said(len(depths) * len(seeds))
                tell(f"{kind} {source.name}, seed {seed}: {score:.3f} ({far})")
                if ledger.has_run(folder):
                    continue
                ledger.add_run(
                    {
                        "variant": variant.name,
                        "task": source.name,
                        "seed": seed,
                        "n_transfer": depth,
                        "figure": self.request.figure,
                        "folder": str(folder),
                        "value": score,
                        "further": {}
                        if depth is not None
                        else further(ledger.workdir / folder, source),
                    }
                )


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
        **baselines.baselines(loaded),
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
