"""Residual sum and LayerNorm, with the dropout of the branch that is added.

    y = LayerNorm(residual + dropout(branch + shift))

where shift is the bias of the last product of the branch.

One function with its own gradient: the backward pass has the sum, and mean and deviation of each
token; the mask is drawn again where it is needed. All that is added up is added up in float32.
On an NVIDIA GPU each pass is one kernel (kernels/residual_norm_gpu.py).

Shapes: N sequences, L tokens, D width.
"""

import functools
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt1_jax.kernels.masks import dropped
from gpt1_jax.model.attention import Divide, undivided
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import Place, keep_mask, site_words, token_words


class ResidualNorm(nn.Module):
    """`residual_norm` with gain and bias of its own, and the dropout of one place."""

    config: ModelConfig
    place: Place
    kernel: bool = False
    divide: Divide = undivided

    @nn.compact
    def __call__(self, residual_NLD, branch_NLD, shift_D, keys_N, layer, packing=None):
        """Returns [N, L, D] of the dtype of `residual_NLD`; dropout where `keys_N` are given. Of
        packed tokens all are [T, 1, D], and no kernel is at work."""
        width = residual_NLD.shape[-1:]
        scale_D = self.param("scale", nn.initializers.ones, width)
        bias_D = self.param("bias", nn.initializers.zeros, width)
        rate = self.config.rate("resid")
        drops = keys_N is not None and rate > 0.0
        words = None
        if drops:
            words = token_words(site_words(keys_N, layer, self.place), packing, *width)
        kernel = self.kernel and packing is None
        form = Form(rate, self.config.layer_norm_epsilon, kernel, self.divide)
        return residual_norm(residual_NLD, branch_NLD, shift_D, scale_D, bias_D, words, form)


@dataclass(frozen=True)
class Form:
    """What is static of `residual_norm`; `kernel` and `divide` as in attention.py."""

    rate: float
    epsilon: float
    kernel: bool = False
    divide: Divide = undivided


def _dropped(x, words_N2, rate):
    """Dropout of x [N, L, D] in float32; without words x itself."""
    if words_N2 is None:
        return x
    return dropped(x, keep_mask(words_N2, rate, x.shape[1:]), 1.0 - rate)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6,))
def residual_norm(residual_NLD, branch_NLD, shift_D, scale_D, bias_D, words_N2, form):
    """LayerNorm(residual + dropout(branch + shift)) [N, L, D]; no dropout where `words_N2` is None.
    The vectors are float32."""
    return _forward(residual_NLD, branch_NLD, shift_D, scale_D, bias_D, words_N2, form)[0]


def _forward(residual_NLD, branch_NLD, shift_D, scale_D, bias_D, words_N2, form):
    if form.kernel:
        arrays = residual_NLD, branch_NLD, shift_D, scale_D, bias_D
        normed_NLD, *saved = _kernel_forward(arrays, words_N2, form)
        return normed_NLD, (*saved, scale_D, words_N2)
    branch = branch_NLD.astype(jnp.float32) + shift_D[None, None]
    branch = _dropped(branch, words_N2, form.rate)
    # Rounded as it is kept, so that both passes see the same sum.
    sum_NLD = (residual_NLD.astype(jnp.float32) + branch).astype(residual_NLD.dtype)
    wide = sum_NLD.astype(jnp.float32)
    mean_NL1 = wide.mean(-1, keepdims=True)
    # Not the mean of squares less the square of the mean, which loses digits.
    variance_NL1 = jnp.square(wide - mean_NL1).mean(-1, keepdims=True)
    factor_NL1 = jax.lax.rsqrt(variance_NL1 + form.epsilon)
    normed = (wide - mean_NL1) * factor_NL1 * scale_D[None, None] + bias_D[None, None]
    saved = (sum_NLD, mean_NL1, factor_NL1, scale_D, words_N2)
    return normed.astype(residual_NLD.dtype), saved


def _backward(form, saved, gradient_NLD):
    sum_NLD, mean_NL1, factor_NL1, scale_D, words_N2 = saved
    if form.kernel:
        return _kernel_backward(gradient_NLD, saved, form)
    if words_N2 is not None:
        # Otherwise XLA finds the mask of the forward pass, and keeps it in memory until here.
        words_N2 = jax.lax.optimization_barrier(words_N2)
    gradient = gradient_NLD.astype(jnp.float32)
    normed = (sum_NLD.astype(jnp.float32) - mean_NL1) * factor_NL1
    by_normed = gradient * scale_D[None, None]
    along = (by_normed * normed).mean(-1, keepdims=True)
    by_sum = factor_NL1 * (by_normed - by_normed.mean(-1, keepdims=True) - normed * along)
    by_branch, dtype = _dropped(by_sum, words_N2, form.rate), gradient_NLD.dtype
    return (
        by_sum.astype(dtype),
        by_branch.astype(dtype),
        by_branch.sum((0, 1)),
        (gradient * normed).sum((0, 1)),
        gradient.sum((0, 1)),
        None,
    )


def _words(words_N2, x_NLD, form):
    """The words that a kernel is given, and its rate."""
    if words_N2 is None:
        return jnp.zeros((len(x_NLD), 2), jnp.uint32), 0.0
    return words_N2, form.rate


def _kernel_forward(arrays, words_N2, form):
    # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
    from gpt1_jax.kernels import residual_norm_gpu

    words_N2, rate = _words(words_N2, arrays[0], form)
    run = form.divide(
        functools.partial(residual_norm_gpu.forward, rate=rate, epsilon=form.epsilon),
        ("NLD", "NLD", "D", "D", "D", "N2"),
        ("NLD", "NLD", "NL", "NL"),
    )
    normed_NLD, sum_NLD, mean_NL, factor_NL = run(*arrays, words_N2)
    return normed_NLD, sum_NLD, mean_NL[..., None], factor_NL[..., None]


def _kernel_backward(gradient_NLD, saved, form):
    from gpt1_jax.kernels import residual_norm_gpu

    sum_NLD, mean_NL1, factor_NL1, scale_D, words_N2 = saved
    words_N2, rate = _words(words_N2, sum_NLD, form)
    run = form.divide(
        functools.partial(residual_norm_gpu.backward, rate=rate),
        ("NLD", "NLD", "NL", "NL", "D", "N2"),
        ("NLD", "NLD", "NG3D"),
    )
    *by_terms, by_affine_NG3D = run(
        gradient_NLD, sum_NLD, mean_NL1[..., 0], factor_NL1[..., 0], scale_D, words_N2
    )
    by_scale_D, by_bias_D, by_shift_D = by_affine_NG3D.sum((0, 1))
    return (*by_terms, by_shift_D, by_scale_D, by_bias_D, None)


residual_norm.defvjp(_forward, _backward)
