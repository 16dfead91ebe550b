"""Residual sum, dropout and LayerNorm for NVIDIA GPUs: one pass forward and one backward.

Each pass reads its arrays once and writes its results once. What XLA makes of the same formulas are
four to seven passes with a float32 array and a written mask between them.

The width D is taken in pieces of a power of two, since all arrays of a kernel have such sizes.

Shapes: N sequences, L tokens, D width, G groups of tokens.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from gpt1_jax.kernels import pieces
from gpt1_jax.kernels.masks import hashed, kept
from gpt1_jax.kernels.triton import Setting, call

FORWARD, BACKWARD = Setting(1, 2, 2), Setting(1, 1, 2)
# Tokens of one program. That of the backward pass adds up their gradients of gain and bias.
GROUP = 16


def _rows(rows, width=None):
    """Some tokens of one sequence: of [N, L, D], or of [N, L]."""
    if width is None:
        return pl.BlockSpec((None, rows), lambda i, n: (n, i))
    return pl.BlockSpec((None, rows, width), lambda i, n: (n, i, 0))


def _whole(*shape):
    return pl.BlockSpec(shape, lambda i, n: (0,) * len(shape))


_WORDS = pl.BlockSpec((None, 2), lambda i, n: (n, 0))


# Both are traced and lowered once for all layers.
@functools.partial(jax.jit, static_argnames=("rate", "epsilon"))
def forward(residual_NLD, branch_NLD, shift_D, scale_D, bias_D, words_N2, *, rate, epsilon):
    """The norm and the sum [N, L, D], mean and inverse deviation of each token [N, L], float32."""
    n, length, width = residual_NLD.shape
    group = math.gcd(GROUP, length)
    array, line = _rows(group, width), _rows(group)
    return call(
        _forward_body,
        FORWARD.for_rows(group),
        (words_N2, residual_NLD, branch_NLD, shift_D, scale_D, bias_D),
        name="residual_norm_forward",
        static={"rate": rate, "epsilon": epsilon, "width": width, "group": group},
        grid=(length // group, n),
        in_specs=[_WORDS, array, array, *[_whole(width)] * 3],
        out_specs=[array, array, line, line],
        out_shape=[
            *[jax.ShapeDtypeStruct(residual_NLD.shape, residual_NLD.dtype)] * 2,
            *[jax.ShapeDtypeStruct((n, length), jnp.float32)] * 2,
        ],
    )


@functools.partial(jax.jit, static_argnames=("rate",))
def backward(gradient_NLD, sum_NLD, mean_NL, factor_NL, scale_D, words_N2, *, rate):
    """Gradients of residual and branch [N, L, D], and those of gain, bias and shift [N, G, 3, D],
    to be added up."""
    n, length, width = sum_NLD.shape
    group = math.gcd(GROUP, length)
    array, line = _rows(group, width), _rows(group)
    return call(
        _backward_body,
        BACKWARD.for_rows(group),
        (words_N2, gradient_NLD, sum_NLD, mean_NL, factor_NL, scale_D),
        name="residual_norm_backward",
        static={"rate": rate, "width": width, "group": group},
        grid=(length // group, n),
        in_specs=[_WORDS, array, array, line, line, _whole(width)],
        out_specs=[
            array,
            array,
            pl.BlockSpec((None, None, 3, width), lambda i, n: (n, i, 0, 0)),
        ],
        out_shape=[
            *[jax.ShapeDtypeStruct(sum_NLD.shape, gradient_NLD.dtype)] * 2,
            jax.ShapeDtypeStruct((n, length // group, 3, width), jnp.float32),
        ],
    )


def _dropped(x, words_ref, token, columns, rate, width):
    """Dropout of x [rows, columns] in float32."""
    if rate == 0.0:
        return x
    column = columns.start + jnp.arange(columns.size)
    index = (token[:, None] * width + column[None]).astype(jnp.uint32)
    stays = kept(hashed(index, words_ref[0], words_ref[1]), rate)
    # A factor rather than a choice, after which the compiler would round one by one.
    return x * jnp.where(stays, jnp.float32(1.0 / (1.0 - rate)), jnp.float32(0.0))


def _row_sums(parts):
    """[rows, 1] of the pieces [rows, columns] of some rows."""
    return functools.reduce(jnp.add, parts).sum(-1)[:, None]


def _forward_body(
    words_ref, residual_ref, branch_ref, shift_ref, scale_ref, bias_ref,
    normed_ref, sum_ref, mean_ref, factor_ref,
    *, rows, rate, epsilon, width, group,
):  # fmt: skip
    parts, dtype = pieces.of(width), sum_ref.dtype
    first = pl.program_id(0) * group
    vectors = [
        [ref[columns][None] for columns in parts] for ref in (shift_ref, scale_ref, bias_ref)
    ]

    def load(some):
        return [(residual_ref[some, columns], branch_ref[some, columns]) for columns in parts]

    def step(begin, carry, arrays):
        some, token, sums = pl.dslice(begin, rows), first + begin + jnp.arange(rows), []
        for columns, (residual, branch), shift in zip(parts, arrays, vectors[0], strict=True):
            branch = branch.astype(jnp.float32) + shift
            branch = _dropped(branch, words_ref, token, columns, rate, width)
            # Rounded as it is kept, so that both passes see the same sum.
            total = (residual.astype(jnp.float32) + branch).astype(dtype)
            sum_ref[some, columns] = total
            sums.append(total.astype(jnp.float32))
        mean = _row_sums(sums) / width
        variance = _row_sums([jnp.square(x - mean) for x in sums]) / width
        factor = lax.rsqrt(variance + epsilon)
        for columns, x, scale, bias in zip(parts, sums, *vectors[1:], strict=True):
            normed_ref[some, columns] = ((x - mean) * factor * scale + bias).astype(dtype)
        mean_ref[some], factor_ref[some] = mean[:, 0], factor[:, 0]
        return carry

    pieces.in_turn(load, step, 0, rows, group)


def _backward_body(
    words_ref, gradient_ref, sum_ref, mean_ref, factor_ref, scale_ref,
    by_residual_ref, by_branch_ref, by_affine_ref,
    *, rows, rate, width, group,
):  # fmt: skip
    parts, dtype = pieces.of(width), by_residual_ref.dtype
    first = pl.program_id(0) * group

    def load(some):
        arrays = [(gradient_ref[some, columns], sum_ref[some, columns]) for columns in parts]
        return arrays, mean_ref[some][:, None], factor_ref[some][:, None]

    def step(begin, totals, loaded):
        some, token = pl.dslice(begin, rows), first + begin + jnp.arange(rows)
        arrays, mean, factor = loaded
        gradients = [gradient.astype(jnp.float32) for gradient, _ in arrays]
        normed = [(total.astype(jnp.float32) - mean) * factor for _, total in arrays]
        by_normed = [
            g * scale_ref[columns][None] for g, columns in zip(gradients, parts, strict=True)
        ]
        level = _row_sums(by_normed) / width
        along = _row_sums([a * b for a, b in zip(by_normed, normed, strict=True)]) / width
        by_branches = []
        for columns, x, y in zip(parts, by_normed, normed, strict=True):
            by_sum = factor * (x - level - y * along)
            by_residual_ref[some, columns] = by_sum.astype(dtype)
            by_branch = _dropped(by_sum, words_ref, token, columns, rate, width)
            by_branch_ref[some, columns] = by_branch.astype(dtype)
            by_branches.append(by_branch)
        added = zip(totals, gradients, normed, by_branches, strict=True)
        return tuple((a + g * y, b + g, c + by_branch) for (a, b, c), g, y, by_branch in added)

    zeros = jnp.zeros((rows, pieces.piece(width)), jnp.float32)
    totals = pieces.in_turn(load, step, ((zeros,) * 3,) * len(parts), rows, group)
    for columns, sums in zip(parts, totals, strict=True):
        for place, total in enumerate(sums):
            by_affine_ref[place, columns] = total.sum(0)
