"""A linear layer, as one matrix product over all rows, and its weights as products take them."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gpt1_jax.model import activation
from gpt1_jax.model.config import ModelConfig


def by_rows(linear: Callable, x: jax.Array) -> jax.Array:
    """`linear` of x [..., D] as one matrix product over all rows.

    The gradient of the weights is then one product as well; with two axes of rows, XLA transposes
    its arguments first on the CPU, which took a tenth of a small model's step.
    """
    rows = linear(x.reshape(-1, x.shape[-1]))
    return rows.reshape(*x.shape[:-1], *rows.shape[1:])


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(rows_TI: jax.Array, kernel: jax.Array, axis: int = 0) -> jax.Array:
    """rows @ kernel, float32 [T, O], from arguments of one dtype; `axis` of the kernel, [I, O] or
    [O, I], is that of the inputs.

    Where that dtype is bfloat16, devices that are made for it return bfloat16, and what comes next
    rounds nothing in between. A CPU multiplies in bfloat16 at up to twice the rate of float32 where
    the result is float32 and no transpose is near, and not otherwise.
    """
    return _dot(rows_TI, kernel, (1, axis))


def _product_forward(rows_TI, kernel, axis):
    return product(rows_TI, kernel, axis), (rows_TI, kernel)


def product_gradients(
    axis: int, saved: tuple[jax.Array, jax.Array], gradient_TO: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Gradients of `product` by its rows and its kernel, which are `saved`, in their dtypes."""
    rows_TI, kernel = saved
    gradient_TO = gradient_TO.astype(rows_TI.dtype)
    by_rows_TI = _dot(gradient_TO, kernel, (1, 1 - axis)).astype(rows_TI.dtype)
    factors = (gradient_TO, rows_TI) if axis else (rows_TI, gradient_TO)
    return by_rows_TI, _dot(*factors, (0, 0)).astype(kernel.dtype)


product.defvjp(_product_forward, product_gradients)


@jax.custom_vjp
def affine(rows_TI: jax.Array, kernel_IO: jax.Array, bias_O: jax.Array) -> jax.Array:
    """rows @ kernel + bias, [T, O] in the dtype of the rows; the bias is float32, and so is its
    gradient, a sum over all rows.

    Of two bfloat16 arrays NVIDIA's library makes the whole sum in the product itself, from the wide
    result, where the bias is bfloat16 as well. Elsewhere the bias is added in float32.
    """
    dtype = rows_TI.dtype

    def wide(rows, kernel, bias):
        return (product(rows, kernel) + bias[None]).astype(dtype)

    def narrow(rows, kernel, bias):
        return jnp.dot(rows, kernel) + bias.astype(dtype)[None]

    if dtype == jnp.float32:
        return wide(rows_TI, kernel_IO, bias_O)
    return jax.lax.platform_dependent(rows_TI, kernel_IO, bias_O, cuda=narrow, default=wide)


def _affine_forward(rows_TI, kernel_IO, bias_O):
    return affine(rows_TI, kernel_IO, bias_O), (rows_TI, kernel_IO)


def _affine_backward(saved, gradient_TO):
    by_bias_O = gradient_TO.astype(jnp.float32).sum(0)
    return (*product_gradients(0, saved, gradient_TO), by_bias_O)


affine.defvjp(_affine_forward, _affine_backward)


def _dot(a: jax.Array, b: jax.Array, contracted: tuple[int, int]) -> jax.Array:
    """Their product in float32, over one axis of each."""
    axes = (contracted[0],), (contracted[1],)

    def narrow(a, b):
        return jax.lax.dot_general(a, b, (axes, ((), ()))).astype(jnp.float32)

    def wide(a, b):
        lying, first = (_lying(a), (1,)) if contracted[0] == 0 else (a, axes[0])
        return jax.lax.dot_general(
            lying, b, ((first, axes[1]), ((), ())), preferred_element_type=jnp.float32
        )

    if a.dtype == jnp.float32:
        return narrow(a, b)
    return jax.lax.platform_dependent(a, b, cpu=wide, default=narrow)


def _lying(x: jax.Array) -> jax.Array:
    """The transpose of a matrix, in memory. Of a plain transpose XLA makes a product that reads its
    argument the other way, which is the slow one; over two axes it does not see one."""
    if len(x) % 2:
        return x.T
    return x.reshape(2, len(x) // 2, -1).transpose(2, 0, 1).reshape(-1, len(x))


def cast_kernels(params: dict, dtype: DTypeLike) -> dict:
    """`params` with the kernels in `dtype`: once for all of a step, or of a sampled text.

    Tables, biases and gains stay as they are, since lookups, sums and norms read them in float32.
    """

    def cast(path, leaf):
        is_kernel = path[-1].key.endswith("kernel")
        return jnp.asarray(leaf, dtype) if is_kernel else leaf

    return jax.tree_util.tree_map_with_path(cast, params)


class Linear(nn.Module):
    """x [..., `n_in`] @ kernel [`n_in`, `n_out`] + bias, in the dtype of the model, with its
    initialisation. The kernel may have been cast before. `decodes`: the product of few rows has a
    kernel of its own, that of NVIDIA GPUs."""

    config: ModelConfig
    n_in: int
    n_out: int
    use_bias: bool = True
    decodes: bool = False

    def setup(self):
        init = nn.initializers.normal(self.config.init_std)
        self.kernel = self.param("kernel", init, (self.n_in, self.n_out))
        if self.use_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (self.n_out,))

    def __call__(self, x: jax.Array) -> jax.Array:
        return by_rows(lambda rows: affine(rows, self.cast_kernel, self.bias), self._cast(x))

    def without_bias(self, x: jax.Array) -> jax.Array:
        """x @ kernel, for one that adds the bias later."""

        def multiply(rows):
            return self._cast(product(rows, self.cast_kernel))

        return by_rows(multiply, self._cast(x))

    def decode(self, x: jax.Array, add_bias: bool = True, gelu: bool = False) -> jax.Array:
        """x @ kernel, + bias, and GELU of it, without a gradient: of one token after another."""
        rows = self._cast(x.reshape(-1, self.n_in))
        bias = self.bias if add_bias else None
        if self.decodes:
            # Imported where it is used: a backend that some release of JAX drops must harm nobody.
            from gpt1_jax.kernels import decode_gpu

            if decode_gpu.suits(len(rows), self.n_in):
                out = decode_gpu.linear(rows, self.cast_kernel, bias, gelu=gelu)
                return out.reshape(*x.shape[:-1], self.n_out)
        out = self(x) if add_bias else self.without_bias(x)
        return activation.gelu(out) if gelu else out

    @property
    def cast_kernel(self) -> jax.Array:
        return self._cast(self.kernel)

    def _cast(self, x):
        return x.astype(self.config.compute_dtype)
