"""Zero-shot scores against the sum over tokens written out."""

import jax
import numpy as np
import pytest
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.probes import mean_log_probabilities

N_CTX = tiny.CONFIG.n_ctx


@pytest.fixture(scope="module")
def model():
    network = tiny.network()
    return network, tiny.params(network)


def slowly(network, params, context, continuation):
    ids = np.asarray(context + continuation)
    logits = network.logits(params, network.hidden(params, ids[None, :-1]))[0]
    log_probabilities = jax.nn.log_softmax(logits)
    places = range(max(1, len(context)), len(ids))
    return float(np.mean([log_probabilities[place - 1, ids[place]] for place in places]))


def test_the_mean_is_over_the_continuation_alone(model):
    cases = [([7, 8], [9, 5]), ([], [4, 3, 2]), ([1], [2]), ([1, 2, 3], list(range(1, 10)))]
    found = mean_log_probabilities(*model, cases, jax.device_put, batch_size=3)
    np.testing.assert_allclose(found, [slowly(*model, *case) for case in cases], rtol=1e-5)


def test_a_context_that_is_too_long_loses_its_beginning(model):
    context, continuation = tiny.tokens(1, 30)[0].tolist(), [5, 6, 7]
    found = mean_log_probabilities(*model, [(context, continuation)], jax.device_put)
    expected = slowly(*model, context[-(N_CTX + 1 - 3) :], continuation)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


@pytest.mark.parametrize("case", [([], [1]), ([1], []), ([1], [2] * (N_CTX + 1))])
def test_what_cannot_be_scored_is_an_error(model, case):
    with pytest.raises(UserError, match="cannot be scored"):
        mean_log_probabilities(*model, [case], jax.device_put)
