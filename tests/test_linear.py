"""Matrix products against numpy, and the form that each platform gets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt1_jax.model.linear import product


def arguments(n_rows, dtype):
    random = np.random.default_rng(0)
    shapes = [(n_rows, 6), (6, 10), (n_rows, 10)]
    return [jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("n_rows", [8, 7, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_product_and_gradients_are_those_of_numpy(n_rows, dtype, tolerance, axis):
    rows, kernel, mark = arguments(n_rows, dtype)
    kernel = kernel.T if axis else kernel
    out, backward = jax.vjp(lambda *given: product(*given, axis), rows, kernel)
    assert out.dtype == jnp.float32
    found = out, *backward(mark.astype(jnp.float32))
    assert [x.dtype.name for x in found[1:]] == [dtype] * 2
    rows, kernel, mark = (np.asarray(x, np.float64) for x in (rows, kernel, mark))
    kernel = kernel.T if axis else kernel
    by_kernel = rows.T @ mark
    expected = rows @ kernel, mark @ kernel.T, by_kernel.T if axis else by_kernel
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize(
    ("platform", "result"), [("cpu", "f32"), ("cuda", "bf16"), ("tpu", "bf16")]
)
def test_devices_made_for_bfloat16_write_bfloat16_and_a_cpu_does_not(platform, result):
    rows, kernel, _ = arguments(8, jnp.bfloat16)

    def gradients(rows, kernel):
        return jax.grad(lambda *given: product(*given).sum(), (0, 1))(rows, kernel)

    for function, n_products in ((product, 1), (gradients, 2)):
        lowered = jax.jit(function).trace(rows, kernel).lower(lowering_platforms=(platform,))
        products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
        assert len(products) == n_products
        assert all(line.rstrip().endswith(f"x{result}>") for line in products)
