"""The cross-entropy of the next token, from hidden states and the rows of the output.

The product runs over the rows of the output padded to a multiple of 128, which is what matrix units
are made for: with GPT-1's 40478 columns it runs at half the speed of 40576 on a GPU. What is padded
exists inside the step alone. The scores stay in the dtype of the model; their maximum and their sum
of exponentials are computed in float32.

In training all weights are known when the scores are, so their gradient, softmax - one-hot, is made
then, and takes their place. On an NVIDIA GPU that is one pass (kernels/cross_entropy_gpu.py).

Shapes: N sequences, L tokens, D width, V rows of the output, P of them with the padding, T tokens
of all sequences.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from gpt1_jax.model.attention import Divide, undivided
from gpt1_jax.model.linear import product, product_gradients

MULTIPLE = 128


def token_losses(hidden_NLD: jax.Array, output_VD: jax.Array, targets_NL: jax.Array) -> jax.Array:
    """Cross-entropy [N, L], in nats and float32, of the target at each position."""
    losses_T, _ = _statistics(
        _scores(hidden_NLD.reshape(-1, hidden_NLD.shape[-1]), _padded(output_VD)),
        targets_NL.reshape(-1),
        len(output_VD),
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


def _statistics(scores_TP, targets_T, n_rows):
    """The losses [T] and the logarithm [T] of the sum of exponentials."""
    scores = scores_TP.astype(jnp.float32)
    if n_rows < scores.shape[1]:
        scores = jnp.where(_is_row(scores, n_rows), scores, -jnp.inf)
    log_sum_T = jax.nn.logsumexp(scores, axis=1)
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


@dataclass(frozen=True)
class Form:
    """How the loss of training is computed: in so many chunks of tokens, by the kernel of NVIDIA
    GPUs or not, and how that runs on several devices (attention.py)."""

    n_chunks: int = 1
    kernel: bool = False
    divide: Divide = undivided


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def weighted_sum(
    hidden_NLD: jax.Array,
    output_VD: jax.Array,
    targets_NL: jax.Array,
    weights_NL: jax.Array,
    form: Form,
) -> jax.Array:
    """The sum of weight times loss, float32.

    Of several chunks only the scores of one exist at a time; nothing is computed twice. They divide
    the tokens of each sequence, not the sequences, so that every device has its part of each. The
    weights themselves have no gradient.
    """
    if form.n_chunks == 1:
        return (token_losses(hidden_NLD, output_VD, targets_NL) * weights_NL).sum()
    return _in_chunks(hidden_NLD, output_VD, targets_NL, weights_NL, form.n_chunks, False)[0]


def _weighted_sum_forward(hidden_NLD, output_VD, targets_NL, weights_NL, form):
    """The sum, and its gradients by hidden states and output."""
    if form.n_chunks > 1:
        return _in_chunks(hidden_NLD, output_VD, targets_NL, weights_NL, form.n_chunks, True)
    rows_TD, output_PD = hidden_NLD.reshape(-1, hidden_NLD.shape[-1]), _padded(output_VD)
    targets_T, weights_T = targets_NL.reshape(-1), weights_NL.reshape(-1)
    scores_TP = _scores(rows_TD, output_PD)
    losses_T, gradient_TP = _losses_and_gradient(
        scores_TP, targets_T, weights_T, len(output_VD), form
    )
    with jax.named_scope("logits"):
        by_rows_TD, by_output_PD = product_gradients(1, (rows_TD, output_PD), gradient_TP)
    gradients = by_rows_TD.reshape(hidden_NLD.shape), by_output_PD[: len(output_VD)]
    return (losses_T * weights_T).sum(), gradients


def _weighted_sum_backward(form, gradients, factor):
    hidden_NLD, output_VD = gradients
    dtype = hidden_NLD.dtype
    return (hidden_NLD * factor).astype(dtype), (output_VD * factor).astype(dtype), None, None


weighted_sum.defvjp(_weighted_sum_forward, _weighted_sum_backward)


def _losses_and_gradient(scores_TP, targets_T, weights_T, n_rows, form):
    if form.kernel:
        # Imported where it is used: a backend that some release of JAX drops must harm nobody else.
        from gpt1_jax.kernels import cross_entropy_gpu

        if cross_entropy_gpu.suits(scores_TP.shape[1]):
            run = functools.partial(cross_entropy_gpu.losses_and_gradient, n_columns=n_rows)
            return form.divide(run, ("NP", "N", "N"), ("N", "NP"))(scores_TP, targets_T, weights_T)
    losses_T, log_sum_T = _statistics(scores_TP, targets_T, n_rows)
    return losses_T, _gradient(scores_TP, log_sum_T, targets_T, weights_T, n_rows)


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
        losses_T, log_sum_T = _statistics(scores_TP, targets_T, n_rows)
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
