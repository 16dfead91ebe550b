"""Reading JSON, in one place: what a file holds is checked for its shape, not only for its syntax.

A shape is a type: dict[str, str], a TypedDict, a dataclass. Whatever is not as it says is one line
that names the file and the key.
"""

import codecs
import dataclasses
import functools
import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from gpt1_jax import disk
from gpt1_jax.errors import UserError

T = TypeVar("T")
# Digits of a whole number; a label or an id has fewer, and a double no more.
LONGEST_NUMBER = 309


def read(path: Path, shape: type[T], remedy: str, what: str = "") -> T:
    """The value in a file. `remedy` ends the line about one that cannot be used, `what` it is
    stands after its name.

    Raises:
      FileNotFoundError: there is none.
      UserError: it cannot be read, is no JSON, or of another shape.
    """
    try:
        content = disk.content(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    # Editors of Windows begin a file with a mark, which is no JSON.
    content = content.removeprefix(codecs.BOM_UTF8)
    return parse(content, shape, f"{path}: {what}" if what else str(path), remedy)


def parse(content: bytes, shape: type[T], place: str, remedy: str) -> T:
    """The value of a text, which stands at `place`. Raises UserError like `read`."""
    try:
        decode(content.decode())
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error}); {remedy}") from None
    return _checked(content, shape, place, remedy)


def shaped(value: Any, shape: type[T], place: str, remedy: str) -> T:
    """A part of what was read, of a shape that only its reader knows. Raises UserError like
    `read`."""
    return _checked(json.dumps(value).encode(), shape, place, remedy)


def _checked(content: bytes, shape: type[T], place: str, remedy: str) -> T:
    from pydantic import ValidationError

    # A file may know more than its reader does, a dataclass not.
    extra = "forbid" if dataclasses.is_dataclass(shape) else "allow"
    try:
        return _adapter(cast(Any, shape)).validate_json(content, strict=True, extra=extra)
    except UserError as error:  # of a dataclass, which knows no file
        raise UserError(f"{place}: {error}; {remedy}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        what = first["msg"][:1].lower() + first["msg"][1:]
        raise UserError(f"{place}{': ' + key if key else ''}: {what}; {remedy}") from None


@functools.cache
def _adapter(shape: Any):
    # Imported when a file is read: the help of the command line does not wait for it.
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def decode(text: str) -> Any:
    """The value of a text, all of it. Raises ValueError, which says in words what is no JSON: also
    what Python's parser would take, a key that stands twice, NaN, half a surrogate pair."""
    value, end = decode_from(text, _BLANK.match(text).end())  # type: ignore[union-attr]
    if rest := text[end:].strip(" \t\r\n"):
        raise ValueError(f"there is more after the value: {rest[:20]!r}")
    return value


def decode_from(text: str, start: int) -> tuple[Any, int]:
    """The value that begins at `start`, without blanks before it, and where it ends. Raises
    ValueError as `decode` does."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    # Text that was decoded has whole characters only, but an escape may stand for half of one.
    if text.find("\\u", start, end) >= 0:
        _require_characters(value)
    return value, end


def _require_characters(value: Any, key: str = "") -> None:
    if isinstance(value, dict):
        for name, inner in value.items():
            _require_characters(name, key)
            _require_characters(inner, name)
    elif isinstance(value, list):
        for inner in value:
            _require_characters(inner, key)
    elif isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
        where = f"{key} has " if key else ""
        raise ValueError(f"{where}half a surrogate pair, which is no character")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)} stands there twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        _no_number(digits[:40])
    return number


def _whole(digits: str) -> int:
    if len(digits) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_no_number, parse_float=_finite, parse_int=_whole
)
