"""Losses and heads against numpy, and what they must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny

from gpt1_jax.model import objective
from gpt1_jax.model.dropout import row_keys, step_key

MASS = np.random.default_rng(5).dirichlet(np.ones(6), 4).astype(np.float32)
# Each task shape as the head's settings and a batch.
SHAPES = {
    "language_model": ({}, {}),
    "classification": ({"n_outputs": 3}, {"label": [0, 2, 1, 2]}),
    "similarity": ({"n_outputs": 2}, {"n_candidates": 2, "label": [0, 1, 1, 0]}),
    "graded_similarity": ({"n_outputs": 6}, {"n_candidates": 2, "label": MASS}),
    "multiple_choice": (
        {"n_outputs": 1, "each": True},
        {"n_candidates": 3, "label": [0, 2, 1, 2]},
    ),
}


def answers(network, params, batch):
    """The task's logits without dropout."""
    tokens = batch["tokens"].reshape(-1, batch["tokens"].shape[-1])
    return network.answer(params, network.hidden(params, tokens), batch["extract"])


@pytest.mark.parametrize("shape", SHAPES)
def test_each_loss_agrees_with_numpy(shape):
    settings, form = SHAPES[shape]
    network, batch = tiny.network(**settings), tiny.batch(**form)
    params = tiny.params(network)
    _, terms = jax.jit(lambda p, b: objective.loss(network, 0.5, p, b, 0, None))(params, batch)

    tokens, weights = (batch[name].reshape(-1, 8) for name in ("tokens", "weights"))
    hidden = oracles.hidden(params, tokens, n_head=4)
    expected = {"lm_loss": oracles.lm_loss(params, hidden, tokens, weights)}
    if "label" in batch:
        each = settings.get("each", False)
        logits = oracles.task_logits(params, hidden, batch["extract"], each)
        expected["task_loss"] = oracles.task_loss(logits, batch["label"])
    expected["loss"] = expected.get("task_loss", 0.0) + 0.5 * expected["lm_loss"]
    assert terms == pytest.approx(expected, abs=1e-5)


def test_the_squared_error_learns_a_line():
    """As many numbers as the outputs of a head: no class, no distribution."""
    states = np.random.default_rng(4).standard_normal((64, 1, 1)).astype(np.float32)
    scores = 2.0 * states[:, 0, 0] + 3.0
    head = tiny.network(n_outputs=1).head
    params = head.init(jax.random.key(0), states)

    def mean_loss(params):
        return objective.task_losses(head.apply(params, states), scores).mean()

    descent = jax.jit(lambda p: jax.tree.map(lambda x, g: x - 0.2 * g, p, jax.grad(mean_loss)(p)))
    for _ in range(60):
        params = descent(params)
    found = params["params"]["clf"]
    assert float(found["kernel"][0, 0]) == pytest.approx(2.0, abs=1e-4)
    assert float(found["bias"][0]) == pytest.approx(3.0, abs=1e-4)
    errors = objective.task_losses(jnp.asarray([[1.0], [4.0]]), jnp.asarray([3.0, 4.0]))
    assert errors.tolist() == [4.0, 0.0]


@pytest.fixture(scope="module")
def choosing():
    """Multiple choice with the auxiliary loss: candidates, both terms, every dropout place."""
    return tiny.network(n_outputs=1, each=True)


@pytest.fixture(scope="module")
def compiled(choosing):
    return tiny.loss_and_gradients(choosing)


@pytest.fixture(scope="module")
def choices():
    return tiny.batch(n_examples=8, n_candidates=3, label=[0, 2, 1, 2, 1, 1, 0, 2])


@pytest.fixture(scope="module")
def whole(choosing, compiled, choices):
    return compiled(tiny.params(choosing), choices, 3)


def test_tokens_of_weight_zero_change_nothing(choosing, compiled, choices, whole):
    noise = np.random.default_rng(9).integers(0, tiny.CONFIG.n_rows, choices["tokens"].shape)
    tokens = np.where(choices["weights"] == 1, choices["tokens"], noise).astype(np.int32)
    assert (tokens != choices["tokens"]).any()
    noisy = compiled(tiny.params(choosing), choices | {"tokens": tokens}, 3)
    tiny.assert_trees_close(noisy, whole, tolerance=1e-6)


def test_more_padding_changes_nothing(choosing, compiled, choices, whole):
    wider = {
        name: np.pad(choices[name], ((0, 0), (0, 0), (0, 4))) for name in ("tokens", "weights")
    }
    tiny.assert_trees_close(compiled(tiny.params(choosing), choices | wider, 3), whole, 1e-6)


def test_accumulated_microbatches_equal_the_large_batch(choosing, compiled, choices, whole):
    params = tiny.params(choosing)
    parts = [
        compiled(params, {name: rows[first : first + 2] for name, rows in choices.items()}, 3)
        for first in range(0, 8, 2)
    ]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    tiny.assert_trees_close(mean, whole, tolerance=1e-6)


def test_another_step_draws_other_masks(choosing, compiled, choices, whole):
    params = tiny.params(choosing)
    tiny.assert_trees_close(compiled(params, choices, 3), whole, tolerance=1e-6)
    assert abs(compiled(params, choices, 4)[0] - whole[0]) > 1e-3


