"""Where the time of a step goes: a trace of it, added up by part of the model.

XLA's trace names the instruction that each piece of time belongs to; the compiled program says in
which of the model's scopes (`jax.named_scope`, and the names of flax modules) that instruction was
written. A fusion belongs to the scope of its last operation.
"""

import gzip
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

# In this order: what is both, an attention's product say, belongs to the first.
PARTS: tuple[tuple[str, str], ...] = (
    ("attention", r"\battention\b"),
    ("norm", r"\bln_[12]\b|\bnorm\b"),
    ("dropout", r"\bdropout\b"),
    ("optimizer", r"\boptimizer\b"),
    ("loss", r"\bloss\b"),
    ("logits", r"\blogits\b"),
    ("embedding", r"\b(wte|wpe)\b"),
    ("activation", r"\bmlp\b"),
)
# Products of the library and of the compiler, by what stands in their line.
_PRODUCT = re.compile(r"\b(dot|convolution)\(|gemm|matmul")
_CONTAINERS = re.compile(r"[\]})] (while|call|conditional)\(")
_DEFINED = re.compile(r"^\s*(?:ROOT )?%?([\w.-]+) = ")
_CALLED = re.compile(r"calls=%?([\w.-]+)")


# So many of the largest operations are named.
_LARGEST = 20
_LAYER = re.compile(r"\bh_\d+\b")


class _Event(NamedTuple):
    name: str
    milliseconds: float


class _Instruction(NamedTuple):
    """part: None for those that only hold others. scope: where the model has it, of any layer."""

    part: str | None
    scope: str


def of_step(
    compiled: jax.stages.Compiled, run: Callable[[], object], n_steps: int
) -> dict[str, Any]:
    """What a step spends its time on; `run` takes `n_steps` steps of the compiled program.

    ms_by_part: milliseconds of a step by part of the model, the largest first: GEMMs, what PARTS
    names and other. largest_operations: those of one kind and scope in all layers together, with
    how many there are in a step and their milliseconds.

    On a CPU these are milliseconds of all threads together, which may be more than a step takes.
    """
    instructions = instructions_of(compiled.as_text())
    parts: defaultdict[str, float] = defaultdict(float)
    operations: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder)
        try:
            run()
        finally:
            jax.profiler.stop_trace()
        for name, milliseconds in _events(Path(folder)):
            part, scope = instructions.get(_plain(name), _Instruction("other", ""))
            if part is not None:
                parts[part] += milliseconds / n_steps
                operations[_kind(name), scope].append(milliseconds / n_steps)
    by_time = sorted(operations.items(), key=lambda item: -sum(item[1]))
    return {
        "ms_by_part": {
            name: round(value, 4)
            for name, value in sorted(parts.items(), key=lambda item: -item[1])
        },
        "largest_operations": [
            {
                "operation": kind,
                "scope": scope,
                "per_step": round(len(found) / n_steps, 2),
                "ms": round(sum(found), 4),
            }
            for (kind, scope), found in by_time[:_LARGEST]
        ],
    }


def instructions_of(program: str) -> dict[str, _Instruction]:
    """The instructions of a compiled program by name."""
    lines = program.splitlines()
    products, computation = set(), ""
    for line in lines:
        if line.endswith("{") and not line.startswith(" "):
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
        elif _PRODUCT.search(line.partition("metadata=")[0]):
            products.add(computation)
    found: dict[str, _Instruction] = {}
    for line in lines:
        if named := _DEFINED.match(line):
            scope = re.search(r'op_name="([^"]*)"', line.partition("metadata=")[2])
            path = scope[1] if scope else ""
            found[_plain(named[1])] = _Instruction(
                _part(line, path, products), _LAYER.sub("h_*", path)
            )
    return found


def _part(line: str, path: str, products: set[str]) -> str | None:
    what = line.partition("metadata=")[0]
    if _CONTAINERS.search(what):
        return None
    if re.search(PARTS[0][1], path):
        return PARTS[0][0]
    called = _CALLED.search(what)
    if _PRODUCT.search(what) or (called and called[1] in products):
        return "gemm"
    return next((name for name, pattern in PARTS if re.search(pattern, path)), "other")


def _plain(name: str) -> str:
    """A name as a GPU's kernel has it, too."""
    return re.sub(r"[.-]", "_", name)


def _kind(name: str) -> str:
    """A name without the number that tells it from others."""
    return re.sub(r"[._]\d+$", "", name)


def _events(folder: Path) -> Iterator[_Event]:
    """What ran on the first device: on its own process of the trace, where there is one, else what
    the threads of the CPU say of their instructions.

    Of the two forms that JAX writes, the JSON is read: the reader of the other one ends the process
    in JAX 0.12.
    """
    events: list[dict[str, Any]] = []
    for path in sorted(folder.rglob("*.trace.json.gz")):
        events += json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    named = {"process_name": {}, "thread_name": {}}
    for event in events:
        if event.get("ph") == "M" and event["name"] in named:
            named[event["name"]][event["pid"], event.get("tid", 0)] = event["args"]["name"]
    devices = sorted(
        place[0]
        for place, name in named["process_name"].items()
        if re.match("/device:(GPU|TPU):", name)
    )
    # A TPU has other threads, which say the same of whole modules and steps.
    operations = {place for place, name in named["thread_name"].items() if name == "XLA Ops"}
    for event in events:
        place = event.get("pid"), event.get("tid", 0)
        elsewhere = devices and place[0] != devices[0]
        if event.get("ph") != "X" or elsewhere or (operations and place not in operations):
            continue
        name = event.get("args", {}).get("hlo_op") or (devices and event["name"])
        if name:
            yield _Event(str(name).split(" = ")[0].lstrip("%"), event["dur"] / 1e3)
