"""The bits of dropout, from the index of an element and two words.

All is multiply, xor and shift, which is what a kernel has to offer: a kernel and the plain form
draw the same mask. model/dropout.py says which words a place has.
"""

import jax
import jax.numpy as jnp
import numpy as np

# In attention a word of 32 bits serves two keys: of each 64, key j and key j + 32.
HALF = 32
BLOCK = 2 * HALF


def hashed(index: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """32 bits for each uint32 index under a key of two words.

    The golden ratio spreads a counter over all bits; then comes one round of the mixer that the
    hash-prospector search found to be nearly unbiased. The second word enters by xor: by addition,
    two keys would give the same bits at a constant distance wherever their counters overlap.
    """
    x = mixed(index, first, second)
    return x ^ (x >> 16)


def mixed(index: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """`hashed` before its last step, which changes the lower half of a word alone."""
    x = (index ^ first) * jnp.uint32(0x9E3779B1) ^ second
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    return (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)


def kept(bits: jax.Array, rate: float) -> jax.Array:
    """Whether the element of a word stays, which is true with probability 1 - rate."""
    return bits < np.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))


def attention_threshold(rate: float) -> int:
    """Of 2^16 equally likely halves of a word, how many keep a weight of attention."""
    return max(1, round((1.0 - rate) * 2**16))


def attention_keep_rate(rate: float) -> float:
    """The share of weights that stays: 1 - rate, rounded to what 16 bits can say."""
    return attention_threshold(rate) / 2**16


def attention_pair(key: jax.Array) -> jax.Array:
    """The pair that a key is in, int32: (key // 64) * 32 + key % 32."""
    # Shift and mask: lowering for a TPU without one does not know how to divide integers.
    return ((key >> 6) << 5) | (key & (HALF - 1))


def attention_index(head, query, pair, n_ctx: int) -> jax.Array:
    """The index, uint32, of the word of a query and a pair of keys, int32 arrays that broadcast.

    Positions are counted in the full context, so that a mask does not change with the padded
    length, and its pairs in whole blocks of keys.
    """
    pairs = -(-n_ctx // BLOCK) * HALF
    return ((head * n_ctx + query) * pairs + pair).astype(jnp.uint32)


def attention_bits(first, second, head, query, pair, n_ctx: int) -> jax.Array:
    """The word of a query and a pair of keys, as `attention_index` has them."""
    return hashed(attention_index(head, query, pair, n_ctx), first, second)


def attention_kept(bits: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Whether the lower and the upper of a word's two keys stay."""
    threshold = attention_threshold(rate)
    low, high = bits & jnp.uint32(0xFFFF), bits >> 16
    return low.astype(jnp.int32) < threshold, high.astype(jnp.int32) < threshold


def dropped(x: jax.Array, keep: jax.Array, keep_rate: float) -> jax.Array:
    """x / keep_rate where `keep` is true, else 0, in the dtype of x."""
    # Scaled in float32: rounded to bfloat16, 1 / 0.9 would shrink every mean by 0.16 %.
    scaled = (x.astype(jnp.float32) * (1.0 / keep_rate)).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros((), x.dtype))
