"""One token after another on an NVIDIA GPU: products of few rows, and attention to a cache.

What takes time there is reading each weight once, and the number of kernels. Of a product of one
row XLA makes two kernels, with all its terms in memory between them.

Shapes: R rows, I inputs, O outputs, N sequences, H heads, K size of one head, M places of the
cache.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from gpt1_jax.kernels import pieces
from gpt1_jax.kernels.gelu_gpu import sigmoid
from gpt1_jax.kernels.triton import Setting, call

MOST_ROWS = 4
# Outputs of a program, few where each has many inputs: all of their weights are on their way at
# once, some 8 kB.
PRODUCT, WEIGHTS = Setting(4, 4, 1), 4096
# Places of the cache that are read at once: many where there are few programs to wait for them.
ATTENTION, FEW_PROGRAMS, FEW = Setting(64, 4, 1), 128, Setting(128, 4, 1)


def _product(n_in, n_out):
    """The setting for these sizes."""
    rows = PRODUCT.rows
    while rows > 1 and rows * n_in > WEIGHTS:
        rows //= 2
    return PRODUCT._replace(rows=rows).for_rows(n_out)


def suits(n_rows: int, n_in: int) -> bool:
    """Whether the kernel takes a product of these sizes."""
    return n_rows <= MOST_ROWS and pieces.suits(n_in)


@functools.partial(jax.jit, static_argnames="gelu")
def linear(x_RI, kernel_IO, bias_O=None, *, gelu=False):
    """x @ kernel + bias [R, O], of the dtype of x, added up in float32; GELU of it with `gelu`.

    The kernel is read the other way round, so that the weights of an output lie side by side. In a
    loop over tokens XLA turns it once, before the first.
    """
    (n_rows, n_in), n_out = x_RI.shape, kernel_IO.shape[1]
    setting = _product(n_in, n_out)
    bias_O = jnp.zeros(n_out, jnp.float32) if bias_O is None else bias_O
    (out,) = call(
        _linear_body,
        setting,
        (x_RI, kernel_IO.T, bias_O),
        name="decode_linear",
        static={"n_rows": n_rows, "gelu": gelu},
        grid=(n_out // setting.rows,),
        in_specs=[
            pl.BlockSpec((n_rows, n_in), lambda i: (0, 0)),
            pl.BlockSpec((setting.rows, n_in), lambda i: (i, 0)),
            pl.BlockSpec((setting.rows,), lambda i: (i,)),
        ],
        out_specs=[pl.BlockSpec((n_rows, setting.rows), lambda i: (0, i))],
        out_shape=[jax.ShapeDtypeStruct((n_rows, n_out), x_RI.dtype)],
    )
    return out


def _linear_body(x_ref, kernel_ref, bias_ref, out_ref, *, rows, n_rows, gelu):
    parts = pieces.of(x_ref.shape[1])
    # All of them first: the memory answers them together, not in turn.
    kernels, bias = [kernel_ref[:, columns] for columns in parts], bias_ref[...]
    for row in range(n_rows):
        xs = [x_ref[row, columns].astype(jnp.float32)[None] for columns in parts]
        terms = [x * kernel.astype(jnp.float32) for x, kernel in zip(xs, kernels, strict=True)]
        out = sum(terms).sum(1) + bias
        if gelu:
            # Of what the model would round, had it been written.
            x = out.astype(out_ref.dtype).astype(jnp.float32)
            out = x * sigmoid(x)[0]
        out_ref[row, :] = out.astype(out_ref.dtype)


@jax.jit
def attention(qkv_N3HK, keys_NHMK, values_NHMK, offset):
    """Of the token at place `offset`: the weighted sum of the values [N, H, K], and the cache with
    its key and its value. M is a multiple of 128."""
    n, _, heads, size = qkv_N3HK.shape
    places = keys_NHMK.shape[2]
    setting = FEW if n * heads <= FEW_PROGRAMS else ATTENTION
    cache = pl.BlockSpec((None, None, places, size), lambda n, h: (n, h, 0, 0))
    shape = jax.ShapeDtypeStruct(keys_NHMK.shape, keys_NHMK.dtype)
    return call(
        _attention_body,
        setting,
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
        keys, values = keys_ref[some, :], values_ref[some, :]
        scores = (keys.astype(jnp.float32) * query[None]).sum(-1)
        scores = jnp.where(place < offset, scores, -1e30)
        higher = jnp.maximum(top, scores.max())
        weights, shrink = jnp.exp(scores - higher), jnp.exp(top - higher)
        out = out * shrink + (weights[:, None] * values.astype(jnp.float32)).sum(0)
        return out, higher, total * shrink + weights.sum()

    # The token itself is seen in any case, and needs no reading.
    carry = value, (query * key).sum(), jnp.float32(1.0)
    out, _, total = lax.fori_loop(0, lax.div(offset + rows - 1, rows), body, carry)
    out_ref[...] = (out / total).astype(out_ref.dtype)
