"""The zero-shot probes put to a network: log-probabilities of the options, thresholds, scores."""

from collections.abc import Sequence

import numpy as np

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.evaluation.evaluate import model_losses, power_of_two
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.probes import PROBES, Encoded, Pair, Question

# The shortest length that sequences are padded to; the others are its doubles, and n_ctx.
SHORTEST = 16


def mean_log_probabilities(model: PlacedModel, pairs: Sequence[Pair]) -> np.ndarray:
    """For each (context, continuation) of ids, the mean log-probability in nats [N] of the
    continuation's tokens given what stands before them. Pairs fit into n_ctx, see `fitted`.

    Where the context is empty nothing predicts the first token, and the mean is over the others;
    where none is left, which may be an empty choice or a text of one token, it is -inf.

        context [7, 8], continuation [9, 5]:   inputs 7 8 9   targets 8 9 5   scored - 9 5

    Sequences go through the model in the order of their length, a batch at a time, padded to a few
    lengths so that little of it is padding and few programs are compiled.
    """
    lengths_N = np.array([len(context) + len(rest) - 1 for context, rest in pairs])
    scored_N = np.array([len(rest) - (not context) for context, rest in pairs])
    means_N = np.full(len(pairs), -np.inf)
    order = [i for i in np.argsort(lengths_N, kind="stable") if scored_N[i] > 0]
    for first in range(0, len(order), model.batch_size):
        chosen = order[first : first + model.batch_size]
        longest = max(SHORTEST, power_of_two(int(lengths_N[chosen[-1]])))
        length = min(longest, model.config.n_ctx)
        inputs_NL = np.zeros((model.batch_size, length), np.int32)
        targets_NL, counted_NL = np.zeros_like(inputs_NL), np.zeros(inputs_NL.shape)
        for row, index in enumerate(chosen):
            ids, last = [*pairs[index][0], *pairs[index][1]], lengths_N[index]
            inputs_NL[row, :last], targets_NL[row, :last] = ids[:-1], ids[1:]
            counted_NL[row, last - scored_N[index] : last] = 1.0
        losses_NL = model_losses(model, inputs_NL, targets_NL)
        totals_N = (losses_NL.astype(np.float64) * counted_NL).sum(axis=1)
        means_N[chosen] = -totals_N[: len(chosen)] / scored_N[chosen]
    return means_N


def best_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The score [E] from which on an example is called class 1, such that the Matthews correlation
    with `labels` [E] (0 or 1) is highest; the lowest such score."""
    thresholds, where = np.unique(scores, return_inverse=True)
    # Of the examples at or above each threshold: how many there are, and are of class 1.
    called = np.cumsum(np.bincount(where)[::-1])[::-1].astype(np.float64)
    hits = np.cumsum(np.bincount(where, weights=labels)[::-1])[::-1]
    total, positive = float(len(labels)), float(np.sum(labels))
    product = called * (total - called) * positive * (total - positive)
    matthews = (total * hits - called * positive) / np.sqrt(np.where(product > 0, product, np.inf))
    # Equal ones may differ in their last digits.
    return float(thresholds[matthews.round(9).argmax()])


def measure(questions: Sequence[Question], model: PlacedModel) -> list[dict]:
    """Puts the questions to a model. For each: probe, task, metric, value (a fraction), relative
    (0 at random, 1 at the best known), n, how many of these were cut, `commonest`, which part of
    them has the answer that most have; the anchors in percent."""

    def scores(encoded: Encoded) -> np.ndarray:
        means = mean_log_probabilities(model, encoded.pairs)
        return means.reshape(len(encoded.labels), -1)

    rows = []
    for question in questions:
        probe, scores_EC = PROBES[question.probe], scores(question.dev)
        if probe.tuned:
            threshold = best_threshold(scores(question.train)[:, 0], question.train.labels)
            answers_E = (scores_EC[:, 0] >= threshold).astype(int)
        else:
            answers_E = scores_EC.argmax(axis=1)
        value = METRICS[probe.metric](question.dev.labels, answers_E)
        random, best = question.anchors["random"], question.anchors["best"]
        rows.append(
            {
                "probe": question.probe,
                "task": question.task,
                "metric": probe.metric,
                "value": value,
                "relative": (100 * value - random) / (best - random),
                "n": len(answers_E),
                "cut": question.dev.cut,
                "commonest": float(np.bincount(answers_E).max() / len(answers_E)),
                "anchors": question.anchors,
            }
        )
    return rows


def metrics(rows: Sequence[dict]) -> dict[str, float]:
    """The rows of `measure` as a row of metrics: the value of each probe by its name, and beside it
    NAME_relative."""
    values = {}
    for row in rows:
        values |= {row["probe"]: row["value"], f"{row['probe']}_relative": row["relative"]}
    return values
