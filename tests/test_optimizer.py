"""The released Adam and its schedules against numpy."""

import math
from dataclasses import asdict

import jax
import jax.numpy as jnp
import numpy as np
import optax
import oracles
import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.recipe.optimizer import (
    SCHEDULES,
    OptimizerConfig,
    clip_by_global_norm,
    global_norm,
    optimizer,
    schedule,
    span,
)

# Of the gradients: the norms of the first two lie above the clip, the others below it.
SCALES = (3.0, 0.3, 0.01, 1e-7)
SHAPES = {"kernel": (5, 4), "stacked": (2, 3, 4), "bias": (4,), "scalar": ()}


def draw(random, scale):
    return {
        name: (scale * random.standard_normal(shape)).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def norm(gradients):
    return np.sqrt(sum((g**2).sum() for g in gradients.values()))


def scheduled(config, *updates, **begins):
    return schedule(config, span(config, *updates, **begins))


def compiled(config, total_updates):
    chain = optimizer(config, span(config, total_updates))

    @jax.jit
    def update(params, state, gradients):
        changes, state = chain.update(gradients, state, params)
        return optax.apply_updates(params, changes), state

    return chain, update


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vector_l2": True},
        {"l2": 0.0},
        {"max_grad_norm": 0.0},
        {"schedule": "warmup_linear", "b1": 0.8, "b2": 0.95, "eps": 1e-3},
        {"schedule": "warmup_constant", "warmup": 0.0},
    ],
    ids=str,
)
def test_twenty_updates_agree_with_numpy(changes):
    # A rate and a decay so large that every term shows in the sixth digit.
    config = OptimizerConfig(**{"learning_rate": 0.02, "warmup": 0.2, "l2": 0.3} | changes)
    random = np.random.default_rng(0)
    params = draw(random, 1.0)
    oracle = oracles.ReleasedAdam(params, config, total_updates=20)
    chain, update = compiled(config, 20)
    state = chain.init(params)
    for number in range(20):
        gradients = draw(random, SCALES[number % 4])
        assert (norm(gradients) > 1.0) == (number % 4 < 2)
        params, state = update(params, state, gradients)
        oracle.update(gradients)
        for name, expected in oracle.params.items():
            message = f"{name} after update {number}"
            np.testing.assert_allclose(params[name], expected, atol=1e-6, rtol=0, err_msg=message)
    assert state[-1].count == 20


@pytest.mark.parametrize("scale", [3.0, 0.1, 0.0])
def test_layers_alike_are_clipped_as_optax_clips_them(scale):
    random = np.random.default_rng(0)
    layers = {f"h_{i}": {"mlp": draw(random, scale), "attn": draw(random, scale)} for i in range(3)}
    gradients = jax.tree.map(jnp.asarray, {"layers": layers, "bias": np.float32(scale)})
    np.testing.assert_allclose(global_norm(gradients), optax.tree.norm(gradients), rtol=1e-6)
    found, expected = (
        clip.update(gradients, clip.init(gradients))[0]
        for clip in (clip_by_global_norm(1.0), optax.clip_by_global_norm(1.0))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, expected)


@pytest.mark.parametrize("gradient", [1e-2, 1.0])
def test_a_single_step_is_exact_in_its_correction(gradient):
    # One update from zero: rate * sqrt(1 - b2) / (1 - b1) * m / sqrt(v) is the rate itself.
    config = OptimizerConfig(learning_rate=1.0, warmup=0.0, l2=0.0, eps=0.0, max_grad_norm=0.0)
    chain, update = compiled(config, 10)
    params = {"kernel": jnp.zeros((1, 1))}
    params, _ = update(params, chain.init(params), {"kernel": jnp.full((1, 1), gradient)})
    np.testing.assert_allclose(params["kernel"], -1.0, rtol=1e-6)


def test_the_first_update_moves_the_moments_alone():
    chain, update = compiled(OptimizerConfig(learning_rate=1.0), 1000)
    random = np.random.default_rng(0)
    params, gradients = draw(random, 1.0), draw(random, 0.01)
    after, state = update(params, chain.init(params), gradients)
    assert norm(gradients) < 1.0
    for name in SHAPES:
        np.testing.assert_array_equal(after[name], params[name])
        np.testing.assert_allclose(state[-1].mu[name], 0.1 * gradients[name], rtol=1e-5)
        np.testing.assert_allclose(state[-1].nu[name], 0.001 * gradients[name] ** 2, rtol=1e-4)
    assert state[-1].count == 1


