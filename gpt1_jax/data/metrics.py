"""The metrics of the paper's tables: accuracy, F1, Matthews, Pearson, Spearman (section 4.2).

Each metric takes labels [N] and predictions [N] and returns a number between -1 and 1, larger is
better. Those of classes also take `weights` [N], how often each pair is met. Libraries are
imported where they are used, so that a run that needs none does not wait for them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def accuracy(labels, predictions, weights=None) -> float:
    """The fraction of predictions that equal their label."""
    return float(np.average(np.asarray(labels) == np.asarray(predictions), weights=weights))


def f1(labels, predictions, weights=None) -> float:
    """F1 of the positive class, label 1 of 0 and 1, as in GLUE; 0 where nothing is positive."""
    from sklearn.metrics import f1_score

    nothing: Any = 0.0  # scikit-learn says that only words are allowed, and takes numbers
    found = f1_score(labels, predictions, zero_division=nothing, sample_weight=weights)
    return float(found)


def matthews(labels, predictions, weights=None) -> float:
    """Matthews correlation of two sequences of classes; 0 where either is constant."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions, sample_weight=weights))


def pearson(labels, predictions) -> float:
    """Linear correlation of labels and predictions; 0 where either is constant."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels, predictions) -> float:
    """Rank correlation of labels and predictions; 0 where either is constant."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable, labels, predictions) -> float:
    labels, predictions = np.asarray(labels, np.float64), np.asarray(predictions, np.float64)
    # The quotient is 0 / 0 for a constant: such predictions tell nothing, which is what 0 says.
    # A model at its initialisation predicts a constant but for rounding, hence no exact comparison.
    if any(np.ptp(values) <= 1e-12 * np.abs(values).max() for values in (labels, predictions)):
        return 0.0
    return float(function(labels, predictions).statistic)


METRICS: dict[str, Callable[..., float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
