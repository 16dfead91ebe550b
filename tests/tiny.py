"""Models and batches small enough that a property costs a second."""

from dataclasses import replace

import jax
import numpy as np

from gpt1_jax.model import objective
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.gpt import GPT
from gpt1_jax.model.objective import Head, Network

CONFIG = ModelConfig(
    vocab_size=31, n_special=3, n_ctx=12, n_embd=16, n_head=4, n_layer=2, dropout=0.2
)


def network(n_outputs=None, each=False, **changes) -> Network:
    """The tiny model with changed settings, and a head where `n_outputs` asks for one."""
    config = replace(CONFIG, **changes)
    head = None if n_outputs is None else Head(config, n_outputs, each)
    return Network(GPT(config), head)


def params(network, seed=0) -> dict:
    """Random values for each parameter: also biases and gains are none that could hide."""
    random = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.15 * random.standard_normal(leaf.shape)).astype(np.float32)

    shapes = jax.eval_shape(network.init, jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def batch(n_examples=4, n_candidates=1, length=8, seed=0, label=None) -> dict:
    """Sequences of different lengths, padded with zeros; the last real token is the extract."""
    random = np.random.default_rng(seed)
    shape = (n_examples, n_candidates, length)
    lengths = random.integers(3, length + 1, shape[:2])
    weights = (np.arange(length) < lengths[..., None]).astype(np.float32)
    tokens = random.integers(1, CONFIG.n_rows, shape) * weights.astype(np.int32)
    made = {
        "tokens": tokens.astype(np.int32),
        "weights": weights,
        "rows": np.arange(n_examples, dtype=np.uint32),
    }
    if label is not None:
        made |= {"extract": (lengths - 1).astype(np.int32), "label": np.asarray(label)}
    return made


def tokens(n_sequences=3, length=8, seed=0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, CONFIG.n_rows, (n_sequences, length)).astype(np.int32)


def loss_and_gradients(network, lm_coef=0.5, seed=7):
    """A compiled function of (params, batch, step) with dropout on: the loss and its gradient."""

    def loss(params, batch, step):
        return objective.loss(network, lm_coef, params, batch, seed, step)[0]

    return jax.jit(jax.value_and_grad(loss))


def assert_trees_close(actual, expected, tolerance=1e-5):
    """Leaf by leaf, absolute and relative; the message names the leaf."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves = jax.tree_util.tree_leaves_with_path(expected)
    for (path, expected_leaf), actual_leaf in zip(leaves, jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(
            np.asarray(actual_leaf, np.float64),
            np.asarray(expected_leaf, np.float64),
            rtol=tolerance,
            atol=tolerance,
            err_msg=jax.tree_util.keystr(path),
        )
