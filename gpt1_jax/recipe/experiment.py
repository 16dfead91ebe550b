"""An experiment: the config dataclasses of all modules, filled from a config file, strictly.

A config file is Python with `get_config(arguments)` that returns only what differs from the
defaults; each default is written once, in the dataclass of the module that uses it. A key that no
dataclass has, or a value of another type, is an error before anything starts.
"""

import dataclasses
import json
import runpy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict

from gpt1_jax.config_files import find_config
from gpt1_jax.data.batches import DataConfig
from gpt1_jax.data.task_loading import TaskConfig
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.evaluate import EvaluationConfig
from gpt1_jax.evaluation.probes import ProbeConfig
from gpt1_jax.model.attention import AttentionConfig
from gpt1_jax.model.config import MOST, ModelConfig
from gpt1_jax.model.objective import ObjectiveConfig
from gpt1_jax.recipe.config_values import build, flatten, keys, nested, require_keys
from gpt1_jax.recipe.optimizer import OptimizerConfig
from gpt1_jax.recipe.sharding import MeshConfig
from gpt1_jax.storage.retention import CheckpointConfig
from gpt1_jax.typed_values import nearest, require_seed

Extend = Literal["stretch", "restart"]


@dataclass(frozen=True)
class LogConfig:
    """Write a row of training metrics every `every` updates; `tensorboard` also writes events.
    `sample` is a text that the model continues each time it is evaluated, shown there too."""

    every: int = 10
    tensorboard: bool = True
    sample: str | None = None

    def __post_init__(self):
        if self.every < 1:
            raise UserError(f"log.every is {self.every}; expected at least 1")


