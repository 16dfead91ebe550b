"""Attention against one head at a time in numpy, and each implementation against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gpt1_jax.kernels import attention_gpu, attention_tpu
from gpt1_jax.kernels.masks import attention_keep_rate
from gpt1_jax.model.attention import attention, plain
from gpt1_jax.model.dropout import attention_keep_mask, row_keys, site_words, step_key
from gpt1_jax.model.gpt import GPT
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import sharding

N, L, H, K = 2, 6, 3, 4
KERNELS = {"triton": attention_gpu.attention, "tpu": attention_tpu.attention}
# Heads and their size: the TPU's kernel takes those that fill 128 lanes together.
SIZES = {"triton": (3, 16), "tpu": (4, 64), "recompute": (3, 16), "blocks": (2, 16)}


def query_key_value(scale=1.0, seed=0):
    random = np.random.default_rng(seed)
    return (scale * random.standard_normal((3, N, L, H, K))).astype(np.float32)


def words_of_rows(*rows):
    return site_words(row_keys(step_key(0, 5), jnp.asarray(rows, jnp.uint32)), 2, "attention")


def expected(query, key, value, multiplier=None):
    out = np.zeros(query.shape)
    for n in range(N):
        for h in range(H):
            on_weights = None if multiplier is None else multiplier[n, h]
            out[n, :, h] = oracles.attention(
                query[n, :, h], key[n, :, h], value[n, :, h], 0, on_weights
            )
    return out


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_agrees_with_numpy(scale):
    query, key, value = query_key_value(scale=scale)
    close = {"rtol": 1e-5, "atol": 1e-5 * scale}
    np.testing.assert_allclose(plain(query, key, value), expected(query, key, value), **close)


def test_dropout_falls_on_the_normalised_weights():
    query, key, value = query_key_value()
    words = words_of_rows(4, 9)
    actual = plain(query, key, value, words, 0.3, 16)
    kept = attention_keep_mask(words, 0.3, H, L, 16)
    multiplier = np.asarray(kept) / attention_keep_rate(0.3)
    np.testing.assert_allclose(actual, expected(query, key, value, multiplier), atol=1e-5)
    assert not np.allclose(actual, expected(query, key, value), atol=1e-2)


def test_no_gradient_reaches_a_later_key_or_value():
    query, key, value = query_key_value()
    mark = np.random.default_rng(1).standard_normal((N, H, K)).astype(np.float32)

    def at_place_2(key, value):
        return (plain(query, key, value)[:, 2] * mark).sum()

    for gradient in jax.grad(at_place_2, argnums=(0, 1))(key, value):
        reached = np.abs(gradient).sum(axis=(0, 2, 3))
        assert (reached[:3] > 0).all()
        assert (reached[3:] == 0).all()


def test_bfloat16_keeps_its_softmax_in_float32():
    # Over equal keys a weight is 1 / length; in bfloat16 257 itself would already be 256.
    equal, first = np.zeros((1, 400, 1, 1)), np.eye(400)[0].reshape(1, 400, 1, 1)
    weights = plain(*(jnp.asarray(x, jnp.bfloat16) for x in (equal, equal, first)))
    expected = jnp.asarray(1 / np.arange(1.0, 401.0), jnp.bfloat16)
    np.testing.assert_array_equal(weights.ravel(), expected)


def test_bfloat16_gradients_are_those_of_float32_within_its_rounding():
    """Rounding large scores on the way puts the gradient of queries and keys 1.2 % off."""
    random = np.random.default_rng(0)
    query, key, value, mark = random.standard_normal((4, 2, 64, 2, 64)).astype(np.float32)
    query, key, value, mark = (jnp.asarray(x, jnp.bfloat16) for x in (6 * query, key, value, mark))

    @jax.jit
    def gradients(query, key, value, mark):
        return jax.vjp(lambda *three: plain(*three, words_of_rows(1, 2), 0.1), query, key, value)[
            1
        ](mark)

    wide = gradients(*(x.astype(jnp.float32) for x in (query, key, value, mark)))
    for found, exact in zip(gradients(query, key, value, mark), wide, strict=True):
        error = np.asarray(found, np.float32) - exact
        assert np.linalg.norm(error) < 0.005 * np.linalg.norm(exact)


def output_and_gradient(implementation, heads, size, length, rate):
    """Compiled, over a context of 200, of random numbers."""
    random = np.random.default_rng(length)
    qkv = random.standard_normal((N, length, 3 * heads * size)).astype(np.float32)
    mark = random.standard_normal((N, length, heads, size)).astype(np.float32)
    keys = row_keys(step_key(0, 5), jnp.asarray([4, 9], jnp.uint32))
    options = {"keys_N": keys, "rate": rate, "layer": 2, "n_ctx": 200}

    @jax.jit
    def compute(qkv, mark):
        out, back = jax.vjp(
            lambda qkv: attention(qkv, heads, implementation=implementation, **options), qkv
        )
        return out, back(mark)[0]

    return compute(qkv, mark)


@pytest.mark.parametrize(
    ("implementation", "length", "rate"),
    [
        pytest.param("triton", 1, 0.1, marks=pytest.mark.exhaustive),
        ("triton", 100, 0.3),
        pytest.param("triton", 192, 0.1, marks=pytest.mark.exhaustive),
        ("blocks", 300, 0.1),
        ("triton", 64, 0.0),
        pytest.param("tpu", 1, 0.1, marks=pytest.mark.exhaustive),
        ("tpu", 17, 0.3),
        pytest.param("tpu", 192, 0.1, marks=pytest.mark.exhaustive),
        pytest.param("tpu", 64, 0.0, marks=pytest.mark.exhaustive),
        ("recompute", 100, 0.3),
    ],
)
def test_every_implementation_computes_what_the_plain_one_does(implementation, length, rate):
    """Output and the gradient of queries, keys and values, with dropout; the kernels interpreted
    where their device is missing. A single weight that another mask would drop is 0.01 off."""
    sizes = SIZES[implementation]
    found = output_and_gradient(implementation, *sizes, length, rate)
    exact = output_and_gradient("plain", *sizes, length, rate)
    for mine, its in zip(found, exact, strict=True):
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_draws_the_mask_bit_by_bit(kernel):
    """Equal scores, and the rows of the identity as values: what comes out are the weights."""
    length, size = 70, 128
    qkv = np.zeros((2, length, 3, 1, size), np.float32)
    qkv[:, :, 2, 0] = np.eye(length, size)
    words = words_of_rows(4, 9)
    run = jax.jit(KERNELS[kernel], static_argnums=(2, 3, 4))
    weights = np.asarray(run(qkv, words, 0.3, 100, lambda f, *_: f))[:, :, 0, :length]
    kept = np.asarray(attention_keep_mask(words, 0.3, 1, length, 100))[:, 0]
    np.testing.assert_array_equal(weights > 0, kept & np.tri(length, dtype=bool))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the eight devices are of the CPU")
@pytest.mark.parametrize("kernel", ["triton", pytest.param("tpu", marks=pytest.mark.exhaustive)])
def test_a_kernel_is_divided_by_rows_and_heads_without_a_word_between_devices(kernel):
    heads, size = {"triton": (2, 16), "tpu": (4, 64)}[kernel]
    mesh = sharding.mesh(sharding.MeshConfig(data=4, model=2))
    random = np.random.default_rng(0)
    qkv, mark = (
        random.standard_normal((4, 40, *rest, heads, size)).astype(np.float32)
        for rest in ((3,), ())
    )
    words = words_of_rows(0, 1, 2, 3)

    def compute(divide, qkv, words, mark):
        out, back = jax.vjp(lambda qkv: KERNELS[kernel](qkv, words, 0.2, 48, divide), qkv)
        return out, back(mark)[0]

    alone = jax.jit(compute, static_argnums=0)(lambda f, *_: f, qkv, words, mark)
    by = [P("data", None, None, "model"), P("data"), P("data", None, "model")]
    placed = [
        jax.device_put(x, NamedSharding(mesh, spec))
        for x, spec in zip((qkv, words, mark), by, strict=True)
    ]
    divided = jax.jit(compute, static_argnums=0).lower(sharding.Divided(mesh), *placed).compile()
    text = divided.as_text()
    assert not [word for word in ("all-", "collective", "reduce-scatter") if word in text]
    for mine, its in zip(divided(*placed), alone, strict=True):
        assert len(mine.sharding.device_set) == 8
        assert mine.addressable_shards[0].data.size == its.size // 8
        np.testing.assert_allclose(mine, its, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def model_with_plain_attention():
    return loss_and_gradients("plain", tiny.batch())


def loss_and_gradients(implementation, *batches, **changes):
    """Of each batch, by a small model with heads that both kernels take."""
    config = tiny.network(n_embd=128, n_head=4, n_layer=2, **changes).body.config
    network = Network(GPT(config, implementation))
    compute = tiny.loss_and_gradients(network)
    return [compute(tiny.params(network), batch, 3) for batch in batches]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "changes"),
    [
        ("triton", {"scan_layers": True}),
        pytest.param("tpu", {"remat": True}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_a_model_is_trained_by_a_kernel_as_by_the_plain_form(
    kernel, changes, model_with_plain_attention
):
    """Also in parts, as accumulation takes them, and however the layers are compiled."""
    whole = tiny.batch()
    parts = [{name: rows[first::2] for name, rows in whole.items()} for first in range(2)]
    found = loss_and_gradients(kernel, *parts, **changes)
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *found)
    tiny.assert_trees_close(mean, model_with_plain_attention[0])
