"""Timed runs of what users run: the update, fine-tuning, sampling. In rounds, with medians.

Every function returns the line that `gpt1 benchmark` prints. Its keys are those of a PyTorch peer
(benchmarks/peer_torch.py), so that the two can be set beside each other: `tokens_per_s` is what a
ratio is taken of. TFLOP/s count the matrix products with full L x L attention, whatever half of it
an implementation leaves out.
"""

import contextlib
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from gpt1_jax.data.batches import Examples, Source, Windows, stream
from gpt1_jax.evaluation import sample as sampling
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.machine import peer, profile
from gpt1_jax.machine.config import (
    FineTuneBenchmark,
    Rounds,
    SampleBenchmark,
    Sizes,
    TrainBenchmark,
)
from gpt1_jax.machine.step import Step, step
from gpt1_jax.messages import say
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network
from gpt1_jax.recipe import experiment as experiments
from gpt1_jax.recipe import memory, sharding
from gpt1_jax.recipe.attention_choice import choose, device_of
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.run_files import versions
from gpt1_jax.runtime import compilation_cache
from gpt1_jax.runtime.peaks import peak
from gpt1_jax.text.shards import Tokens
from gpt1_jax.training.state import with_ready_bits

GIB = 2**30
# Batches that are placed once and taken in turn, as the peer does it.
PLACED = 4
# Lengths of SST-2's training phrases in tokens, roughly: 2 to 66, 9.8 on average, drawn as a
# lognormal number; and the two special tokens around them.
SST2_LOG_MEAN, SST2_LOG_SPREAD, SST2_LONGEST = 2.0, 0.75, 66


