"""Attention of tokens that follow what a cache holds, for sampling: no dropout, no gradient.

Shapes: N sequences, L new tokens, C columns of the fused projection (queries, keys, values, one
after another), M places of the cache, H heads, K size of one head.
"""

import jax
import jax.numpy as jnp

from gpt1_jax.model.attention import FORBIDDEN

KeysAndValues = tuple[jax.Array, jax.Array]


def cached_attention(
    qkv_NLC: jax.Array, n_head: int, cache: KeysAndValues, offset: jax.Array, kernel: bool = False
) -> tuple[jax.Array, KeysAndValues]:
    """Weighted sums of the values [N, L, H, K], and the cache with the new keys and values.

    The first new token stands at place `offset`. A cache is two arrays [N, H, M, K]: with the heads
    in front, a step reads them where they lie. `kernel`: a single new token by that of NVIDIA GPUs.
    """
    n_sequences, length, _ = qkv_NLC.shape
    qkv_NL3HK = qkv_NLC.reshape(n_sequences, length, 3, n_head, -1)
    if kernel and length == 1:
        # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
        from gpt1_jax.kernels import decode_gpu

        if cache[0].shape[2] % decode_gpu.FEW.rows == 0:
            merged_NHK, *cache = decode_gpu.attention(qkv_NL3HK[:, 0], *cache, offset)
            return merged_NHK[:, None], tuple(cache)
    query_NLHK, key_NLHK, value_NLHK = (qkv_NL3HK[:, :, part] for part in range(3))
    return _attention(query_NLHK, key_NLHK, value_NLHK, cache, offset)


def _attention(query_NLHK, key_NLHK, value_NLHK, cache, offset):
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
