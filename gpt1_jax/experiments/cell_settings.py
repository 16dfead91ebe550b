"""Which of the config keys given to `reproduce` reach which of its cells.

A key of the tasks is for fine-tuning alone and one of the probes for figure 2 (right) alone; all
others are for pre-training and fine-tuning alike. What a cell sets itself, or none of the cells
reads, is refused before anything runs.
"""

from dataclasses import dataclass

from gpt1_jax.errors import UserError
from gpt1_jax.evaluation.probes import PROBES
from gpt1_jax.experiments.config import Request
from gpt1_jax.recipe import experiment
from gpt1_jax.recipe.config_values import require_keys

# Keys that the cells set themselves, or that would make them something else.
SET_BY_CELLS = {
    "seed": "fine-tuning takes its seeds from --seeds",
    "initial": "weights are given by --initial and --initial_lstm",
    "n_transfer": "the rows of table 5 and the points of figure 2 (left) differ in it",
    "objective.lm_coef": "the rows of table 5 differ in it",
    "model.body": "the rows of table 5 differ in it",
    "stop_after": "a cell is a whole run",
    "data.path": "tokens are given by --data",
    "task.name": "tasks are named by --tasks",
    "task.path": "the files of tasks are given by --task_data, or by folders in --tasks",
    "task.data_dir": "it is given by --data_dir",
    "probes.path": "the files of tasks are given by --task_data",
    "probes.data_dir": "it is given by --data_dir",
    **{f"probes.{probe}": "tasks are named by --tasks" for probe in PROBES},
    "probes.per_decade": "the probes are put to all checkpoints, which checkpoint.per_decade adds",
}


@dataclass(frozen=True)
class CellSettings:
    """The settings for each kind of cell, by dotted key."""

    pretraining: dict[str, str]
    fine_tuning: dict[str, str]
    probes: dict[str, str]


def cell_settings(request: Request, pretrains: bool) -> CellSettings:
    """The request's settings by the kind of cell that reads them. `pretrains`: whether a body is
    trained here, rather than given.

    Raises UserError for a key that does not exist, that cells set themselves, or that none reads.
    """
    asked = f"--table={request.table}" if request.table else f"--figure={request.figure}"
    fine_tunes = request.table != 1 and request.figure != "2right"
    require_keys(request.settings, experiment.KEYS)
    found = CellSettings({}, {}, {})
    for key, value in request.settings.items():
        if key in SET_BY_CELLS:
            raise UserError(f"--config.{key} is not for reproduce: {SET_BY_CELLS[key]}")
        section = key.partition(".")[0]
        readers = []
        if section == "probes":
            readers += [found.probes] if request.figure == "2right" else []
        else:
            readers += [found.fine_tuning] if fine_tunes else []
            readers += [found.pretraining] if pretrains and section != "task" else []
        if not readers:
            raise UserError(f"--config.{key}: nothing in {asked} reads it{_who_does(section)}")
        for reader in readers:
            reader[key] = value
    return found


def _who_does(section: str) -> str:
    if section == "probes":
        return "; the probes are those of --figure=2right"
    if section == "task":
        return "; tasks are trained on for --table=2 to 5 and --figure=2left"
    return ", for nothing is trained"
