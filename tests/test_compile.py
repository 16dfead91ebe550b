"""Programs for slices of TPUs that nobody here has: names, what is refused, what is found."""

import contextlib
import dataclasses
import fcntl
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import pytest
import runs

from gpt1_jax.errors import UserError
from gpt1_jax.machine import compile as compiling
from gpt1_jax.machine import topology
from gpt1_jax.machine.config import compiled_lines
from gpt1_jax.machine.step import step
from gpt1_jax.recipe import experiment

TINY = {
    "model.n_layer": 1,
    "model.n_embd": 256,
    "model.n_head": 4,
    "model.n_ctx": 128,
    "model.vocab_size": 256,
    "model.dtype": "bfloat16",
    "batch_size": 8,
}
KEYS = [f"--config.{key}={value}" for key, value in TINY.items()]
PRETRAINING = ["compile", "--config=configs/pretrain.py", *KEYS]
needs_libtpu = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")


def gpt1(*words: str, several: bool = True) -> subprocess.CompletedProcess:
    """The verb in a process of its own, since whoever loads libtpu keeps it. `several`: beside
    others that have it."""
    environment = {**runs.environment(devices=1), "ALLOW_MULTIPLE_LIBTPU_LOAD": str(int(several))}
    # Which would plan the memory of a chip in another way.
    del environment["JAX_DISABLE_MOST_OPTIMIZATIONS"]
    command = [sys.executable, "-m", "gpt1_jax", *words]
    return subprocess.run(
        command, cwd=runs.ROOT, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "layout", "chips", "gib"),
    [
        ("v4-8", "v4:2x2x1", 4, 32),
        ("v4-512", "v4:4x8x8", 256, 32),
        ("v5p-8", "v5p:2x2x1", 4, 95),
        ("v5p-128", "v5p:4x4x4", 64, 95),
        ("v5e-1", "v5e:1x1", 1, 16),
        ("v5litepod-16", "v5e:4x4", 16, 16),
        ("v6e-256", "v6e:16x16", 256, 32),
        ("v5e:2x4", "v5e:2x4", 8, 16),
    ],
)
def test_slices_by_name(name, layout, chips, gib):
    found = topology.slice_named(name)
    assert (found.name, found.chips) == (layout, chips)
    assert found.generation.hbm_bytes == gib * 2**30


def test_the_chips_of_a_name_are_those_of_its_layout():
    for name in topology.SLICES:
        generation, count = name.split("-")
        cores = 2 if generation in ("v4", "v5p") else 1
        assert topology.slice_named(name).chips == int(count) // cores, name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v5e-15", "of v5e there are v5e-1, v5e-4, v5e-8, v5e-16,"),
        ("v3-8", "v4, v5e, v5p, v6e"),
        ("v5e:32x32", "1024 chips"),
        ("v5e:0x4", "no slice"),
        ("", "--topology is empty"),
    ],
)
def test_a_slice_that_is_none_is_said_before_anything_is_loaded(name, said):
    outcome = runs.verb(*PRETRAINING, f"--topology={name}")
    assert (outcome.status, outcome.result, len(outcome.said)) == (2, None, 1)
    assert said in outcome.said[0]


def test_a_missing_compiler_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    outcome = runs.verb(*PRETRAINING, "--topology=v5e-4")
    assert outcome.status == 2
    assert "gpt1-jax[tpu]" in outcome.said[-1]


