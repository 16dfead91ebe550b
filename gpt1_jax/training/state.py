"""The training state: fresh, from given weights, or restored."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.recipe.optimizer import OptimizerConfig, optimizer, span
from gpt1_jax.runtime.agreement import agreed, of_arrays
from gpt1_jax.tokenization.tokenizer import Tokenizer
from gpt1_jax.weights import transfer
from gpt1_jax.weights.checkpoint import Checkpoints


@struct.dataclass
class TrainState:
    """All that an update changes. step: updates done, int32."""

    params: Any
    optimizer: Any
    step: jax.Array


@dataclass(frozen=True)
class Standing:
    """Where a run stands, as its checkpoints say: updates done, and how many of them were skipped
    (optimizer.skip_nonfinite); of a task also the best score so far, and the step at which it was
    reached."""

    step: int = 0
    skipped: int = 0
    best_step: int | None = None
    best_score: float | None = None

    def after(self, step: int, score: float | None) -> "Standing":
        """The standing with the score of an evaluation taken in."""
        if score is None or (self.best_score is not None and score <= self.best_score):
            return self
        return replace(self, best_step=step, best_score=score)


@dataclass(frozen=True)
class Initial:
    """The weights to start from, as far as they are known before they are needed. `content` tells
    those of a run from others, wherever it lies; None where nothing does."""

    source: str
    model: ModelConfig
    tokenizer: Tokenizer
    params: Callable[[], dict]
    content: str | None


@dataclass(frozen=True)
class Origin:
    """The state before the first step: its shapes, where each leaf lies, and a compiled function of
    a key that draws it where it will live."""

    shapes: TrainState
    shardings: TrainState
    fresh: Callable[[jax.Array], TrainState]

    @property
    def abstract(self) -> TrainState:
        """Shapes and places in one, as a checkpoint is restored to them."""
        return jax.tree.map(
            lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
            self.shapes,
            self.shardings,
        )


# Compiled once for all runs of a table.
@functools.lru_cache(maxsize=8)
def initial_state(net: Network, config: OptimizerConfig, mesh: Mesh, fsdp: bool) -> Origin:
    """Where a training of the network begins; `fsdp` is that of MeshConfig."""
    transformation = optimizer(config, span(config, total_updates=1))  # any: moments have none

    def fresh(key: jax.Array) -> TrainState:
        params = net.init(key)
        return TrainState(params, transformation.init(params), jnp.int32(0))

    shapes = jax.eval_shape(fresh, jax.random.key(0))
    shardings = sharding.state_shardings(mesh, shapes, fsdp)
    compiled = jax.jit(fresh, out_shardings=shardings)
    return Origin(shapes, shardings, with_ready_bits(compiled) if mesh.size == 1 else compiled)


def with_ready_bits(draw: Callable) -> Callable:
    """`draw` with random bits from a kernel that JAX brings along for GPUs. XLA would make one for
    each array anew, which takes longer than to compile the update. The bits are the same. Several
    devices draw a part each, which that kernel cannot do."""
    name = "jax_threefry_gpu_kernel_lowering"

    @functools.wraps(draw)
    def drawn(*given):
        before = getattr(jax.config, name)
        jax.config.update(name, True)
        try:
            return draw(*given)
        finally:
            jax.config.update(name, before)

    return drawn


def begun(
    experiment: Experiment, origin: Origin, source: Initial | None
) -> tuple[TrainState, Standing]:
    """A new state, fresh or with the source's parameters in it."""
    state = origin.fresh(jax.random.key(experiment.seed))
    if source is not None:
        with agreed() as facts:
            given = source.params()
            if jax.process_count() > 1:
                facts[f"arrays of {source.source}"] = of_arrays(given)
        host = multihost_utils.process_allgather(state.params, tiled=True)
        params = transfer.transfer(host, given, experiment.n_transfer)
        state = replace(state, params=jax.device_put(params, origin.shardings.params))
    return state, Standing()


class NoCheckpoint(UserError):
    """A run that is this one, of whose checkpoints none is usable; `last_step` is where it ends."""

    def __init__(self, complaint: str, last_step: int):
        super().__init__(
            f"no checkpoint of this run is usable: {complaint}; copy one back, or choose another "
            "--workdir to begin again"
        )
        self.last_step = last_step


def resumed(
    checkpoints: Checkpoints, origin: Origin, last_step: int, tell: Callable[[str], None]
) -> tuple[TrainState, Standing] | None:
    """The newest sound checkpoint, or None if there never was one; damaged ones are set aside.

    Raises NoCheckpoint where all are damaged, or gone though there were some.
    """
    step, complaints = checkpoints.newest_sound()
    if step is None and complaints:
        # To begin again would wipe the record of the run.
        raise NoCheckpoint(complaints[0], last_step)
    if step is None:
        return None
    if step < checkpoints.steps()[-1]:  # which every process sees alike
        complaints += checkpoints.set_aside_after(step)
    if complaints:
        # Damage is no progress: it is said also to those who asked for quiet.
        tell = say
    for complaint in complaints:
        say(complaint)
    abstract = origin.abstract
    params, moments, standing = checkpoints.restore(step, abstract.params, abstract.optimizer)
    count = jax.device_put(jnp.int32(step), abstract.step.sharding)
    tell(f"resuming after step {step}")
    return TrainState(params, moments, count), Standing(**standing)
