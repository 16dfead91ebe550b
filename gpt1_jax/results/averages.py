"""Averages over tasks, as the paper takes them."""

import decimal
from collections.abc import Iterable, Mapping
from decimal import Decimal

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
