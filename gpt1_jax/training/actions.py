"""What happens now and then while a run is trained: evaluating, probing, recording, saving."""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import numpy as np

from gpt1_jax.data.batches import Examples
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate, zero_shot_scores
from gpt1_jax.recipe import sharding
from gpt1_jax.training.progress import Progress
from gpt1_jax.training.record import Record
from gpt1_jax.training.start import Run
from gpt1_jax.weights.checkpoint import on_grid


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
    rows = zero_shot_scores.measure(
        run.questions,
        run.network,
        run.state["params"],
        _place_for_evaluation(run),
        _evaluation_config(run).batch_size,
    )
    return zero_shot_scores.metrics(rows)
