"""Reading JSON, in one place: what a file holds is checked for its shape, not only for its syntax.

A shape is a type: dict[str, str], a TypedDict, a dataclass. Whatever is not as it says is one line
that names the file and the key.
"""

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from gpt1_jax.errors import UserError

T = TypeVar("T")


class _Unusual(ValueError):
    """What Python's parser would take although no JSON file of ours has it."""


def read(path: Path, shape: type[T], remedy: str, what: str = "") -> T:
    """The value in a file. `remedy` ends the line about one that cannot be used, `what` it is
    stands after its name.

    Raises:
      FileNotFoundError: there is none.
      UserError: it cannot be read, is no JSON, or of another shape.
    """
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(str(path)) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    return parse(content, shape, f"{path}: {what}" if what else str(path), remedy)


def parse(content: bytes, shape: type[T], place: str, remedy: str) -> T:
    """The value of a text, which stands at `place`. Raises UserError like `read`."""
    try:
        json.loads(
            content.decode(),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_finite,
        )
    except RecursionError:
        raise UserError(f"{place}: not JSON (nested too deeply); {remedy}") from None
    except _Unusual as error:
        raise UserError(f"{place}: not JSON ({error}); {remedy}") from None
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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Unusual(f"key {twice!r} stands twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise _Unusual(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if math.isinf(number := float(digits)):
        _no_number(digits)
    return number
