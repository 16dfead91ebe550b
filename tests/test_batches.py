"""Batches as a pure function of (seed, step): windows, examples, and what drives them."""

import sys
import threading

import numpy as np
import pytest

from gpt1_jax.data.batches import DataConfig, Examples, Windows, stream
from gpt1_jax.errors import UserError


class Counting:
    """A stand-in for a corpus: token i is i."""

    def __init__(self, length: int):
        self.ids = np.arange(length, dtype=np.int32)

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start < stop <= len(self.ids)
        return self.ids[start:stop]


def windows(length=1000, n_ctx=16, batch_size=8, seed=1, mode="permuted"):
    return Windows(Counting(length), n_ctx, batch_size, seed, mode)


def examples(lengths, batch_size=4, seed=1, buckets=(8, 16, 32), n_ctx=24, n_candidates=2):
    """Example i has candidates of i, one as long as `lengths[i]` and the others of 3 tokens."""
    candidates = [
        [[place + 1] * (length if candidate == 0 else 3) for candidate in range(n_candidates)]
        for place, length in enumerate(lengths)
    ]
    return Examples(
        candidates,
        np.arange(len(lengths), dtype=np.int32),
        n_ctx=n_ctx,
        batch_size=batch_size,
        seed=seed,
        buckets=buckets,
    )


def assert_same(one: dict, other: dict) -> None:
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype
        np.testing.assert_array_equal(one[name], other[name])


