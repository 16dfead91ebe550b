"""What a run left behind, read by anyone: config.json, metrics.jsonl, result.json; and where it
came from."""

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from gpt1_jax.errors import UserError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def provenance(config: dict) -> dict:
    """Versions, source revision, hash of the config and the command that was typed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    text = json.dumps(config, sort_keys=True)
    return {
        "versions": versions,
        "git": _git(),
        "config_hash": hashlib.sha256(text.encode()).hexdigest(),
        "command": shlex.join(sys.argv),
    }


def _git() -> dict | None:
    """Commit and whether the working tree differs from it; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def read_result(workdir: Path) -> dict | None:
    """result.json, or None where there is none yet."""
    try:
        return json.loads((workdir / "result.json").read_text())
    except (FileNotFoundError, ValueError):
        return None


def read_rows(path: Path) -> list[dict]:
    """The rows of a metrics.jsonl, without a torn last line; none if the file does not exist.

    Raises UserError for a line in the middle that is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number} is not a JSON object") from None
    return rows


def read_config(workdir: Path) -> dict:
    """config.json of a run. UserError if there is none, or it is not one that `train` wrote."""
    path = workdir / "config.json"
    try:
        config = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{workdir} is no workdir of a run: it has no config.json") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not (isinstance(config, dict) and "resolved" in config and "identity" in config):
        foreign = isinstance(config, dict) and "model_type" in config
        hint = f"; if it is one of transformers, write hf:{workdir}" if foreign else ""
        raise UserError(f"{path} is not that of a run; expected a folder that `train` made{hint}")
    return config
