"""The MLP of a block, as one function with its own gradient.

Of the forward pass its input and what GELU was given are kept, and GELU's value where memory is not
saved. On an NVIDIA GPU, GELU is one kernel forward and one backward, which adds up the gradient of
the bias before it, too (kernels/gelu_gpu.py).

Shapes: T tokens, D width, F hidden units.
"""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt1_jax.model.activation import gelu, gelu_and_slope
from gpt1_jax.model.attention import Divide, undivided
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.linear import Linear, affine, by_rows, product, product_gradients


class MLP(nn.Module):
    """Four times wider inside, without dropout there, as in the released code. What it returns
    lacks the bias of c_proj, which is added with the residual."""

    config: ModelConfig
    kernel: bool = False
    divide: Divide = undivided

    def setup(self):
        width, decodes = self.config.n_embd, self.kernel and self.divide is undivided
        self.c_fc = Linear(self.config, width, 4 * width, decodes=decodes)
        self.c_proj = Linear(self.config, 4 * width, width, decodes=decodes)

    def __call__(self, x_NLD):
        # A loop over layers keeps for each what its backward pass needs.
        form = Form(not self.config.scan_layers, self.kernel, self.divide)
        inner, outer, bias = self.c_fc.cast_kernel, self.c_proj.cast_kernel, self.c_fc.bias
        return by_rows(lambda rows: mlp(rows, inner, bias, outer, form), x_NLD)

    def decode(self, x_NLD):
        """The same without a gradient, for one token after another."""
        return self.c_proj.decode(self.c_fc.decode(x_NLD, gelu=True), add_bias=False)


@dataclass(frozen=True)
class Form:
    """What is static of `mlp`. keep: GELU's value is kept for the backward pass rather than made
    again. `kernel` and `divide` as in attention.py."""

    keep: bool = True
    kernel: bool = False
    divide: Divide = undivided


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def mlp(rows_TD, inner_DF, bias_F, outer_FD, form):
    """gelu(rows @ inner + bias) @ outer, [T, D] in the dtype of the rows."""
    return _forward(rows_TD, inner_DF, bias_F, outer_FD, form)[0]


def _forward(rows_TD, inner_DF, bias_F, outer_FD, form):
    hidden_TF = affine(rows_TD, inner_DF, bias_F)
    active_TF = _gelu(hidden_TF, form)
    out_TD = product(active_TF, outer_FD).astype(rows_TD.dtype)
    kept_TF = active_TF if form.keep else None
    return out_TD, (rows_TD, inner_DF, outer_FD, hidden_TF, kept_TF)


def _backward(form, saved, gradient_TD):
    rows_TD, inner_DF, outer_FD, hidden_TF, active_TF = saved
    # Otherwise XLA finds the tanh of the forward pass, and keeps it in memory until here.
    hidden_TF = jax.lax.optimization_barrier(hidden_TF)
    if active_TF is None:
        active_TF = _gelu(hidden_TF, form)
    by_active_TF, by_outer_FD = product_gradients(0, (active_TF, outer_FD), gradient_TD)
    by_hidden_TF, by_bias_F = _gelu_gradient(hidden_TF, by_active_TF, form)
    by_rows_TD, by_inner_DF = product_gradients(0, (rows_TD, inner_DF), by_hidden_TF)
    return by_rows_TD, by_inner_DF, by_bias_F, by_outer_FD


mlp.defvjp(_forward, _backward)


def _gelu(x_TF, form):
    if not form.kernel:
        return gelu(x_TF)
    # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
    from gpt1_jax.kernels import gelu_gpu

    # Tokens lie where rows do and hidden units where heads do.
    (active_TF,) = form.divide(gelu_gpu.forward, ("NH",), ("NH",))(x_TF)
    return active_TF


def _gelu_gradient(x_TF, gradient_TF, form):
    """The gradient by x, and its sum over all tokens [F] in float32."""
    if form.kernel:
        from gpt1_jax.kernels import gelu_gpu

        run = form.divide(gelu_gpu.backward, ("NH", "NH"), ("NH", "NH"))
        by_x_TF, sums_GF = run(x_TF, gradient_TF)
        return by_x_TF, sums_GF.sum(0)
    by_x_TF = (gradient_TF.astype(jnp.float32) * gelu_and_slope(x_TF)[1]).astype(x_TF.dtype)
    return by_x_TF, by_x_TF.astype(jnp.float32).sum(0)
