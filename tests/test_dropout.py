"""Dropout masks: fair coins that depend on where they fall and on nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gpt1_jax.kernels.masks import attention_keep_rate
from gpt1_jax.model.dropout import (
    PLACES,
    attention_keep_mask,
    dropout,
    keep_mask,
    row_keys,
    site_words,
    step_key,
)


def words(seed=0, step=0, rows=(0,), layer=0, place="mlp_output"):
    keys = row_keys(step_key(seed, step), jnp.asarray(rows, jnp.uint32))
    return site_words(keys, layer, place)


def masks(shape, rate=0.5, **site):
    return np.asarray(keep_mask(words(**site), rate, shape))


def attention_masks(heads, length, rate=0.5, n_ctx=None, **site):
    site = words(**{"place": "attention", **site})
    return np.asarray(attention_keep_mask(site, rate, heads, length, n_ctx or length))


def signs(masks, rate=0.5):
    """Mean 0, variance 1, one row per mask."""
    flat = masks.reshape(len(masks), -1).astype(np.float64)
    return (flat - (1 - rate)) / np.sqrt(rate * (1 - rate))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("place", PLACES)
def test_the_kept_share_is_binomial(rate, place):
    kept = masks((64, 256), rate, rows=range(8), layer=3, place=place)
    bound = 5 * np.sqrt(kept.size * rate * (1 - rate))
    assert abs(kept.sum() - kept.size * (1 - rate)) < bound


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_kept_share_of_attention_is_what_16_bits_can_say(rate):
    share = attention_keep_rate(rate)
    assert abs(share - (1 - rate)) <= 2**-17
    kept = attention_masks(4, 128, rate, rows=range(8), layer=3)
    bound = 5 * np.sqrt(kept.size * rate * (1 - rate))
    assert abs(kept.sum() - kept.size * share) < bound
    # Each half of the words by itself, in each head.
    for half in (kept[..., :32], kept[..., 32:64]):
        by_head = half.mean(axis=(0, 2, 3))
        np.testing.assert_allclose(by_head, share, atol=5 * np.sqrt(rate * (1 - rate) / 8 / 4096))


def test_no_rate_leaves_attention_without_a_weight_to_scale():
    assert attention_keep_rate(1e-9) == 1.0
    assert attention_keep_rate(1 - 1e-9) == 2**-16


def test_each_position_is_kept_equally_often_over_the_rows():
    kept = masks((64,), 0.1, rows=range(8192))
    bound = 5 * np.sqrt(0.1 * 0.9 / 8192)
    np.testing.assert_allclose(kept.mean(axis=0), 0.9, atol=bound)


def test_masks_of_other_seeds_steps_rows_layers_and_places_are_unrelated():
    drawn = [
        masks((64, 64), seed=seed, step=step, rows=range(4), layer=layer, place=place)
        for seed in (0, 1)
        for step in (0, 1, 2)
        for layer in (0, 1, 2)
        for place in PLACES
    ]
    together = np.corrcoef(signs(np.concatenate(drawn)))
    np.fill_diagonal(together, 0.0)
    # 64 thousand pairs of 4096 coins: six standard deviations do not happen by chance.
    assert np.abs(together).max() < 6 / np.sqrt(64 * 64)


@pytest.mark.parametrize("step_apart", [np.roll, np.bitwise_xor])
def test_no_two_elements_at_any_distance_go_together_within_or_between_rows(step_apart):
    drawn = signs(masks((32, 32), rows=range(8)))
    index = np.arange(1024)
    # Within a row some pairs are met from both ends, which leaves half as many coins.
    bound = 6 / np.sqrt(1024) * np.where(np.eye(8), np.sqrt(2), 1)
    for by in range(1, 1024):
        together = drawn @ drawn[:, step_apart(index, by)].T / 1024
        assert (np.abs(together) < bound).all(), by


def correlations(drawn, by):
    """Of each mask with each at an offset, over the places that both have: [N, N]."""
    rows, columns = by
    n_rows, n_columns = drawn.shape[1:]
    first = drawn[:, max(0, -rows) : n_rows - max(0, rows), : n_columns - columns]
    second = drawn[:, max(0, rows) : n_rows + min(0, rows), columns:]
    size = first[0].size
    return first.reshape(-1, size) @ second.reshape(-1, size).T / size, size


def test_attention_has_no_pattern_within_or_between_heads_and_rows():
    """Neighbours, and the two keys of a word: in a mask and across masks."""
    drawn = signs(attention_masks(4, 128, rate=0.1, rows=range(2), layer=5), rate=0.1)
    drawn = drawn.reshape(8, 128, 128)
    assert drawn.std() == pytest.approx(1.0, abs=0.01)
    offsets = [(0, 0), (1, 0), (2, 0), (32, 0), (64, 0)]
    offsets += [(rows, by) for by in (1, 2, 31, 32, 33, 64, 96) for rows in (-1, 0, 1)]
    for by in offsets:
        together, size = correlations(drawn, by)
        if by == (0, 0):
            np.fill_diagonal(together, 0.0)
        # 64 coefficients at 26 offsets: six standard deviations do not happen by chance.
        assert np.abs(together).max() < 6 / np.sqrt(size), by


def test_the_two_keys_of_a_word_are_kept_independently():
    """All four outcomes, by chi square with three degrees of freedom."""
    share = attention_keep_rate(0.3)
    kept = attention_masks(4, 128, 0.3, rows=range(8))
    low, high = kept[..., :32].ravel(), kept[..., 32:64].ravel()
    counts = np.bincount(2 * low + high, minlength=4)
    likely = np.array([(1 - share) ** 2, (1 - share) * share, share * (1 - share), share**2])
    expected = likely * low.size
    assert ((counts - expected) ** 2 / expected).sum() < 25


def test_attention_of_other_seeds_steps_rows_and_layers_is_unrelated():
    drawn = [
        attention_masks(2, 64, seed=seed, step=step, rows=range(4), layer=layer)
        for seed in (0, 1)
        for step in (0, 1, 2)
        for layer in (0, 1, 2)
    ]
    together = np.corrcoef(signs(np.concatenate(drawn)))
    np.fill_diagonal(together, 0.0)
    assert np.abs(together).max() < 6 / np.sqrt(2 * 64 * 64)


def test_two_positions_are_independent_over_the_rows():
    together = np.corrcoef(signs(masks((64,), rows=range(8192))).T)
    np.fill_diagonal(together, 0.0)
    assert np.abs(together).max() < 6 / np.sqrt(8192)


def test_a_row_has_its_mask_in_any_company():
    every = masks((8, 16), rows=range(8))
    np.testing.assert_array_equal(masks((8, 16), rows=(5, 2)), every[[5, 2]])


def test_the_padded_length_does_not_change_the_mask():
    long = masks((12, 16))
    np.testing.assert_array_equal(masks((8, 16)), long[:, :8])
    long = attention_masks(3, 100, n_ctx=100)
    for length in (7, 65):
        short = attention_masks(3, length, n_ctx=100)
        np.testing.assert_array_equal(short, long[:, :, :length, :length])


def test_a_traced_seed_step_and_layer_draw_the_same_mask():
    @jax.jit
    def traced(seed, step, layer):
        keys = row_keys(step_key(seed, step), jnp.arange(4, dtype=jnp.uint32))
        return attention_keep_mask(site_words(keys, layer, "attention"), 0.5, 2, 16, 64)

    expected = attention_masks(2, 16, n_ctx=64, seed=3, step=2, rows=range(4), layer=1)
    np.testing.assert_array_equal(traced(3, 2, 1), expected)


def test_masks_do_not_follow_the_default_generator():
    expected = masks((64,))
    with jax.default_prng_impl("rbg"):
        np.testing.assert_array_equal(masks((64,)), expected)


def test_masks_stay_the_same_from_release_to_release():
    # A run that resumes under a later version should draw the masks that it would have drawn;
    # where they must change, CHANGELOG.md says so.
    drawn = masks((4, 16), seed=1, step=2, rows=(3,), layer=4, place="attention_output")
    assert np.packbits(drawn).tobytes().hex() == "64266d230ff9343a"
    drawn = attention_masks(1, 66, seed=1, step=2, rows=(3,), layer=4, n_ctx=96)[0, 0, ::65]
    assert np.packbits(drawn).tobytes().hex() == "39ba0a1258fd176ec011f5c50e85b53bd0"


def test_kept_elements_are_scaled_up_and_the_others_are_zero():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((3, 5, 16)), jnp.float32)
    keys = row_keys(step_key(0, 0), jnp.arange(3, dtype=jnp.uint32))
    kept = masks((5, 16), 0.25, rows=range(3), layer=1)

    def dropped(x):
        return dropout(x, keys, 0.25, 1, "mlp_output")

    np.testing.assert_allclose(dropped(x), np.where(kept, x / 0.75, 0.0), rtol=1e-6)
    gradient = jax.grad(lambda x: dropped(x).sum())(x)
    np.testing.assert_allclose(gradient, np.where(kept, 1 / 0.75, 0.0), rtol=1e-6)


def test_bfloat16_is_scaled_without_bias():
    # 1 / 0.9 itself rounds to 1.109 in bfloat16, which would shrink each mean by 0.16 %.
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 64)), jnp.bfloat16)
    keys = row_keys(step_key(0, 0), jnp.arange(2, dtype=jnp.uint32))
    kept = masks((64,), 0.1, rows=range(2), place="embedding")
    dropped = dropout(x, keys, 0.1, 0, "embedding")
    assert dropped.dtype == jnp.bfloat16
    exact = np.where(kept, np.asarray(x, np.float64) / 0.9, 0.0)
    np.testing.assert_array_equal(dropped, jnp.asarray(exact, jnp.bfloat16))


def test_without_keys_or_at_rate_zero_nothing_happens():
    x = jnp.ones((2, 3))
    keys = row_keys(step_key(0, 0), jnp.arange(2, dtype=jnp.uint32))
    assert dropout(x, None, 0.5, 0, "embedding") is x
    assert dropout(x, keys, 0.0, 0, "embedding") is x
