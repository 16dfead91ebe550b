"""Dropout whose masks are a pure function of where they fall.

A mask depends on (seed, step, row of the global batch, layer, place, position, feature) and on
nothing else: not on the devices, the number of microbatches, the padded length, whether layers are
scanned, or which implementation draws it. One key per row comes from jax.random, and of it two
words for each layer and place; from these words and the index of an element kernels/masks.py makes
its bits, which a kernel or a backward pass can compute again where it needs them. A mask
that no row of the batch owns, that of the embedding table, takes the key of the step in place of a
row's.

Where tokens are packed (packing.py), each of them is a row by itself, with the words of its
sequence and a third one, the index at which its elements begin there.

Shapes: N sequences (batch rows times candidates), any further axes; of attention H heads, L queries
and as many keys.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from gpt1_jax.kernels.masks import (
    HALF,
    attention_bits,
    attention_kept,
    attention_pair,
    dropped,
    hashed,
    kept,
)
from gpt1_jax.model.packing import Packing

Place = Literal["embedding", "attention", "attention_output", "mlp_output", "classifier"]
PLACES: tuple[Place, ...] = (
    "embedding",
    "attention",
    "attention_output",
    "mlp_output",
    "classifier",
)


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


def token_words(words_N2: jax.Array, packing: Packing | None, width: int) -> jax.Array:
    """The words of sequences [N, 2], or where their tokens are packed [T, 3], of which each has
    `width` elements."""
    if packing is None:
        return words_N2
    begins_T = (packing.positions_T * width).astype(jnp.uint32)
    return jnp.concatenate([packing.of_sequences(words_N2), begins_T[:, None]], axis=1)


def _index(shape: tuple[int, ...]) -> jax.Array:
    """The flat index [*shape] of each element."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index * jnp.uint32(size) + along
    return index


def keep_mask(words: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Which elements stay: bool [N, *shape], each true with probability 1 - rate. Words are [N, 2],
    or [N, 3] of packed tokens.

    One word an element. Two elements to a word save nothing outside a kernel: the compiler
    computes the word for both, or writes the words to memory first.
    """
    first, second, *begins = (
        words[:, i].reshape((-1,) + (1,) * len(shape)) for i in range(words.shape[1])
    )
    index = sum(begins, _index(shape)[None])
    return kept(hashed(index, first, second), rate)


def attention_keep_mask(
    words_N2: jax.Array, rate: float, heads: int, length: int, n_ctx: int, start: int = 0
) -> jax.Array:
    """Which weights of attention stay, of the queries from `start` on: bool [N, H, L - start, L],
    each with attention_keep_rate(rate)."""
    first, second = (words_N2[:, i].reshape(-1, 1, 1, 1) for i in range(2))
    shape = (1, heads, length - start, length)
    head, query, key = (jax.lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (1, 2, 3))
    query = query + start
    bits = attention_bits(first, second, head, query, attention_pair(key), n_ctx)
    low, high = attention_kept(bits, rate)
    return jnp.where((key & HALF) == 0, low, high)


@jax.named_scope("dropout")
def dropout(
    x: jax.Array,
    keys_N: jax.Array | None,
    rate: float,
    layer: jax.Array | int,
    place: Place,
    packing: Packing | None = None,
) -> jax.Array:
    """Inverted dropout of x [N, ...], or of packed tokens [T, 1, D]; without keys, or at rate 0, x
    itself."""
    if keys_N is None or rate == 0.0:
        return x
    words = token_words(site_words(keys_N, layer, place), packing, x.shape[-1])
    keep = keep_mask(words, rate, x.shape[1:])
    return dropped(x, keep, 1.0 - rate)
