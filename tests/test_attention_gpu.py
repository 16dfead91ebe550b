"""The kernels for NVIDIA GPUs: lowered without one, and measured against float32 on one."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt1_jax.model.attention import attention
from gpt1_jax.model.dropout import row_keys, step_key


@contextlib.contextmanager
def named_gpu():
    """Since 0.11 JAX wants to know which GPU is meant where there is none."""
    named = getattr(jax.sharding, "AbstractDevice", None)
    if named is None or jax.default_backend() == "gpu":
        yield
        return
    device = named("NVIDIA H100 80GB HBM3", 132, "gpu")
    mesh = jax.sharding.AbstractMesh((), (), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def output_and_gradient(qkv, mark, implementation="triton", rate=0.1):
    keys = row_keys(step_key(0, 5), jnp.arange(qkv.shape[0], dtype=jnp.uint32))
    options = {"keys_N": keys, "rate": rate, "layer": 2, "n_ctx": 512}
    heads = mark.shape[2]
    out, back = jax.vjp(
        lambda qkv: attention(qkv, heads, implementation=implementation, **options), qkv
    )
    return out, back(mark)[0]


@pytest.mark.parametrize(
    ("dtype", "length", "size"), [("bfloat16", 512, 64), ("float32", 100, 16), ("float16", 64, 128)]
)
def test_all_three_kernels_are_lowered_for_cuda_and_nothing_is_interpreted(dtype, length, size):
    qkv = jax.ShapeDtypeStruct((2, length, 3 * 2 * size), dtype)
    mark = jax.ShapeDtypeStruct((2, length, 2, size), dtype)
    with named_gpu():
        traced = jax.jit(output_and_gradient).trace(qkv, mark)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    for name in ("attention_forward", "attention_keys", "attention_queries"):
        assert f'name = "{name}"' in text
    # The interpreter is a loop over the grid that slices its operands.
    assert "dynamic_slice" not in text


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="needs an NVIDIA GPU")
def test_bfloat16_on_a_gpu_is_within_its_rounding_of_float32():
    random = np.random.default_rng(0)
    qkv = jnp.asarray(random.standard_normal((4, 512, 3 * 12 * 64)), jnp.bfloat16)
    mark = jnp.asarray(random.standard_normal((4, 512, 12, 64)), jnp.bfloat16)
    found = jax.jit(output_and_gradient)(qkv, mark)
    wide = (x.astype(jnp.float32) for x in (qkv, mark))
    exact = jax.jit(output_and_gradient, static_argnums=2)(*wide, "plain")
    for mine, its in zip(found, exact, strict=True):
        error = np.asarray(mine, np.float32) - its
        assert np.linalg.norm(error) < 0.005 * np.linalg.norm(its)
