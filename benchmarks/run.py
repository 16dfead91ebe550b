"""Rows of measurements, ours beside the peer's in the same run, each written as it is there.

    python benchmarks/run.py cpu|gpu GROUP [RESULTS]       GROUP: train, sample, finetune or prepare

RESULTS is the folder of the files, by default benchmarks/results. A row that today's file has
already is not measured again; one that would begin after LIMIT seconds waits for the next call, so
that a machine that is lent for minutes gives rows in any case. Environment:

    LIMIT    seconds, by default 200: a row of a GPU takes less than 40, a call less than 4 minutes
    PEER     another peer's script, by default peer_torch.py beside this file
    PYTHON_OF_PEER, PATH_OF_PEER   its interpreter, and its PYTHONPATH
    SHARDS   a folder of prepare; the row that trains from shards is left out without one
    TINY     any value: tiny sizes, to see that all of it works
    NOTE     a remark that stands in each row, on what else the machine was doing, say
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
PEER = os.environ.get("PEER", str(HERE / "peer_torch.py"))
TINY = {
    "train": "--batch=2 --seq=32 --layers=1 --d=64 --heads=1 --vocab=300 --rounds=2 --steps=2",
    "sample": "--layers=1 --d=64 --heads=1 --vocab=300 --rounds=2 --prompt=4 --new=8",
    "finetune": "--batch=4 --seq=64 --layers=1 --d=64 --heads=1 --vocab=300 --rounds=2 --steps=2",
    "prepare": "--megabytes=0.05 --rounds=1",
}


class Row(NamedTuple):
    """A measurement. ours: words after `gpt1 benchmark GROUP`. peer: those after the peer's script,
    or "" where there is none. own: words for our own peer alone."""

    name: str
    ours: str
    peer: str = ""
    own: str = ""


def _training(name: str, dtype: str, dropout: float, more: str = "", rounds: str = "") -> Row:
    words = f"--batch=64 --seq=512 --dropout={dropout} --dtype={dtype} {rounds}".strip()
    return Row(name, f"{words} {more}".strip(), f"train {words} --pad-vocab")


def _sampling(name: str, batch: int, dtype: str, new: int, model: str = "openai-gpt") -> Row:
    words = f"--batch={batch} --prompt=32 --new={new} --dtype={dtype}"
    return Row(name, words, f"generate {words}", f"--model={model}")


# What decides over products in a processor, the best first, as Linux says it.
WIDEST = (
    ("amx_bf16", "AMX"),
    ("avx512_bf16", "AVX-512 with bfloat16"),
    ("avx512f", "AVX-512"),
    ("avx2", "AVX2"),
)
GPU = "--rounds=5 --steps=8 --warmup=5"
CPU = "--batch=4 --seq=512 --dropout=0.1 --rounds=3 --steps=1 --warmup=1"
ROWS = {
    ("gpu", "train"): [
        _training("train 64x512, bfloat16, dropout 0.1", "bf16", 0.1, "--kernels", GPU),
        _training("train 64x512, bfloat16, dropout 0", "bf16", 0.0, "", GPU),
        Row(
            "train 64x512 from shards, bfloat16, dropout 0.1",
            f"--batch=64 --seq=512 --dtype=bf16 {GPU} --shards=$SHARDS",
        ),
        Row("second start, 64x512, bfloat16", f"--batch=64 --seq=512 --dtype=bf16 {GPU} --restart"),
    ],
    ("gpu", "sample"): [
        _sampling("sample 1 x 256, bfloat16", 1, "bf16", 256),
        # Without a cache the peer takes minutes for these.
        _sampling("sample 64 x 256, bfloat16", 64, "bf16", 256)._replace(peer=""),
        _sampling("sample 1 x 256, bfloat16, beside GPT-2", 1, "bf16", 256, "gpt2"),
        _sampling("sample 1 x 256, float32", 1, "fp32", 256),
    ],
    ("gpu", "finetune"): [Row("fine-tune 32, bfloat16, buckets", "--batch=32 --dtype=bf16")],
    ("cpu", "train"): [
        Row(
            "train 4x512, float32, dropout 0.1", f"{CPU} --dtype=fp32", f"train {CPU} --dtype=fp32"
        ),
        Row(
            "train 4x512, bfloat16, dropout 0.1", f"{CPU} --dtype=bf16", f"train {CPU} --dtype=bf16"
        ),
    ],
    ("cpu", "sample"): [
        _sampling("sample 1 x 128, float32", 1, "fp32", 128),
        _sampling("sample 1 x 128, float32, beside GPT-2", 1, "fp32", 128, "gpt2"),
    ],
    ("cpu", "finetune"): [
        Row(
            "fine-tune 8, float32, buckets",
            "--batch=8 --dtype=fp32 --rounds=1 --steps=2",
        ),
    ],
    ("cpu", "prepare"): [Row("tokenizers and batches", "")],
}


def main(where: str, group: str, results: Path) -> None:
    limit, began = float(os.environ.get("LIMIT", "200")), time.monotonic()
    machine = _machine(where)
    results.mkdir(parents=True, exist_ok=True)
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")
    path = results / f"{slug}-{time.strftime('%Y-%m-%d')}.jsonl"
    done = {json.loads(line)["row"] for line in path.open()} if path.exists() else set()
    rows = ROWS[where, group]
    for row in rows:
        if "TINY" in os.environ and row is not rows[0]:
            break  # one shows that all of it works
        if row.name in done or ("$SHARDS" in row.ours and "SHARDS" not in os.environ):
            continue
        if time.monotonic() - began > limit:
            print(f"no time for {row.name}; the same command measures it", file=sys.stderr)
            continue
        measured = {
            "row": row.name,
            "group": group,
            "machine": machine,
            "date": time.strftime("%Y-%m-%d"),
            "note": os.environ.get("NOTE"),
            **_measured(group, row),
        }
        with path.open("a") as stream:
            stream.write(json.dumps(measured) + "\n")
        print(row.name, measured["ratio"], file=sys.stderr)


def _measured(group: str, row: Row) -> dict:
    """Our line, the peer's and the ratio; a side that fails is None and does not stop the other."""
    tiny = TINY[group].split() if "TINY" in os.environ else []
    words = [os.path.expandvars(word) for word in row.ours.split()]
    ours = _line([sys.executable, "-m", "gpt1_jax", "benchmark", group, *words, *tiny], {})
    peer = None
    if row.peer:
        own = row.own.split() if Path(PEER).name == "peer_torch.py" else []
        script = [os.environ.get("PYTHON_OF_PEER", sys.executable), PEER, *row.peer.split()]
        path = os.environ.get("PATH_OF_PEER", "")
        peer = _line([*script, *own, *tiny], {"PYTHONPATH": path} if path else {})
    ratio = ours["tokens_per_s"] / peer["tokens_per_s"] if ours and peer else None
    return {"ours": ours, "peer": peer, "ratio": ratio}


