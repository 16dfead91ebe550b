"""How text is sampled."""

from dataclasses import dataclass
from typing import Annotated, Literal

from gpt1_jax.errors import UserError
from gpt1_jax.flags import Flag
from gpt1_jax.typed_values import require_seed

DEFAULT_LENGTH = 64
Stop = Literal["newline", "document", "none"]


@dataclass(frozen=True)
class SampleConfig:
    """`length` new tokens for each of `num_samples`; None gives DEFAULT_LENGTH, or what fits the
    context. Temperature 0 takes the likeliest token; `top_k` 0 and `top_p` 1 leave the distribution
    whole. A sample may end before: in front of a line end with `stop` "newline", at the end token
    with "document"; None is "document" where the tokenizer has such a token, else "none".

    Raises UserError for a number outside its range.
    """

    length: Annotated[int | None, Flag(f"new tokens; default: {DEFAULT_LENGTH}, or what fits")] = (
        None
    )
    temperature: Annotated[float, Flag("0 takes the likeliest token")] = 1.0
    top_k: Annotated[int, Flag("draw from the likeliest k tokens; default: 0, from all")] = 0
    top_p: Annotated[float, Flag("draw from the likeliest that have this share")] = 1.0
    num_samples: Annotated[int, Flag()] = 1
    seed: Annotated[int, Flag()] = 0
    stop: Annotated[Stop | None, Flag("default: document if the tokenizer has an end token")] = None

    def __post_init__(self):
        if (self.length is not None and self.length < 1) or self.num_samples < 1:
            raise UserError("--length and --num_samples must be at least 1")
        require_seed(self.seed, "--seed")
        if not 0 <= self.temperature < float("inf") or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                "expected --temperature >= 0, --top_k >= 0 and 0 < --top_p <= 1, got "
                f"{self.temperature}, {self.top_k}, {self.top_p}"
            )