def test_rows_and_candidates_draw_their_own_masks(choosing, compiled, choices):
    # The same text everywhere; only the sequence that bears weight differs from call to call.
    params = tiny.params(choosing)
    tokens = np.broadcast_to(choices["tokens"][:1, :1], choices["tokens"].shape)
    losses = set()
    for chosen in np.ndindex(8, 3):
        weights = np.zeros_like(choices["weights"])
        weights[chosen] = 1.0
        losses.add(float(compiled(params, choices | {"tokens": tokens, "weights": weights}, 3)[0]))
    assert len(losses) == 8 * 3


def test_a_batch_of_nothing_but_padding_is_finite(choosing, compiled, choices):
    empty = choices | {"weights": np.zeros_like(choices["weights"])}
    loss, gradients = compiled(tiny.params(choosing), empty, 3)
    assert np.isfinite(loss)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


def test_a_sequence_counts_as_much_as_any_other_whatever_its_length():
    losses = jnp.asarray([[1.0, 1.0, 1.0, 1.0], [5.0, 7.0, 7.0, 7.0]])
    weights = jnp.asarray([[1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 0.0]])
    shares = objective.sequence_shares(weights)
    assert (losses * shares).sum() == (1.0 + 5.0) / 2


def test_without_its_coefficient_the_language_model_is_not_computed():
    network, batch = tiny.network(n_outputs=3), tiny.batch(label=[0, 1, 2, 0])

    def program(lm_coef):
        return str(
            jax.make_jaxpr(lambda p: objective.loss(network, lm_coef, p, batch, 0, 0))(
                tiny.params(network)
            )
        )

    over_the_vocabulary = "f32[32,128]"  # of 4 x 8 tokens; 34 rows with their padding
    assert over_the_vocabulary in program(0.5)
    assert over_the_vocabulary not in program(0.0)


def test_similarity_does_not_see_which_text_comes_first():
    network = tiny.network(n_outputs=2)
    params, batch = tiny.params(network), tiny.batch(n_candidates=2, label=[0, 1, 1, 0])
    swapped = batch | {name: batch[name][:, ::-1] for name in ("tokens", "weights", "extract")}
    compiled = jax.jit(lambda batch: answers(network, params, batch))
    np.testing.assert_allclose(compiled(swapped), compiled(batch), atol=1e-6)


def test_choices_compete_and_their_order_is_free(choosing, choices):
    params = tiny.params(choosing)
    compiled = jax.jit(lambda batch: answers(choosing, params, batch))
    logits = compiled(choices)
    assert logits.shape == (8, 3)
    turned = {name: np.roll(choices[name], 1, axis=1) for name in ("tokens", "weights", "extract")}
    np.testing.assert_allclose(compiled(choices | turned), np.roll(logits, 1, axis=1), atol=1e-6)

    # Raising a wrong choice's score must cost exactly what the right one gains.
    gradient = jax.grad(lambda x: objective.task_losses(x, jnp.asarray(choices["label"])).sum())
    by_logit = np.asarray(gradient(logits))
    np.testing.assert_allclose(by_logit.sum(axis=1), 0.0, atol=1e-6)
    right = np.eye(3, dtype=bool)[choices["label"]]
    assert (by_logit[right] < 0).all()
    assert (by_logit[~right] > 0).all()


def test_the_answer_is_read_at_the_extract_token(choosing, choices):
    params = tiny.params(choosing)
    hidden = jnp.zeros((24, 8, 16)).at[:, 5].set(1.0)
    at_5 = choosing.answer(params, hidden, jnp.full((8, 3), 5))
    bias, total = params["clf"]["bias"], params["clf"]["kernel"].sum()
    np.testing.assert_allclose(at_5, np.full((8, 3), bias + total), atol=1e-6)
    at_4 = choosing.answer(params, hidden, jnp.full((8, 3), 4))
    np.testing.assert_allclose(at_4, np.full((8, 3), bias), atol=1e-6)


@pytest.mark.parametrize("each", [True, False])
def test_candidates_share_the_mask_of_their_example(each):
    network = tiny.network(n_outputs=1, each=each, clf_dropout=0.5)
    params = tiny.params(network)
    keys = row_keys(step_key(0, 0), jnp.arange(8, dtype=jnp.uint32))
    state_D = np.random.default_rng(2).standard_normal(16).astype(np.float32)
    hidden = jnp.asarray(np.broadcast_to(state_D, (8 * 2, 1, 16)))
    logits = np.asarray(network.answer(params, hidden, jnp.zeros((8, 2), jnp.int32), keys))
    # One of the eight examples' masks of sixteen coins may repeat, hardly more than one.
    assert len(np.unique(logits.round(5)[:, 0])) >= 7
    if each:
        np.testing.assert_array_equal(logits[:, 0], logits[:, 1])
    else:
        products = state_D * params["clf"]["kernel"][:, 0] * 2 * 2
        kept = (logits[:, 0] - params["clf"]["bias"][0])[:, None]
        subsets = np.asarray([[b >> i & 1 for i in range(16)] for b in range(2**16)]) @ products
        nearest = np.abs(subsets[None] - kept).min(axis=1)
        assert nearest.max() < 1e-4


def test_the_head_stays_in_float32_under_bfloat16():
    network = tiny.network(n_outputs=3, dtype="bfloat16")
    hidden = jnp.ones((4, 8, 16), jnp.bfloat16)
    logits = network.answer(tiny.params(network), hidden, jnp.zeros((4, 1), jnp.int32))
    assert logits.dtype == jnp.float32
