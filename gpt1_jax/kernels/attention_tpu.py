"""Causal attention with dropout inside the kernel, forward and backward, for TPUs (Pallas).

At the lengths of GPT-1 the scores of a block of queries fit the vector memory whole: no running
softmax, no statistics to keep, and one backward kernel for dq, dk and dv. A program takes one
sequence and as many heads as fill the 128 lanes, straight from the columns of the fused projection;
scores and mask never leave the chip.

Shapes: N sequences, L tokens, H heads, K size of one head, C = 3 * H * K columns of the projection;
3 stands for query, key, value.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gpt1_jax.kernels.masks import (
    HALF,
    attention_bits,
    attention_keep_rate,
    attention_kept,
)

FORBIDDEN = -1e30
LANES = 128
# Queries in a block; a longer sequence is padded to whole blocks.
ROWS = 128
# What a shorter one is padded to: rows of bfloat16 in a register.
SUBLANES = 16
SMEM = pl.BlockSpec(memory_space=pltpu.SMEM)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def attention(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    """[N, L, H, K]. K divides 128, and whole blocks of 128 / K heads are on each device; `divide`
    as in attention.py."""
    run = divide(
        functools.partial(_forward_kernel, rate=rate, n_ctx=n_ctx),
        ("NL3HK", "N2", "H"),
        ("NLHK",),
    )
    return run(qkv_NL3HK, words_N2, _heads(qkv_NL3HK))[0]


def _attention_fwd(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    return attention(qkv_NL3HK, words_N2, rate, n_ctx, divide), (qkv_NL3HK, words_N2)


def _attention_bwd(rate, n_ctx, divide, saved, dout_NLHK):
    qkv_NL3HK, words_N2 = saved
    run = divide(
        functools.partial(_backward_kernel, rate=rate, n_ctx=n_ctx),
        ("NL3HK", "N2", "H", "NLHK"),
        ("NL3HK",),
    )
    return run(qkv_NL3HK, words_N2, _heads(qkv_NL3HK), dout_NLHK)[0], None


attention.defvjp(_attention_fwd, _attention_bwd)


def _heads(qkv_NL3HK):
    """The number of each head, of which a device may have some."""
    return jnp.arange(qkv_NL3HK.shape[3], dtype=jnp.int32)


def _columns(array):
    """[N, L, ...] with one axis of columns, and zeros behind up to whole blocks of rows. The rows
    that they add see themselves and all before them, are seen by no other, and are cut off."""
    n, length = array.shape[:2]
    multiple = ROWS if length > ROWS else SUBLANES
    array = array.reshape(n, length, -1)
    return jnp.pad(array, ((0, 0), (0, -length % multiple), (0, 0)))


def _call(body, columns, operands, n_out, size, name, static):
    """The kernel over sequences and blocks of heads: compiled for a TPU, interpreted elsewhere."""
    n, length, width = columns.shape
    blocks = width // 3 // LANES

    def part(which):
        return pl.BlockSpec((None, length, LANES), lambda n, p: (n, 0, which * blocks + p))

    def run(interpret, *operands):
        return pl.pallas_call(
            functools.partial(body, rows=min(ROWS, length), size=size, **static),
            grid=(n, blocks),
            in_specs=[SMEM, SMEM, part(0), part(1), part(2), *[part(0)] * (len(operands) - 5)],
            out_specs=[part(0)] * n_out,
            out_shape=[jax.ShapeDtypeStruct((n, length, width // 3), columns.dtype)] * n_out,
            interpret=interpret,
            name=name,
        )(*operands)

    return lax.platform_dependent(
        *operands, tpu=functools.partial(run, False), default=functools.partial(run, True)
    )


# Traced and lowered once for all layers.
_once = functools.partial(jax.jit, static_argnames=("rate", "n_ctx"))


@_once
def _forward_kernel(qkv_NL3HK, words_N2, heads_H, *, rate, n_ctx):
    n, length, _, heads, size = qkv_NL3HK.shape
    qkv = _columns(qkv_NL3HK)
    static = {"rate": rate, "n_ctx": n_ctx}
    operands = (words_N2, heads_H, qkv, qkv, qkv)
    (out,) = _call(_forward_body, qkv, operands, 1, size, "attention_forward", static)
    return (out[:, :length].reshape(n, length, heads, size),)


@_once
def _backward_kernel(qkv_NL3HK, words_N2, heads_H, dout_NLHK, *, rate, n_ctx):
    length, size = qkv_NL3HK.shape[1], qkv_NL3HK.shape[-1]
    qkv, dout = _columns(qkv_NL3HK), _columns(dout_NLHK)
    static = {"rate": rate, "n_ctx": n_ctx}
    operands = (words_N2, heads_H, qkv, qkv, qkv, dout)
    parts = _call(_backward_body, qkv, operands, 3, size, "attention_backward", static)
    return (jnp.concatenate(parts, -1)[:, :length].reshape(qkv_NL3HK.shape),)


_ROWS_BY_COLUMNS, _ROWS_BY_ROWS, _COLUMNS_BY_COLUMNS = ((1,), (0,)), ((1,), (1,)), ((0,), (0,))


def _dot(a, b, contracted):
    # A higher precision that JAX was set to means float32 alone; the compiler refuses it elsewhere.
    precision = None if a.dtype == jnp.float32 else lax.Precision.DEFAULT
    return lax.dot_general(
        a, b, (contracted, ((), ())), precision=precision, preferred_element_type=jnp.float32
    )


def _places(shape, start):
    """The number of each query and of each key in a block of scores, whose first query is `start`:
    int32 [L, M]."""
    query = start + lax.broadcasted_iota(jnp.int32, shape, 0)
    return query, lax.broadcasted_iota(jnp.int32, shape, 1)


def _probabilities(q, k, start):
    """Softmax of the causal scores, float32 [L, M]."""
    scores = _dot(q, k, _ROWS_BY_ROWS) * q.shape[-1] ** -0.5
    query, key = _places(scores.shape, start)
    scores = jnp.where(query >= key, scores, FORBIDDEN)
    weights = jnp.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _drop(x, words, head, start, rate, n_ctx):
    """x [L, M] with the dropped elements zero and the others scaled up, float32."""
    if rate == 0.0:
        return x
    query, key = _places(x.shape, start)
    # Shift and mask: lowering for a TPU without one does not know how to divide integers.
    pair = ((key >> 6) << 5) | (key & (HALF - 1))
    low, high = attention_kept(attention_bits(words[0], words[1], head, query, pair, n_ctx), rate)
    upper = (key & HALF) != 0
    stays = (upper & high) | (~upper & low)
    return jnp.where(stays, x * (1 / attention_keep_rate(rate)), 0.0)


def _heads_of_block(heads_ref, size):
    """The number of each head in this program's block, and its lanes."""
    n_heads = LANES // size
    for i in range(n_heads):
        yield heads_ref[pl.program_id(1) * n_heads + i], slice(i * size, (i + 1) * size)


