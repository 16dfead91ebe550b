"""Dropout whose masks are a pure function of where they fall.

A mask depends on (seed, step, row of the global batch, layer, place, position, feature) and on
nothing else: not on the devices, the number of microbatches, the padded length, whether layers are
scanned, or which implementation draws it. One key per row comes from jax.random, and of it two
words for each layer and place; the bits of the elements come from an integer hash of their index
with these words, which a kernel or a backward pass can compute again where it needs them. A mask
that no row of the batch owns, that of the embedding table, takes the key of the step in place of a
row's.

Shapes: N sequences (batch rows times candidates), any further axes; of attention H heads, L queries
and as many keys.
"""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

Place = Literal["embedding", "attention", "attention_output", "mlp_output", "classifier"]
PLACES: tuple[Place, ...] = (
    "embedding",
    "attention",
    "attention_output",
    "mlp_output",
    "classifier",
)

# In attention a word of 32 bits serves two keys: of each 64, key j and key j + 32.
HALF = 32
BLOCK = 2 * HALF


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of one update. threefry is named so that masks do not follow a user's default."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def row_keys(key: jax.Array, rows_N: jax.Array) -> jax.Array:
    """One key [N] for each global row."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows_N)


def site_words(keys_N: jax.Array, layer: jax.Array | int, place: Place) -> jax.Array:
    """What the mask at a place of a layer follows from: uint32 [N, 2]."""
    site = layer * len(PLACES) + PLACES.index(place)
    return jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(keys_N, site))


def hashed(index: jax.Array, first: jax.Array, second: jax.Array) -> jax.Array:
    """32 bits for each uint32 index under a key of two words.

    The golden ratio spreads a counter over all bits; then comes one round of the mixer that the
    hash-prospector search found to be nearly unbiased. The second word enters by xor: by addition,
    two keys would give the same bits at a constant distance wherever their counters overlap. All is
    multiply, xor and shift, which is what a kernel has to offer.
    """
    x = (index ^ first) * jnp.uint32(0x9E3779B1) ^ second
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _index(shape: tuple[int, ...]) -> jax.Array:
    """The flat index [*shape] of each element."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index * jnp.uint32(size) + along
    return index


def keep_mask(words_N2: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Which elements stay: bool [N, *shape], each true with probability 1 - rate.

    One word an element. Two elements to a word save nothing outside a kernel: the compiler
    computes the word for both, or writes the words to memory first.
    """
    first, second = (words_N2[:, i].reshape((-1,) + (1,) * len(shape)) for i in range(2))
    threshold = np.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))
    return hashed(_index(shape)[None], first, second) < threshold


def attention_threshold(rate: float) -> int:
    """Of 2^16 equally likely halves of a word, how many keep a weight of attention."""
    return max(1, round((1.0 - rate) * 2**16))


def attention_keep_rate(rate: float) -> float:
    """The share of weights that stays: 1 - rate, rounded to what 16 bits can say."""
    return attention_threshold(rate) / 2**16


def attention_bits(first, second, head, query, pair, n_ctx: int) -> jax.Array:
    """The word of a query and a pair of keys, int32 arrays that broadcast; key j of a sequence is
    in pair (j // 64) * 32 + j % 32.

    Positions are counted in the full context, so that a mask does not change with the padded
    length, and its pairs in whole blocks of keys.
    """
    pairs = -(-n_ctx // BLOCK) * HALF
    index = (head * n_ctx + query) * pairs + pair
    return hashed(index.astype(jnp.uint32), first, second)


def attention_kept(bits: jax.Array, rate: float) -> tuple[jax.Array, jax.Array]:
    """Whether the lower and the upper of a word's two keys stay."""
    threshold = attention_threshold(rate)
    low, high = bits & jnp.uint32(0xFFFF), bits >> 16
    return low.astype(jnp.int32) < threshold, high.astype(jnp.int32) < threshold


def attention_keep_mask(
    words_N2: jax.Array, rate: float, heads: int, length: int, n_ctx: int, start: int = 0
) -> jax.Array:
    """Which weights of attention stay, of the queries from `start` on: bool [N, H, L - start, L],
    each with attention_keep_rate(rate)."""
    first, second = (words_N2[:, i].reshape(-1, 1, 1, 1) for i in range(2))
    shape = (1, heads, length - start, length)
    head, query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2, 3))
    query = query + start
    # Shift and mask: lowering for a TPU without one does not know how to divide integers.
    pair = ((key >> 6) << 5) | (key & (HALF - 1))
    bits = attention_bits(first, second, head, query, pair, n_ctx)
    low, high = attention_kept(bits, rate)
    return jnp.where((key & HALF) == 0, low, high)


@jax.named_scope("dropout")
def dropout(
    x: jax.Array, keys_N: jax.Array | None, rate: float, layer: jax.Array | int, place: Place
) -> jax.Array:
    """Inverted dropout of x [N, ...]; without keys, or at rate 0, x itself."""
    if keys_N is None or rate == 0.0:
        return x
    keep = keep_mask(site_words(keys_N, layer, place), rate, x.shape[1:])
    return dropped(x, keep, 1.0 - rate)


def dropped(x: jax.Array, keep: jax.Array, keep_rate: float) -> jax.Array:
    """x / keep_rate where `keep` is true, else 0, in the dtype of x."""
    # Scaled in float32: rounded to bfloat16, 1 / 0.9 would shrink every mean by 0.16 %.
    scaled = (x.astype(jnp.float32) * (1.0 / keep_rate)).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros((), x.dtype))
