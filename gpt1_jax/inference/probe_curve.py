"""The probes put to trained models: to one, and to all checkpoints that a run has kept."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import probes, zero_shot_scores
from gpt1_jax.evaluation.probes import ProbeConfig, Question
from gpt1_jax.inference import trained_model
from gpt1_jax.inference.trained_model import TrainedModel
from gpt1_jax.messages import say
from gpt1_jax.storage.places import here
from gpt1_jax.weights.checkpoint import Checkpoints


def of_trained(model: TrainedModel, config: ProbeConfig) -> tuple[list[dict], int]:
    """The rows of `probes.measure` for a model, and the number of tokens that it read for them."""
    questions = _questions(model, config)
    splits = [split for q in questions for split in (q.dev, q.train) if split]
    n_tokens = sum(len(a) + len(b) for split in splits for a, b in split.pairs)
    return _measured(model, questions), n_tokens


def curve(workdir: str | Path, config: ProbeConfig) -> list[dict]:
    """The rows of `probes.measure` for each checkpoint that a run has kept, and as step 0 for the
    parameters it began with if those were fresh; each with its body ("transformer" or "lstm") and
    step: figure 2 (right) of the paper."""
    kept = _kept(workdir)
    first = next(kept, None)
    if first is None:
        raise UserError(f"{workdir} has no checkpoint to put the probes to")
    questions = _questions(first, config)
    untrained = [_untrained(first)] if first.config.initial is None else []
    return [
        {"body": model.model_config.body, "step": model.step, **row}
        for model in itertools.chain(untrained, [first], kept)
        for row in _measured(model, questions)
    ]


def _kept(workdir: str | Path) -> Iterator[TrainedModel]:
    """The model of each checkpoint of a run, but for those that a training deletes meanwhile."""
    for step in _steps(workdir):
        try:
            yield trained_model.load(workdir, step)
        except UserError:
            if step in _steps(workdir):
                raise
            say(f"checkpoint {step} was deleted meanwhile, and is left out")


def _steps(workdir: str | Path) -> list[int]:
    checkpoints = Checkpoints(here(workdir))
    try:
        return checkpoints.steps()
    finally:
        checkpoints.close()


def _questions(model: TrainedModel, config: ProbeConfig) -> list[Question]:
    # A text of the training begins after an end token, if it had those.
    separator = model.tokenizer.separator(model.config.data.separator)
    beginning = [] if separator is None else [separator]
    return probes.prepare(config, model.tokenizer, beginning, model.model_config.n_ctx)


def _measured(model: TrainedModel, questions: list[Question]) -> list[dict]:
    return zero_shot_scores.measure(questions, model.placed)


def _untrained(model: TrainedModel) -> TrainedModel:
    """The model as it was before its first update."""
    params = jax.jit(model.network.init)(jax.random.key(model.config.seed))
    return dataclasses.replace(model, params=params, step=0)
