"""model.preset=released: the graph of the released train.py, and what its shared table implies."""

import csv
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import oracle_released as released
import pytest
import runs
import tiny

from gpt1_jax.data import task_loading, transformations
from gpt1_jax.data.task_loading import TaskConfig
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample import generate
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.inference import trained_model
from gpt1_jax.model import objective
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.dropout import keep_mask, site_words, step_key
from gpt1_jax.model.gpt import drop_table
from gpt1_jax.recipe import experiment, sharding
from gpt1_jax.recipe.sharding import MeshConfig
from gpt1_jax.training.train import train

CLASSIFY = tiny.CONFIG.n_rows - 1
LENGTH = 8


def choosing(**changes):
    return tiny.network(n_outputs=1, each=True, preset="released", **changes)


def stories(n_examples=8, seed=0):
    """Pairs of endings of different lengths, each of which ends in its one classify token."""
    made = tiny.batch(n_examples, n_candidates=2, length=LENGTH, seed=seed, label=[0, 1] * 4)
    made["label"] = made["label"][:n_examples]
    tokens = np.minimum(made["tokens"], CLASSIFY - 1)
    np.put_along_axis(tokens, made["extract"][..., None], CLASSIFY, axis=-1)
    return made | {"tokens": tokens}


def as_released(batch):
    """The arguments of the oracle."""
    return {
        "X": released.pairs(batch["tokens"], tiny.CONFIG.n_rows),
        "M": batch["weights"],
        "Y": batch["label"],
        "n_head": tiny.CONFIG.n_head,
        "classify": CLASSIFY,
    }


def test_losses_and_gradients_are_those_of_the_released_graph():
    # The table ends with the longest sequence, as that of the released code does.
    network = choosing(dropout=0.0, n_embd=8, n_layer=1, softmax_positions=LENGTH)
    params, batch = tiny.params(network), stories(n_examples=4)

    def loss(params):
        return objective.loss(network, released.LM_COEF, params, batch, 0, None)

    (_, terms), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    arrays = released.arrays(params, LENGTH)
    assert terms == pytest.approx(released.losses(arrays, **as_released(batch)), abs=1e-6)
    expected = released.gradients(arrays, **as_released(batch))
    tiny.assert_trees_close(released.arrays(gradient, LENGTH), expected, tolerance=1e-6)
    # The rest of our position table is none of the released one, and nothing moves it.
    np.testing.assert_array_equal(gradient["wpe"]["embedding"][LENGTH:], 0.0)


def test_lookups_and_output_read_the_same_dropped_table():
    network = choosing(dropout=0.0, embd_dropout=0.4)
    params, batch = tiny.params(network), stories()
    _, terms = jax.jit(lambda p: objective.loss(network, 0.5, p, batch, 7, 3))(params)
    arrays = released.arrays(params, network.body.config.n_ctx)
    words = site_words(step_key(7, 3)[None], 0, "embedding")
    kept = keep_mask(words, 0.4, arrays["we"].shape)[0]
    arrays["we"] *= np.asarray(kept) / 0.6
    assert terms == pytest.approx(released.losses(arrays, **as_released(batch)), abs=1e-5)


@pytest.fixture(scope="module")
def network():
    """With dropout at every place."""
    return choosing()


@pytest.fixture(scope="module")
def compiled(network):
    return tiny.loss_and_gradients(network)


def kept_elements(gradients):
    """What the mask of the table left, [R, D]. The softmax runs over each row, so that an element
    has no gradient exactly where it is zero in the lookups and in the output alike."""
    tables = (gradients[name]["embedding"] for name in ("wte", "wpe"))
    return np.concatenate([np.asarray(table) for table in tables]) != 0.0


@pytest.fixture(scope="module")
def masks(network, compiled):
    """Of steps 0 to 7."""
    params, batch = tiny.params(network), stories()
    return [kept_elements(compiled(params, batch, step)[1]) for step in range(8)]


def test_the_mask_of_the_table_has_its_rate_and_changes_from_step_to_step(masks):
    flat = np.stack([mask.ravel() for mask in masks]).astype(np.float64)
    rate, (n_steps, size) = tiny.CONFIG.dropout, flat.shape
    assert size == (34 + 12) * 16
    assert abs(flat.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / flat.size)
    together = np.corrcoef(flat) - np.eye(n_steps)
    assert np.abs(together).max() < 5 / np.sqrt(size)
    # Elements are dropped one by one, not by rows or columns.
    by_row, by_column = (np.mean(masks, axis=axes) for axes in ((0, 2), (0, 1)))
    assert np.abs(by_row - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / (8 * 16))
    assert np.abs(by_column - (1 - rate)).max() < 5 * np.sqrt(rate * (1 - rate) / (8 * 46))


