"""What `gpt1 compile` and each kind of `gpt1 benchmark` are asked for: their flags, and `run`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from gpt1_jax.errors import UserError
from gpt1_jax.flags import Flag
from gpt1_jax.messages import amount, tell

DtypeWord = Literal["float32", "bfloat16", "float16", "fp32", "bf16", "fp16"]
# As PyTorch's users write them, and peers in their files.
LONG = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True, kw_only=True)
class Compile:
    """The training step compiled for a TPU slice with no TPU: memory, does it fit, how fast."""

    config: Annotated[str, Flag("a config file, with its arguments", "FILE[:ARGS]")]
    keys: Annotated[Mapping[str, str], Flag("a key of the config", "VALUE", name="config.KEY")] = (
        field(default_factory=dict)
    )
    topology: Annotated[str, Flag("a slice: v4-8, v5e-16, v5e:4x4, ...", "NAME")]

    def run(self) -> dict:
        from gpt1_jax.machine import topology

        # Before JAX is imported, for a name is wrong at once.
        where = topology.slice_named(self.topology)
        from gpt1_jax.machine.compile import compile_for

        result = compile_for(self.config, self.keys, where)
        for line in compiled_lines(result):
            tell(line)
        return result


def compiled_lines(result: Mapping[str, Any]) -> list[str]:
    """What `compile` found, to be read."""
    needed = result["argument_bytes_per_chip"] + result["temp_bytes_per_chip"]
    fits = "fits" if result["fits"] else "does not fit"
    there_is = amount(result["hbm_bytes_per_chip"])
    lines = [f"{result['chips']} chips: {fits}, {amount(needed)} of {there_is} on each"]
    predicted = result["predicted"]
    if predicted:
        lines.append(
            f"at best {1e3 * predicted['step_seconds']:.3g} ms for an update, "
            f"{predicted['tokens_per_s']:,.0f} tokens/s: predicted, not measured"
        )
    return lines


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a result goes, and what it is compared with."""

    json: Annotated[str | None, Flag("a file that gets the line, too", "FILE")] = None
    vs: Annotated[str | None, Flag("a peer's line, for the ratio of the two", "PEER.json")] = None

    def __post_init__(self):
        if self.json and self.vs and os.path.realpath(self.json) == os.path.realpath(self.vs):
            raise UserError(f"--json={self.json} is the file of --vs; choose another")

    def written(self, result: dict) -> dict:
        """A result, also in its file."""
        if self.json is not None:
            from gpt1_jax import disk

            disk.write_json(Path(self.json).expanduser(), result)
        return result


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the model; the defaults are the paper's."""

    dtype: Annotated[DtypeWord, Flag("of the computation")] = "bfloat16"
    vocab: Annotated[int, Flag("tokens")] = 40478
    d: Annotated[int, Flag("width")] = 768
    heads: Annotated[int, Flag()] = 12
    layers: Annotated[int, Flag()] = 12
    keys: Annotated[Mapping[str, str], Flag("a key of the config", "VALUE", name="config.KEY")] = (
        field(default_factory=dict)
    )

    @property
    def long_dtype(self) -> str:
        return LONG.get(self.dtype, self.dtype)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """`rounds` rounds of `steps` updates each, after `warmup` updates that are not timed."""

    rounds: Annotated[int, Flag("of which the median is given")] = 5
    steps: Annotated[int, Flag("updates of a round")] = 10
    warmup: Annotated[int, Flag("updates before the first round")] = 3

    def __post_init__(self):
        if min(self.rounds, self.steps) < 1 or self.warmup < 0:
            raise UserError("--rounds and --steps must be at least 1, and --warmup 0")


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark:
    """The update of pre-training."""

    batch: Annotated[int, Flag("sequences of an update")] = 64
    seq: Annotated[int, Flag("tokens of a sequence")] = 512
    dropout: Annotated[float, Flag("every rate")] = 0.1
    implementation: Annotated[str | None, Flag("of attention; default: attention's own")] = None
    shards: Annotated[str | None, Flag("a folder of prepare, to train on", "TOKENS")] = None
    kernels: Annotated[bool, Flag("trace a round: time by part of the model")] = False
    restart: Annotated[bool, Flag("time a second start, from the compilation cache")] = False
    sizes: Sizes
    rounds: Rounds
    output: Output

    def run(self) -> dict:
        from gpt1_jax.machine import benchmark

        return self.output.written(benchmark.train(self))


@dataclass(frozen=True, kw_only=True)
class FineTuneBenchmark:
    """Fine-tuning on lengths like SST-2's, in buckets and padded to the context."""

    batch: Annotated[int, Flag("sequences of an update")] = 32
    seq: Annotated[int, Flag("tokens of the context")] = 512
    dropout: Annotated[float, Flag("every rate")] = 0.1
    sizes: Sizes
    rounds: Rounds
    output: Output

    def run(self) -> dict:
        from gpt1_jax.machine import benchmark

        return self.output.written(benchmark.fine_tune(self))


@dataclass(frozen=True, kw_only=True)
class SampleBenchmark:
    """Sampling new tokens."""

    batch: Annotated[int, Flag("samples at once")] = 1
    prompt: Annotated[int, Flag("tokens of the prompt")] = 32
    new: Annotated[int, Flag("tokens that are added")] = 256
    rounds: Annotated[int, Flag("of which the median is given")] = 5
    sizes: Sizes
    output: Output

    def __post_init__(self):
        if min(self.batch, self.prompt, self.new, self.rounds) < 1:
            raise UserError("--batch, --prompt, --new and --rounds must be at least 1")

    def run(self) -> dict:
        from gpt1_jax.machine import benchmark

        return self.output.written(benchmark.sample(self))


@dataclass(frozen=True, kw_only=True)
class PrepareBenchmark:
    """The tokenizers on one core, and batches from shards."""

    input: Annotated[str | None, Flag("text; default: documentation installed here", "FILE")] = None
    vocab: Annotated[
        str | None, Flag("folder with the vocabulary of GPT-1, for its tokenizers", "FOLDER")
    ] = None
    megabytes: Annotated[float, Flag("of the text at most")] = 1.0
    rounds: Annotated[int, Flag("of which the median is given")] = 3
    output: Output

    def __post_init__(self):
        if self.rounds < 1 or not self.megabytes > 0:
            raise UserError("--rounds must be at least 1, and --megabytes more than 0")

    def run(self) -> dict:
        from gpt1_jax.machine import text_speed

        return self.output.written(text_speed.prepare(self))
