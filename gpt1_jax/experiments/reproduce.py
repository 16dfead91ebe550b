"""Many runs that make a table or a figure of the paper.

Each run has a folder of its own in the workdir and is not done again, so a reproduction that was
stopped goes on where it was, and another table in the same workdir shares what they have in common.
What there is, and why the rest is missing, stands in reproduction.json, which is all that the
report needs besides the folders of the runs.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from gpt1_jax.disk import WorkdirLock, require_here
from gpt1_jax.errors import PartlyFailed, UserError
from gpt1_jax.evaluation.probes import PROBES, ProbeConfig, probe_tasks
from gpt1_jax.experiments import ahead
from gpt1_jax.experiments.cell_settings import CellSettings, cell_settings
from gpt1_jax.experiments.clock import Count, hours_at
from gpt1_jax.experiments.config import Request
from gpt1_jax.experiments.fine_tuning import FineTuning, variants_of
from gpt1_jax.experiments.ledger import Ledger
from gpt1_jax.experiments.pretraining import Weights, pretraining_config
from gpt1_jax.experiments.requirements import (
    Sources,
    check_weights,
    say_what_is_not_read,
    sources,
    weights_given,
)
from gpt1_jax.experiments.runs import BODIES, body_of
from gpt1_jax.inference import probe_curve
from gpt1_jax.messages import amount, say, tell
from gpt1_jax.recipe import experiment, memory
from gpt1_jax.results import report
from gpt1_jax.results.paper import Paper, read_paper
from gpt1_jax.runtime.peaks import peak

# What each task is a question of, in figure 2 (right); any other multiple choice is one of answers.
PROBE_OF = {"sst2": "sentiment", "cola": "acceptability", "dprd": "pronoun_resolution"}


def reproduce(request: Request) -> dict:
    """Runs what is missing of a table or figure, and reports on all that the workdir has.

    Returns `table`: the median over seeds by variant and task, None where there is no run;
    `missing`: why; `report`: its folder.

    Raises UserError for what does not fit, before anything runs; PartlyFailed at the end if a cell
    failed; Interrupted after a signal.
    """
    paper = read_paper()
    workdir = Path(request.workdir).expanduser()
    require_here(workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; expected a folder")
    Ledger(request)  # one that is damaged is said before anything is looked for
    bodies = _bodies(request, paper)
    trained = [body for body in bodies if weights_given(request, body) is None]
    settings = cell_settings(request, pretrains=bool(trained))
    found = sources(request, paper)
    cells = _cells(request, paper, settings)
    fill = _filling(request, found, settings, cells)
    if request.workers > 1:
        ahead.share_devices()
    for body in trained:
        experiment.load(pretraining_config(request.scale, body), settings.pretraining)
    check_weights(request, bodies, workdir)
    say_what_is_not_read(request, bodies, trained)
    with WorkdirLock(workdir):
        ledger = Ledger(request)
        weights = Weights(request, settings.pretraining, ledger)
        tell(f"in all: {how_much(request, found, cells, weights, trained)}")
        if request.workers > 1:
            runs = [weights.run(body) for body in trained]
            runs += weights.shorter() if request.figure == "tokens" else []
            ahead.train([[run] for run in runs], request.workers)
        fill(weights, ledger)
        ledger.save()
        written = report.report(workdir, workdir / "report")
    result = {
        "scale": request.scale,
        "seeds": list(request.seeds),
        "table": ledger.table(list(paper.variants), [*found.names, *found.absent]),
        "probes": ledger.content["probes"],
        "missing": ledger.missing,
        "report": str(workdir / "report"),
        "files": written["files"],
    }
    if ledger.failures:
        others = len(ledger.failures) - 1
        more = f"; and {others} more, see `missing`" if others else ""
        raise PartlyFailed(f"failed: {ledger.failures[0]}{more}; the rest was done", result)
    return result


def how_much(
    request: Request,
    found: Sources,
    cells: FineTuning | None,
    weights: Weights,
    trained: Sequence[str],
) -> str:
    """What is to be trained, how long that takes by its products alone, and the memory of a model
    with its moments. What TFDS has yet to read is left out of the time."""
    tokens, flops = weights.work(trained)
    said = [f"{tokens / 1e6:,.1f} million tokens of pre-training"] if tokens else []
    if cells is not None:
        known = [cells.work(source, weights) for source in found.tasks if source.path]
        flops += sum(work for _, work in known)
        unknown = len(found.tasks) - len(known)
        said.append(f"{sum(runs for runs, _ in known):,} runs of fine-tuning")
        said += [f"those of {unknown} tasks of TFDS, which the time is without"] if unknown else []
    if not flops:
        return ", ".join(said) or "no training"
    model = max(map(weights.model, trained or BODIES[:1]), key=lambda one: one.n_parameters)
    device, n_devices = jax.devices()[0], jax.device_count()
    hours = hours_at(flops, peak(device, model.dtype).tflops * n_devices)
    state = amount(memory.of_state(model) * request.workers)
    return f"{', '.join(said)}; {hours} on {n_devices} x {device.device_kind}, {state} for models"


def _bodies(request: Request, paper: Paper) -> tuple[str, ...]:
    """The bodies whose weights the request starts from."""
    if request.table == 1:
        return ()
    if request.figure == "2right":
        return BODIES
    return tuple(dict.fromkeys(body_of(variant) for variant in variants_of(request, paper)))


def _cells(request: Request, paper: Paper, settings: CellSettings) -> FineTuning | None:
    """What is fine-tuned; nothing for table 1 and figure 2 (right)."""
    if request.table == 1 or request.figure == "2right":
        return None
    return FineTuning(request, variants_of(request, paper), settings.fine_tuning)


def _filling(
    request: Request, found: Sources, settings: CellSettings, cells: FineTuning | None
) -> Callable[[Weights, Ledger], None]:
    """What fills the cells, given the weights. Raises UserError for tasks and settings that the
    cells cannot use."""
    if request.figure == "2right":
        config = probe_config(request, found, settings.probes)
        return functools.partial(_probe, request.figure, config, found)
    if cells is None:
        return lambda weights, ledger: None
    for source in found.tasks:
        cells.check(source)
    return functools.partial(_fine_tune, cells, found)


def _fine_tune(cells: FineTuning, found: Sources, weights: Weights, ledger: Ledger) -> None:
    """Tables 2 to 5, figure 2 (left), and the curves by labels and by tokens."""
    for task, reason in found.absent.items():
        for variant in cells.variants:
            ledger.add_absent(variant.name, task, cells.request.figure, reason)
    if cells.request.workers > 1:
        # Runs of a kind share what a process has compiled.
        groups = [group for source in found.tasks for group in cells.runs(source, weights, ledger)]
        cells = replace(cells, ready=ahead.train(groups, cells.request.workers))
    count = Count(len(found.tasks) * len(cells.variants))
    for source in found.tasks:
        cells.fill(source, weights, ledger, count)
        # Another task has texts of other lengths, thus other programs. Each has a hundred mappings
        # of memory, and Linux lets a process have 65,530.
        jax.clear_caches()


def _probe(
    figure: str, config: ProbeConfig, found: Sources, weights: Weights, ledger: Ledger
) -> None:
    """The zero-shot probes on every stored checkpoint of both bodies: figure 2 (right)."""
    for task, reason in found.absent.items():
        say(f"no probe of {task}: {reason}")
    for body in BODIES:
        try:
            rows = probe_curve.curve(weights.of(body), config)
        except UserError as error:
            ledger.add_failure(body, "probes", figure, error)
        else:
            weights.add_given(body)
            ledger.add_probes(body, rows, figure)


def probe_config(request: Request, found: Sources, settings: dict[str, str]) -> ProbeConfig:
    """Each probe on the task that it can be asked about, with the settings on top; a probe whose
    task is absent is left out.

    Raises UserError for two tasks of one probe, for tasks in several folders, and for one whose
    files its probe cannot use.
    """
    chosen: dict[str, Any] = dict.fromkeys(PROBES)
    for name in found.names:
        probe = PROBE_OF.get(name, "question_answering")
        if chosen[probe] is not None:
            raise UserError(
                f"--tasks={','.join(found.names)}: the probe {probe} is put to one task, and both "
                f"{chosen[probe]} and {name} are of that kind"
            )
        chosen[probe] = name
    folders = {source.path and str(Path(source.path).parent) for source in found.tasks}
    if len(folders) > 1:
        raise UserError("the tasks of the probes lie in several places; put them into one folder")
    base = ProbeConfig(path=folders.pop(), data_dir=request.data_dir, **chosen)
    config = experiment.section("probes", base, settings)
    if config.path is not None:
        probe_tasks(config)
    return config
