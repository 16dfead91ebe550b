"""Text from a model: one compiled loop with a cache of keys and values.

Shapes: N samples, L tokens of the prompt, V rows of the token table.
"""

from collections.abc import Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.inference.config import DEFAULT_LENGTH, SampleConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import memory
from gpt1_jax.tokenization.tokenizer import Tokenizer


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


@jax.jit(static_argnums=(0, 3))
def _generate(network: Network, params, prompt_NL, config: SampleConfig, stop_V, key):
    """New tokens [N, length], -1 from a token of `stop_V` on. Ids that are no text (start,
    delimiter, classify, positions) come after those of `stop_V`, and are never drawn."""
    n_samples = prompt_NL.shape[0]
    keys = jax.random.split(key, config.length)

    def draw(place, hidden_ND, stopped_N, tokens_NT):
        """The token at a place, who has stopped by then, and the tokens with it."""
        logits_NV = network.logits(params, hidden_ND[:, None])[:, 0].astype(jnp.float32)
        token_N = _choose(logits_NV[:, : len(stop_V)], config, keys[place]).astype(jnp.int32)
        stopped_N = stopped_N | stop_V[token_N]
        kept_N1 = jnp.where(stopped_N, -1, token_N)[:, None]
        return token_N, stopped_N, jax.lax.dynamic_update_slice(tokens_NT, kept_N1, (0, place))

    def running(carry):
        place, _, stopped_N, _, _ = carry
        return (place < config.length) & ~stopped_N.all()

    def extend(carry):
        place, token_N, stopped_N, tokens_NT, cache = carry
        hidden_NLD, cache = network.decode(params, token_N[:, None], cache)
        return place + 1, *draw(place, hidden_NLD[:, -1], stopped_N, tokens_NT), cache

    hidden_NLD, cache = network.decode(params, prompt_NL, network.empty_cache(n_samples))
    tokens_NT = jnp.full((n_samples, config.length), -1)
    first = draw(jnp.int32(0), hidden_NLD[:, -1], jnp.zeros(n_samples, bool), tokens_NT)
    return jax.lax.while_loop(running, extend, (jnp.int32(1), *first, cache))[3]


def stop_ids(stop: str | None, tokenizer: Tokenizer) -> list[int]:
    """The ids that end a sample by a setting of SampleConfig. UserError where the tokenizer has
    none of them."""
    end = [] if tokenizer.end is None else [tokenizer.end]
    if stop is None or stop == "none":
        return end if stop is None else []
    if stop == "document":
        found = end
    else:
        found = [i for i in range(tokenizer.vocab_size) if "\n" in tokenizer.decode([i])]
    if not found:
        raise UserError(
            f"--stop={stop}: the tokenizer ({tokenizer.mode}) has no such token; "
            "give --stop=none and cut the text"
        )
    return found


def continuation(tokenizer: Tokenizer, prompt: str, ids: list[int]) -> str:
    """What `ids` add to a prompt, with the space that stands between the two where the prompt ended
    a word and does not show it."""
    before = tokenizer.encode(prompt)
    text, whole = tokenizer.decode(before), tokenizer.decode([*before, *ids])
    if not ids or not whole.startswith(text):
        return tokenizer.decode(ids)
    ended = prompt[-1:].isspace() or whole == text
    return ("" if ended else text[len(text.rstrip()) :]) + whole.removeprefix(text)


def generate(
    model: PlacedModel,
    prompt: list[int],
    config: SampleConfig,
    n_text: int,
    stop_ids: Sequence[int] = (),
) -> np.ndarray:
    """New token ids [num_samples, length] that continue `prompt`; a sample that draws one of
    `stop_ids` is -1 from there on.

    `n_text` is the number of text ids, tokenizer.vocab_size. Raises UserError for an empty prompt
    and where prompt and new tokens together are longer than the context.
    """
    room = model.config.n_ctx - len(prompt)
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
    memory.check_sampling(model.config, config.num_samples)
    prompt_NL = jnp.tile(jnp.asarray(prompt, jnp.int32)[None], (config.num_samples, 1))
    stop_V = np.zeros(n_text, bool)
    stop_V[list(stop_ids)] = True
    key = jax.random.key(config.seed)
    # What is no part of the compiled loop is left out of what it is compiled for.
    config = replace(config, seed=0, stop=None, num_samples=1)
    tokens_NT = _generate(model.network, model.params, prompt_NL, config, stop_V, key)
    return np.asarray(tokens_NT)
