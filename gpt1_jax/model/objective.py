"""Heads and losses: task + lm_coef * language model (Radford et al. 2018, section 3.2 and 3.3).

Shapes: B examples, C candidates of each, L tokens, D width, V rows that the next token's softmax
runs over, k outputs.
A batch is a dict: tokens and weights [B, C, L], rows [B]; with a task also extract [B, C], the
place of the classify token, and label, int [B], a distribution [B, k] or a score float [B]; where
its tokens are to be packed also places [T] (packing.py).
"""

from dataclasses import dataclass
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from gpt1_jax.errors import UserError
from gpt1_jax.model import cross_entropy
from gpt1_jax.model.attention import Divide, Implementation, undivided
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import dropout, row_keys, step_key
from gpt1_jax.model.gpt import GPT, drop_table
from gpt1_jax.model.linear import by_rows, cast_kernels, product
from gpt1_jax.model.lstm import LSTM
from gpt1_jax.model.packing import Packing, packing


@dataclass(frozen=True)
class ObjectiveConfig:
    """`lm_coef` weighs the language-model loss: lambda of the paper, 0.5 in fine-tuning; 1 where it
    is the only term."""

    lm_coef: float = 0.5

    def __post_init__(self):
        if not self.lm_coef >= 0:
            raise UserError(f"objective.lm_coef is {self.lm_coef}; expected 0 or more")


class Head(nn.Module):
    """Reads a task's answer off the hidden states at the classify tokens.

    With `each` candidate is read out on its own and the candidates compete (multiple choice);
    otherwise the candidates' states are added first, so their order does not matter (similarity).
    """

    config: ModelConfig
    n_outputs: int
    each: bool

    @nn.compact
    def __call__(self, states_BCD: jax.Array, keys_B: jax.Array | None = None) -> jax.Array:
        """Logits [B, C] with `each`, else [B, k]."""
        # The candidate axis is moved in front so that all candidates of an example share one mask.
        states_CBD = jnp.moveaxis(states_BCD, 1, 0)
        rate = self.config.rate("clf")
        states_CBD = jax.vmap(lambda x_BD: dropout(x_BD, keys_B, rate, 0, "classifier"))(states_CBD)
        readout = nn.Dense(
            1 if self.each else self.n_outputs,
            kernel_init=nn.initializers.normal(self.config.init_std),
            name="clf",
        )
        if self.each:
            return readout(states_CBD.astype(jnp.float32))[..., 0].T
        return readout(states_CBD.astype(jnp.float32).sum(axis=0))


@dataclass(frozen=True)
class Network:
    """A body (the Transformer or the LSTM) and, for a task, a head. The parameters form one tree:
    those of the body at the top, the head's as `clf`. `kernel` and `divide` are those of the loss
    (cross_entropy.py)."""

    body: nn.Module
    head: Head | None = None
    kernel: bool = False
    divide: Divide = undivided

    def init(self, key: jax.Array) -> dict:
        """Fresh parameters, float32."""
        body_key, head_key = jax.random.split(key)
        tokens_NL = jnp.zeros((1, 1), jnp.int32)
        params = dict(self.body.init(body_key, tokens_NL)["params"])
        if self.head is not None:
            states_BCD = jnp.zeros((1, 1, self.body.config.n_embd))
            params.update(self.head.init(head_key, states_BCD)["params"])
        return params

    def cast(self, params: dict) -> dict:
        """`params` as the products of the body take them; see `cast_kernels`. The head's stay as
        they are, in float32."""
        body = cast_kernels(_without_head(params), self.body.config.compute_dtype)
        return {**params, **body}

    def hidden(self, params: dict, tokens_NL: jax.Array, keys_N=None, packing=None) -> jax.Array:
        """Hidden states [N, L, D]; with `packing`, which the Transformer can take, [T, 1, D]."""
        variables = {"params": _without_head(params)}
        packed = {} if packing is None else {"packing": packing}
        return cast(jax.Array, self.body.apply(variables, tokens_NL, keys_N, **packed))

    def output(self, params: dict) -> jax.Array:
        """The rows [V, D] that score the next token, in the dtype of the model."""
        variables = {"params": _without_head(params)}
        return cast(jax.Array, self.body.apply(variables, method="output"))

    @jax.named_scope("logits")
    def logits(self, params: dict, hidden_NLD: jax.Array) -> jax.Array:
        """Next-token scores [N, L, V]."""
        output_VD = self.output(params)
        return by_rows(lambda rows: product(rows, output_VD, 1).astype(rows.dtype), hidden_NLD)

    def token_losses(self, params: dict, hidden_NLD: jax.Array, targets_NL) -> jax.Array:
        """Cross-entropy [N, L], in nats and float32, of the token that follows each position."""
        return cross_entropy.token_losses(hidden_NLD, self.output(params), targets_NL)

    def weighted_loss(self, params: dict, hidden_NLD: jax.Array, targets_NL, weights_NL):
        """The sum of the losses of `token_losses`, each times its weight, for training."""
        form = cross_entropy.Form(self.body.config.loss_chunks, self.kernel, self.divide)
        output_VD = self.output(params)
        return cross_entropy.weighted_sum(hidden_NLD, output_VD, targets_NL, weights_NL, form)

    def empty_cache(self, n_sequences: int, n_tokens: int):
        """What `decode` starts from, with places for `n_tokens` of each sequence."""
        return self.body.empty_cache(n_sequences, n_tokens)

    def decode(self, params: dict, tokens_NL: jax.Array, cache, n_tokens: jax.Array | int):
        """Hidden states of the tokens that follow the cache, and the cache with the first
        `n_tokens` of them; others are padding."""
        variables = {"params": _without_head(params)}
        return self.body.apply(variables, tokens_NL, cache, n_tokens, method="decode")

    def answer(self, params: dict, hidden_NLD, extract_BC, keys_B=None) -> jax.Array:
        """The task's logits, [B, k] or [B, C], from hidden states of N = B * C sequences."""
        n_examples, n_candidates = extract_BC.shape
        hidden_BCLD = hidden_NLD.reshape(n_examples, n_candidates, *hidden_NLD.shape[1:])
        states_BC1D = jnp.take_along_axis(hidden_BCLD, extract_BC[:, :, None, None], axis=2)
        variables = {"params": {"clf": params["clf"]}}
        return cast(jax.Array, self.head.apply(variables, states_BC1D[:, :, 0], keys_B))


