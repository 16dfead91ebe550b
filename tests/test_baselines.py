"""Baselines on tasks whose answer is known."""

import pytest

from gpt1_jax.data.tasks import Example, LoadedTask, Task
from gpt1_jax.evaluation.baselines import baselines


def loaded(shape, rows, metric="accuracy", labels=(0, 1)):
    examples = [Example(texts, choices, label, line) for line, (texts, choices, label) in rows]
    return LoadedTask(Task("own", shape, metric), labels, {"train": examples, "dev": examples})


def numbered(rows):
    return list(enumerate(rows, 1))


def test_words_that_tell_the_class_are_found():
    rows = [(("good film",), (), 1), (("bad film",), (), 0), (("a film",), (), 0)] * 8
    found = baselines(loaded("classification", numbered(rows)))
    assert found == {"chance": 0.5, "majority": pytest.approx(2 / 3), "bag_of_words": 1.0}


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


def test_a_regression_has_none():
    rows = numbered([(("a", "b"), (), 2.5)])
    with pytest.raises(ValueError, match="regression"):
        baselines(loaded("similarity", rows, metric="pearson", labels=()))
