"""What can never fit into memory, said before JAX tries."""

import os

import jax
import jax.numpy as jnp

from gpt1_jax.errors import UserError
from gpt1_jax.messages import amount
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.recipe.experiment import Experiment

_FLOAT = 4  # bytes, of parameters and moments


def available() -> int:
    """Bytes that all devices of the run have together."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    if limit is not None:
        return limit * jax.device_count()
    # The devices of a CPU share what the machine has.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * jax.process_count()


def of_state(model: ModelConfig) -> int:
    """Bytes of the parameters with their two moments."""
    return 3 * _FLOAT * model.n_parameters


def require(needed: int, what: str, remedy: str) -> None:
    """Raises UserError where `what` takes more bytes than there are."""
    if needed > (there := available()):
        raise UserError(
            f"{what} takes at least {amount(needed)} of memory, and there are {amount(there)}; "
            f"{remedy}"
        )


def check_training(experiment: Experiment) -> None:
    """UserError for sizes beyond all memory: of the parameters with their two moments, or of what
    one layer makes of one batch, which is the least of what a step needs."""
    model = experiment.model
    state = of_state(model)
    require(
        state,
        f"a model of {model.n_layer} layers of width {model.n_embd}, with the moments of its "
        "optimizer,",
        "make model.n_layer, model.n_embd, model.n_ctx or the vocabulary smaller",
    )
    # How long the sequences of a task are is known later.
    length = 1 if experiment.is_task else model.n_ctx
    for name, rows in (
        ("batch_size", experiment.batch_size // experiment.optimizer.accumulation),
        ("eval.batch_size", 0 if experiment.is_task else experiment.eval.batch_size),
    ):
        require(
            state + rows * length * model.n_embd * jnp.dtype(model.compute_dtype).itemsize,
            f"a batch of {rows} sequences",
            f"make {name} smaller, or raise optimizer.accumulation",
        )


def check_sampling(model: ModelConfig, n_samples: int) -> None:
    """UserError where the keys and values of so many samples are beyond all memory."""
    width = 2 * model.n_embd * (model.n_ctx if model.body == "transformer" else 1)
    require(
        n_samples * model.n_layer * width * jnp.dtype(model.compute_dtype).itemsize,
        f"the cache of {n_samples} samples",
        "make --num_samples smaller",
    )
