"""GELU and its gradient for NVIDIA GPUs, with the gradient of the bias before it: one pass each.

The tanh form, as x * sigmoid(2 u): an exponential and a quotient, for which the GPU has units.

Shapes: T tokens, F hidden units, G groups of tokens.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from gpt1_jax.kernels.pieces import in_turn, piece
from gpt1_jax.kernels.triton import Setting, call

FORWARD, BACKWARD = Setting(4, 4, 2), Setting(2, 8, 2)
# Tokens of one program of the backward pass, which adds up their gradients of the bias.
GROUP = 64
MOST_COLUMNS = 1024
FACTOR, CUBIC = (2.0 / math.pi) ** 0.5, 0.044715


def _columns(width):
    return min(piece(width), MOST_COLUMNS)


def _tile(rows, columns):
    return pl.BlockSpec((rows, columns), lambda i, j: (i, j))


@jax.jit
def forward(x_TF):
    """GELU(x) [T, F], of the dtype of x, as the only result."""
    n_tokens, width = x_TF.shape
    setting = FORWARD.for_rows(n_tokens)
    tile = _tile(setting.rows, _columns(width))
    return call(
        _forward_body,
        setting,
        (x_TF,),
        name="gelu_forward",
        static={},
        grid=(n_tokens // setting.rows, width // _columns(width)),
        in_specs=[tile],
        out_specs=[tile],
        out_shape=[jax.ShapeDtypeStruct(x_TF.shape, x_TF.dtype)],
    )


@jax.jit
def backward(x_TF, gradient_TF):
    """The gradient by x [T, F], of the dtype of x, and its sums over groups of tokens [G, F]."""
    n_tokens, width = x_TF.shape
    group = math.gcd(GROUP, n_tokens)
    tile = _tile(group, _columns(width))
    return call(
        _backward_body,
        BACKWARD.for_rows(group),
        (x_TF, gradient_TF),
        name="gelu_backward",
        static={"group": group},
        grid=(n_tokens // group, width // _columns(width)),
        in_specs=[tile, tile],
        out_specs=[tile, pl.BlockSpec((None, _columns(width)), lambda i, j: (i, j))],
        out_shape=[
            jax.ShapeDtypeStruct(x_TF.shape, x_TF.dtype),
            jax.ShapeDtypeStruct((n_tokens // group, width), jnp.float32),
        ],
    )


def sigmoid(x):
    """What x is multiplied with, and 1 less it; for kernels, in float32."""
    # Below -80 it is nothing, and its reciprocal more than float32 has.
    power = jnp.exp(-jnp.maximum(2.0 * FACTOR * x * (1.0 + CUBIC * x * x), -80.0))
    factor = 1.0 / (1.0 + power)
    return factor, power * factor


def _forward_body(x_ref, out_ref, *, rows):
    x = x_ref[...].astype(jnp.float32)
    out_ref[...] = (x * sigmoid(x)[0]).astype(out_ref.dtype)


def _backward_body(x_ref, gradient_ref, by_x_ref, sum_ref, *, rows, group):
    def load(some):
        return x_ref[some, :], gradient_ref[some, :]

    def step(begin, total, loaded):
        x, gradient = (array.astype(jnp.float32) for array in loaded)
        factor, rest = sigmoid(x)
        inner = 2.0 * FACTOR * (1.0 + 3.0 * CUBIC * x * x)
        by_x = gradient * factor * (1.0 + x * rest * inner)
        by_x_ref[pl.dslice(begin, rows), :] = by_x.astype(by_x_ref.dtype)
        return total + by_x

    zeros = jnp.zeros((rows, x_ref.shape[1]), jnp.float32)
    sum_ref[...] = in_turn(load, step, zeros, rows, group).sum(0)
