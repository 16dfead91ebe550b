"""One update of a run, compiled: loss, gradient, the step of the optimiser."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from gpt1_jax.model import objective
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.optimizer import (
    OptimizerConfig,
    Span,
    global_norm,
    optimizer,
    schedule,
    span,
)
from gpt1_jax.training.state import TrainState, initial_state


@dataclass(frozen=True)
class Update:
    """(state, batch, seed) -> (state, terms of the loss), where the seed chooses the dropout masks.
    The state is donated."""

    compiled: jax.stages.Wrapped
    span: Span

    def __call__(self, state: TrainState, batch: dict, seed: int) -> tuple[TrainState, dict]:
        return self.compiled(state, batch, seed, self.span)

    def lower(self, state: Any, batch: dict, seed: int) -> jax.stages.Lowered:
        """The program before it is compiled, of arrays or of their shapes."""
        return self.compiled.lower(state, batch, seed, self.span)


def update_function(
    network: Network,
    config: OptimizerConfig,
    lm_coef: float,
    total_steps: int,
    mesh: Mesh,
    fsdp: bool,
    schedule_after: int = 0,
) -> Update:
    """The update of a run, whose schedule is over the updates that follow `schedule_after`."""
    compiled = _compiled(network, config, lm_coef, mesh, fsdp)
    return Update(compiled, span(config, total_steps, schedule_after))


# Seeds, starting weights, data and lengths of runs are arguments, so that the runs of a table share
# one compiled program.
@functools.lru_cache(maxsize=8)
def _compiled(
    network: Network, config: OptimizerConfig, lm_coef: float, mesh: Mesh, fsdp: bool
) -> jax.stages.Wrapped:
    shardings = initial_state(network, config, mesh, fsdp).shardings

    def gradients(params, batch, seed, step):
        def loss(params):
            if fsdp:
                params = sharding.whole(mesh, params)
            return objective.loss(network, lm_coef, params, batch, seed, step)

        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        if fsdp:
            gradient = jax.lax.with_sharding_constraint(gradient, shardings.params)
        return gradient, terms

    def update(state, batch, seed, over):
        compute = functools.partial(gradients, state.params, seed=seed, step=state.step)
        if config.accumulation > 1:
            gradient, terms = _accumulated(compute, batch, config.accumulation)
        else:
            gradient, terms = compute(batch)
        with jax.named_scope("optimizer"):
            updates, moments = optimizer(config, over).update(
                gradient, state.optimizer, state.params
            )
            params = optax.apply_updates(state.params, updates)
            terms["grad_norm"] = global_norm(gradient)
            count = optax.tree.get(state.optimizer, "count")
            terms["learning_rate"] = config.learning_rate * schedule(config, over)(count)
            new = TrainState(params, moments, state.step + 1)
        return _sound(state, new, terms) if config.skip_nonfinite else (new, terms)

    return jax.jit(
        update,
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
        compiler_options=compiler_options(mesh),
    )


def _accumulated(compute: Callable[[dict], Any], batch: dict, parts: int) -> Any:
    """The mean of `compute` over microbatches, each of which takes its rows from every device's
    share."""
    split = jax.tree.map(
        lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
    )
    shapes = jax.eval_shape(compute, jax.tree.map(lambda x: x[0], split))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total, microbatch):
        return jax.tree.map(jnp.add, total, compute(microbatch)), None

    total, _ = jax.lax.scan(add, zeros, split)
    return jax.tree.map(lambda leaf: leaf / parts, total)


def _sound(old: TrainState, new: TrainState, terms: dict) -> tuple[TrainState, dict]:
    """The new state, or where loss or gradient is not finite the old one, a step further."""
    sound = jnp.isfinite(terms["loss"]) & jnp.isfinite(terms["grad_norm"])
    params, moments = jax.tree.map(
        lambda new, old: jnp.where(sound, new, old),
        (new.params, new.optimizer),
        (old.params, old.optimizer),
    )
    return TrainState(params, moments, new.step), {**terms, "skipped": ~sound}


def compiler_options(mesh: Mesh) -> dict[str, bool]:
    """Of a GPU the products of its library, which add the bias as they write. XLA's own are tried
    against them one by one and lose, but leave the bias to a pass of its own (docs/performance.md).
    """
    on_gpu = mesh.devices.flat[0].platform == "gpu"
    return {"xla_gpu_enable_triton_gemm": False} if on_gpu else {}
