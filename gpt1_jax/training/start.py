"""Where a run begins: everything that can be known before the first step, checked before it.

Starting points in order: the newest sound checkpoint of the workdir; the weights of `initial`;
fresh parameters.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gpt1_jax.data import tasks, transformations
from gpt1_jax.data.batches import Examples, Windows
from gpt1_jax.data.tasks import LoadedTask
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import probes
from gpt1_jax.evaluation.probes import Question
from gpt1_jax.model.gpt import ModelConfig
from gpt1_jax.model.objective import Network, network
from gpt1_jax.results import record
from gpt1_jax.text import corpus
from gpt1_jax.text import tokenizer as tokenizers
from gpt1_jax.text.corpus import Tokens
from gpt1_jax.text.tokenizer import Tokenizer
from gpt1_jax.training import checkpoint, native_format, released_weights, sharding
from gpt1_jax.training.checkpoint import Checkpoints
from gpt1_jax.training.experiment import COMPUTATION, Experiment
from gpt1_jax.training.optimizer import OptimizerConfig, optimizer

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


@dataclass
class Run:
    """A run that is ready to take its next step, the one after `first_step`.

    state: {"params", "optimizer", "step"} on the devices of `mesh`; progress: what a checkpoint
    says besides (step, best_step, best_score); `held_out`: the token stream or the dev examples;
    `questions`: the zero-shot probes, none where they are off.
    """

    experiment: Experiment
    workdir: Path
    mesh: Mesh
    network: Network
    source: Windows | Examples
    held_out: Tokens | Examples | None
    task: LoadedTask | None
    questions: list[Question]
    total_steps: int
    first_step: int
    state: dict[str, Any]
    progress: dict[str, Any]
    checkpoints: Checkpoints
    lock: record.WorkdirLock | None
    config: dict[str, Any]

    @property
    def last_step(self) -> int:
        """Where this call ends, which `stop_after` may put before the end of the run."""
        return min(self.experiment.stop_after or self.total_steps, self.total_steps)

    def close(self) -> None:
        """Ends writing, and lets another process have the workdir."""
        self.checkpoints.close()
        if self.lock:
            self.lock.release()

    @property
    def rows(self) -> slice:
        """The rows of each global batch that the devices of this process hold."""
        shape = (self.experiment.batch_size,)
        indices = sharding.batch_sharding(self.mesh).addressable_devices_indices_map(shape)
        starts, stops, _ = zip(*(rows.indices(*shape) for (rows,) in indices.values()), strict=True)
        return slice(min(starts), max(stops))


def start(experiment: Experiment, explicit: set[str], workdir: Path, say=None) -> Run:
    """The run, resumed or new. `explicit` are the config keys that were set rather than defaulted;
    `say` gets a line about each thing worth knowing. Raises UserError for whatever does not fit."""
    say = say or (lambda line: print(line, file=sys.stderr))
    experiment = _with_absolute_paths(experiment)
    initial = _initial(experiment, workdir)
    tokenizer = _tokenizer(experiment, initial)
    loaded = tasks.load(experiment.task) if experiment.is_task else None
    experiment = _resolved(experiment, explicit, initial, tokenizer, loaded)
    _check_lengths(experiment)
    mesh = sharding.mesh(experiment.mesh)
    _check_devices(experiment, mesh)
    source, held_out, data = _data(experiment, tokenizer, loaded, say)
    questions = _questions(experiment, tokenizer, say)
    experiment = _with_softmax_positions(experiment, tokenizer, loaded, source, held_out)
    total = experiment.steps or max(1, int(experiment.epochs * source.steps_per_epoch))
    net = network(
        experiment.model,
        experiment.attention.implementation,
        loaded and loaded.task.shape,
        loaded.n_outputs if loaded else 0,
    )
    config = _config(experiment, tokenizer, data, loaded, total, questions)
    shapes, shardings, fresh = initial_state(net, experiment.optimizer, mesh)
    with contextlib.ExitStack() as undone:
        lock = _claim(workdir, config)
        if lock:
            undone.callback(lock.release)
        checkpoint.check_space(workdir, shapes)
        checkpoints = Checkpoints(workdir, experiment.checkpoint)
        undone.callback(checkpoints.close)
        abstract = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            shardings,
        )
        state, progress = _resumed(checkpoints, abstract, say) or _begun(
            experiment, fresh, initial, shardings
        )
        if jax.process_index() == 0:
            record.write_json(workdir / "config.json", config)
            tokenizer.save(workdir / "tokenizer")
        undone.pop_all()
    return Run(
        experiment=experiment,
        workdir=workdir,
        mesh=mesh,
        network=net,
        source=source,
        held_out=held_out,
        task=loaded,
        questions=questions,
        total_steps=total,
        first_step=progress["step"],
        state=state,
        progress=progress,
        checkpoints=checkpoints,
        lock=lock,
        config=config,
    )


@dataclass(frozen=True)
class Initial:
    """The weights to start from, as far as they are known before they are needed."""

    source: str
    model: ModelConfig
    tokenizer: Tokenizer
    params: Callable[[], dict]


def _initial(experiment: Experiment, workdir: Path) -> Initial | None:
    """What `initial` names. A run that has begun knows it itself, and needs the source only if none
    of its checkpoints is sound."""
    source = experiment.initial
    if source is None:
        return None
    if (workdir / "config.json").exists() and any((workdir / "checkpoints").glob("[0-9]*")):
        config = native_format.read_config(workdir)
        if config.get("initial") == source:
            return Initial(
                source,
                ModelConfig(**config["model"]),
                tokenizers.load(workdir / "tokenizer"),
                lambda: released_weights.read(source).params,
            )
    found = released_weights.read(source)
    return Initial(source, found.model, found.tokenizer, lambda: found.params)


def _tokenizer(experiment: Experiment, source: Initial | None) -> Tokenizer:
    """The source's tokenizer, else that of the tokens; both must be the same where both are."""
    path = experiment.data.path
    if path is None and not experiment.is_task:
        raise UserError(
            "data.path is not set: give a folder that `prepare` made; or task.path, to fine-tune"
        )
    if path is None:
        if source is None:
            raise UserError(
                "a tokenizer is needed: set initial (weights with their tokenizer) or data.path (a "
                "folder that `prepare` made)"
            )
        return source.tokenizer
    expected = corpus.read_manifest(path)["tokenizer"]["fingerprint"]
    where = source.source if source else str(Path(path) / "tokenizer")
    tokenizer = source.tokenizer if source else tokenizers.load(where)
    if tokenizer.fingerprint != expected:
        kind, folder = released_weights.parse(where)
        mode = "" if kind == "native" else f"--tokenizer={tokenizer.mode} "
        raise UserError(
            f"the tokens in {path} were made by another tokenizer ({expected[:12]}) than that in "
            f"{where} ({tokenizer.fingerprint[:12]}); prepare them with {mode}--vocab={folder}"
        )
    return tokenizer


