"""How fast the devices could be: the figures of their makers, or of a product measured here."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gpt1_jax.model.linear import product


class Peak(NamedTuple):
    """Dense matrix products, TFLOP/s, and where the figure comes from."""

    tflops: float
    source: str


class _Chip(NamedTuple):
    """TFLOP/s by dtype of the operands. float32 is what JAX makes of it by default: TF32 on an
    NVIDIA GPU that has it, one pass of bfloat16 on a TPU."""

    bfloat16: float
    float16: float
    float32: float


# Data sheets of the makers, without sparsity. By the beginning of device_kind, longer ones first.
CHIPS: dict[str, _Chip] = {
    "NVIDIA H200": _Chip(989, 989, 495),
    "NVIDIA H100 PCIe": _Chip(756, 756, 378),
    "NVIDIA H100 NVL": _Chip(835, 835, 418),
    "NVIDIA H100": _Chip(989, 989, 495),
    "NVIDIA A100": _Chip(312, 312, 156),
    "NVIDIA L4": _Chip(121, 121, 60),
    "Tesla T4": _Chip(8.1, 65, 8.1),  # knows no bfloat16, nor TF32
    "NVIDIA T4": _Chip(8.1, 65, 8.1),
    "Tesla V100": _Chip(15.7, 125, 15.7),
    "NVIDIA V100": _Chip(15.7, 125, 15.7),
    "TPU v4": _Chip(275, 275, 275),
    "TPU v5 lite": _Chip(197, 197, 197),
    "TPU v5e": _Chip(197, 197, 197),
    "TPU v5p": _Chip(459, 459, 459),
    "TPU v5": _Chip(459, 459, 459),
    "TPU v6 lite": _Chip(918, 918, 918),
    "TPU v6e": _Chip(918, 918, 918),
}

# Rows, inner and columns of the product that is measured: that of a layer on 4 sequences of 512.
PRODUCT = (2048, 768, 3072)
_REPEATS = 10


def known_peak(device_kind: str, dtype: str) -> Peak | None:
    """That of the maker; None for a device that is not in the table.

    >>> known_peak("NVIDIA H100 80GB HBM3", "bfloat16").tflops
    989
    """
    for name, chip in CHIPS.items():
        if device_kind == name or device_kind.startswith((f"{name} ", f"{name}-")):
            return Peak(getattr(chip, dtype), f"data sheet of {name}")
    return None


def peak(device: jax.Device, dtype: str) -> Peak:
    """Of one device: that of the maker, else (a CPU, say) the best of some products here."""
    return known_peak(device.device_kind, dtype) or _measured(device, dtype)


def _measured(device: jax.Device, dtype: str) -> Peak:
    rows, inner, columns = PRODUCT
    left = jax.device_put(jnp.ones((rows, inner), dtype), device)
    right = jax.device_put(jnp.ones((inner, columns), dtype), device)
    # As the model multiplies: in bfloat16 the plain form is the slower one on a CPU.
    multiply = jax.jit(product)
    multiply(left, right).block_until_ready()
    seconds = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        multiply(left, right).block_until_ready()
        seconds.append(time.perf_counter() - began)
    size = "x".join(map(str, PRODUCT))
    return Peak(2 * rows * inner * columns / min(seconds) / 1e12, f"a product {size} measured here")
