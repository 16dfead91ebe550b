"""Attention of tokens that follow what a cache holds, for sampling: no dropout, no gradient.

Shapes: N sequences, L new tokens, M places of the cache, H heads, K size of one head.
"""

import jax
import jax.numpy as jnp

from gpt1_jax.model.attention import FORBIDDEN

KeysAndValues = tuple[jax.Array, jax.Array]


def cached_attention(
    query_NLHK: jax.Array,
    key_NLHK: jax.Array,
    value_NLHK: jax.Array,
    cache: KeysAndValues,
    offset: jax.Array,
) -> tuple[jax.Array, KeysAndValues]:
    """Weighted sums of the values [N, L, H, K], and the cache with the new keys and values.

    The first new token stands at place `offset`. A cache is two arrays [N, H, M, K]: with the heads
    in front, a step reads them where they lie.
    """
    start = (0, 0, offset, 0)
    key_NHMK, value_NHMK = (
        jax.lax.dynamic_update_slice(old, jnp.swapaxes(new, 1, 2), start)
        for old, new in zip(cache, (key_NLHK, value_NLHK), strict=True)
    )
    length, places = query_NLHK.shape[1], key_NHMK.shape[2]
    scores_NHLM = jnp.einsum(
        "nlhk,nhmk->nhlm", query_NLHK, key_NHMK, preferred_element_type=jnp.float32
    )
    scores_NHLM = scores_NHLM * query_NLHK.shape[-1] ** -0.5
    allowed_LM = jnp.arange(places)[None, :] <= (offset + jnp.arange(length))[:, None]
    weights_NHLM = jax.nn.softmax(jnp.where(allowed_LM, scores_NHLM, FORBIDDEN), axis=-1)
    weights_NHLM = weights_NHLM.astype(value_NHMK.dtype)
    return jnp.einsum("nhlm,nhmk->nlhk", weights_NHLM, value_NHMK), (key_NHMK, value_NHMK)
