"""The metrics of the paper's tables: accuracy, F1, Matthews, Pearson, Spearman (section 4.2), and
the averages over tasks.

Each metric takes labels [N] and predictions [N] and returns a number between -1 and 1, larger is
better. Averages are taken in decimal: a table rounds 74.65 to 74.7, whatever the nearest binary
number is. Libraries are imported where they are used, so that a run that needs none does not wait
for them.
"""

import decimal
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

import numpy as np


def accuracy(labels, predictions) -> float:
    """The fraction of predictions that equal their label."""
    return float(np.mean(np.asarray(labels) == np.asarray(predictions)))


def f1(labels, predictions) -> float:
    """F1 of the positive class, label 1 of 0 and 1, as in GLUE; 0 where nothing is positive."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, pos_label=1, average="binary", zero_division=0.0))


def matthews(labels, predictions) -> float:
    """Matthews correlation of two sequences of classes; 0 where either is constant."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


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

GLUE: dict[str, tuple[str, ...]] = {
    "cola": ("matthews",),
    "sst2": ("accuracy",),
    "mrpc": ("f1", "accuracy"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("f1", "accuracy"),
    "mnli": ("matched", "mismatched"),
    "qnli": ("accuracy",),
    "rte": ("accuracy",),
    "wnli": ("accuracy",),
}
"""The tasks of the GLUE score with what is averaged in each; of MNLI, accuracy on two sets."""


def mean(values: Iterable[float | Decimal]) -> Decimal:
    """The mean, exact for numbers as they are printed: 82.1 and 81.4 -> 81.75."""
    numbers = [value if isinstance(value, Decimal) else Decimal(str(value)) for value in values]
    return sum(numbers, Decimal(0)) / len(numbers)


def percent(value: float | Decimal) -> float:
    """A fraction in per cent, exact for numbers as they are printed: 0.5775 -> 57.75."""
    return float(100 * mean([value]))


def rounded(value: float | Decimal, digits: int = 1) -> Decimal:
    """`value` with so many digits after the point, halves away from zero, as tables are rounded:
    74.65 -> 74.7."""
    number = value if isinstance(value, Decimal) else Decimal(str(value))
    return number.quantize(Decimal(1).scaleb(-digits), rounding=decimal.ROUND_HALF_UP)


def glue_score(cells: Mapping[str, Mapping[str, float]]) -> Decimal:
    """The GLUE score as its server computes it: the mean of nine tasks, WNLI among them, where a
    task with two metrics counts as their mean and MNLI as the mean of its two test sets.

    Args:
      cells: the values by task and metric (see GLUE), all in the same unit.

    Raises:
      ValueError: a task or a metric is missing.
    """
    missing = [
        f"{task} {metric}"
        for task, metrics in GLUE.items()
        for metric in metrics
        if metric not in cells.get(task, {})
    ]
    if missing:
        raise ValueError(f"the GLUE score needs all nine tasks; missing: {', '.join(missing)}")
    return mean(mean(cells[task][metric] for metric in metrics) for task, metrics in GLUE.items())
