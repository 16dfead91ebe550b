"""Whether a disk has room for a checkpoint."""

import re
import shutil
from pathlib import Path
from typing import Any

import jax

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.messages import amount
from gpt1_jax.storage import places


def is_full(error: BaseException | None) -> bool:
    """Whether a disk without space is behind an error, which libraries tell in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in disk.NO_ROOM:
            return True
        if re.search(r"No space left|Disk quota|ENOSPC|EDQUOT", str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def check_space(workdir: Path, state: Any) -> None:
    """UserError unless the disk has room for one more checkpoint of `state` (arrays or shapes). An
    object store always has."""
    if places.origin(workdir) and not places.is_alone(workdir):
        return
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    # Another process may not have made the folder yet.
    made = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(made).free
    if free < needed:
        raise UserError(
            f"{workdir} has {amount(free)} free, one checkpoint takes {amount(needed)}; free some "
            "space or choose another --workdir"
        )
