"""Baselines on tasks whose answer is known."""

import numpy as np
import pytest

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.data.tasks import Example, Task
from gpt1_jax.evaluation.baselines import baselines, chance


def loaded(shape, rows, metric="accuracy", labels=(0, 1)):
    examples = [Example(texts, choices, label, line) for line, (texts, choices, label) in rows]
    return LoadedTask(Task("own", shape, metric), labels, {"train": examples, "dev": examples})


def numbered(rows):
    return list(enumerate(rows, 1))


def test_words_that_tell_the_class_are_found():
    rows = [(("good film",), (), 1), (("bad film",), (), 0), (("a film",), (), 0)] * 8
    found = baselines(loaded("classification", numbered(rows)))
    assert found == {"chance": 0.5, "majority": pytest.approx(2 / 3), "bag_of_words": 1.0}


def test_pairs_of_neighbours_know_what_words_alone_do_not():
    rows = [((text,), (), label) for text, label in (("dog bites man", 0), ("man bites dog", 1))]
    found = baselines(loaded("classification", numbered(rows * 8)), pairs=True)
    assert found["bag_of_words"] == 0.5
    assert found["word_pairs"] == 1.0


def test_a_pair_whose_label_is_an_interaction_stays_at_chance():
    pairs = [("a", "a", 1), ("a", "b", 0), ("b", "b", 1), ("b", "a", 0)]
    # The words meet through a translation, so that counting shared words says nothing.
    other = {"a": "x", "b": "y"}
    rows = [((first, other[second]), (), label) for first, second, label in pairs] * 8
    assert baselines(loaded("entailment", numbered(rows)))["bag_of_words"] <= 0.75


def test_shared_words_of_a_pair_are_seen():
    rows = [((f"word{i}", f"word{i + (i % 2)}"), (), 1 - i % 2) for i in range(40)]
    found = baselines(loaded("similarity", numbered(rows)))
    assert found["bag_of_words"] == 1.0


def test_the_same_words_in_another_order_are_a_tie():
    orders = ("the mean of values", "mean the values of")
    rows = [(("return", ""), orders[:: 1 - 2 * label], label) for label in (0, 0, 1)] * 8
    found = baselines(loaded("multiple_choice", numbered(rows)))
    assert found == {
        "chance": 0.5,
        "majority": pytest.approx(2 / 3),
        "bag_of_words": pytest.approx(2 / 3),
    }


def test_a_choice_that_repeats_its_context_is_found_wherever_it_stands():
    rows = [
        ((f"topic{i}", ""), tuple(f"topic{i + (place != i % 3)}" for place in range(3)), i % 3)
        for i in range(30)
    ]
    found = baselines(loaded("multiple_choice", numbered(rows)))
    assert found["chance"] == pytest.approx(1 / 3)
    assert found["bag_of_words"] == 1.0


def test_the_metric_is_the_task_s():
    rows = [(("good",), (), 1), (("bad",), (), 0), (("bad",), (), 0)] * 8
    found = baselines(loaded("classification", numbered(rows), metric="matthews"))
    assert found["majority"] == 0.0
    assert found["bag_of_words"] == 1.0


def test_scores_are_predicted_by_ridge_regression_and_a_constant_is_no_correlation():
    rows = [((f"topic{i % 6}", "other"), (), i % 6 / 1.25) for i in range(48)]
    found = baselines(loaded("similarity", numbered(rows), metric="pearson", labels=()))
    assert found["majority"] == found["chance"] == 0.0
    # Word i tells score i, so a linear rule orders them; the penalty only pulls them together.
    assert found["bag_of_words"] == pytest.approx(1.0)


def test_a_hypothesis_that_gives_its_label_away_is_found_without_the_premise():
    rows = [((f"premise{i % 4}", "nobody" if i % 2 else "somebody"), (), i % 2) for i in range(40)]
    assert baselines(loaded("entailment", numbered(rows)))["hypothesis_only"] == 1.0
    turned = [((hypothesis, premise), (), label) for (premise, hypothesis), _, label in rows]
    blind = [
        ((first, f"same{i % 5}"), (), label) for i, ((first, _), _, label) in enumerate(turned)
    ]
    found = baselines(loaded("entailment", numbered(blind)))
    assert found["bag_of_words"] == 1.0
    assert found["hypothesis_only"] < 0.7


def test_only_an_entailment_has_a_hypothesis():
    rows = [((f"a{i % 2}", "b"), (), i % 2) for i in range(8)]
    assert "hypothesis_only" not in baselines(loaded("similarity", numbered(rows)))


@pytest.mark.parametrize("metric", ["accuracy", "f1", "matthews"])
def test_chance_is_what_guesses_score(metric):
    draw = np.random.default_rng(0)
    labels = (draw.random(100_000) < 0.7).astype(int)
    guesses = draw.integers(0, 2, labels.size)
    assert METRICS[metric](labels, guesses) == pytest.approx(
        chance(metric, list(labels), 2), abs=0.01
    )


def test_the_majority_of_f1_is_the_positive_class_where_that_is_commoner():
    rows = [(("a",), (), label) for label in (1, 1, 0)] * 8
    found = baselines(loaded("classification", numbered(rows), metric="f1"))
    assert found["majority"] == pytest.approx(2 * (2 / 3) / (1 + 2 / 3))
    assert found["chance"] == pytest.approx(4 / 7)
