"""The log-probability of each token of a text, by the convention of `evaluate`.

Shapes: L tokens of a document.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.evaluate import window_losses, window_starts
from gpt1_jax.evaluation.placed_model import PlacedModel

# Windows at a time. At the paper's sizes the scores of one over all tokens take 83 MB.
BATCH = 8


def checked_stride(stride: int | None, n_ctx: int) -> int:
    """The stride, by default n_ctx. UserError unless it is 1 to n_ctx."""
    if stride is not None and not 1 <= stride <= n_ctx:
        raise UserError(f"--stride={stride}; expected 1 to {n_ctx}, the model's context")
    return n_ctx if stride is None else stride


def log_probabilities(
    model: PlacedModel, documents: Iterable[np.ndarray], stride: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each document of ids, the ids and float32 [L]: the log-probability in nats of each token
    given those before it in its window (see evaluate.window_starts); NaN for the first token.

    Documents are read as they are needed: at most one of them, or BATCH short ones, is held.
    """
    n_ctx, model = model.config.n_ctx, replace(model, batch_size=BATCH)
    for group in _groups(documents, n_ctx, stride):
        windows = (
            (ids[start : start + n_ctx + 1], target - start)
            for ids, starts in group
            for start, target in starts
        )
        losses = window_losses(model, windows, fit=True)
        for ids, starts in group:
            logprobs_L = np.full(len(ids), np.nan, np.float32)
            for _, target in starts:
                loss = next(losses)
                logprobs_L[target : target + len(loss)] = -loss
            yield ids, logprobs_L


def _groups(
    documents: Iterable[np.ndarray], n_ctx: int, stride: int
) -> Iterator[list[tuple[np.ndarray, list[tuple[int, int]]]]]:
    """Documents with their windows, as many as fill a batch."""
    group, n_windows = [], 0
    for ids in documents:
        starts = window_starts(len(ids), n_ctx, stride)
        group.append((ids, starts))
        n_windows += len(starts)
        if n_windows >= BATCH or len(group) >= BATCH:
            yield group
            group, n_windows = [], 0
    if group:
        yield group


def summary(logprobs_L: np.ndarray) -> dict:
    """mean_logprob and perplexity; None where there is nothing but a first token."""
    return mean_and_perplexity(float(logprobs_L[1:].sum(dtype=np.float64)), len(logprobs_L) - 1)


def mean_and_perplexity(total: float, count: int) -> dict:
    """{"mean_logprob", "perplexity"} of `count` log-probabilities that add up to `total` nats."""
    if count == 0:
        return {"mean_logprob": None, "perplexity": None}
    return {"mean_logprob": total / count, "perplexity": math.exp(min(-total / count, 700.0))}
