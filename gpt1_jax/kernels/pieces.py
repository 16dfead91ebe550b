"""Rows in pieces: all arrays of a Triton kernel have sizes that are powers of two."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

LEAST_PIECE, MOST_PIECES = 32, 8


def piece(width: int) -> int:
    """The largest power of two that divides the width.

    >>> piece(768), piece(64)
    (256, 64)
    """
    return width & -width


def of(width: int) -> list[slice | pl.Slice]:
    """The columns of a row of this width, piece by piece."""
    return [pl.dslice(start, piece(width)) for start in range(0, width, piece(width))]


def suits(width: int) -> bool:
    """Whether the kernels can take rows of this width.

    >>> suits(768), suits(64), suits(100)
    (True, True, False)
    """
    return piece(width) >= LEAST_PIECE and width // piece(width) <= MOST_PIECES


def in_turn(load: Callable, step: Callable, carry: Any, rows: int, group: int) -> Any:
    """step(begin, carry, load(rows from begin on)) for all rows of a group, some at a time.

    The next are asked for before these are reckoned with: a program of few warps has nothing else
    to do meanwhile.
    """

    def body(i, state):
        carry, loaded = state
        following = load(pl.dslice(jnp.minimum((i + 1) * rows, group - rows), rows))
        return step(i * rows, carry, loaded), following

    return lax.fori_loop(0, group // rows, body, (carry, load(pl.dslice(0, rows))))[0]


def padded(x: jax.Array, axis: int, multiple: int) -> jax.Array:
    """x with zeros behind, along one axis, up to a multiple."""
    missing = -x.shape[axis] % multiple
    return jnp.pad(x, [(0, missing * (i == axis)) for i in range(x.ndim)])
