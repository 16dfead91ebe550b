"""The life of a slice, with another `gcloud` on PATH, which keeps what it was asked."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import runs

from gpt1_jax.__main__ import requested
from gpt1_jax.recipe import experiment

SCRIPT = runs.ROOT / "scripts" / "cloud_tpu.py"
WHERE = ["--zone=us-west4-a", "--accelerator=v5litepod-16", "--bucket=gs://books"]

# Answers with what stands first in the files `states` and `trainings`, and takes it away there but
# for the last. There is no bucket.
STAND_IN = """#!{python} -IS
import json, pathlib, sys
folder, words = pathlib.Path(__file__).parent, sys.argv[1:]
with (folder / "asked").open("a") as asked:
    asked.write(json.dumps(words) + "\\n")
def next_of(name):
    first, *rest = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(rest or [first]))
    return first
if "describe" in words and "queued-resources" in words:
    state = next_of("states")
    print(state)
    sys.exit(not state)
if any("gpt1 train" in word for word in words):
    sys.exit(next_of("trainings"))
"""


class Cloud:
    """A folder on PATH with the stand-in, the states that a slice will have, and the statuses that
    training will end with; the last of each stays."""

    def __init__(self, folder: Path, states: list[str], trainings: list[int]):
        self.folder = folder
        program = folder / "gcloud"
        program.write_text(STAND_IN.format(python=sys.executable))
        program.chmod(0o755)
        (folder / "states").write_text(json.dumps(states))
        (folder / "trainings").write_text(json.dumps(trainings))

    def script(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(SCRIPT), *words, *WHERE, "--pause=0"],
            env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self) -> list[list[str]]:
        """What gcloud was asked, the states of the slice aside."""
        lines = map(json.loads, (self.folder / "asked").read_text().splitlines())
        return [words for words in lines if "--format=value(state.state)" not in words]


def kinds(asked: list[list[str]]) -> list[str]:
    """What each command is for."""
    found = []
    for words in asked:
        inside = next((w for w in words if w.startswith("--command=")), "")
        verb = next((verb for verb in ("gpt1 train", "gpt1 prepare") if verb in inside), "")
        plain = " ".join(words[2:4] if words[0] == "compute" else words[1:3])
        found.append(verb or ("install" if inside else plain))
    return found


def test_a_life_with_a_preemption(tmp_path):
    """Asked for, waited for, taken away in training: the slice comes again, and so does the very
    same command."""
    states = ["", "WAITING_FOR_RESOURCES", "ACTIVE", "ACTIVE", "SUSPENDED", "PROVISIONING"]
    cloud = Cloud(tmp_path, [*states, "ACTIVE"], [255, 75, 0])
    done = cloud.script("life")
    assert done.returncode == 0, done.stderr
    asked = cloud.asked()
    assert kinds(asked) == [
        *("buckets describe", "buckets create", "queued-resources create"),
        *("tpu-vm scp", "install", "gpt1 prepare", "gpt1 train"),
        *("queued-resources delete", "queued-resources create", "tpu-vm scp", "install"),
        *("gpt1 train", "gpt1 train"),
        *("queued-resources describe", "cat --range=-2000", "queued-resources delete"),
    ]
    trained = [words for words in asked if "gpt1 train" in words[-1]]
    assert trained[0] == trained[1] == trained[2]
    created = next(words for words in asked if words[3:4] == ["create"])
    assert {"--spot", "--node-id=gpt1", "--accelerator-type=v5litepod-16"} <= set(created)
    assert "--runtime-version=v2-alpha-tpuv5-lite" in created
    assert asked[-1][2:5] == ["queued-resources", "delete", "gpt1"]
    assert all("--zone=us-west4-a" in words for words in asked if words[0] == "compute")


def test_the_training_that_is_asked_for_is_one_of_this_package(tmp_path):
    cloud = Cloud(tmp_path, ["ACTIVE"], [0])
    keys = ["--key=batch_size=128", "--key=task.labels=a b"]
    assert cloud.script("train", *keys, "--config=configs/finetune.py:rte").returncode == 0
    command = shlex.split(cloud.asked()[-1][-1].removeprefix("--command="))
    words = command[command.index(".venv/bin/gpt1") + 1 :]
    asked = requested(words)
    assert asked.workdir == "gs://books/runs/gpt1"
    described, _ = experiment.load(asked.config, {**asked.keys, "model.dtype": "bfloat16"})
    assert (described.batch_size, described.task.labels) == (128, ("a b",))
    assert described.data.path == "gs://books/tokens"


@pytest.mark.parametrize("status", [2, 1, 130])
def test_what_no_new_start_mends_ends_with_its_own_status(tmp_path, status):
    cloud = Cloud(tmp_path, ["ACTIVE"], [status])
    done = cloud.script("train")
    assert (done.returncode, len(cloud.asked())) == (status, 1)
    assert done.stderr.splitlines() == [
        f"cloud_tpu: training ended with {status}, which no new start mends"
    ]


@pytest.mark.parametrize(
    ("states", "trainings", "said"),
    [
        (["WAITING_FOR_RESOURCES"], [0], "no slice came"),
        (["ACTIVE"], [75], "stopped 3 times"),
    ],
)
def test_patience_has_an_end(tmp_path, states, trainings, said):
    done = Cloud(tmp_path, states, trainings).script("train", "--attempts=3")
    assert done.returncode == 75
    assert said in done.stderr.splitlines()[-1]


def test_a_dry_run_prints_a_whole_life_and_runs_nothing(tmp_path):
    cloud = Cloud(tmp_path, ["ACTIVE"], [0])
    done = cloud.script("life", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "asked").exists()
    printed = [shlex.split(line) for line in done.stdout.splitlines()]
    assert {words[0] for words in printed} == {"gcloud", "git"}
    # Each is a line that a shell takes, and what is done for real is the same.
    cloud = Cloud(tmp_path, ["", "ACTIVE", "ACTIVE", "SUSPENDED", "ACTIVE"], [255, 0])
    assert cloud.script("life").returncode == 0
    expected = [
        w[1:] for w in printed if w[0] == "gcloud" and "--format=value(state.state)" not in w
    ]
    assert cloud.asked() == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["grow"], "invalid choice"),
        (["train", "--accelerator=v3-8"], "expected v4"),
        (["train", "--bucket=books"], "expected gs://NAME"),
        (["train", "--key=steps"], "expected KEY=VALUE"),
    ],
)
def test_mistakes_are_said_before_anything_is_asked(tmp_path, words, said):
    # The last of two flags counts.
    program = [sys.executable, str(SCRIPT), words[0], *WHERE, *words[1:]]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
