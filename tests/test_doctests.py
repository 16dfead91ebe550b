"""The examples in docstrings give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import gpt1_jax

NAMES = [module.name for module in pkgutil.walk_packages(gpt1_jax.__path__, "gpt1_jax.")]
# The first has a model of the reader's, and the page about using models has the same calls, tested;
# the second a tokenizer of its test's.
ELSEWHERE = {"gpt1_jax.inference.trained_model", "gpt1_jax.data.transformations"}


def found(name: str) -> list[doctest.DocTest]:
    tests = doctest.DocTestFinder().find(importlib.import_module(name))
    return [test for test in tests if test.examples]


def test_there_are_examples():
    assert sum(bool(found(name)) for name in NAMES if not name.endswith("__main__")) >= 5


@pytest.mark.parametrize("name", sorted({*NAMES} - ELSEWHERE))
def test_examples_give_what_they_say(name):
    for test in found(name):
        assert doctest.DocTestRunner().run(test).failed == 0, test.name
