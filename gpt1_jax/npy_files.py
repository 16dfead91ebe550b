"""Reading .npy files, in one place: numbers in one row, mapped from disk, and nothing else.

numpy reads the header; it knows no end of the ways in which one can be wrong, and guesses what else
a file may be, a pickle or a zip archive. Here it is an array of numbers or one line.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt1_jax import disk
from gpt1_jax.errors import UserError


def read(path: Path, dtypes: Sequence[str], remedy: str) -> np.ndarray:
    """The numbers [n] of a file, of one of these types, mapped and read-only. `remedy` ends the
    line about a file that cannot be used.

    Raises:
      FileNotFoundError: there is none.
      UserError: it is damaged, cut off or goes on after its numbers, or holds something else.
    """
    try:
        disk.opened(path).close()
        with np.errstate(over="raise"):  # of a size beyond 64 bits
            array = np.lib.format.open_memmap(path, mode="r")
        rest = path.stat().st_size - array.offset - array.nbytes
    except FileNotFoundError:
        raise
    except Exception as error:  # whatever numpy meets in a header, of which there is no list
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
        raise UserError(f"{path} is damaged or no array of numbers ({reason}); {remedy}") from None
    if array.ndim != 1 or array.dtype.str not in [np.dtype(name).str for name in dtypes]:
        raise UserError(
            f"{path} is {array.dtype} {list(array.shape)}; expected one row of "
            f"{' or '.join(dtypes)}; {remedy}"
        )
    if rest:
        raise UserError(f"{path} goes on for {rest} bytes after its numbers; {remedy}")
    return array
