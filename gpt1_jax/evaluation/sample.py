"""Text from a model: one compiled loop with a cache of keys and values.

Shapes: N samples, L tokens of the prompt, V rows of the token table.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.model.objective import Network

DEFAULT_LENGTH = 64


@dataclass(frozen=True)
class SampleConfig:
    """`length` new tokens for each of `num_samples`; None gives 64, or what fits the context.
    Temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave the distribution whole.
    """

    length: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    num_samples: int = 1
    seed: int = 0

    def __post_init__(self):
        if (self.length is not None and self.length < 1) or self.num_samples < 1:
            raise UserError("--length and --num_samples must be at least 1")
        if not 0 <= self.temperature < float("inf") or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                "expected --temperature >= 0, --top_k >= 0 and 0 < --top_p <= 1, got "
                f"{self.temperature}, {self.top_k}, {self.top_p}"
            )


def restrict(logits_NV: jax.Array, temperature: float, top_k: int, top_p: float) -> jax.Array:
    """Log-probabilities up to a constant, [N, V], with what top_k and top_p exclude at -inf."""
    logits_NV = logits_NV / temperature
    if 0 < top_k < logits_NV.shape[-1]:
        smallest_N1 = jax.lax.top_k(logits_NV, top_k)[0][:, -1:]
        logits_NV = jnp.where(logits_NV < smallest_N1, -jnp.inf, logits_NV)
    if top_p < 1.0:
        descending_NV = jnp.sort(logits_NV, axis=-1, descending=True)
        before_NV = jnp.cumsum(jax.nn.softmax(descending_NV, axis=-1), axis=-1)
        before_NV = before_NV - jax.nn.softmax(descending_NV, axis=-1)
        # The smallest set whose probability reaches top_p: all whose forerunners do not reach it.
        kept_NV = jnp.where(before_NV < top_p, descending_NV, jnp.inf)
        logits_NV = jnp.where(logits_NV < kept_NV.min(-1, keepdims=True), -jnp.inf, logits_NV)
    return logits_NV


def _choose(logits_NV: jax.Array, config: SampleConfig, key: jax.Array) -> jax.Array:
    if config.temperature == 0:
        return jnp.argmax(logits_NV, axis=-1)
    restricted_NV = restrict(logits_NV, config.temperature, config.top_k, config.top_p)
    return jax.random.categorical(key, restricted_NV)


@jax.jit(static_argnums=(0, 3, 4))
def _generate(network: Network, params, prompt_NL, config: SampleConfig, n_text: int, key):
    """New tokens [N, length]. Ids from n_text on (start, delimiter, classify) are never drawn."""

    def next_token(hidden_ND, key):
        logits_NV = network.logits(params, hidden_ND[:, None])[:, 0].astype(jnp.float32)
        return _choose(logits_NV[:, :n_text], config, key).astype(jnp.int32)

    def extend(carry, key):
        token_N, cache = carry
        hidden_NLD, cache = network.decode(params, token_N[:, None], cache)
        return (next_token(hidden_NLD[:, -1], key), cache), token_N

    keys = jax.random.split(key, config.length)
    cache = network.empty_cache(prompt_NL.shape[0])
    hidden_NLD, cache = network.decode(params, prompt_NL, cache)
    first_N = next_token(hidden_NLD[:, -1], keys[0])
    (last_N, _), tokens_TN = jax.lax.scan(extend, (first_N, cache), keys[1:])
    return jnp.concatenate([tokens_TN, last_N[None]]).T


def generate(
    network: Network, params: dict, prompt: list[int], config: SampleConfig, n_text: int
) -> np.ndarray:
    """New token ids [num_samples, length] that continue `prompt`.

    `n_text` is the number of text ids, tokenizer.vocab_size. Raises UserError for an empty prompt
    and where prompt and new tokens together are longer than the context.
    """
    room = network.body.config.n_ctx - len(prompt)
    if not prompt:
        raise UserError("the prompt is empty; give --prompt at least one character")
    if room < 1:
        raise UserError(
            f"the prompt has {len(prompt)} tokens and the context is {len(prompt) + room}; cut at "
            f"least {1 - room} tokens from its beginning, so that a new one has room"
        )
    if config.length is not None and config.length > room:
        raise UserError(
            f"the prompt of {len(prompt)} tokens leaves room for {room} in the context, and "
            f"--length is {config.length}; ask for at most {room} or cut the prompt"
        )
    config = replace(config, length=config.length or min(DEFAULT_LENGTH, room))
    prompt_NL = jnp.tile(jnp.asarray(prompt, jnp.int32)[None], (config.num_samples, 1))
    tokens_NT = _generate(network, params, prompt_NL, config, n_text, jax.random.key(config.seed))
    return np.asarray(tokens_NT)
