"""A peer's line beside ours: the same kind of work, and the ratio of the two."""

from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from gpt1_jax import json_files
from gpt1_jax.errors import UserError
from gpt1_jax.machine.config import LONG

# What must be alike, as far as the peer's line says it.
_KIND = ("mode", "dtype", "dropout", "batch", "seq", "prompt", "new_tokens", "layers", "d", "heads")
_REMEDY = "expected the line of a peer, as benchmarks/peer_torch.py prints it"


class PeerLine(TypedDict):
    """The keys that no peer's line lacks."""

    peer: str
    mode: str
    tokens_per_s: float


def read(path: str, asked: dict[str, Any]) -> dict[str, Any]:
    """The peer's line in a file, with its other keys.

    Raises UserError where the file is missing or is none, or tells of other work than `asked`,
    the keys that our own line will have.
    """
    place = Path(path).expanduser()
    try:
        found = json_files.read(place, dict[str, Any], _REMEDY)
    except FileNotFoundError:
        raise UserError(f"--vs={path}: there is no such file; {_REMEDY}") from None
    line: dict[str, Any] = dict(json_files.shaped(found, PeerLine, f"--vs={path}", _REMEDY))
    for key in _KIND:
        if key in line and key in asked and _value(line[key]) != _value(asked[key]):
            raise UserError(
                f"--vs={path} is of another kind: {key} is {line[key]} there and {asked[key]} "
                "here; time both on the same work"
            )
    if not (speed := float(line["tokens_per_s"])) > 0:
        raise UserError(f"--vs={path}: tokens_per_s is {speed}; {_REMEDY}")
    return line


def compared(result: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """What stands beside our line: who the peer is, its speed, and ours divided by it."""
    return {
        "vs": {key: line.get(key) for key in ("peer", "version", "tokens_per_s")},
        "ratio": result["tokens_per_s"] / line["tokens_per_s"],
    }


def _value(value: Any) -> Any:
    return LONG.get(value, value) if isinstance(value, str) else value
