"""Causal attention: one function, several implementations.

Shapes: N sequences, L queries, M keys, H heads, K size of one head.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from gpt1_jax.model.dropout import (
    attention_keep_mask,
    attention_keep_rate,
    dropped,
    site_words,
)

Implementation = Literal["plain", "cudnn"]
# The released code replaces forbidden scores by this value rather than by minus infinity.
FORBIDDEN = -1e9


@dataclass(frozen=True)
class AttentionConfig:
    """`plain` runs everywhere; `cudnn` is flash attention on NVIDIA GPUs (bfloat16, no dropout)."""

    implementation: Implementation = "plain"


def attention(
    query_NLHK: jax.Array,
    key_NMHK: jax.Array,
    value_NMHK: jax.Array,
    *,
    implementation: Implementation = "plain",
    offset: jax.Array | int = 0,
    keys_N: jax.Array | None = None,
    rate: float = 0.0,
    layer: jax.Array | int = 0,
    n_ctx: int | None = None,
) -> jax.Array:
    """Softmax of the causally masked scores, dropout, weighted sum of the values: [N, L, H, K].

    Query l stands at position offset + l and sees keys 0 .. offset + l. `keys_N`, `rate` and
    `layer` choose the dropout mask; `n_ctx` is the extent in which its positions are counted.
    """
    if implementation == "cudnn":
        # Dropout belongs between softmax and values, where this kernel cannot be reached.
        assert keys_N is None or rate == 0.0, "cudnn attention has no dropout"
        return jax.nn.dot_product_attention(
            query_NLHK, key_NMHK, value_NMHK, is_causal=True, implementation="cudnn"
        )
    length, length_of_keys, heads = query_NLHK.shape[1], key_NMHK.shape[1], query_NLHK.shape[2]
    scores_NHLM = jnp.einsum("nlhk,nmhk->nhlm", query_NLHK, key_NMHK)
    scores_NHLM = scores_NHLM * jnp.asarray(query_NLHK.shape[-1] ** -0.5, scores_NHLM.dtype)
    query_position = offset + jnp.arange(length)
    allowed_LM = jnp.arange(length_of_keys)[None, :] <= query_position[:, None]
    # Softmax statistics in float32; the compiler keeps the wide values inside one fusion.
    scores_NHLM = jnp.where(allowed_LM[None, None], scores_NHLM.astype(jnp.float32), FORBIDDEN)
    weights_NHLM = jax.nn.softmax(scores_NHLM, axis=-1).astype(value_NMHK.dtype)
    if keys_N is not None and rate > 0.0:
        words_N2 = site_words(keys_N, layer, "attention")
        keep_NHLM = attention_keep_mask(words_N2, rate, heads, length, n_ctx or length)
        weights_NHLM = dropped(weights_NHLM, keep_NHLM, attention_keep_rate(rate))
    return jnp.einsum("nhlm,nmhk->nlhk", weights_NHLM, value_NMHK)
