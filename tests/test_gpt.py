"""The model against numpy, and the properties that make it GPT-1."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.kernels.masks import attention_keep_rate
from gpt1_jax.model.activation import gelu
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import (
    attention_keep_mask,
    keep_mask,
    row_keys,
    site_words,
    step_key,
)
from gpt1_jax.model.gpt import GPT
from gpt1_jax.model.objective import Head, Network

RATES = {"embd_dropout": 0.1, "attn_dropout": 0.2, "resid_dropout": 0.3}


def shapes(config, head=None):
    return jax.eval_shape(Network(GPT(config), head).init, jax.random.key(0))


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def keys_of_rows(n_rows, step=0):
    return row_keys(step_key(0, step), jnp.arange(n_rows, dtype=jnp.uint32))


@pytest.fixture(scope="module")
def network():
    return tiny.network()


@pytest.fixture(scope="module")
def params(network):
    return tiny.params(network)


def test_the_papers_sizes_have_the_papers_parameters():
    paper = shapes(ModelConfig())
    assert count(paper) == 116_534_784
    assert count(paper["wte"]) == 31_087_104
    assert count(paper["wpe"]) == 393_216
    assert {count(paper[f"h_{layer}"]) for layer in range(12)} == {7_087_872}
    assert len(paper) == 14
    decayed = sum(leaf.size for leaf in jax.tree.leaves(paper) if leaf.ndim > 1)
    assert decayed == 116_414_976


def test_the_papers_block_has_heads_of_64_and_3072_inner_states():
    block = shapes(ModelConfig())["h_0"]
    assert block["attn"]["c_attn"]["kernel"].shape == (768, 3 * 12 * 64)
    assert block["mlp"]["c_fc"]["kernel"].shape == (768, 3072)
    assert block["mlp"]["c_proj"]["kernel"].shape == (3072, 768)
    cache = jax.eval_shape(lambda: GPT(ModelConfig()).empty_cache(1, 512))
    assert cache.key[0].shape == (1, 12, 512, 64)


@pytest.mark.parametrize(
    ("n_outputs", "each", "total"),
    [(2, False, 116_538_626), (3, False, 116_539_395), (1, True, 116_537_857)],
)
def test_fine_tuning_adds_three_rows_and_a_head(n_outputs, each, total):
    config = ModelConfig(n_special=3)
    assert count(shapes(config)) == 116_537_088
    assert count(shapes(config, Head(config, n_outputs, each))) == total


def test_flops_of_the_papers_update():
    assert ModelConfig().flops_per_token(512) * 64 * 512 == pytest.approx(24.67e12, rel=1e-3)


def test_agrees_with_numpy_up_to_the_logits(network, params):
    tokens = tiny.tokens(length=10)

    @jax.jit
    def forward(params, tokens):
        hidden = network.hidden(params, tokens)
        return hidden, network.logits(params, hidden)

    hidden, logits = forward(params, tokens)
    expected = oracles.hidden(params, tokens, n_head=4)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    np.testing.assert_allclose(logits, oracles.logits(params, expected), atol=1e-5)
    assert logits.shape == (3, 10, 31 + 3)


def test_dropout_falls_at_its_places_with_the_rate_of_each():
    network = tiny.network(**RATES)
    params, tokens, keys = tiny.params(network), tiny.tokens(), keys_of_rows(3)
    rates = {
        "embedding": 0.1,
        "attention": 0.2,
        "attention_output": 0.3,
        "mlp_output": 0.3,
    }

    def multipliers(layer, place, shape):
        words, rate = site_words(keys, layer, place), rates[place]
        if place == "attention":
            kept = attention_keep_mask(words, rate, shape[1], shape[2], n_ctx=12)
            return np.asarray(kept) / attention_keep_rate(rate)
        return np.asarray(keep_mask(words, rate, shape[1:])) / (1 - rate)

    actual = jax.jit(network.hidden)(params, tokens, keys)
    expected = oracles.hidden(params, tokens, 4, multipliers)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_a_position_depends_on_itself_and_all_earlier_ones_alone(network, params):
    mark_D = np.random.default_rng(1).standard_normal(16).astype(np.float32)
    tokens_NL = tiny.tokens(n_sequences=1, length=8)

    @jax.jit
    @jax.jacrev
    def by_position(wpe):
        changed = params | {"wpe": {"embedding": wpe}}
        return network.hidden(changed, tokens_NL)[0] @ mark_D

    influence = np.abs(by_position(params["wpe"]["embedding"])).sum(axis=-1)
    assert influence.shape == (8, 12)
    np.testing.assert_array_equal(influence > 0, np.tri(8, 12, dtype=bool))


def test_cached_decoding_equals_the_whole_at_once(network, params):
    tokens = tiny.tokens(length=12)
    decode = jax.jit(network.decode)
    pieces, cache = [], network.empty_cache(len(tokens), network.body.config.n_ctx)
    for first, last in [(0, 5), (5, 6), (6, 9), *((n, n + 1) for n in range(9, 12))]:
        # The rest is padding, which leaves no trace.
        hidden, cache = decode(params, tokens[:, first:], cache, last - first)
        pieces.append(hidden[:, : last - first])
    assert cache.length == 12
    expected = oracles.hidden(params, tokens, n_head=4)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), expected, atol=1e-5)


def test_an_empty_cache_can_be_donated(network, params):
    decode = jax.jit(network.decode, donate_argnums=2)
    hidden, _ = decode(params, tiny.tokens(length=5), network.empty_cache(3, 8), 5)
    assert np.isfinite(hidden).all()


@pytest.fixture(scope="module")
def unrolled():
    return hidden_and_gradients()


def hidden_and_gradients(**changes):
    network = tiny.network(**changes)
    mark_NLD = np.random.default_rng(1).standard_normal((3, 8, 16)).astype(np.float32)

    def marked(params):
        hidden = network.hidden(params, tiny.tokens(), keys_of_rows(3, step=4))
        return (hidden * mark_NLD).sum(), hidden

    (_, hidden), gradients = jax.jit(jax.value_and_grad(marked, has_aux=True))(tiny.params(network))
    return hidden, gradients


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"scan_layers": True}, marks=pytest.mark.exhaustive),
        pytest.param({"remat": True}, marks=pytest.mark.exhaustive),
        {"scan_layers": True, "remat": True},
    ],
    ids=["scanned", "remat", "scanned-remat"],
)
def test_scan_and_remat_change_nothing_with_dropout_on(unrolled, changes):
    tiny.assert_trees_close(hidden_and_gradients(**changes), unrolled)


def kept_for_the_backward_pass(**changes):
    """Elements of all arrays but the parameters, and the program."""
    network = tiny.network(**changes)
    given, tokens, keys = tiny.params(network), tiny.tokens(), keys_of_rows(3)

    def backward(params):
        return jax.vjp(lambda params: network.hidden(params, tokens, keys), params)[1]

    kept = count(jax.eval_shape(backward, given)) - count(given)
    return kept, str(jax.make_jaxpr(network.hidden)(given, tokens))


def test_scan_and_remat_are_really_on():
    kept, program = kept_for_the_backward_pass()
    for remat in (False, True):
        less, scanned = kept_for_the_backward_pass(scan_layers=True, remat=remat)
        assert "scan[" in scanned
        assert "scan[" not in program
        # What GELU makes, four times as wide as the rest, is made again in each of two layers.
        assert less <= kept - 2 * 3 * 8 * 64
    least, program = kept_for_the_backward_pass(remat=True)
    assert "scan[" not in program
    # Little but the input of each block.
    assert max(least, less) < 0.2 * kept


def initial(**changes):
    network = tiny.network(n_outputs=50, n_embd=64, vocab_size=300, init_std=0.08, **changes)
    return jax.jit(network.init)(jax.random.key(3))


@pytest.fixture(scope="module")
def unrolled_initial():
    return initial()


def test_initial_values(unrolled_initial):
    drawn = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(unrolled_initial):
        leaf, name = np.asarray(leaf), jax.tree_util.keystr(path)
        assert leaf.dtype == np.float32, name
        if path[-1].key in ("kernel", "embedding"):
            drawn[name] = leaf.ravel()[:500]
            bound = 5 * 0.08 / np.sqrt(leaf.size)
            assert abs(leaf.mean()) < bound, name
            assert abs(leaf.std() - 0.08) < bound, name
            # Not a truncated normal: some values lie beyond two and a half deviations.
            assert np.abs(leaf).max() > 2.5 * 0.08, name
        else:
            assert (leaf == (1.0 if path[-1].key == "scale" else 0.0)).all(), name
    assert len(drawn) == 2 + 2 * 4 + 1
    together = np.corrcoef(list(drawn.values())) - np.eye(len(drawn))
    assert np.abs(together).max() < 6 / np.sqrt(500)


def test_scanned_layers_begin_with_the_same_tree_and_values(unrolled_initial):
    tiny.assert_trees_close(initial(scan_layers=True, remat=True), unrolled_initial, tolerance=0.0)


def test_bfloat16_computes_in_bfloat16_and_stays_near(network, params):
    half = tiny.network(dtype="bfloat16")
    tokens = tiny.tokens()
    shape = jax.eval_shape(half.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(shape)} == {np.dtype("float32")}
    hidden = jax.jit(half.hidden)(params, tokens)
    assert hidden.dtype == jnp.bfloat16
    difference = np.asarray(hidden, np.float32) - oracles.hidden(params, tokens, n_head=4)
    assert 1e-4 < np.abs(difference).mean() < 0.03


def test_a_rate_of_its_own_goes_before_the_common_one():
    config = ModelConfig(dropout=0.3, attn_dropout=0.0)
    assert [config.rate(place) for place in ("embd", "attn", "resid", "clf")] == [0.3, 0, 0.3, 0.3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 3}, r"n_embd 16 is not divisible by model\.n_head 3"),
        ({"n_head": 0}, "n_head 0"),
        ({"n_layer": 0}, r"model\.n_layer is 0"),
        ({"n_ctx": 0}, r"model\.n_ctx is 0"),
        ({"vocab_size": 0}, r"model\.vocab_size is 0"),
        ({"n_embd": 0}, r"model\.n_embd is 0"),
        ({"dropout": 1.0}, "rate is 1.0"),
        ({"clf_dropout": -0.1}, "rate is -0.1"),
    ],
)
def test_sizes_that_do_not_fit_are_the_users_mistake(changes, message):
    with pytest.raises(UserError, match=message):
        replace(tiny.CONFIG, **changes)


def test_gelu_and_its_gradient_are_those_of_the_formula():
    x = np.linspace(-6, 6, 121, dtype=np.float32)
    by_flax = jax.value_and_grad(lambda x: jax.nn.gelu(x, approximate=True))
    expected, slope = jax.vmap(by_flax)(x)
    np.testing.assert_allclose(gelu(x), expected, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(x), slope, atol=1e-6)
    assert gelu(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_a_step_in_bfloat16_casts_each_kernel_once_and_keeps_what_is_added_up():
    network = tiny.network(n_outputs=2, dtype="bfloat16", scan_layers=True)
    params = tiny.params(network)
    cast = network.cast(params)
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(cast):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        is_kernel = name.startswith("h_") and name.endswith("kernel")
        assert leaf.dtype == (jnp.bfloat16 if is_kernel else jnp.float32), name
        kernels += is_kernel
    assert kernels == 2 * 4
    # None is cast again where it is used, not even in the loop over layers.
    program = jax.make_jaxpr(network.hidden)(cast, tiny.tokens())
    casts = re.findall(r"bf16\[([\d,]+)\] = convert_element_type", str(program))
    assert not {"16,48", "16,16", "16,64", "64,16"} & set(casts)
