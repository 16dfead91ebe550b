"""Whether the installed packages are of releases that setup.py admits. pip sees to that, until
something else is installed beside them."""

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib import metadata


@functools.cache
def unfit() -> tuple[str, ...]:
    """A line for each package of another release; none where the project itself is not installed,
    whose metadata tell what it needs. What is absent says so where it is imported."""
    from importlib import metadata  # here, for `gpt1 --help` answers at once

    from packaging.requirements import Requirement

    try:
        wanted = metadata.requires("gpt1-jax") or ()
    except metadata.PackageNotFoundError:
        return ()
    lines = []
    for need in map(Requirement, wanted):
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            found = _version(metadata.distribution(need.name))
        except metadata.PackageNotFoundError:
            continue
        if not need.specifier.contains(found, prereleases=True):
            lines.append(
                f"{need.name} {found} is installed, and this project was made for "
                f"{need.name}{need.specifier}; what goes wrong may come of that"
            )
    return tuple(lines)


def _version(package: "metadata.Distribution") -> str:
    """Without the whole description being parsed, for each verb begins with this."""
    found = re.search(r"^Version: (\S+)$", package.read_text("METADATA") or "", re.MULTILINE)
    return found[1] if found else package.version
