"""A look inside: what a model expected at each token of a text, what it attended to, and how it
might go on; as numbers, and as one self-contained page.

Shapes: L tokens of the text, V ids of text, K alternatives, n layers, H heads, N paths.
"""

import base64
import html
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from markupsafe import Markup

from gpt1_jax import disk
from gpt1_jax.evaluation.evaluate import power_of_two
from gpt1_jax.inference import activations
from gpt1_jax.inference.config import PATH_LENGTH, PathsConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe.network import described
from gpt1_jax.results.html_page import rendered

if TYPE_CHECKING:
    from gpt1_jax.inference.trained_model import TrainedModel

TEMPLATE = "inspection.html.jinja"
SCRIPT = "inspection.js"
# Alternatives that are kept for each place.
ALTERNATIVES = 10
# From so many bits on a token has the whole colour: one of 4,096 that are equally likely.
MOST_BITS = 12
# Smaller weights of attention are not in the page, where nobody would see them.
LEAST_WEIGHT = 1 / 64


class Alternative(NamedTuple):
    """A token that might stand at a place, with its probability there."""

    piece: str
    probability: float


@dataclass(frozen=True)
class Place:
    """A token and what was expected where it stands, given those before it.

    probability and rank (1: the likeliest) are None for the first, which nothing predicts.
    alternatives: the likeliest, in order; none for the first.
    """

    piece: str
    id: int
    probability: float | None
    rank: int | None
    alternatives: tuple[Alternative, ...]

    @property
    def bits(self) -> float | None:
        """The surprise: the negative logarithm of the probability to the base 2."""
        return None if self.probability is None else -math.log2(max(self.probability, 1e-38))


@dataclass(frozen=True)
class Branch:
    """A stretch of tokens that `count` sampled paths share, each with its probability, and the
    branches that they divide into after it. `ended` of them drew the end of the document there."""

    tokens: tuple[Alternative, ...]
    count: int
    ended: int
    branches: tuple["Branch", ...]


@dataclass(frozen=True, repr=False)
class Inspection:
    """What a model makes of a text.

    places: L of them. following: the likeliest tokens after the text. attention: float32
    [n, H, L, L], how much a token (third axis) takes from each (last axis); None for the LSTM.
    paths: the sampled ones from the end of the text, divided where they part; their count is 0
    where the text fills the context. In a notebook it shows itself as a page.
    """

    source: str
    description: str
    places: tuple[Place, ...]
    following: tuple[Alternative, ...]
    attention: np.ndarray | None
    paths: Branch
    sampling: PathsConfig

    @property
    def perplexity(self) -> float | None:
        """Of all tokens but the first; None if there is no other."""
        bits = [place.bits for place in self.places if place.bits is not None]
        return 2 ** min(sum(bits) / len(bits), 1000) if bits else None

    def __repr__(self) -> str:
        return f"Inspection of {len(self.places)} tokens by {self.source}"

    def page(self) -> str:
        """The page, as HTML that needs nothing from elsewhere."""
        values = {
            "inspection": self,
            "most_bits": MOST_BITS,
            "least_weight": LEAST_WEIGHT,
            "shade": _shade,
            "script": Markup(
                resources.files("gpt1_jax.inference").joinpath(SCRIPT).read_text("utf-8")
            ),
            "data": {
                "places": [
                    [place.piece, place.probability, place.rank, place.alternatives]
                    for place in self.places
                ],
                "following": self.following,
                "attention": _packed(self.attention),
            },
        }
        return rendered("inference", TEMPLATE, values, {"shown": _shown, "per_cent": per_cent})

    def save(self, path: str | Path) -> Path:
        """Writes the page. Raises UserError where no file can be."""
        path = Path(path)
        with disk.as_user_error(path):
            disk.write_bytes(disk.output_path(path), self.page().encode())
        return path

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its styles and the notebook's do not meet."""
        framed = html.escape(self.page())
        return f'<iframe title="inspection" width="100%" height="760" srcdoc="{framed}"></iframe>'


def inspect(model: "TrainedModel", text: str, sampling: PathsConfig) -> Inspection:
    """Looks at what `model` makes of `text`. UserError for a text that is empty or longer than the
    context; where it fills the context there are no paths."""
    ids = model.tokenizer.encode(text)
    # Says what does not fit, before anything is computed.
    lstm = model.model_config.body == "lstm"
    states_or_weights = activations.hidden_states if lstm else activations.attention_weights
    found = states_or_weights(model.placed, ids)
    paths, length = _drawn(model, text, len(ids), sampling)
    expected, *of_paths = _expected(model, [ids, *([*ids, *path] for path in paths if path)])
    after = iter(of_paths)
    scored = [
        _with_probabilities(model, path, next(after).next_logprob[len(ids) - 1 :]) if path else []
        for path in paths
    ]
    return Inspection(
        source=str(model.workdir),
        description=f"{described(model.model_config, model.params)}, step {model.step}",
        places=tuple(_places(model, ids, expected)),
        following=_alternatives(model, expected, len(ids) - 1),
        attention=None if lstm else found,
        paths=_branch(0, scored, length),
        sampling=sampling,
    )


class _Expected(NamedTuple):
    """At each token of a sequence: the likeliest next ids [L, K] with their log-probabilities, and
    the log-probability and the rank [L] of the next that is there."""

    ids: np.ndarray
    logprobs: np.ndarray
    next_logprob: np.ndarray
    next_rank: np.ndarray


