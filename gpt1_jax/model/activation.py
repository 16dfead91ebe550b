"""GELU, which the paper takes as the activation (section 4.1)."""

import math

import jax
import jax.numpy as jnp


def gelu(x: jax.Array) -> jax.Array:
    """GELU in its tanh form, computed in float32."""
    return gelu_and_slope(x)[0].astype(x.dtype)


def gelu_and_slope(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """GELU and its derivative, float32."""
    x = x.astype(jnp.float32)
    factor, cubic = (2.0 / math.pi) ** 0.5, 0.044715
    tanh = jnp.tanh(factor * (x + cubic * x**3))
    slope = 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh**2) * factor * (1.0 + 3.0 * cubic * x**2)
    return 0.5 * x * (1.0 + tanh), slope
