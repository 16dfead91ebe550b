"""What happens now and then while a run is trained: evaluating, probing, recording, saving."""

import math
from dataclasses import asdict, replace
from functools import cached_property

import jax

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import zero_shot_scores
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.recipe import sharding
from gpt1_jax.storage.retention import on_grid
from gpt1_jax.training.goal import Measurement
from gpt1_jax.training.progress import Progress
from gpt1_jax.training.record import MetricsWriter
from gpt1_jax.training.start import Run


class Actions:
    """The parts of a run that act while it is trained: evaluation, record, checkpoints."""

    def __init__(self, run: Run, writer: MetricsWriter, progress: Progress):
        self.run, self.writer, self.progress = run, writer, progress
        self.pending: tuple[int, dict] | None = None
        # What was measured before a resume belongs to the result too.
        self.latest = dict(writer.newest)

    def after(self, step: int, terms: dict, stopping: bool) -> None:
        """Acts on the end of a step: looks at the terms of the one before, does what is due."""
        run, config = self.run, self.run.experiment
        ending = step == run.total_steps
        previous, self.pending = self.pending, (step, terms)
        if previous:
            self.observe(*previous)
        # Stopping early adds no evaluation, so that a run in pieces records what a whole one does.
        evaluating = ending or config.eval.due(step, run.goal.steps_per_epoch)
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
        better = evaluating and self.evaluate(step)
        if probing:
            self.probe(step)
        if evaluating and run.samples:
            self.sample(step)
        self.writer.flush()
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
        skipped = values.pop("skipped", 0.0)
        if skipped:
            values = self._skipped(step, values)
        self._require_finite(step, "", values)
        if config.optimizer.skip_nonfinite:
            values["skipped"] = self.run.standing.skipped
        self.latest["train"] = values
        if step % config.log.every == 0 or step == self.run.total_steps:
            self.writer.row(step, "train", values, self.progress.rates())
        if not skipped:
            self.progress.training(step, values)

    def _skipped(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Counts an update that changed nothing. Returns what of its values is finite."""
        run = self.run
        run.standing = replace(run.standing, skipped=run.standing.skipped + 1)
        what = ", ".join(f"{name} {values[name]}" for name in ("loss", "grad_norm"))
        self.progress.say(f"step {step}: {what}; skipped, as {run.standing.skipped} so far")
        return {name: value for name, value in values.items() if math.isfinite(value)}

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
        """Records what the goal measures, and says whether a score is the best so far."""
        run, before = self.run, self.run.standing
        for measurement in run.goal.measure(placed(run), run.experiment.eval):
            self._require_finite(step, measurement.split, measurement.metrics)
            self._record(step, measurement)
            run.standing = run.standing.after(step, measurement.score)
        return run.standing != before

    def probe(self, step: int) -> None:
        """Records what the zero-shot probes find."""
        rows = zero_shot_scores.measure(self.run.questions, placed(self.run))
        self._record(step, Measurement("probes", zero_shot_scores.metrics(rows)))

    def sample(self, step: int) -> None:
        """Shows what the model writes."""
        text = self.run.samples.text(self.run.state.params)
        if text is not None:
            self.writer.text(step, "sample", text)
            self.progress.say(f"step {step}/{self.run.last_step} sample: {text!r}")

    def _record(self, step: int, found: Measurement) -> None:
        self.latest[found.split] = found.metrics
        self.writer.row(step, found.split, found.metrics)
        known = {name: value for name, value in found.metrics.items() if value is not None}
        shown = " ".join(f"{name} {value:.4f}" for name, value in known.items())
        if found.score is not None and self.progress.visible:
            others = ", ".join(f"{name} {value:.4f}" for name, value in self._compared.items())
            shown += f" ({self.run.goal.loaded.task.metric} of {others})"
        self.progress.say(f"step {step}/{self.run.last_step} {found.split}: {shown}")
        for remark in found.remarks:
            self.progress.say(f"step {step}/{self.run.last_step} {found.split}: {remark}")

    @cached_property
    def _compared(self) -> dict[str, float]:
        return self.run.goal.compared()

    def save(self, step: int) -> None:
        run = self.run
        run.held.require()
        run.standing = replace(run.standing, step=step)
        run.checkpoints.save(step, run.state.params, run.state.optimizer, asdict(run.standing))


def placed(run: Run) -> PlacedModel:
    """The model as it is now. A batch is divided by rows over the devices, so its size is rounded
    up to what they divide."""
    by_rows = sharding.batch_sharding(run.mesh)
    data = run.mesh.shape["data"]
    return PlacedModel(
        run.network,
        run.state.params,
        put=lambda x: jax.make_array_from_callback(x.shape, by_rows, lambda index: x[index]),
        batch_size=math.ceil(run.experiment.eval.batch_size / data) * data,
    )
