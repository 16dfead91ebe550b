"""The least time of an update on a slice, predicted from its compiled program.

A chip has three things to do: multiply matrices, move bytes to and from its memory, and send bytes
to its neighbours. Each takes at least its amount divided by what Google publishes for the chip. The
first two overlap, so the longer one counts; the links are added, as if they waited for all else.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from gpt1_jax.machine.step import Step
from gpt1_jax.machine.topology import Slice
from gpt1_jax.runtime.peaks import known_peak

_KINDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
_OPERATION = re.compile(rf"= (.+?) ({_KINDS})(-start)?\((.*)")
_SHAPE = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_COUNTED = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")
_OF_MESH = re.compile(r"replica_groups=mesh\[(.*?)\].*?\{('.*?')\}")


class Collective(NamedTuple):
    """A collective operation: its kind, the bytes of its result on one chip, and how many chips
    take part in each group; None if its text does not say."""

    kind: str
    bytes: int
    group: int | None

    def sent(self, chips: int) -> float:
        """Bytes that a chip sends at least, of `chips` where the group is all of them."""
        n = self.group or chips
        share = (n - 1) / n
        return (
            self.bytes
            * {
                "all-reduce": 2 * share,
                "all-gather": share,
                "reduce-scatter": n - 1,
                "all-to-all": share,
                "collective-permute": 1,
            }[self.kind]
        )


def collectives(program: str) -> Iterator[Collective]:
    """The collective operations in the text of a compiled program; one that is divided into steps
    counts once, and so does the body of a loop.

    >>> text = "%a = f32[8]{0} all-gather(%b), channel_id=1, replica_groups=[2,4]<=[8], x"
    >>> list(collectives(text))
    [Collective(kind='all-gather', bytes=32, group=4)]
    """
    seen = set()
    for shapes, kind, begun, rest in _OPERATION.findall(program):
        channel = _CHANNEL.search(rest)
        if channel and channel[1] in seen:
            continue
        seen.add(channel[1] if channel else None)
        sizes = [_bytes(dtype, dims) for dtype, dims in _SHAPE.findall(shapes)]
        # What begins an all-gather holds its operands, too, in front of its results.
        if begun and kind != "all-reduce":
            sizes = sizes[len(sizes) // 2 :]
        yield Collective(kind, sum(sizes), _group(rest))


def _bytes(dtype: str, dims: str) -> int:
    bits = 8 if dtype == "pred" else int(re.search(r"\d+", dtype)[0])
    return math.prod(int(size) for size in dims.split(",") if size) * bits // 8


def _group(text: str) -> int | None:
    """Chips of a group, in each of the ways in which XLA writes that."""
    if found := _LISTED.search(text):
        return len(found[1].split(","))
    if found := _COUNTED.search(text):
        return int(found[1])
    if found := _OF_MESH.search(text):
        axes = dict(axis.split("=") for axis in found[1].split(","))
        return math.prod(int(axes[name]) for name in found[2].split(","))
    return None


def predicted(made: Step, where: Slice, program: str, memory_bytes: float) -> dict[str, Any] | None:
    """The least seconds of an update, of which program and `memory_bytes` that a chip moves are
    what the compiler says. None where the program has a loop, whose body they count once.
    """
    if " while(" in program:
        return None
    rows, candidates, length = made.batch["tokens"].shape
    tokens = rows * candidates * length
    model = made.experiment.model
    peak = known_peak(made.mesh.devices.flat[0].device_kind, model.dtype)
    sent = sum(operation.sent(where.chips) for operation in collectives(program))
    flops = tokens * model.flops_per_token(length) / where.chips
    matrices = flops / (peak.tflops * 1e12)
    memory = memory_bytes / where.generation.hbm_bytes_per_s
    links = sent / (where.links * where.generation.link_bytes_per_s) if sent else 0.0
    step = max(matrices, memory) + links
    return {
        "step_seconds": step,
        "matrix_seconds": matrices,
        "memory_seconds": memory,
        "link_seconds": links,
        "tokens_per_s": tokens / step,
        "scaling_efficiency": max(matrices, memory) / step,
        "flops_per_chip": flops,
        "memory_bytes_per_chip": memory_bytes,
        "sent_bytes_per_chip": sent,
    }