def _forward_body(words_ref, heads_ref, q_ref, k_ref, v_ref, out_ref, *, rows, size, rate, n_ctx):
    n = pl.program_id(0)
    words = words_ref[n, 0], words_ref[n, 1]
    for head, lanes in _heads_of_block(heads_ref, size):
        for start in range(0, q_ref.shape[0], rows):  # a block sees the keys up to its own end
            end = start + rows
            weights = _probabilities(q_ref[start:end, lanes], k_ref[:end, lanes], start)
            dropped = _drop(weights, words, head, start, rate, n_ctx).astype(q_ref.dtype)
            out = _dot(dropped, v_ref[:end, lanes], _ROWS_BY_COLUMNS)
            out_ref[start:end, lanes] = out.astype(out_ref.dtype)


def _backward_body(
    words_ref, heads_ref, q_ref, k_ref, v_ref, dout_ref, dq_ref, dk_ref, dv_ref,
    *, rows, size, rate, n_ctx,
):  # fmt: skip
    n, length = pl.program_id(0), q_ref.shape[0]
    words = words_ref[n, 0], words_ref[n, 1]
    for head, lanes in _heads_of_block(heads_ref, size):
        dk, dv = jnp.zeros((length, size), jnp.float32), jnp.zeros((length, size), jnp.float32)
        for start in range(0, length, rows):
            end = start + rows
            q, k, v = q_ref[start:end, lanes], k_ref[:end, lanes], v_ref[:end, lanes]
            dout = dout_ref[start:end, lanes]
            weights = _probabilities(q, k, start)
            dropped = _drop(weights, words, head, start, rate, n_ctx)
            d_weights = _drop(_dot(dout, v, _ROWS_BY_ROWS), words, head, start, rate, n_ctx)
            d_scores = weights * (d_weights - (weights * d_weights).sum(1, keepdims=True))
            d_scores = (d_scores * size**-0.5).astype(q.dtype)
            dq_ref[start:end, lanes] = _dot(d_scores, k, _ROWS_BY_COLUMNS).astype(dq_ref.dtype)
            below = ((0, length - end), (0, 0))
            dk += jnp.pad(_dot(d_scores, q, _COLUMNS_BY_COLUMNS), below)
            dv += jnp.pad(_dot(dropped.astype(q.dtype), dout, _COLUMNS_BY_COLUMNS), below)
        dk_ref[:, lanes] = dk.astype(dk_ref.dtype)
        dv_ref[:, lanes] = dv.astype(dv_ref.dtype)
