"""What a run left behind, read by anyone: config.json, metrics.jsonl, result.json; and where it
came from."""

import functools
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from gpt1_jax import disk, json_files
from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible

# The newest step that was ever committed, so that the loss of a checkpoint is noticed.
COMMITTED = "committed.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that numbers depend on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def _typed() -> str:
    """The command line; sys.argv has the path of a module in place of the words before the verb."""
    words = sys.orig_argv[1:]
    return shlex.join(["python", *words] if words and words[0].startswith("-") else words)


def provenance(config: dict) -> dict:
    """Versions, source revision, hash of the config and the command that was typed."""
    text = json.dumps(config, sort_keys=True)
    return {
        "versions": versions(),
        "git": revision(),
        "config_hash": hashlib.sha256(text.encode()).hexdigest(),
        "command": visible(_typed()),
    }


@functools.cache
def revision() -> dict | None:
    """Commit and whether the working tree differs from it; None outside a checkout.

    As they were when this was first asked: the code that runs is that which was loaded then, and a
    checkout may move on while it does."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


_OF_PARAMETERS = ("tokenizer", "n_outputs", "labels")
# What is read of the answers of a head; its name is that of the data.
_OF_A_TASK = ("shape", "metric", "further", "truncation", "score_loss")
# Keys of the model that only say how it is computed: parameters are the same under all of them.
COMPUTATION = ("dtype", "scan_layers", "remat", "loss_chunks")


class Extension(TypedDict):
    """A run that was made longer: after which update, to how many, with which schedule."""

    after: int
    steps: int
    schedule: str | None


class Resolved(TypedDict):
    """What a run was resolved to, as far as every reader needs it. `spared`: checkpoints that stay
    because a command of before kept them. `digests`: of the splits of its data. `initial`: what
    tells the weights it began with from others, where it is known."""

    tokenizer: str
    task: dict[str, Any] | None
    labels: list[Any]
    n_outputs: int
    total_steps: int
    extensions: NotRequired[list[Extension]]
    spared: NotRequired[list[int]]
    digests: NotRequired[dict[str, str]]
    initial: NotRequired[str | None]


class RunConfig(TypedDict):
    """config.json: sections of settings, and what identifies the run."""

    identity: dict[str, Any]
    resolved: Resolved
    model: dict[str, Any]
    data: NotRequired[dict[str, Any]]
    task: NotRequired[dict[str, Any]]


class Best(TypedDict):
    step: int | None
    score: float | None


class Result(TypedDict):
    """result.json of a training."""

    step: int
    metrics: dict[str, dict[str, Any]]
    best: NotRequired[Best]


class Row(TypedDict):
    """A line of metrics.jsonl; the other keys are metrics."""

    step: int
    split: str


def read_result(workdir: Path) -> dict | None:
    """result.json, or None where there is none yet. UserError if it is damaged."""
    remedy = "delete it, and the same command writes it again"
    try:
        return dict(json_files.read(workdir / "result.json", Result, remedy))
    except FileNotFoundError:
        return None


class _Committed(TypedDict):
    step: int


def reached(workdir: Path, tell: Callable[[str], None] | None = None) -> int | None:
    """The newest step that a run has ever saved, whether or not its checkpoint is still there; None
    where it saved none. UserError like `read_result`; where it is only to be read, `tell` gets the
    line about a committed.json that is damaged, and the rest is believed."""
    steps = []
    remedy = "delete it, and the next checkpoint writes it again"
    try:
        steps.append(json_files.read(workdir / COMMITTED, _Committed, remedy)["step"])
    except FileNotFoundError:
        pass
    except UserError as error:
        if tell is None:
            raise
        tell(f"{error}; until then nobody knows whether a newer checkpoint was lost")
    if result := read_result(workdir):
        steps.append(result["step"])
    return max(steps, default=None)


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a torn last line; none if the file does not exist.

    Raises UserError for a line in the middle that is not JSON, and for one that is no row.
    """
    try:
        lines = disk.content(path).splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    remedy = "expected a row that `train` wrote; copy the file again or take the line out"
    if lines and not _is_json(lines[-1]):
        lines.pop()
    return [
        dict(json_files.parse(line, Row, f"{path}:{number}", remedy))
        for number, line in enumerate(lines, 1)
    ]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except RecursionError:
        return True
    except ValueError:
        return False
    return True


