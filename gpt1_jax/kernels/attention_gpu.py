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
    attention_index,
    attention_keep_rate,
    attention_threshold,
    mixed,
)
from gpt1_jax.kernels.triton import Setting, call

LOG2E = math.log2(math.e)
FORBIDDEN = -1e30
# The best of those tried on an H200 (docs/performance.md). A block has as many queries as keys, so
# that one of each row of blocks meets the diagonal; lengths are padded to whole ones.
FORWARD, KEYS, QUERIES = Setting(BLOCK, 4, 2), Setting(BLOCK, 4, 3), Setting(BLOCK, 4, 3)


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
    (d_NL3HK,) = run(qkv_NL3HK, words_N2, _heads(qkv_NL3HK), out_NLHK, dout_NLHK, lse_NHL)
    return d_NL3HK, None


attention.defvjp(_attention_fwd, _attention_bwd)


def _forward(qkv_NL3HK, words_N2, rate, n_ctx, divide):
    run = divide(
        functools.partial(_forward_kernel, rate=rate, n_ctx=n_ctx),
        ("NL3HK", "N2", "H"),
        ("NLHK", "NHL"),
    )
    return run(qkv_NL3HK, words_N2, _heads(qkv_NL3HK))


def _heads(qkv_NL3HK):
    """Their numbers, which devices may divide among them."""
    return jnp.arange(qkv_NL3HK.shape[3], dtype=jnp.int32)