def _with_absolute_paths(experiment: Experiment) -> Experiment:
    """Folders as they are found from anywhere: a run is the same run wherever its command is typed,
    and can be evaluated from elsewhere."""

    def absolute(path: str | None) -> str | None:
        return path if path is None or "://" in path else str(Path(path).expanduser().absolute())

    return dataclasses.replace(
        experiment,
        initial=released_weights.absolute(experiment.initial),
        data=dataclasses.replace(experiment.data, path=absolute(experiment.data.path)),
        task=dataclasses.replace(experiment.task, path=absolute(experiment.task.path)),
        probes=dataclasses.replace(experiment.probes, path=absolute(experiment.probes.path)),
    )


def _resolved(
    experiment: Experiment,
    explicit: set[str],
    source: Initial | None,
    tokenizer: Tokenizer,
    loaded: LoadedTask | None,
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
        n_special=N_SPECIAL if loaded else model.n_special,
    )
    experiment = dataclasses.replace(experiment, model=model)
    if loaded is None:
        return experiment
    task = dataclasses.replace(
        experiment.task,
        name=loaded.task.name,
        shape=loaded.task.shape,
        metric=loaded.task.metric,
    )
    return dataclasses.replace(experiment, task=task)


def _check_lengths(experiment: Experiment) -> None:
    stride, n_ctx = experiment.eval.stride, experiment.model.n_ctx
    if stride is not None and stride > n_ctx:
        raise UserError(f"eval.stride {stride} is longer than model.n_ctx {n_ctx}")
    if experiment.objective.lm_coef == 0 and not experiment.is_task:
        raise UserError("objective.lm_coef is 0, which leaves pre-training no loss; set it to 1")