def test_no_row_of_the_batch_has_a_mask_of_its_own(network, compiled, masks):
    params = tiny.params(network)
    for other in (stories(seed=5), stories() | {"rows": np.arange(90, 98, dtype=np.uint32)}):
        np.testing.assert_array_equal(kept_elements(compiled(params, other, 2)[1]), masks[2])


@pytest.mark.exhaustive
def test_accumulated_microbatches_share_the_mask_and_equal_the_large_batch(network, compiled):
    params, batch = tiny.params(network), stories()
    parts = [
        compiled(params, {name: rows[first : first + 2] for name, rows in batch.items()}, 3)
        for first in range(0, 8, 2)
    ]
    mean = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *parts)
    tiny.assert_trees_close(mean, compiled(params, batch, 3), tolerance=1e-6)


@pytest.mark.exhaustive
def test_many_devices_drop_and_compute_what_one_does(network, compiled, masks):
    params, batch = tiny.params(network), stories()
    expected = compiled(params, batch, 3)
    mesh = sharding.mesh(MeshConfig(data=4, model=2))
    placed = jax.device_put(params, sharding.state_shardings(mesh, params))
    loss, gradients = compiled(placed, sharding.put_batch(mesh, batch), 3)
    assert len(loss.sharding.device_set) == 8
    np.testing.assert_array_equal(kept_elements(gradients), masks[3])
    tiny.assert_trees_close((loss, gradients), expected)


@pytest.mark.exhaustive
def test_scan_and_remat_change_nothing(network, compiled):
    params, batch = tiny.params(network), stories()
    changed = tiny.loss_and_gradients(choosing(scan_layers=True, remat=True))
    tiny.assert_trees_close(changed(params, batch, 3), compiled(params, batch, 3))


@pytest.mark.exhaustive
def test_one_choice_of_the_preset_can_be_taken_back():
    batch = stories()

    def loss_and_gradients(**changes):
        network = choosing(attn_dropout=0.0, resid_dropout=0.0, clf_dropout=0.0, **changes)
        return tiny.loss_and_gradients(network)(tiny.params(network), batch, 3)

    dropped = loss_and_gradients(softmax_rows="tokens")[1]
    unused = np.setdiff1d(np.arange(CLASSIFY), batch["tokens"])
    assert not kept_elements(dropped)[unused].all()
    np.testing.assert_array_equal(dropped["wpe"]["embedding"][LENGTH:], 0.0)
    whole = loss_and_gradients(embd_dropout_on="activation")[1]
    assert kept_elements(whole).all()


def test_the_partition_function_counts_positions(network):
    params, tokens = tiny.params(network), tiny.tokens()
    hidden = np.asarray(jax.jit(network.hidden)(params, tokens), np.float64)
    logits = network.logits(params, jnp.asarray(hidden, jnp.float32))
    assert logits.shape == (3, 8, 31 + 3 + 12)
    tables = [np.asarray(params[name]["embedding"], np.float64) for name in ("wte", "wpe")]
    of_tokens, of_positions = (np.exp(hidden @ table.T) for table in tables)
    expected = np.log(of_tokens.sum(-1) + of_positions.sum(-1))
    np.testing.assert_allclose(jax.nn.logsumexp(logits, axis=-1), expected, atol=1e-5)


def test_pretraining_runs_over_tokens_and_positions():
    found = tiny.network(preset="released", n_special=0)
    params = tiny.params(found)
    assert params["wte"]["embedding"].shape == (31, 16)
    logits = jax.eval_shape(found.logits, params, jax.ShapeDtypeStruct((2, 8, 16), jnp.float32))
    assert logits.shape == (2, 8, 31 + 12)


def test_half_precision_scores_in_half_precision():
    half = choosing(dtype="bfloat16")
    hidden = jax.ShapeDtypeStruct((2, 8, 16), jnp.bfloat16)
    assert jax.eval_shape(half.logits, tiny.params(half), hidden).dtype == jnp.bfloat16


def test_the_parameters_are_those_of_the_paper_preset(network):
    paper = tiny.network(n_outputs=1, each=True)
    key = jax.random.key(1)
    tiny.assert_trees_close(jax.jit(network.init)(key), jax.jit(paper.init)(key), tolerance=0.0)


def test_outside_of_training_and_in_the_paper_preset_no_table_is_dropped(network):
    params, key = tiny.params(network), step_key(0, 0)
    assert drop_table(network.body.config, params, key) is not params
    for config in (tiny.CONFIG, replace(network.body.config, embd_dropout=0.0)):
        assert drop_table(config, params, key) is params


def test_cached_decoding_equals_the_whole_at_once(network):
    params, tokens = tiny.params(network), tiny.tokens(length=9)

    @jax.jit
    def both(params):
        first, cache = network.decode(params, tokens[:, :6], network.empty_cache(3, 12), 6)
        rest, _ = network.decode(params, tokens[:, 6:], cache, tokens.shape[1] - 6)
        whole = network.hidden(params, tokens)
        pieces = jnp.concatenate([first, rest], axis=1)
        return network.logits(params, pieces), network.logits(params, whole)

    np.testing.assert_allclose(*both(params), atol=1e-5)


