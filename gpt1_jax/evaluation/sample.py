"""Text from a model: one compiled loop with a cache of keys and values.

Shapes: N samples, L tokens of the prompt, T new tokens, V ids of text, K candidates of a draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.evaluate import power_of_two
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample_config import DEFAULT_LENGTH, SampleConfig
from gpt1_jax.model.dropout import row_keys
from gpt1_jax.model.objective import Network
from gpt1_jax.tokenization.tokenizer import Tokenizer

# Prompts are padded to a power of two, but to no less than this.
_SHORTEST = 16
# Places of the cache come in blocks of this many.
_PLACES = 128
# Neighbouring logits that are looked at as one on a GPU.
_STRETCH = 32


@dataclass(frozen=True)
class _Form:
    """What the loop is compiled for: `places` for prompt and new tokens, and how a token is drawn,
    but for the numbers that may change without another compilation."""

    places: int
    greedy: bool
    top_k: int
    nucleus: bool


def restrict(
    logits_NV: jax.Array, top_k: int, top_p: jax.Array | float | None
) -> tuple[jax.Array, jax.Array]:
    """The candidates of each row, likeliest first, as ids [N, K] and their logits, -inf of those
    that `top_p` excludes: it keeps the fewest whose probabilities reach it. `top_k` 0 and `top_p`
    None leave all in."""
    n_candidates = min(top_k, logits_NV.shape[-1]) or logits_NV.shape[-1]
    if top_p is None and n_candidates == logits_NV.shape[-1]:
        return jnp.broadcast_to(jnp.arange(n_candidates), logits_NV.shape), logits_NV
    logits_NK, ids_NK = _top_k(logits_NV, n_candidates)
    if top_p is not None:
        probabilities_NK = jax.nn.softmax(logits_NK, axis=-1)
        # Those whose forerunners do not reach it.
        before_NK = jnp.cumsum(probabilities_NK, axis=-1) - probabilities_NK
        logits_NK = jnp.where(before_NK < top_p, logits_NK, -jnp.inf)
    return ids_NK, logits_NK


def _top_k(x_NV: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """jax.lax.top_k. A GPU sorts all of a row for it; there, only the k stretches with the largest
    maxima are sorted, since no other holds one of the k largest. Equals keep their order."""

    def direct(x_NV):
        values, ids = jax.lax.top_k(x_NV, k)
        return values, ids

    def by_stretches(x_NV):
        missing = -x_NV.shape[1] % _STRETCH
        x_NV = jnp.pad(x_NV, ((0, 0), (0, missing)), constant_values=-jnp.inf)
        stretches_NSE = x_NV.reshape(len(x_NV), -1, _STRETCH)
        _, chosen_NK = jax.lax.top_k(stretches_NSE.max(-1), k)
        chosen_NK = jnp.sort(chosen_NK, axis=1)
        left_NKE = jnp.take_along_axis(stretches_NSE, chosen_NK[..., None], axis=1)
        ids_NKE = chosen_NK[..., None] * _STRETCH + jnp.arange(_STRETCH)[None, None]
        found_NK, where_NK = jax.lax.top_k(left_NKE.reshape(len(x_NV), -1), k)
        ids_NC = ids_NKE.reshape(len(x_NV), -1)
        return found_NK, jnp.take_along_axis(ids_NC, where_NK, axis=1)

    # Otherwise there would be little left out.
    if 4 * k * _STRETCH > x_NV.shape[1]:
        return direct(x_NV)
    return jax.lax.platform_dependent(x_NV, cuda=by_stretches, default=direct)


@jax.jit(static_argnums=(0, 1))
def _generate(
    network: Network, form: _Form, params, prompt_L, n_prompt, keys_N, rows_N, stop_V, numbers
):
    """New tokens [N, places], -1 from a token of `stop_V` on. Ids that are no text (start,
    delimiter, classify, positions) come after those of `stop_V`, and are never drawn.

    `prompt_L` has `n_prompt` ids and padding. A row that is False in `rows_N` is padding. `numbers`
    are the length, the temperature and top_p.
    """
    length, temperature, top_p = numbers
    # Once, not at each token. Vectors stay: norms and biases take part in float32 arithmetic.
    dtype = network.body.config.compute_dtype
    params = jax.tree.map(lambda leaf: leaf.astype(dtype) if leaf.ndim > 1 else leaf, params)

    def draw(place, hidden_ND, stopped_N, tokens_NT):
        """The token at a place, who has stopped by then, and the tokens with it."""
        logits_NV = network.logits(params, hidden_ND[:, None])[:, 0, : len(stop_V)]
        logits_NV = logits_NV.astype(jnp.float32)
        if form.greedy:
            token_N = jnp.argmax(logits_NV, axis=-1).astype(jnp.int32)
        else:
            nucleus = top_p if form.nucleus else None
            ids_NK, logits_NK = restrict(logits_NV / temperature, form.top_k, nucleus)
            here_N = jax.vmap(jax.random.fold_in, (0, None))(keys_N, place)
            drawn_N = jax.vmap(jax.random.categorical)(here_N, logits_NK)
            token_N = jnp.take_along_axis(ids_NK, drawn_N[:, None], axis=1)[:, 0]
        stopped_N = stopped_N | stop_V[token_N]
        kept_N1 = jnp.where(stopped_N, -1, token_N)[:, None]
        return token_N, stopped_N, jax.lax.dynamic_update_slice(tokens_NT, kept_N1, (0, place))

    def running(carry):
        place, _, stopped_N, _, _ = carry
        return (place < length) & ~stopped_N.all()

    def extend(carry):
        place, token_N, stopped_N, tokens_NT, cache = carry
        hidden_NLD, cache = network.decode(params, token_N[:, None], cache, 1)
        return place + 1, *draw(place, hidden_NLD[:, -1], stopped_N, tokens_NT), cache

    # The prompt is read once, for all samples.
    empty = network.empty_cache(1, form.places)
    hidden_1LD, cache = network.decode(params, prompt_L[None], empty, n_prompt)
    cache, last_ND = jax.tree.map(
        lambda leaf: jnp.repeat(leaf, len(rows_N), axis=0) if leaf.ndim else leaf,
        (cache, hidden_1LD[:, n_prompt - 1]),
    )
    tokens_NT = jnp.full((len(rows_N), form.places), -1)
    first = draw(jnp.int32(0), last_ND, ~rows_N, tokens_NT)
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
    length = config.length or min(DEFAULT_LENGTH, room)
    n_samples = power_of_two(config.num_samples)
    # A prompt of another length, or another number of samples, seldom asks for a new compilation.
    padded = min(max(power_of_two(len(prompt)), _SHORTEST), model.config.n_ctx)
    places = min(-(-max(len(prompt) + length, padded) // _PLACES) * _PLACES, model.config.n_ctx)
    # Float32 may have no quotient by less, and long before the likeliest token is all that is left.
    form = _Form(places, config.temperature < 1e-20, config.top_k, config.top_p < 1)
    prompt_L = np.zeros(padded, np.int32)
    prompt_L[: len(prompt)] = prompt
    stop_V = np.zeros(n_text, bool)
    stop_V[list(stop_ids)] = True
    tokens_NT = _generate(
        model.network,
        form,
        model.params,
        prompt_L,
        np.int32(len(prompt)),
        row_keys(jax.random.key(config.seed), jnp.arange(n_samples)),
        np.arange(n_samples) < config.num_samples,
        stop_V,
        (np.int32(length), np.float32(config.temperature), np.float32(config.top_p)),
    )
    return np.asarray(tokens_NT)[: config.num_samples, :length]
