"""TPU slices by name, and as devices that programs can be compiled for where no TPU is.

Cloud TPU counts the cores of a v4 or v5p slice in its name and the chips of a v5e or v6e slice; one
device of JAX is a chip in each of them, since the two cores of a v4 or v5p chip work as one
(megacore). libtpu's own names give the layout: v5e:4x4, v4:2x2x1.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpt1_jax.errors import UserError
from gpt1_jax.typed_values import nearest

if TYPE_CHECKING:
    import jax

GIB = 2**30
MOST_CHIPS = 256
LOCK_FILE = "/tmp/libtpu_lockfile"  # which libtpu takes when it is loaded, for as long as it is


@dataclass(frozen=True)
class Generation:
    """What Google's documentation of Cloud TPU says of a chip, and libtpu must be told.

    hbm_bytes: memory of a chip.
    hbm_bytes_per_s: to and from that memory.
    link_bytes_per_s: of one link to a neighbour, one way.
    ring: chips along an axis whose ends are joined; of v4 and v5p any multiple of it, along all
      axes.
    options: what libtpu must be told so that a device is a chip.
    """

    hbm_bytes: int
    hbm_bytes_per_s: float
    link_bytes_per_s: float
    ring: int
    options: dict[str, str]


# docs/cloud_tpu.md has the pages, and how the bandwidth of a link follows from what they say.
GENERATIONS = {
    "v4": Generation(32 * GIB, 1.2e12, 45e9, 4, {"chip_config_name": "megacore"}),
    "v5e": Generation(16 * GIB, 819e9, 50e9, 16, {}),
    "v5p": Generation(95 * GIB, 2.765e12, 100e9, 4, {}),
    "v6e": Generation(32 * GIB, 1.6e12, 100e9, 16, {}),
}

_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
_SQUARES = {
    **{1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
}
SLICES: dict[str, str] = {
    **{f"v4-{2 * chips}": f"v4:{layout}" for chips, layout in _CUBES.items()},
    **{f"v5p-{2 * chips}": f"v5p:{layout}" for chips, layout in _CUBES.items()},
    **{f"v5e-{chips}": f"v5e:{layout}" for chips, layout in _SQUARES.items()},
    **{f"v5litepod-{chips}": f"v5e:{layout}" for chips, layout in _SQUARES.items()},
    **{f"v6e-{chips}": f"v6e:{layout}" for chips, layout in _SQUARES.items()},
}
"""The slices that Cloud TPU lends, by its names, in libtpu's."""


@dataclass(frozen=True)
class Slice:
    """A slice: its name as it was given and in libtpu's form, and the chips along each axis."""

    given: str
    name: str
    generation: Generation
    layout: tuple[int, ...]

    @property
    def chips(self) -> int:
        return math.prod(self.layout)

    @property
    def links(self) -> int:
        """Links of the chip that has the fewest: along an axis one at an end of it, two where its
        ends are joined.

        >>> [slice_named(name).links for name in ("v5e-4", "v5e-256", "v4-8", "v5p-128")]
        [2, 4, 2, 6]
        """
        ring = self.generation.ring
        joined = [size % ring == 0 for size in self.layout]
        if len(self.layout) == 3:  # cubes are joined along all axes or none
            joined = [all(joined)] * 3
        return sum(
            2 if ends else 1 for size, ends in zip(self.layout, joined, strict=True) if size > 1
        )


def slice_named(name: str) -> Slice:
    """The slice of a name, of Cloud TPU's or libtpu's form.

    Raises UserError for a name that is neither, for a generation other than those of GENERATIONS,
    and for more chips than MOST_CHIPS.

    >>> slice_named("v4-8").layout, slice_named("v5e:4x4").chips
    ((2, 2, 1), 16)
    """
    whole = SLICES.get(name, name)
    generation, _, layout = whole.partition(":")
    if generation not in GENERATIONS or not re.fullmatch(
        r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", layout
    ):
        raise UserError(
            f"--topology={name} is no slice that is known{_hint(name)}; expected a name of Cloud "
            f"TPU (v4-8, v5p-8 count cores, v5e-16, v6e-16 chips) or a layout, as in v5e:4x4 or "
            f"v4:2x2x1, of {', '.join(GENERATIONS)}"
        )
    sizes = tuple(int(size) for size in layout.split("x"))
    if math.prod(sizes) > MOST_CHIPS:
        raise UserError(
            f"--topology={name} has {math.prod(sizes)} chips; expected at most {MOST_CHIPS}"
        )
    return Slice(name, whole, GENERATIONS[generation], sizes)


def _hint(name: str) -> str:
    """What may have been meant: a slice of the same chips, or another spelling."""
    chips, dash, _ = name.partition("-")
    sizes = [known for known in SLICES if dash and known.startswith(f"{chips}-")]
    if sizes:
        return f"; of {chips} there are {', '.join(sizes)}"
    near = nearest(name, SLICES)
    return f"; did you mean {near}?" if near else ""


def devices(where: Slice) -> Sequence["jax.Device"]:
    """The chips of a slice, to compile for; no TPU is needed. Raises UserError where libtpu is not
    installed, where another process has it loaded, and for a layout that it refuses."""
    try:
        import libtpu  # noqa: F401  # asked for first: JAX would look for its plugin in vain
    except ImportError:
        raise UserError(
            "compiling for a TPU needs its compiler, libtpu, which is not installed: "
            "pip install 'gpt1-jax[tpu]'"
        ) from None
    from jax.errors import JaxRuntimeError
    from jax.experimental import topologies

    # Hosts of four chips are the default, of which a smaller slice has none.
    hosts = {"chips_per_host_bounds": _whole_slice(where.layout)} if where.chips < 4 else {}
    try:
        options = {**where.generation.options, **hosts}
        return topologies.get_topology_desc(where.name, "tpu", **options).devices
    except JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise UserError(
                "libtpu is in use: another process here has it loaded, or its lock file "
                f"{LOCK_FILE} belongs to another user; wait until that has ended, or set "
                "ALLOW_MULTIPLE_LIBTPU_LOAD=1 where no TPU is in use on this machine"
            ) from None
        raise UserError(
            f"libtpu refuses --topology={where.name}: {' '.join(str(error).split())}"
        ) from None


def _whole_slice(layout: tuple[int, ...]) -> list[int]:
    return [*layout, 1, 1][:3]
