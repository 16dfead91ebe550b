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
import jax.numpy as jnp
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
    fuses: bool = False,
    **options: Any,
) -> Any:
    """`body` over a grid; `static` are its keywords beside `rows`, `options` those of pallas_call.
    A body that `fuses` has a keyword for that, `fused`.
    On another platform than CUDA it is interpreted, which is slow and exact."""
    # What JAX says while it lowers the kernel, in each program anew.
    warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)
    params = plgpu.CompilerParams(num_warps=setting.warps, num_stages=setting.stages)

    def run(interpret, *operands):
        more = {"fused": INTERPRETED if interpret else COMPILED} if fuses else {}
        return pl.pallas_call(
            functools.partial(body, rows=setting.rows, **static, **more),
            compiler_params=params,
            interpret=interpret,
            name=name,
            **options,
        )(*operands)

    return lax.platform_dependent(
        *operands, cuda=functools.partial(run, False), default=functools.partial(run, True)
    )


class Fused(NamedTuple):
    """Products with a sum, of float32 arrays that broadcast, in as few operations as the GPU has
    for them. Of those in its own code XLA sees to that, of those in a kernel for Triton nobody."""

    add: Callable[..., jax.Array]  # x * y + z
    power: Callable[..., jax.Array]  # 2 ** (x * y + z), 0 where it is less than 2 ** -126


def _assembled(code: str) -> Callable[..., jax.Array]:
    def run(x, y, z):
        arrays = jnp.broadcast_arrays(x, y, z)
        return plgpu.elementwise_inline_asm(
            code,
            args=arrays,
            constraints="=f,f,f,f",
            pack=1,
            result_shape_dtypes=[jax.ShapeDtypeStruct(arrays[0].shape, jnp.float32)],
        )[0]

    return run


INTERPRETED = Fused(lambda x, y, z: x * y + z, lambda x, y, z: jnp.exp2(x * y + z))
COMPILED = Fused(
    _assembled("fma.rn.f32 $0, $1, $2, $3;"),
    _assembled("fma.rn.f32 $0, $1, $2, $3; ex2.approx.ftz.f32 $0, $0;"),
)
