"""GPT-1 in JAX: "Improving Language Understanding by Generative Pre-Training" (2018), whole.

    load      a trained model: it samples, scores, predicts, looks inside
    prepare   text to a folder of tokens
    train     pre-training and fine-tuning, from a config
    report    tables, figures and one page from what has run
    GPT       the Transformer as a Flax module, of a ModelConfig

Importing the package imports nothing else, so that `gpt1 --help` and the report stay quick; each
name brings what it needs when it is used. docs/library.md has them at work.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt1_jax.errors import UserError
    from gpt1_jax.evaluation.sample_config import SampleConfig
    from gpt1_jax.inference.inspection import Inspection
    from gpt1_jax.inference.trained_model import TrainedModel
    from gpt1_jax.model.config import ModelConfig
    from gpt1_jax.model.gpt import GPT

__version__ = "0.1.0"

__all__ = [
    "GPT",
    "Inspection",
    "ModelConfig",
    "SampleConfig",
    "TrainedModel",
    "UserError",
    "load",
    "prepare",
    "report",
    "train",
]

# Where the classes are, which are imported when they are asked for.
_MODULES = {
    "GPT": "gpt1_jax.model.gpt",
    "Inspection": "gpt1_jax.inference.inspection",
    "ModelConfig": "gpt1_jax.model.config",
    "SampleConfig": "gpt1_jax.evaluation.sample_config",
    "TrainedModel": "gpt1_jax.inference.trained_model",
    "UserError": "gpt1_jax.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'gpt1_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load(
    source: str | Path, step: int | None = None, tokenizer: str | None = None
) -> "TrainedModel":
    """A trained model, to sample, score, predict and look inside (inference/trained_model.py).

        >>> import gpt1_jax
        >>> model = gpt1_jax.load("runs/lm")
        >>> model.sample("It was a bright cold day", num_samples=3)

    Args:
      source: the workdir of a run, or weights of another layout: "hf:D", "hf:NAME" on the Hub,
        "openai:D".
      step: a checkpoint of the run, by default the best of a fine-tuned model and else the newest.
      tokenizer: how text becomes ids with weights of another layout, "original" or "hf_basic"; by
        default original for openai: and hf_basic for hf:.

    Raises:
      UserError: there is no such model, or it is damaged.
    """
    from gpt1_jax.inference import trained_model

    return trained_model.load(source, step, tokenizer)


def prepare(output: str | Path, inputs: str | Sequence[str], **settings: Any) -> dict[str, Any]:
    """Text to a folder of token shards, with its tokenizer and a manifest (`gpt1 prepare`).

        >>> gpt1_jax.prepare("tokens", "books/*.txt", vocab_size=8192)["splits"]["train"]["tokens"]

    Args:
      output: the folder to make.
      inputs: a glob of text files and tables, or several.
      **settings: further fields of text.config.PrepareConfig: tokenizer, vocab, vocab_size, valid,
        valid_fraction, text_key, workers, seed.

    Returns:
      What the manifest has: tokens, documents, bytes and words of each split, and the fingerprint
      of the tokenizer.

    Raises:
      UserError: no such files, a setting that does not exist or does not fit, a folder that holds
        something else.
    """
    from gpt1_jax.recipe.config_values import build, keys, require_keys
    from gpt1_jax.text import corpus
    from gpt1_jax.text.config import PrepareConfig

    globs = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    require_keys(settings, keys(PrepareConfig))
    return corpus.prepare(
        build(PrepareConfig, {"output": str(output), "inputs": globs, **settings})
    )


def train(
    config: str,
    workdir: str | Path,
    keys: Mapping[str, Any] | None = None,
    *,
    initial: str | Path | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Pre-trains or fine-tunes; the same call again goes on where it was (`gpt1 train`).

        >>> gpt1_jax.train("configs/pretrain.py:tiny", "runs/lm", {"data.path": "tokens"})

    Args:
      config: a config file with its arguments, from the current folder or the installation.
      workdir: the folder of the run.
      keys: keys of the config, dotted, with their values.
      initial: weights to start from: a workdir, "openai:D", "hf:D" or "hf:NAME" on the Hub.
      quiet: says nothing but what is wrong.

    Returns:
      What result.json has: `step`, `metrics` by split, `tokens_per_s`, versions and more.

    Raises:
      UserError: before the first step for whatever does not fit, and where the loss is not finite.
      errors.Interrupted: a signal came; all is saved.
    """
    from gpt1_jax.messages import say
    from gpt1_jax.recipe import experiment
    from gpt1_jax.recipe.unread import unread
    from gpt1_jax.training import train as training

    start = {} if initial is None else {"initial": str(initial)}
    described, explicit = experiment.load(config, {**(keys or {}), **start})
    for line in unread(described, keys or ()):
        say(line)
    return training.train(described, explicit, workdir, quiet=quiet)


def report(runs: str | Path, output: str | Path) -> dict[str, Any]:
    """Tables, figures and one page from what has run, beside the published numbers (`gpt1 report`).

    Args:
      runs: a folder that `reproduce` filled, or one with the workdirs of single runs.
      output: the folder to write to.

    Returns:
      The names of the `files`, the `scale`, and how many cells have a value or are missing.

    Raises:
      UserError: no results there, a damaged file, an output that cannot be written.
    """
    from gpt1_jax.results import report as reports

    return reports.report(runs, output)
