"""Causal attention: one function, several implementations.

    plain       the definition, written with L x L arrays; runs everywhere
    blocks      the same for blocks of queries, each with the keys that it may see; for CPUs
    recompute   the same, made again in the backward pass in place of being kept for it
    triton      a kernel for NVIDIA GPUs (kernels/attention_gpu.py)
    tpu         a kernel for TPUs (kernels/attention_tpu.py)
    cudnn       the flash attention of NVIDIA's library, which has no dropout

All of them drop the same weights; recipe/attention_choice.py says which runs where. On another
platform than its own a kernel is interpreted, which is slow and exact, and how the tests compare
them.

Shapes: N sequences, L tokens, C columns of the fused projection (queries, keys, values, one after
another), H heads, K size of one head.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import jax
import jax.numpy as jnp

from gpt1_jax.kernels.masks import attention_keep_rate, dropped
from gpt1_jax.model.dropout import attention_keep_mask, site_words

Implementation = Literal["plain", "blocks", "recompute", "triton", "tpu", "cudnn"]
Wanted = Literal["auto", "plain", "blocks", "recompute", "triton", "tpu", "cudnn"]
# The released code replaces forbidden scores by this value rather than by minus infinity.
FORBIDDEN = -1e9
# Queries of a block.
QUERIES = 128


@dataclass(frozen=True)
class AttentionConfig:
    """How attention is computed; `auto` takes what suits the device
    (recipe/attention_choice.py)."""

    implementation: Wanted = "auto"


class Divide(Protocol):
    """Runs a kernel on each device's share of its arrays, whose axes are named by letters, one an
    axis: rows N and heads H may be divided, all others are whole. The compiler can divide what it
    knows; a kernel it would have computed everywhere, on gathered arrays."""

    def __call__(
        self, function: Callable, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable: ...


def undivided(function: Callable, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Callable:
    """What `Divide` is on one device."""
    return function


@jax.named_scope("attention")
def attention(
    qkv_NLC: jax.Array,
    n_head: int,
    *,
    implementation: Implementation = "plain",
    divide: Divide = undivided,
    keys_N: jax.Array | None = None,
    rate: float = 0.0,
    layer: jax.Array | int = 0,
    n_ctx: int | None = None,
) -> jax.Array:
    """Softmax of the causally masked scores, dropout, weighted sum of the values: [N, L, H, K].

    `keys_N`, `rate` and `layer` choose the dropout mask; `n_ctx`, by default L, is the extent in
    which its positions are counted.
    """
    n_sequences, length, _ = qkv_NLC.shape
    extent = n_ctx or length
    if keys_N is None or rate == 0.0:
        rate, words_N2 = 0.0, jnp.zeros((n_sequences, 2), jnp.uint32)
    else:
        words_N2 = site_words(keys_N, layer, "attention")
    if implementation in ("triton", "tpu"):
        qkv_NL3HK = qkv_NLC.reshape(n_sequences, length, 3, n_head, -1)
        return _kernel(implementation)(qkv_NL3HK, words_N2, rate, extent, divide)
    heads = (n_sequences, length, n_head, -1)
    query, key, value = (part.reshape(heads) for part in jnp.split(qkv_NLC, 3, -1))
    if implementation == "cudnn":
        # Dropout belongs between softmax and values, where this kernel cannot be reached.
        assert rate == 0.0, "cudnn attention has no dropout"
        return jax.nn.dot_product_attention(
            query, key, value, is_causal=True, implementation="cudnn"
        )

    def of(query, key, value, words_N2):
        block = QUERIES if implementation == "blocks" else None
        return plain(query, key, value, words_N2, rate, extent, block)

    return (jax.checkpoint(of) if implementation == "recompute" else of)(
        query, key, value, words_N2
    )


def _kernel(implementation: Implementation) -> Callable:
    # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
    if implementation == "triton":
        from gpt1_jax.kernels.attention_gpu import attention as kernel
    else:
        from gpt1_jax.kernels.attention_tpu import attention as kernel
    return kernel


def plain(
    query_NLHK: jax.Array,
    key_NMHK: jax.Array,
    value_NMHK: jax.Array,
    words_N2: jax.Array | None = None,
    rate: float = 0.0,
    n_ctx: int | None = None,
    block: int | None = None,
) -> jax.Array:
    """The definition: [N, L, H, K]. Query l sees keys 0 .. l.

    With `block`, so many queries at a time are multiplied with the keys up to their own end, since
    what comes later is forbidden to all of them: of four blocks, that is 5/8 of the work."""
    length, heads, size = query_NLHK.shape[1:]

    def of_queries(start, end):
        scores_NHLM = _scores(query_NLHK[:, start:end], key_NMHK[:, :end]) * size**-0.5
        allowed_LM = jnp.arange(end)[None] <= jnp.arange(start, end)[:, None]
        # Softmax statistics in float32; the compiler keeps the wide values inside one fusion.
        scores_NHLM = jnp.where(allowed_LM[None, None], scores_NHLM, FORBIDDEN)
        weights_NHLM = jax.nn.softmax(scores_NHLM, axis=-1).astype(value_NMHK.dtype)
        if words_N2 is not None and rate > 0.0:
            keep_NHLM = attention_keep_mask(words_N2, rate, heads, end, n_ctx or length, start)
            weights_NHLM = dropped(weights_NHLM, keep_NHLM, attention_keep_rate(rate))
        return jnp.einsum("nhlm,nmhk->nlhk", weights_NHLM, value_NMHK[:, :end])

    if block is None or length <= block:
        return of_queries(0, length)
    starts = range(0, length, block)
    rows = [of_queries(start, min(start + block, length)) for start in starts]
    return jnp.concatenate(rows, axis=1)


@jax.custom_vjp
def _scores(query_NLHK: jax.Array, key_NMHK: jax.Array) -> jax.Array:
    """Products of queries and keys, float32 [N, H, L, L]. Where they are large, rounding them to
    bfloat16 puts the gradient of queries and keys 1.2 % off."""
    return jnp.einsum("nlhk,nmhk->nhlm", query_NLHK, key_NMHK, preferred_element_type=jnp.float32)


def _scores_fwd(query_NLHK, key_NMHK):
    return _scores(query_NLHK, key_NMHK), (query_NLHK, key_NMHK)


def _scores_bwd(saved, d_NHLM):
    # In the dtype of the factors: the gradient by itself would be a product in float32.
    query_NLHK, key_NMHK = saved
    d_NHLM = d_NHLM.astype(query_NLHK.dtype)
    return (
        jnp.einsum("nhlm,nmhk->nlhk", d_NHLM, key_NMHK),
        jnp.einsum("nhlm,nlhk->nmhk", d_NHLM, query_NLHK),
    )


_scores.defvjp(_scores_fwd, _scores_bwd)
