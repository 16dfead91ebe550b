"""The LSTM against numpy, and the same framework around it as around the Transformer."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import runs
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample import generate
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.inference import trained_model
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import keep_mask, row_keys, site_words, step_key
from gpt1_jax.model.lstm import recurrence, steps
from gpt1_jax.model.objective import network as any_network
from gpt1_jax.recipe.optimizer import OptimizerConfig, optimizer, span
from gpt1_jax.weights.transfer import transfer

SIZES = {"body": "lstm", "n_layer": 2, "n_units": 24, "vocab_size": 31, "n_special": 3}


def lstm(**changes):
    config = ModelConfig(**{**SIZES, "n_ctx": 12, "n_embd": 16, "dropout": 0.2, **changes})
    return any_network(config, "plain", None, 0)


@pytest.fixture(scope="module")
def network():
    return lstm()


@pytest.fixture(scope="module")
def params(network):
    return tiny.params(network)


@pytest.mark.parametrize("tied", [True, False])
def test_agrees_with_numpy_up_to_the_logits(tied):
    network = lstm(tied_output=tied)
    params, tokens = tiny.params(network), tiny.tokens(length=10)
    hidden = jax.jit(network.hidden)(params, tokens)
    expected = oracles.lstm_hidden(params, tokens)
    np.testing.assert_allclose(hidden, expected, atol=1e-5)
    table = params["wte"]["embedding"].T if tied else params["lm_head"]["kernel"]
    np.testing.assert_allclose(network.logits(params, hidden), expected @ table, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "error"), [(jnp.float32, 2e-6), (jnp.bfloat16, 0.006)], ids=["float32", "bfloat16"]
)
def test_the_gradient_of_the_loop_is_that_of_its_steps(dtype, error):
    """In bfloat16 it rounds each gate, but not the sum over a hundred steps, which the gradient
    that JAX makes of the steps does: that is 1.2 % off."""
    keys = jax.random.split(jax.random.key(0), 3)
    gates_LN4U = jax.random.normal(keys[0], (96, 4, 4, 32))
    kernel_U4U = 0.2 * jax.random.normal(keys[1], (32, 4, 32))
    weights_LNU = jax.random.normal(keys[2], (96, 4, 32))

    def gradients(run, dtype):
        def loss(gates, kernel):
            start = jnp.zeros((4, 32), dtype), jnp.zeros((4, 32))
            outputs = run(gates.astype(dtype), kernel.astype(dtype), start)[1]
            return (outputs.astype(jnp.float32) * weights_LNU).sum()

        return jax.jit(jax.grad(loss, (0, 1)))(gates_LN4U, kernel_U4U)

    expected, actual = gradients(steps, jnp.float32), gradients(recurrence, dtype)
    for one, other in zip(expected, actual, strict=True):
        assert jnp.linalg.norm(one - other) < error * jnp.linalg.norm(one)


def test_dropout_falls_on_the_embeddings_and_on_the_output_of_each_layer():
    network = lstm(embd_dropout=0.1, resid_dropout=0.3)
    params, tokens = tiny.params(network), tiny.tokens()
    keys = row_keys(step_key(0, 0), jnp.arange(3, dtype=jnp.uint32))
    rates = {"embedding": 0.1, "mlp_output": 0.3}

    def multipliers(layer, place, shape):
        kept = keep_mask(site_words(keys, layer, place), rates[place], shape[1:])
        return np.asarray(kept) / (1 - rates[place])

    actual = jax.jit(network.hidden)(params, tokens, keys)
    np.testing.assert_allclose(actual, oracles.lstm_hidden(params, tokens, multipliers), atol=1e-5)


def test_cached_decoding_equals_the_whole_at_once(network, params):
    tokens = tiny.tokens(length=12)
    decode = jax.jit(network.decode)
    pieces, cache = [], network.empty_cache(len(tokens), network.body.config.n_ctx)
    for first, last in ((0, 5), (5, 6), (6, 12)):
        # The rest is padding, which leaves no trace.
        hidden, cache = decode(params, tokens[:, first:], cache, last - first)
        pieces.append(hidden[:, : last - first])
    whole = jax.jit(network.hidden)(params, tokens)
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)
    assert int(cache.length) == 12


def test_a_greedy_sample_is_the_likeliest_continuation(network, params):
    prompt = [3, 5]
    config = SampleConfig(length=4, temperature=0.0)
    (new,) = generate(PlacedModel(network, params), prompt, config, n_text=31)
    ids = list(prompt)
    for _ in range(4):
        hidden = oracles.lstm_hidden(params, np.asarray([ids]))
        ids.append(int((hidden[0, -1] @ params["wte"]["embedding"].T)[:31].argmax()))
    assert new.tolist() == ids[2:]


def test_at_the_papers_sizes_a_layer_has_four_gates_of_2048_units():
    config = ModelConfig(body="lstm", n_layer=1)
    shapes = jax.eval_shape(any_network(config, "plain", None, 0).init, jax.random.key(0))
    layer = sum(leaf.size for leaf in jax.tree.leaves(shapes["h_0"]))
    assert layer == 4 * 2048 * (768 + 2048 + 1) + (2048 + 1) * 768
    assert set(shapes) == {"wte", "h_0"}


def test_only_the_forget_gate_starts_open():
    fresh = jax.jit(lstm(forget_bias=1.5).init)(jax.random.key(0))
    enter, forget, new, leave = fresh["h_0"]["bias"].reshape(4, -1)
    assert (forget == 1.5).all()
    assert not np.stack([enter, new, leave]).any()


def test_no_bias_is_decayed(network, params):
    config = OptimizerConfig(warmup=0.0, l2=0.5)
    chain = optimizer(config, span(config, 10))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = jax.jit(lambda p: chain.update(zeros, chain.init(p), p)[0])(params)
    changed = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, leaf in jax.tree_util.tree_leaves_with_path(updates)
        if np.any(leaf)
    }
    kernels = {"input_kernel", "recurrent_kernel", "proj/kernel"}
    assert changed == {"wte/embedding", *(f"h_{i}/{name}" for i in range(2) for name in kernels)}


@pytest.mark.parametrize(("n_transfer", "taken"), [(0, {"wte"}), (1, {"wte", "h_0"})])
def test_an_untied_output_goes_with_the_last_block(n_transfer, taken):
    network = lstm(tied_output=False)
    fresh, source = tiny.params(network, seed=0), tiny.params(network, seed=1)
    found = transfer(fresh, source, n_transfer)
    assert {name for name in found if found[name] is not fresh[name]} == taken
    whole = transfer(fresh, source, None)
    assert {name for name in whole if whole[name] is not fresh[name]} == set(fresh)


def test_settings_of_the_other_body_are_refused():
    with pytest.raises(UserError, match="tied_output"):
        ModelConfig(tied_output=False)
    with pytest.raises(UserError, match="scan_layers"):
        ModelConfig(body="lstm", scan_layers=True)


LSTM_RUN = {"model.body": "lstm", "model.n_layer": 1, "model.n_units": 16, "checkpoint.every": 6}


@pytest.fixture(scope="module")
def pretrained_lstm(tokens, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lstm") / "run"
    runs.run(runs.pretraining(tokens, **LSTM_RUN), workdir)
    return workdir


@pytest.mark.exhaustive
@pytest.mark.parametrize("mesh", [{"mesh.data": 4, "mesh.model": 2}], ids=str)
def test_it_is_pretrained_on_eight_devices_as_on_one(tokens, pretrained_lstm, tmp_path, mesh):
    runs.run(runs.pretraining(tokens, **LSTM_RUN, **mesh), tmp_path)
    runs.assert_close_rows(tmp_path, pretrained_lstm)


def test_it_is_fine_tuned_from_its_own_weights_and_keeps_its_sizes(
    pretrained_lstm, classification, tmp_path
):
    result = runs.run(
        runs.fine_tuning(pretrained_lstm, classification, "classification"), tmp_path / "run"
    )
    assert 0 <= result["metrics"]["dev"]["accuracy"] <= 1
    assert {"task_loss", "lm_loss"} <= set(result["metrics"]["train"])
    config = trained_model.load(tmp_path / "run").model_config
    assert (config.body, config.n_units, config.n_special) == ("lstm", 16, 3)
