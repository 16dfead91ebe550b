"""Dropout whose masks are a pure function of where they fall.

A mask depends on (seed, step, row of the global batch, layer, place, position, feature) and on
nothing else: not on the devices, the number of microbatches, the padded length or whether layers
are scanned. One key per row comes from jax.random; the bits of its elements come from an integer
hash of the element's index, which a kernel can recompute where it needs them. A mask that no row of
the batch owns, that of the embedding table, takes the key of the step in place of a row's.

Shapes: N sequences (batch rows times candidates), any further axes.
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


def step_key(seed: int, step: jax.Array) -> jax.Array:
    """The key of one update. threefry is named so that masks do not follow a user's default."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def row_keys(key: jax.Array, rows_N: jax.Array) -> jax.Array:
    """One key [N] for each global row."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, rows_N)


def _mix(x: jax.Array) -> jax.Array:
    """A bijection of 32-bit words: each input bit flips each output bit about half the time.

    Two xor-shift-multiply rounds with the constants that the hash-prospector search found to be
    nearly unbiased; add, multiply, xor and shift are all that a GPU kernel has to offer.
    """
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _index(shape: tuple[int, ...], extent: tuple[int, ...]) -> jax.Array:
    """The flat index [*shape] of each element within a larger array of shape `extent`."""
    index = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(extent):
        along = jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
        index = index * jnp.uint32(size) + along
    return index


def keep_mask(
    keys_N: jax.Array,
    rate: float,
    layer: jax.Array | int,
    place: Place,
    shape: tuple[int, ...],
    extent: tuple[int, ...] | None = None,
) -> jax.Array:
    """Which elements stay: bool [N, *shape], each true with probability 1 - rate.

    `extent` is the shape that the index of an element is counted in, by default `shape` itself;
    attention counts in the full context so that a mask does not change with the padded length.
    """
    site = layer * len(PLACES) + PLACES.index(place)
    words_N2 = jax.random.key_data(jax.vmap(jax.random.fold_in, (0, None))(keys_N, site))
    first, second = (
        words_N2[:, word].reshape((-1,) + (1,) * len(shape)) for word in range(words_N2.shape[1])
    )
    index = _index(shape, extent or shape)[None]
    threshold = np.uint32(min(round((1.0 - rate) * 2**32), 2**32 - 1))
    return _mix(_mix(index ^ first) ^ second) < threshold


@jax.named_scope("dropout")
def dropout(
    x: jax.Array,
    keys_N: jax.Array | None,
    rate: float,
    layer: jax.Array | int,
    place: Place,
    extent: tuple[int, ...] | None = None,
) -> jax.Array:
    """Inverted dropout of x [N, ...]; without keys, or at rate 0, x itself."""
    if keys_N is None or rate == 0.0:
        return x
    keep = keep_mask(keys_N, rate, layer, place, x.shape[1:], extent)
    # Scaled in float32: rounded to bfloat16, 1 / 0.9 would shrink every mean by 0.16 %.
    scaled = (x.astype(jnp.float32) * (1.0 / (1.0 - rate))).astype(x.dtype)
    return jnp.where(keep, scaled, jnp.zeros((), x.dtype))
