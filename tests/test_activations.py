"""Hidden states and attention weights against the oracle, however the layers are compiled."""

import numpy as np
import oracles
import pytest
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.inference.activations import attention_weights, hidden_states
from gpt1_jax.model.objective import network as made

IDS = [7, 3, 30, 1, 1, 12, 5, 9, 2]
FORMS = [{}, {"scan_layers": True, "remat": True}]


@pytest.fixture(scope="module")
def params():
    return tiny.params(tiny.network())


def first_layers(params, count):
    return {k: v for k, v in params.items() if not (k.startswith("h_") and int(k[2:]) >= count)}


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_states_are_those_of_models_with_fewer_layers(params, form):
    found = hidden_states(PlacedModel(tiny.network(**form), params), IDS)
    tokens_NL = np.array([IDS])
    expected = [
        oracles.hidden(first_layers(params, count), tokens_NL, tiny.CONFIG.n_head)[0]
        for count in range(tiny.CONFIG.n_layer + 1)
    ]
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_weights_are_those_of_the_oracle(params, form):
    found = attention_weights(PlacedModel(tiny.network(**form), params), IDS)
    n_head, length = tiny.CONFIG.n_head, len(IDS)
    assert found.shape == (tiny.CONFIG.n_layer, n_head, length, length)
    for layer, weights_HLL in enumerate(found):
        x_LD = oracles.hidden(first_layers(params, layer), np.array([IDS]), n_head)[0]
        projection = params[f"h_{layer}"]["attn"]["c_attn"]
        query_LD, key_LD, _ = np.split(x_LD @ projection["kernel"] + projection["bias"], 3, -1)
        heads = zip(np.split(query_LD, n_head, -1), np.split(key_LD, n_head, -1), strict=True)
        expected = [oracles.attention(query, key, np.eye(length)) for query, key in heads]
        np.testing.assert_allclose(weights_HLL, expected, atol=1e-5)


def test_a_text_as_long_as_the_context_has_room(params):
    ids = tiny.tokens(1, tiny.CONFIG.n_ctx)[0].tolist()
    whole = hidden_states(PlacedModel(tiny.network(), params), ids)[-1]
    expected = tiny.network().hidden(params, np.array([ids]))[0]
    np.testing.assert_allclose(whole, expected, atol=1e-5)


def test_the_lstm_has_states_and_no_attention():
    config = tiny.replace(tiny.CONFIG, body="lstm", n_units=24, n_layer=2)
    lstm = made(config, "plain", None, 0)
    params = tiny.params(lstm)
    found = hidden_states(PlacedModel(lstm, params), IDS)
    assert found.shape == (3, len(IDS), config.n_embd)
    np.testing.assert_allclose(found[0], params["wte"]["embedding"][IDS], atol=1e-6)
    np.testing.assert_allclose(found[-1], lstm.hidden(params, np.array([IDS]))[0], atol=1e-5)
    with pytest.raises(UserError, match="LSTM has no attention"):
        attention_weights(PlacedModel(lstm, params), IDS)


@pytest.mark.parametrize(("ids", "says"), [([], "empty"), ([1] * 15, "cut at least 3")])
def test_what_does_not_fit_is_an_error(params, ids, says):
    for function in (hidden_states, attention_weights):
        with pytest.raises(UserError, match=says):
            function(PlacedModel(tiny.network(), params), ids)
