"""Parameters from one model into another: all of them, or the embeddings and the first blocks."""

import jax
import numpy as np

from gpt1_jax.errors import UserError


def transfer(fresh: dict, source: dict, n_transfer: int | None) -> dict:
    """`fresh` parameters with those of `source` in their place (section 5.1 of the paper).

    `n_transfer` None takes all blocks, k the embeddings and the first k blocks, 0 the embeddings,
    -1 nothing. Token rows beyond the source's (start, delimiter, classify) and the head stay fresh.
    Raises UserError that names each parameter that is missing or has another shape.
    """
    if n_transfer == -1:
        return fresh
    # By number: sorted as text, as JAX sorts the names, h_10 comes before h_2.
    n_blocks = sum(name.startswith("h_") for name in fresh)
    n_taken = n_blocks if n_transfer is None else n_transfer
    if n_taken > n_blocks:
        raise UserError(f"n_transfer is {n_transfer}, but the model has {n_blocks} blocks")
    whole = [name for name in fresh if not name.startswith("h_") and name != "clf"]
    # An output matrix of its own (lm_head) reads the last block, and goes where that goes.
    tables = [name for name in whole if name != "lm_head" or n_taken == n_blocks]
    chosen = [*tables, *(f"h_{number}" for number in range(n_taken))]
    result = dict(fresh)
    for name in chosen:
        if name not in source:
            raise UserError(f"the weights to start from have no {name}")
        result[name] = jax.tree_util.tree_map_with_path(
            lambda path, new, old, name=name: _grown(
                f"{name}/{jax.tree_util.keystr(path, simple=True, separator='/')}", new, old
            ),
            fresh[name],
            source[name],
        )
    return result


def _grown(name: str, fresh: np.ndarray, source: np.ndarray) -> np.ndarray:
    """`source`, followed by the rows that only the fresh token table has."""
    if name == "wte/embedding" and source.shape[0] < fresh.shape[0]:
        return np.concatenate([source, np.asarray(fresh)[source.shape[0] :]])
    if source.shape != fresh.shape:
        raise UserError(f"{name} has shape {source.shape} in the weights, expected {fresh.shape}")
    return np.asarray(source)
