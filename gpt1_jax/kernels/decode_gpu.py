"""One token after another on an NVIDIA GPU: products of few rows, and attention to a cache.

What takes time there is reading each weight once, and the number of kernels. Of a product of one
row XLA makes two kernels, with all its terms in memory between them.

Shapes: R rows, I inputs, O outputs, N sequences, H heads, K size of one head, M places of the
cache.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from gpt1_jax.kernels.gelu_gpu import sigmoid
from gpt1_jax.kernels.pieces import piece
from gpt1_jax.kernels.triton import Setting, call

MOST_ROWS = 4
PRODUCT, ATTENTION = Setting(256, 4, 3), Setting(64, 4, 2)
# Columns of a program: few outputs are divided among more of them.
COLUMNS, NARROW = 16, 1024


def _columns(n_out):
    return math.gcd(COLUMNS if n_out > NARROW else COLUMNS // 2, n_out)


def suits(n_rows: int, n_in: int, n_out: int) -> bool:
    """Whether the kernel takes a product of these sizes."""
    return n_rows <= MOST_ROWS and piece(n_in) >= 32 and _columns(n_out) >= COLUMNS // 2


@functools.partial(jax.jit, static_argnames="gelu")
def linear(x_RI, kernel_IO, bias_O=None, *, gelu=False):
    """x @ kernel + bias [R, O], of the dtype of x, added up in float32; GELU of it with `gelu`."""
    (n_rows, n_in), n_out = x_RI.shape, kernel_IO.shape[1]
    columns = _columns(n_out)
    bias_O = jnp.zeros(n_out, jnp.float32) if bias_O is None else bias_O
    some = pl.BlockSpec((columns,), lambda i: (i,))
    (out,) = call(
        _linear_body,
        PRODUCT.for_rows(piece(n_in)),
        (x_RI, kernel_IO, bias_O),
        name="decode_linear",
        static={"n_in": n_in, "n_rows": n_rows, "gelu": gelu},
        grid=(n_out // columns,),
        in_specs=[
            pl.BlockSpec((n_rows, n_in), lambda i: (0, 0)),
            pl.BlockSpec((n_in, columns), lambda i: (0, i)),
            some,
        ],
        out_specs=[pl.BlockSpec((n_rows, columns), lambda i: (0, i))],
        out_shape=[jax.ShapeDtypeStruct((n_rows, n_out), x_RI.dtype)],
    )
    return out


def _linear_body(x_ref, kernel_ref, bias_ref, out_ref, *, rows, n_in, n_rows, gelu):
    def body(i, totals):
        some = pl.dslice(i * rows, rows)
        kernel = kernel_ref[some, :].astype(jnp.float32)
        return tuple(
            total + x_ref[row, some].astype(jnp.float32)[:, None] * kernel
            for row, total in enumerate(totals)
        )

    zeros = jnp.zeros((rows, kernel_ref.shape[1]), jnp.float32)
    totals = lax.fori_loop(0, n_in // rows, body, (zeros,) * n_rows)
    for row, total in enumerate(totals):
        out = total.sum(0) + bias_ref[...]
        if gelu:
            # Of what the model would round, had it been written.
            x = out.astype(out_ref.dtype).astype(jnp.float32)
            out = x * sigmoid(x)[0]
        out_ref[row, :] = out.astype(out_ref.dtype)


@jax.jit
def attention(qkv_N3HK, keys_NHMK, values_NHMK, offset):
    """Of the token at place `offset`: the weighted sum of the values [N, H, K], and the cache with
    its key and its value. M is a multiple of 64."""
    n, _, heads, size = qkv_N3HK.shape
    places = keys_NHMK.shape[2]
    cache = pl.BlockSpec((None, None, places, size), lambda n, h: (n, h, 0, 0))
    shape = jax.ShapeDtypeStruct(keys_NHMK.shape, keys_NHMK.dtype)
    return call(
        _attention_body,
        ATTENTION,
        (offset.reshape(1), qkv_N3HK, keys_NHMK, values_NHMK),
        name="decode_attention",
        static={},
        grid=(n, heads),
        in_specs=[
            pl.BlockSpec((1,), lambda n, h: (0,)),
            pl.BlockSpec((None, 3, None, size), lambda n, h: (n, 0, h, 0)),
            cache,
            cache,
        ],
        out_specs=[pl.BlockSpec((None, None, size), lambda n, h: (n, h, 0)), cache, cache],
        out_shape=[jax.ShapeDtypeStruct((n, heads, size), qkv_N3HK.dtype), shape, shape],
        input_output_aliases={2: 1, 3: 2},
    )


def _attention_body(
    offset_ref, qkv_ref, _keys_ref, _values_ref, out_ref, keys_ref, values_ref, *, rows
):
    """The cache is read and written in its new place, which is its old one."""
    offset, size = offset_ref[0], qkv_ref.shape[-1]
    query, key, value = (qkv_ref[part, :].astype(jnp.float32) for part in range(3))
    query = query * size**-0.5
    keys_ref[offset, :] = key.astype(keys_ref.dtype)
    values_ref[offset, :] = value.astype(values_ref.dtype)

    def body(i, carry):
        out, top, total = carry
        some, place = pl.dslice(i * rows, rows), i * rows + jnp.arange(rows)
        scores = (keys_ref[some, :].astype(jnp.float32) * query[None]).sum(-1)
        scores = jnp.where(place < offset, scores, -1e30)
        higher = jnp.maximum(top, scores.max())
        weights, shrink = jnp.exp(scores - higher), jnp.exp(top - higher)
        out = out * shrink + (weights[:, None] * values_ref[some, :].astype(jnp.float32)).sum(0)
        return out, higher, total * shrink + weights.sum()

    # The token itself is seen in any case, and needs no reading.
    carry = value, (query * key).sum(), jnp.float32(1.0)
    out, _, total = lax.fori_loop(0, lax.div(offset + rows - 1, rows), body, carry)
    out_ref[...] = (out / total).astype(out_ref.dtype)