@dataclass(frozen=True)
class Timing:
    """Seconds of one unit of work in each round."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def in_milliseconds(self) -> dict[str, float]:
        each = self.seconds
        named = {"ms_median": self.median, "ms_min": min(each), "ms_max": max(each)}
        return {name: 1e3 * value for name, value in named.items()}


class Training:
    """A compiled update with its state, which goes on from step to step over the given batches."""

    def __init__(
        self, made: Step, cached: bool = False, options: jax.stages.CompilerOptions | None = None
    ):
        """`cached`: the program may be one that was kept from before. `options`: of the compiler,
        beside those of the update."""
        self.made = made
        self.seed, self.span = made.experiment.seed, made.update.span
        origin = made.origin
        self.state = origin.fresh(jax.random.key(self.seed))
        began = time.perf_counter()
        with contextlib.nullcontext() if cached else compilation_cache.off():
            self.compiled = made.lowered().compile(options)
        self.compile_seconds = time.perf_counter() - began
        self.loss = float("nan")

    def run(self, batches: Iterator[dict[str, jax.Array]], n_steps: int) -> float:
        """Seconds of so many updates, with their batches, until the last is done."""
        began = time.perf_counter()
        terms = None
        for batch in itertools.islice(batches, n_steps):
            self.state, terms = self.compiled(self.state, batch, self.seed, self.span)
        if terms is not None:
            self.loss = float(terms["loss"])
        return time.perf_counter() - began

    def rounds(self, batches: Iterator[dict[str, jax.Array]], asked: Rounds) -> Timing:
        """After the updates of the warm-up."""
        self.run(batches, asked.warmup)
        taken = [self.run(batches, asked.steps) / asked.steps for _ in range(asked.rounds)]
        return Timing(taken)

    def memory(self) -> dict[str, float | None]:
        """GiB of temporaries as the compiler planned them, and the peak that the device knows."""
        stats = self.made.mesh.devices.flat[0].memory_stats() or {}
        used = stats.get("peak_bytes_in_use")
        planned = self.compiled.memory_analysis().temp_size_in_bytes
        return {"temp_gib": planned / GIB, "peak_gib": None if used is None else used / GIB}


def train(asked: TrainBenchmark) -> dict[str, Any]:
    """`gpt1 benchmark train`. Raises UserError for what does not fit, before anything is timed."""
    given: dict[str, Any] = {
        "batch_size": asked.batch,
        "model.n_ctx": asked.seq,
        "model.dropout": asked.dropout,
    }
    if asked.implementation is not None:
        given["attention.implementation"] = asked.implementation
    if asked.shards is not None:
        given["data.path"] = asked.shards
    described = _experiment(asked.sizes, given, {"steps": 10**6})
    kind = _kind("train", described)
    line = peer.read(asked.output.vs, kind) if asked.output.vs else None
    made = step(described, jax.devices())
    memory.check_update(made.experiment, made.experiment.model.n_ctx)
    training = Training(made)
    n_steps = asked.rounds.warmup + (asked.rounds.rounds + 1) * asked.rounds.steps
    if asked.shards is None:
        batches = itertools.cycle(_placed(made, _windows(made.experiment)))
    else:
        batches = _streamed(made, _windows(made.experiment), n_steps)
    first = training.run(batches, 1)
    timing = training.rounds(batches, asked.rounds)
    result = {
        **kind,
        "vocab": made.experiment.model.vocab_size,
        "compile": True,
        "implementation": made.experiment.attention.implementation,
        "batches": "placed" if asked.shards is None else "streamed from shards",
        **timing.in_milliseconds(),
        **_speed(made, timing.median),
        **training.memory(),
        "loss": training.loss,
        "compile_seconds": training.compile_seconds,
        "first_step_seconds": training.compile_seconds + first,
    }
    if asked.restart:
        result["first_step_seconds"] = _starts(made, batches)
    if asked.kernels:
        result |= _profiled(made, batches, asked.rounds.steps)
    return result if line is None else {**result, **peer.compared(result, line)}


def _kind(mode: str, described: Experiment) -> dict[str, Any]:
    """What was timed, which a key of the config may have set rather than a flag."""
    model = described.model
    return {
        "peer": "gpt1-jax",
        "mode": mode,
        "dtype": model.dtype,
        "dropout": model.dropout,
        "batch": described.batch_size,
        "seq": model.n_ctx,
        **_sizes(model),
    }


def _sizes(model: ModelConfig) -> dict[str, Any]:
    return {"layers": model.n_layer, "d": model.n_embd, "heads": model.n_head}


def _experiment(sizes: Sizes, given: dict[str, Any], more: dict[str, Any]) -> Experiment:
    return experiments.experiment(
        {
            "model.vocab_size": sizes.vocab,
            "model.n_embd": sizes.d,
            "model.n_head": sizes.heads,
            "model.n_layer": sizes.layers,
            "model.dtype": sizes.long_dtype,
            **more,
            **given,
            **sizes.keys,
        }
    )


def _windows(experiment: Experiment) -> Windows:
    """Of the shards, or of random tokens where there are none."""
    model, path = experiment.model, experiment.data.path
    tokens: Any = RandomTokens(model.vocab_size, PLACED * experiment.batch_size * model.n_ctx)
    if path is not None:
        tokens = Tokens.open(path, "train")
    mode = experiment.data.windows
    return Windows(tokens, model.n_ctx, experiment.batch_size, experiment.seed, mode)


class RandomTokens:
    """A stream of tokens drawn alike from the vocabulary."""

    def __init__(self, vocab_size: int, count: int):
        self._ids = np.random.default_rng(0).integers(0, vocab_size, count, np.int32)

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._ids[start:stop]


def _placed(made: Step, source: Source) -> list[dict[str, jax.Array]]:
    return [sharding.put_batch(made.mesh, source.batch(n)) for n in range(PLACED)]


def _streamed(made: Step, source: Source, n_steps: int) -> Iterator[dict[str, jax.Array]]:
    """As the training loop has them, with a few more than are asked for."""
    config = made.experiment.data
    for batch in stream(source, 0, n_steps + PLACED, config.driver, config.prefetch):
        yield sharding.put_batch(made.mesh, batch)


def _speed(made: Step, seconds: float) -> dict[str, Any]:
    """Of an update that takes so long."""
    experiment = made.experiment
    rate = made.batch["tokens"].size / seconds
    tflops = rate * experiment.model.flops_per_token(experiment.model.n_ctx) / 1e12
    return {"tokens_per_s": rate, **_of_peak(made, tflops), **_machine()}


def _of_peak(made: Step, tflops: float) -> dict[str, Any]:
    """TFLOP/s of all devices, and how much that is of what they could do."""
    best = peak(made.mesh.devices.flat[0], made.experiment.model.dtype)
    return {
        "tflops_per_s": tflops,
        "attention_count": "full",
        "fraction_of_peak": tflops / (best.tflops * made.mesh.size),
        "peak_tflops_per_s": best.tflops * made.mesh.size,
        "peak_source": best.source,
    }


def _machine() -> dict[str, Any]:
    devices = jax.devices()
    return {
        "device": devices[0].device_kind,
        "n_devices": len(devices),
        "version": versions()["jax"],
        "versions": versions(),
    }


def _profiled(made: Step, batches: Iterator[dict[str, jax.Array]], n_steps: int) -> dict[str, Any]:
    # A GPU is given whole lists of kernels, whose times nobody knows apart.
    on_gpu = made.mesh.devices.flat[0].platform == "gpu"
    training = Training(made, options={"xla_gpu_enable_command_buffer": ""} if on_gpu else None)
    training.run(batches, 1)
    return profile.of_step(training.compiled, lambda: training.run(batches, n_steps), n_steps)


def _starts(made: Step, batches: Iterator[dict[str, jax.Array]]) -> dict[str, float]:
    """Seconds from tracing to the end of the first step, with an empty compilation cache (cold) and
    with what that left in it (warm), as a second start of the same training finds it."""
    taken = {}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        compilation_cache.at(folder),
    ):
        for name in ("cold", "warm"):
            jax.clear_caches()
            training = Training(made, cached=True)
            taken[name] = training.compile_seconds + training.run(batches, 1)
    return taken


def fine_tune(asked: FineTuneBenchmark) -> dict[str, Any]:
    """`gpt1 benchmark finetune`: the same batches of examples packed, in buckets and padded to the
    context, two classes, with the auxiliary loss. A round has the same examples in each."""
    given: dict[str, Any] = {
        "batch_size": asked.batch,
        "model.n_ctx": asked.seq,
        "model.dropout": asked.dropout,
    }
    more = {"steps": 10**6, "task.name": "sst2", "optimizer.schedule": "warmup_linear"}
    described = _experiment(asked.sizes, given, more)
    kind = _kind("finetune", described)
    line = peer.read(asked.output.vs, kind) if asked.output.vs else None
    n_batches, batch, n_ctx = asked.rounds.steps, described.batch_size, described.model.n_ctx
    memory.check_update(described, n_ctx)
    lengths = _sst2_lengths(n_batches * batch, n_ctx)
    found, flops, real = {}, {}, int(lengths.sum())
    for name in ("packed", "buckets", "padded"):
        data = replace(described.data, buckets=(n_ctx,)) if name == "padded" else described.data
        made = step(replace(described, data=data), jax.devices()[:1])
        examples = _examples(made, lengths, packed=name == "packed")
        found[name] = _epochs(made, examples, asked.rounds)
        flops[name] = _flops(made, examples, n_batches) / n_batches
        say(f"{name}: {found[name].median:.3g} s for an update")
    each = {name: batch / timing.median for name, timing in found.items()}
    timing = found["buckets"]
    tflops = flops["buckets"] / timing.median / 1e12
    result = {
        **kind,
        **timing.in_milliseconds(),
        "buckets": list(described.data.buckets),
        "mean_length": real / len(lengths),
        "tokens_per_s": real / n_batches / timing.median,
        "sequences_per_s": each["buckets"],
        "padded_sequences_per_s": each["padded"],
        "padded_ms_median": found["padded"].in_milliseconds()["ms_median"],
        "ratio_to_padding": each["buckets"] / each["padded"],
        "packed_sequences_per_s": each["packed"],
        "packed_ms_median": found["packed"].in_milliseconds()["ms_median"],
        "ratio_of_packing": each["packed"] / each["buckets"],
        **_of_peak(made, tflops),
        **_machine(),
    }
    return result if line is None else {**result, **peer.compared(result, line)}


def _sst2_lengths(count: int, longest: int) -> np.ndarray:
    drawn = np.random.default_rng(0).lognormal(SST2_LOG_MEAN, SST2_LOG_SPREAD, count)
    words = np.clip(np.round(drawn), 2, SST2_LONGEST).astype(np.int64)
    return np.minimum(words + 2, longest)


def _examples(made: Step, lengths: np.ndarray, packed: bool) -> Examples:
    experiment, random = made.experiment, np.random.default_rng(1)
    candidates = [[random.integers(0, experiment.model.vocab_size, n)] for n in lengths]
    return Examples(
        candidates,
        random.integers(0, 2, len(lengths)).astype(np.int32),
        n_ctx=experiment.model.n_ctx,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        buckets=experiment.data.buckets,
        packed=packed,
    )


def _flops(made: Step, examples: Examples, n_batches: int) -> int:
    """Of so many batches, padding included."""
    shapes = [examples.batch(n)["tokens"].shape for n in range(n_batches)]
    model = made.experiment.model
    return sum(math.prod(shape) * model.flops_per_token(shape[-1]) for shape in shapes)


def _epochs(made: Step, examples: Examples, asked: Rounds) -> Timing:
    """Seconds of an update in each round, which is an epoch. The first epoch compiles every length
    that there is, and is not timed."""
    update, seed = made.update, made.experiment.seed
    origin = made.origin
    state, taken = origin.fresh(jax.random.key(seed)), []
    for _ in range(asked.rounds + 1):
        began = time.perf_counter()
        # The same epoch each time, so that rounds have the same lengths.
        for batch in stream(examples, 0, asked.steps, "thread", made.experiment.data.prefetch):
            state, terms = update(state, sharding.put_batch(made.mesh, batch), seed)
        float(terms["loss"])
        taken.append((time.perf_counter() - began) / asked.steps)
    return Timing(taken[1:])


def sample(asked: SampleBenchmark) -> dict[str, Any]:
    """`gpt1 benchmark sample`: random weights and a random prompt, from the 40 likeliest tokens."""
    model = _experiment(asked.sizes, {}, {"steps": 1}).model
    kind = {
        "peer": "gpt1-jax",
        "mode": "generate",
        "dtype": model.dtype,
        "batch": asked.batch,
        "new_tokens": asked.new,
        "prompt": asked.prompt,
        **_sizes(model),
    }
    line = peer.read(asked.output.vs, kind) if asked.output.vs else None
    memory.check_sampling(model, asked.batch, "--batch")
    attention = choose("auto", device_of(jax.devices()[0]), model).implementation
    net = network(model, attention, None, 0)
    placed = PlacedModel(net, with_ready_bits(jax.jit(net.init))(jax.random.key(0)))
    prompt = np.random.default_rng(0).integers(0, model.vocab_size, asked.prompt).tolist()
    config = SampleConfig(length=asked.new, num_samples=asked.batch, top_k=40, stop="none")

    def generate() -> float:
        began = time.perf_counter()
        sampling.generate(placed, prompt, config, model.vocab_size)
        return time.perf_counter() - began

    first = generate()
    timing = Timing([generate() for _ in range(asked.rounds)])
    result = {
        **kind,
        "vocab": model.vocab_size,
        "s_median": timing.median,
        "s_min": min(timing.seconds),
        "s_max": max(timing.seconds),
        "ms_per_token": 1e3 * timing.median / asked.new,
        "tokens_per_s": asked.batch * asked.new / timing.median,
        "first_call_seconds": first,
        **_machine(),
    }
    best = peak(jax.devices()[0], model.dtype)
    # Forward alone is a third; attention reads what there is of the context, half of it on average.
    flops = model.flops_per_token((asked.prompt + asked.new) // 2) / 3
    tflops = result["tokens_per_s"] * flops / 1e12
    result |= {
        "tflops_per_s": tflops,
        "attention_count": "cached keys",
        "fraction_of_peak": tflops / best.tflops,
        "peak_source": best.source,
    }
    return result if line is None else {**result, **peer.compared(result, line)}
