"""The columns of a table that hold the texts, choices and label of an example.

They are called like the keys of the shape (FIELDS), else by `task.columns`, or as the files of a
known task call them. Small and capital letters and blanks around a name make no difference.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gpt1_jax.data.tasks import FIELDS, Row, Shape, folded
from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible

LABEL, CHOICES = "label", "choices"


@dataclass(frozen=True)
class Columns:
    """Which columns to look for.

    shape: of the examples.
    given: `key:column` for keys that have another name in the file, and for choices that stand in
      several columns `choices:first|second|...`.
    row: a known task, whose files may have names of their own.

    Raises UserError for a key that the shape has not.
    """

    shape: Shape
    given: tuple[str, ...] | None = None
    row: Row | None = None

    def __post_init__(self):
        keys = [text.partition(":")[0] for text in self.given or ()]
        for text in self.given or ():
            key, colon, column = text.partition(":")
            if keys.count(key) > 1:
                raise UserError(f"task.columns names {key} twice; expected each key once")
            if not (colon and column.strip()):
                raise UserError(f"task.columns={text}; expected KEY:COLUMN, as in text:review")
            if key not in self.keys:
                near = difflib.get_close_matches(key, self.keys, n=1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise UserError(
                    f"task.columns={text}: {self.shape} has no {key}{hint}; it has "
                    f"{', '.join(self.keys)}"
                )

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of an example: its texts, its choices if it has any, its label."""
        return (*required_keys(self.shape), LABEL)

    def find(self, names: Iterable[str], where: str) -> dict[str, str | list[str]]:
        """The column of each key that has one among `names`; of choices also several columns.
        UserError where task.columns names one that is not there, a label aside: new rows have
        none; or one that is taken already."""
        known: dict[str, str] = {}
        for name in names:
            known.setdefault(folded(name), name)
            known[name] = name
        given = dict(text.split(":", 1) for text in self.given or ())
        found: dict[str, str | list[str]] = {}
        for place, key in enumerate(self.keys):
            if key == LABEL and key in given:
                column = known.get(given[key]) or known.get(folded(given[key]))
                found |= {key: column} if column else {}
                continue
            if key in given:
                wanted = given[key].split("|") if key == CHOICES else [given[key]]
                columns = [_named(name, known, where) for name in wanted]
                found[key] = columns if len(columns) > 1 else columns[0]
                continue
            candidates = [key, *self._of_the_task(key, place)]
            matches = (known.get(name) or known.get(folded(name)) for name in candidates)
            column = next(filter(None, matches), None)
            numbered = _numbered(known) if key == CHOICES else []
            if column is not None:
                found[key] = column
            elif len(numbered) > 1:
                found[key] = numbered
        taken = [one for value in found.values() for one in _listed(value)]
        for column in taken:
            if taken.count(column) > 1:
                raise UserError(
                    f"{where}: task.columns={','.join(self.given or ())} takes {visible(column)} "
                    "twice; expected a column of its own for each text, each choice and the label"
                )
        return found

    def _of_the_task(self, key: str, place: int) -> list[str]:
        if self.row is None:
            return []
        if key == LABEL:
            return [self.row.label_column] if self.row.label_column else []
        lists = (self.row.features, self.row.columns)
        return [names[place] for names in lists if place < len(names)]


def required_keys(shape: Shape) -> tuple[str, ...]:
    """The keys that every row has."""
    return (*FIELDS[shape], CHOICES) if shape == "multiple_choice" else FIELDS[shape]


def _named(name: str, known: dict[str, str], where: str) -> str:
    column = known.get(name) or known.get(folded(name))
    if column is None:
        columns = visible(", ".join(dict.fromkeys(known.values())))
        raise UserError(f"{where}: task.columns names {name}, but it has {columns}")
    return column


def _listed(columns: str | list[str]) -> list[str]:
    return columns if isinstance(columns, list) else [columns]


def _numbered(known: dict[str, str]) -> list[str]:
    """choice_0, choice_1, ... or choice1, choice2, ..., in their order."""
    matches = (
        re.fullmatch(r"(?i)(?:choice|ending)s?[ _]?(\d+)", name)
        for name in dict.fromkeys(known.values())
    )
    return [m.group() for m in sorted(filter(None, matches), key=lambda m: int(m.group(1)))]