def made_by(config: dict) -> dict[str, Any]:
    """What parameters have no meaning without, by key of config.json: the model, the tokenizer, the
    task and the labels. Keys that only say how the model is computed are not among them."""
    model = {
        f"model.{key}": value for key, value in config["model"].items() if key not in COMPUTATION
    }
    resolved = {f"resolved.{key}": config["resolved"][key] for key in _OF_PARAMETERS}
    task = config["resolved"]["task"] or {}
    return model | resolved | {f"resolved.task.{key}": task.get(key) for key in _OF_A_TASK}


_OF_A_RUN = ("config.json", "result.json", "metrics.jsonl", "checkpoints")


def folders_below(root: Path) -> tuple[list[Path], dict[Path, str]]:
    """A folder with all that lie below it, in order, each once: behind the others those that only
    links lead to. And why, of links that lead nowhere and of folders that cannot be read."""
    found, closed, seen, waiting = [], {}, set(), [root]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            refused: list[OSError] = []
            for name, folders, files in os.walk(start, onerror=refused.append):
                here, real = Path(name), os.path.realpath(name)
                below = [] if real in seen else sorted(folders)
                if "config.json" in files and "checkpoints" in below:
                    below.remove("checkpoints")  # many folders of Orbax, none of them a run
                folders[:] = below  # what is walked through next, links aside
                if real in seen:
                    continue
                seen.add(real)
                found.append(here)
                links += [here / one for one in below if (here / one).is_symlink()]
                for one in files:  # those that begin with a dot are the locks of editors
                    if one[0] != "." and (here / one).is_symlink() and not (here / one).exists():
                        closed[here / one] = "a link that leads nowhere"
            closed |= {Path(one.filename): f"cannot be read ({one.strerror})" for one in refused}
        waiting = sorted(links)
    return found, closed


def why_no_result(folder: Path) -> str | None:
    """Why a folder that has something of a run is none that has ended; None of one that has, and
    of a folder that is no run's."""
    there = [name for name in _OF_A_RUN if os.path.exists(folder / name)]
    if {"config.json", "result.json"} <= {*there}:
        return None
    if "config.json" not in there:
        begun = len(there) > 1 or "metrics.jsonl" in there
        return f"{there[0]} and no config.json; copy it again" if begun else None
    try:
        config = read_config(folder)
    except UserError as error:
        return str(error).removeprefix(f"{folder}/") if len(there) > 1 else None
    if config.get("steps") == 0:
        return "weights that `convert` wrote, which no training has a result of"
    return "no result.json: not finished, or not copied"


_RECORDS = ("config.json", "result.json", "metrics.jsonl", COMMITTED, "verified.json")


def files_of(workdir: Path) -> list[Path]:
    """What a folder of weights is read from, and what it tells of its training. Others are the
    user's."""
    foreign = ("*.safetensors", "tokenizer*.json", "vocab.json", "merges.txt")
    patterns = (*_RECORDS, "tokenizer/*", *foreign)
    files = [path for pattern in patterns for path in workdir.glob(pattern)]
    # Not by a pattern, which ends where a training deletes a folder that is looked through.
    below = os.walk(workdir / "checkpoints")
    files += [Path(folder, name) for folder, _, names in below for name in names]
    return [path for path in files if path.is_file()]


def read_config(workdir: Path) -> dict:
    """config.json of a run. UserError if there is none, or it is not one that `train` wrote."""
    path = workdir / "config.json"
    remedy = "expected what `train` wrote; copy it again"
    try:
        config = json_files.read(path, dict[str, Any], remedy)
    except FileNotFoundError:
        raise UserError(f"{workdir} is no workdir of a run: it has no config.json") from None
    if not ("resolved" in config and "identity" in config):
        hint = (
            f"; if it is one of transformers, write hf:{workdir}" if "model_type" in config else ""
        )
        raise UserError(f"{path} is not that of a run; expected a folder that `train` made{hint}")
    return dict(json_files.shaped(config, RunConfig, str(path), remedy))
