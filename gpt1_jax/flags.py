"""Flags of the command line from a dataclass: its fields are the table of them, argparse reads it.

The libraries that do this are too slow for a `--help` under 0.1 s. Processor time of the help of
one verb with nine flags, where `python -c pass` takes 20 ms: tyro 1.0 210 ms, cyclopts 5.5 200 ms,
simple-parsing 0.1.9 120 ms, and here 70 ms. tyro also says each mistake in a box of several lines.
"""

import argparse
import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, NamedTuple, NoReturn, TypeVar, Union

from gpt1_jax.errors import UserError
from gpt1_jax.typed_values import alternatives, convert, nearest, words

Fields = TypeVar("Fields")
# What begins with this is a key of the config, whichever there are.
CONFIG = "--config."


@dataclass(frozen=True)
class Flag:
    """What a field is on the command line, as in `Annotated[int, Flag("how many")] = 3`.

    `name` is that of the field unless given; `metavar` stands for the value in the help; with
    `several` it takes several words, `--input a b c`, otherwise a tuple is written with commas. The
    help ends with the default unless it speaks of it.

    A field whose type is a mapping holds all `--config.KEY=VALUE`, by dotted key and as text. One
    whose type is a dataclass stands for the flags of that. One without a Flag is not on the command
    line.
    """

    help: str = ""
    metavar: str | None = None
    name: str | None = None
    several: bool = False


# The type of a field of every verb that tells how far it is; `messages.hushed` heeds it.
Quiet = Annotated[bool, Flag("no progress")]


class _Row(NamedTuple):
    """A field with the name of its flag and its type without None."""

    field: dataclasses.Field
    name: str
    hint: Any
    flag: Flag

    @property
    def required(self) -> bool:
        return self.field.default is MISSING and self.field.default_factory is MISSING

    @property
    def holds_keys(self) -> bool:
        return typing.get_origin(self.hint) is Mapping


# Text, and the name of a column, which may be empty. In any other flag nothing, as of a variable
# that is not set, would be the current folder or the default.
TEXTS = ("prompt", "text_key")


# Of other flags the last value counts, as scripts have it that add words to a command; of what is
# read, whoever gives two means both.
ONCE = ("input", "runs")


class _Given(argparse.Namespace):
    """Values of flags. UserError for two where one would be left out in silence."""

    def __setattr__(self, name: str, value: Any) -> None:
        before = getattr(self, name, value)
        if name in ONCE and isinstance(value, str) and value != before:
            raise UserError(f"--{name} is given twice, {before} and {value}; expected one of them")
        super().__setattr__(name, value)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other mistake is said."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def parse(prog: str, cls: type[Fields], given: Sequence[str]) -> Fields:
    """The dataclass `cls` filled from the words that follow `prog` on a command line.

    Raises UserError for a flag that does not exist, is missing or has a value of another type, and
    what the dataclass itself raises.
    """
    holder = next((row.name for row in _rows(cls) if row.holds_keys), None)
    keys = [word for word in given if holder and word.startswith(CONFIG)]
    others = [word for word in given if word not in keys]
    known = names(cls)
    for word in others:
        if word.startswith("--") and word.partition("=")[0] not in known:
            raise UserError(f"{prog} takes no {word}{_hint(prog, word, known)}")
    found, rest = _parser(prog, cls).parse_known_args(others, _Given())
    if rest:
        raise UserError(f"{prog} takes no {rest[0]!r} (see {prog} --help)")
    for name, value in vars(found).items():
        if value == "" and name not in TEXTS:
            raise UserError(f"--{name} is empty; expected a value")
    return _filled(cls, vars(found) | ({holder: _by_key(keys)} if holder else {}))


def names(cls: type) -> list[str]:
    """The flags of a dataclass, as in --input."""
    return [f"--{row.name}" for row in _rows(cls)]


