"""Sampling: what may be drawn, how often, and that the cache changes nothing."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import sample
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample import generate, restrict, stop_ids
from gpt1_jax.evaluation.sample_config import SampleConfig

N_TEXT = tiny.CONFIG.vocab_size


@pytest.fixture(scope="module")
def model():
    network = tiny.network()
    return network, tiny.params(network)


def drawn(model, *arguments):
    return generate(PlacedModel(*model), *arguments)


def test_greedy_sampling_equals_asking_the_whole_model_for_each_token(model):
    network, params = model
    found = generate(
        PlacedModel(network, params), [3, 1, 4], SampleConfig(length=6, temperature=0), N_TEXT
    )[0]
    ask = jax.jit(lambda ids_L: network.logits(params, network.hidden(params, ids_L[None]))[0])
    ids = [3, 1, 4]
    for _ in range(6):
        # What stands behind the last token changes nothing at it.
        logits_LV = ask(np.array(ids + [0] * (9 - len(ids))))
        ids.append(int(jnp.argmax(logits_LV[len(ids) - 1, :N_TEXT])))
    assert found.tolist() == ids[3:]


def test_special_rows_are_never_drawn_though_they_score_highest(model):
    network, params = model
    table = np.array(params["wte"]["embedding"])
    table[N_TEXT:] = 50 * np.sign(table[N_TEXT:])
    loud = params | {"wte": {"embedding": table}}
    config = SampleConfig(length=9, num_samples=8)
    assert drawn((network, loud), [1], config, N_TEXT).max() < N_TEXT


def test_positions_are_never_drawn_though_the_softmax_runs_over_them():
    network = tiny.network(preset="released")
    params = tiny.params(network)
    params["wpe"]["embedding"] = 50 * np.sign(params["wpe"]["embedding"])
    config = SampleConfig(length=9, num_samples=8)
    assert drawn((network, params), [1], config, N_TEXT).max() < N_TEXT


def test_samples_differ_and_a_seed_repeats_them(model):
    config = SampleConfig(length=8, num_samples=3, seed=5)
    first, again = (drawn(model, [1, 2], config, N_TEXT) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len({tuple(row) for row in first.tolist()}) == 3
    other = generate(
        PlacedModel(*model), [1, 2], SampleConfig(length=8, num_samples=3, seed=6), N_TEXT
    )
    assert (first != other).any()


@pytest.mark.slow
def test_the_first_token_is_drawn_as_often_as_its_probability_says(model):
    network, params = model
    config = SampleConfig(length=1, num_samples=4000, temperature=0.7)
    found = drawn((network, params), [2, 7], config, N_TEXT)[:, 0]
    logits_V = network.logits(params, network.hidden(params, np.asarray([[2, 7]])))[0, -1]
    expected = np.asarray(jax.nn.softmax(logits_V[:N_TEXT] / 0.7))
    frequency = np.bincount(found, minlength=N_TEXT) / 4000
    deviation = np.sqrt(expected * (1 - expected) / 4000)
    assert (np.abs(frequency - expected) < 5 * deviation + 1e-3).all()


def kept(logits, top_k=0, top_p=None):
    (ids,), (found,) = restrict(jnp.asarray([logits]), top_k, top_p)
    return sorted(np.asarray(ids)[np.isfinite(found)].tolist())


def test_top_k_and_top_p_keep_the_likeliest():
    logits = np.log([0.1, 0.5, 0.15, 0.25])
    assert kept(logits) == [0, 1, 2, 3]
    assert kept(logits, top_k=2) == [1, 3]
    assert kept(logits, top_p=0.5) == [1]
    assert kept(logits, top_p=0.6) == [1, 3]
    assert kept(logits, top_p=0.76) == [1, 2, 3]
    assert kept(logits, top_k=3, top_p=0.99) == [1, 2, 3]


def kept_slowly(logits, top_k, top_p):
    """The likeliest `top_k`, and of these the fewest whose probabilities reach `top_p`."""
    order = sorted(range(len(logits)), key=lambda index: -logits[index])[: top_k or len(logits)]
    probability = np.exp(logits[order]) / np.exp(logits[order]).sum()
    found, reached = [], 0.0
    for index, share in zip(order, probability, strict=True):
        if reached >= top_p:
            break
        found.append(index)
        reached += share
    return sorted(found)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 0.7), (5, None), (8, 0.6), (100, 0.05)])
def test_top_k_and_top_p_are_those_of_a_loop(top_k, top_p):
    logits_NV = 3 * np.random.default_rng(8).standard_normal((20, 40)).astype(np.float32)
    ids_NK, found_NK = map(np.asarray, restrict(jnp.asarray(logits_NV), top_k, top_p))
    for logits_V, ids_K, found_K in zip(logits_NV, ids_NK, found_NK, strict=True):
        stays_K = np.isfinite(found_K)
        assert sorted(ids_K[stays_K]) == kept_slowly(logits_V, top_k, top_p or 1.0)
        np.testing.assert_array_equal(found_K[stays_K], logits_V[ids_K[stays_K]])


def test_a_temperature_makes_the_likely_likelier(model):
    """Drawn often, as its probabilities say: of the two likeliest tokens alone."""
    network, params = model
    logits_V = network.logits(params, network.hidden(params, np.asarray([[2, 7]])))[0, -1, :N_TEXT]
    first, second = np.argsort(logits_V)[:-3:-1]
    share = []
    for temperature in (0.3, 3.0):
        config = SampleConfig(length=1, num_samples=4000, temperature=temperature, top_k=2)
        found = drawn(model, [2, 7], config, N_TEXT)[:, 0]
        assert set(found.tolist()) == {first, second}
        share.append((found == first).mean())
        expected = jax.nn.sigmoid((logits_V[first] - logits_V[second]) / temperature)
        assert abs(share[-1] - expected) < 5 * 0.5 / np.sqrt(4000)
    assert share[0] > share[1]


def test_a_sample_is_the_same_however_many_there_are(model):
    """Also where the number is no power of two, for which the loop is compiled."""
    whole = drawn(model, [1, 2], SampleConfig(length=6, num_samples=8), N_TEXT)
    for count in (1, 3, 5):
        some = drawn(model, [1, 2], SampleConfig(length=6, num_samples=count), N_TEXT)
        np.testing.assert_array_equal(some, whole[:count])


@pytest.mark.parametrize("body", ["transformer", "lstm"])
def test_another_prompt_compiles_nothing_anew(body):
    network = tiny.network(body=body)
    placed = PlacedModel(network, tiny.params(network))
    generate(placed, [1, 2], SampleConfig(length=4, num_samples=4), N_TEXT)
    compiled = sample._generate._cache_size()
    for prompt, config in (
        ([3, 1, 4, 1, 5], SampleConfig(length=3, num_samples=3)),
        ([7], SampleConfig(length=7, num_samples=4, temperature=0.5, seed=3)),
    ):
        generate(placed, prompt, config, N_TEXT)
    assert sample._generate._cache_size() == compiled


def test_a_sample_ends_in_front_of_a_stop_and_the_others_go_on(model):
    config = SampleConfig(length=9, num_samples=6, seed=3)
    whole = drawn(model, [1, 2], config, N_TEXT)
    stop = int(whole[2, 4])
    found = drawn(model, [1, 2], config, N_TEXT, [stop])
    lengths = []
    for row, expected in zip(found.tolist(), whole.tolist(), strict=True):
        n_kept = expected.index(stop) if stop in expected else len(expected)
        assert row == expected[:n_kept] + [-1] * (len(expected) - n_kept)
        lengths.append(n_kept)
    assert len(set(lengths)) > 1


def test_all_that_stop_at_once_are_empty(model):
    config = SampleConfig(length=5, num_samples=2)
    assert (drawn(model, [1], config, N_TEXT, range(N_TEXT)) == -1).all()


class Letters:
    """A tokenizer as far as stopping is concerned."""

    mode = "letters"

    def __init__(self, text: str, end: int | None):
        self.text, self.vocab_size, self.end = text, len(text), end

    def decode(self, ids):
        return "".join(self.text[index] for index in ids)


def test_stops_are_the_end_token_or_whatever_has_a_line_end():
    letters = Letters("a\nb\n.", end=4)
    assert stop_ids(None, letters) == stop_ids("document", letters) == [4]
    assert stop_ids("newline", letters) == [1, 3]
    assert stop_ids("none", letters) == []
    bare = Letters("ab", end=None)
    assert stop_ids(None, bare) == stop_ids("none", bare) == []
    for stop in ("newline", "document"):
        with pytest.raises(UserError, match=f"--stop={stop}: the tokenizer .letters. has no such"):
            stop_ids(stop, bare)


def test_a_length_that_is_not_given_is_what_fits(model):
    assert drawn(model, [1] * 5, SampleConfig(), N_TEXT).shape == (
        1,
        tiny.CONFIG.n_ctx - 5,
    )


@pytest.mark.parametrize(
    ("prompt", "length", "says"),
    [([], 1, "empty"), ([1] * 12, None, "cut at least 1 token"), ([1] * 10, 3, "at most 2")],
)
def test_a_prompt_that_does_not_fit_is_an_error_that_says_what_to_cut(model, prompt, length, says):
    with pytest.raises(UserError, match=says):
        drawn(model, prompt, SampleConfig(length=length), N_TEXT)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": math.nan},
        {"length": 0},
    ],
)
def test_settings_without_meaning_are_errors(wrong):
    with pytest.raises(UserError):
        SampleConfig(**wrong)
