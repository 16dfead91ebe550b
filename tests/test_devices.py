"""The same run on other devices, in other parts and other programs, with dropout on."""

import json
import shlex
import socket

import pytest
import runs

LAST = runs.PRETRAINING["steps"]
# A save costs as much as many updates, and what is saved is not read.
LAST_SAVED = {"checkpoint.every": 1000}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"mesh.data": 8}, marks=pytest.mark.exhaustive),
        pytest.param({"mesh.data": -1, "mesh.model": 2}, marks=pytest.mark.exhaustive),
        {"mesh.data": 2, "optimizer.accumulation": 2, "attention.implementation": "recompute"},
        {"mesh.data": -1, "mesh.model": 2, "model.scan_layers": True, "model.remat": True},
    ],
    ids=lambda changes: ",".join(f"{key}={value}" for key, value in changes.items()),
)
def test_pretraining_is_the_same_run(tokens, pretrained, tmp_path, changes):
    result = runs.run(runs.pretraining(tokens, **changes, **LAST_SAVED), tmp_path)
    runs.assert_close_rows(tmp_path, pretrained)
    devices = changes.get("mesh.data", 1) * changes.get("mesh.model", 1)
    assert result["n_devices"] == (8 if devices < 0 else devices)


def test_finetuning_is_the_same_run(pretrained, classification, finetuned, tmp_path):
    """Two padded lengths, a classifier, and a dev set that the devices do not divide."""
    changes = {"mesh.data": 4, "mesh.model": 2, **LAST_SAVED}
    runs.run(runs.fine_tuning(pretrained, classification, "classification", **changes), tmp_path)
    runs.assert_close_rows(tmp_path, finetuned)


def test_two_processes_train_as_one(tokens, pretrained, tmp_path):
    """Each with one device, over the command line. Process 0 alone writes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    given = runs.pretraining(tokens, **{"mesh.data": 2, **LAST_SAVED})
    command = [*runs.words(given, tmp_path), f"--coordinator={address}", "--num_processes=2"]
    processes = [runs.process([*command, f"--process_id={i}"], devices=1) for i in range(2)]
    ends = [process.communicate(timeout=150) for process in processes]
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors
    runs.assert_close_rows(tmp_path, pretrained)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["n_devices"] == 2
    # What was typed, which is not what the module finds in sys.argv.
    typed = ["python", "-m", "gpt1_jax", *command, "--process_id=0"]
    assert shlex.split(result["command"]) == typed
    assert json.loads(ends[0][0].splitlines()[-1])["step"] == LAST
