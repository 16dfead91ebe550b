"""The training that is killed again and again: the script in small, and what it found."""

import json
import os
import subprocess
import sys

import pytest
import runs

SCRIPT = runs.ROOT / "benchmarks" / "kills.py"


def test_what_is_committed_is_equal_and_lost_no_more_than_a_checkpoint_is_old():
    found = json.loads((runs.ROOT / "benchmarks" / "results" / "kills.json").read_text())
    assert found["equal"]
    assert found["digests"]["whole"] == found["digests"]["killed"]
    assert found["kills"] == len(found["each"]) == sum(found["kinds"].values()) == 30
    for kill in found["each"]:
        assert kill["lost"] <= (found["keys"]["checkpoint.every"] if kill["by"] == "SIGKILL" else 0)


def test_what_is_committed_of_several_processes_is_of_all_kills():
    """By `--junitxml` of test_processes.py::test_kills_at_random_moments."""
    found = json.loads((runs.ROOT / "benchmarks" / "results" / "process_kills.json").read_text())
    assert found["kills"] == found["passed"] == len(found["each"]) == 20
    assert {(kill["processes"], kill["seed"]) for kill in found["each"]} == {
        (count, seed) for count in (2, 4) for seed in range(10)
    }
    assert max(kill["others_left_after_s"] for kill in found["each"]) < 60


@pytest.mark.exhaustive
def test_a_small_one_is_equal(tokens, tmp_path):
    core = min(os.sched_getaffinity(0))
    flags = [f"--data={tokens}", f"--runs={tmp_path}/runs", f"--result={tmp_path}/found.json"]
    flags += ["--kills=4", "--steps=160", f"--cores={core},{core}"]
    done = subprocess.run([sys.executable, str(SCRIPT), *flags], cwd=runs.ROOT, check=False)
    assert done.returncode == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["equal"]
    assert [kill["by"] for kill in found["each"]].count("SIGKILL") == 2
