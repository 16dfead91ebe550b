"""How a Pallas kernel for NVIDIA GPUs is called: compiled by Triton there, interpreted elsewhere.

JAX calls its Triton backend deprecated since 0.11. recipe/attention_choice.py goes without these
kernels where the backend is missing.
"""

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu


class Setting(NamedTuple):
    """How many rows a program takes at a time, how many warps it has, and over how many steps of a
    loop its loads are spread."""

    rows: int
    warps: int
    stages: int

    def for_rows(self, count: int) -> "Setting":
        """This setting with no more rows than divide `count`; both are powers of two or none."""
        return self._replace(rows=math.gcd(self.rows, count))


def call(
    body: Callable,
    setting: Setting,
    operands: Sequence[jax.Array],
    *,
    name: str,
    static: dict[str, Any],
    **options: Any,
) -> Any:
    """`body` over a grid; `static` are its keywords beside `rows`, `options` those of pallas_call.
    On another platform than CUDA it is interpreted, which is slow and exact."""
    # What JAX says while it lowers the kernel, in each program anew.
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
    params = plgpu.CompilerParams(num_warps=setting.warps, num_stages=setting.stages)

    def run(interpret, *operands):
        return pl.pallas_call(
            functools.partial(body, rows=setting.rows, **static),
            compiler_params=params,
            interpret=interpret,
            name=name,
            **options,
        )(*operands)

    return lax.platform_dependent(
        *operands, cuda=functools.partial(run, False), default=functools.partial(run, True)
    )