def _line(command: list[str], more: dict[str, str]) -> dict | None:
    """The last line that a command prints; what it says goes where ours goes."""
    print("+", *command[1:], file=sys.stderr, flush=True)
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **more}
    )
    if done.returncode != 0 or not done.stdout.strip():
        print(f"failed with {done.returncode}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _machine(where: str) -> str:
    """What is measured, in words that name a file, too."""
    if where == "gpu" and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return found.stdout.splitlines()[0].strip()
    cpuinfo = Path("/proc/cpuinfo")
    said = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = re.findall(r"model name\s*: (.+)", said)
    # A virtual machine may say "AMD EPYC" of cores that differ by four in what they multiply.
    flags = re.search(r"^flags\s*: (.+)", said, re.MULTILINE)
    has = flags[1].split() if flags else []
    widest = next((f" ({name})" for flag, name in WIDEST if flag in has), "")
    return f"{names[0] if names else platform.machine()}{widest}, {os.cpu_count()} cores"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("where", choices=("cpu", "gpu"))
    parser.add_argument("group", choices=("train", "sample", "finetune", "prepare"))
    parser.add_argument("results", nargs="?", type=Path, default=HERE / "results")
    words = parser.parse_args()
    if (words.where, words.group) not in ROWS:
        parser.error(f"{words.group} has no rows of a {words.where.upper()}")
    main(words.where, words.group, words.results)
