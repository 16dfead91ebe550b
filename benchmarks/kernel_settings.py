"""Rows, warps and stages of each Triton kernel, tried on an NVIDIA GPU at the sizes of the paper.

    python benchmarks/kernel_settings.py [KERNEL ...]

Prints a line of JSON for each: milliseconds of one call, the median of the rounds, and the rate at
which it reads its arguments and writes its results. SMALL, any value: small arrays, to see on a CPU
that all of it works.
"""

import argparse
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from unittest import mock

import jax
import jax.numpy as jnp

from gpt1_jax.kernels import attention_gpu, cross_entropy_gpu, gelu_gpu, residual_norm_gpu
from gpt1_jax.kernels.triton import Setting

N, LENGTH, HEADS, SIZE, COLUMNS = 64, 512, 12, 64, 40576
if "SMALL" in os.environ:
    N, LENGTH, HEADS, SIZE, COLUMNS = 2, 64, 2, 32, 256
WIDTH, RATE = HEADS * SIZE, 0.1
ROUNDS, CALLS = 5, 10


def normal(seed: int, *shape: int, dtype=jnp.bfloat16) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def words() -> jax.Array:
    return jax.random.bits(jax.random.key(9), (N, 2), jnp.uint32)


def norm_forward() -> tuple[Callable, tuple]:
    run = functools.partial(residual_norm_gpu.forward, rate=RATE, epsilon=1e-5)
    arrays = normal(0, N, LENGTH, WIDTH), normal(1, N, LENGTH, WIDTH)
    return run, (*arrays, jnp.zeros(WIDTH), jnp.ones(WIDTH), jnp.zeros(WIDTH), words())


def norm_backward() -> tuple[Callable, tuple]:
    run = functools.partial(residual_norm_gpu.backward, rate=RATE)
    arrays = normal(0, N, LENGTH, WIDTH), normal(1, N, LENGTH, WIDTH)
    lines = normal(2, N, LENGTH, dtype=jnp.float32), jnp.ones((N, LENGTH))
    return run, (*arrays, *lines, jnp.ones(WIDTH), words())


def gelu_forward() -> tuple[Callable, tuple]:
    return gelu_gpu.forward, (normal(0, N * LENGTH, 4 * WIDTH),)


def gelu_backward() -> tuple[Callable, tuple]:
    return gelu_gpu.backward, tuple(normal(seed, N * LENGTH, 4 * WIDTH) for seed in range(2))


def cross_entropy() -> tuple[Callable, tuple]:
    run = functools.partial(cross_entropy_gpu.losses_and_gradient, n_columns=COLUMNS - 98)
    tokens = N * LENGTH
    return run, (normal(0, tokens, COLUMNS), jnp.zeros(tokens, jnp.int32), jnp.ones(tokens))


def attention() -> tuple[Callable, tuple]:
    def run(qkv, words, mark):
        whole = lambda function, *_: function  # noqa: E731
        out, back = jax.vjp(
            lambda qkv: attention_gpu.attention(qkv, words, RATE, LENGTH, whole), qkv
        )
        return out, back(mark)[0]

    return run, (normal(0, N, LENGTH, 3, HEADS, SIZE), words(), normal(1, N, LENGTH, HEADS, SIZE))


def settings(rows: list[int], warps: list[int], stages: list[int]) -> list[Setting]:
    return [Setting(r, w, s) for r in rows for w in warps for s in stages]


TRIED: dict[str, tuple[Callable, str, list[Setting]]] = {
    "norm_forward": (
        norm_forward,
        "residual_norm_gpu.FORWARD",
        settings([1, 2], [1, 2], [2]) + settings([4], [2, 4], [2]),
    ),
    "norm_backward": (
        norm_backward,
        "residual_norm_gpu.BACKWARD",
        settings([1], [1, 2], [2]) + settings([2, 4], [2], [2]),
    ),
    "gelu_forward": (gelu_forward, "gelu_gpu.FORWARD", settings([1, 4, 8], [4, 8], [2])),
    "gelu_backward": (gelu_backward, "gelu_gpu.BACKWARD", settings([1, 2, 4], [4, 8], [2])),
    "cross_entropy": (cross_entropy, "cross_entropy_gpu.SETTING", settings([1], [8, 16, 32], [1])),
    "attention_forward": (attention, "attention_gpu.FORWARD", settings([64], [4, 8], [1, 2, 3])),
    "attention_keys": (attention, "attention_gpu.KEYS", settings([64], [4, 8], [2, 3])),
    "attention_queries": (attention, "attention_gpu.QUERIES", settings([64], [4, 8], [2, 3])),
}


def milliseconds(run: Callable, arrays: tuple) -> float:
    """Of one call, the median of the rounds; many calls are under way at a time."""
    compiled = jax.jit(run)
    jax.block_until_ready(compiled(*arrays))
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        jax.block_until_ready([compiled(*arrays) for _ in range(CALLS)][-1])
        found.append((time.perf_counter() - began) / CALLS * 1e3)
    return statistics.median(found)


def rows(names: list[str]) -> Iterator[dict]:
    for name in names:
        make, place, tried = TRIED[name]
        run, arrays = make()
        touched = jax.tree.leaves((arrays, jax.eval_shape(run, *arrays)))
        moved = sum(x.size * x.dtype.itemsize for x in touched)
        for setting in tried:
            jax.clear_caches()
            with mock.patch(f"gpt1_jax.kernels.{place}", setting):
                try:
                    took = milliseconds(run, arrays)
                except jax.errors.JaxRuntimeError as error:
                    yield {"kernel": name, "setting": setting._asdict(), "error": str(error)[:200]}
                    continue
            yield {
                "kernel": name,
                "setting": setting._asdict(),
                "ms": round(took, 4),
                "terabytes_per_s": round(moved / took / 1e9, 2),
            }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"of {', '.join(TRIED)}")
    kernels = parser.parse_args().kernels
    if unknown := [name for name in kernels if name not in TRIED]:
        parser.error(f"no {unknown[0]}; expected some of {', '.join(TRIED)}")
    print(jax.devices()[0].device_kind, file=sys.stderr)
    for row in rows(kernels or list(TRIED)):
        print(json.dumps(row), flush=True)
