"""A linear layer, as one matrix product over all rows, and its weights as products take them."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gpt1_jax.model.config import ModelConfig


def by_rows(linear: Callable, x: jax.Array) -> jax.Array:
    """`linear` of x [..., D] as one matrix product over all rows.

    The gradient of the weights is then one product as well; with two axes of rows, XLA transposes
    its arguments first on the CPU, which took a tenth of a small model's step.
    """
    rows = linear(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], *rows.shape[1:])


def cast_kernels(params: dict, dtype: DTypeLike) -> dict:
    """`params` with the kernels in `dtype`: once for all of a step, or of a sampled text.

    Tables, biases and gains stay as they are, since lookups, sums and norms read them in float32.
    """

    def cast(path, leaf):
        is_kernel = path[-1].key.endswith("kernel")
        return jnp.asarray(leaf, dtype) if is_kernel else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


class Linear(nn.Module):
    """x [..., D] @ kernel [D, `features`] + bias, in the dtype of the model, with the model's
    initialisation. The kernel may have been cast before.

    With `of`, a function of each element, of(x) takes the place of x. A loop over layers keeps what
    each of them needs for the backward pass, and there of(x) is made again rather than kept."""

    config: ModelConfig
    features: int
    use_bias: bool = True
    of: Callable[[jax.Array], jax.Array] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = self.config.compute_dtype
        init = nn.initializers.normal(self.config.init_std)
        kernel = self.param("kernel", init, (x.shape[-1], self.features)).astype(dtype)

        def product(x, kernel):
            return by_rows(lambda rows: rows @ kernel, x if self.of is None else self.of(x))

        if self.of is not None and self.config.scan_layers:
            product = jax.checkpoint(product, prevent_cse=False)
        out = product(x.astype(dtype), kernel)
        if not self.use_bias:
            return out
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        # Added in float32, so that its gradient, a sum over all tokens, is one in float32, too.
        bias = bias.reshape((1,) * (x.ndim - 1) + (-1,))
        return (out.astype(jnp.float32) + bias).astype(dtype)
