"""Runs in processes of their own: how they are shared out."""

import itertools

import pytest

from gpt1_jax.experiments.ahead import divided


@pytest.mark.parametrize(
    ("sizes", "workers", "expected"),
    [
        ([3, 0, 3], 2, [3, 3]),
        ([6], 4, [2, 1, 2, 1]),
        ([1, 5], 3, [1, 3, 2]),
        ([1, 1], 5, [1, 1]),
        ([], 2, []),
    ],
)
def test_no_worker_is_idle_while_another_has_several_runs(sizes, workers, expected):
    runs = iter(range(sum(sizes)))
    groups = [[next(runs) for _ in range(size)] for size in sizes]
    found = divided(groups, workers)
    assert [len(group) for group in found] == expected
    assert list(itertools.chain(*found)) == list(range(sum(sizes)))
