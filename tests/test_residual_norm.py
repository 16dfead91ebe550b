"""Residual sum, dropout and LayerNorm as one function, against the three of them in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_attention_gpu import named_gpu

from gpt1_jax.kernels import pieces
from gpt1_jax.model.dropout import dropout, row_keys, site_words, step_key
from gpt1_jax.model.residual_norm import Form, residual_norm
from gpt1_jax.recipe import sharding

LAYER, PLACE = 2, "mlp_output"
FORM = Form(rate=0.3, epsilon=1e-5)
NAMES = ("y", "residual", "branch", "shift", "scale", "bias")


def arguments(dtype=jnp.float32):
    random = np.random.default_rng(0)
    # Far from zero, where a variance from the mean of squares would lose its digits.
    residual = jnp.asarray(random.standard_normal((3, 5, 16)) + 30.0, dtype)
    branch = jnp.asarray(random.standard_normal((3, 5, 16)), dtype)
    scale, bias = (jnp.asarray(random.standard_normal(16), jnp.float32) for _ in range(2))
    shift = jnp.asarray(random.standard_normal(16), jnp.float32)
    return residual, branch, shift, scale.at[0].set(0.0), bias


def keys():
    return row_keys(step_key(0, 1), jnp.arange(3, dtype=jnp.uint32))


def together(residual, branch, shift, scale, bias, drops=True):
    words = site_words(keys(), LAYER, PLACE) if drops else None
    return residual_norm(residual, branch, shift, scale, bias, words, FORM)


def in_a_row(residual, branch, shift, scale, bias, drops=True):
    branch = branch + shift[None, None]
    x = residual + dropout(branch, keys() if drops else None, FORM.rate, LAYER, PLACE)
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + FORM.epsilon)
    return centred / deviation * scale[None, None] + bias[None, None]


def value_and_gradients(function, given, drops):
    mark = np.random.default_rng(1).standard_normal((3, 5, 16)).astype(np.float32)

    def marked(*given):
        out = function(*given, drops=drops)
        return (out.astype(jnp.float32) * mark).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(marked, (0, 1, 2, 3, 4), has_aux=True))(*given)
    return out, *gradients


@pytest.mark.parametrize("drops", [True, False], ids=["dropout", "none"])
def test_value_and_gradients_are_those_of_its_parts(drops):
    found = value_and_gradients(together, arguments(), drops)
    expected = value_and_gradients(in_a_row, arguments(), drops)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5, err_msg=name)


def test_bfloat16_comes_out_as_it_went_in_and_is_added_up_in_float32():
    found = value_and_gradients(together, arguments(jnp.bfloat16), True)
    wide = tuple(x.astype(jnp.float32) for x in arguments(jnp.bfloat16))
    expected = value_and_gradients(in_a_row, wide, True)
    assert [x.dtype.name for x in found] == ["bfloat16"] * 3 + ["float32"] * 3
    # Between 16 and 32, the sum that is normed is rounded to an eighth.
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a, np.float32)
        assert np.abs(a - b).mean() < 0.15 * np.abs(np.asarray(b)).mean()


def test_the_backward_pass_keeps_one_array_of_the_sums_and_no_mask():
    _, backward = jax.vjp(lambda *given: together(*given), *arguments(jnp.bfloat16))
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size >= 3 * 5 * 16]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]


def with_gradients(form, words, mark, *given):
    """The norm and the gradients of all that has one."""
    out, back = jax.vjp(lambda *given: residual_norm(*given, words, form), *given)
    return out, *back(mark)


def case(length, width, dtype=jnp.float32, n=4):
    random = np.random.default_rng(2)
    residual, branch, mark = (
        jnp.asarray(random.standard_normal((n, length, width)), dtype) for _ in range(3)
    )
    vectors = (jnp.asarray(random.standard_normal(width), jnp.float32) for _ in range(3))
    words = site_words(row_keys(step_key(0, 1), jnp.arange(n, dtype=jnp.uint32)), LAYER, PLACE)
    return words, mark, residual, branch, *vectors


# Lengths that fill no group of tokens, one that fills more than one, and one of a single token.
@pytest.mark.parametrize(
    ("length", "width", "rate"), [(70, 96, 0.3), (5, 64, 0.1), (1, 64, 0.1), (33, 32, 0.0)]
)
def test_the_kernels_are_the_plain_form_with_the_same_mask(length, width, rate):
    given = case(length, width)
    compute = jax.jit(with_gradients, static_argnums=0)
    found = compute(Form(rate, 1e-5, kernel=True), *given)
    expected = compute(Form(rate, 1e-5), *given)
    for name, a, b in zip(NAMES, found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5, err_msg=name)
    dropped = np.asarray(found[2]) == 0.0
    np.testing.assert_array_equal(dropped, np.asarray(expected[2]) == 0.0)
    assert dropped.mean() == pytest.approx(rate, abs=0.1)


def test_the_kernels_round_to_bfloat16_where_the_plain_form_does():
    given = case(40, 96, jnp.bfloat16)
    # What XLA fuses on a GPU it may leave in float32, and so round less than the plain form says.
    options = {"xla_allow_excess_precision": False}
    compute = jax.jit(with_gradients, static_argnums=0, compiler_options=options)
    found, expected = (compute(Form(0.1, 1e-5, kernel), *given) for kernel in (True, False))
    assert [x.dtype.name for x in found] == ["bfloat16"] * 3 + ["float32"] * 3
    for name, a, b in zip(NAMES, found, expected, strict=True):
        a, b = (np.asarray(x, np.float32) for x in (a, b))
        # Compilers add in other orders, so that a value near a border is rounded to its neighbour.
        assert np.abs(a - b).max() <= 2**-7 * np.abs(b).max(), name
        assert np.abs(a - b).mean() < 2**-10 * np.abs(b).mean(), name


def test_the_kernels_are_lowered_for_cuda_and_nothing_is_interpreted():
    given = jax.eval_shape(lambda: case(512, 768, jnp.bfloat16, n=2))
    with named_gpu():
        traced = jax.jit(with_gradients, static_argnums=0).trace(Form(0.1, 1e-5, True), *given)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert 'name = "residual_norm_forward"' in text
    assert 'name = "residual_norm_backward"' in text
    assert "dynamic_slice" not in text


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the eight devices are of the CPU")
def test_the_kernels_are_divided_by_rows_and_add_up_gain_and_bias_alone():
    mesh = sharding.mesh(sharding.MeshConfig(data=4, model=2))
    given = case(8, 64)
    alone = jax.jit(with_gradients, static_argnums=0)(Form(0.1, 1e-5, True), *given)
    rows = [P("data") if x.ndim != 1 else P() for x in given]
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec)) for x, spec in zip(given, rows, strict=True)
    ]
    form = Form(0.1, 1e-5, True, sharding.Divided(mesh))
    divided = jax.jit(with_gradients, static_argnums=0).lower(form, *placed).compile()
    text = divided.as_text()
    assert "all-gather" not in text
    assert "all-to-all" not in text
    for mine, its in zip(divided(*placed), alone, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("width", "has"), [(768, True), (64, True), (1280, True), (100, False)])
def test_widths_of_few_powers_of_two_have_kernels(width, has):
    assert pieces.suits(width) is has
