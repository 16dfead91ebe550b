"""What an experiment leaves open, taken from its source of weights, its tokens and its task; and
what does not fit, said before anything starts."""

import dataclasses
from pathlib import Path

import jax
from jax.sharding import Mesh

from gpt1_jax import run_files
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.data.tasks import FIELDS, TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.run_files import COMPUTATION
from gpt1_jax.storage.places import here
from gpt1_jax.text import shards
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.training.goal import Goal
from gpt1_jax.training.state import Initial
from gpt1_jax.weights import workdir as workdirs
from gpt1_jax.weights.source import absolute_source, parse_source, read_weights
from gpt1_jax.weights.weights import model_of, without_padding

# The rows start, delimiter, classify that fine-tuning adds to the token table.
N_SPECIAL = 3


# Model keys that may differ from the source of the weights: they shape no parameter.
FREE_MODEL_KEYS = (
    *COMPUTATION,
    "dropout",
    "embd_dropout",
    "attn_dropout",
    "resid_dropout",
    "clf_dropout",
    "preset",
    "embd_dropout_on",
    "softmax_rows",
    "softmax_positions",
)


def named_source(experiment: Experiment, workdir: Path) -> Initial | None:
    """What `initial` names. A run that has saved a step knows it itself, and never needs the source
    again, which may have moved."""
    source = experiment.initial
    if source is None:
        return None
    saved = any((workdir / "checkpoints").glob("[0-9]*")) or run_files.reached(workdir) is not None
    if saved and (workdir / "config.json").exists():
        config = run_files.read_config(workdir)
        if config.get("initial") == source:
            return Initial(
                source,
                model_of(config["model"], f"{workdir / 'config.json'}: model"),
                loading.load(workdir / "tokenizer"),
                lambda: read_weights(source).params,
                config["resolved"].get("initial"),
            )
    # What has no token is not trained.
    found = without_padding(read_weights(source))
    kind, name = parse_source(source)
    content = workdirs.content(here(name), found.step) if kind == "native" else None
    return Initial(source, found.model, found.tokenizer, lambda: found.params, content)


def the_tokenizer(experiment: Experiment, source: Initial | None) -> Tokenizer:
    """The source's tokenizer, else that of the tokens; both must be the same where both are."""
    path = experiment.data.path
    if path is None and not experiment.is_task:
        raise UserError(
            "data.path is not set: give a folder that `prepare` made; or, to fine-tune, a task, as "
            f"configs/finetune.py:rte does, of {', '.join(TASKS)}; or task.path and task.shape, "
            f"one of {', '.join(FIELDS)}"
        )
    if path is None:
        if source is None:
            raise UserError(
                "a tokenizer is needed: give --initial (weights with their tokenizer) or data.path "
                "(a folder that `prepare` made)"
            )
        return source.tokenizer
    expected = shards.read_manifest(path)["tokenizer"]["fingerprint"]
    where = source.source if source else f"{path}/tokenizer"
    tokenizer = source.tokenizer if source else loading.load(where)
    if tokenizer.fingerprint != expected:
        kind, folder = parse_source(where)
        mode = "" if kind == "native" else f"--tokenizer={tokenizer.mode} "
        raise UserError(
            f"the tokens in {path} were made by another tokenizer ({expected[:12]}) than that in "
            f"{where} ({tokenizer.fingerprint[:12]}); prepare them with {mode}--vocab={folder}"
        )
    return tokenizer


def with_absolute_paths(experiment: Experiment, workdir: Path) -> Experiment:
    """Folders as they are found from anywhere: a run is the same run wherever its command is typed,
    and can be evaluated from elsewhere."""
    initial = absolute_source(experiment.initial)
    if initial and initial.startswith("hf:") and (workdir / "config.json").exists():
        # A folder that has moved since the run began looks like a name on the Hub.
        folder = f"hf:{Path(initial.removeprefix('hf:')).expanduser().absolute()}"
        if run_files.read_config(workdir).get("initial") == folder:
            initial = folder

    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path else str(Path(path).expanduser().absolute())

    return dataclasses.replace(
        experiment,
        initial=initial,
        data=dataclasses.replace(experiment.data, path=absolute(experiment.data.path)),
        task=dataclasses.replace(experiment.task, path=absolute(experiment.task.path)),
        probes=dataclasses.replace(experiment.probes, path=absolute(experiment.probes.path)),
    )


