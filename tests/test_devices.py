"""The same run on other devices, in other parts and other programs, with dropout on."""

import jax
import numpy as np
import pytest
import runs

from gpt1_jax.recipe import experiment
from gpt1_jax.training.start import start

# A save costs as much as many updates, and what is saved is not read.
LAST_SAVED = {"checkpoint.every": 1000}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"mesh.data": 8}, marks=pytest.mark.exhaustive),
        pytest.param({"mesh.data": -1, "mesh.model": 2}, marks=pytest.mark.exhaustive),
        pytest.param(
            {"mesh.data": 2, "optimizer.accumulation": 2, "attention.implementation": "recompute"},
            marks=pytest.mark.exhaustive,
        ),
        {
            "mesh.data": -1,
            "mesh.model": 2,
            "mesh.fsdp": True,
            "model.scan_layers": True,
            "model.remat": True,
        },
    ],
    ids=lambda changes: ",".join(f"{key}={value}" for key, value in changes.items()),
)
def test_pretraining_is_the_same_run(tokens, pretrained, tmp_path, changes):
    result = runs.run(runs.pretraining(tokens, **changes, **LAST_SAVED), tmp_path)
    runs.assert_close_rows(tmp_path, pretrained)
    devices = changes.get("mesh.data", 1) * changes.get("mesh.model", 1)
    assert result["n_devices"] == (8 if devices < 0 else devices)


MESHES = [(1, 8), (2, 4), (4, 2), (8, 1)]
TWENTY = {"steps": 20, "eval.every": 10, **LAST_SAVED}


@pytest.fixture(scope="module")
def twenty(tokens, tmp_path_factory):
    """Twenty updates on one device."""
    workdir = tmp_path_factory.mktemp("twenty") / "run"
    runs.run(runs.pretraining(tokens, **TWENTY), workdir)
    return workdir


@pytest.mark.exhaustive
@pytest.mark.parametrize("fsdp", [False, True])
@pytest.mark.parametrize(("data", "model"), MESHES)
def test_every_mesh_is_the_same_run(data, model, fsdp, tokens, twenty, tmp_path):
    """Twenty losses with dropout on, half of them on another mesh, to which the parameters come as
    they were."""
    given = runs.pretraining(tokens, **TWENTY)
    mesh = {"mesh.data": data, "mesh.model": model, "mesh.fsdp": fsdp}
    runs.run({**given, **mesh, "stop_after": 10}, tmp_path)
    other = {"mesh.data": model, "mesh.model": data, "mesh.fsdp": not fsdp}
    resumed = {**given, **other}
    ready = start(experiment.experiment(resumed), set(resumed), tmp_path)
    jax.tree.map(np.testing.assert_array_equal, ready.state.params, runs.params(tmp_path, 10))
    ready.close()
    runs.run(resumed, tmp_path)
    runs.assert_close_rows(tmp_path, twenty)


@pytest.mark.exhaustive
def test_finetuning_is_the_same_run(pretrained, classification, finetuned, tmp_path):
    """Two padded lengths, a classifier, and a dev set that the devices do not divide."""
    changes = {"mesh.data": 4, "mesh.model": 2, **LAST_SAVED}
    runs.run(runs.fine_tuning(pretrained, classification, "classification", **changes), tmp_path)
    runs.assert_close_rows(tmp_path, finetuned)
