"""The metrics against values worked out by hand, and where their quotients are 0 / 0."""

import numpy as np
import pytest

from gpt1_jax.evaluation.scores import METRICS

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
