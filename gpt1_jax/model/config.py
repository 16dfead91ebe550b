"""The sizes and variants of the model."""

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax.typing import DTypeLike

from gpt1_jax.errors import UserError

Body = Literal["transformer", "lstm"]
Preset = Literal["paper", "released"]
EmbeddingDropout = Literal["activation", "table"]
SoftmaxRows = Literal["tokens", "all"]
Dtype = Literal["float32", "bfloat16", "float16"]

# What is meant where the keys of these names are None. The released code, train.py of
# openai/finetune-transformer-lm, has tokens, specials and positions in one table.
PRESETS: dict[Preset, dict[str, str]] = {
    "paper": {"embd_dropout_on": "activation", "softmax_rows": "tokens"},
    "released": {"embd_dropout_on": "table", "softmax_rows": "all"},
}

# Indices are int32; and each layer is traced by itself.
MOST = 2**31 - 1
MOST_LAYERS = 10_000

DTYPES: dict[Dtype, DTypeLike] = {
    "float32": jnp.float32,
    "bfloat16": jnp.bfloat16,
    "float16": jnp.float16,
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and numerics of the model. The defaults are the paper's; rates left at None follow
    `dropout`. `n_special` counts the rows start, delimiter, classify that fine-tuning adds to the
    token table, `n_padding` rows of no token behind them, which are in the softmax alone. `body` is
    the Transformer or, for the paper's ablation, an LSTM of `n_units` with the keys from `n_units`
    on (lstm.py), which has no heads.

    `preset`, "paper" or "released", decides two keys that are left at None. `embd_dropout_on`:
    embedding dropout falls on the "activation", the sum of token and position, or on the "table",
    once a step. `softmax_rows`: the language model's softmax runs over "tokens" and specials, or
    over "all", positions included; of these over the first `softmax_positions`, which at None are
    n_ctx, or in fine-tuning as many as the task's longest sequence has tokens.

    `scan_layers`, `remat` and `loss_chunks` trade time for memory: the blocks as one compiled loop,
    each block computed again in the backward pass, and the language model's scores made for that
    part of the tokens at a time.

    Raises UserError for numbers outside their range, and for settings that do not fit together."""

    preset: Preset = "paper"
    body: Body = "transformer"
    vocab_size: int = 40478
    n_special: int = 0
    n_padding: int = 0
    n_ctx: int = 512
    n_embd: int = 768
    n_head: int = 12
    n_layer: int = 12
    dropout: float = 0.1
    embd_dropout: float | None = None
    attn_dropout: float | None = None
    resid_dropout: float | None = None
    clf_dropout: float | None = None
    embd_dropout_on: EmbeddingDropout | None = None
    softmax_rows: SoftmaxRows | None = None
    softmax_positions: int | None = None
    init_std: float = 0.02
    layer_norm_epsilon: float = 1e-5
    dtype: Dtype = "float32"
    scan_layers: bool = False
    remat: bool = False
    loss_chunks: int = 1
    n_units: int = 2048
    forget_bias: float = 1.0
    tied_output: bool = True

    def __post_init__(self):
        if self.body == "transformer" and not self.tied_output:
            raise UserError("model.tied_output=False is for model.body=lstm; GPT-1 ties its output")
        if self.body == "lstm" and self.scan_layers:
            raise UserError("model.scan_layers is for model.body=transformer; leave it out")
        if self.body == "transformer" and (self.n_head < 1 or self.n_embd % self.n_head):
            raise UserError(
                f"model.n_embd {self.n_embd} is not divisible by model.n_head {self.n_head}"
            )
        for name in ("vocab_size", "n_ctx", "n_embd", "n_layer", "n_units"):
            most = MOST_LAYERS if name == "n_layer" else MOST
            if not 1 <= getattr(self, name) <= most:
                raise UserError(f"model.{name} is {getattr(self, name)}; expected 1 to {most}")
        if not 0 <= self.n_padding <= MOST:
            raise UserError(f"model.n_padding is {self.n_padding}; expected 0 to {MOST}")
        if not 1 <= self.loss_chunks <= self.n_ctx:
            raise UserError(
                f"model.loss_chunks is {self.loss_chunks}; expected 1 to model.n_ctx {self.n_ctx}"
            )
        for name, least in (("init_std", 0.0), ("layer_norm_epsilon", 1e-30)):
            if not least <= getattr(self, name) <= 1e3:
                raise UserError(
                    f"model.{name} is {getattr(self, name)}; expected {least:g} to 1000"
                )
        self._check_preset()
        for place in ("embd", "attn", "resid", "clf"):
            if not 0.0 <= self.rate(place) < 1.0:
                raise UserError(f"a dropout rate is {self.rate(place)}; expected 0 <= rate < 1")

    def rate(self, place: str) -> float:
        """The dropout rate at `embd`, `attn`, `resid` or `clf`."""
        own = getattr(self, f"{place}_dropout")
        return self.dropout if own is None else own

    def _check_preset(self):
        for name, default in PRESETS["paper"].items():
            if self.body == "lstm" and self.choice(name) != default:
                raise UserError(
                    f"model.{name} is {self.choice(name)!r}, which is for model.body=transformer: "
                    "an LSTM has no positions to share a table with; leave it and model.preset out"
                )
        if self.softmax_positions is None:
            return
        if self.choice("softmax_rows") == "tokens":
            raise UserError(
                "model.softmax_positions is read with model.softmax_rows=all alone; leave it out"
            )
        if not 1 <= self.softmax_positions <= self.n_ctx:
            raise UserError(
                f"model.softmax_positions is {self.softmax_positions}; expected 1 to "
                f"model.n_ctx {self.n_ctx}"
            )

    def choice(self, name: str) -> str:
        """`embd_dropout_on` or `softmax_rows`, by default that of the preset."""
        own = getattr(self, name)
        return PRESETS[self.preset][name] if own is None else own

    @property
    def n_rows(self) -> int:
        """Rows of the token table."""
        return self.vocab_size + self.n_special + self.n_padding

    @property
    def n_parameters(self) -> int:
        """Of the body, without a head."""
        if self.body == "lstm":
            gates = 4 * self.n_units * (self.n_embd + self.n_units + 1)
            layer = gates + (self.n_units + 1) * self.n_embd
            output = 0 if self.tied_output else self.n_rows * self.n_embd
            return self.n_layer * layer + self.n_rows * self.n_embd + output
        layer = 12 * self.n_embd**2 + 13 * self.n_embd
        return self.n_layer * layer + (self.n_rows + self.n_ctx) * self.n_embd

    @property
    def n_scored_positions(self) -> int:
        """Position rows among those that the softmax runs over."""
        if self.choice("softmax_rows") == "tokens":
            return 0
        return self.n_ctx if self.softmax_positions is None else self.softmax_positions

    @property
    def compute_dtype(self) -> DTypeLike:
        return DTYPES[self.dtype]

    def flops_per_token(self, length: int) -> int:
        """Matrix-product FLOPs of forward and backward per token, counting full L x L attention."""
        output = (self.n_rows + self.n_scored_positions) * self.n_embd
        if self.body == "lstm":
            layer = 4 * self.n_units * (self.n_embd + self.n_units) + self.n_units * self.n_embd
            return 6 * (self.n_layer * layer + output)
        weights = 12 * self.n_layer * self.n_embd**2 + output
        return 6 * weights + 12 * self.n_layer * self.n_embd * length
