"""The table of slices: what it asks `compile`, that it goes on, that the page has what is kept."""

import importlib.util
import json
import subprocess
import sys

import pytest
import runs

from gpt1_jax.__main__ import requested
from gpt1_jax.recipe import experiment

SCRIPT = runs.ROOT / "benchmarks" / "slices.py"


@pytest.fixture
def slices(tmp_path, monkeypatch):
    """The script, with lines of its own."""
    described = importlib.util.spec_from_file_location("slices", SCRIPT)
    module = importlib.util.module_from_spec(described)
    described.loader.exec_module(module)
    monkeypatch.setattr(module, "LINES", tmp_path / "compiled.jsonl")
    monkeypatch.setattr(module, "PLOT", tmp_path / "plot.svg")
    return module


def compiled(words: list[str]) -> dict:
    """A line such as `compile` prints, of a command that is one."""
    asked = requested(words)
    described, _ = experiment.load(asked.config, asked.keys)
    chips = int(asked.topology.rpartition("-")[2]) // (1 + asked.topology.startswith(("v4", "v5p")))
    model = described.mesh.model
    assert chips % model == 0
    # What `compile` would refuse: rows that the chips do not divide, heads that a row of them does.
    assert described.batch_size % (chips // model) == 0
    assert described.model.n_head % model == 0
    seconds = {f"{part}_seconds": 0.01 for part in ("step", "matrix", "memory", "link")}
    return {
        "chips": chips,
        "argument_bytes_per_chip": 2**30,
        "temp_bytes_per_chip": 2**30,
        "hbm_bytes_per_chip": 2**34,
        "fits": True,
        "compile_seconds": 100.0,
        "predicted": {
            **seconds,
            "tokens_per_s": 1e5 * chips,
            "scaling_efficiency": 0.9,
            "sent_bytes_per_chip": 1e8,
        },
        "config": {
            "batch_size": described.batch_size,
            "mesh": {"data": chips // model, "model": model, "fsdp": False},
        },
    }


def test_every_row_is_a_command_and_what_is_kept_is_not_compiled_again(slices, monkeypatch):
    asked = []

    def run(command, **_):
        asked.append(command[3:])
        if len(asked) == 5:
            raise KeyboardInterrupt
        return subprocess.CompletedProcess(command, 0, json.dumps(compiled(command[3:])))

    monkeypatch.setattr(slices.subprocess, "run", run)
    with pytest.raises(KeyboardInterrupt):
        slices.compile_missing([])
    assert len(slices.known()) == 4
    slices.compile_missing([])
    assert len(asked) == len(slices.all_rows()) + 1
    assert asked[4] == asked[5]
    slices.compile_missing([])
    assert len(asked) == len(slices.all_rows()) + 1
    lines = slices.table().splitlines()
    assert len(lines) == 2 + len(slices.all_rows())
    assert "| v5e-16, 16 | pre-training | 64, 16 x 1 | 2.00 of 16 | 100 | 100 |" in lines[3]
    # 0.01 s an update: a million in 2.8 hours on each of its chips.
    assert "| v5e-16, 16 | 10.0 | 2.8 | 10.0 | 44, 160 |" in slices.hours()
    assert len(slices.hours().splitlines()) == 2 + len(slices.SLICES)
    slices.plot()
    assert "tokens/s, predicted" in slices.PLOT.read_text()


def test_the_page_has_the_table_of_what_is_kept():
    """By `python benchmarks/slices.py table`."""
    command = [sys.executable, str(SCRIPT), "table", "--check"]
    subprocess.run(command, cwd=runs.ROOT, check=True)