def resolved(
    experiment: Experiment,
    explicit: set[str],
    source: Initial | None,
    tokenizer: Tokenizer,
    loaded: LoadedTask,
) -> Experiment:
    """The experiment with what it left open: sizes of the source, vocabulary, name of the task."""
    model = experiment.model
    chosen = {key.removeprefix("model.") for key in explicit if key.startswith("model.")}
    if source is not None:
        inherited = dataclasses.asdict(source.model)
        for name in sorted(chosen - set(FREE_MODEL_KEYS)):
            if getattr(model, name) != inherited[name]:
                raise UserError(
                    f"model.{name} is {getattr(model, name)}, but {experiment.initial} has "
                    f"{inherited[name]}; leave it out to take the source's"
                )
        free = {name: getattr(model, name) for name in FREE_MODEL_KEYS}
        model = ModelConfig(**{**inherited, **free})
    elif "vocab_size" in chosen and model.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"model.vocab_size is {model.vocab_size}, but the tokenizer has "
            f"{tokenizer.vocab_size} ids; leave it out to take the tokenizer's"
        )
    model = dataclasses.replace(
        model,
        vocab_size=tokenizer.vocab_size,
        n_special=N_SPECIAL if loaded.task.has_head else model.n_special,
    )
    experiment = dataclasses.replace(experiment, model=model)
    if not loaded.task.has_head:
        return experiment
    task = dataclasses.replace(
        experiment.task,
        name=loaded.task.name,
        shape=loaded.task.shape,
        metric=loaded.task.metrics[0],
    )
    return dataclasses.replace(experiment, task=task)


def check_lengths(experiment: Experiment) -> None:
    stride, n_ctx = experiment.eval.stride, experiment.model.n_ctx
    if stride is not None and stride > n_ctx:
        raise UserError(f"eval.stride {stride} is longer than model.n_ctx {n_ctx}")
    if experiment.objective.lm_coef == 0 and not experiment.is_task:
        raise UserError("objective.lm_coef is 0, which leaves pre-training no loss; set it to 1")


def check_devices(experiment: Experiment, mesh: Mesh) -> None:
    data, processes = mesh.shape["data"], jax.process_count()
    microbatch = experiment.batch_size // experiment.optimizer.accumulation
    if microbatch % data or experiment.batch_size % processes:
        raise UserError(
            f"batch_size {experiment.batch_size} in {experiment.optimizer.accumulation} part(s) is "
            f"not divisible by the {data} device(s) along mesh.data; set batch_size to a multiple "
            f"of {data * experiment.optimizer.accumulation}, or mesh.data"
        )
    if experiment.model.n_embd % mesh.shape["model"]:
        raise UserError(
            f"model.n_embd {experiment.model.n_embd} is not divisible by mesh.model "
            f"{mesh.shape['model']}"
        )


def packs(experiment: Experiment, mesh: Mesh) -> bool:
    """Whether `data.packing` is at work. UserError where it is asked for and cannot be."""
    wanted = experiment.data.packing
    possible = experiment.is_task and experiment.model.body == "transformer"
    alone = mesh.size == 1 and experiment.optimizer.accumulation == 1
    if wanted is None:
        return possible and alone and mesh.devices.flat[0].platform == "cpu"
    if wanted and not (possible and alone):
        raise UserError(
            "data.packing=True is for the fine-tuning of a Transformer on one device, without "
            "optimizer.accumulation; leave it out or set it to False"
        )
    return wanted


def with_softmax_positions(experiment: Experiment, goal: Goal) -> Experiment:
    """The experiment with the number of position rows that its softmax runs over.

    The released code shrinks n_ctx to the longest sequence of all three splits, and with it the
    shared table. Here n_ctx stays that of the weights, and the table ends where the task's does.
    """
    model = experiment.model
    if model.choice("softmax_rows") == "tokens":
        return experiment
    longest = goal.longest
    if model.softmax_positions is not None and model.softmax_positions < longest:
        raise UserError(
            f"model.softmax_positions is {model.softmax_positions}, but sequences have up to "
            f"{longest} tokens; leave it out to take as many positions"
        )
    model = dataclasses.replace(model, softmax_positions=model.softmax_positions or longest)
    return dataclasses.replace(experiment, model=model)