def test_it_is_not_adamw():
    config = OptimizerConfig(learning_rate=1.0, warmup=0.0, schedule="warmup_constant", l2=0.01)
    params = {"kernel": jnp.ones((1, 2))}
    gradients = {"kernel": jnp.asarray([[1e-6, 0.0]])}

    def first_change(chain):
        return np.asarray(chain.update(gradients, chain.init(params), params)[0]["kernel"])[0]

    ours = first_change(optimizer(config, span(config, 10)))
    theirs = first_change(optax.adamw(1.0, weight_decay=0.01))
    # Where no gradient comes, decay alone moves a weight: through the corrected step, 0.316.
    correction = np.sqrt(0.001) / 0.1
    np.testing.assert_allclose(ours[1], -0.01 * correction, rtol=1e-4)
    np.testing.assert_allclose(theirs[1], -0.01, rtol=1e-4)
    # Epsilon 1e-8 stands beside sqrt(v) = 3.2e-8 here, and beside 1e-6 in optax.
    ratio = (ours[0] - ours[1]) / (theirs[0] - theirs[1])
    np.testing.assert_allclose(ratio, (1 + 1e-2) / (1 + 1e-8 / (np.sqrt(0.001) * 1e-6)), rtol=1e-4)
    assert ratio < 0.77


LANDMARKS = {
    # 1000 updates, warm-up 100: factors after this many updates.
    "warmup_cosine": {0: 0.0, 50: 0.5, 100: 1.0, 101: 0.97504, 500: 0.5, 750: 0.146447, 1000: 0.0},
    "warmup_linear": {0: 0.0, 50: 0.5 * 0.95, 100: 0.9, 101: 0.899, 500: 0.5, 999: 0.001, 1000: 0},
    "warmup_constant": {0: 0.0, 50: 0.5, 100: 1.0, 101: 1.0, 500: 1.0, 999: 1.0},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_at_their_landmarks(name):
    factor = jax.jit(scheduled(OptimizerConfig(schedule=name, warmup=0.1), 1000))
    assert {count: float(factor(count)) for count in LANDMARKS[name]} == pytest.approx(
        LANDMARKS[name], abs=2e-6
    )


@pytest.mark.parametrize(("name", "first"), [("warmup_cosine", 1), ("warmup_linear", 1)])
def test_without_warm_up_the_first_update_has_the_full_rate(name, first):
    assert scheduled(OptimizerConfig(schedule=name, warmup=0.0), 100)(0) == first


@pytest.mark.parametrize("name", SCHEDULES)
def test_warm_up_is_a_fraction_of_the_run_or_a_number_of_updates(name):
    updates = jax.jit(scheduled(OptimizerConfig(schedule=name, warmup=100), 1000))
    assert {count: float(updates(count)) for count in LANDMARKS[name]} == pytest.approx(
        LANDMARKS[name], abs=2e-6
    )
    # The same number of updates whatever the length of the run; 1 is one update, not the whole run.
    longer = jax.jit(scheduled(OptimizerConfig(schedule="warmup_constant", warmup=100), 3_000_000))
    assert [float(longer(count)) for count in (0, 1, 99, 100)] == pytest.approx([0, 0.01, 0.99, 1])
    one = scheduled(OptimizerConfig(schedule="warmup_constant", warmup=1), 1000)
    assert (one(0), one(1)) == (0, 1)


def test_the_papers_warm_up_is_two_thousand_updates():
    factor = scheduled(OptimizerConfig(), 1_000_000)
    assert float(factor(1999)) == pytest.approx(0.9995)
    assert float(factor(2000)) == pytest.approx(1.0)
    assert 0.9999 < factor(2001) < 1.0


def test_a_schedule_that_begins_again_is_that_of_the_updates_that_are_left():
    config = OptimizerConfig(warmup=0.1)
    whole, again = scheduled(config, 100), scheduled(config, 350, begins_after=250)
    assert [float(again(250 + done)) for done in range(100)] == [
        float(whole(done)) for done in range(100)
    ]


def test_defaults_are_the_papers():
    expected = {
        "learning_rate": 2.5e-4,
        "schedule": "warmup_cosine",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "l2": 0.01,
        "vector_l2": False,
        "max_grad_norm": 1.0,
    }
    assert expected.items() <= asdict(OptimizerConfig()).items()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup": 1.5}, r"optimizer\.warmup is 1\.5; expected a fraction .* number of updates"),
        ({"warmup": math.inf}, r"optimizer\.warmup is inf"),
        ({"warmup": math.nan}, r"optimizer\.warmup is nan"),
        ({"warmup": -0.1}, r"optimizer\.warmup is -0\.1"),
        ({"learning_rate": -1.0}, r"optimizer\.learning_rate is -1\.0"),
        ({"b2": 1.0}, r"optimizer\.b2 is 1\.0"),
        ({"accumulation": 0}, r"optimizer\.accumulation is 0"),
    ],
)
def test_settings_out_of_range_are_the_users_mistake(changes, message):
    with pytest.raises(UserError, match=message):
        OptimizerConfig(**changes)
