"""The optimiser of the released code, as one optax chain.

It looks like Adam with decoupled decay and is not optax.adamw: epsilon is added before the bias
correction, the decay is multiplied by the corrected step, and the schedule reads the number of
updates already done, so that with warm-up the first update has rate 0.
"""

import functools
import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gpt1_jax.errors import UserError

Schedule = Callable[[jax.Array], jax.Array]
Fraction = jax.Array | np.floating | float
ScheduleName = Literal["warmup_cosine", "warmup_linear", "warmup_constant"]


@dataclass(frozen=True)
class OptimizerConfig:
    """Rates and decay. The defaults are those of pre-training (section 4.1 of the paper) and, where
    it is silent, of the released code. `warmup` below 1 is a fraction of all updates, as the
    released code has it, otherwise a whole number of updates, as the paper has it; `accumulation`
    is the number of microbatches that one update is computed in. With `skip_nonfinite` an update
    whose loss or gradient is not finite changes nothing and is counted; without, it ends the run.
    Raises UserError for a number outside its range."""

    learning_rate: float = 2.5e-4
    schedule: ScheduleName = "warmup_cosine"
    warmup: float = 0.002
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    l2: float = 0.01
    vector_l2: bool = False
    max_grad_norm: float = 1.0
    accumulation: int = 1
    skip_nonfinite: bool = False

    def __post_init__(self):
        for name in ("learning_rate", "eps", "l2"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; expected 0 or more")
        for name in ("b1", "b2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}; expected 0 <= b < 1")
        if not (0.0 <= self.warmup < 1.0 or (self.warmup >= 1.0 and self.warmup % 1 == 0)):
            raise UserError(
                f"optimizer.warmup is {self.warmup}; expected a fraction of the run, 0 <= w < 1, "
                "or a whole number of updates"
            )
        if self.accumulation < 1:
            raise UserError(f"optimizer.accumulation is {self.accumulation}; expected at least 1")

    def require_room(self, total_updates: int) -> None:
        """Raises UserError for a warm-up that is longer than the whole run."""
        if self.warmup > total_updates:
            raise UserError(
                f"optimizer.warmup is {self.warmup:.0f} updates and the whole run has "
                f"{total_updates}; expected at most as many, or a fraction of the run below 1"
            )


class Span(NamedTuple):
    """The updates that a schedule runs over: those that follow the first `begins_after`, `length`
    of them, of which `warmup` is a fraction. As arguments of a compiled program, they let runs of
    any length share it."""

    begins_after: np.int32
    length: np.float32
    warmup: np.float32


def span(config: OptimizerConfig, total_updates: int, begins_after: int = 0) -> Span:
    """Of a schedule over the updates that follow the first `begins_after` of `total_updates`."""
    length = total_updates - begins_after
    warmup = config.warmup if config.warmup < 1.0 else config.warmup / length
    return Span(np.int32(begins_after), np.float32(length), np.float32(warmup))


def _warm(x: jax.Array, warmup: Fraction, after: jax.Array) -> jax.Array:
    """x / warmup during warm-up, `after` later. x and warmup are fractions of all updates."""
    divisor = jnp.where(warmup > 0, warmup, 1.0)
    return jnp.where((x <= warmup) & (warmup > 0), x / divisor, after)


def warmup_cosine(x: jax.Array, warmup: Fraction) -> jax.Array:
    """The cosine runs over the whole training, not over what the warm-up leaves of it."""
    return _warm(x, warmup, 0.5 * (1.0 + jnp.cos(jnp.pi * x)))


def warmup_constant(x: jax.Array, warmup: Fraction) -> jax.Array:
    """Linear to 1, then 1."""
    return _warm(x, warmup, jnp.ones_like(x))


def warmup_linear(x: jax.Array, warmup: Fraction) -> jax.Array:
    """Linear decay to 0, which multiplies the warm-up too."""
    return _warm(x, warmup, jnp.ones_like(x)) * (1.0 - x)


SCHEDULES: dict[ScheduleName, Callable[[jax.Array, Fraction], jax.Array]] = {
    "warmup_cosine": warmup_cosine,
    "warmup_linear": warmup_linear,
    "warmup_constant": warmup_constant,
}


def schedule(config: OptimizerConfig, over: Span) -> Schedule:
    """The factor of the learning rate after `count` updates have been done."""
    factor = SCHEDULES[config.schedule]

    def after(count):
        done = jnp.maximum(count - over.begins_after, 0).astype(jnp.float32)
        return factor(done / over.length, over.warmup)

    return after


def _grown(b: float, done: jax.Array) -> jax.Array:
    """1 - b**done. The plain form in float32 is good to five digits in the first updates."""
    return -jnp.expm1(done * math.log(b)) if b > 0 else jnp.ones_like(done)


class ReleasedAdamState(NamedTuple):
    """Updates done, and the two moments, each a tree like the parameters."""

    count: jax.Array  # type: ignore[assignment]  # a method of tuples; optax calls it so
    mu: optax.Updates
    nu: optax.Updates


def released_adam(config: OptimizerConfig, over: Span) -> optax.GradientTransformation:
    """Adam with decay as in the released opt.py, without its clipping."""
    factor = schedule(config, over)

    def init(params):
        return ReleasedAdamState(
            count=jnp.zeros((), jnp.int32),
            mu=jax.tree.map(jnp.zeros_like, params),
            nu=jax.tree.map(jnp.zeros_like, params),
        )

    def update(updates, state, params=None):
        mu = jax.tree.map(lambda m, g: config.b1 * m + (1 - config.b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: config.b2 * v + (1 - config.b2) * g**2, state.nu, updates)
        done = jnp.asarray(state.count + 1, jnp.float32)
        correction = jnp.sqrt(_grown(config.b2, done)) / _grown(config.b1, done)
        step = config.learning_rate * correction * factor(state.count)

        def change(m, v, p):
            decay = config.l2 if p.ndim > 1 or config.vector_l2 else 0.0
            return -step * (m / (jnp.sqrt(v) + config.eps) + decay * p)

        changes = jax.tree.map(change, mu, nu, params)
        return changes, ReleasedAdamState(count=state.count + 1, mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def global_norm(tree: optax.Updates) -> jax.Array:
    """The Euclidean norm of all leaves together, as optax.tree.norm has it.

    Leaves that the layers have alike are added up before they are summed: on a GPU that is some 20
    kernels for GPT-1, where a sum for each leaf is 195.
    """
    alike = defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        alike[path[-2:], leaf.shape].append(jnp.square(leaf))
    return jnp.sqrt(sum(functools.reduce(jnp.add, squares).sum() for squares in alike.values()))


def clip_by_global_norm(most: float) -> optax.GradientTransformation:
    """As that of optax, with `global_norm`."""

    def update(updates, state, params=None):
        norm = global_norm(updates)
        return jax.tree.map(
            lambda g: jnp.where(norm < most, g, g / norm.astype(g.dtype) * most), updates
        ), state

    return optax.GradientTransformation(optax.init_empty_state, update)


def optimizer(config: OptimizerConfig, over: Span) -> optax.GradientTransformation:
    """Clipping of all gradients together to one norm, then the released Adam."""
    adam = released_adam(config, over)
    if config.max_grad_norm > 0:
        return optax.chain(clip_by_global_norm(config.max_grad_norm), adam)
    return optax.chain(adam)
