"""Several processes of one run, which have to be told the same and to find the same.

Each of them reads its own command line, code and data. Where one has others, the devices would wait
for each other for ever, or train on something that nobody asked for.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

import gpt1_jax
from gpt1_jax.errors import UserError
from gpt1_jax.recipe.config_values import flatten
from gpt1_jax.run_files import versions
from gpt1_jax.storage import places

# Where a machine has its copy of the data; that it is the same data, resolved.data says.
_PLACES = ("data.path", "task.path", "task.data_dir", "probes.path")
_SHOWN = 40  # characters of a value


@contextlib.contextmanager
def agreed() -> Iterator[dict[str, Any]]:
    """A dict for what must be the same in every process, by name.

    At the end of the block all of them compare it. Raises UserError in every process where one has
    something else than process 0, or ended its block with a UserError.
    """
    facts: dict[str, Any] = {}
    if jax.process_count() == 1:
        yield facts
        return
    mine = None
    try:
        yield facts
    except UserError as error:
        mine = error
    everyone = _gathered({"error": mine and str(mine), "facts": facts})
    if mine:
        raise mine
    for number, one in enumerate(everyone):
        if one["error"]:
            raise UserError(f"process {number}: {one['error']}")
    for number, one in enumerate(everyone):
        if difference := _difference(everyone[0]["facts"], one["facts"]):
            name, first, other = difference
            raise UserError(
                f"process {number} has {name} = {other}, process 0 has {first}; start all "
                "processes with the same command, code and data"
            )


def _gathered(message: dict) -> list[dict]:
    """The messages of all processes, by their numbers."""
    content = np.frombuffer(json.dumps(message).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.int32(len(content)))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: len(content)] = content
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(bytes(row[:length]))
        for row, length in zip(np.asarray(rows), lengths, strict=True)
    ]


def _difference(first: Mapping, other: Mapping) -> tuple[str, str, str] | None:
    for name in [*first, *(name for name in other if name not in first)]:
        if first.get(name) != other.get(name):
            return name, _short(first.get(name)), _short(other.get(name))
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def of_a_run(config: Mapping[str, Any], workdir: Path) -> dict[str, Any]:
    """What makes a run in one process the same as in another: where it is kept, its config.json
    (settings before what follows from them), versions, and the code of this package."""
    settings = {key: value for key, value in flatten(config).items() if key not in _PLACES}
    return {
        "--workdir": places.shown(workdir.absolute()),
        **dict(
            sorted(settings.items(), key=lambda one: one[0].startswith(("resolved", "identity")))
        ),
        **flatten(versions(), "version of "),
        **{f"code of {name}": digest for name, digest in _code().items()},
    }


def _code() -> dict[str, str]:
    root = Path(gpt1_jax.__file__).parent
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        for path in sorted(root.rglob("*.py"))
    }


def of_arrays(tree: Any) -> str:
    """A digest of all arrays of a tree, which are on this host."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