def _check_devices(experiment: Experiment, mesh: Mesh) -> None:
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
    if experiment.attention.implementation == "cudnn" and (
        jax.default_backend() != "gpu"
        or experiment.model.rate("attn") > 0
        or experiment.model.dtype == "float32"
    ):
        raise UserError(
            "attention.implementation=cudnn needs an NVIDIA GPU, model.attn_dropout=0 and "
            "model.dtype bfloat16 or float16; use attention.implementation=plain"
        )


def _data(experiment: Experiment, tokenizer: Tokenizer, loaded: LoadedTask | None, say):
    """Training source, held-out data, and a digest of both."""
    config, model = experiment.data, experiment.model
    if loaded is not None:
        # Examples that are missing are no progress either.
        for note in loaded.notes:
            print(note, file=sys.stderr)
        sources, digest = {}, hashlib.sha256()
        for split in ("train", "dev"):
            candidates, cut = transformations.encode_all(
                loaded.splits[split],
                loaded.task.shape,
                tokenizer,
                model.n_ctx,
                loaded.task.truncation,
            )
            say(f"{loaded.task.name} {split}: {len(candidates)} examples, {cut} cut to fit n_ctx")
            targets = loaded.targets(split)
            digest.update(json.dumps([candidates, targets.tolist()]).encode())
            sources[split] = Examples(
                candidates,
                targets,
                n_ctx=model.n_ctx,
                batch_size=experiment.batch_size,
                seed=experiment.seed,
                buckets=config.buckets,
            )
        _ = sources["train"].steps_per_epoch  # refuses a training set smaller than a batch
        return sources["train"], sources["dev"], digest.hexdigest()
    manifest = corpus.read_manifest(config.path)
    separator = tokenizer.separator(config.separator)
    tokens = Tokens.open(config.path, "train", separator)
    held_out = (
        Tokens.open(config.path, "valid", separator) if "valid" in manifest["splits"] else None
    )
    if held_out is not None and len(held_out) < 2:
        say(f"the valid split of {config.path} has one token, too few to evaluate")
        held_out = None
    source = Windows(tokens, model.n_ctx, experiment.batch_size, experiment.seed, config.windows)
    checksums = [shard["sha256"] for s in manifest["splits"].values() for shard in s["shards"]]
    return source, held_out, hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


def _questions(experiment: Experiment, tokenizer: Tokenizer, say) -> list[Question]:
    config = experiment.probes
    if not config.per_decade:
        return []
    separator = tokenizer.separator(experiment.data.separator)
    beginning = [] if separator is None else [separator]
    questions = probes.prepare(config, tokenizer, beginning, experiment.model.n_ctx)
    for question in questions:
        dev = question.dev
        say(f"{question.probe}: {len(dev.labels)} of {question.task}, {dev.cut} cut to fit n_ctx")
    return questions


def _with_softmax_positions(experiment: Experiment, tokenizer, loaded, source, held_out):
    """The experiment with the number of position rows that its softmax runs over.

    The released code shrinks n_ctx to the longest sequence of all three splits, and with it the
    shared table. Here n_ctx stays that of the weights, and the table ends where the task's does.
    """
    model = experiment.model
    if model.choice("softmax_rows") == "tokens":
        return experiment
    longest = model.n_ctx
    if loaded is not None:
        longest = max(source.longest, held_out.longest)
        if "test" in loaded.available:
            test, _ = transformations.encode_all(
                tasks.load(experiment.task, only="test").splits["test"],
                loaded.task.shape,
                tokenizer,
                model.n_ctx,
                loaded.task.truncation,
            )
            longest = max(longest, *(len(ids) for candidates in test for ids in candidates))
    if model.softmax_positions is not None and model.softmax_positions < longest:
        raise UserError(
            f"model.softmax_positions is {model.softmax_positions}, but sequences have up to "
            f"{longest} tokens; leave it out to take as many positions"
        )
    model = dataclasses.replace(model, softmax_positions=model.softmax_positions or longest)
    return dataclasses.replace(experiment, model=model)


