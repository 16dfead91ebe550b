"""Checkpoints survive what happens to files, and say what did."""

import json
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from gpt1_jax.errors import UserError
from gpt1_jax.storage import digests
from gpt1_jax.storage.retention import CheckpointConfig, on_grid
from gpt1_jax.weights import checkpoint
from gpt1_jax.weights.checkpoint import Checkpoints
from gpt1_jax.weights.space import check_space
from gpt1_jax.weights.transfer import transfer

GOLDEN = Path(__file__).with_name("golden")


def params(value):
    return {"wte": {"embedding": jnp.full((4, 3), float(value))}, "b": jnp.arange(5.0) + value}


def moments(value):
    return {"count": jnp.int32(value), "mu": params(value)}


def saved(folder, steps, **progress):
    checkpoints = Checkpoints(folder, CheckpointConfig(every=1, keep=2))
    for step in steps:
        checkpoints.save(step, params(step), moments(step), {"step": step, **progress})
    checkpoints.wait()
    return checkpoints


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def flip_a_bit(folder):
    """In the middle of the largest data file of an item."""
    names = json.loads((folder / digests.DIGESTS).read_text())
    path = max((folder / name for name in names), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    return path


def test_what_is_saved_is_restored(tmp_path):
    checkpoints = saved(tmp_path, [7])
    found = checkpoints.restore(7, abstract(params(0)), abstract(moments(0)))
    assert jax.tree.all(jax.tree.map(np.array_equal, found[0], params(7)))
    assert jax.tree.all(jax.tree.map(np.array_equal, found[1], moments(7)))
    assert found[2] == {"step": 7}
    checkpoints.close()


def test_the_newest_are_kept_and_the_best(tmp_path):
    checkpoints = saved(tmp_path, [1, 2, 3, 4], best_step=1)
    assert checkpoints.steps() == [1, 3, 4]
    checkpoints.close()


def test_a_grid_is_even_on_a_logarithmic_axis():
    assert [step for step in range(1, 101) if on_grid(step, 1)] == [1, 10, 100]
    found = [step for step in range(1, 10_001) if on_grid(step, 4)]
    assert found[-9:] == [100, 178, 316, 562, 1000, 1778, 3162, 5623, 10_000]
    assert not any(on_grid(step, 0) for step in range(100))
    assert not on_grid(0, 4)


@pytest.mark.parametrize("item", checkpoint.ITEMS)
def test_a_flipped_bit_is_noticed_and_the_checkpoint_before_is_used(tmp_path, item):
    saved(tmp_path, [1, 2]).close()
    path = flip_a_bit(tmp_path / "checkpoints" / "2" / item)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    step, complaints = checkpoints.newest_sound()
    assert step == 1
    assert len(complaints) == 1
    assert "checkpoint 2" in complaints[0]
    assert path.name in complaints[0]
    checkpoints.close()


def test_a_missing_file_is_noticed(tmp_path):
    saved(tmp_path, [1]).close()
    next((tmp_path / "checkpoints" / "1" / "params").rglob("manifest.ocdbt")).unlink()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest_sound()[0] is None
    with pytest.raises(UserError, match="damaged"):
        checkpoints.load_params(1)
    checkpoints.close()


def test_a_damaged_checkpoint_is_set_aside_and_its_step_saved_again(tmp_path):
    saved(tmp_path, [1, 2]).close()
    flip_a_bit(tmp_path / "checkpoints" / "2" / "params")
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    checkpoints.set_aside_after(1)
    assert checkpoints.steps() == [1]
    assert (tmp_path / "damaged" / "2" / "params").is_dir()
    checkpoints.save(2, params(2), moments(2), {"step": 2})
    checkpoints.wait()
    assert checkpoints.newest_sound() == (2, [])
    checkpoints.close()


def test_an_unfinished_checkpoint_does_not_count(tmp_path):
    saved(tmp_path, [1, 2]).close()
    folder = tmp_path / "checkpoints"
    (folder / "2").rename(folder / "2.orbax-checkpoint-tmp")
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    assert checkpoints.steps() == [1]
    checkpoints.close()


def test_what_is_saved_is_the_state_at_the_call_though_it_is_donated_after(tmp_path):
    double = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig())
    state = params(1)
    checkpoints.save(1, state, moments(1), {"step": 1})
    for _ in range(20):
        state = double(state)
    checkpoints.wait()
    loaded = checkpoints.load_params(1)
    np.testing.assert_array_equal(loaded["b"], params(1)["b"])
    checkpoints.close()