def require_one(**given: Any) -> None:
    """Raises UserError unless one of the flags, given by name with what they hold, is there."""
    chosen = [f"--{name}" for name, value in given.items() if value]
    if len(chosen) != 1:
        found = f", got {' and '.join(chosen)}" if chosen else ""
        raise UserError(f"expected one of {', '.join(f'--{name}' for name in given)}{found}")


def usage(prog: str, cls: type) -> str:
    """The help of a command, whose description is the docstring of `cls`."""
    return _parser(prog, cls).format_help()


def _hint(prog: str, word: str, known: Sequence[str]) -> str:
    if word.startswith(CONFIG):
        return ": it reads no config"
    near = nearest(word.partition("=")[0], known)
    return (f"; did you mean {near}?" if near else "") + f" (see {prog} --help)"


def _parser(prog: str, cls: type) -> _Parser:
    parser = _Parser(prog=prog, description=cls.__doc__, allow_abbrev=False)
    for row in _rows(cls):
        settings: dict[str, Any] = {"dest": row.name, "help": _help(row)}
        if row.hint is bool:
            settings["action"] = "store_true"
        else:
            settings["metavar"] = row.flag.metavar or "|".join(words(row.hint)) or None
            settings["required"] = row.required
        if row.flag.several:
            settings |= {"nargs": "+", "action": "extend"}  # given again, it adds
        parser.add_argument(f"--{row.name}", default=argparse.SUPPRESS, **settings)
    return parser


def _help(row: _Row) -> str:
    text, default = row.flag.help, row.field.default
    if default not in (MISSING, None, False, ()) and "default" not in text:
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{text}; default: {shown}" if text else f"default: {shown}"
    return text.replace("%", "%%")


def _fields(cls: Any) -> Iterator[tuple[dataclasses.Field, Any, _Row | None]]:
    """Each field of a dataclass with its type, and the row of its flag if it has one."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        hint, *extras = _plain(hints[field.name])
        flags = [extra for extra in extras if isinstance(extra, Flag)]
        options = [option for option in alternatives(hint) if option is not type(None)]
        row = _Row(field, flags[0].name or field.name, Union[*options], flags[0]) if flags else None
        yield field, hint, row


def _plain(hint: Any) -> tuple[Any, ...]:
    """The type of a hint, and what Annotated adds to it."""
    return typing.get_args(hint) if typing.get_origin(hint) is Annotated else (hint,)


def _rows(cls: Any) -> Iterator[_Row]:
    """The flags of a dataclass, in the order of its fields, those of nested ones among them."""
    for _, hint, row in _fields(cls):
        if dataclasses.is_dataclass(hint):
            yield from _rows(hint)
        elif row is not None:
            yield row


def _filled(cls: Any, values: Mapping[str, Any]) -> Any:
    filled = {}
    for field, hint, row in _fields(cls):
        if dataclasses.is_dataclass(hint):
            filled[field.name] = _filled(hint, values)
        elif row is not None and row.name in values:
            value = values[row.name]
            if row.name in TEXTS:
                value = _text(value, f"--{row.name}")
            filled[field.name] = (
                value if row.holds_keys else convert(value, row.hint, f"--{row.name}")
            )
    return cls(**filled)


def _text(value: str, flag: str) -> str:
    """A text as it was typed, which is UTF-8 whatever the locale says: in that of C Python takes
    what is not ASCII for bytes of the names of files."""
    try:
        return os.fsencode(value).decode()
    except UnicodeEncodeError:  # it came from no command line
        return value
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(
            f"{flag}: byte {error.start} is {byte:02X}, which is not UTF-8; expected text in UTF-8"
        ) from None


def _by_key(words: Sequence[str]) -> dict[str, str]:
    """`--config.a.b=v` as {"a.b": "v"}."""
    found = {}
    for word in words:
        key, equals, value = word.removeprefix(CONFIG).partition("=")
        if not key or not equals:
            raise UserError(f"unknown argument {word!r}; write --config.KEY=VALUE")
        found[key] = value
    return found
