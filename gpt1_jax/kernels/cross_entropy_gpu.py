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

SETTING = Setting(1, 8, 1)
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
    columns = [start + jnp.arange(size) for start in range(0, width, size)]
    # In the dtype of the scores for as long as they are held.
    held = [
        plgpu.load(scores_ref.at[0, column], mask=column < n_columns, other=LOWEST)
        for column in columns
    ]
    target, weight = target_ref[0], weight_ref[0]
    at_target = scores_ref[0, target]
    highest = functools.reduce(jnp.maximum, held).max().astype(jnp.float32)
    powers = [jnp.exp(scores.astype(jnp.float32) - highest) for scores in held]
    log_sum = highest + jnp.log(functools.reduce(jnp.add, powers).sum())
    loss_ref[...] = jnp.full(rows, log_sum - at_target.astype(jnp.float32))
    for column, scores in zip(columns, held, strict=True):
        softmax = jnp.exp(scores.astype(jnp.float32) - log_sum)
        gradient = (softmax - (column == target)) * weight
        plgpu.store(
            gradient_ref.at[0, column], gradient.astype(gradient_ref.dtype), mask=column < width
        )