@jax.jit(static_argnums=(0, 1, 2))
def _expectations(network: Network, n_text: int, count: int, params, tokens_NL, next_NL) -> tuple:
    logits_NLV = network.logits(params, network.hidden(params, tokens_NL)).astype(jnp.float32)
    logprobs_NLV = jax.nn.log_softmax(logits_NLV)
    next_NL1 = jnp.take_along_axis(logprobs_NLV, next_NL[..., None], axis=-1)
    text_NLV = logprobs_NLV[..., :n_text]
    best_NLK, ids_NLK = jax.lax.top_k(text_NLV, count)
    ranks_NL = 1 + (text_NLV > next_NL1).sum(-1)
    return ids_NLK, best_NLK, next_NL1[..., 0], ranks_NL


def _expected(model: "TrainedModel", sequences: list[list[int]]) -> list[_Expected]:
    """For each sequence of ids, what the model expected after each of its tokens. One after the
    other: the scores of a single one over all tokens take 83 MB at the paper's sizes."""
    placed, n_text = model.placed, model.tokenizer.vocab_size
    length = min(placed.config.n_ctx, power_of_two(max(map(len, sequences))))
    count, expected = min(ALTERNATIVES, n_text), []
    for ids in sequences:
        tokens_NL = np.zeros((1, length), np.int32)
        tokens_NL[0, : len(ids)] = ids
        next_NL = np.roll(tokens_NL, -1, axis=1)
        found = _expectations(placed.network, n_text, count, placed.params, tokens_NL, next_NL)
        expected.append(_Expected(*(np.asarray(array)[0, : len(ids)] for array in found)))
    return expected


def _alternatives(model: "TrainedModel", expected: _Expected, place: int) -> tuple:
    """The likeliest tokens after the one at `place`."""
    pieces = model.tokens(expected.ids[place].tolist())
    probabilities = np.exp(expected.logprobs[place].astype(np.float64)).tolist()
    return tuple(map(Alternative, pieces, probabilities))


def _places(model: "TrainedModel", ids: list[int], expected: _Expected) -> Iterator[Place]:
    first, *others = model.tokens(ids)
    yield Place(first, ids[0], None, None, ())
    for number, piece in enumerate(others):
        yield Place(
            piece,
            ids[number + 1],
            math.exp(expected.next_logprob[number]),
            int(expected.next_rank[number]),
            _alternatives(model, expected, number),
        )


def _drawn(
    model: "TrainedModel", text: str, n_tokens: int, sampling: PathsConfig
) -> tuple[list[list[int]], int]:
    """The ids of sampled continuations, none where the context has no room for any, and the number
    of tokens of those that no end of a document cut short."""
    room = model.model_config.n_ctx - n_tokens
    if room < 1:
        return [], 0
    length = sampling.length or min(PATH_LENGTH, room)
    return model.sample_ids(text, sampling, length=length), length


def _with_probabilities(
    model: "TrainedModel", path: list[int], logprobs: np.ndarray
) -> list[Alternative]:
    pairs = zip(model.tokens(path), logprobs, strict=False)
    return [Alternative(piece, math.exp(logprob)) for piece, logprob in pairs]


def _branch(begin: int, paths: list[list[Alternative]], length: int) -> Branch:
    """Paths that are the same up to token `begin`, with what they share from there on told once;
    of their branches those with most paths first."""
    end = begin
    while (
        paths
        and all(len(path) > end for path in paths)
        and (len({path[end].piece for path in paths}) == 1)
    ):
        end += 1
    groups: dict[str, list[list[Alternative]]] = {}
    for path in paths:
        if len(path) > end:
            groups.setdefault(path[end].piece, []).append(path)
    branches = sorted(
        (_branch(end, group, length) for group in groups.values()),
        key=lambda branch: -branch.count,
    )
    ended = sum(len(path) == end < length for path in paths)
    shared = tuple(paths[0][begin:end]) if paths else ()
    return Branch(shared, len(paths), ended, tuple(branches))


def _packed(attention: np.ndarray | None) -> dict | None:
    """Weights of at least LEAST_WEIGHT in 255ths, for each layer, head and row in order: how many
    there are (`counts`, a byte), their columns (`columns`, two bytes) and weights (a byte)."""
    if attention is None:
        return None
    n_layer, n_head, length, _ = attention.shape
    seen = attention >= LEAST_WEIGHT
    arrays = {
        "counts": seen.sum(-1).astype("u1"),
        "columns": np.nonzero(seen)[3].astype("<u2"),
        "weights": np.round(attention[seen] * 255).astype("u1"),
    }
    packed = {name: base64.b64encode(array.tobytes()).decode() for name, array in arrays.items()}
    return {"layers": n_layer, "heads": n_head, "length": length, **packed}


def _shade(probability: float | None) -> float:
    """0 for what was certain, to 1 for MOST_BITS and more; 0 also where nothing was expected."""
    if probability is None:
        return 0.0
    return min(-math.log2(max(probability, 1e-38)) / MOST_BITS, 1.0)


def _shown(piece: str) -> str:
    """A piece with its line breaks and other control characters to be seen; spaces stay."""
    return piece.replace("\r", "").replace("\n", "⏎").replace("\t", "⇥") or "∅"


def per_cent(probability: float) -> str:
    """A probability as it is read.

    >>> per_cent(0.4312), per_cent(0.0312), per_cent(0.00002)
    ('43 %', '3.1 %', '< 0.1 %')
    """
    percent = 100 * probability
    if percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %"
