"""Log-probabilities of documents against the oracle: each token by the window that predicts it."""

import itertools

import numpy as np
import oracles
import pytest
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.inference import log_probabilities

N_CTX = tiny.CONFIG.n_ctx


@pytest.fixture(scope="module")
def model():
    network = tiny.network()
    return network, tiny.params(network)


def slowly(params, ids, stride):
    """The window of a token is the first that reaches it: none for the first token."""
    found = [np.nan]
    for place in range(1, len(ids)):
        start = next(s for s in itertools.count(0, stride) if s + N_CTX >= place)
        seen = ids[start:place]
        hidden = oracles.hidden(params, seen[None], tiny.CONFIG.n_head)
        found.append(oracles.log_softmax(oracles.logits(params, hidden)[0, -1])[ids[place]])
    return np.array(found)


def scored(model, documents, stride):
    return list(log_probabilities.log_probabilities(PlacedModel(*model), documents, stride))


@pytest.mark.parametrize("stride", [N_CTX, 5])
def test_each_document_has_the_log_probabilities_of_the_oracle(model, stride):
    lengths = [7, 1, N_CTX, N_CTX + 1, N_CTX + 2, 30, 2, 1, 3, 4, 5]
    documents = [tiny.tokens(1, length, seed=length)[0] for length in lengths]
    found = scored(model, documents, stride)
    assert [len(ids) for ids, _ in found] == lengths
    for (ids, logprobs), document in zip(found, documents, strict=True):
        np.testing.assert_array_equal(ids, document)
        np.testing.assert_allclose(logprobs, slowly(model[1], document, stride), atol=2e-5)


def test_documents_are_not_read_before_they_are_needed(model):
    read = []

    def documents():
        for number in itertools.count():
            read.append(number)
            yield tiny.tokens(1, 1 + number % 3, seed=number)[0]

    found = log_probabilities.log_probabilities(PlacedModel(*model), documents(), N_CTX)
    for _ in range(3):
        next(found)
    assert len(read) <= log_probabilities.BATCH


def test_the_mean_is_over_all_but_the_first_token():
    found = log_probabilities.summary(np.array([np.nan, -1.0, -3.0], np.float32))
    assert found == {"mean_logprob": -2.0, "perplexity": pytest.approx(np.exp(2))}
    assert log_probabilities.summary(np.array([np.nan])) == {
        "mean_logprob": None,
        "perplexity": None,
    }


@pytest.mark.parametrize("stride", [0, -1, N_CTX + 1])
def test_a_stride_that_skips_tokens_or_stands_still_is_an_error(stride):
    with pytest.raises(UserError, match=f"--stride={stride}; expected 1 to {N_CTX}"):
        log_probabilities.checked_stride(stride, N_CTX)
    assert log_probabilities.checked_stride(None, N_CTX) == N_CTX