# A whole number of windows, one token short of it, one over; epochs that end inside a batch.
@pytest.mark.parametrize("length", [16 * 8 * 3, 16 * 9 - 1, 16 * 9 + 1, 1000, 31, 16])
def test_an_epoch_reads_no_token_twice(length):
    source = windows(length)
    per_epoch = length // 16
    n_epochs = 5
    n_steps = -(-per_epoch * n_epochs // 8)
    read = np.concatenate([source.batch(step)["tokens"][:, 0] for step in range(n_steps)])
    assert (np.diff(read, axis=1) % length == 1).all()
    epochs = [read[epoch * per_epoch :][:per_epoch] for epoch in range(n_epochs)]
    for epoch in epochs:
        assert len(np.unique(epoch)) == per_epoch * 16
    assert source.steps_per_epoch == per_epoch / 8


def test_epochs_differ_in_offset_and_order():
    source = windows(16 * 8)
    starts = np.array([source.batch(step)["tokens"][:, 0, 0] for step in range(20)])
    offsets = starts.min(axis=1)
    assert (starts % 16 == starts[:, :1] % 16).all()
    assert set(offsets) <= set(range(16))
    assert len(set(offsets)) > 5
    assert len({tuple(np.argsort(epoch)) for epoch in starts}) == 20


def test_windows_depend_on_seed_and_step_alone():
    for mode in ("permuted", "iid"):
        first = windows(mode=mode)
        later = [first.batch(step) for step in (30, 3, 17)]
        again = [windows(mode=mode).batch(step) for step in (30, 3, 17)]
        for one, other in zip(later, again, strict=True):
            assert_same(one, other)
        other_seed = windows(mode=mode, seed=2).batch(3)
        assert (other_seed["tokens"] != later[1]["tokens"]).any()


def test_windows_of_all_versions():
    # Raw numbers of the generator are promised to stay; these are theirs.
    assert windows().batch(7)["tokens"][:, 0, 0].tolist() == [935, 887, 311, 663, 711, 903, 28, 844]
    assert windows(mode="iid").batch(7)["tokens"][:, 0, 0].tolist() == [
        130,
        957,
        357,
        248,
        659,
        10,
        934,
        22,
    ]


def test_independent_windows_reach_both_ends():
    source = windows(length=20, mode="iid")
    starts = np.concatenate([source.batch(step)["tokens"][:, 0, 0] for step in range(50)])
    assert set(starts) == {0, 1, 2, 3, 4}


def test_form_of_a_window_batch():
    batch = windows().batch(0)
    forms = {name: (array.dtype, array.shape) for name, array in batch.items()}
    assert forms == {
        "tokens": (np.int32, (8, 1, 16)),
        "weights": (np.float32, (8, 1, 16)),
        "rows": (np.uint32, (8,)),
    }
    assert (batch["weights"] == 1).all()
    assert batch["rows"].tolist() == list(range(8))


def test_window_longer_than_the_corpus():
    with pytest.raises(UserError, match=r"has 15 tokens, fewer than one window of model\.n_ctx=16"):
        windows(length=15)


@pytest.mark.parametrize("n_processes", [2, 4])
def test_processes_share_a_global_batch(n_processes):
    sources = [windows(), windows(mode="iid"), examples(range(3, 23), batch_size=8)]
    for source in sources:
        for step in range(6):
            whole = source.batch(step)
            size = source.batch_size // n_processes
            parts = [source.batch(step, slice(first, first + size)) for first in range(0, 8, size)]
            joined = {name: np.concatenate([part[name] for part in parts]) for name in whole}
            assert_same(joined, whole)


def test_a_process_reads_its_own_windows_only():
    source = windows()
    read = source.tokens.read
    starts = []
    source.tokens.read = lambda start, stop: starts.append(start) or read(start, stop)
    tokens = source.batch(0, slice(2, 4))["tokens"]
    assert starts == tokens[:, 0, 0].tolist()


def test_form_of_an_example_batch():
    candidates = [[[9, 5, 6, 7]], [[9, 5, 7]]]
    source = Examples(
        candidates, np.array([1, 0], np.int32), n_ctx=8, batch_size=2, seed=0, buckets=(5,)
    )
    batch = next(source.evaluation(2))
    assert batch["tokens"].tolist() == [[[9, 5, 6, 7, 0]], [[9, 5, 7, 0, 0]]]
    assert batch["weights"].tolist() == [[[1, 1, 1, 1, 0]], [[1, 1, 1, 0, 0]]]
    assert batch["extract"].tolist() == [[3], [2]]
    assert batch["label"].tolist() == [1, 0]
    assert batch["rows"].tolist() == [0, 1]
    dtypes = [batch[name].dtype for name in ("tokens", "weights", "extract", "label", "rows")]
    assert dtypes == [np.int32, np.float32, np.int32, np.int32, np.uint32]


def test_an_epoch_takes_each_example_once_and_drops_the_rest():
    source = examples([5] * 22)
    assert source.steps_per_epoch == 5
    epochs = [
        np.concatenate([source.batch(epoch * 5 + step)["label"] for step in range(5)])
        for epoch in range(3)
    ]
    for epoch in epochs:
        assert len(np.unique(epoch)) == 20
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({tuple(np.setdiff1d(range(22), epoch)) for epoch in epochs}) > 1


def test_labels_and_tokens_stay_together():
    source = examples(range(3, 23))
    for step in range(10):
        batch = source.batch(step)
        assert (batch["tokens"].max(axis=(1, 2)) == batch["label"] + 1).all()
        lengths = batch["weights"].sum(axis=-1)
        assert (lengths[:, 0] == batch["label"] + 3).all()
        assert (lengths - 1 == batch["extract"]).all()
        assert ((batch["tokens"] > 0) == (batch["weights"] == 1)).all()


def test_a_batch_has_the_smallest_bucket_that_holds_it():
    source = examples(range(3, 23))
    assert source.lengths == [8, 16, 24]
    for step in range(10):
        batch = source.batch(step)
        longest = int(batch["weights"].sum(axis=-1).max())
        length = batch["tokens"].shape[-1]
        assert length == min(bucket for bucket in source.lengths if bucket >= longest)


@pytest.mark.parametrize(("longest", "length"), [(7, 8), (8, 8), (9, 16), (17, 24), (24, 24)])
def test_edges_of_the_buckets(longest, length):
    assert examples([3, 3, 3, longest]).batch(0)["tokens"].shape[-1] == length


def test_padding_follows_the_global_batch():
    source = examples([3, 3, 3, 20])
    batch = source.batch(0)
    assert batch["tokens"].shape[-1] == 24
    for row, label in enumerate(batch["label"]):
        part = source.batch(0, slice(row, row + 1))
        assert part["tokens"].shape == (1, 2, 24)
        assert part["label"].tolist() == [label]


def test_buckets_change_neither_composition_nor_count():
    one, other = examples(range(3, 23)), examples(range(3, 23), buckets=())
    assert other.lengths == [24]
    for step in range(12):
        assert one.batch(step)["label"].tolist() == other.batch(step)["label"].tolist()
    assert one.steps_per_epoch == other.steps_per_epoch


def test_fewer_examples_than_a_batch():
    source = examples([5, 5, 5])
    with pytest.raises(UserError, match="has 3 examples, fewer than batch_size=4"):
        _ = source.steps_per_epoch
    with pytest.raises(UserError, match="has 3 examples"):
        source.batch(0)


@pytest.mark.parametrize("n_examples", [1, 7, 8, 9])
def test_evaluation_takes_all_in_order(n_examples):
    source = examples([5] * n_examples)
    batches = list(source.evaluation(4))
    assert len(batches) == -(-n_examples // 4)
    labels = np.concatenate([batch["label"] for batch in batches])
    weights = np.concatenate([batch["weights"] for batch in batches])
    tokens = np.concatenate([batch["tokens"] for batch in batches])
    extract = np.concatenate([batch["extract"] for batch in batches])
    assert len(labels) == 4 * len(batches)
    assert labels[:n_examples].tolist() == list(range(n_examples))
    assert (weights[:n_examples].sum(axis=-1) == [5, 3]).all()
    for padding in (labels, weights, tokens, extract):
        assert not padding[n_examples:].any()


def test_processes_share_an_evaluation():
    source = examples(range(3, 10))
    parts = [list(source.evaluation(4, slice(first, first + 2))) for first in (0, 2)]
    for whole, *halves in zip(source.evaluation(4), *parts, strict=True):
        assert_same(
            {name: np.concatenate([half[name] for half in halves]) for name in whole}, whole
        )


def test_targets_may_be_distributions_or_absent():
    candidates = [[[1, 2]]] * 3
    settings = {"n_ctx": 8, "batch_size": 2, "seed": 0, "buckets": (8,)}
    distributions = np.eye(6, dtype=np.float32)[:3]
    *_, batch = Examples(candidates, distributions, **settings).evaluation(2)
    assert batch["label"].dtype == np.float32
    assert batch["label"].tolist() == [distributions[2].tolist(), [0.0] * 6]
    assert "label" not in Examples(candidates, None, **settings).batch(0)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [None, slice(2, 4)])
@pytest.mark.parametrize("make", [windows, lambda: examples(range(3, 23))])
def test_both_drivers_yield_the_batches_of_the_source(make, rows):
    pytest.importorskip("tensorflow")
    expected = [make().batch(step, rows) for step in range(3, 20)]
    if make is not windows:  # or buckets would not be tested
        assert len({batch["tokens"].shape for batch in expected}) > 1
    for driver in ("thread", "tfdata", "auto"):
        found = list(stream(make(), 3, 20, driver, 2, rows))
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)


