"""The paper's ablation in miniature (Radford et al. 2018, table 5), in minutes on two CPU cores.

The quickstart needs no network: it pre-trains on the documentation installed on this machine,
fine-tunes on tasks cut from files it has not seen, and prints what was measured. Each part is kept
in the workdir and not done again, so a quickstart that was stopped goes on where it was.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from gpt1_jax.data import documentation_tasks, task_loading
from gpt1_jax.data.documentation_tasks import Cut
from gpt1_jax.data.task_loading import LoadedTask, TaskConfig
from gpt1_jax.data.tasks import Shape
from gpt1_jax.disk import WorkdirLock, write_json
from gpt1_jax.evaluation import baselines
from gpt1_jax.evaluation.probes import ProbeConfig
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.experiments.clock import Clock, minutes
from gpt1_jax.experiments.config import QuickstartConfig
from gpt1_jax.experiments.plan import (
    CHECKPOINTS,
    PLANNED_SHARE,
    Costs,
    Plan,
    Work,
    plan_within,
    save_plan,
    saved_plan,
)
from gpt1_jax.experiments.runs import BODIES, Run, body_of
from gpt1_jax.experiments.summary import described
from gpt1_jax.inference import probe_curve, trained_model
from gpt1_jax.messages import is_hushed, say, show, tell
from gpt1_jax.recipe import experiment
from gpt1_jax.results import paper
from gpt1_jax.results.paper import Variant
from gpt1_jax.run_files import provenance, read_result
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.documentation import Corpus

CONFIG = "configs/quickstart.py"
VOCAB_SIZE = 2048
# Not those that were looked at while the tasks were chosen, 0 to 2.
SEEDS = (3, 4, 5)
PROMPT = "This function returns"
DEV_EXAMPLES = 500
MOST_LABELS = 2000
# Updates that show the speed of the machine.
SPEED_STEPS = 40
# The zero-shot curve, the baselines and the sample, as so many starts of a run.
OTHER_STARTS = 3.0


def quickstart(config: QuickstartConfig) -> dict:
    """Corpus, tokenizer, pre-training, fine-tuning, the ablation table, a sample.

    Plans for `minutes` on the machine it finds, or for longer where that is too short for a table
    that says something. Returns and writes result.json: `table`, an object by variant of objects by
    task, `sample`, `seconds` (of this call) and what else was measured. Raises UserError for too
    little documentation.
    """
    workdir = Path(config.workdir).expanduser()
    with WorkdirLock(workdir), Clock(60 * config.minutes) as clock:
        prepared = _prepared(workdir, clock)
        costs, plan = _costs_and_plan(prepared, clock, config.minutes)
        result = _measured(prepared, costs, plan, clock)
    write_json(workdir / "result.json", result)
    if not is_hushed():
        show(f"\n{described(result)}\n\n{_next_steps(result, workdir)}")
    return result


@dataclass(frozen=True)
class Prepared:
    """What is there before anything is trained: the corpus, the tasks cut from it, and the tokens
    of the rest."""

    workdir: Path
    corpus: Corpus
    cut: Cut
    n_tokens: int

    @property
    def tokens(self) -> Path:
        return self.workdir / "tokens"

    def pretrained(self, body: str) -> Path:
        return self.workdir / "pretrained" / body

    def finetuned(self, variant: str, task: str, seed: int) -> Path:
        return self.workdir / "finetuned" / variant / f"{task}-{seed}"


def _prepared(workdir: Path, clock: Clock) -> Prepared:
    with clock.part("reading the documentation that is installed here"):
        found = documentation.documents(workers=2)
    tell(found.describe())
    with clock.part("cutting tasks from files that are held out"):
        cut = documentation_tasks.cut(found, train=MOST_LABELS, dev=DEV_EXAMPLES)
    with clock.part("learning a vocabulary and encoding the rest"):
        config = PrepareConfig(output=str(workdir / "tokens"), vocab_size=VOCAB_SIZE, workers=2)
        manifest = corpus.prepare(config, cut.pretraining)
    return Prepared(workdir, found, cut, manifest["splits"]["train"]["tokens"])


# Planning


def _costs_and_plan(prepared: Prepared, clock: Clock, minutes_asked: float) -> tuple[Costs, Plan]:
    """What fits into the time at the speed that a few updates show; that of before, if this
    quickstart goes on."""
    path = prepared.workdir / "plan.json"
    saved = saved_plan(path)
    if saved is None:
        with clock.part("measuring the speed of this machine"):
            costs = _costs(prepared)
        work = _work(prepared, costs)
        seconds = PLANNED_SHARE * 60 * minutes_asked - clock.seconds
        plan = plan_within(seconds, work, costs, MOST_LABELS)
        save_plan(path, plan, costs)
    else:
        plan, costs = saved.plan, saved.costs
        work = _work(prepared, costs)
        tell(f"going on with the plan in {path}")
    clock.expect(work.seconds(plan, costs))
    whole = clock.seconds + clock.seconds_left
    tell(
        f"the plan: {plan.pretraining_steps} updates of pre-training and {plan.labels} labels of "
        f"each task at most, about {minutes(whole)} in all"
    )
    if saved is None and plan.is_least and whole > 60 * minutes_asked:
        say(f"longer than --minutes={minutes_asked:g}: with less the table would say nothing")
    return costs, plan


def _costs(prepared: Prepared) -> Costs:
    """The costs on this machine, from a few updates of each body."""
    settings = {"data.path": str(prepared.tokens), "steps": str(SPEED_STEPS)}
    described, _ = experiment.load(CONFIG, settings)
    tuning, _ = experiment.load(f"{CONFIG}:finetune")
    tokens_of_update = described.batch_size * described.model.n_ctx
    speed, run = {}, {}
    for body in BODIES:
        result = Run(f"{CONFIG}:{body}", settings, prepared.workdir / "speed" / body).result()
        speed[body] = result["tokens_per_s"]
        # The first update compiles, and is not in tokens_per_s.
        run[body] = result["seconds"] - (SPEED_STEPS - 1) * tokens_of_update / speed[body]
    assert tuning.epochs is not None, f"{CONFIG} fine-tunes by epochs"
    label = {}
    for name, task in prepared.cut.tasks.items():
        # A row of multiple choice is as much work as it has choices.
        tokens = tuning.epochs * tuning.data.buckets[0] * len(task.train[0].get("choices", "1"))
        label[name] = {body: tokens / speed[body] for body in BODIES}
    return Costs({body: tokens_of_update / speed[body] for body in BODIES}, label, run)


def _work(prepared: Prepared, costs: Costs) -> Work:
    runs = [
        (task, body_of(variant))
        for variant in paper.read_paper().variants.values()
        for task in prepared.cut.tasks
        for _ in SEEDS
    ]
    return Work(BODIES, tuple(runs), OTHER_STARTS * costs.run["transformer"])


# Measuring


def _measured(prepared: Prepared, costs: Costs, plan: Plan, clock: Clock) -> dict:
    """Everything that is trained and measured, as the object of result.json."""
    cut = _with_labels(prepared.cut, plan.labels)
    folders = documentation_tasks.write(cut.tasks, prepared.workdir / "tasks")
    pretraining = {body: _pretrained(prepared, body, costs, plan, clock) for body in BODIES}
    scores = _scores(prepared, folders, costs, plan, clock)
    with clock.part("baselines, zero-shot curve and a sample", OTHER_STARTS * costs.run[BODIES[0]]):
        measured = {
            "baselines": {
                name: baselines.baselines(_loaded_task(folder, cut.tasks[name].shape))
                for name, folder in folders.items()
            },
            "zero_shot_word_order": _zero_shot_curve(prepared, folders["word_order"]),
            "sample": _sample(prepared.pretrained("transformer")),
        }
    return {
        "table": _by_cell(scores, statistics.mean),
        "spread": _by_cell(scores, lambda values: max(values) - min(values)),
        "scores": scores,
        **measured,
        "tasks": {
            name: {
                "shape": task.shape,
                "question": task.question,
                "train": len(task.train),
                "dev": len(task.dev),
            }
            for name, task in cut.tasks.items()
        },
        "pretraining": {body: result["metrics"] for body, result in pretraining.items()},
        "corpus": prepared.corpus.summary() | {"tokens": prepared.n_tokens},
        "plan": dataclasses.asdict(plan),
        "costs": dataclasses.asdict(costs),
        "seeds": list(SEEDS),
        "seconds": clock.seconds,
        "device": jax.devices()[0].device_kind,
        **provenance(dataclasses.asdict(plan)),
    }


def _pretrained(prepared: Prepared, body: str, costs: Costs, plan: Plan, clock: Clock) -> dict:
    """The result of pre-training a body, with a checkpoint at each quarter."""
    steps = plan.pretraining_steps
    settings = {
        "data.path": str(prepared.tokens),
        "steps": str(steps),
        "checkpoint.every": str(steps // CHECKPOINTS),
        "checkpoint.keep": str(CHECKPOINTS),
    }
    workdir = prepared.pretrained(body)
    done = read_result(workdir) is not None
    name = f"pre-training the {body}, {steps} updates"
    begun = (workdir / "config.json").exists()
    with clock.part(name, costs.pretraining(body, plan), done, begun):
        return Run(f"{CONFIG}:{body}", settings, workdir).result(quiet=done)


def _with_labels(cut: Cut, labels: int) -> Cut:
    """The same tasks with fewer training labels, balanced as before."""
    tasks = {
        name: dataclasses.replace(task, train=task.train[:labels])
        for name, task in cut.tasks.items()
    }
    return dataclasses.replace(cut, tasks=tasks)


def _scores(
    prepared: Prepared, folders: Mapping[str, Path], costs: Costs, plan: Plan, clock: Clock
) -> dict[str, dict[str, list[float]]]:
    """Accuracy on dev of each seed, by variant and task."""
    scores: dict[str, dict[str, list[float]]] = {}
    for variant, row in paper.read_paper().variants.items():
        scores[variant] = {}
        for task, folder in folders.items():
            expected = len(SEEDS) * costs.fine_tuning(task, body_of(row), plan)
            name = f"fine-tuning {variant} on {task}, {len(SEEDS)} seeds"
            runs = [prepared.finetuned(variant, task, seed) for seed in SEEDS]
            done = all(read_result(run) is not None for run in runs)
            begun = any((run / "config.json").exists() for run in runs)
            with clock.part(name, expected, done, begun):
                scores[variant][task] = [_fine_tuned(prepared, row, folder, seed) for seed in SEEDS]
            shown = ", ".join(f"{value:.3f}" for value in scores[variant][task])
            tell(f"{variant} {task}: {shown}")
    return scores


def _fine_tuned(prepared: Prepared, variant: Variant, folder: Path, seed: int) -> float:
    """Accuracy on dev of one run."""
    settings = {
        "task.path": str(folder),
        "task.shape": prepared.cut.tasks[folder.name].shape,
        "task.metric": "accuracy",
        "initial": str(prepared.pretrained(body_of(variant))),
        "seed": str(seed),
    }
    workdir = prepared.finetuned(variant.name, folder.name, seed)
    result = Run(f"{CONFIG}:finetune,{variant.arguments}", settings, workdir).result()
    return result["metrics"]["dev"]["accuracy"]


def _by_cell(scores: dict, of_values: Callable[[list[float]], float]) -> dict:
    return {
        variant: {task: of_values(values) for task, values in row.items()}
        for variant, row in scores.items()
    }


def _loaded_task(folder: Path, shape: Shape) -> LoadedTask:
    return task_loading.load_task(TaskConfig(path=str(folder), shape=shape, metric="accuracy"))


def _zero_shot_curve(prepared: Prepared, folder: Path) -> dict[str, float]:
    """Accuracy of choosing the true word order with no training on it, by updates of pre-training:
    figure 2 (right) of the paper in miniature."""
    config = ProbeConfig(
        path=str(folder.parent),
        question_answering=folder.name,
        sentiment=None,
        acceptability=None,
        pronoun_resolution=None,
    )
    rows = probe_curve.curve(prepared.pretrained("transformer"), config)
    return {str(row["step"]): row["value"] for row in rows}


def _sample(workdir: Path) -> str:
    config = SampleConfig(temperature=0.7, top_k=40, length=48)
    return PROMPT + trained_model.load(workdir).sample(PROMPT, config)[0]


def _next_steps(result: dict, workdir: Path) -> str:
    """The sample, the time it took, and what to try next."""
    pretrained = workdir / "pretrained" / "transformer"
    lines = ["a sample:", result["sample"], "", f"{minutes(result['seconds'])} minutes; next:"]
    lines += [
        f'  gpt1 sample --workdir={pretrained} --prompt="The array" --num_samples=3',
        f"  gpt1 evaluate --workdir={pretrained}",
        "  gpt1 prepare --output=tokens --input='books/*.txt'",
        "  gpt1 train --config=configs/pretrain.py:tiny --workdir=run --config.data.path=tokens",
    ]
    return "\n".join(lines)
