"""Attention against one head at a time in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from gpt1_jax.model.attention import attention
from gpt1_jax.model.dropout import (
    attention_keep_mask,
    attention_keep_rate,
    row_keys,
    site_words,
    step_key,
)

N, L, H, K = 2, 6, 3, 4


def query_key_value(n_queries=L, n_keys=L, scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    shapes = [(N, n_queries, H, K), (N, n_keys, H, K), (N, n_keys, H, K)]
    return [(scale * random.standard_normal(shape)).astype(np.float32) for shape in shapes]


def expected(query, key, value, offset=0, multiplier=None):
    out = np.zeros(query.shape)
    for n in range(N):
        for h in range(H):
            on_weights = None if multiplier is None else multiplier[n, h]
            out[n, :, h] = oracles.attention(
                query[n, :, h], key[n, :, h], value[n, :, h], offset, on_weights
            )
    return out


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_numpy(scale):
    query, key, value = query_key_value(scale=scale)
    close = {"rtol": 1e-5, "atol": 1e-5 * scale}
    np.testing.assert_allclose(attention(query, key, value), expected(query, key, value), **close)


def test_queries_at_an_offset_see_the_past_and_nothing_of_the_unwritten_rest():
    query, key, value = query_key_value(n_queries=2, n_keys=8)
    key[:, 5:], value[:, 5:] = 1e6, -1e6
    actual = attention(query, key, value, offset=3)
    np.testing.assert_allclose(actual, expected(query, key, value, offset=3), atol=1e-5)


def test_dropout_falls_on_the_normalised_weights():
    query, key, value = query_key_value()
    keys = row_keys(step_key(0, 5), jnp.asarray([4, 9], jnp.uint32))
    actual = attention(query, key, value, keys_N=keys, rate=0.3, layer=2, n_ctx=16)
    kept = attention_keep_mask(site_words(keys, 2, "attention"), 0.3, H, L, 16)
    multiplier = np.asarray(kept) / attention_keep_rate(0.3)
    np.testing.assert_allclose(actual, expected(query, key, value, 0, multiplier), atol=1e-5)
    assert not np.allclose(actual, expected(query, key, value), atol=1e-2)


def test_no_gradient_reaches_a_later_key_or_value():
    query, key, value = query_key_value()
    mark = np.random.default_rng(1).standard_normal((N, H, K)).astype(np.float32)

    def at_place_2(key, value):
        return (attention(query, key, value)[:, 2] * mark).sum()

    for gradient in jax.grad(at_place_2, argnums=(0, 1))(key, value):
        reached = np.abs(gradient).sum(axis=(0, 2, 3))
        assert (reached[:3] > 0).all()
        assert (reached[3:] == 0).all()


def test_bfloat16_keeps_its_softmax_in_float32():
    # Over equal keys a weight is 1 / length; in bfloat16 257 itself would already be 256.
    equal, first = np.zeros((1, 400, 1, 1)), np.eye(400)[0].reshape(1, 400, 1, 1)
    weights = attention(*(jnp.asarray(x, jnp.bfloat16) for x in (equal, equal, first)))
    expected = jnp.asarray(1 / np.arange(1.0, 401.0), jnp.bfloat16)
    np.testing.assert_array_equal(weights.ravel(), expected)
