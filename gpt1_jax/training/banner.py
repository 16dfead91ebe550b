"""What a person is told of a run before its first step and after its last."""

import shlex
from collections.abc import Mapping
from typing import Any

import jax
from tqdm import tqdm

from gpt1_jax.data.batches import chosen_driver
from gpt1_jax.recipe.network import described
from gpt1_jax.training.start import Run

# The order of columns in the closing table; others follow it.
_COLUMNS = ("loss", "perplexity", "accuracy")


def opening(run: Run) -> list[str]:
    """The run in lines: devices, model, data, how far it goes and where it begins."""
    experiment, devices = run.experiment, run.mesh.devices.flatten()
    processes = f", {jax.process_count()} processes" if jax.process_count() > 1 else ""
    mesh = f"mesh.data={run.mesh.shape['data']}, mesh.model={run.mesh.shape['model']}"
    steps = f"steps {run.first_step + 1:,} to {run.last_step:,}"
    if run.last_step < run.total_steps:
        steps += f" of {run.total_steps:,}"
    if experiment.is_task:
        batch = f"{experiment.batch_size} examples a step"
    else:
        batch = f"{experiment.batch_size * experiment.model.n_ctx:,} tokens a step"
    epochs = run.total_steps / run.goal.source.steps_per_epoch
    return [
        f"devices: {len(devices)} x {devices[0].device_kind}, {mesh}{processes}",
        f"model: {described(experiment.model, run.state.params)}",
        f"{steps}: {batch}, {epochs:.3g} epochs in all; batches by "
        f"data.driver={chosen_driver(experiment.data.driver)}",
        _beginning(run),
    ]


def _beginning(run: Run) -> str:
    if run.first_step:
        return f"a checkpoint was found in {run.workdir}: going on after step {run.first_step:,}"
    initial = run.experiment.initial
    source = f"the weights of {initial}" if initial else "fresh parameters"
    return f"no checkpoint in {run.workdir} yet: beginning with {source}"


def closing(workdir: str, result: Mapping[str, Any]) -> list[str]:
    """The result as a small table, where things lie, and what to type next."""
    speed = result.get("tokens_per_s")
    rate = f", {speed:,.0f} tokens/s" if speed else ""
    taken = tqdm.format_interval(result.get("seconds", 0))
    lines = [f"step {result['step']:,} after {taken}{rate}", *_table(result["metrics"])]
    windows = result.get("valid_windows")
    if windows and windows["read"] < windows["all"]:
        lines.append(
            f"valid: the first {windows['read']:,} of {windows['all']:,} windows (eval.windows); "
            "`evaluate` reads all of them, and finds another value"
        )
    best = result.get("best")
    if best and best["step"] is not None:  # none before the first evaluation
        lines.append(f"the best is step {best['step']:,}, which `evaluate` and `predict` take")
    lines.append(f"in {workdir}: result.json, metrics.jsonl, checkpoints/, tokenizer/")
    return [*lines, f"next: {_next(workdir, bool(best))}"]


def _next(workdir: str, is_task: bool) -> str:
    """A command that goes on from here."""
    run = f"--workdir={workdir}"
    if is_task:
        return shlex.join(["gpt1", "evaluate", run])
    return shlex.join(["gpt1", "sample", run, "--prompt=The", "--num_samples=3"])


def _table(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A row for each split, a column for each metric; what a split has not is left empty."""
    names = list(dict.fromkeys(name for found in metrics.values() for name in found))
    names = [name for name in _COLUMNS if name in names] + [n for n in names if n not in _COLUMNS]
    rows = [["", *names]]
    for split, found in metrics.items():
        rows.append([split, *(_number(found[n]) if n in found else "" for n in names)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]


def _number(value: Any) -> str:
    if value is None:
        return "undefined"
    if not isinstance(value, int | float):
        return ""
    return f"{value:.4f}" if abs(value) < 1e4 else f"{value:.3g}"
