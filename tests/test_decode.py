"""One token after another by the kernels for NVIDIA GPUs, against the plain form."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_attention_gpu import named_gpu

from gpt1_jax.evaluation import sample
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.kernels import decode_gpu
from gpt1_jax.model import objective
from gpt1_jax.model.activation import gelu
from gpt1_jax.model.cached_attention import cached_attention


def normal(*shape, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(len(shape)).standard_normal(shape), dtype)


@pytest.mark.parametrize("active", [False, True], ids=["linear", "gelu"])
@pytest.mark.parametrize(("n_rows", "n_in", "n_out"), [(1, 64, 48), (3, 96, 2048), (4, 32, 40)])
def test_a_product_of_few_rows(n_rows, n_in, n_out, active):
    x, kernel, bias = normal(n_rows, n_in), normal(n_in, n_out), normal(n_out)
    assert decode_gpu.suits(n_rows, n_in)
    expected = x @ kernel + bias[None]
    found = decode_gpu.linear(x, kernel, bias, gelu=active)
    np.testing.assert_allclose(found, gelu(expected) if active else expected, atol=2e-5)


def test_a_product_without_a_bias():
    x, kernel = normal(1, 64), normal(64, 48)
    np.testing.assert_allclose(decode_gpu.linear(x, kernel), x @ kernel, atol=2e-5)


# The first token, within a block, at its border, and the last place; and of so many sequences that
# blocks are smaller.
@pytest.mark.parametrize(("n", "offset"), [(2, 0), (2, 5), (2, 64), (2, 127), (43, 65)])
def test_attention_to_a_cache_and_the_cache_after_it(n, offset):
    heads, size = 3, 16
    qkv = normal(n, 1, 3 * heads * size)
    # What stands behind the new token is no part of the text.
    cache = tuple(normal(n, heads, 128, size) + 100.0 * part for part in range(2))
    place = jnp.int32(offset)
    out, (keys, values) = cached_attention(qkv, heads, cache, place)
    found, (new_keys, new_values) = cached_attention(qkv, heads, cache, place, kernel=True)
    np.testing.assert_allclose(found, out, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(new_keys, keys)
    np.testing.assert_array_equal(new_values, values)


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [1, pytest.param(8, marks=pytest.mark.exhaustive)])
def test_a_model_samples_the_same_text_with_the_kernels(n_samples):
    """One row goes through the kernel of products, eight through the library's."""
    config = replace(tiny.CONFIG, n_ctx=256, n_embd=32, n_head=2)
    asked = SampleConfig(length=9, num_samples=n_samples, seed=3)
    texts = []
    for implementation in ("plain", "triton"):
        network = objective.network(config, implementation, None, 0)
        model = PlacedModel(network, tiny.params(network))
        texts.append(sample.generate(model, [3, 1, 4], asked, config.vocab_size))
    np.testing.assert_array_equal(*texts)
    assert len(set(texts[0].ravel())) > 3


def test_the_kernels_are_lowered_for_cuda_and_nothing_is_interpreted():
    half, shape = jnp.bfloat16, jax.ShapeDtypeStruct
    cache = shape((1, 12, 384, 64), half)
    row = (shape((1, 768), half), shape((768, 3072), half), shape((3072,), jnp.float32))
    with named_gpu():
        linear = jax.jit(lambda *given: decode_gpu.linear(*given, gelu=True)).trace(*row)
        attended = jax.jit(decode_gpu.attention).trace(
            shape((1, 3, 12, 64), half), cache, cache, shape((), jnp.int32)
        )
        texts = [x.lower(lowering_platforms=("cuda",)).as_text() for x in (linear, attended)]
    for name, text in zip(("decode_linear", "decode_attention"), texts, strict=True):
        assert f'name = "{name}"' in text
        assert "dynamic_slice" not in text


def test_the_largest_by_stretches_are_the_largest(monkeypatch):
    """In the same order, equals too: as lax.top_k has them, on which the draws depend."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda x, cuda, default: cuda(x))
    x = jnp.round(normal(3, 6000) * 8) / 8
    found, expected = sample._top_k(x, 40), jax.lax.top_k(x, 40)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
