"""Cross-entropies and their gradient by the scores, for NVIDIA GPUs: one pass.

The scores of GPT-1's vocabulary are the largest array of an update, 2.5 GiB for 64 sequences. XLA
reads them for their maximum, for the sum of exponentials and for the gradient, and writes that.
Here a program holds a row of them, and the gradient takes their place.

Shapes: T tokens, P columns.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gpt1_jax.kernels.triton import Setting, call

SETTING = Setting(1, 16, 1)
# A row is held in blocks of so many columns, and in no more of them than registers can take.
COLUMNS, MOST_BLOCKS = 4096, 16
LOWEST = -1e30


def suits(width: int) -> bool:
    """Whether the kernel can take rows of this width."""
    return width <= COLUMNS * MOST_BLOCKS


@functools.partial(jax.jit, static_argnames="n_columns")
def losses_and_gradient(scores_TP, targets_T, weights_T, *, n_columns):
    """The cross-entropies [T] in float32 over the first `n_columns`, and what weight times
    (softmax - one-hot) is [T, P], zero in the others."""
    n_rows, width = scores_TP.shape
    row = pl.BlockSpec((SETTING.rows, width), lambda i: (i, 0))
    one = pl.BlockSpec((SETTING.rows,), lambda i: (i,))
    return call(
        _body,
        SETTING,
        (scores_TP, targets_T, weights_T),
        name="cross_entropy",
        static={"width": width, "n_columns": n_columns},
        grid=(n_rows,),
        in_specs=[row, one, one],
        out_specs=[one, row],
        out_shape=[
            jax.ShapeDtypeStruct((n_rows,), jnp.float32),
            jax.ShapeDtypeStruct(scores_TP.shape, scores_TP.dtype),
        ],
        input_output_aliases={0: 1},
    )


def _body(scores_ref, target_ref, weight_ref, loss_ref, gradient_ref, *, rows, width, n_columns):
    size = min(COLUMNS, pl.next_power_of_2(width))
    starts = range(0, width, size)
    held = [_load(scores_ref, start, size, width, n_columns) for start in starts]
    target, weight = target_ref[0], weight_ref[0]
    at_target = scores_ref[0, target].astype(jnp.float32)
    highest = functools.reduce(jnp.maximum, held).max()
    powers = [jnp.exp(scores - highest) for scores in held]
    log_sum = highest + jnp.log(functools.reduce(jnp.add, powers).sum())
    loss_ref[...] = jnp.full(rows, log_sum - at_target)
    for start, scores in zip(starts, held, strict=True):
        column = start + jnp.arange(size)
        gradient = (jnp.exp(scores - log_sum) - (column == target)) * weight
        # Of a block that is whole nothing is masked: loads and stores are then as wide as can be.
        mask = None if start + size <= width else column < width
        plgpu.store(gradient_ref.at[0, column], gradient.astype(gradient_ref.dtype), mask=mask)


def _load(scores_ref, start, size, width, n_columns):
    """A block of a row in float32, and LOWEST where it has no scores."""
    column = start + jnp.arange(size)
    mask = None if start + size <= width else column < width
    other = None if mask is None else LOWEST
    scores = plgpu.load(scores_ref.at[0, column], mask=mask, other=other).astype(jnp.float32)
    return scores if start + size <= n_columns else jnp.where(column < n_columns, scores, LOWEST)
