"""What is asked of a quickstart or a reproduction. Imports neither JAX nor anything slow, because
the command line takes its flags and their defaults from here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from gpt1_jax.errors import UserError
from gpt1_jax.flags import Flag, require_one
from gpt1_jax.typed_values import require_seed

TableNumber = Literal[1, 2, 3, 4, 5]
FigureName = Literal["2left", "2right", "labels", "tokens"]
Scale = Literal["paper", "small"]
MOST_MINUTES = 60 * 24 * 31


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Where a quickstart is kept, and the minutes to plan for. It takes longer where the machine is
    too slow for a table that says something in that time. UserError for less than a minute or more
    than a month."""

    workdir: Annotated[str, Flag("folder for the runs and their result")] = "runs/quickstart"
    minutes: Annotated[float, Flag("time to plan for")] = 8.0

    def __post_init__(self):
        if not 1 <= self.minutes <= MOST_MINUTES:
            raise UserError(f"--minutes={self.minutes:g}; expected 1 to {MOST_MINUTES}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to reproduce, and from what.

    table or figure: of the paper.
    tasks: names of the tasks table, or folders so called; None takes those of the paper's.
    variants: of the ways to train that the table compares; None takes all.
    data: tokens of `prepare` to pre-train on; initial, initial_lstm: in place of pre-training.
    task_data: a folder with one folder of files for each task; data_dir: where TFDS keeps its own.
    workers: rows of tasks at a time, and bodies; they share the cores, or the GPU.
    settings: config keys for the runs that read them, as on the command line of `train`.

    Raises UserError for both or none of table and figure, for seeds that are equal or too large,
    for weights where the figure is about making them, and for no workers.
    """

    table: Annotated[TableNumber | None, Flag()] = None
    figure: Annotated[FigureName | None, Flag()] = None
    workdir: Annotated[str, Flag("folder for the runs and their report")]
    scale: Annotated[Scale, Flag()] = "paper"
    seeds: Annotated[tuple[int, ...], Flag()] = (0, 1, 2)
    tasks: Annotated[
        tuple[str, ...] | None, Flag("names or folders, with commas; default: those of the paper")
    ] = None
    variants: Annotated[
        tuple[str, ...] | None, Flag("rows of table 5, with commas; default: all of them")
    ] = None
    data: Annotated[str | None, Flag("a folder of prepare, to pre-train on", "TOKENS")] = None
    task_data: Annotated[str | None, Flag("a folder with a folder of each task's files", "D")] = (
        None
    )
    data_dir: Annotated[str | None, Flag("where TensorFlow Datasets keeps its data", "D")] = None
    initial: Annotated[str | None, Flag("weights in place of pre-training", "WORKDIR")] = None
    initial_lstm: Annotated[str | None, Flag("the same for the LSTM", "WORKDIR")] = None
    workers: Annotated[int, Flag("rows of tasks that are trained at a time, each in a process")] = 1
    settings: Annotated[
        Mapping[str, str], Flag("a key of the config of the runs", "VALUE", name="config.KEY")
    ] = field(default_factory=dict)

    def __post_init__(self):
        require_one(table=self.table, figure=self.figure)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds={','.join(map(str, self.seeds))}; expected different numbers")
        for seed in self.seeds:
            require_seed(seed, "--seeds")
        if self.figure == "tokens" and self.initial is not None:
            raise UserError("--figure=tokens pre-trains for longer and longer; leave out --initial")
        if self.workers < 1:
            raise UserError(f"--workers={self.workers}; expected 1 or more")
