r"""Whether every form of the computation trains to the same loss.

    gpt1 prepare --docs --output=TOKENS --vocab_size=2048
    python benchmarks/numerics.py --tokens=TOKENS --runs=RUNS \
        --result=benchmarks/results/numerics.json

A small model takes 2,000 updates with dropout 0.1 in each form: float32, plain, as what the others
are compared with; the same from another seed, which is the noise; bfloat16; what trades time for
memory; and the kernels of NVIDIA GPUs, which are interpreted where there is none: half an hour on
two cores. `--implementations=a,b` adds implementations of attention, each in bfloat16, where the
machine has them. Each run is `gpt1 train`, and the same command again does what is missing in
RUNS. Beside the JSON file comes a figure of the same name: held-out loss less that of float32.
"""

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from gpt1_jax.__main__ import main as gpt1
from gpt1_jax.recipe import attention_choice
from gpt1_jax.run_files import read_result, read_rows

STEPS, EVERY = 2000, 100
MODEL = {"n_layer": 2, "n_embd": 64, "n_head": 2, "n_ctx": 64, "init_std": 0.08}
REFERENCE, NOISE = "float32", "float32, seed {}"
FORMS = {
    REFERENCE: {},
    "bfloat16": {"model.dtype": "bfloat16"},
    NOISE.format(1): {"seed": 1},
    "bfloat16, loss in 4 chunks": {"model.dtype": "bfloat16", "model.loss_chunks": 4},
    "bfloat16, scanned layers": {"model.dtype": "bfloat16", "model.scan_layers": True},
    "bfloat16, kernels of NVIDIA GPUs": {
        "model.dtype": "bfloat16",
        "attention.implementation": "triton",
    },
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=Path, required=True, help="a folder of `prepare`")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--result", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--implementations", default="", help="of attention, with commas")
    flags = parser.parse_args(words)
    forms = dict(FORMS)
    for name in filter(None, flags.implementations.split(",")):
        changes = {"model.dtype": "bfloat16", "attention.implementation": name}
        forms[f"bfloat16, attention {name}"] = changes
    curves = {form: curve(flags, form, changes) for form, changes in forms.items()}
    result = read_result(flags.runs / folder(REFERENCE))
    rows = {form: row(form, curves) for form in forms}
    made = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "device": result["device"],
        "versions": result["versions"],
        "model": MODEL,
        "updates": STEPS,
        "forms": rows,
        "curves": curves,
    }
    flags.result.write_text(json.dumps(made, indent=1) + "\n")
    draw(curves, flags.result.with_suffix(".svg"))
    for form, found in rows.items():
        print(f"{form}: {found}", file=sys.stderr)


def folder(form: str) -> str:
    return form.replace(", ", "-").replace(" ", "_")


def curve(flags: argparse.Namespace, form: str, changes: dict) -> dict[int, float]:
    """Held-out loss by update of a run, which is trained if it is not there."""
    workdir = flags.runs / folder(form)
    given = {f"model.{key}": value for key, value in MODEL.items()}
    given |= {"batch_size": 8, "data.path": flags.tokens, "eval.every": EVERY, "eval.windows": 64}
    given |= {"checkpoint.every": STEPS, "log.every": EVERY, "log.tensorboard": False}
    command = ["train", f"--config=configs/pretrain.py:tiny,steps={STEPS}", "--quiet"]
    command += [f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in (given | changes).items()]
    # `train` refuses the kernels on a CPU, where they are of use for this alone.
    allowed = mock.patch.object(attention_choice, "_problem_of_gpu", return_value=None)
    with contextlib.redirect_stdout(io.StringIO()), allowed:
        status = gpt1(command)
    if status:
        sys.exit(status)
    rows = read_rows(workdir / "metrics.jsonl")
    return {row["step"]: row["loss"] for row in rows if row["split"] == "valid"}


def row(form: str, curves: dict[str, dict[int, float]]) -> dict[str, float]:
    """The last loss of a form, and how far its curve is from that of float32."""
    differences = [curves[form][step] - loss for step, loss in curves[REFERENCE].items()]
    return {
        "loss": round(curves[form][STEPS], 4),
        "difference": round(differences[-1], 4),
        "mean_difference": round(statistics.mean(differences), 4),
        "largest_difference": round(max(map(abs, differences)), 4),
    }


def draw(curves: dict[str, dict[int, float]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    for form, losses in curves.items():
        steps = list(losses)
        differences = [losses[step] - curves[REFERENCE][step] for step in steps]
        noise = form.startswith("float32")
        axes.plot(steps, differences, "--" if noise else "-", label=form, linewidth=1)
    axes.set_xlabel("updates")
    axes.set_ylabel("held-out loss less that of float32")
    axes.legend(fontsize=7, frameon=False)
    figure.tight_layout()
    # Neither a date nor random names of parts: the same numbers give the same file.
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