def network(
    config: ModelConfig,
    implementation: Implementation,
    shape: str | None,
    n_outputs: int,
    divide: Divide = undivided,
) -> Network:
    """The body and, for a task's input shape, the head with `n_outputs`. `divide` is how kernels
    run on several devices. Raises UserError where JAX takes a number without a type for one of 64
    bits: all of this computes in at most 32."""
    if jax.dtypes.canonicalize_dtype("float64") == "float64":
        raise UserError(
            "JAX is set to 64 bits, and this computes in at most 32: unset JAX_ENABLE_X64, or "
            'jax.config.update("jax_enable_x64", False)'
        )
    head = Head(config, n_outputs, each=shape == "multiple_choice") if shape else None
    body = LSTM(config) if config.body == "lstm" else GPT(config, implementation, divide)
    return Network(body, head, implementation == "triton", divide)


def _without_head(params: dict) -> dict:
    return {name: leaf for name, leaf in params.items() if name != "clf"}


@jax.named_scope("loss")
def language_model_loss(
    network: Network,
    params: dict,
    hidden_NLD: jax.Array,
    tokens_NL: jax.Array,
    weights_NL: jax.Array,
    packing: Packing | None = None,
) -> jax.Array:
    """The mean over sequences of each sequence's own mean loss, as the released code has it. With
    `packing` the hidden states are those of packed tokens, [T, 1, D].

    Each position predicts the token after it; the last one takes part with weight 0, so that the
    product runs over whole sequences and nothing is copied. `model.loss_chunks` divides them.
    """
    targets_NL = jnp.roll(tokens_NL, -1, axis=1)
    shares_NL = sequence_shares(jnp.roll(weights_NL, -1, axis=1).at[:, -1].set(0.0))
    if packing is not None:
        # As one sequence: the loss takes one token as another.
        hidden_NLD = hidden_NLD.swapaxes(0, 1)
        targets_NL, shares_NL = packing.pack(targets_NL)[None], packing.pack(shares_NL)[None]
    return network.weighted_loss(params, hidden_NLD, targets_NL, shares_NL)


def sequence_shares(weights_NL: jax.Array) -> jax.Array:
    """What each token's loss counts in the mean over sequences of each sequence's own mean.

    That is not the mean over tokens: a short sequence counts as much as a long one.
    """
    weight_N1 = weights_NL.sum(axis=1, keepdims=True)
    # A sequence without a target (all padding) counts nothing rather than dividing by zero.
    return weights_NL / jnp.maximum(weight_N1, 1.0) / len(weights_NL)


@jax.named_scope("loss")
def task_losses(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy [B] against a class index [B] or a distribution [B, k]; of the only output
    [B, 1], the squared error against a score, float [B]."""
    if label.ndim == 1 and jnp.issubdtype(label.dtype, jnp.floating):
        return jnp.square(logits[:, 0].astype(jnp.float32) - label)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    if label.ndim == 1:
        return -jnp.take_along_axis(log_probabilities, label[:, None], axis=1)[:, 0]
    return -(label * log_probabilities).sum(axis=1)


def packing_of(batch: dict) -> Packing | None:
    """Where the tokens of a batch are, if it says so."""
    if "places" not in batch or not batch["places"].size:
        return None
    n_examples, n_candidates, length = batch["tokens"].shape
    return packing(batch["places"], n_examples * n_candidates, length)


def unpacked(hidden: jax.Array, packed: Packing | None) -> jax.Array:
    """Hidden states as sequences [N, L, D]."""
    return hidden if packed is None else packed.unpack(hidden[:, 0])


def loss(
    network: Network, lm_coef: float, params: dict, batch: dict, seed: int, step: jax.Array | None
) -> tuple[jax.Array, dict]:
    """The training loss of a batch, and its terms by name.

    `step` chooses the dropout masks together with `seed`; None turns dropout off.
    """
    _, n_candidates, length = batch["tokens"].shape
    tokens_NL = batch["tokens"].reshape(-1, length)
    keys_N = keys_B = None
    if step is not None:
        key = step_key(seed, step)
        candidates_BC = batch["rows"][:, None] * n_candidates + jnp.arange(
            n_candidates, dtype=jnp.uint32
        ).reshape(1, -1)
        keys_N, keys_B = row_keys(key, candidates_BC.reshape(-1)), row_keys(key, batch["rows"])
        params = drop_table(network.body.config, params, key)
    params = network.cast(params)
    packed = packing_of(batch)
    hidden = network.hidden(params, tokens_NL, keys_N, packed)
    terms: dict[str, Any] = {}
    if "label" in batch:
        logits = network.answer(params, unpacked(hidden, packed), batch["extract"], keys_B)
        terms["task_loss"] = jnp.mean(task_losses(logits, batch["label"]))
    if lm_coef > 0:
        weights_NL = batch["weights"].reshape(-1, length)
        terms["lm_loss"] = language_model_loss(
            network, params, hidden, tokens_NL, weights_NL, packed
        )
    total = terms.get("task_loss", 0.0) + lm_coef * terms.get("lm_loss", 0.0)
    return total, {"loss": total, **terms}
