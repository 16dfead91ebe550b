"""Held-out perplexity and task scores against slow and obvious versions of themselves."""

import math

import jax
import numpy as np
import oracles
import pytest
import tiny

from gpt1_jax.data.tasks import Task
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate
from gpt1_jax.evaluation.evaluate import EvaluationConfig, stream_losses, window_starts
from gpt1_jax.evaluation.placed_model import PlacedModel

N_CTX = tiny.CONFIG.n_ctx


@pytest.fixture(scope="module")
def model():
    network = tiny.network()
    return network, tiny.params(network)


def token_by_token(network, params, ids, stride):
    """The loss of each token but the first, each from the window that the convention gives it."""

    @jax.jit
    def logits_of(inputs):
        return network.logits(params, network.hidden(params, inputs))

    losses = {}
    for start in range(0, len(ids), stride):
        window = ids[start : start + N_CTX]
        targets = ids[start + 1 : start + N_CTX + 1]
        if not len(targets):
            continue
        logits = logits_of(window[None, : len(targets)])
        found = oracles.log_softmax(np.asarray(logits))[0, range(len(targets)), targets]
        for place, log_probability in enumerate(found):
            losses.setdefault(start + 1 + place, -float(log_probability))
    return losses


@pytest.mark.parametrize(
    ("n_tokens", "stride"),
    [
        (40, None),
        (40, 5),
        (N_CTX + 1, None),
        pytest.param(N_CTX, 1, marks=pytest.mark.exhaustive),
        (2, None),
    ],
)
def test_each_token_but_the_first_is_predicted_once_with_the_context_of_its_window(
    model, n_tokens, stride
):
    ids = tiny.tokens(1, n_tokens)[0]
    placed = PlacedModel(*model, batch_size=3)
    total, count = stream_losses(placed, lambda a, b: ids[a:b], n_tokens, stride)
    expected = token_by_token(*model, ids, stride or N_CTX)
    assert count == n_tokens - 1 == len(expected)
    assert total == pytest.approx(sum(expected.values()), rel=1e-5)


def test_more_context_is_what_a_shorter_stride_buys():
    for start, target in window_starts(n_tokens=100, n_ctx=10, stride=3)[1:]:
        assert target - start > 10 - 3


def test_a_stride_longer_than_the_window_would_skip_tokens(model):
    with pytest.raises(UserError, match=r"eval.stride 13 .*n_ctx 12"):
        stream_losses(PlacedModel(*model), None, 40, stride=13)


def test_a_cap_on_the_windows_reads_the_first(model):
    ids = tiny.tokens(1, 60)[0]
    placed = PlacedModel(*model, batch_size=2)
    total, count = stream_losses(placed, lambda a, b: ids[a:b], 60, windows=2)
    assert count == 2 * N_CTX
    losses = token_by_token(*model, ids, N_CTX)
    assert total == pytest.approx(sum(losses[i] for i in range(1, 2 * N_CTX + 1)), rel=1e-5)


def test_perplexity_bits_and_words_of_a_uniform_guess():
    info = {"tokens": 90, "bytes": 400, "words": 50}  # and 11 separators
    found = evaluate.perplexity_metrics(100 * math.log(8), 100, 101, info)
    assert found["perplexity"] == pytest.approx(8)
    assert found["bits_per_byte"] == pytest.approx(3 * 101 / 400)
    assert found["perplexity_per_word"] == pytest.approx(8 ** (101 / 50))
    # A tail of line ends.
    assert "perplexity_per_word" not in evaluate.perplexity_metrics(3.0, 2, 3, info | {"words": 0})


def test_predictions_are_the_likeliest_class_the_expected_score_or_the_output_itself():
    probabilities = np.array([[0.0, 0.2, 0.8, 0, 0, 0], [0, 0, 0, 0, 0, 1.0]])
    logits = np.log(probabilities + 1e-30) + 3.0
    accuracy = Task("t", "classification", "accuracy")
    soft6, mse = (Task("t", "similarity", "pearson", score_loss=s) for s in ("soft6", "mse"))
    assert evaluate.predictions(accuracy, logits).tolist() == [2, 5]
    np.testing.assert_allclose(evaluate.predictions(soft6, logits), [1.8, 5.0])
    for task in (accuracy, soft6):
        np.testing.assert_allclose(evaluate.probabilities(task, logits), probabilities, atol=1e-12)
    assert evaluate.predictions(mse, np.array([[-0.5], [6.0]])).tolist() == [-0.5, 6.0]
    assert evaluate.probabilities(mse, np.array([[-0.5], [6.0]])) is None


def due(steps_per_epoch, n_steps, **settings):
    config = EvaluationConfig(**settings)
    return [step for step in range(1, n_steps + 1) if config.due(step, steps_per_epoch)]


def test_a_task_is_evaluated_as_in_the_released_code():
    """After each epoch, and at 1000, 2000, 4000, ... 32000 updates of the first one only."""
    assert due(700, 2100) == [700, 1400, 2100]
    assert due(1000, 2000) == [1000, 2000]
    assert due(5000, 15000) == [1000, 2000, 4000, 5000, 10000, 15000]
    early = [1000, 2000, 4000, 8000, 16000, 32000]
    assert due(70000, 140000) == [*early, 70000, 140000]
    assert due(5000, 12000, every=4500) == [4500, 9000]


def test_a_language_model_is_evaluated_every_so_many_updates():
    assert due(None, 3500) == [1000, 2000, 3000]
    assert due(None, 10, every=4) == [4, 8]


def test_softmax_stands_large_logits():
    np.testing.assert_allclose(evaluate.softmax(np.array([[1000.0, 1000.0]])), [[0.5, 0.5]])
