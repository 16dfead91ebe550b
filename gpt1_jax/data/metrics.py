"""The metrics of the paper's tables: accuracy, F1, Matthews, Pearson, Spearman (section 4.2).

Each metric takes labels [N] and predictions [N] and returns a number between -1 and 1, larger is
better. A correlation with labels that are all the same, as that of one row is, is 0 / 0 whatever is
predicted: undefined, which is None here and null in JSON. Metrics of classes also take `weights`
[N], how often each pair is met. Libraries are imported where they are used, so that a run that
needs none does not wait for them.
"""

from collections.abc import Callable, Mapping
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


def matthews(labels, predictions, weights=None) -> float | None:
    """Matthews correlation of two sequences of classes; 0 where the predictions are constant, None
    where the labels are."""
    from sklearn.metrics import matthews_corrcoef

    if _constant(labels):
        return None
    return float(matthews_corrcoef(labels, predictions, sample_weight=weights))


def pearson(labels, predictions) -> float | None:
    """Linear correlation of labels and predictions; 0 where the predictions are constant, None
    where the labels are."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, labels, predictions)


def spearman(labels, predictions) -> float | None:
    """Rank correlation of labels and predictions; 0 where the predictions are constant, None where
    the labels are."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, predictions)


def _correlation(function: Callable, labels, predictions) -> float | None:
    if _constant(labels):
        return None
    # Of constant predictions the quotient is 0 / 0, too: they tell nothing, which is what 0 says.
    if _constant(predictions):
        return 0.0
    return float(function(np.asarray(labels, float), np.asarray(predictions, float)).statistic)


def _constant(values) -> bool:
    """Whether all are the same; a model at its initialisation predicts a constant but for
    rounding."""
    values = np.asarray(values, np.float64)
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def undefined(found: Mapping[str, float | None], count: int) -> tuple[str, ...]:
    """A line about those of the metrics of `count` rows that are undefined; none if all are."""
    names = " and ".join(name for name, value in found.items() if value is None)
    why = "there is one label" if count == 1 else f"the {count:,} labels are all the same"
    return (f"{names} undefined: {why}",) if names else ()


METRICS: dict[str, Callable[..., float | None]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}
