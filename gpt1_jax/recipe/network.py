"""The network of an experiment, with the attention that suits the devices of its mesh."""

import math
from typing import Any

import jax
from jax.sharding import Mesh

from gpt1_jax.model import objective
from gpt1_jax.model.attention import undivided
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import attention_choice
from gpt1_jax.recipe.attention_choice import Choice
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.recipe.sharding import Divided


def network(
    experiment: Experiment, shape: str | None, n_outputs: int, mesh: Mesh
) -> tuple[Network, Choice]:
    """The body with, for a task's input shape, its head; and which attention it runs. Raises
    UserError where `attention.implementation` names one that these devices lack."""
    device = attention_choice.device_of(mesh.devices.flat[0])
    choice = attention_choice.choose(
        experiment.attention.implementation, device, experiment.model, mesh.shape["model"]
    )
    divide = undivided if mesh.size == 1 else Divided(mesh)
    made = objective.network(experiment.model, choice.implementation, shape, n_outputs, divide)
    return made, choice


def described(model: ModelConfig, params: Any) -> str:
    """The model in a line, with the number of its parameters."""
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    lstm = model.body == "lstm"
    body = f"LSTM of {model.n_units} units" if lstm else "Transformer"
    heads = "" if lstm else f", {model.n_head} heads"
    layers = f"{model.n_layer} layer{'s' if model.n_layer > 1 else ''}"
    return (
        f"{body} with {count:,} parameters: {layers}{heads}, width {model.n_embd}, "
        f"context {model.n_ctx}, vocabulary {model.vocab_size:,}, {model.dtype}"
    )