def test_auto_does_not_load_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert_same(next(stream(windows(), 4, 5, "auto", 2)), windows().batch(4))


@pytest.mark.parametrize("driver", ["thread", pytest.param("tfdata", marks=pytest.mark.slow)])
def test_streams_of_few_steps(driver):
    if driver == "tfdata":
        pytest.importorskip("tensorflow")
    for n_steps in range(4):
        found = list(stream(windows(), 5, 5 + n_steps, driver, 2))
        assert len(found) == n_steps


class Failing:
    """A source whose batch of step 3 cannot be made."""

    def __init__(self):
        self.asked = []

    def batch(self, step, rows=None):
        self.asked.append(step)
        if step == 3:
            raise UserError("step 3 is bad")
        return {"rows": np.array([step], np.uint32)}


@pytest.mark.parametrize("driver", ["thread", pytest.param("tfdata", marks=pytest.mark.slow)])
def test_an_error_reaches_the_consumer_at_its_step(driver):
    if driver == "tfdata":
        pytest.importorskip("tensorflow")
    batches = stream(Failing(), 0, 8, driver, 2)
    assert [int(next(batches)["rows"][0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"^step 3 is bad$"):
        next(batches)


class Stopping:
    """A source that stops in the middle of the batch of one step until it is told to go on."""

    def __init__(self, step: int):
        self.step = step
        self.asked = []
        self.reached, self.go_on = threading.Event(), threading.Event()

    def batch(self, step, rows=None):
        self.asked.append(step)
        if step == self.step:
            self.worker = threading.current_thread()
            self.reached.set()
            assert self.go_on.wait(timeout=30)
        return {"rows": np.array([step], np.uint32)}


def test_the_thread_is_ahead_by_prefetch():
    source = Stopping(7)
    batches = stream(source, 4, 1000, "thread", 3)
    next(batches)
    assert source.reached.wait(timeout=30)
    source.go_on.set()
    batches.close()
    source.worker.join(timeout=30)
    assert source.asked == [4, 5, 6, 7]


def test_a_consumer_that_stops_leaves_nothing_running():
    source = Stopping(5)
    batches = stream(source, 4, 1000, "thread", 3)
    next(batches)
    assert source.reached.wait(timeout=30)
    batches.close()
    source.go_on.set()
    source.worker.join(timeout=30)
    assert not source.worker.is_alive()
    assert source.asked == [4, 5]


def test_tf_data_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"use data\.driver=thread"):
        stream(windows(), 0, 1, "tfdata", 2)


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"prefetch": 0}, "data.prefetch=0; expected 1 to"),
        ({"buckets": (64, 0)}, "data.buckets"),
    ],
)
def test_bad_settings(setting, match):
    with pytest.raises(UserError, match=match):
        DataConfig(**setting)
