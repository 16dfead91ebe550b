"""The training step compiled for a TPU slice with no TPU: memory, collectives, predicted time."""

import dataclasses
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
from jax.errors import JaxRuntimeError

from gpt1_jax.errors import UserError
from gpt1_jax.machine import roofline, topology
from gpt1_jax.machine.step import Step, step
from gpt1_jax.machine.topology import Slice
from gpt1_jax.messages import tell
from gpt1_jax.recipe import experiment as experiments
from gpt1_jax.run_files import versions
from gpt1_jax.runtime import compilation_cache

# How the compiler says what a program needs that does not fit.
_NEEDED = (
    r"required for HLO temporaries \(([\d.]+)([KMGT]?)\)",
    r"Used ([\d.]+)([KMGT]?) of",
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def compile_for(config: str, keys: Mapping[str, str], where: Slice) -> dict[str, Any]:
    """What `gpt1 compile` prints of the update of a config with keys on top, for a slice.

    A program that the compiler finds too large for the memory of a chip is an answer, `fits` false,
    and no error. Raises UserError for whatever does not fit in another way.
    """
    # Nothing runs, so nothing here may take the memory of a GPU, or wait for a TPU of this machine.
    jax.config.update("jax_platforms", "cpu")
    described, _ = experiments.load(config, keys)
    made = step(described, list(topology.devices(where)))
    if made.mesh.size != where.chips:
        raise UserError(
            f"mesh.data {described.mesh.data} x mesh.model {described.mesh.model} takes "
            f"{made.mesh.size} of the {where.chips} chips of {where.name}; set mesh.data=-1 to "
            "use all"
        )
    names = {"topology": where.given, "layout": where.name}
    return {**names, **facts(made, where), "config": config_of(made)}


def config_of(made: Step) -> dict[str, Any]:
    """The sections of the experiment that the program follows from."""
    sections = ("model", "attention", "objective", "optimizer")
    whole = dataclasses.asdict(made.experiment)
    shape = made.batch["tokens"].shape
    return {
        "batch_size": shape[0],
        "candidates": shape[1],
        "length": shape[2],
        "mesh": {**made.mesh.shape, "fsdp": made.experiment.mesh.fsdp},
        **{section: whole[section] for section in sections},
    }


def facts(made: Step, where: Slice) -> dict[str, Any]:
    """Memory of a chip in bytes, whether it suffices, collective operations, the seconds that the
    compiler took and those that are predicted of the update."""
    tell(
        f"compiling for {where.chips} chips; at the paper's sizes that takes 2 to 17 minutes on "
        "two cores"
    )
    hbm, began = where.generation.hbm_bytes, time.perf_counter()
    lowered = made.lowered()
    traced = time.perf_counter()
    compiled = None
    try:
        with compilation_cache.off():
            compiled = lowered.compile()
    except JaxRuntimeError as error:
        arguments = made.argument_bytes
        temporaries = _needed(str(error)) - arguments
        collectives = predicted = None
    else:
        memory = compiled.memory_analysis()
        arguments, temporaries = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        program = compiled.as_text()
        collectives = collective_operations(program)
        moved = compiled.cost_analysis()["bytes accessed"]
        predicted = roofline.predicted(made, where, program, moved)
    return {
        "chips": where.chips,
        "argument_bytes_per_chip": arguments,
        "temp_bytes_per_chip": temporaries,
        "hbm_bytes_per_chip": hbm,
        "fits": compiled is not None and arguments + temporaries <= hbm,
        "collectives": collectives,
        "predicted": predicted,
        "compile_seconds": round(time.perf_counter() - traced, 3),
        "trace_seconds": round(traced - began, 3),
        "versions": {**versions(), "libtpu": _libtpu()},
    }


def _needed(message: str) -> int:
    """Bytes of a chip that the compiler asked for. JaxRuntimeError for any other message."""
    for pattern in _NEEDED:
        if found := re.search(pattern, message):
            return int(float(found[1]) * _UNITS[found[2]])
    raise JaxRuntimeError(message)


def collective_operations(program: str) -> dict[str, dict[str, int]]:
    """The collective operations of a compiled program by kind: how many there are in its text (the
    body of a loop counts once), and the bytes of their results on one chip.

    >>> collective_operations("%a = (f32[2,3]{1,0}, f32[]) all-reduce(%b, %c), channel_id=1")
    {'all-reduce': {'count': 1, 'bytes': 28}}
    """
    found: dict[str, dict[str, int]] = {}
    for operation in roofline.collectives(program):
        entry = found.setdefault(operation.kind, {"count": 0, "bytes": 0})
        entry["count"] += 1
        entry["bytes"] += operation.bytes
    return found


def _libtpu() -> str:
    from importlib.metadata import version

    return version("libtpu")
