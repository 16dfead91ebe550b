"""The MLP as one function with its own gradient, against the formula and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_attention_gpu import named_gpu

from gpt1_jax.model.mlp import Form, mlp
from gpt1_jax.recipe import sharding

NAMES = ("out", "rows", "inner", "bias", "outer")


def arguments(n_tokens, dtype=jnp.float32, width=32, hidden=128):
    """What the MLP is given, with large values of both signs before GELU, and a mark."""
    random = np.random.default_rng(0)
    shapes = [(n_tokens, width), (width, hidden), (hidden,), (hidden, width), (n_tokens, width)]
    rows, inner, bias, outer, mark = (random.standard_normal(shape) for shape in shapes)
    bias[:3] = [-300.0, 300.0, 0.0]
    arrays = [jnp.asarray(x, dtype) for x in (rows, inner, outer, mark)]
    return arrays[3], arrays[0], arrays[1], jnp.asarray(bias, jnp.float32), arrays[2]


def formula(rows, inner, bias, outer):
    return jax.nn.gelu(rows @ inner + bias[None], approximate=True) @ outer


def with_gradients(function, mark, *given):
    out, back = jax.vjp(function, *given)
    return out, *back(mark)


def of(form):
    return lambda *given: mlp(*given, form)


FORMS = {
    "kept": Form(),
    "made again": Form(keep=False),
    "kernels": Form(kernel=True),
    "kernels, made again": Form(keep=False, kernel=True),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
# Tokens that fill groups of the kernels, and one that stands alone.
@pytest.mark.parametrize("n_tokens", [128, 12, 1])
def test_value_and_gradients_are_those_of_the_formula(form, n_tokens):
    given = arguments(n_tokens)
    compute = jax.jit(with_gradients, static_argnums=0)
    found, expected = compute(of(form), *given), compute(formula, *given)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("kernel", [False, True], ids=["plain", "kernels"])
def test_bfloat16_is_within_its_rounding_of_float32_and_the_bias_in_float32(kernel):
    given = arguments(64, jnp.bfloat16)
    wide = [x.astype(jnp.float32) for x in given]
    found = jax.jit(with_gradients, static_argnums=0)(of(Form(kernel=kernel)), *given)
    assert [x.dtype.name for x in found] == ["bfloat16"] * 3 + ["float32", "bfloat16"]
    expected = jax.jit(with_gradients, static_argnums=0)(formula, *wide)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        assert np.abs(np.asarray(a, np.float32) - b).mean() < 0.01 * np.abs(b).mean(), name


@pytest.mark.parametrize(("keep", "n_kept"), [(True, 2), (False, 1)])
def test_of_the_hidden_units_one_array_is_kept_or_two(keep, n_kept):
    _, back = jax.vjp(of(Form(keep=keep)), *arguments(64)[1:])
    assert len([leaf for leaf in jax.tree.leaves(back) if leaf.shape == (64, 128)]) == n_kept


def test_the_kernels_are_lowered_for_cuda_and_nothing_is_interpreted():
    given = jax.eval_shape(lambda: arguments(1024, jnp.bfloat16, 768, 3072))
    with named_gpu():
        traced = jax.jit(with_gradients, static_argnums=0).trace(of(Form(kernel=True)), *given)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert 'name = "gelu_forward"' in text
    assert 'name = "gelu_backward"' in text
    assert "dynamic_slice" not in text


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the eight devices are of the CPU")
def test_the_kernels_are_divided_by_tokens_and_hidden_units():
    mesh = sharding.mesh(sharding.MeshConfig(data=4, model=2))
    given = arguments(32)
    alone = jax.jit(with_gradients, static_argnums=0)(of(Form(kernel=True)), *given)
    specs = [P("data"), P("data"), P(None, "model"), P("model"), P("model", None)]
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(given, specs, strict=True)
    ]
    form = Form(kernel=True, divide=sharding.Divided(mesh))
    divided = jax.jit(with_gradients, static_argnums=0).lower(of(form), *placed).compile()
    assert "all-gather" not in divided.as_text()
    for mine, its in zip(divided(*placed), alone, strict=True):
        np.testing.assert_allclose(mine, its, rtol=1e-5, atol=1e-5 * np.abs(its).max())