@dataclass(frozen=True)
class Experiment:
    """The run itself, and one section for each module.

    steps: updates in all; or `epochs`, passes over the training data.
    initial: where parameters come from (a workdir, openai:D, hf:D, hf:NAME); None starts fresh.
    n_transfer: which of them: None all blocks, k the embeddings and k blocks, -1 none.
    stop_after: save and stop after this update, with the schedule of the whole run.
    extend: how a run goes on to more updates than it was begun with: "stretch" puts one schedule
      over all of them, "restart" begins a new one, with its warm-up, after the last update that was
      made; None refuses. The moments of the optimiser are kept. config.json records it.
    """

    steps: int | None = None
    epochs: float | None = None
    batch_size: int = 64
    seed: int = 42
    initial: str | None = None
    n_transfer: int | None = None
    stop_after: int | None = None
    extend: Extend | None = None
    model: ModelConfig = field(default_factory=ModelConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvaluationConfig = field(default_factory=EvaluationConfig)
    probes: ProbeConfig = field(default_factory=ProbeConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise UserError("expected one of steps and epochs; set the other to None")
        for name in ("steps", "epochs", "batch_size", "stop_after"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= MOST:
                raise UserError(f"{name} is {value}; expected more than 0 and at most {MOST}")
        require_seed(self.seed, "seed")
        if self.n_transfer is not None and self.n_transfer < -1:
            raise UserError(f"n_transfer is {self.n_transfer}; expected -1, 0, 1, ... or None")
        if self.batch_size % self.optimizer.accumulation:
            raise UserError(
                f"batch_size {self.batch_size} is not divisible by optimizer.accumulation "
                f"{self.optimizer.accumulation}"
            )

    @property
    def is_task(self) -> bool:
        """Whether this is fine-tuning on a task rather than pre-training."""
        return self.task != TaskConfig()


# What may differ between a run and its continuation; everything else is the run's identity.
OPERATIONAL = (
    "mesh",
    "checkpoint",
    "log",
    "attention",
    "eval",
    "probes",
    "stop_after",
    "extend",
    "data.driver",
    "data.prefetch",
    "data.packing",
    "data.path",
    # How a task is read shows in resolved.data, a digest of its tokens.
    "task.path",
    "task.columns",
    "task.data_dir",
    "task.check_counts",
    "task.ambiguous_pronouns",
    "task.split_seed",
    "model.scan_layers",
    "model.remat",
    "model.loss_chunks",
)


def identity(experiment: Experiment) -> dict[str, Any]:
    """The settings that make the run what it is, as a flat dict of dotted keys."""
    return {
        key: value
        for key, value in values(experiment).items()
        if not any(key == name or key.startswith(name + ".") for name in OPERATIONAL)
    }


def values(experiment: Experiment) -> dict[str, Any]:
    """Every dotted key with its value."""
    return flatten(dataclasses.asdict(experiment))


def run_config(experiment: Experiment, resolved: dict) -> dict:
    """config.json of a run: the whole experiment, what it was resolved to, and its identity."""
    whole = identity(experiment) | flatten(resolved, "resolved.")
    # Through JSON once, so that it compares equal to itself when read back.
    return json.loads(
        json.dumps({**dataclasses.asdict(experiment), "resolved": resolved, "identity": whole})
    )


def stored(config: Mapping[str, Any], path: Path) -> Experiment:
    """The experiment of a config.json, with the defaults for what it leaves out. UserError, which
    names the `path`, for a value that no experiment has.

    Weights that `convert` wrote have taken no step here; as an experiment they have one to take.
    """
    known = {key: value for key, value in flatten(config).items() if key in KEYS}
    if not known.get("steps") and not known.get("epochs"):
        known["steps"] = 1
    try:
        return experiment(known)
    except UserError as error:
        raise UserError(f"{path}: {error}; copy again what `train` wrote") from None


def load(spec: str, overrides: Mapping[str, str] | None = None) -> tuple[Experiment, set[str]]:
    """The experiment of `FILE[:arguments]` with dotted `overrides` on top, and the dotted keys that
    were set explicitly. Raises UserError for an unknown file, key or type."""
    name, _, arguments = spec.partition(":")
    path = find_config(name)
    given = _updated(_from_file(path, arguments), overrides or {})
    return experiment(given), set(given)


def _from_file(path: Path, arguments: str) -> dict[str, Any]:
    """The dotted keys that get_config of a config file returns; a mistake in the file becomes one
    line."""
    config = None
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        config = get_config(arguments) if get_config else None
        if isinstance(config, ConfigDict):
            return flatten(config.to_dict())  # values that follow from others are computed here
    except UserError:
        raise
    except BaseException as error:  # also one that would end Python; no signal is raised here
        if config is not None and isinstance(error, RecursionError):
            raise UserError(f"--config={path} returns a ConfigDict that contains itself") from None
        if isinstance(error, SyntaxError):
            where, what = f"{error.filename}:{error.lineno}", f"SyntaxError: {error.msg}"
        else:
            last = traceback.extract_tb(error.__traceback__)[-1]
            # Also of an error whose text cannot be made.
            what = " ".join(traceback.format_exception_only(error)[-1].split())
            where = f"{last.filename}:{last.lineno}"
        raise UserError(f"--config={path} does not run: {where}: {what}") from None
    raise UserError(f"{path} needs a function get_config(arguments) that returns a ConfigDict")


def _updated(given: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with `overrides`; the length of a run that was asked for replaces the other one."""
    require_keys(overrides, KEYS)
    for key, other in (("steps", "epochs"), ("epochs", "steps")):
        if overrides.get(key) not in (None, "None", "none") and other not in overrides:
            given.pop(other, None)
    return {**given, **overrides}


def experiment(given: Mapping[str, Any]) -> Experiment:
    """The experiment with the values of dotted keys `given`, and the defaults for all others."""
    require_keys(given, KEYS)
    return build(Experiment, given)


def section(name: str, base: Any, overrides: Mapping[str, str]) -> Any:
    """The section `base` of an experiment with the values of dotted keys `overrides`."""
    require_keys(overrides, [key for key in KEYS if key.startswith(f"{name}.")])
    given = flatten(dataclasses.asdict(base), f"{name}.") | dict(overrides)
    return build(type(base), given, f"{name}.")


KEYS = tuple(keys(Experiment))


def with_arguments(
    config: ConfigDict,
    text: str,
    words: Mapping[str, str | None],
    short: Mapping[str, str] | None = None,
) -> ConfigDict:
    """`config` with the arguments of a config file, `word,key=value,...`, put in.

    A bare word is the value of the key that `words` gives for it; keys are dotted, or names that
    `short` translates.

        finetune.py:rte,lm_coef=0   ->   task.name = "rte", objective.lm_coef = "0"
    """
    short = short or {}
    found, key = {}, None
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals and name not in words and key is not None:
            found[key] += "," + part  # labels=no,yes
            continue
        key = short.get(name, name) if equals else words.get(name)
        if key not in KEYS:
            near = nearest(name, [*words, *short, *KEYS])
            hint = f"; did you mean {near!r}?" if near else f"; expected {', '.join(words)}"
            raise UserError(f"unknown config argument {part!r}{hint}")
        if key in found:
            raise UserError(f"config argument {part!r}: {key} is given twice; give it once")
        found[key] = value if equals else name
    return ConfigDict(nested(_updated(flatten(config.to_dict()), found)))
