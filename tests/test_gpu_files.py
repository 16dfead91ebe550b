"""The files of docs/gpu.md: what they start is what this package takes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import yaml

from gpt1_jax.__main__ import requested
from gpt1_jax.recipe import experiment

FILES = runs.ROOT / "scripts" / "gpu"
# Keeps the words it was given, and ends with a status.
STAND_IN = """#!{python}
import json, os, pathlib, sys
at = pathlib.Path(__file__)
with at.with_suffix(".asked").open("a") as asked:
    asked.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit({status})
"""


def stand_in(path: Path, status: int = 0) -> Path:
    """A program there that keeps what it was asked; the file of that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(STAND_IN.format(python=sys.executable, status=status))
    path.chmod(0o755)
    return path.with_suffix(".asked")


def asked(file: Path) -> list[list[str]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def check_training(words: list[str], processes: int, process: int, coordinator: str) -> None:
    """A command of `gpt1 train` whose flags and keys exist."""
    verb = requested(words)
    known = verb.processes
    assert (known.num_processes, known.process_id) == (processes, process)
    assert known.coordinator == coordinator
    described, _ = experiment.load(verb.config, verb.keys)
    assert described.model.dtype == "bfloat16"
    assert verb.workdir


@pytest.mark.parametrize(("status", "again"), [(0, False), (75, True), (2, False)])
def test_the_slurm_job(tmp_path, status, again):
    """srun in its place starts the second of two tasks; scontrol names two machines."""
    gpt1 = stand_in(tmp_path / ".venv" / "bin" / "gpt1", status)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/bash\nshift\nSLURM_PROCID=1 "$@"\n')
    (tools / "scontrol").write_text(
        f'#!/bin/bash\n[ "$1" = show ] && printf "n7\\nn8\\n" || echo "$@" >{tmp_path}/scontrol\n'
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[7-8]", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "12"}
    done = subprocess.run(
        ["bash", str(FILES / "slurm.sh"), "--workdir=run", "--config.data.path=to kens"],
        cwd=tmp_path,
        env={**os.environ, **job, "PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    (words,) = asked(gpt1)
    check_training(words, 2, 1, "n7:8476")
    assert "--config.data.path=to kens" in words
    requeued = tmp_path / "scontrol"
    assert requeued.exists() == again
    if again:
        assert requeued.read_text() == "requeue 12\n"


def test_the_kubernetes_job(tmp_path):
    service, job = yaml.safe_load_all((FILES / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # A pod is found as JOB-INDEX.SUBDOMAIN, where a service of that name has no address.
    assert (service["kind"], service["spec"]["clusterIP"]) == ("Service", "None")
    assert service["metadata"]["name"] == pod["subdomain"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"]
    known = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} <= known
    rules = {
        rule["action"]: rule.get("onExitCodes")
        for rule in job["spec"]["podFailurePolicy"]["rules"][:2]
    }
    assert {action: codes["values"] for action, codes in rules.items()} == {
        "FailJob": [2],
        "Ignore": [75],
    }

    gpt1 = stand_in(tmp_path / "gpt1")
    environment = {"JOB_COMPLETION_INDEX": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = [*container["command"], *container["args"]]
    subprocess.run(command, env={**os.environ, **environment}, check=True)
    (words,) = asked(gpt1)
    coordinator = f"{job['metadata']['name']}-0.{pod['subdomain']}:8476"
    check_training(words, job["spec"]["completions"], 1, coordinator)


def test_the_image_copies_what_the_installation_reads():
    text = (FILES / "Dockerfile").read_text()
    copied = [word for line in re.findall("^COPY (.*) ", text, re.M) for word in line.split()]
    assert all((runs.ROOT / name).exists() for name in copied)
    setup = (runs.ROOT / "setup.py").read_text()
    read = {*re.findall(r'Path\("([\w.]+)[/"]', setup), "configs", "gpt1_jax", "requirements.txt"}
    assert read <= set(copied)
    (extra,) = re.findall(r"\.\[(\w+)\]", text)
    assert f'"{extra}": [' in setup
