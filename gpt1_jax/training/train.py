"""The only loop: pre-training, fine-tuning and every ablation are configs of the same step.

What happens now and then (evaluating, probing, recording, saving) is an action at its interval. At
a step that is due, the order is evaluate, probe, record, save: a checkpoint never knows more than
the disk does.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from gpt1_jax.data.batches import Examples, stream
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.evaluation import evaluate, probes
from gpt1_jax.model import objective
from gpt1_jax.model.objective import Network
from gpt1_jax.results.record import Record, provenance, read_result
from gpt1_jax.training import sharding
from gpt1_jax.training.checkpoint import on_grid
from gpt1_jax.training.experiment import Experiment
from gpt1_jax.training.optimizer import OptimizerConfig, optimizer
from gpt1_jax.training.start import Run, initial_state, start

Update = Callable[[dict, dict, int], tuple[dict, dict]]


# Seeds, starting weights and data are arguments, so the runs of a table share one compiled program.
@functools.lru_cache(maxsize=8)
def update_function(
    network: Network, config: OptimizerConfig, lm_coef: float, total_steps: int, mesh: Mesh
) -> Update:
    """One compiled update: (state, batch, seed) -> (state, terms of the loss), where the seed
    chooses the dropout masks. The state is donated."""
    transformation = optimizer(config, total_steps)
    parts = config.accumulation

    def gradients(params, batch, seed, step):
        def loss(params):
            return objective.loss(network, lm_coef, params, batch, seed, step)

        (_, terms), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return gradient, terms

    def accumulated(params, batch, seed, step):
        """The mean over microbatches, each of which takes its rows from every device's share."""
        split = jax.tree.map(
            lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1), batch
        )
        first = jax.tree.map(lambda x: x[0], split)
        shapes = jax.eval_shape(gradients, params, first, seed, step)
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

        def add(total, microbatch):
            return jax.tree.map(jnp.add, total, gradients(params, microbatch, seed, step)), None

        total, _ = jax.lax.scan(add, zeros, split)
        return jax.tree.map(lambda leaf: leaf / parts, total)

    def update(state, batch, seed):
        compute = accumulated if parts > 1 else gradients
        gradient, terms = compute(state["params"], batch, seed, state["step"])
        updates, moments = transformation.update(gradient, state["optimizer"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        terms["grad_norm"] = optax.tree.norm(gradient)
        return {"params": params, "optimizer": moments, "step": state["step"] + 1}, terms

    _, shardings, _ = initial_state(network, config, mesh)
    everywhere = sharding.replicated(mesh)
    return jax.jit(update, donate_argnums=0, out_shardings=(shardings, everywhere))


class Signals:
    """Notes SIGTERM and SIGINT while training, and leaves at once on the second.

    With several processes the notice comes from the coordination service, which makes all of them
    stop at the same step; a handler of our own would take the signal away from it.
    """

    def __init__(self):
        self.received = False
        self._several = jax.process_count() > 1
        self._before = {}

    def __enter__(self):
        if not self._several:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if self.received:
            os._exit(130)
        self.received = True
        print("stopping after this step; once more leaves at once", file=sys.stderr)

    def stop(self, step: int) -> bool:
        """Whether to save and stop after `step`; asked once a step by every process."""
        if self._several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.received


class Progress:
    """Speed, and what a person sees of it: a bar on a terminal, else a line every ten seconds."""

    def __init__(self, run: Run, quiet: bool):
        self._model = run.experiment.model
        self._batch_size = run.experiment.batch_size
        self._terminal = sys.stderr.isatty()
        self._quiet = quiet or jax.process_index() != 0
        self._bar = tqdm(
            total=run.last_step,
            initial=run.first_step,
            unit="step",
            disable=self._quiet or not self._terminal,
        )
        self._said = time.monotonic()
        self._since = None
        self.seconds = 0.0
        self.tokens = 0
        self._flops = 0

    def count(self, shape: tuple[int, ...]) -> None:
        """A batch was trained on, of which this process has [B, C, L]. Time is counted from the
        end of the first, which compiles."""
        if self._since is not None:
            n_tokens = self._batch_size * math.prod(shape[1:])
            self.tokens += n_tokens
            self._flops += n_tokens * self._model.flops_per_token(shape[-1])
        self._bar.update()

    def resume_clock(self) -> None:
        self._since = time.monotonic()

    def pause_clock(self) -> None:
        """Leaves out what is no training: evaluating and saving."""
        if self._since is not None:
            self.seconds += time.monotonic() - self._since
            self._since = None

    def rates(self) -> dict[str, float]:
        """tokens_per_s and tflops_per_s of the training steps so far."""
        seconds = self.seconds + (time.monotonic() - self._since if self._since else 0.0)
        if not self.tokens or seconds <= 0:
            return {"tokens_per_s": 0.0, "tflops_per_s": 0.0}
        return {
            "tokens_per_s": self.tokens / seconds,
            "tflops_per_s": self._flops / seconds / 1e12,
        }

    def training(self, step: int, values: dict[str, float]) -> None:
        """Shows the newest loss."""
        rates = self.rates()
        speed = f"{rates['tokens_per_s']:,.0f} tok/s {rates['tflops_per_s']:.3g} TFLOP/s"
        text = f"loss {values['loss']:.4f} {speed}"
        self._bar.set_postfix_str(text, refresh=False)
        if not self._terminal and time.monotonic() - self._said > 10:
            self.say(f"step {step}/{self._bar.total}: {text}")

    def say(self, line: str) -> None:
        """One line on standard error, above the bar if there is one."""
        if not self._quiet:
            self._said = time.monotonic()
            tqdm.write(line, file=sys.stderr)

    def close(self) -> None:
        self._bar.close()


class Trainer:
    """The parts of a run that act while it is trained: evaluation, record, checkpoints."""

    def __init__(self, run: Run, record: Record, progress: Progress):
        self.run, self.record, self.progress = run, record, progress
        self.pending = None
        # What was measured before a resume belongs to the result too.
        self.latest = dict(record.newest)
        self._per_epoch = run.source.steps_per_epoch if run.task else None

    def after(self, step: int, terms: dict, stopping: bool) -> None:
        """Acts on the end of a step: looks at the terms of the one before, does what is due."""
        run, config = self.run, self.run.experiment
        ending = step == run.total_steps
        previous, self.pending = self.pending, (step, terms)
        if previous:
            self.observe(*previous)
        # Stopping early adds no evaluation, so that a run in pieces records what a whole one does.
        evaluating = ending or config.eval.due(step, self._per_epoch)
        probing = run.questions and (ending or on_grid(step, config.probes.per_decade))
        saving = (
            stopping
            or step == run.last_step
            or step % config.checkpoint.every == 0
            or on_grid(step, config.checkpoint.per_decade)
        )
        if not (evaluating or probing or saving):
            return
        self.flush()
        self.progress.pause_clock()
        better = self.evaluate(step) if evaluating and run.held_out is not None else False
        if probing:
            self.probe(step)
        self.record.flush()
        if saving or better:
            self.save(step)
        self.progress.resume_clock()

    def flush(self) -> None:
        """Looks at the newest step too, which waits for the devices."""
        if self.pending:
            self.observe(*self.pending)
            self.pending = None

    def observe(self, step: int, terms: dict) -> None:
        """Records a step's terms, each step's loss being checked and every log.every-th written."""
        values = {name: float(value) for name, value in jax.device_get(terms).items()}
        config = self.run.experiment
        self._require_finite(step, "", values)
        self.latest["train"] = values
        if step % config.log.every == 0 or step == self.run.total_steps:
            self.record.row(step, "train", values)
        self.progress.training(step, values)

    def _require_finite(self, step: int, split: str, values: dict[str, float]) -> None:
        names = [name for name in ("loss", "grad_norm") if name in values]
        if all(math.isfinite(values[name]) for name in names):
            return
        self.run.checkpoints.wait()
        good, _ = self.run.checkpoints.newest_sound()
        where = f"step {good} in {self.run.checkpoints.folder}" if good is not None else "none"
        what = ", ".join(f"{split} {name} {values[name]}".strip() for name in names)
        raise UserError(
            f"{what} at step {step}; the last good checkpoint is {where}; a lower "
            "optimizer.learning_rate may help"
        )

    def evaluate(self, step: int) -> bool:
        """Records the held-out metrics, and says whether they are the best so far of a task."""
        run = self.run
        if run.task is None:
            metrics, split = held_out_metrics(run), "valid"
        else:
            metrics, split = dev_metrics(run), "dev"
        self._require_finite(step, split, metrics)
        self._record(step, split, metrics)
        if run.task is None:
            return False
        if run.experiment.eval.train_examples:
            self._record(step, "train_examples", train_metrics(run))
        score, best = metrics[run.task.task.metric], run.progress["best_score"]
        if best is not None and score <= best:
            return False
        run.progress |= {"best_score": score, "best_step": step}
        return True

    def probe(self, step: int) -> None:
        """Records what the zero-shot probes find."""
        self._record(step, "probes", probe_metrics(self.run))

    def _record(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self.latest[split] = metrics
        self.record.row(step, split, metrics)
        shown = " ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        self.progress.say(f"step {step}/{self.run.last_step} {split}: {shown}")

    def save(self, step: int) -> None:
        self.run.progress["step"] = step
        state = self.run.state
        self.run.checkpoints.save(step, state["params"], state["optimizer"], self.run.progress)


def _place_for_evaluation(run: Run) -> Callable[[np.ndarray], jax.Array]:
    """Puts a whole batch, known to every process, on the devices by rows."""
    by_rows = sharding.batch_sharding(run.mesh)
    return lambda x: jax.make_array_from_callback(x.shape, by_rows, lambda index: x[index])


def _evaluation_config(run: Run) -> evaluate.EvaluationConfig:
    """The batch rounded up to what the devices divide."""
    data, config = run.mesh.shape["data"], run.experiment.eval
    return dataclasses.replace(config, batch_size=math.ceil(config.batch_size / data) * data)


def held_out_metrics(run: Run) -> dict[str, float]:
    """Loss, perplexity and bits per byte of the valid split."""
    config = _evaluation_config(run)
    place = _place_for_evaluation(run)
    total, count = evaluate.stream_losses(
        run.network,
        run.state["params"],
        run.held_out.read,
        len(run.held_out),
        config,
        place,
        config.windows,
    )
    n_tokens = len(run.held_out)
    return evaluate.perplexity_metrics(total, count, n_tokens, run.held_out.split_info)


def dev_metrics(run: Run) -> dict[str, float]:
    """Loss and the metric of the task on the dev split."""
    return _task_metrics(run, "dev", run.held_out, len(run.held_out))


def train_metrics(run: Run) -> dict[str, float]:
    """The same on the first eval.train_examples of the training set."""
    count = min(run.experiment.eval.train_examples, len(run.source))
    return _task_metrics(run, "train", run.source, count)


def _task_metrics(run: Run, split: str, source: Examples, count: int) -> dict[str, float]:
    batch_size = _evaluation_config(run).batch_size
    place = _place_for_evaluation(run)
    logits = evaluate.answer_all(
        run.network,
        run.state["params"],
        itertools.islice(source.evaluation(batch_size), math.ceil(count / batch_size)),
        lambda batch: jax.tree.map(place, batch),
        count,
    )
    return evaluate.task_metrics(run.task, split, logits)


def probe_metrics(run: Run) -> dict[str, float]:
    """Each probe's value and its place between chance and the best known."""
    rows = probes.measure(
        run.questions,
        run.network,
        run.state["params"],
        _place_for_evaluation(run),
        _evaluation_config(run).batch_size,
    )
    return probes.metrics(rows)


def run_to_end(run: Run, record: Record, progress: Progress, profile: tuple[int, int] | None):
    """Takes the steps from the run's state to its last. Raises Interrupted after a signal."""
    trainer = Trainer(run, record, progress)
    config = run.experiment
    update = update_function(
        run.network, config.optimizer, config.objective.lm_coef, run.total_steps, run.mesh
    )
    batches = stream(
        run.source,
        run.first_step,
        run.last_step,
        config.data.driver,
        config.data.prefetch,
        run.rows,
    )
    with Signals() as signals:
        for step, batch in enumerate(batches, run.first_step + 1):
            if profile and step == max(profile[0], run.first_step + 1) <= profile[1]:
                jax.profiler.start_trace(str(run.workdir / "profile"))
            run.state, terms = update(run.state, sharding.place_batch(run.mesh, batch), config.seed)
            progress.count(batch["tokens"].shape)
            stopping = signals.stop(step) and step < run.last_step
            trainer.after(step, terms, stopping)
            if step == run.first_step + 1:
                trainer.flush()
                progress.resume_clock()
            if profile and profile[0] <= step == min(profile[1], run.last_step):
                trainer.flush()
                jax.profiler.stop_trace()
            if stopping:
                run.checkpoints.wait()
                raise Interrupted(
                    f"stopped by a signal after step {step} of {run.total_steps}, which is saved "
                    f"in {run.workdir}; the same command continues"
                )
    progress.pause_clock()
    run.checkpoints.wait()
    return trainer.latest


def train(
    experiment: Experiment,
    explicit: set[str],
    workdir: str | Path,
    *,
    profile: tuple[int, int] | None = None,
    quiet: bool = False,
) -> dict:
    """Trains, or resumes, and returns what it wrote to result.json.

    Raises UserError before the first step for whatever does not fit, and at the step where the
    loss is no longer finite; Interrupted after a signal.
    """
    began = time.monotonic()
    workdir = Path(workdir).expanduser()
    say = (lambda line: None) if quiet else None
    with contextlib.ExitStack() as closing:
        run = start(experiment, explicit, workdir, say)
        closing.callback(run.close)
        finished = read_result(workdir) if run.first_step >= run.last_step else None
        if finished and finished["step"] == run.first_step:
            return finished
        record = Record(workdir, experiment.log, run.first_step, jax.process_index() == 0)
        closing.callback(record.close)
        progress = Progress(run, quiet)
        closing.callback(progress.close)
        latest = run_to_end(run, record, progress, profile)
        result = _result(run, latest, progress, time.monotonic() - began)
        record.result(result)
    return result


def _result(run: Run, latest: dict, progress: Progress, wall_seconds: float) -> dict:
    devices = run.mesh.devices.flatten()
    result = {
        "step": run.progress["step"],
        "metrics": latest,
        **progress.rates(),
        "seconds": wall_seconds,
        "seeds": [run.experiment.seed],
        "n_devices": len(devices),
        "device": devices[0].device_kind,
        "tokenizer": run.config["resolved"]["tokenizer"],
        **provenance(run.config),
    }
    if run.task:
        result["best"] = {name: run.progress[f"best_{name}"] for name in ("step", "score")}
    return result
