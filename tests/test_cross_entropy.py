"""The cross-entropy with its own gradient, and the one in chunks, against the plain one."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import tiny
from test_attention_gpu import named_gpu

from gpt1_jax.errors import UserError
from gpt1_jax.kernels import cross_entropy_gpu
from gpt1_jax.model import objective
from gpt1_jax.model.cross_entropy import Form, token_losses, weighted_sum

# Rows of the output: padded, several multiples with padding, and none to pad.
ROWS = [34, 300, pytest.param(128, marks=pytest.mark.exhaustive)]


def arguments(n_rows=34, length=7, dtype=jnp.float32):
    """Hidden states, output, targets and weights, some of which are zero."""
    random = np.random.default_rng(0)
    hidden = jnp.asarray(random.standard_normal((3, length, 16)), dtype)
    # All scores of the first token are far below the zeros that the padding would have.
    hidden = hidden.at[0, 0].set(-1.0)
    output = jnp.asarray(random.standard_normal((n_rows, 16)) + 1.0, dtype)
    targets = jnp.asarray(random.integers(0, n_rows, (3, length)), jnp.int32)
    weights = jnp.asarray(random.random((3, length)), jnp.float32).at[1, 2:].set(0.0)
    return hidden, output, targets, weights


def plain(hidden, output, targets, weights):
    scores = (hidden @ output.T).astype(jnp.float32)
    log_probabilities = jax.nn.log_softmax(scores)
    picked = jnp.take_along_axis(log_probabilities, targets[..., None], axis=-1)[..., 0]
    return -(picked * weights).sum()


def by(form):
    def loss(hidden, output, targets, weights):
        return 0.5 * weighted_sum(hidden, output, targets, weights, form) * 2

    return loss


whole, by_kernel = by(Form()), by(Form(kernel=True))


def in_chunks(n_chunks):
    return by(Form(n_chunks))


def loss_and_gradients(loss, *given):
    return jax.jit(jax.value_and_grad(loss, (0, 1)))(*given)


@pytest.mark.parametrize("n_rows", ROWS)
@pytest.mark.parametrize(
    "form",
    [whole, by_kernel, pytest.param(in_chunks(2), marks=pytest.mark.exhaustive), in_chunks(3)],
    ids=["whole", "kernel", "2", "3"],
)
def test_loss_and_gradients_are_those_of_the_plain_form(form, n_rows):
    given = arguments(n_rows)
    found, expected = loss_and_gradients(form, *given), loss_and_gradients(plain, *given)
    assert np.isfinite(expected[0])
    tiny.assert_trees_close(found, expected, tolerance=1e-6)
    assert float(form(*given)) == pytest.approx(float(expected[0]), rel=1e-6)


@pytest.mark.parametrize(
    "n_rows",
    # Blocks of 64, three at a time: a round of the loop and a part of a block; two rounds and two
    # blocks, of which one has padding alone; less than a round.
    [250, pytest.param(385, marks=pytest.mark.exhaustive), 130],
)
def test_the_kernel_takes_a_row_in_several_blocks(monkeypatch, n_rows):
    monkeypatch.setattr(cross_entropy_gpu, "COLUMNS", 64)
    given = arguments(n_rows)
    found, expected = loss_and_gradients(by_kernel, *given), loss_and_gradients(plain, *given)
    tiny.assert_trees_close(found, expected, tolerance=1e-6)


def test_the_kernel_is_lowered_for_cuda_and_nothing_is_interpreted():
    given = jax.eval_shape(lambda: arguments(40478, dtype=jnp.bfloat16))
    with named_gpu():
        traced = jax.jit(jax.value_and_grad(by_kernel, (0, 1))).trace(*given)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert 'name = "cross_entropy"' in text


def test_token_losses_are_cross_entropies():
    hidden, output, targets, _ = arguments(300)
    scores = np.asarray(hidden, np.float64) @ np.asarray(output, np.float64).T
    picked = np.take_along_axis(oracles.log_softmax(scores), np.asarray(targets)[..., None], -1)
    np.testing.assert_allclose(token_losses(hidden, output, targets), -picked[..., 0], rtol=1e-5)


@pytest.mark.parametrize("form", [whole, in_chunks(4)], ids=["whole", "4"])
def test_one_token_of_weight_zero_is_a_loss_of_nothing(form):
    hidden, output, targets, weights = arguments(length=1)
    loss, gradients = loss_and_gradients(form, hidden, output, targets, 0 * weights)
    assert loss == 0.0
    assert all((leaf == 0.0).all() for leaf in gradients)


def test_bfloat16_scores_are_summed_in_float32():
    given = arguments(300, dtype=jnp.bfloat16)
    rounded = (given[0] @ given[1].T).astype(jnp.float32)
    exact = (
        jax.nn.logsumexp(rounded, -1)
        - jnp.take_along_axis(rounded, given[2][..., None], -1)[..., 0]
    )
    losses = token_losses(*given[:3])
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, exact, rtol=1e-5)
    _, (by_hidden, by_output) = loss_and_gradients(whole, *given)
    assert by_hidden.dtype == by_output.dtype == jnp.bfloat16


@pytest.mark.parametrize("form", [whole, in_chunks(4)], ids=["whole", "4"])
def test_the_backward_pass_keeps_no_scores(form):
    given = arguments(300, length=8, dtype=jnp.bfloat16)
    _, backward = jax.vjp(form, *given)
    kept = [leaf.size for leaf in jax.tree.leaves(backward)]
    assert max(kept) < 3 * 8 * 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {"softmax_rows": "all", "embd_dropout_on": "table"}, marks=pytest.mark.exhaustive
        ),
        pytest.param({"body": "lstm", "n_units": 8}, marks=pytest.mark.exhaustive),
    ],
    ids=["tokens", "released", "lstm"],
)
def test_a_model_has_the_same_loss_and_gradients_in_chunks(changes):
    def of(n_chunks):
        config = replace(tiny.CONFIG, loss_chunks=n_chunks, **changes)
        network = objective.network(config, "plain", "multiple_choice", 1)
        batch = tiny.batch(n_examples=2, n_candidates=2, label=[0, 1])
        return tiny.loss_and_gradients(network)(tiny.params(network), batch, 3)

    tiny.assert_trees_close(of(3), of(1), tolerance=1e-6)


def test_chunks_are_at_least_one_and_at_most_the_context():
    for wrong in (0, 13):
        with pytest.raises(
            UserError, match=rf"model\.loss_chunks is {wrong}; expected 1 to model\.n_ctx 12"
        ):
            replace(tiny.CONFIG, loss_chunks=wrong)