def _config(
    experiment: Experiment, tokenizer: Tokenizer, data: str, loaded, total: int, questions
) -> dict:
    """config.json: the whole experiment, what it was resolved to, and the identity of the run."""
    resolved = native_format.resolved(
        tokenizer,
        loaded and loaded.task,
        loaded.labels if loaded else (),
        loaded.n_outputs if loaded else 0,
        total_steps=total,
        data=data,
    )
    config = native_format.run_config(experiment, resolved)
    # What is only looked at makes no other run.
    config["resolved"]["anchors"] = {question.probe: question.anchors for question in questions}
    return config


def _claim(workdir: Path, config: dict) -> record.WorkdirLock | None:
    """Locks the workdir, after making sure that it is empty or belongs to this very run."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; expected a folder")
    if (workdir / "config.json").exists():
        _check_same(
            workdir, native_format.read_config(workdir).get("identity", {}), config["identity"]
        )
    else:
        for name in ("tokenizer", "metrics.jsonl", "result.json"):
            if (workdir / name).exists():
                raise UserError(
                    f"--workdir={workdir} holds {name} but no config.json, so it is not that of a "
                    "run; choose an empty or a new folder"
                )
    return record.WorkdirLock(workdir) if jax.process_index() == 0 else None


def _check_same(workdir: Path, before: dict, now: dict) -> None:
    # What was set comes before what follows from it.
    keys = sorted(set(before) | set(now), key=lambda key: (key.startswith("resolved."), key))
    for key in keys:
        if before.get(key) != now.get(key):
            raise UserError(
                f"{workdir} holds a run with {key} = {_short(before.get(key))}, this one has "
                f"{_short(now.get(key))}; choose another --workdir or the same setting"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:40] + "..."


# Compiled once for all runs of a table.
@functools.lru_cache(maxsize=8)
def initial_state(net: Network, config: OptimizerConfig, mesh: Mesh):
    """Of the state before the first step: its shapes, its shardings, and a compiled function of a
    key that draws it where it will live."""
    transformation = optimizer(config, total_updates=1)  # the moments do not depend on it

    def fresh(key: jax.Array) -> dict[str, Any]:
        params = net.init(key)
        return {"params": params, "optimizer": transformation.init(params), "step": jnp.int32(0)}

    shapes = jax.eval_shape(fresh, jax.random.key(0))
    shardings = sharding.state_shardings(mesh, shapes)
    return shapes, shardings, jax.jit(fresh, out_shardings=shardings)


def _begun(experiment: Experiment, fresh: Callable, source: Initial | None, shardings):
    """A new state, fresh or with the source's parameters in it."""
    state = fresh(jax.random.key(experiment.seed))
    if source is not None:
        host = multihost_utils.process_allgather(state["params"], tiled=True)
        params = checkpoint.transfer(host, source.params(), experiment.n_transfer)
        state["params"] = jax.device_put(params, shardings["params"])
    return state, {"step": 0, "best_step": None, "best_score": None}


def _resumed(checkpoints: Checkpoints, abstract: dict, say):
    """The newest sound checkpoint, or None if there is none; damaged ones are set aside."""
    step, complaints = checkpoints.newest_sound()
    if complaints:
        checkpoints.set_aside_after(step)
        complaints.append(f"they were moved to {checkpoints.folder.parent / 'damaged'}")
    # Damage is no progress: it is said also to those who asked for quiet.
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if step is None:
        return None
    params, optimizer_state, progress = checkpoints.restore(
        step, abstract["params"], abstract["optimizer"]
    )
    count = jax.device_put(jnp.int32(step), abstract["step"].sharding)
    say(f"resuming after step {step}")
    return {"params": params, "optimizer": optimizer_state, "step": count}, progress
