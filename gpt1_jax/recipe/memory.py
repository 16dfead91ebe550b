"""What can never fit into memory, said before JAX tries."""

import os

import jax
import jax.numpy as jnp

from gpt1_jax.errors import UserError
from gpt1_jax.messages import amount
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.recipe.experiment import Experiment

_FLOAT = 4  # bytes, of parameters and moments
_SMALLER_MODEL = "make model.n_layer, model.n_embd, model.n_ctx or the vocabulary smaller"


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
    """UserError for sizes beyond all memory: of the update, or of a batch of the evaluation."""
    # How long the sequences of a task are is known later.
    length = 1 if experiment.is_task else experiment.model.n_ctx
    check_update(experiment, length)
    if not experiment.is_task:
        rows = experiment.eval.batch_size
        _check_batch(experiment.model, rows, length, "make eval.batch_size smaller")


def check_update(experiment: Experiment, length: int) -> None:
    """UserError for sizes beyond all memory: of the parameters with their two moments, or of what
    one layer makes of one batch of that many tokens a row, which is the least of what a step
    needs."""
    model = experiment.model
    require(
        of_state(model),
        f"a model of {model.n_layer} layers of width {model.n_embd}, with the moments of its "
        "optimizer,",
        _SMALLER_MODEL,
    )
    rows = experiment.batch_size // experiment.optimizer.accumulation
    remedy = "make batch_size smaller, or raise optimizer.accumulation"
    _check_batch(model, rows, length, remedy)


def _check_batch(model: ModelConfig, rows: int, length: int, remedy: str) -> None:
    require(
        of_state(model) + rows * length * model.n_embd * jnp.dtype(model.compute_dtype).itemsize,
        f"a batch of {rows} sequences",
        remedy,
    )


def check_sampling(model: ModelConfig, n_samples: int, flag: str) -> None:
    """UserError where the weights, or they and the keys and values of so many samples, are beyond
    all memory. `flag` says how many samples are wanted."""
    weights = _FLOAT * model.n_parameters
    require(weights, f"a model of {model.n_layer} layers of width {model.n_embd}", _SMALLER_MODEL)
    width = 2 * model.n_embd * (model.n_ctx if model.body == "transformer" else 1)
    require(
        weights + n_samples * model.n_layer * width * jnp.dtype(model.compute_dtype).itemsize,
        f"the cache for {n_samples} sample{'s' if n_samples > 1 else ''}, with the weights,",
        f"make {flag} smaller" if n_samples > 1 else _SMALLER_MODEL,
    )
