"""What goes on inside a model while it reads a text.

Shapes: L tokens, D width, H heads, n layers.
"""

from dataclasses import replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.evaluate import power_of_two
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.model.attention import plain
from gpt1_jax.model.gpt import Attention, Block
from gpt1_jax.model.lstm import Layer
from gpt1_jax.model.objective import Network


def hidden_states(model: PlacedModel, ids: list[int]) -> np.ndarray:
    """float32 [n + 1, L, D]: the sum of token and position, then the output of each layer."""
    states = _watched(model.network, model.params, _padded(model.config.n_ctx, ids))[0]
    return np.stack([np.asarray(state_NLD[0, : len(ids)], np.float32) for state_NLD in states])


def attention_weights(model: PlacedModel, ids: list[int]) -> np.ndarray:
    """float32 [n, H, L, L]: how much each token (row) takes from each token before it and itself.

    Raises UserError for the LSTM.
    """
    if model.config.body == "lstm":
        raise UserError("the LSTM has no attention; hidden_states works for both bodies")
    weights = _watched(model.network, model.params, _padded(model.config.n_ctx, ids))[1]
    length = len(ids)
    return np.stack([np.asarray(w_NHLL[0, :, :length, :length], np.float32) for w_NHLL in weights])


def _padded(n_ctx: int, ids: list[int]) -> np.ndarray:
    """[1, L] with zeros after the text, which no token of it sees."""
    if not ids:
        raise UserError("the text is empty; expected at least one token")
    if len(ids) > n_ctx:
        raise UserError(
            f"the text has {len(ids)} tokens and the context is {n_ctx}; cut at least "
            f"{len(ids) - n_ctx} of them"
        )
    tokens_NL = np.zeros((1, min(n_ctx, power_of_two(len(ids)))), np.int32)
    tokens_NL[0, : len(ids)] = ids
    return tokens_NL


@jax.jit(static_argnums=0)
def _watched(network: Network, params: dict, tokens_NL) -> tuple[list, list]:
    """What goes into the first layer and comes out of each, [N, L, D]; and the weights of each
    layer's attention, [N, H, L, L]. The body itself runs, layer by layer, and is listened to."""
    states, weights = [], []

    def listen(call, arguments, options, context):
        result = call(*arguments, **options)
        if context.method_name == "__call__":
            if isinstance(context.module, Block | Layer):
                states.extend([result[0]] if states else [arguments[0], result[0]])
            elif context.module.name == "c_attn" and isinstance(context.module.parent, Attention):
                weights.append(_weights(result, tokens_NL.shape, network.body.config.n_head))
        return result

    body = network.body.clone(config=replace(network.body.config, scan_layers=False, remat=False))
    with nn.intercept_methods(listen):
        replace(network, body=body).hidden(params, tokens_NL)
    return states, weights


def _weights(projected: jax.Array, shape: tuple[int, int], n_head: int) -> jax.Array:
    """[N, H, L, L] from queries, keys and values side by side."""
    projected = projected.reshape(*shape, 3, n_head, -1)
    # Values that are the rows of the identity come out as the weights themselves.
    n_sequences, length = shape
    one_of_each = jnp.eye(length, dtype=projected.dtype)[None, :, None]
    values_NMHM = jnp.broadcast_to(one_of_each, (n_sequences, length, n_head, length))
    weights_NLHM = plain(projected[:, :, 0], projected[:, :, 1], values_NMHM)
    return jnp.swapaxes(weights_NLHM, 1, 2)
