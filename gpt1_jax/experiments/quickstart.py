"""The paper's ablation in miniature (Radford et al. 2018, table 5), in minutes on two CPU cores.

The quickstart needs no network: it pre-trains on the documentation installed on this machine,
fine-tunes on tasks cut from files it has not seen, and prints what was measured. Each part is kept
in the workdir and not done again, so a quickstart that was stopped goes on where it was.
"""

import dataclasses
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from gpt1_jax import json_files
from gpt1_jax.data import documentation_tasks, task_loading
from gpt1_jax.data.documentation_tasks import Cut
from gpt1_jax.data.task_loading import TaskConfig
from gpt1_jax.disk import WorkdirLock, write_json
from gpt1_jax.evaluation import baselines
from gpt1_jax.evaluation.probes import ProbeConfig
from gpt1_jax.experiments.config import QuickstartConfig
from gpt1_jax.experiments.reproduce import body_of, run
from gpt1_jax.inference import probe_curve, trained_model
from gpt1_jax.inference.config import SampleConfig
from gpt1_jax.inference.trained_model import TrainedModel
from gpt1_jax.messages import say
from gpt1_jax.recipe import experiment
from gpt1_jax.results import paper
from gpt1_jax.run_files import provenance
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig

CONFIG = "configs/quickstart.py"
VOCAB_SIZE = 2048
SEEDS = (0, 1)
BODIES = ("transformer", "lstm")
VARIANTS = paper.read_paper().variants
PROMPT = "This function returns"
# What reading, compiling and evaluating take on two cores, however little is trained. Of the rest,
# pre-training both bodies has one half and fine-tuning the other.
RESERVED_SECONDS = 200
SPEED_STEPS = 40
DEV_EXAMPLES = 500
MOST_LABELS = 2000
# Tasks come in groups of rows in which all labels are equally frequent; this is a whole number of
# groups for each of them.
LABELS_STEP = 40


@dataclass(frozen=True)
class Plan:
    """How much there is time for: updates of pre-training, the same for both bodies, with a
    checkpoint at each quarter, and training labels of each task. tokens_per_s is by body."""

    pretraining_steps: int
    labels: int
    tokens_per_s: dict[str, float]


def quickstart(config: QuickstartConfig) -> dict:
    """Corpus, tokenizer, pre-training, fine-tuning, the ablation table, a sample.

    Plans for `minutes` on the machine it finds, though it takes two or three at least. Returns and
    writes result.json: `table`, an object by variant of objects by task, `sample`, `seconds` (of
    this call) and what else was measured. Raises UserError for too little documentation.
    """
    workdir = Path(config.workdir).expanduser()
    with WorkdirLock(workdir):
        return _quickstart(workdir, config.minutes)


def _quickstart(workdir: Path, minutes: float) -> dict:
    began = time.monotonic()
    say("reading the documentation that is installed here")
    found = documentation.documents(workers=2)
    say(found.describe())
    cut = documentation_tasks.cut(found, train=MOST_LABELS, dev=DEV_EXAMPLES)
    tokens = corpus.prepare(
        PrepareConfig(output=str(workdir / "tokens"), vocab_size=VOCAB_SIZE, workers=2),
        cut.pretraining,
    )
    plan = _plan(workdir, minutes, cut)
    cut = _with_labels(cut, plan.labels)
    folders = documentation_tasks.write(cut.tasks, workdir / "tasks")
    pretraining = {body: _pretrained(workdir, body, plan) for body in BODIES}
    result = {
        **_ablation(workdir, folders, cut),
        "zero_shot_word_order": _zero_shot_curve(workdir, folders["word_order"]),
        "pretraining": {body: result["metrics"] for body, result in pretraining.items()},
        "sample": _sample(trained_model.load(workdir / "pretrained" / "transformer")),
        "corpus": found.summary() | {"tokens": tokens["splits"]["train"]["tokens"]},
        "plan": dataclasses.asdict(plan),
        "seeds": list(SEEDS),
        "seconds": time.monotonic() - began,
        "device": jax.devices()[0].device_kind,
        **provenance(dataclasses.asdict(plan)),
    }
    write_json(workdir / "result.json", result)
    say(_described(result, cut, workdir))
    return result


