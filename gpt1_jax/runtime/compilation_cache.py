"""What XLA compiled, kept for the next start of the same training.

On an accelerator the update takes most of a minute to compile, and a run that is stopped and
continued would compile it anew. JAX keeps programs in a folder if it is told one: here that of the
user's caches. A CPU has none by default: its programs are made for the very processor, and a home
folder may be shared by several. JAX_COMPILATION_CACHE_DIR names another folder, also for a CPU;
JAX_ENABLE_COMPILATION_CACHE=false turns it off.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

# A folder that grows for ever is a nuisance; JAX takes out what was not used for longest.
_MOST_BYTES = 8 * 2**30
_FOLDER = "jax_compilation_cache_dir"


def folder() -> Path:
    """Where it is, unless JAX_COMPILATION_CACHE_DIR names a place."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "gpt1_jax" / "compiled"


def begin() -> None:
    """Has JAX keep programs from here on, if they are for an accelerator and no folder is named."""
    # Read by its name: the checker knows no settings as attributes.
    if getattr(jax.config, _FOLDER) is None and jax.default_backend() != "cpu":
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update(_FOLDER, str(folder()))


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Programs are compiled, whatever is kept: to time it, and for the memory that they plan, which
    JAX does not know of one that was kept."""
    name = "jax_enable_compilation_cache"
    before = {name: getattr(jax.config, name)}
    _set({name: False})
    try:
        yield
    finally:
        _set(before)


@contextlib.contextmanager
def at(place: str) -> Iterator[None]:
    """Programs are kept in a folder, however quickly they were compiled, and read from it alone."""
    names = (_FOLDER, "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    _set({names[0]: place, names[1]: 0.0})
    try:
        yield
    finally:
        _set(before)


def _set(values: dict) -> None:
    for name, value in values.items():
        jax.config.update(name, value)
    # JAX opens its folder once, at the first compilation.
    compilation_cache.reset_cache()
