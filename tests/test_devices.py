"""The same run on other devices, in other parts and other programs, with dropout on."""

import json
import socket
import subprocess
import sys
from importlib.util import find_spec

import pytest
import runs

LAST = runs.PRETRAINING["steps"]


@pytest.mark.parametrize(
    "changes",
    [
        {"mesh.data": 8},
        {"mesh.data": -1, "mesh.model": 2},
        {"mesh.data": 2, "optimizer.accumulation": 2, "attention.implementation": "recompute"},
        {"model.scan_layers": True, "model.remat": True},
    ],
    ids=lambda changes: ",".join(f"{key}={value}" for key, value in changes.items()),
)
def test_pretraining_is_the_same_run(tokens, pretrained, tmp_path, changes):
    result = runs.run(runs.pretraining(tokens, **changes), tmp_path)
    runs.assert_close_rows(tmp_path, pretrained)
    devices = changes.get("mesh.data", 1) * changes.get("mesh.model", 1)
    assert result["n_devices"] == (8 if devices < 0 else devices)


def test_finetuning_is_the_same_run(pretrained, classification, finetuned, tmp_path):
    """Two padded lengths, a classifier, and a dev set that the devices do not divide."""
    mesh = {"mesh.data": 4, "mesh.model": 2}
    runs.run(runs.fine_tuning(pretrained, classification, "classification", **mesh), tmp_path)
    runs.assert_close_rows(tmp_path, finetuned)


def test_two_processes_train_as_one(tokens, pretrained, tmp_path):
    """Each with one device, over the command line. Process 0 alone writes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    given = runs.pretraining(tokens, **{"mesh.data": 2})
    command = [*runs.words(given, tmp_path), f"--coordinator={address}", "--num_processes=2"]
    processes = [runs.process([*command, f"--process_id={i}"], devices=1) for i in range(2)]
    ends = [process.communicate(timeout=150) for process in processes]
    for process, (_, errors) in zip(processes, ends, strict=True):
        assert process.returncode == 0, errors
    runs.assert_close_rows(tmp_path, pretrained)
    assert json.loads((tmp_path / "result.json").read_text())["n_devices"] == 2
    assert json.loads(ends[0][0].splitlines()[-1])["step"] == LAST


COMPILE = """
import jax
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from gpt1_jax.model.attention_choice import choose, device_of
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.optimizer import OptimizerConfig
from gpt1_jax.training.state import initial_state
from gpt1_jax.training.train import update_function

devices = topologies.get_topology_desc("v5e:2x4", "tpu").devices
mesh = sharding.mesh(sharding.MeshConfig(data=4, model=2), devices)
model = ModelConfig(
    vocab_size=256, n_ctx=128, n_embd=256, n_head=4, n_layer=2, dtype="bfloat16"
)
attention = choose("auto", device_of(devices[0]), model, n_shares=2).implementation
net = network(model, attention, None, 0, sharding.Divided(mesh))
config = OptimizerConfig()

origin = initial_state(net, config, mesh)
state = origin.abstract
shapes = {"tokens": ((8, 1, 128), "int32"), "weights": ((8, 1, 128), "float32")}
shapes["rows"] = ((8,), "uint32")
rows = sharding.batch_sharding(mesh)
batch = {k: jax.ShapeDtypeStruct(s, d, sharding=rows) for k, (s, d) in shapes.items()}
update = update_function(net, config, 1.0, 10, mesh)
compiled = update.lower(state, batch, 42).compile()
text = compiled.as_text()
assert "all-reduce" in text
kernels = ("attention_forward", "attention_backward")
print("compiled for", len(devices), devices[0].device_kind, *(k for k in kernels if k in text))
"""


@pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")
def test_the_update_compiles_for_a_tpu_slice():
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=runs.ROOT,
        env={
            **runs.environment(),
            "TPU_ACCELERATOR_TYPE": "v5litepod-8",
            "TPU_WORKER_HOSTNAMES": "localhost",
            "TPU_SKIP_MDS_QUERY": "1",
            # Another process here may have the compiler open, which is no TPU that it could keep.
            "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "compiled for 8 TPU v5 lite attention_forward attention_backward"
    )
