"""Residual sum, dropout and LayerNorm as one function, against the three of them in a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt1_jax.model.dropout import dropout, row_keys, site_words, step_key
from gpt1_jax.model.residual_norm import Form, residual_norm

LAYER, PLACE = 2, "mlp_output"
FORM = Form(rate=0.3, epsilon=1e-5)


def arguments(dtype=jnp.float32):
    random = np.random.default_rng(0)
    # Far from zero, where a variance from the mean of squares would lose its digits.
    residual = jnp.asarray(random.standard_normal((3, 5, 16)) + 30.0, dtype)
    branch = jnp.asarray(random.standard_normal((3, 5, 16)), dtype)
    scale, bias = (jnp.asarray(random.standard_normal(16), jnp.float32) for _ in range(2))
    return residual, branch, scale.at[0].set(0.0), bias


def keys():
    return row_keys(step_key(0, 1), jnp.arange(3, dtype=jnp.uint32))


def together(residual, branch, scale, bias, drops=True):
    words = site_words(keys(), LAYER, PLACE) if drops else None
    return residual_norm(residual, branch, scale, bias, words, FORM)


def in_a_row(residual, branch, scale, bias, drops=True):
    x = residual + dropout(branch, keys() if drops else None, FORM.rate, LAYER, PLACE)
    centred = x - x.mean(-1, keepdims=True)
    deviation = jnp.sqrt((centred**2).mean(-1, keepdims=True) + FORM.epsilon)
    return centred / deviation * scale[None, None] + bias[None, None]


def value_and_gradients(function, given, drops):
    mark = np.random.default_rng(1).standard_normal((3, 5, 16)).astype(np.float32)

    def marked(*given):
        out = function(*given, drops=drops)
        return (out.astype(jnp.float32) * mark).sum(), out

    (_, out), gradients = jax.jit(jax.value_and_grad(marked, (0, 1, 2, 3), has_aux=True))(*given)
    return out, *gradients


@pytest.mark.parametrize("drops", [True, False], ids=["dropout", "none"])
def test_value_and_gradients_are_those_of_its_parts(drops):
    found = value_and_gradients(together, arguments(), drops)
    expected = value_and_gradients(in_a_row, arguments(), drops)
    for name, a, b in zip(
        ("y", "residual", "branch", "scale", "bias"), found, expected, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5, err_msg=name)


def test_bfloat16_comes_out_as_it_went_in_and_is_added_up_in_float32():
    found = value_and_gradients(together, arguments(jnp.bfloat16), True)
    wide = tuple(x.astype(jnp.float32) for x in arguments(jnp.bfloat16))
    expected = value_and_gradients(in_a_row, wide, True)
    assert [x.dtype.name for x in found] == ["bfloat16"] * 3 + ["float32"] * 2
    # Between 16 and 32, the sum that is normed is rounded to an eighth.
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a, np.float32)
        assert np.abs(a - b).mean() < 0.15 * np.abs(np.asarray(b)).mean()


def test_the_backward_pass_keeps_one_array_of_the_sums_and_no_mask():
    _, backward = jax.vjp(lambda *given: together(*given), *arguments(jnp.bfloat16))
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size >= 3 * 5 * 16]
    assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]
