"""The logarithm of the sum of exponentials of wide rows, for NVIDIA GPUs: one pass.

The scores of GPT-1's vocabulary are the largest array of an update, 2.5 GiB for 64 sequences. XLA
reads them once for their maximum and again for the sum.

Shapes: T tokens, P columns.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gpt1_jax.kernels.triton import Setting, call

SETTING = Setting(1, 8, 3)
COLUMNS = 4096
LOWEST = -1e30


@functools.partial(jax.jit, static_argnames="n_columns")
def log_sum_exp(scores_TP, *, n_columns):
    """[T], float32, over the first `n_columns`."""
    n_rows, width = scores_TP.shape
    return call(
        _body,
        SETTING,
        (scores_TP,),
        name="log_sum_exp",
        static={"n_columns": n_columns},
        grid=(n_rows,),
        in_specs=[pl.BlockSpec((SETTING.rows, width), lambda i: (i, 0))],
        out_specs=pl.BlockSpec((SETTING.rows,), lambda i: (i,)),
        out_shape=jax.ShapeDtypeStruct((n_rows,), jnp.float32),
    )


def _body(scores_ref, out_ref, *, rows, n_columns):
    """Each place of a block has a maximum and a sum of its own until the end."""
    size = min(COLUMNS, pl.next_power_of_2(n_columns))

    def body(i, carry):
        top, total = carry
        column = i * size + jnp.arange(size)
        scores = plgpu.load(scores_ref.at[0, column], mask=column < n_columns, other=LOWEST)
        scores = scores.astype(jnp.float32)
        higher = jnp.maximum(top, scores)
        return higher, total * jnp.exp(top - higher) + jnp.exp(scores - higher)

    zeros = jnp.zeros(size, jnp.float32)
    top, total = lax.fori_loop(0, pl.cdiv(n_columns, size), body, (zeros + LOWEST, zeros))
    highest = top.max()
    total = (total * jnp.exp(top - highest)).sum()
    out_ref[...] = jnp.full(rows, highest + jnp.log(total))
