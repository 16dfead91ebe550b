"""Tokens without their padding: the same values, gradients and masks, and the same training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import tiny
from hypothesis import given
from hypothesis import strategies as st

from gpt1_jax.data.batches import FEWEST_PLACES, Examples, stream
from gpt1_jax.evaluation.evaluate import task_logits
from gpt1_jax.model.dropout import keep_mask, row_keys, site_words, step_key, token_words
from gpt1_jax.model.packing import packing


def examples(n_candidates: int, packed: bool, n_examples=16, longest=9) -> Examples:
    """Of up to `longest` tokens in a context of 32."""
    random = np.random.default_rng(0)
    lengths = random.integers(2, longest + 1, (n_examples, n_candidates))
    candidates = [[random.integers(1, 30, n).tolist() for n in row] for row in lengths]
    labels = random.integers(0, 2, n_examples).astype(np.int32)
    settings = {"n_ctx": 32, "batch_size": n_examples, "seed": 0, "buckets": ()}
    return Examples(candidates, labels, packed=packed, **settings)


@pytest.mark.parametrize(
    ("n_candidates", "changes"),
    [
        (1, {}),
        pytest.param(2, {"scan_layers": True, "remat": True}, marks=pytest.mark.exhaustive),
        pytest.param(1, {"preset": "released"}, marks=pytest.mark.exhaustive),
        pytest.param(1, {"loss_chunks": 2}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_loss_and_gradients_are_those_of_padded_sequences(n_candidates, changes):
    """With dropout on, everywhere."""
    network = tiny.network(2, each=n_candidates == 2, n_ctx=32, **changes)
    compute, params = tiny.loss_and_gradients(network), tiny.params(network)
    whole, packed = (examples(n_candidates, way).batch(0) for way in (False, True))
    assert len(packed.pop("places")) <= whole["tokens"].size / 2
    assert packed.keys() == whole.keys()
    packed = examples(n_candidates, True).batch(0)
    tiny.assert_trees_close(compute(params, packed, 3), compute(params, whole, 3), tolerance=2e-6)
    assert not np.array_equal(compute(params, packed, 3)[0], compute(params, packed, 4)[0])
    del packed["label"], whole["label"]
    logits = task_logits(network, params, packed)
    np.testing.assert_allclose(logits, task_logits(network, params, whole), rtol=2e-5, atol=2e-6)


def test_a_token_has_the_mask_of_its_place():
    batch = examples(1, packed=True).batch(0)
    real_NL = batch["weights"][:, 0] > 0
    packed = packing(jnp.asarray(batch["places"]), *real_NL.shape)
    words_N2 = site_words(row_keys(step_key(1, 2), batch["rows"]), 3, "mlp_output")
    whole_NLD = keep_mask(words_N2, 0.4, (32, 24))
    kept_TD = keep_mask(token_words(words_N2, packed, 24), 0.4, (1, 24))[:, 0]
    found_NLD = packed.unpack(kept_TD.astype(jnp.float32))
    np.testing.assert_array_equal(found_NLD, whole_NLD * real_NL[..., None])
    assert 0.5 < np.mean(kept_TD[: real_NL.sum()]) < 0.7


@given(st.lists(st.integers(1, 16), min_size=1, max_size=20), st.integers(1, 2))
def test_places_are_those_of_the_tokens(lengths, n_candidates):
    candidates = [[[1] * n] * n_candidates for n in lengths]
    made = Examples(
        candidates, None, n_ctx=16, batch_size=len(lengths), seed=0, buckets=(), packed=True
    )
    (batch,) = made.evaluation(len(lengths))
    real = np.flatnonzero(batch["weights"])
    if not len(batch["places"]):
        assert len(real) > 0.5 * batch["weights"].size or batch["weights"].size < FEWEST_PLACES * 2
        return
    places = batch["places"]
    assert places.dtype == np.int32
    np.testing.assert_array_equal(places[: len(real)], real)
    assert (places[len(real) :] == batch["weights"].size).all()
    assert len(places) == FEWEST_PLACES or len(places) < 1.5 * len(real)


def test_what_is_packed_comes_back_and_so_do_gradients():
    places = jnp.array([0, 1, 4, 5, 6, 12, 12])  # of three sequences of four, one of them empty
    packed = packing(places, 3, 4)
    x = np.arange(24.0, dtype=np.float32).reshape(3, 4, 2) + 1
    np.testing.assert_array_equal(packed.pack(x)[:5], x.reshape(12, 2)[places[:5]])
    there = packed.unpack(packed.pack(x))
    np.testing.assert_array_equal(there, x * (np.asarray(packed.slots_NL) < 7)[..., None])
    _, back = jax.vjp(packed.pack, jnp.asarray(x))
    mark = np.arange(14.0, dtype=np.float32).reshape(7, 2)
    np.testing.assert_array_equal(back(mark)[0], packed.unpack(mark))
    _, back = jax.vjp(packed.unpack, jnp.asarray(mark))
    np.testing.assert_array_equal(back(x)[0][:5], packed.pack(x)[:5])


@pytest.mark.slow
def test_a_stream_may_have_batches_of_both_kinds():
    """tf.data wants as many arrays of each."""
    pytest.importorskip("tensorflow")
    random = np.random.default_rng(0)
    candidates = [[[1] * n] for n in random.choice([2, 30], 64)]
    settings = {"n_ctx": 32, "batch_size": 8, "seed": 0, "buckets": ()}
    source = Examples(candidates, None, packed=True, **settings)
    found = [list(stream(source, 0, 8, driver, 2)) for driver in ("thread", "tfdata")]
    assert len({len(batch["places"]) for batch in found[0]}) > 1
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one["places"], other["places"])
        np.testing.assert_array_equal(one["tokens"], other["tokens"])


@pytest.fixture
def task(tmp_path):
    """Short texts, of which a batch has many."""
    rows = [{"text": "the cat sat" if n % 3 else "a dog", "label": n % 2} for n in range(96)]
    for split in ("train", "dev"):
        runs.write_jsonl(tmp_path / "task" / f"{split}.jsonl", rows)
    return tmp_path / "task"


def asked(pretrained, task, workdir, **changes) -> list[str]:
    settings = {
        "batch_size": 32,
        "data.buckets": (),
        "data.driver": "thread",
        "steps": 3,
        **changes,
    }
    given = runs.fine_tuning(pretrained, task, "classification", **settings)
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    return ["train", "--config=configs/finetune.py", f"--workdir={workdir}", *flags]


@pytest.mark.slow
def test_a_training_is_the_same_and_goes_on_either_way(pretrained, task, tmp_path, monkeypatch):
    seen, batch_of = [], Examples.batch

    def batch(self, *given):
        made = batch_of(self, *given)
        seen.append(len(made.get("places", ())) > 0)
        return made

    monkeypatch.setattr(Examples, "batch", batch)
    for name, changes in (
        ("packed", {}),
        ("padded", {"data.packing": False}),
        ("pieces", {"stop_after": 2}),
        ("pieces", {"data.packing": False}),
    ):
        outcome = runs.verb(*asked(pretrained, task, tmp_path / name, **changes))
        assert outcome.status == 0, outcome.said
    assert seen == [True] * 3 + [False] * 3 + [True] * 2 + [False]
    for name in ("packed", "pieces"):
        runs.assert_close_rows(tmp_path / name, tmp_path / "padded")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"mesh.data": 2},
        pytest.param({"optimizer.accumulation": 2}, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_where_it_cannot_be_it_is_left_out_and_refused_if_asked_for(
    pretrained, task, tmp_path, changes
):
    words = asked(pretrained, task, tmp_path / "run", **changes)
    runs.refused([*words, "--config.data.packing=True"], "data.packing=True is for")
    assert runs.verb(*words, "--config.stop_after=1").status == 0


def test_text_has_no_padding(tokens, tmp_path):
    words = runs.words(runs.pretraining(tokens, **{"data.packing": True}), tmp_path / "run")
    runs.refused(words, "data.packing=True is for")
