"""The LSTM that the paper sets beside the Transformer (Radford et al. 2018, section 5, table 5).

The paper says that it is one layer of 2048 units in the same framework: the same pre-training,
input transformations and auxiliary objective, hence the same call as GPT. What it does not say is a
key of the config: the embedding width (`n_embd`), the width between the layer and the output
(`n_embd` again, by a projection), `tied_output`, `forget_bias`, and the learning rate.

Shapes: N sequences, L tokens, D width, U units, V rows of the token table.
"""

from functools import partial

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import dropout
from gpt1_jax.model.gpt import Table
from gpt1_jax.model.linear import Linear, by_rows, product_gradients


@flax.struct.dataclass
class State:
    """Where the layers stand after the tokens so far: output and cell, each [N, U] per layer."""

    output: tuple[jax.Array, ...]
    cell: tuple[jax.Array, ...]
    length: jax.Array


class Layer(nn.Module):
    """One LSTM layer and the projection of its output to the width of the embeddings.

    The four gates lie along an axis of their own, in the order input, forget, cell, output, so that
    the units can be divided over devices.
    """

    config: ModelConfig

    @nn.compact
    def __call__(self, x_NLD, keys_N, layer, state=None, n_tokens=None):
        """Returns [N, L, D] and the state after the last token, or after the first `n_tokens`."""
        config = self.config
        dtype, units = config.compute_dtype, config.n_units
        init = nn.initializers.normal(config.init_std)
        width = x_NLD.shape[-1]
        input_kernel = self.param("input_kernel", init, (width, 4, units))
        recurrent_kernel = self.param("recurrent_kernel", init, (units, 4, units))
        # One axis, as every bias has it: what has two is decayed by the optimiser.
        bias = self.param("bias", _forgetting(config.forget_bias), (4 * units,))
        # What the tokens add to the gates is one product over all of them; the loop keeps only what
        # must wait for the step before.
        gates_NL4U = by_rows(lambda x: jnp.tensordot(x, input_kernel.astype(dtype), 1), x_NLD)
        gates_NL4U = gates_NL4U + bias.astype(dtype).reshape(1, 1, 4, units)
        gates_LN4U = jnp.moveaxis(gates_NL4U, 1, 0)
        recurrent_kernel = recurrent_kernel.astype(dtype)
        state = state or _zeros(config, x_NLD.shape[0])
        if n_tokens is None:
            state, outputs_LNU = recurrence(gates_LN4U, recurrent_kernel, state)
        else:
            state, outputs_LNU = steps(gates_LN4U, recurrent_kernel, state, n_tokens)
        out_NLD = Linear(config, units, width, name="proj")(jnp.moveaxis(outputs_LNU, 0, 1))
        return dropout(out_NLD, keys_N, config.rate("resid"), layer, "mlp_output"), state


def steps(gates_LN4U, kernel_U4U, state, n_tokens=None):
    """The state after the last token, or after the first `n_tokens`, and the outputs [L, N, U].

    gates [L, N, 4, U] are what the tokens add to the gates, kernel [U, 4, U] what the output before
    is multiplied with, and a state is an output and a cell, [N, U] each."""
    dtype = kernel_U4U.dtype

    def step(carry, token):
        place, gates_N4U = token
        output_NU, cell_NU = carry
        gates_N4U = gates_N4U + jnp.tensordot(output_NU, kernel_U4U, 1)
        # The cell adds up over the whole sequence: float32, whatever the dtype of the products.
        enter, forget, new, leave = jnp.moveaxis(gates_N4U.astype(jnp.float32), 1, 0)
        cell_NU = nn.sigmoid(forget) * cell_NU + nn.sigmoid(enter) * jnp.tanh(new)
        output_NU = (nn.sigmoid(leave) * jnp.tanh(cell_NU)).astype(dtype)
        after = (output_NU, cell_NU)
        if n_tokens is not None:
            after = jax.tree.map(partial(jnp.where, place < n_tokens), after, carry)
        return after, output_NU

    return jax.lax.scan(step, state, (jnp.arange(len(gates_LN4U)), gates_LN4U))


@jax.custom_vjp
def recurrence(gates_LN4U, kernel_U4U, state):
    """`steps` over all tokens. The gradient of the kernel is one product over all of them; that of
    the loop itself would be a sum that grows step by step, in the dtype of the kernel."""
    return steps(gates_LN4U, kernel_U4U, state)


