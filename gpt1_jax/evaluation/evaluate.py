"""Held-out loss and task scores of given parameters.

Shapes: N sequences, L tokens, B examples, C candidates, k outputs.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from gpt1_jax.data.labels import expected_score
from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.data.tasks import Task
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.model.objective import Network, packing_of, task_losses, unpacked

# Updates between evaluations of a language model where eval.every does not say.
DEFAULT_INTERVAL = 1000
# The updates of the first epoch after which the released code evaluates a task, besides its end.
EARLY_UPDATES = (1000, 2000, 4000, 8000, 16000, 32000)


@dataclass(frozen=True)
class EvaluationConfig:
    """When and how to evaluate. `every` updates; None means every DEFAULT_INTERVAL updates for a
    language model, and for a task what the released code does: after each epoch, and within the
    first also after EARLY_UPDATES. The end of training is always evaluated.

    With `train_examples` a task is evaluated on so many of the first training examples as well; the
    released code takes as many as there are validation examples.

    The held-out stream is read in windows of n_ctx that start `stride` tokens apart (None: n_ctx,
    so without overlap), and at most `windows` of them while training (None: all).
    """

    every: int | None = None
    stride: int | None = None
    windows: int | None = None
    batch_size: int = 64
    train_examples: int | None = None

    def __post_init__(self):
        for name in ("every", "stride", "windows", "batch_size", "train_examples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"eval.{name} is {value}; expected at least 1")

    def due(self, step: int, steps_per_epoch: int | None) -> bool:
        """Whether to evaluate after update `step`, which is not the last, of a task whose epochs
        have `steps_per_epoch` updates, or of a language model (None)."""
        if self.every is not None or steps_per_epoch is None:
            return step % (self.every or DEFAULT_INTERVAL) == 0
        early = step < steps_per_epoch and step in EARLY_UPDATES
        return early or step % steps_per_epoch == 0


# Compiled once per network and shape, whoever asks.
@jax.jit(static_argnums=0)
def sequence_losses(network: Network, params: dict, inputs_NL, targets_NL) -> jax.Array:
    """Losses [N, L], in nats, of each target, the token that follows the input at its place."""
    return network.token_losses(params, network.hidden(params, inputs_NL), targets_NL)


@jax.jit(static_argnums=0)
def task_logits(network: Network, params: dict, batch: dict) -> jax.Array:
    """Logits of a batch of examples: [B, k], or [B, C] for multiple choice."""
    tokens_NL = batch["tokens"].reshape(-1, batch["tokens"].shape[-1])
    packed = packing_of(batch)
    hidden = network.hidden(params, tokens_NL, packing=packed)
    return network.answer(params, unpacked(hidden, packed), batch["extract"])


def window_starts(n_tokens: int, n_ctx: int, stride: int) -> list[tuple[int, int]]:
    """(start, first target) of each window: inputs [start, start + n_ctx), targets one later.

    Windows start `stride` apart. Every token but the first of the stream is a target exactly once,
    in the first window that reaches it, so a shorter stride gives each more context.

        >>> window_starts(n_tokens=10, n_ctx=4, stride=4)
        [(0, 1), (4, 5), (8, 9)]
        >>> window_starts(n_tokens=10, n_ctx=4, stride=2)
        [(0, 1), (2, 5), (4, 7), (6, 9)]
    """
    starts, target = [], 1
    for start in range(0, n_tokens, stride):
        if target >= n_tokens:
            break
        starts.append((start, target))
        target = start + n_ctx + 1
    return starts


def window_count(n_tokens: int, n_ctx: int, stride: int | None) -> int:
    """How many windows a stream is read in.

    >>> window_count(n_tokens=10, n_ctx=4, stride=None)
    3
    """
    return len(window_starts(n_tokens, n_ctx, stride or n_ctx))


def stream_losses(
    model: PlacedModel,
    read: Callable[[int, int], np.ndarray],
    n_tokens: int,
    stride: int | None = None,
    windows: int | None = None,
) -> tuple[float, int]:
    """Sum of the losses in nats, and their number, over a stream of tokens.

    `read(start, stop)` gives ids; `stride` lies between windows, by default n_ctx; `windows` caps
    how many are read.
    """
    n_ctx = model.config.n_ctx
    stride = n_ctx if stride is None else stride
    if stride > n_ctx:
        raise UserError(f"eval.stride {stride} is longer than model.n_ctx {n_ctx}")
    starts = window_starts(n_tokens, n_ctx, stride)[:windows]
    read_windows = (
        (read(start, min(start + n_ctx + 1, n_tokens)), target - start) for start, target in starts
    )
    total, count = 0.0, 0
    for losses in window_losses(model, read_windows):
        total += losses.sum(dtype=np.float64)
        count += len(losses)
    return float(total), count


def window_losses(
    model: PlacedModel, windows: Iterable[tuple[np.ndarray, int]], fit: bool = False
) -> Iterator[np.ndarray]:
    """For each window (ids, first), the losses in nats of ids[first:], each given all before it.

    A window has up to n_ctx + 1 ids, as the last one is predicted only. Batches are [batch_size,
    n_ctx], all of one compiled shape; with `fit`, of the powers of two that hold what there is.

        ids [7 8 9 5], first 2:   inputs 7 8 9   targets 8 9 5   losses of 9 5
    """
    n_ctx = model.config.n_ctx
    windows = iter(windows)
    while chosen := list(itertools.islice(windows, model.batch_size)):
        n_rows, length = model.batch_size, n_ctx
        if fit:
            n_rows = min(model.batch_size, power_of_two(len(chosen)))
            length = min(n_ctx, power_of_two(max(len(ids) for ids, _ in chosen) - 1))
        inputs_NL = np.zeros((n_rows, length), np.int32)
        targets_NL = np.zeros_like(inputs_NL)
        for row, (ids, _) in enumerate(chosen):
            inputs_NL[row, : len(ids) - 1], targets_NL[row, : len(ids) - 1] = ids[:-1], ids[1:]
        losses_NL = model_losses(model, inputs_NL, targets_NL)
        for row, (ids, first) in enumerate(chosen):
            yield losses_NL[row, first - 1 : len(ids) - 1]


def model_losses(model: PlacedModel, inputs_NL: np.ndarray, targets_NL: np.ndarray) -> np.ndarray:
    """`sequence_losses` of arrays that are on this host, and back to it."""
    inputs, targets = model.put(inputs_NL), model.put(targets_NL)
    return fetched(sequence_losses(model.network, model.params, inputs, targets))


def power_of_two(least: int) -> int:
    """The smallest that is not below `least`: few shapes are compiled, for lengths of all sorts."""
    return 1 << (least - 1).bit_length()


def fetched(array: jax.Array) -> np.ndarray:
    """The whole array on this host, whichever processes hold its parts."""
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def perplexity_metrics(
    total: float, count: int, n_tokens: int, split_info: Mapping[str, Any]
) -> dict:
    """loss (nats per token) and perplexity; bits per byte and perplexity per word, which can be
    compared between tokenisers.

    `total` nats over `count` tokens, of a stream of `n_tokens` (separators included) that stands
    for the `bytes` and `words` of `split_info`.
    """
    loss = total / count
    metrics = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    # All of the stream's nats, also where only some of its windows were read.
    nats = loss * n_tokens
    metrics["bits_per_byte"] = nats / math.log(2) / split_info["bytes"]
    # A tail of nothing but line ends has no words.
    if split_info["words"]:
        metrics["perplexity_per_word"] = math.exp(min(nats / split_info["words"], 700.0))
    return metrics


def answer_all(model: PlacedModel, batches: Iterable[dict], count: int) -> np.ndarray:
    """Logits of `count` examples, [count, k] or [count, C], from batches whose tail is padding."""
    logits = [
        fetched(task_logits(model.network, model.params, model.put_batch(batch)))
        for batch in batches
    ]
    return np.concatenate(logits)[:count].astype(np.float64)


def predictions(task: Task, logits: np.ndarray) -> np.ndarray:
    """Scores [B] of a regression, else the likeliest class or choice [B], from [B, k] or [B, C]."""
    if not task.regression:
        return logits.argmax(axis=-1)
    return logits[:, 0] if task.score_loss == "mse" else expected_score(softmax(logits))


def probabilities(task: Task, logits: np.ndarray) -> np.ndarray | None:
    """Of the classes, the choices or the whole scores, as many as there are logits; None where the
    output is the score itself."""
    return None if task.score_loss == "mse" else softmax(logits)


def task_metrics(loaded: LoadedTask, split: str, logits: np.ndarray) -> dict[str, float | None]:
    """The loss and the task's metrics of a split, from the logits of its examples, or of the first
    of them; None for one that is undefined."""
    labels = [example.label for example in loaded.splits[split][: len(logits)]]
    losses = task_losses(jnp.asarray(logits), jnp.asarray(loaded.targets(split)[: len(logits)]))
    predicted = predictions(loaded.task, logits)
    found: dict[str, float | None] = {"loss": float(np.mean(losses))}
    return found | {name: METRICS[name](labels, predicted) for name in loaded.task.metrics}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis, in float64."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)