def test_parameters_load_as_numpy_without_being_told_their_shapes(tmp_path):
    saved(tmp_path, [3]).close()
    checkpoints = Checkpoints(tmp_path)
    loaded = checkpoints.load_params(3)
    assert isinstance(loaded["b"], np.ndarray)
    np.testing.assert_array_equal(loaded["wte"]["embedding"], np.full((4, 3), 3.0))
    checkpoints.close()


def test_no_room_on_the_disk_is_said_before_training(tmp_path):
    huge = jax.ShapeDtypeStruct((2**50,), jnp.float32)
    with pytest.raises(UserError, match=r"GB free.*one checkpoint takes"):
        check_space(tmp_path, {"params": huge})
    check_space(tmp_path, {"params": jax.ShapeDtypeStruct((4,), jnp.float32)})


def tree(rows, value, n_layer=3):
    blocks = {f"h_{i}": {"kernel": np.full((2, 2), value + i)} for i in range(n_layer)}
    table = {"embedding": np.full((rows, 2), value)}
    return {"wte": table, "wpe": {"embedding": np.full((6, 2), value)}, **blocks}


@pytest.mark.parametrize(("n_transfer", "blocks"), [(None, 3), (2, 2), (0, 0)])
def test_transfer_takes_the_embeddings_and_the_first_blocks(n_transfer, blocks):
    fresh, source = tree(7, 0.0) | {"clf": {"kernel": np.ones(2)}}, tree(4, 100.0)
    found = transfer(fresh, source, n_transfer)
    assert (found["wpe"]["embedding"] == 100).all()
    assert (found["wte"]["embedding"][:4] == 100).all()
    assert (found["wte"]["embedding"][4:] == 0).all()
    taken = [i for i in range(3) if (found[f"h_{i}"]["kernel"] >= 100).all()]
    assert taken == list(range(blocks))
    assert found["clf"] is fresh["clf"]


def test_transfer_of_nothing_leaves_everything_fresh():
    fresh = tree(7, 0.0)
    assert transfer(fresh, tree(4, 100.0), -1) is fresh


def test_transfer_names_the_parameter_that_does_not_fit():
    source = tree(4, 100.0)
    source["h_1"]["kernel"] = np.zeros((2, 3))
    with pytest.raises(UserError, match=r"h_1/kernel has shape \(2, 3\).*expected \(2, 2\)"):
        transfer(tree(4, 0.0), source, None)
    with pytest.raises(UserError, match="no h_2"):
        transfer(tree(4, 0.0), tree(4, 1.0, n_layer=2), None)


def test_a_run_of_the_first_format_is_read_for_ever(tmp_path):
    """And goes on, though settings have come since (tests/golden/make_format_1.py)."""
    with tarfile.open(GOLDEN / "format_1.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    workdir, data = tmp_path / "run", tmp_path / "tokens"
    expected = json.loads((tmp_path / "evaluated.json").read_text())
    found = runs.verb("evaluate", f"--workdir={workdir}", f"--data={data}").result
    assert found["step"] == expected["step"] == 2
    assert found["metrics"]["valid"] == pytest.approx(expected["metrics"]["valid"], rel=1e-6)
    config = json.loads((workdir / "config.json").read_text())
    assert "optimizer.skip_nonfinite" not in config["identity"]
    keys = {key: value for key, value in config["identity"].items() if value is not None}
    keys = {key: value for key, value in keys.items() if not key.startswith("resolved.")}
    del keys["model.vocab_size"]
    given = {**keys, "data.path": data, "log.tensorboard": False, "mesh.data": 1, "log.every": 1}
    assert runs.verb(*runs.words(given, workdir), "--quiet").result["step"] == 4
    rows = [(row["step"], row["split"]) for row in runs.rows(workdir)]
    assert rows == [(1, "train"), (2, "train"), (3, "train"), (4, "train"), (4, "valid")]


def test_a_checkpoint_says_its_format_and_a_later_one_is_refused(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, [7])
    assert checkpoints.progress(7)["format"] == checkpoint.FORMAT == 1
    monkeypatch.setattr(checkpoint, "FORMAT", 0)
    for read in (
        lambda: checkpoints.restore(7, abstract(params(0)), abstract(moments(0))),
        checkpoints.newest_params,
        lambda: checkpoints.load_params(7),
    ):
        with pytest.raises(UserError, match="has format 1, and this version of gpt1 reads up to 0"):
            read()
    checkpoints.close()