def _forward(gates_LN4U, kernel_U4U, state):
    def of_gates(gates_LN4U, state):
        return steps(gates_LN4U, kernel_U4U, state)

    (after, outputs_LNU), back = jax.vjp(of_gates, gates_LN4U, state)
    before_LNU = jnp.concatenate([state[0][None], outputs_LNU[:-1]])
    return (after, outputs_LNU), (back, before_LNU, kernel_U4U)


def _backward(saved, gradients):
    back, before_LNU, kernel_U4U = saved
    by_gates_LN4U, by_state = back(gradients)
    rows_TU = before_LNU.reshape(-1, before_LNU.shape[-1])
    by_gates_T4U = by_gates_LN4U.reshape(-1, *by_gates_LN4U.shape[2:])
    by_kernel_4UU = [
        product_gradients(0, (rows_TU, kernel_U4U[:, gate]), by_gates_T4U[:, gate])[1]
        for gate in range(by_gates_T4U.shape[1])
    ]
    return by_gates_LN4U, jnp.stack(by_kernel_4UU, axis=1), by_state


recurrence.defvjp(_forward, _backward)


def _forgetting(forget_bias: float):
    """Zeros, but `forget_bias` for the forget gate."""

    def init(key, shape, dtype=jnp.float32):
        return jnp.zeros((4, shape[0] // 4), dtype).at[1].set(forget_bias).reshape(shape)

    return init


def _zeros(config: ModelConfig, n_sequences: int) -> tuple[jax.Array, jax.Array]:
    shape = (n_sequences, config.n_units)
    return jnp.zeros(shape, config.compute_dtype), jnp.zeros(shape, jnp.float32)


class LSTM(nn.Module):
    """The body and its output. Parameters are wte, h_0 ... and, untied, lm_head; order is in the
    recurrence, so there are no positions."""

    config: ModelConfig

    def setup(self):
        config = self.config
        self.wte = Table(config, config.n_rows)
        layer = nn.remat(Layer) if config.remat else Layer
        for index in range(config.n_layer):
            setattr(self, f"h_{index}", layer(config))
        if not config.tied_output:
            self.lm_head = Linear(config, config.n_embd, config.n_rows, use_bias=False)

    def __call__(self, tokens_NL: jax.Array, keys_N: jax.Array | None = None) -> jax.Array:
        """Hidden states [N, L, D], with dropout where `keys_N` are given."""
        x_NLD = dropout(self.wte(tokens_NL), keys_N, self.config.rate("embd"), 0, "embedding")
        for layer in range(self.config.n_layer):
            x_NLD, _ = getattr(self, f"h_{layer}")(x_NLD, keys_N, layer)
        if self.is_initializing() and not self.config.tied_output:
            self.lm_head.without_bias(x_NLD)
        return x_NLD

    def output(self) -> jax.Array:
        """What the hidden states are multiplied with to score the next token: rows [V, D] of the
        tokens and the specials; no bias."""
        if self.config.tied_output:
            return self.wte.embedding.astype(self.config.compute_dtype)
        kernel_DV = self.variables["params"]["lm_head"]["kernel"]
        return kernel_DV.astype(self.config.compute_dtype).T

    @nn.nowrap
    def empty_cache(self, n_sequences: int, n_tokens: int) -> State:
        """The state before the first token; it has the same size for any number of tokens."""
        states = [_zeros(self.config, n_sequences) for _ in range(self.config.n_layer)]
        outputs, cells = zip(*states, strict=True)
        return State(output=outputs, cell=cells, length=jnp.int32(0))

    def decode(
        self, tokens_NL: jax.Array, cache: State, n_tokens: jax.Array | int
    ) -> tuple[jax.Array, State]:
        """Hidden states [N, L, D] of tokens that follow the cache, and the state after the first
        `n_tokens` of them; others are padding."""
        x_NLD = self.wte(tokens_NL)
        outputs, cells = [], []
        for layer in range(self.config.n_layer):
            past = (cache.output[layer], cache.cell[layer])
            x_NLD, (output, cell) = getattr(self, f"h_{layer}")(x_NLD, None, layer, past, n_tokens)
            outputs.append(output)
            cells.append(cell)
        length = cache.length + n_tokens
        return x_NLD, State(output=tuple(outputs), cell=tuple(cells), length=length)