def _pretrained(workdir: Path, body: str, plan: Plan) -> dict:
    """The result of pre-training a body."""
    say(f"pre-training the {body}, {plan.pretraining_steps} updates")
    settings = {
        "data.path": str(workdir / "tokens"),
        "steps": str(plan.pretraining_steps),
        "checkpoint.every": str(plan.pretraining_steps // 4),
        "checkpoint.keep": "4",
    }
    return run(f"{CONFIG}:{body}", settings, workdir / "pretrained" / body, quiet=False)


def _plan(workdir: Path, minutes: float, cut: Cut) -> Plan:
    """What fits into the time at the speed that a few updates show; remembered, so that a
    quickstart that goes on keeps to it."""
    path = workdir / "plan.json"
    if path.exists():
        plan = json_files.read(path, Plan, "delete it to plan again")
        say(f"going on with the plan in {path}: {plan}")
        return plan
    settings = {"data.path": str(workdir / "tokens"), "steps": str(SPEED_STEPS)}
    speed = {
        body: run(f"{CONFIG}:{body}", settings, workdir / "speed" / body)["tokens_per_s"]
        for body in BODIES
    }
    described, _ = experiment.load(CONFIG, settings)
    tuning, _ = experiment.load(f"{CONFIG}:finetune")
    seconds = max(60 * minutes - RESERVED_SECONDS, 6 * minutes) / 2
    tokens_per_update = described.batch_size * described.model.n_ctx
    updates = int(seconds / sum(tokens_per_update / speed[body] for body in BODIES))
    # A row of multiple choice is as much work as it has choices.
    candidates = sum(len(task.train[0].get("choices", "1")) for task in cut.tasks.values())
    per_label = tuning.data.buckets[0] * candidates
    seconds_per_label = sum(
        len(SEEDS) * tuning.epochs * per_label / speed[body_of(variant)]
        for variant in VARIANTS.values()
    )
    labels = int(seconds / seconds_per_label)
    plan = Plan(
        pretraining_steps=max(40, updates // 4 * 4),
        labels=min(max(3 * LABELS_STEP, labels // LABELS_STEP * LABELS_STEP), MOST_LABELS),
        tokens_per_s=speed,
    )
    write_json(path, dataclasses.asdict(plan))
    return plan


def _with_labels(cut: Cut, labels: int) -> Cut:
    """The same tasks with fewer training labels, balanced as before."""
    tasks = {
        name: dataclasses.replace(task, train=task.train[:labels])
        for name, task in cut.tasks.items()
    }
    return dataclasses.replace(cut, tasks=tasks)


def _zero_shot_curve(workdir: Path, folder: Path) -> dict[str, float]:
    """Accuracy of choosing the true word order with no training on it, by updates of pre-training:
    figure 2 (right) of the paper in miniature."""
    config = ProbeConfig(
        path=str(folder.parent),
        question_answering=folder.name,
        sentiment=None,
        acceptability=None,
        pronoun_resolution=None,
    )
    rows = probe_curve.curve(workdir / "pretrained" / "transformer", config)
    return {str(row["step"]): row["value"] for row in rows}


def _load_task(folder: Path, shape: str) -> task_loading.LoadedTask:
    return task_loading.load_task(TaskConfig(path=str(folder), shape=shape, metric="accuracy"))


def _ablation(workdir: Path, folders: Mapping[str, Path], cut: Cut) -> dict:
    """Mean accuracy on dev by variant and task, its spread over seeds, and the baselines."""
    table, spread, scores = {}, {}, {}
    for variant, row in VARIANTS.items():
        table[variant], spread[variant], scores[variant] = {}, {}, {}
        for name, folder in folders.items():
            values = []
            for seed in SEEDS:
                settings = {
                    "task.path": str(folder),
                    "task.shape": cut.tasks[name].shape,
                    "task.metric": "accuracy",
                    "initial": str(workdir / "pretrained" / body_of(row)),
                    "seed": str(seed),
                }
                place = workdir / "finetuned" / variant / f"{name}-{seed}"
                result = run(f"{CONFIG}:finetune,{row.arguments}", settings, place)
                values.append(result["metrics"]["dev"]["accuracy"])
            table[variant][name] = statistics.mean(values)
            spread[variant][name] = max(values) - min(values)
            scores[variant][name] = values
            shown = ", ".join(f"{value:.3f}" for value in values)
            say(f"{variant} {name}: {shown}")
    plain = {
        name: baselines.baselines(_load_task(folder, cut.tasks[name].shape))
        for name, folder in folders.items()
    }
    return {"table": table, "spread": spread, "scores": scores, "baselines": plain}


def _gain(scores: dict, task: str) -> str:
    """What pre-training changed in a task, beside the difference that a seed makes."""
    with_it, without = scores["full"][task], scores["no_pretraining"][task]
    gain = statistics.mean(with_it) - statistics.mean(without)
    spread = max(max(values) - min(values) for values in (with_it, without))
    verdict = "more than" if abs(gain) > spread else "within"
    return f"{100 * gain:+.1f} points, {verdict} the seeds' spread of {100 * spread:.1f}."


def _sample(model: TrainedModel) -> str:
    config = SampleConfig(temperature=0.7, top_k=40, length=48)
    return PROMPT + model.sample(PROMPT, config)[0]


def _described(result: dict, cut: Cut, workdir: Path) -> str:
    """The tables as text, with what to try next."""
    names = list(cut.tasks)
    width = max(len(name) for name in [*VARIANTS, "bag of words"]) + 2

    def row(name: str, cells) -> str:
        return name.ljust(width) + "".join(cell.rjust(18) for cell in cells)

    lines = ["", row("accuracy on dev, %", names)]
    for variant in VARIANTS:
        cells = [
            f"{100 * result['table'][variant][n]:.1f} ±{50 * result['spread'][variant][n]:.1f}"
            for n in names
        ]
        lines.append(row(variant, cells))
    for baseline in ("chance", "majority", "bag_of_words"):
        cells = [f"{100 * result['baselines'][name][baseline]:.1f}" for name in names]
        lines.append(row(baseline.replace("_", " "), cells))
    counts = [f"{len(task.train)} + {len(task.dev)}" for task in cut.tasks.values()]
    lines.append(row("train + dev", counts))
    lines += ["", f"mean of seeds {SEEDS}; ± is half of the difference between them"]
    for task in cut.tasks.values():
        gained = _gain(result["scores"], task.name)
        lines.append(f"{task.name} ({task.shape}): {task.question} Pre-training {gained}")
    curve = result["zero_shot_word_order"].items()
    steps = ", ".join(f"{100 * accuracy:.1f} % after {step}" for step, accuracy in curve)
    lines += ["", f"word order with no training on it, by updates of pre-training: {steps}"]
    lines += ["", "a sample:", result["sample"], "", f"{result['seconds']:.0f} seconds; next:"]
    pretrained = workdir / "pretrained" / "transformer"
    lines += [
        f'  gpt1 sample --workdir={pretrained} --prompt="The array" --num_samples=3',
        f"  gpt1 evaluate --workdir={pretrained}",
        "  gpt1 prepare --output=tokens --input='books/*.txt'",
        "  gpt1 train --config=configs/pretrain.py:tiny --workdir=run --config.data.path=tokens",
    ]
    return "\n".join(lines)
