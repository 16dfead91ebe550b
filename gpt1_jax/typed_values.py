"""Values of config keys and flags, as the types of the dataclasses that hold them.

pydantic says whether a value is of a type, strictly: no number is made of a word, nor a truth value
of a number. How text is read before that, and the one line that says what does not fit, are ours.
"""

import ast
import contextlib
import difflib
import functools
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from gpt1_jax.errors import UserError

# Of float32, which models are computed in: what is larger is infinite there.
LARGEST = (2 - 2**-23) * 2.0**127
_ELEMENTS = {int: "whole numbers", float: "numbers", str: "words"}


def convert(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type `hint`: text, as the command line gives it, is read as a literal, and
    where a tuple is wanted as a list with commas. Raises UserError where it is of another type, in
    a line that begins with `name`."""
    # Imported where it is used: `--help` has no values, and answers before pydantic is loaded.
    from pydantic import ValidationError

    for reading in _readings(value, hint):
        try:
            found = _adapter(hint).validate_python(reading, strict=True)
        except ValidationError:
            continue
        if isinstance(found, float) and LARGEST < abs(found) < math.inf:
            raise UserError(f"{name} is {found:g}; expected at most {LARGEST:.2g}, as float32 has")
        return found
    near = nearest(str(value), words(hint))
    hint_of_near = f"; did you mean {near}?" if near else ""
    raise UserError(f"{name} is {value!r}; expected {expected(hint)}{hint_of_near}")


@functools.cache
def _adapter(hint: Any):
    from pydantic import TypeAdapter

    return TypeAdapter(hint)


def _readings(value: Any, hint: Any) -> list[Any]:
    """What a value may mean where the type `hint` is wanted."""
    options = alternatives(hint)
    readings = _readings_of_text(value, hint) if isinstance(value, str) else [value]
    if any(typing.get_origin(option) is tuple for option in options):
        readings = [_as_tuple(reading) for reading in readings]
    if int in options and float not in options:
        # 1e6 is how people write a million updates.
        whole = [isinstance(reading, float) and reading.is_integer() for reading in readings]
        readings = [int(r) if w else r for r, w in zip(readings, whole, strict=True)]
    # True is 1 to Python, and so to a Literal of numbers.
    return [r for r in readings if bool in options or not isinstance(r, bool)]


def _readings_of_text(text: str, hint: Any) -> list[Any]:
    options, known = alternatives(hint), words(hint)
    if type(None) in options and text in ("None", "none") and text not in known:
        return [None]
    if str in options:
        return [text]
    readings: list[Any] = [text] if known else []
    if bool in options and text.lower() in ("true", "false"):
        readings.append(text.lower() == "true")
    with contextlib.suppress(ValueError, TypeError, SyntaxError):
        readings.append(ast.literal_eval(text))
    if any(typing.get_origin(option) is tuple for option in options):
        parts = [part.strip() for part in text.split(",")]
        readings += [parts] if all(parts) else []
    return readings


def _as_tuple(reading: Any) -> Any:
    """A list as a tuple, and a single number or word as a tuple of one."""
    if isinstance(reading, list):
        return tuple(reading)
    return (reading,) if isinstance(reading, int | str) else reading


def require_seed(seed: int, name: str) -> None:
    """Raises UserError for a seed that random numbers of 32 bits cannot tell from another."""
    if not 0 <= seed < 2**31:
        raise UserError(f"{name} is {seed}; expected 0 <= seed < 2**31")


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the only one there is."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return typing.get_args(hint) if union else (hint,)


def words(hint: Any) -> tuple[str, ...]:
    """The members of the closed sets among the types of a union, or of the elements of a tuple."""
    found: list[str] = []
    for option in alternatives(hint):
        if typing.get_origin(option) is Literal:
            found += map(str, typing.get_args(option))
        elif typing.get_origin(option) is tuple:
            found += words(typing.get_args(option)[0])
    return tuple(found)


def expected(hint: Any) -> str:
    """A type in words: `int or None`, `one of paper, released`, `numbers with commas between`."""
    names = []
    for option in alternatives(hint):
        known, several = ", ".join(words(option)), typing.get_origin(option) is tuple
        plain = str(option) if typing.get_args(option) else getattr(option, "__name__", str(option))
        if several:
            plain = f"{_ELEMENTS.get(typing.get_args(option)[0], 'values')} with commas between"
        if option is bool:
            plain = "True or False"
        names.append(f"{'some' if several else 'one'} of {known}" if known else plain)
    return " or ".join(names).replace("NoneType", "None")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that looks most like this one, in capitals or not, if any does."""
    by_small_letters = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), by_small_letters, n=1)
    return by_small_letters[found[0]] if found else None
