"""Many runs that make a table or a figure of the paper.

Each run has a folder of its own in the workdir and is not done again, so a reproduction that was
stopped goes on where it was, and another table in the same workdir shares what they have in common.
What there is, and why the rest is missing, stands in reproduction.json, which is all that the
report needs besides the folders of the runs.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from gpt1_jax.data import task_loading
from gpt1_jax.data.task_loading import LoadedTask, TaskConfig
from gpt1_jax.data.tasks import TASKS
from gpt1_jax.disk import WorkdirLock
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import baselines
from gpt1_jax.evaluation.probes import PROBES, ProbeConfig
from gpt1_jax.experiments.config import Request
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.inference import probe_curve, trained_model
from gpt1_jax.messages import say
from gpt1_jax.recipe import experiment
from gpt1_jax.recipe.config_values import require_keys
from gpt1_jax.results import paper, report
from gpt1_jax.results.paper import Variant
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.training.train import train

# The columns of the paper that are other splits of a task, or a part of it that is a task as well:
# by the name the report knows them by, the task (None: itself) and its split.
FURTHER: dict[str, dict[str, tuple[str | None, str]]] = {
    "mnli": {"dev_mismatched": (None, "dev_mismatched")},
    "race": {"dev_middle": ("race_middle", "dev"), "dev_high": ("race_high", "dev")},
}
# What each task is a question of, in figure 2 (right); any other multiple choice is one of answers.
PROBE_OF = {"sst2": "sentiment", "cola": "acceptability", "dprd": "pronoun_resolution"}
# Small pre-training without tokens of one's own reads the documentation that is installed.
SMALL_VOCAB_SIZE = 4096
# Training examples on which figure 2 (left) is drawn as well.
TRAIN_EXAMPLES = 500


def body_of(variant: Variant) -> str:
    """Which pre-trained body a row of table 5 starts from."""
    return "lstm" if variant.pretraining.endswith(":lstm") else "transformer"


def run(spec: str, settings: Mapping[str, str], workdir: Path, quiet: bool = True) -> dict:
    """The result of a run of a config, trained now or before."""
    described, explicit = experiment.load(spec, settings)
    return train(described, explicit, workdir, quiet=quiet)


def reproduce(request: Request) -> dict:
    """Runs what is missing of a table or figure, and reports on all that the workdir has.

    Returns `table`: the median over seeds by variant and task, None where there is no run;
    `missing`: why; `report`: its folder. Raises UserError for what does not fit, and Interrupted
    after a signal.
    """
    require_keys(request.settings, experiment.KEYS)
    workdir = Path(request.workdir).expanduser()
    sources = _sources(request)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; expected a folder")
    with contextlib.ExitStack() as closing:
        closing.callback(WorkdirLock(workdir).release)
        ledger = Ledger(workdir, request.scale, request.seeds)
        if request.figure == "2right":
            _probe(request, sources, ledger)
        elif request.table != 1:
            _fine_tune(request, sources, ledger)
        ledger.save()
        written = report.report(workdir, workdir / "report")
    return {
        "scale": request.scale,
        "seeds": list(request.seeds),
        "table": ledger.table(list(sources)),
        "probes": ledger.content["probes"],
        "missing": ledger.content["missing"],
        "report": str(workdir / "report"),
        "files": written["files"],
    }


def _sources(request: Request) -> dict[str, TaskConfig]:
    """Where each task is read from, by name: a folder that was named, one of task_data, or TFDS."""
    names = request.tasks or _tasks_of_the_paper(request)
    sources = {}
    for name in names:
        folder = Path(name).expanduser()
        if name in TASKS:
            folder = Path(request.task_data or "", name) if request.task_data else None
        elif folder.is_dir() and folder.name in TASKS:
            name = folder.name
        else:
            known = ", ".join(TASKS)
            raise UserError(
                f"--tasks={name} is neither a known task nor the folder of one: {known}"
            )
        # A task that the folder does not have is missing: TFDS takes minutes to say that it cannot.
        path = None if folder is None else str(folder.expanduser().absolute())
        sources[name] = TaskConfig(name=name, path=path, data_dir=request.data_dir)
    if request.task_data and not Path(request.task_data).expanduser().is_dir():
        raise UserError(f"--task_data={request.task_data} is not a folder")
    return sources


def _tasks_of_the_paper(request: Request) -> tuple[str, ...]:
    index = paper.read_paper()
    if request.figure is not None:
        return index.figures[request.figure].tasks
    return () if request.table == 1 else index.tasks(request.table)


# Fine-tuning


def _fine_tune(request: Request, sources: dict[str, TaskConfig], ledger: Ledger) -> None:
    """The runs of tables 2 to 5 and of figure 2 (left), task by task."""
    index = paper.read_paper()
    rows = index.tables[request.table].rows if request.table else ()
    variants = [index.variants[row.variant] for row in rows if row.variant]
    variants = variants or [index.variants["full"]]
    starts: dict[str, str] = {}
    for name, source in sources.items():
        try:
            settings = {**_of_task(source), **request.settings}
            described, _ = experiment.load(_spec(request, "finetune", name), settings)
            loaded = task_loading.load_task(described.task)
        except UserError as error:
            for variant in variants:
                ledger.miss(variant.name, name, request.figure, str(error))
            continue
        if name not in ledger.content["baselines"]:
            ledger.content["baselines"][name] = _baselines(loaded)
            ledger.save()
        for variant in variants:
            body = body_of(variant)
            try:
                starts[body] = starts.get(body) or _start(request, body, ledger)
                _cell(request, ledger, variant, source, starts[body])
            except UserError as error:
                ledger.miss(variant.name, name, request.figure, str(error))


def _of_task(source: TaskConfig) -> dict[str, str | None]:
    """Where a task is read from, as config keys."""
    return {"task.path": source.path, "task.data_dir": source.data_dir}


def _baselines(loaded: LoadedTask) -> dict:
    return {
        "split": "dev",
        "metric": loaded.task.metric,
        **baselines.baselines(loaded),
        "examples": {split: len(examples) for split, examples in loaded.splits.items()},
    }


def _cell(request: Request, ledger: Ledger, variant: str, source: TaskConfig, initial: str) -> None:
    """The runs of one variant on one task: a seed each, in figure 2 also a depth each."""
    depths: list[int | None] = [None]
    if request.figure == "2left":
        depths = list(range(trained_model.load(initial).model_config.n_layer + 1))
    for depth in depths:
        for seed in request.seeds:
            settings = {
                **_of_task(source),
                "initial": initial,
                "seed": str(seed),
                **request.settings,
            }
            kind = variant.name
            if depth is not None:
                kind = f"transfer_{depth}"
                settings |= {"n_transfer": str(depth), "eval.train_examples": str(TRAIN_EXAMPLES)}
            folder = Path("finetuned", kind, f"{source.name}-{seed}")
            spec = _spec(request, "finetune", source.name, variant.arguments)
            result = run(spec, settings, ledger.workdir / folder)
            say(f"{kind} {source.name}, seed {seed}: {result['best']['score']:.3f}")
            if ledger.has(folder):
                continue
            ledger.add(
                {
                    "variant": variant.name,
                    "task": source.name,
                    "seed": seed,
                    "n_transfer": depth,
                    "figure": request.figure,
                    "folder": str(folder),
                    "value": result["best"]["score"],
                    "further": _further(ledger.workdir / folder, source) if depth is None else {},
                }
            )


def _further(folder: Path, source: TaskConfig) -> dict[str, dict[str, float]]:
    """The metrics of a run on the other splits that the paper has columns of."""
    found = {}
    for column, (name, split) in FURTHER.get(source.name, {}).items():
        part = name and source.path and str(Path(source.path).with_name(name))
        try:
            found[column], *_ = trained_model.load(folder).evaluate_task(part or name, split)
        except UserError as error:
            say(f"{source.name} {column}: {error}")
    return found


def _spec(request: Request, file: str, *words: str) -> str:
    small = ["small"] if request.scale == "small" else []
    arguments = ",".join(filter(None, [*small, *words]))
    return f"configs/{file}.py" + (f":{arguments}" if arguments else "")


# Pre-training


def _start(request: Request, body: str, ledger: Ledger) -> str:
    """The weights that fine-tuning starts from: those given, or those pre-trained here."""
    given = request.initial_lstm if body == "lstm" else request.initial
    if given is not None:
        found = trained_model.load(given).model_config.body
        if found != body:
            raise UserError(f"{given} holds a {found}, expected a {body}")
        within = Path(given).absolute().is_relative_to(ledger.workdir.absolute())
        ledger.content["pretraining"][body] = (
            str(Path(given).absolute().relative_to(ledger.workdir.absolute())) if within else given
        )
        return given
    words = ["lstm"] if body == "lstm" else []
    folder = Path("pretrained", body)
    settings = {"data.path": str(_tokens(request, ledger.workdir)), **request.settings}
    say(f"pre-training the {body}")
    run(_spec(request, "pretrain", *words), settings, ledger.workdir / folder, quiet=False)
    ledger.content["pretraining"][body] = str(folder)
    ledger.save()
    return str(ledger.workdir / folder)


def _tokens(request: Request, workdir: Path) -> Path:
    """What to pre-train on: the tokens that were named, or at small scale the documentation."""
    if request.data is not None:
        return Path(request.data).expanduser()
    if request.scale != "small":
        raise UserError(
            "nothing to pre-train on: give --data (a folder of `prepare`), or weights with "
            "--initial and --initial_lstm"
        )
    found = documentation.documents(workers=2)
    say(found.describe())
    output = workdir / "tokens"
    config = PrepareConfig(output=str(output), vocab_size=SMALL_VOCAB_SIZE, workers=2)
    corpus.prepare(config, found.documents)
    return output


# Probes


def _probe(request: Request, sources: dict[str, TaskConfig], ledger: Ledger) -> None:
    """The zero-shot probes on every stored checkpoint of both bodies: figure 2 (right)."""
    config = _probe_config(request, sources)
    for body in ("transformer", "lstm"):
        try:
            start = _start(request, body, ledger)
            rows = probe_curve.curve(start, config)
        except UserError as error:
            ledger.miss(body, "probes", request.figure, str(error))
            continue
        others = [row for row in ledger.content["probes"] if row["body"] != body]
        ledger.content["probes"] = others + rows
        ledger.content["anchors"] |= {row["probe"]: row["anchors"] for row in rows}
        ledger.forgive(body, "probes", request.figure)
        ledger.save()


def _probe_config(request: Request, sources: dict[str, TaskConfig]) -> ProbeConfig:
    """Each probe on the first of the tasks that it can be asked about."""
    chosen = dict.fromkeys(PROBES)
    for name in sources:
        probe = PROBE_OF.get(name, "question_answering")
        chosen[probe] = chosen[probe] or name
    return ProbeConfig(path=request.task_data, data_dir=request.data_dir, **chosen)