@pytest.mark.slow
@needs_libtpu
def test_a_compiler_in_use_by_another_process_is_one_line():
    with Path(topology.LOCK_FILE).open("a") as held:
        # Where that fails another has it, which is what is wanted.
        with contextlib.suppress(OSError):
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        done = gpt1(*PRETRAINING, "--topology=v5e-4", several=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "libtpu is in use" in done.stderr


@pytest.mark.slow
@needs_libtpu
def test_the_update_compiles_for_a_slice():
    """Over eight chips, the batch along four and the width along two."""
    done = gpt1(*PRETRAINING, "--topology=v5e-8", "--config.mesh.model=2")
    assert done.returncode == 0, done.stderr
    first, *last = done.stderr.splitlines()  # of the compiler itself nothing
    assert first.startswith("compiling for 8 chips")
    found = json.loads(done.stdout)
    assert last == compiled_lines(found)
    assert last[0].startswith("8 chips: fits, ")
    assert (found["topology"], found["layout"]) == ("v5e-8", "v5e:2x4")
    assert (found["chips"], found["fits"], found["hbm_bytes_per_chip"]) == (8, True, 16 * 2**30)
    assert found["config"]["mesh"] == {"data": 4, "model": 2, "fsdp": False}
    # The kernel of TPUs is part of it.
    assert found["config"]["attention"]["implementation"] == "tpu"
    # Half of the matrices with their moments, at least, and less than all of them.
    whole = 3 * 4 * compiling_parameters()
    assert whole / 2 < found["argument_bytes_per_chip"] < whole
    # So small a program may have all it needs in the memory beside the cores.
    assert found["temp_bytes_per_chip"] >= 0
    assert found["compile_seconds"] > 0
    reduced = found["collectives"]["all-reduce"]
    assert reduced["count"] >= 1
    # All gradients of a chip's share, those of the kernels in bfloat16.
    assert reduced["bytes"] > whole / 3 / 2 / 2
    check_prediction(found)


def check_prediction(found: dict) -> None:
    """By hand: 8 x 128 tokens over eight chips of 197 TFLOP/s, 819 GB/s, and, at the corner of a
    2 x 4 mesh, two links of 50 GB/s."""
    guess = found["predicted"]
    width, rows, length = TINY["model.n_embd"], TINY["model.vocab_size"], TINY["model.n_ctx"]
    flops = 6 * (12 * width**2 + rows * width) + 12 * width * length
    assert guess["matrix_seconds"] == pytest.approx(flops * 8 * 128 / 8 / 197e12)
    assert guess["memory_seconds"] == pytest.approx(guess["memory_bytes_per_chip"] / 819e9)
    assert guess["link_seconds"] == pytest.approx(guess["sent_bytes_per_chip"] / 100e9)
    longer = max(guess["matrix_seconds"], guess["memory_seconds"])
    assert guess["step_seconds"] == pytest.approx(longer + guess["link_seconds"])
    assert guess["tokens_per_s"] == pytest.approx(8 * 128 / guess["step_seconds"])
    assert guess["scaling_efficiency"] == pytest.approx(longer / guess["step_seconds"])
    # At least the gradients of a chip's half, around the four chips that have the same.
    assert guess["sent_bytes_per_chip"] > compiling_parameters() / 2 * 2 * 2 * 3 / 4


def compiling_parameters() -> int:
    return experiment.experiment({"steps": 1, **TINY}).model.n_parameters


def test_what_does_not_divide_is_one_line():
    devices = jax.devices()
    described = experiment.experiment({"steps": 1, **TINY, "batch_size": 12})
    with pytest.raises(UserError, match="batch_size 12 in 1 part"):
        step(described, devices)


def shapes(config: str, **keys: str) -> dict:
    described, _ = experiment.load(config, {**{k: str(v) for k, v in TINY.items()}, **keys})
    made = step(described, jax.devices())
    found = {name: (leaf.shape, leaf.dtype.name) for name, leaf in made.batch.items()}
    return {**found, "outputs": made.network.head and made.network.head.n_outputs}


@pytest.mark.parametrize(
    ("task", "candidates", "outputs", "label"),
    [
        ("sst2", 1, 2, ((8,), "int32")),
        ("mnli", 1, 3, ((8,), "int32")),
        ("stsb", 2, 6, ((8, 6), "float32")),
        ("race", 4, 1, ((8,), "int32")),
    ],
)
def test_fine_tuning_needs_no_data_of_its_task(task, candidates, outputs, label):
    found = shapes(f"configs/finetune.py:{task}")
    assert found["tokens"] == ((8, candidates, 128), "int32")
    assert (found["label"], found["outputs"]) == (label, outputs)


def test_pretraining_takes_the_vocabulary_of_its_tokens_if_they_are_there(tokens):
    described, _ = experiment.load("configs/pretrain.py", {"data.path": str(tokens)})
    assert step(described, jax.devices()[:1]).experiment.model.vocab_size == 300
    there = dataclasses.replace(described.data, path="nowhere")
    described = dataclasses.replace(described, data=there)
    assert step(described, jax.devices()[:1]).experiment.model.vocab_size == 40478


def test_shapes_are_those_of_a_real_batch(finetuned):
    """The compiled program is that of training: the same arrays go in."""
    config = json.loads((finetuned / "config.json").read_text())
    keys = {k: v for k, v in config["identity"].items() if k in experiment.KEYS and v is not None}
    keys |= {"task.path": config["task"]["path"], "initial": config["initial"]}
    made = step(experiment.experiment(keys), jax.devices()[:1])
    assert made.experiment.model.n_special == 3
    assert made.origin.shapes.params["wte"]["embedding"].shape == (303, 16)


def test_a_fully_sharded_state_takes_a_share_of_the_memory():
    """Of 8 chips, but for the vectors and the batch."""
    keys = {"steps": 1, **TINY}
    whole, shared = (
        step(experiment.experiment({**keys, "mesh.fsdp": fsdp}), jax.devices()).argument_bytes
        for fsdp in (False, True)
    )
    assert whole / 8 < shared < whole / 7


def test_a_program_too_large_for_a_chip_is_an_answer():
    """What the compiler of TPUs says of it, which takes minutes to hear."""
    line = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (33.56G) exceeds available HBM (15.75G)."
    )
    made = step(experiment.experiment({"steps": 1, **TINY}), jax.devices())
    found = compiling.facts(FullChip(made, line), topology.slice_named("v5e-8"))
    assert (found["fits"], found["collectives"]) == (False, None)
    needed = found["temp_bytes_per_chip"] + found["argument_bytes_per_chip"]
    assert needed == int(33.56 * 2**30)


class FullChip:
    """A step whose compiler finds no room."""

    def __init__(self, made, line):
        self.argument_bytes, self._line = made.argument_bytes, line

    def lowered(self):
        return self

    def compile(self):
        raise jax.errors.JaxRuntimeError(self._line)


def test_collectives_are_counted_with_their_bytes():
    program = """
  %all-reduce.1 = (f32[2,3]{1,0:T(8,128)}, bf16[4]{0}) all-reduce(%a, %b), channel_id=1
  %ar = f32[8]{0} all-reduce-start(%c), channel_id=2
  %done = f32[8]{0} all-reduce-done(%ar)
  %g = (f32[4]{0}, f32[16]{0}) all-gather-start(%d), dimensions={0}
  %none = f32[] add(%x, %y), metadata={op_name="all-reduce("}
"""
    assert compiling.collective_operations(program) == {
        "all-reduce": {"count": 2, "bytes": 24 + 8 + 32},
        "all-gather": {"count": 1, "bytes": 64},
    }
