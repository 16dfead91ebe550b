"""The cross-entropy of the next token, from hidden states and the rows of the output.

The product runs over the rows of the output padded to a multiple of 128, which is what matrix units
are made for: with GPT-1's 40478 columns it runs at half the speed of 40576 on a GPU. What is padded
exists inside the step alone. The scores stay in the dtype of the model; their maximum and their sum
of exponentials are computed in float32. What the backward pass needs are the scores and the
logarithm of that sum, from which one pass writes softmax - one-hot. On an NVIDIA GPU one kernel
reads the scores once for both (kernels/cross_entropy_gpu.py).

Shapes: N sequences, L tokens, D width, V rows of the output, P of them with the padding, T tokens
of all sequences.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gpt1_jax.model.attention import Divide, undivided
from gpt1_jax.model.linear import product

MULTIPLE = 128


def token_losses(
    hidden_NLD: jax.Array,
    output_VD: jax.Array,
    targets_NL: jax.Array,
    kernel: bool = False,
    divide: Divide = undivided,
) -> jax.Array:
    """Cross-entropy [N, L], in nats and float32, of the target at each position. `kernel`: that of
    NVIDIA GPUs; `divide` as in attention.py."""
    losses_T = _losses(
        _scores(hidden_NLD.reshape(-1, hidden_NLD.shape[-1]), _padded(output_VD)),
        targets_NL.reshape(-1),
        Form(len(output_VD), kernel, divide),
    )
    return losses_T.reshape(targets_NL.shape)


def _padded(output_VD: jax.Array) -> jax.Array:
    return jnp.pad(output_VD, ((0, -len(output_VD) % MULTIPLE), (0, 0)))


@jax.named_scope("logits")
def _scores(rows_TD: jax.Array, output_PD: jax.Array) -> jax.Array:
    return product(rows_TD, output_PD, 1).astype(rows_TD.dtype)


def _is_row(scores_TP: jax.Array, n_rows: int) -> jax.Array:
    """Which columns are rows of the output rather than padding."""
    return jax.lax.broadcasted_iota(jnp.int32, scores_TP.shape, 1) < n_rows


@dataclass(frozen=True)
class Form:
    """What is static of the loss. n_rows: rows of the output, without the padding."""

    n_rows: int
    kernel: bool = False
    divide: Divide = undivided


def _log_sum(scores_TP, form):
    """The logarithm [T] of the sum of exponentials."""
    if form.kernel:
        # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
        from gpt1_jax.kernels.cross_entropy_gpu import log_sum_exp

        run = functools.partial(log_sum_exp, n_columns=form.n_rows)
        return form.divide(run, ("NP",), ("N",))(scores_TP)
    scores = scores_TP.astype(jnp.float32)
    if form.n_rows < scores.shape[1]:
        scores = jnp.where(_is_row(scores, form.n_rows), scores, -jnp.inf)
    return jax.nn.logsumexp(scores, axis=1)


def _statistics(scores_TP, targets_T, form):
    """The losses [T] and the logarithm [T] of the sum of exponentials."""
    log_sum_T = _log_sum(scores_TP, form)
    target_T = jnp.take_along_axis(scores_TP, targets_T[:, None], axis=1)[:, 0]
    return log_sum_T - target_T.astype(jnp.float32), log_sum_T


def _gradient(scores_TP, log_sum_T, targets_T, weights_T, n_rows):
    """(softmax - one-hot) * weight, of the dtype of the scores."""
    column = jax.lax.broadcasted_iota(jnp.int32, scores_TP.shape, 1)
    softmax = jnp.exp(scores_TP.astype(jnp.float32) - log_sum_T[:, None])
    if n_rows < scores_TP.shape[1]:
        softmax = jnp.where(_is_row(scores_TP, n_rows), softmax, 0.0)
    gradient = (softmax - (column == targets_T[:, None])) * weights_T[:, None]
    return gradient.astype(scores_TP.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _losses(scores_TP, targets_T, form):
    return _statistics(scores_TP, targets_T, form)[0]


def _losses_forward(scores_TP, targets_T, form):
    losses_T, log_sum_T = _statistics(scores_TP, targets_T, form)
    return losses_T, (scores_TP, log_sum_T, targets_T)


def _losses_backward(form, saved, weights_T):
    scores_TP, log_sum_T, targets_T = saved
    return _gradient(scores_TP, log_sum_T, targets_T, weights_T, form.n_rows), None


_losses.defvjp(_losses_forward, _losses_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_sum_in_chunks(
    hidden_NLD: jax.Array,
    output_VD: jax.Array,
    targets_NL: jax.Array,
    weights_NL: jax.Array,
    n_chunks: int,
) -> jax.Array:
    """The sum of weight times loss, float32, where only 1 / n_chunks of the scores exist at a time.

    All weights are known here, so each chunk's gradient is made while its scores exist, and nothing
    is computed twice. The chunks divide the tokens of each sequence, not the sequences, so that
    every device has its part of each. The weights themselves have no gradient.
    """
    return _in_chunks(hidden_NLD, output_VD, targets_NL, weights_NL, n_chunks, False)[0]


def _chunks(x: jax.Array, n_chunks: int) -> jax.Array:
    """x [N, L, ...] as [n_chunks, N * L / n_chunks, ...], filled up with zeros."""
    size = -(-x.shape[1] // n_chunks)
    rest = [(0, 0)] * (x.ndim - 2)
    x = jnp.pad(x, [(0, 0), (0, size * n_chunks - x.shape[1]), *rest])
    x = x.reshape(x.shape[0], n_chunks, size, *x.shape[2:]).swapaxes(0, 1)
    return x.reshape(n_chunks, -1, *x.shape[3:])


def _whole(chunks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """What `_chunks` took apart, an array of `shape`."""
    x = chunks.reshape(len(chunks), shape[0], -1, *chunks.shape[2:]).swapaxes(0, 1)
    return x.reshape(shape[0], -1, *x.shape[3:])[:, : shape[1]]


def _in_chunks(hidden_NLD, output_VD, targets_NL, weights_NL, n_chunks, differentiated):
    """The sum and, where it is to be differentiated, its gradients by hidden states and output."""
    n_rows, output_PD = len(output_VD), _padded(output_VD)

    def chunk(carry, arrays):
        total, output_gradient_PD = carry
        rows_TD, targets_T, weights_T = arrays
        scores_TP = _scores(rows_TD, output_PD)
        losses_T, log_sum_T = _statistics(scores_TP, targets_T, Form(n_rows))
        total = total + (losses_T * weights_T).sum()
        if not differentiated:
            return (total, None), None
        gradient_TP = _gradient(scores_TP, log_sum_T, targets_T, weights_T, n_rows)
        output_gradient_PD += jax.lax.dot_general(
            gradient_TP, rows_TD, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
        return (total, output_gradient_PD), product(gradient_TP, output_PD).astype(rows_TD.dtype)

    arrays = tuple(_chunks(x, n_chunks) for x in (hidden_NLD, targets_NL, weights_NL))
    zeros_PD = jnp.zeros(output_PD.shape, jnp.float32) if differentiated else None
    (total, output_gradient_PD), rows = jax.lax.scan(chunk, (jnp.float32(0.0), zeros_PD), arrays)
    if not differentiated:
        return total, None
    return total, (_whole(rows, hidden_NLD.shape), output_gradient_PD[:n_rows])


def _in_chunks_forward(hidden_NLD, output_VD, targets_NL, weights_NL, n_chunks):
    return _in_chunks(hidden_NLD, output_VD, targets_NL, weights_NL, n_chunks, True)


def _in_chunks_backward(n_chunks, gradients, factor):
    hidden_NLD, output_VD = gradients
    dtype = hidden_NLD.dtype
    return (hidden_NLD * factor).astype(dtype), (output_VD * factor).astype(dtype), None, None


weighted_sum_in_chunks.defvjp(_in_chunks_forward, _in_chunks_backward)
