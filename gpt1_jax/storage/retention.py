"""Which checkpoints of a run stay while newer ones come."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gpt1_jax.errors import UserError


@dataclass(frozen=True)
class CheckpointConfig:
    """Save after every `every` updates; keep the newest `keep`, and besides them the best one.

    `per_decade` checkpoints of each factor of ten in updates are saved and kept as well, evenly on
    a logarithmic axis (`on_grid`): the points of figure 2 (right) of the paper. 0 saves none. What
    earlier commands of a run have kept by other settings stays (`Retention.spare`).
    """

    every: int = 1000
    keep: int = 2
    per_decade: int = 0

    def __post_init__(self):
        for name, least in (("every", 1), ("keep", 1), ("per_decade", 0)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"checkpoint.{name} is {value}; expected at least {least}")


def on_grid(step: int, per_decade: int) -> bool:
    """Whether a step is one of `per_decade` in each factor of ten, rounded to whole steps.

    >>> [step for step in range(1, 101) if on_grid(step, 3)]
    [1, 2, 5, 10, 22, 46, 100]
    """
    if step < 1 or per_decade < 1:
        return False
    nearest = round(math.log10(step) * per_decade)
    return step == round(10 ** (nearest / per_decade))


@dataclass
class Retention:
    """What is kept: by the settings, the best step so far, and what other settings have kept.

    best: None where no step is better than others. spared: steps that this command deletes not,
    though its settings would.
    """

    config: CheckpointConfig
    best: int | None = None
    spared: set[int] = field(default_factory=set)

    def kept(self, steps: Sequence[int]) -> set[int]:
        """Those of the steps, ascending, that stay."""
        grid = {step for step in steps if on_grid(step, self.config.per_decade)}
        others = {self.best, *self.spared}.intersection(steps)
        return grid.union(steps[-self.config.keep :], others)

    def spare(
        self, before: CheckpointConfig, steps: Sequence[int], already: Iterable[int]
    ) -> list[int]:
        """Spares those of the steps, ascending, that a command with the settings `before` kept and
        these would delete, now or later; and those that were spared `already`. Returns them.
        """
        newest = set(steps[-before.keep :] if before.keep > self.config.keep else ())
        grid = {step for step in steps if on_grid(step, before.per_decade)}
        left = newest.union(grid, already).intersection(steps)
        self.spared |= {step for step in left if not on_grid(step, self.config.per_decade)}
        return sorted(self.spared)