@pytest.mark.exhaustive
def test_positions_are_never_drawn_though_they_score_highest(network):
    params = tiny.params(network)
    tables = {
        "wte": {"embedding": 0.01 * params["wte"]["embedding"]},
        "wpe": {"embedding": 50 * np.sign(params["wpe"]["embedding"])},
    }
    for config in (SampleConfig(length=9, num_samples=8), SampleConfig(length=9, temperature=0)):
        drawn = generate(PlacedModel(network, params | tables), [1], config, tiny.CONFIG.vocab_size)
        assert drawn.max() < tiny.CONFIG.vocab_size


def test_flops_count_the_rows_of_the_softmax():
    paper, all_rows = ModelConfig(n_special=3), ModelConfig(n_special=3, preset="released")
    assert all_rows.flops_per_token(77) - paper.flops_per_token(77) == 6 * 512 * 768
    ends = replace(all_rows, softmax_positions=77)
    assert ends.flops_per_token(77) - paper.flops_per_token(77) == 6 * 77 * 768


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "released", "body": "lstm"}, "embd_dropout_on is 'table', which is for"),
        ({"softmax_rows": "all", "body": "lstm"}, "softmax_rows is 'all', which is for"),
        ({"softmax_positions": 4}, r"read with model\.softmax_rows=all alone"),
        ({"preset": "released", "softmax_positions": 13}, r"13; expected 1 to model\.n_ctx 12"),
        ({"preset": "released", "softmax_positions": 0}, r"is 0; expected 1 to"),
    ],
)
def test_settings_that_do_not_fit_are_the_users_mistake(changes, message):
    with pytest.raises(UserError, match=message):
        replace(tiny.CONFIG, **changes)


FIRST_COLUMNS = [f"InputSentence{number}" for number in (1, 2, 3, 4)]
COLUMNS = [*FIRST_COLUMNS, "RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2"]


@pytest.fixture(scope="module")
def rocstories(tmp_path_factory):
    """Was it sat or ran? In the files of the Story Cloze Test, longest in test."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("rocstories")
    for name, count, ends in (
        ("val", 40, ["sat", "ran"]),
        ("test", 6, ["sat on the mat and saw the hill", "ran"]),
    ):
        with (folder / f"cloze_test_{name}__spring2016.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*COLUMNS, "AnswerRightEnding"])
            for number in range(count):
                right = number % 2
                writer.writerow(["a", "a", "a", "a", *ends[:: 1 - 2 * right], right + 1])
    return folder


def fine_tune(pretrained, rocstories, workdir, **changes):
    given = runs.FINE_TUNING | {"initial": pretrained, "task.path": rocstories}
    given |= {"checkpoint.every": 6} | changes
    texts = {key: str(value) for key, value in given.items()}
    found, explicit = experiment.load("configs/finetune.py:story_cloze,preset=released", texts)
    return train(found, explicit, workdir, quiet=True)


@pytest.fixture(scope="module")
def run(pretrained, rocstories, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("released") / "run"
    fine_tune(pretrained, rocstories, workdir)
    return workdir


@pytest.mark.exhaustive
def test_the_table_of_a_run_ends_with_the_longest_sequence_of_all_splits(run, rocstories):
    model = trained_model.load(run)
    longest = {}
    for split in ("train", "test"):
        loaded = task_loading.load_task(TaskConfig("story_cloze", str(rocstories)), only=split)
        encoded, _ = transformations.encode_all(
            loaded.splits[split], "multiple_choice", model.tokenizer, 16, "halves"
        )
        longest[split] = max(len(ids) for candidates in encoded for ids in candidates)
    assert longest["train"] < longest["test"] < 16
    config = model.model_config
    assert (config.n_ctx, config.softmax_positions) == (16, longest["test"])
    assert model.params["wpe"]["embedding"].shape == (16, 16)
    assert set(model.evaluate_task(None, "test")[0]) == {"loss", "accuracy"}


@pytest.mark.exhaustive
def test_a_run_is_the_same_on_other_devices_in_other_parts(pretrained, rocstories, run, tmp_path):
    changes = {"mesh.data": 2, "mesh.model": 2, "optimizer.accumulation": 2}
    fine_tune(pretrained, rocstories, tmp_path, **changes, **{"model.scan_layers": True})
    runs.assert_close_rows(tmp_path, run)


def test_a_table_that_ends_before_the_sequences_is_the_users_mistake(
    pretrained, rocstories, tmp_path
):
    with pytest.raises(
        UserError, match=r"softmax_positions is 4, but sequences have up to \d+ tok"
    ):
        fine_tune(pretrained, rocstories, tmp_path / "run", **{"model.softmax_positions": 4})
    assert not (tmp_path / "run").exists()
