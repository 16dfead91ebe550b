"""The only loop: pre-training, fine-tuning and every ablation are configs of the same step.

What happens now and then (evaluating, probing, recording, saving) is an action at its interval. At
a step that is due, the order is evaluate, probe, record, save: a checkpoint never knows more than
the disk does.
"""

import contextlib
import time
from pathlib import Path

import jax

from gpt1_jax.data.batches import stream
from gpt1_jax.errors import Interrupted
from gpt1_jax.messages import tell
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.experiment import Experiment, values
from gpt1_jax.run_files import provenance, read_result, revision
from gpt1_jax.runtime import compilation_cache, processes
from gpt1_jax.runtime.preemption import Signals
from gpt1_jax.storage import places
from gpt1_jax.training import banner
from gpt1_jax.training.actions import Actions
from gpt1_jax.training.progress import Progress
from gpt1_jax.training.record import MetricsWriter
from gpt1_jax.training.start import Run, start
from gpt1_jax.training.update import update_function


def run_to_end(
    run: Run,
    writer: MetricsWriter,
    progress: Progress,
    profile: tuple[int, int] | None,
    signals: Signals,
) -> dict[str, dict[str, float]]:
    """Takes the steps from the run's state to its last. Returns the last metrics of
    each split. Raises Interrupted after a signal."""
    actions = Actions(run, writer, progress)
    config = run.experiment
    update = update_function(
        run.network,
        config.optimizer,
        config.objective.lm_coef,
        run.total_steps,
        run.mesh,
        config.mesh.fsdp,
        run.schedule_after,
    )
    batches = stream(
        run.goal.source,
        run.first_step,
        run.last_step,
        config.data.driver,
        config.data.prefetch,
        run.rows,
    )
    for step, batch in enumerate(batches, run.first_step + 1):
        if profile and step == max(profile[0], run.first_step + 1) <= profile[1]:
            jax.profiler.start_trace(str(run.workdir / "profile"))
        run.state, terms = update(run.state, sharding.put_batch(run.mesh, batch), config.seed)
        progress.count(batch)
        if step == run.first_step + 1:
            signals.begin()
        stopping = signals.stop(step) and step < run.last_step
        actions.after(step, terms, stopping)
        if step == run.first_step + 1:
            actions.flush()
            progress.resume_clock()
        if profile and profile[0] <= step == min(profile[1], run.last_step):
            actions.flush()
            jax.profiler.stop_trace()
        if stopping:
            run.checkpoints.wait()
            raise Interrupted(
                f"stopped by a signal after step {step} of {run.total_steps}, which is saved "
                f"in {places.shown(run.workdir)}; the same command continues"
            )
    progress.pause_clock()
    run.checkpoints.wait()
    return actions.latest


@processes.watched()
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
    revision()  # which result.json names at the end
    workdir = places.here(workdir, new=True)
    silent = quiet or jax.process_index() != 0
    told = (lambda line: None) if silent else tell
    with contextlib.ExitStack() as closing:
        compilation_cache.begin()
        run = start(experiment, explicit, workdir, told)
        closing.callback(run.close)
        finished = read_result(workdir) if run.first_step >= run.last_step else None
        if finished and finished["step"] == run.first_step:
            told(f"{workdir} was finished at step {run.first_step:,}; nothing is left to do")
            return finished
        for line in (*banner.opening(run), *run.goal.opening(run.total_steps)):
            told(line)
        writer = MetricsWriter(
            workdir,
            experiment.log,
            run.first_step,
            active=jax.process_index() == 0,
            settings=values(run.experiment),
        )
        closing.callback(writer.close)
        progress = Progress(run, quiet)
        closing.callback(progress.close)
        signals = closing.enter_context(Signals())
        with processes.watched():
            latest = run_to_end(run, writer, progress, profile, signals)
        result = _result(run, latest, progress, time.monotonic() - began)
        writer.result(result)
        if signals.came:
            raise Interrupted(
                "stopped by a signal after the last step; all is saved in "
                f"{places.shown(workdir)}, and the same command gives the result"
            )
    return result


def _result(run: Run, latest: dict, progress: Progress, wall_seconds: float) -> dict:
    devices = run.mesh.devices.flatten()
    result = {
        "step": run.standing.step,
        "metrics": latest,
        **progress.rates(),
        "seconds": wall_seconds,
        "seeds": [run.experiment.seed],
        "n_devices": len(devices),
        "device": devices[0].device_kind,
        "tokenizer": run.config["resolved"]["tokenizer"],
        **provenance(run.config),
    }
    windows = run.goal.windows(run.experiment.eval)
    if windows:
        result["valid_windows"] = dict(zip(("read", "all"), windows, strict=True))
    if run.experiment.optimizer.skip_nonfinite:
        result["skipped"] = run.standing.skipped
    if run.goal.loaded.task.has_head:
        result["best"] = {"step": run.standing.best_step, "score": run.standing.best_score}
    return result
