"""GPT-1, the decoder-only transformer of Radford et al. 2018, section 4.1.

What differs from today's habit: the norm comes after each residual sum, there is none at the end,
GELU is the tanh form, positions are learned, and the output is tied to the input.

Shapes: N sequences, L tokens, D width, H heads, K size of one head, R rows of the shared table
(tokens, specials, positions, in this order), V of them that the softmax runs over.
"""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from gpt1_jax.kernels import pieces
from gpt1_jax.model.attention import Divide, Implementation, attention, undivided
from gpt1_jax.model.cached_attention import cached_attention
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import dropout
from gpt1_jax.model.linear import Linear
from gpt1_jax.model.mlp import MLP
from gpt1_jax.model.packing import Packing
from gpt1_jax.model.residual_norm import ResidualNorm


@flax.struct.dataclass
class Cache:
    """Keys and values of the tokens so far, one array [N, H, M, K] per layer, where M is the number
    of places for tokens; `length` of them are taken."""

    key: tuple[jax.Array, ...]
    value: tuple[jax.Array, ...]
    length: jax.Array


def drop_table(config: ModelConfig, params: dict, key: jax.Array) -> dict:
    """`params` after the dropout of the shared table; themselves where it falls on activations.

    The parameters are the place to do it: what is dropped there is dropped alike in each lookup
    and in the output. The mask follows from `key`, that of the step, and from no row of the batch.
    Hence the parts of an accumulated update and the devices all have the same one, and the update
    is that of the whole batch; a mask for each part would make `optimizer.accumulation` change the
    result. (On several GPUs the released code draws one for each, since each builds the graph.)
    """
    rate = config.rate("embd")
    if config.choice("embd_dropout_on") == "activation" or rate == 0.0:
        return params
    tokens, positions = params["wte"]["embedding"], params["wpe"]["embedding"]
    table_RD = jnp.concatenate([tokens, positions])
    dropped_RD = dropout(table_RD[None], key[None], rate, 0, "embedding")[0]
    tokens, positions = jnp.split(dropped_RD, [config.n_rows])
    return {**params, "wte": {"embedding": tokens}, "wpe": {"embedding": positions}}


class Table(nn.Module):
    """Embeddings, float32 [`n_rows`, D]."""

    config: ModelConfig
    n_rows: int

    def setup(self):
        init = nn.initializers.normal(self.config.init_std)
        self.embedding = self.param("embedding", init, (self.n_rows, self.config.n_embd))

    def __call__(self, rows: jax.Array) -> jax.Array:
        """The embeddings of `rows`, in the dtype of the model.

        They are rounded after the lookup: the gradient of a row is a sum over all its places, which
        for a frequent token are thousands, and is then one in float32.
        """
        return jnp.take(self.embedding, rows, axis=0).astype(self.config.compute_dtype)


class Attention(nn.Module):
    """Multi-head causal self-attention with one fused projection to q, k, v."""

    config: ModelConfig
    implementation: Implementation
    divide: Divide

    def setup(self):
        width, decodes = self.config.n_embd, self._decodes
        self.c_attn = Linear(self.config, width, 3 * width, decodes=decodes)
        self.c_proj = Linear(self.config, width, width, decodes=decodes)

    @property
    def _decodes(self):
        return self.implementation == "triton" and self.divide is undivided

    def __call__(self, x_NLD, keys_N, layer, cache=None, offset=0, packing=None):
        """Returns [N, L, D], without the bias of c_proj, which is added with the residual, and the
        cache, if there is one, with the new keys and values. Packed tokens are [T, 1, D]."""
        config = self.config
        if cache is not None:
            qkv = self.c_attn.decode(x_NLD)
            merged_NLHK, cache = cached_attention(qkv, config.n_head, cache, offset, self._decodes)
            return self.c_proj.decode(merged_NLHK.reshape(x_NLD.shape), add_bias=False), cache
        qkv = self.c_attn(x_NLD)
        merged_NLHK = attention(
            qkv if packing is None else packing.unpack(qkv[:, 0]),
            config.n_head,
            implementation=self.implementation,
            divide=self.divide,
            keys_N=keys_N,
            rate=config.rate("attn"),
            layer=layer,
            n_ctx=config.n_ctx,
        )
        if packing is not None:
            merged_NLHK = packing.pack(merged_NLHK)
        return self.c_proj.without_bias(merged_NLHK.reshape(x_NLD.shape)), cache


