"""What is asked of a quickstart or a reproduction. Imports neither JAX nor anything slow, because
the command line takes its flags and their defaults from here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from gpt1_jax.errors import UserError

TableNumber = Literal[1, 2, 3, 4, 5]
FigureName = Literal["2left", "2right"]
Scale = Literal["paper", "small"]


@dataclass(frozen=True, kw_only=True)
class QuickstartConfig:
    """Where a quickstart is kept, and the time to plan for. It takes longer where the machine is
    too slow for a table that says something in that time."""

    workdir: str = "runs/quickstart"
    minutes: float = 8.0

    def __post_init__(self):
        if not (self.minutes >= 1 and math.isfinite(self.minutes)):
            raise UserError(f"--minutes={self.minutes:g}; expected at least 1")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to reproduce, and from what.

    table: 1 to 5; or figure: "2left" or "2right".
    tasks: names of the tasks table, or folders so called; None takes those of the paper's.
    data: tokens of `prepare` to pre-train on; initial, initial_lstm: weights in place of that.
    task_data: a folder with one folder of files for each task; data_dir: where TFDS keeps its own.
    settings: config keys for the runs, as on the command line of `train`.
    """

    workdir: str
    table: TableNumber | None = None
    figure: FigureName | None = None
    scale: Scale = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    tasks: tuple[str, ...] | None = None
    data: str | None = None
    task_data: str | None = None
    data_dir: str | None = None
    initial: str | None = None
    initial_lstm: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if (self.table is None) == (self.figure is None):
            raise UserError("expected one of --table and --figure")
        for name, kind in (("table", TableNumber), ("figure", FigureName), ("scale", Scale)):
            value, known = getattr(self, name), get_args(kind)
            if value is not None and value not in known:
                expected = ", ".join(map(str, known))
                raise UserError(f"--{name}={value}; expected one of {expected}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"--seeds={','.join(map(str, self.seeds))}; expected different numbers")
