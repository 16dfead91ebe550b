"""Whether a disk has room for a checkpoint."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.messages import amount
from gpt1_jax.storage import places


def refusal(error: BaseException | None) -> OSError | None:
    """What a disk refused, behind an error: libraries raise others from it, or tell it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in disk.UNWRITABLE:
            return error
        for number in disk.NO_ROOM:
            if re.search(rf"{os.strerror(number)}|\b{errno.errorcode[number]}\b", str(error)):
                return OSError(number, os.strerror(number))
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def as_user_error(place: Path) -> Iterator[None]:
    """Turns a disk without room for what is written to `place` into one line, whichever library
    tells of it."""
    try:
        yield
    except Exception as error:
        refused = refusal(error)
        if refused is None or refused.errno not in disk.NO_ROOM:
            raise
        raise UserError(f"{place} cannot be written: {disk.reason(refused)}") from None


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