# Up to whole blocks. The rows that this adds see themselves and all before them, are seen by no
# other, and are cut off again.
_padded = functools.partial(pieces.padded, multiple=BLOCK)


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
        fuses=True,
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
    """The gradient [N, L, 3, H, K]: one kernel for queries, one for keys and values."""
    length = qkv_NL3HK.shape[1]
    qkv, out, dout = (_padded(x, 1) for x in (qkv_NL3HK, out_NLHK, dout_NLHK))
    lse = _padded(lse_NHL, 2)
    n, padded, _, heads, size = qkv.shape
    shape = jax.ShapeDtypeStruct(qkv.shape, qkv.dtype)
    static = {"rate": rate, "n_ctx": n_ctx}

    def triple(rows):
        return pl.BlockSpec((None, rows, 3, None, size), lambda i, n, h: (n, i, 0, h, 0))

    rows = QUERIES.rows
    query, *rest = _part(padded, size, 0, rows), _part(padded, size, 1), _part(padded, size, 2)
    mine = pl.BlockSpec((None, rows, None, size), lambda i, n, h: (n, i, h, 0))
    stretch = pl.BlockSpec((None, None, rows), lambda i, n, h: (n, h, i))
    d, delta = call(
        _queries_body,
        QUERIES,
        (words_N2, heads_H, qkv, qkv, qkv, out, dout, lse),
        name="attention_queries",
        static=static,
        fuses=True,
        grid=(padded // rows, n, heads),
        in_specs=[_WORDS, _HEAD, query, *rest, mine, mine, stretch],
        out_specs=[triple(rows), stretch],
        out_shape=[shape, jax.ShapeDtypeStruct(lse.shape, jnp.float32)],
    )
    line = pl.BlockSpec((None, None, padded), lambda i, n, h: (n, h, 0))
    whole = pl.BlockSpec((None, padded, None, size), lambda i, n, h: (n, 0, h, 0))
    some = [_part(padded, size, which, BLOCK) for which in (1, 2)]
    d = call(
        _keys_body,
        KEYS,
        (words_N2, heads_H, qkv, qkv, qkv, dout, lse, delta, d),
        name="attention_keys",
        static={**static, "length": padded},
        fuses=True,
        grid=(padded // BLOCK, n, heads),
        in_specs=[_WORDS, _HEAD, _part(padded, size, 0), *some, whole, line, line, triple(BLOCK)],
        out_specs=triple(BLOCK),
        out_shape=shape,
        input_output_aliases={8: 0},
    )
    return (d[:, :length],)


def _scores(q, k, query, key, diagonal):
    """Of a block; where it may meet the diagonal, later keys are forbidden."""
    scores = plgpu.dot(q, k.T)
    return jnp.where(query[:, None] >= key[None], scores, FORBIDDEN) if diagonal else scores


def _draw(words_ref, head_ref, rate, n_ctx, value=1.0):
    """A function of (queries, block of keys): `value` where the element stays, else 0, float32."""
    if rate == 0.0:
        return lambda query, block: value
    words, head = (words_ref[0], words_ref[1]), head_ref[0]
    last = jnp.uint32((attention_threshold(rate) << 16) - 1)

    def draw(query, block):
        pair = block * HALF + jnp.arange(HALF)
        index = attention_index(head, query[:, None], pair[None], n_ctx)
        x = mixed(index, *words)
        # The halves of hashed(...), each as the upper half of a word.
        low, high = (x << 16) ^ (x & jnp.uint32(0xFFFF0000)), x
        # Side by side in the registers of a thread: nothing is moved.
        both = jnp.concatenate([low[..., None], high[..., None]], axis=-1)
        both = both.transpose(0, 2, 1).reshape(len(query), BLOCK)
        # A factor rather than a choice, after which the compiler would convert one by one.
        return jnp.where(both <= last, jnp.float32(value), jnp.float32(0.0))

    return draw


def _up_to_diagonal(body, i, carry):
    """`body` over the blocks of keys that the i-th block of queries sees."""

    def before(carry):
        return lax.fori_loop(0, i, functools.partial(body, diagonal=False), carry)

    # The compiler orders the products of a loop one after another where it may have no round.
    carry = lax.cond(i > 0, before, lambda carry: carry, carry)
    return body(i, carry, diagonal=True)


def _forward_body(
    words_ref, head_ref, q_ref, k_ref, v_ref, out_ref, lse_ref, *, rows, rate, n_ctx, fused
):
    i, q = pl.program_id(0), q_ref[...]
    query, draw = i * rows + jnp.arange(rows), _draw(words_ref, head_ref, rate, n_ctx)
    factor = q.shape[-1] ** -0.5 * LOG2E

    def body(j, carry, diagonal):
        out, top, total = carry
        some, key = pl.dslice(j * BLOCK, BLOCK), j * BLOCK + jnp.arange(BLOCK)
        scores = _scores(q, k_ref[some, :], query, key, diagonal)
        higher = jnp.maximum(top, scores.max(-1) * factor)
        shrink = jnp.exp2(top - higher)
        weights = fused.power(scores, factor, -higher[:, None])
        total = total * shrink + weights.sum(-1)  # the softmax is over all, dropped or not
        weights = (weights * draw(query, j)).astype(q.dtype)
        return out * shrink[:, None] + plgpu.dot(weights, v_ref[some, :]), higher, total

    top, total = jnp.full(rows, -jnp.inf, jnp.float32), jnp.zeros(rows, jnp.float32)
    carry = (jnp.zeros(q.shape, jnp.float32), top, total)
    out, top, total = _up_to_diagonal(body, i, carry)
    keep = attention_keep_rate(rate)
    out_ref[...] = (out / (keep * total)[:, None]).astype(out_ref.dtype)
    lse_ref[...] = top + jnp.log2(total)


def _keys_body(
    words_ref, head_ref, q_ref, k_ref, v_ref, dout_ref, lse_ref, delta_ref, _, d_ref,
    *, rows, rate, n_ctx, length, fused,
):  # fmt: skip
    """One block of keys and values, into the places 1 and 2 of d_ref [BLOCK, 3, K], which has the
    queries by now."""
    j, inverse = pl.program_id(0), 1 / attention_keep_rate(rate)
    draw = _draw(words_ref, head_ref, rate, n_ctx, inverse)
    scale = q_ref.shape[-1] ** -0.5
    k, v = k_ref[...], v_ref[...]
    key = j * BLOCK + jnp.arange(BLOCK)

    def body(i, carry, diagonal):
        dk, dv = carry
        some = pl.dslice(i * rows, rows)
        q, dout, lse, delta = q_ref[some, :], dout_ref[some, :], lse_ref[some], delta_ref[some]
        query = i * rows + jnp.arange(rows)
        scores, by_weights = _scores(q, k, query, key, diagonal), plgpu.dot(dout, v.T)
        weights = fused.power(scores, scale * LOG2E, -lse[:, None])
        stays = draw(query, j)
        by_scores = (weights * fused.add(stays, by_weights, -delta[:, None])).astype(q.dtype)
        weights = (weights * stays).astype(q.dtype)
        dv += plgpu.dot(weights.T, dout)
        dk += plgpu.dot(by_scores.T, q)
        return dk, dv

    zero = jnp.zeros((BLOCK, q_ref.shape[-1]), jnp.float32)
    carry = body(j, (zero, zero), diagonal=True)
    clear = functools.partial(body, diagonal=False)
    dk, dv = lax.fori_loop(j + 1, length // rows, clear, carry)
    d_ref[:, 1, :] = (dk * scale).astype(d_ref.dtype)
    d_ref[:, 2, :] = dv.astype(d_ref.dtype)


def _queries_body(
    words_ref, head_ref, q_ref, k_ref, v_ref, out_ref, dout_ref, lse_ref, d_ref, delta_ref,
    *, rows, rate, n_ctx, fused,
):  # fmt: skip
    """One block of queries, into the place 0 of d_ref [rows, 3, K]; and for the keys, the product
    of each output with its gradient."""
    i, inverse = pl.program_id(0), 1 / attention_keep_rate(rate)
    draw = _draw(words_ref, head_ref, rate, n_ctx, inverse)
    scale = q_ref.shape[-1] ** -0.5
    q, dout, lse = q_ref[...], dout_ref[...], lse_ref[...]
    delta = (out_ref[...].astype(jnp.float32) * dout.astype(jnp.float32)).sum(-1)
    delta_ref[...] = delta
    query = i * rows + jnp.arange(rows)

    def body(j, dq, diagonal):
        some, key = pl.dslice(j * BLOCK, BLOCK), j * BLOCK + jnp.arange(BLOCK)
        k = k_ref[some, :]
        scores = _scores(q, k, query, key, diagonal)
        weights = fused.power(scores, scale * LOG2E, -lse[:, None])
        by_weights = plgpu.dot(dout, v_ref[some, :].T)
        by_scores = weights * fused.add(draw(query, j), by_weights, -delta[:, None])
        return dq + plgpu.dot(by_scores.astype(k.dtype), k)

    dq = _up_to_diagonal(body, i, jnp.zeros(q.shape, jnp.float32))
    d_ref[:, 0, :] = (dq * scale).astype(d_ref.dtype)