class Block(nn.Module):
    """Attention and MLP, with dropout of what each of them adds. A norm follows each sum, and the
    second residual is the normed value."""

    config: ModelConfig
    implementation: Implementation
    divide: Divide

    def setup(self):
        self.attn = Attention(self.config, self.implementation, self.divide)
        kernel = self.implementation == "triton" and pieces.suits(self.config.n_embd)
        self.ln_1 = ResidualNorm(self.config, "attention_output", kernel, self.divide)
        self.mlp = MLP(self.config, kernel, self.divide)
        self.ln_2 = ResidualNorm(self.config, "mlp_output", kernel, self.divide)

    def __call__(self, x_NLD, keys_N, layer, cache=None, offset=0, packing=None):
        where = (keys_N, layer, packing)
        attended_NLD, cache = self.attn(x_NLD, keys_N, layer, cache, offset, packing)
        normed_NLD = self.ln_1(x_NLD, attended_NLD, self.attn.c_proj.bias, *where)
        mlp = self.mlp if cache is None else self.mlp.decode
        inner_NLD = mlp(normed_NLD)
        return self.ln_2(normed_NLD, inner_NLD, self.mlp.c_proj.bias, *where), cache


class GPT(nn.Module):
    """The body and the tied output. Parameters are wte, wpe, h_0 ... in float32, whatever the dtype
    of the computation, and have these names whether layers are unrolled or scanned."""

    config: ModelConfig
    implementation: Implementation = "plain"
    divide: Divide = undivided

    def setup(self):
        config = self.config
        self.wte = Table(config, config.n_rows)
        self.wpe = Table(config, config.n_ctx)
        block = nn.remat(Block) if config.remat else Block
        for layer in range(config.n_layer):
            setattr(self, f"h_{layer}", block(config, self.implementation, self.divide))

    def __call__(
        self,
        tokens_NL: jax.Array,
        keys_N: jax.Array | None = None,
        packing: Packing | None = None,
    ) -> jax.Array:
        """Hidden states [N, L, D] of the last block, with `packing` those of the packed tokens
        [T, 1, D]; with dropout where `keys_N` are given; that of the table is `drop_table`'s."""
        x_NLD = self._embed(tokens_NL, keys_N, 0, packing)
        if self.config.scan_layers and not self.is_initializing():
            return self._scanned(x_NLD, keys_N, packing)
        for layer in range(self.config.n_layer):
            block = getattr(self, f"h_{layer}")
            x_NLD, _ = block(x_NLD, keys_N, layer, packing=packing)
        return x_NLD

    def output(self) -> jax.Array:
        """What the hidden states are multiplied with to score the next token: rows [V, D] of the
        tokens, the specials and, with softmax_rows=all, of positions; no bias."""
        table_VD = self.wte.embedding
        if self.config.n_scored_positions:
            positions = self.wpe.embedding[: self.config.n_scored_positions]
            table_VD = jnp.concatenate([table_VD, positions])
        return table_VD.astype(self.config.compute_dtype)

    @nn.nowrap
    def empty_cache(self, n_sequences: int, n_tokens: int) -> Cache:
        """A cache for `n_sequences` of up to `n_tokens` each."""
        config = self.config
        shape = (n_sequences, config.n_head, n_tokens, config.n_embd // config.n_head)

        def zeros():
            return tuple(jnp.zeros(shape, config.compute_dtype) for _ in range(config.n_layer))

        # Keys and values in arrays of their own: one buffer cannot be donated twice.
        return Cache(key=zeros(), value=zeros(), length=jnp.int32(0))

    def decode(
        self, tokens_NL: jax.Array, cache: Cache, n_tokens: jax.Array | int
    ) -> tuple[jax.Array, Cache]:
        """Hidden states [N, L, D] of tokens that follow the cache, and the longer cache. Only the
        first `n_tokens` count: others are padding, and what follows takes their place."""
        x_NLD = self._embed(tokens_NL, None, cache.length)
        keys, values = [], []
        for layer in range(self.config.n_layer):
            block = getattr(self, f"h_{layer}")
            past = (cache.key[layer], cache.value[layer])
            x_NLD, (key, value) = block(x_NLD, None, layer, past, cache.length)
            keys.append(key)
            values.append(value)
        length = cache.length + n_tokens
        return x_NLD, Cache(key=tuple(keys), value=tuple(values), length=length)

    def _embed(self, tokens_NL, keys_N, offset, packing=None):
        if packing is None:
            positions = (offset + jnp.arange(tokens_NL.shape[1]))[None]
        else:
            tokens_NL, positions = packing.pack(tokens_NL)[:, None], packing.positions_T[:, None]
        x_NLD = self.wte(tokens_NL) + self.wpe(positions)
        if self.config.choice("embd_dropout_on") == "table":
            return x_NLD
        return dropout(x_NLD, keys_N, self.config.rate("embd"), 0, "embedding", packing)

    def _scanned(self, x_NLD, keys_N, packing):
        """The blocks as one compiled body; parameters are stacked here, so trees never change."""
        layers = [self.variables["params"][f"h_{i}"] for i in range(self.config.n_layer)]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
        block = Block(self.config, self.implementation, self.divide, parent=None)

        def body(x_NLD, scanned):
            params, layer = scanned
            applied = block.apply({"params": params}, x_NLD, keys_N, layer, packing=packing)
            return applied[0], None

        body = jax.checkpoint(body, prevent_cse=False) if self.config.remat else body
        return jax.lax.scan(body, x_NLD, (stacked, jnp.arange(self.config.n_layer)))[0]
