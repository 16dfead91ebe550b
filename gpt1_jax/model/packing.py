"""Padded sequences with their padding left out wherever tokens do not meet.

A batch of short examples is mostly padding. Only attention needs sequences; products, norms, GELU
and the loss take one token as another, and are given the tokens that there are, one after the
other. Values, gradients and dropout masks are those of the padded form.

Shapes: N sequences padded to L tokens, T places for the tokens of all of them, some of them empty.
"""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Packing:
    """places_T: of each token its index in the flattened [N, L], in order; N * L where there is
    none. slots_NL: the other way round, T on padding."""

    places_T: jax.Array
    slots_NL: jax.Array

    def pack(self, x_NL: jax.Array) -> jax.Array:
        """The tokens of x [N, L, ...]: [T, ...], 0 where there is none."""
        n_sequences, length = self.slots_NL.shape
        flat = x_NL.reshape(n_sequences * length, *x_NL.shape[2:])
        return _moved(flat, self.places_T, self.slots_NL.reshape(-1))

    def unpack(self, x_T: jax.Array) -> jax.Array:
        """x [T, ...] in its sequences: [N, L, ...], 0 on padding."""
        flat = _moved(x_T, self.slots_NL.reshape(-1), self.places_T)
        return flat.reshape(*self.slots_NL.shape, *x_T.shape[1:])

    def of_sequences(self, x_N: jax.Array) -> jax.Array:
        """For each token what x [N, ...] has for its sequence: [T, ...]."""
        n_sequences, length = self.slots_NL.shape
        return x_N[jnp.minimum(self.places_T // length, n_sequences - 1)]

    @property
    def positions_T(self) -> jax.Array:
        """The place of each token in its sequence."""
        return self.places_T % self.slots_NL.shape[1]


def packing(places_T: jax.Array, n_sequences: int, length: int) -> Packing:
    """Of the tokens at these places."""
    slots = jnp.full(n_sequences * length, len(places_T), jnp.int32)
    slots = slots.at[places_T].set(jnp.arange(len(places_T), dtype=jnp.int32), mode="drop")
    return Packing(places_T, slots.reshape(n_sequences, length))


@jax.custom_vjp
def _moved(x_X: jax.Array, source_Y: jax.Array, target_X: jax.Array) -> jax.Array:
    """y[i] = x[source[i]], 0 where there is no such; `target` is the inverse of `source`.

    So the gradient is a lookup, too. By itself it would be a sum over places that may meet, which
    they never do.
    """
    return jnp.take(x_X, source_Y, axis=0, mode="fill", fill_value=0)


def _moved_forward(x_X, source_Y, target_X):
    return _moved(x_X, source_Y, target_X), target_X


def _moved_backward(target_X, gradient_Y):
    return jnp.take(gradient_Y, target_X, axis=0, mode="fill", fill_value=0), None, None


_moved.defvjp(_moved_forward, _moved_backward)
