"""The metrics against values worked out by hand, and where their quotients are 0 / 0."""

from decimal import Decimal

import numpy as np
import pytest

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.results.averages import GLUE, glue_score, mean, percent, rounded

# 3 true positives, 1 false positive, 2 false negatives, 2 true negatives.
LABELS = np.array([1, 1, 1, 0, 1, 1, 0, 0])
PREDICTIONS = np.array([1, 1, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("accuracy", 5 / 8),
        ("f1", 2 * 3 / (2 * 3 + 1 + 2)),
        ("matthews", (3 * 2 - 1 * 2) / np.sqrt(4 * 5 * 3 * 4)),
    ],
)
def test_classes(metric, value):
    assert METRICS[metric](LABELS, PREDICTIONS) == pytest.approx(value, abs=1e-12)


def test_f1_counts_label_one_as_positive():
    assert METRICS["f1"](1 - LABELS, 1 - PREDICTIONS) == pytest.approx(2 * 2 / (2 * 2 + 1 + 2))


def test_correlations():
    labels = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    predictions = np.array([0.0, 1.0, 2.0, 3.0, 14.0])
    assert METRICS["spearman"](labels, predictions) == pytest.approx(1.0)
    assert METRICS["pearson"](labels, predictions) == pytest.approx(30 / np.sqrt(10 * 130))
    assert METRICS["pearson"](labels, -predictions) == pytest.approx(-30 / np.sqrt(10 * 130))


@pytest.mark.parametrize("metric", ["pearson", "spearman", "matthews"])
@pytest.mark.parametrize("predictions", [np.ones(8), np.zeros(8)])
def test_constant_predictions_score_nothing(metric, predictions):
    assert METRICS[metric](LABELS, predictions.astype(int)) == 0.0


@pytest.mark.parametrize("metric", ["pearson", "spearman", "matthews"])
@pytest.mark.parametrize("labels", [[1], [0, 0, 0], [1] * 8])
def test_constant_labels_have_no_correlation_whatever_is_predicted(metric, labels):
    for predictions in (np.arange(len(labels)) % 2, np.array(labels)):
        assert METRICS[metric](labels, predictions) is None


def test_rounding_is_no_correlation():
    labels = np.linspace(0.0, 5.0, 8)
    assert METRICS["pearson"](labels, 2.5 + 1e-15 * np.arange(8)) == 0.0


def test_nothing_positive_is_no_f1():
    assert METRICS["f1"](np.zeros(4, int), np.zeros(4, int)) == 0.0
    assert METRICS["f1"](LABELS, np.zeros(8, int)) == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_perfect_predictions_score_one(metric):
    score = METRICS[metric](LABELS, LABELS)
    assert isinstance(score, float)
    assert score == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(74.65, "74.7"), (81.75, "81.8"), (0.25, "0.3"), (-0.25, "-0.3"), (60, "60.0")],
)
def test_halves_are_rounded_away_from_zero_in_decimal(value, shown):
    assert str(rounded(value)) == shown


def test_a_mean_is_exact():
    # In binary, 0.1 + 0.2 + 0.3 is more than 0.6.
    assert mean([0.1, 0.2, 0.3]) == Decimal("0.2")


def test_a_fraction_in_per_cent_is_exact():
    assert percent(0.5775) == 57.75
    assert percent(0.55) == 55.0


def ones() -> dict:
    return {task: dict.fromkeys(metrics, 1.0) for task, metrics in GLUE.items()}


def test_each_of_the_nine_tasks_counts_a_ninth_and_its_metrics_share_it():
    assert glue_score(ones()) == 1
    for task, metrics in GLUE.items():
        for metric in metrics:
            cells = ones()
            cells[task][metric] = 0.0
            assert glue_score(cells) == pytest.approx(Decimal(1) - 1 / Decimal(9 * len(metrics)))


def test_the_glue_score_needs_all_nine():
    cells = ones()
    del cells["wnli"], cells["stsb"]["spearman"]
    with pytest.raises(ValueError, match="missing: stsb spearman, wnli accuracy"):
        glue_score(cells)
