"""Causal attention with dropout inside the kernel, forward and backward, for NVIDIA GPUs.

Pallas through Triton. What it does that the plain form does not: it reads q, k and v where the
fused projection left them and writes their gradients into one array; it draws the mask where it is
used, in all three kernels, so that nothing of size L x L is ever stored. The softmax is the running
one of flash attention, in base 2.

Shapes: N sequences, L tokens, H heads, K size of one head; 3 stands for query, key, value.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from gpt1_jax.kernels import pieces
from gpt1_jax.kernels.masks import (
    BLOCK,
    HALF,
    attention_bits,
    attention_keep_rate,
    attention_kept,
)
from gpt1_jax.kernels.triton import Setting, call

LOG2E = math.log2(math.e)
FORBIDDEN = -1e30
# The best of those tried on an H200 (docs/performance.md).
FORWARD, KEYS, QUERIES = Setting(64, 4, 2), Setting(64, 4, 3), Setting(64, 4, 2)
# Lengths are padded to whole blocks of queries and of keys.
MULTIPLE = 64


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def attention(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    """[N, L, H, K]. K is a power of two from 16 on; `divide` as in attention.py."""
    return _forward(qkv_NL3HK, words_N2, rate, n_ctx, divide)[0]


def _attention_fwd(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    out_NLHK, lse_NHL = _forward(qkv_NL3HK, words_N2, rate, n_ctx, divide)
    return out_NLHK, (qkv_NL3HK, words_N2, out_NLHK, lse_NHL)


def _attention_bwd(rate, n_ctx, divide, saved, dout_NLHK):
    qkv_NL3HK, words_N2, out_NLHK, lse_NHL = saved
    run = divide(
        functools.partial(_backward_kernels, rate=rate, n_ctx=n_ctx),
        ("NL3HK", "N2", "H", "NLHK", "NLHK", "NHL"),
        ("NL3HK",),
    )
    heads_H = jnp.arange(qkv_NL3HK.shape[3], dtype=jnp.int32)
    (d_NL3HK,) = run(qkv_NL3HK, words_N2, heads_H, out_NLHK, dout_NLHK, lse_NHL)
    return d_NL3HK, None


attention.defvjp(_attention_fwd, _attention_bwd)


def _forward(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    run = divide(
        functools.partial(_forward_kernel, rate=rate, n_ctx=n_ctx),
        ("NL3HK", "N2", "H"),
        ("NLHK", "NHL"),
    )
    return run(qkv_NL3HK, words_N2, jnp.arange(qkv_NL3HK.shape[3], dtype=jnp.int32))


# Up to whole blocks. The rows that this adds see themselves and all before them, are seen by no
# other, and are cut off again.
_padded = functools.partial(pieces.padded, multiple=MULTIPLE)


def _part(length, size, which, rows=None):
    """q, k or v of one head: all of it, or the block of a program."""
    if rows is None:
        return pl.BlockSpec((None, length, None, None, size), lambda i, n, h: (n, 0, which, h, 0))
    return pl.BlockSpec((None, rows, None, None, size), lambda i, n, h: (n, i, which, h, 0))


_WORDS = pl.BlockSpec((None, 2), lambda i, n, h: (n, 0))
_HEAD = pl.BlockSpec((1,), lambda i, n, h: (h,))


# Traced and lowered once for all layers.
_once = functools.partial(jax.jit, static_argnames=("rate", "n_ctx"))


@_once
def _forward_kernel(qkv_NL3HK, words_N2, heads_H, *, rate, n_ctx):
    """The output [N, L, H, K], and the logarithm to base 2 of each softmax's sum [N, H, L]."""
    length = qkv_NL3HK.shape[1]
    qkv = _padded(qkv_NL3HK, 1)
    n, padded, _, heads, size = qkv.shape
    rows = FORWARD.rows
    out, lse = call(
        _forward_body,
        FORWARD,
        (words_N2, heads_H, qkv, qkv, qkv),
        name="attention_forward",
        static={"rate": rate, "n_ctx": n_ctx},
        grid=(padded // rows, n, heads),
        in_specs=[
            _WORDS,
            _HEAD,
            _part(padded, size, 0, rows),
            _part(padded, size, 1),
            _part(padded, size, 2),
        ],
        out_specs=[
            pl.BlockSpec((None, rows, None, size), lambda i, n, h: (n, i, h, 0)),
            pl.BlockSpec((None, None, rows), lambda i, n, h: (n, h, i)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct((n, padded, heads, size), qkv.dtype),
            jax.ShapeDtypeStruct((n, heads, padded), jnp.float32),
        ],
    )
    return out[:, :length], lse[:, :, :length]


@_once
def _backward_kernels(qkv_NL3HK, words_N2, heads_H, out_NLHK, dout_NLHK, lse_NHL, *, rate, n_ctx):
    """The gradient [N, L, 3, H, K]: one kernel for keys and values, one for queries."""
    length = qkv_NL3HK.shape[1]
    delta_NLH = (out_NLHK.astype(jnp.float32) * dout_NLHK.astype(jnp.float32)).sum(-1)
    qkv, dout = _padded(qkv_NL3HK, 1), _padded(dout_NLHK, 1)
    lse, delta = _padded(lse_NHL, 2), _padded(delta_NLH.transpose(0, 2, 1), 2)
    n, padded, _, heads, size = qkv.shape
    shape = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    line = pl.BlockSpec((None, None, padded), lambda i, n, h: (n, h, 0))
    whole = pl.BlockSpec((None, padded, None, size), lambda i, n, h: (n, 0, h, 0))
    static = {"rate": rate, "n_ctx": n_ctx}

    def triple(rows):
        return pl.BlockSpec((None, rows, 3, None, size), lambda i, n, h: (n, i, 0, h, 0))

    some = [_part(padded, size, which, BLOCK) for which in (1, 2)]
    d = call(
        _keys_body,
        KEYS,
        (words_N2, heads_H, qkv, qkv, qkv, dout, lse, delta),
        name="attention_keys",
        static={**static, "length": padded},
        grid=(padded // BLOCK, n, heads),
        in_specs=[_WORDS, _HEAD, _part(padded, size, 0), *some, whole, line, line],
        out_specs=triple(BLOCK),
        out_shape=shape,
    )
    rows = QUERIES.rows
    query = _part(padded, size, 0, rows)
    mine = pl.BlockSpec((None, rows, None, size), lambda i, n, h: (n, i, h, 0))
    stretch = pl.BlockSpec((None, None, rows), lambda i, n, h: (n, h, i))
    rest = [_part(padded, size, which) for which in (1, 2)]
    d = call(
        _queries_body,
        QUERIES,
        (words_N2, heads_H, qkv, qkv, qkv, dout, lse, delta, d),
        name="attention_queries",
        static=static,
        grid=(padded // rows, n, heads),
        in_specs=[_WORDS, _HEAD, query, *rest, mine, stretch, stretch, triple(rows)],
        out_specs=triple(rows),
        out_shape=shape,
        input_output_aliases={8: 0},
    )
    return (d[:, :length],)


def _scores(q, k, query, key, diagonal):
    """Of a block, in base 2; where it may meet the diagonal, later keys are forbidden."""
    scores = plgpu.dot(q, k.T) * (q.shape[-1] ** -0.5 * LOG2E)
    if not diagonal:
        return scores
    return jnp.where(query[:, None] >= key[None], scores, FORBIDDEN)


def _draw(words_ref, head_ref, rate, n_ctx):
    """A function of (queries, block of keys): which of its first and of its second half stay."""
    if rate == 0.0:
        return lambda query, block: (True, True)
    words, head = (words_ref[0], words_ref[1]), head_ref[0]

    def draw(query, block):
        pair = block * HALF + jnp.arange(HALF)
        return attention_kept(attention_bits(*words, head, query[:, None], pair[None], n_ctx), rate)

    return draw


def _where(stays, x):
    return x if stays is True else jnp.where(stays, x, 0.0)


def _forward_body(words_ref, head_ref, q_ref, k_ref, v_ref, out_ref, lse_ref, *, rows, rate, n_ctx):
    i, q = pl.program_id(0), q_ref[...]
    query, draw = i * rows + jnp.arange(rows), _draw(words_ref, head_ref, rate, n_ctx)

    def body(j, carry, diagonal):
        out, top, total = carry
        first, second = pl.dslice(j * BLOCK, HALF), pl.dslice(j * BLOCK + HALF, HALF)
        key = j * BLOCK + jnp.arange(HALF)
        a = _scores(q, k_ref[first, :], query, key, diagonal)
        b = _scores(q, k_ref[second, :], query, key + HALF, diagonal)
        higher = jnp.maximum(top, jnp.maximum(a.max(-1), b.max(-1)))
        shrink = jnp.exp2(top - higher)
        a, b = jnp.exp2(a - higher[:, None]), jnp.exp2(b - higher[:, None])
        total = total * shrink + a.sum(-1) + b.sum(-1)  # the softmax is over all, dropped or not
        low, high = draw(query, j)
        a, b = _where(low, a).astype(q.dtype), _where(high, b).astype(q.dtype)
        out = out * shrink[:, None] + plgpu.dot(a, v_ref[first, :]) + plgpu.dot(b, v_ref[second, :])
        return out, higher, total

    top, total = jnp.full(rows, -jnp.inf, jnp.float32), jnp.zeros(rows, jnp.float32)
    carry = (jnp.zeros(q.shape, jnp.float32), top, total)
    clear, end = lax.div(i * rows, BLOCK), lax.div((i + 1) * rows + BLOCK - 1, BLOCK)
    carry = lax.fori_loop(0, clear, functools.partial(body, diagonal=False), carry)
    out, top, total = lax.fori_loop(clear, end, functools.partial(body, diagonal=True), carry)
    keep = attention_keep_rate(rate)
    out_ref[...] = (out / (keep * total)[:, None]).astype(out_ref.dtype)
    lse_ref[...] = top + jnp.log2(total)


def _keys_body(
    words_ref, head_ref, q_ref, k_ref, v_ref, dout_ref, lse_ref, delta_ref, d_ref,
    *, rows, rate, n_ctx, length,
):  # fmt: skip
    """One block of keys and values, into the places 1 and 2 of d_ref [BLOCK, 3, K]."""
    j, draw = pl.program_id(0), _draw(words_ref, head_ref, rate, n_ctx)
    scale, inverse = q_ref.shape[-1] ** -0.5, 1 / attention_keep_rate(rate)
    halves = pl.dslice(0, HALF), pl.dslice(HALF, HALF)
    k, v = [k_ref[half, :] for half in halves], [v_ref[half, :] for half in halves]

    def body(i, carry, diagonal):
        some = pl.dslice(i * rows, rows)
        q, dout, lse, delta = q_ref[some, :], dout_ref[some, :], lse_ref[some], delta_ref[some]
        query, key = i * rows + jnp.arange(rows), j * BLOCK + jnp.arange(HALF)
        stays = draw(query, j)
        new = []
        for half, (dk, dv) in enumerate(carry):
            scores = _scores(q, k[half], query, key + half * HALF, diagonal)
            p = jnp.exp2(scores - lse[:, None])
            dp = _where(stays[half], plgpu.dot(dout, v[half].T) * inverse)
            dv += plgpu.dot(_where(stays[half], p).astype(dout.dtype).T, dout)
            dk += plgpu.dot((p * (dp - delta[:, None])).astype(q.dtype).T, q)
            new.append((dk, dv))
        return tuple(new)

    zero = jnp.zeros((HALF, q_ref.shape[-1]), jnp.float32)
    start, clear = lax.div(j * BLOCK, rows), lax.div((j + 1) * BLOCK + rows - 1, rows)
    carry = ((zero, zero), (zero, zero))
    carry = lax.fori_loop(start, clear, functools.partial(body, diagonal=True), carry)
    carry = lax.fori_loop(clear, length // rows, functools.partial(body, diagonal=False), carry)
    for half, (dk, dv) in zip(halves, carry, strict=True):  # one indexer a ref: two do not lower
        d_ref[half, 1, :] = (dk * scale).astype(d_ref.dtype)
        d_ref[half, 2, :] = (dv * inverse).astype(d_ref.dtype)


def _queries_body(
    words_ref, head_ref, q_ref, k_ref, v_ref, dout_ref, lse_ref, delta_ref, _, d_ref,
    *, rows, rate, n_ctx,
):  # fmt: skip
    """One block of queries, into the place 0 of d_ref [rows, 3, K], which has the others by now."""
    i, draw = pl.program_id(0), _draw(words_ref, head_ref, rate, n_ctx)
    scale, inverse = q_ref.shape[-1] ** -0.5, 1 / attention_keep_rate(rate)
    q, dout, lse, delta = q_ref[...], dout_ref[...], lse_ref[...], delta_ref[...]
    query = i * rows + jnp.arange(rows)

    def body(j, dq, diagonal):
        stays = draw(query, j)
        for half in range(2):
            some = pl.dslice(j * BLOCK + half * HALF, HALF)
            k, key = k_ref[some, :], j * BLOCK + half * HALF + jnp.arange(HALF)
            p = jnp.exp2(_scores(q, k, query, key, diagonal) - lse[:, None])
            dp = _where(stays[half], plgpu.dot(dout, v_ref[some, :].T) * inverse)
            dq += plgpu.dot((p * (dp - delta[:, None])).astype(k.dtype), k)
        return dq

    clear, end = lax.div(i * rows, BLOCK), lax.div((i + 1) * rows + BLOCK - 1, BLOCK)
    dq = jnp.zeros(q.shape, jnp.float32)
    dq = lax.fori_loop(0, clear, functools.partial(body, diagonal=False), dq)
    dq = lax.fori_loop(clear, end, functools.partial(body, diagonal=True), dq)
    d_ref[:, 0, :] = (dq * scale).astype(d_ref.dtype)
