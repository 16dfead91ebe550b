"""Cross-entropies and their gradient by the scores, for NVIDIA GPUs: one pass.

The scores of GPT-1's vocabulary are the largest array of an update, 2.5 GiB for 64 sequences. XLA
reads them for their maximum, for the sum of exponentials and for the gradient, and writes that.
Here a program holds a row of them, and the gradient takes their place.

Shapes: T tokens, P columns.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gpt1_jax.kernels.triton import Setting, call

SETTING = Setting(1, 16, 1)
# Columns of a block; blocks of which a maximum is taken at once; blocks of a row at most.
COLUMNS, AT_ONCE, MOST_BLOCKS = 4096, 3, 16
LOG2E = math.log2(math.e)
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
        fuses=True,
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


def _body(
    scores_ref, target_ref, weight_ref, loss_ref, gradient_ref,
    *, rows, width, n_columns, fused,
):  # fmt: skip
    size = min(COLUMNS, pl.next_power_of_2(width))
    load = functools.partial(_load, scores_ref, size=size, width=width, n_columns=n_columns)
    target, weight = target_ref[0], weight_ref[0]
    at_target = scores_ref[0, target].astype(jnp.float32)

    def add(starts, carry):
        """Each place of a block has a maximum, to base 2, and a sum of its own until the end."""
        highest, total = carry
        some = [load(start) for start in starts]
        higher = jnp.maximum(highest, LOG2E * functools.reduce(jnp.maximum, some))
        powers = [fused.power(scores, LOG2E, -higher) for scores in some]
        return higher, total * jnp.exp2(highest - higher) + sum(powers)

    carry = jnp.full(size, LOWEST), jnp.zeros(size, jnp.float32)
    highest, total = _in_groups(add, carry, size, width, n_columns)
    top = highest.max()
    log2_sum = top + jnp.log2((total * jnp.exp2(highest - top)).sum())
    loss_ref[...] = jnp.full(rows, log2_sum / LOG2E - at_target)

    def write(starts, carry):
        # All are asked for first: what is written might be these, for all that the compiler knows.
        for start, scores in [(start, load(start)) for start in starts]:
            column = start + jnp.arange(size)
            softmax = fused.power(scores, LOG2E, -log2_sum)
            gradient = (softmax - (column == target)) * weight
            mask = _mask(start, column, width)
            plgpu.store(gradient_ref.at[0, column], gradient.astype(gradient_ref.dtype), mask=mask)
        return carry

    _in_groups(write, 0, size, width, n_columns)


def _in_groups(function, carry, size, width, n_columns):
    """function(where its blocks start, carry), a few blocks at a time: a loop over those that are
    whole, then the others, whose starts are numbers."""
    n_groups = n_columns // (size * AT_ONCE)

    def group(i, carry):
        return function([(i * AT_ONCE + j) * size for j in range(AT_ONCE)], carry)

    carry = lax.fori_loop(0, n_groups, group, carry)
    rest = range(n_groups * AT_ONCE * size, width, size)
    for first in range(0, len(rest), AT_ONCE):
        carry = function(rest[first : first + AT_ONCE], carry)
    return carry


def _mask(start, column, width):
    """None for a block that is whole: loads and stores are then as wide as can be."""
    whole = not isinstance(start, int) or start + column.size <= width
    return None if whole else column < width


def _load(scores_ref, start, *, size, width, n_columns):
    """A block of a row in float32, and LOWEST where it has no scores."""
    column = start + jnp.arange(size)
    mask = _mask(start, column, width)
    other = None if mask is None else LOWEST
    scores = plgpu.load(scores_ref.at[0, column], mask=mask, other=other).astype(jnp.float32)
    if not isinstance(start, int) or start + size <= n_columns:
        return scores
    return jnp.where(column < n_columns, scores, LOWEST)
