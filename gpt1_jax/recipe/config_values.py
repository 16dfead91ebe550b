"""Values of a config as their types: text from the command line is read as a literal."""

import ast
import types
import typing
from collections.abc import Mapping
from typing import Any

from gpt1_jax.errors import UserError


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        section = tree
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = value
    return tree


def convert(value: Any, hint: Any, key: str) -> Any:
    """`value` as the type `hint`; text, as the command line gives it, is read as a literal."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    readings = _readings(value, options)
    if types.NoneType in options and (None in readings or value in ("None", "none")):
        return None
    for reading in readings:
        for option in options:
            converted = _as_type(reading, option)
            if converted is not None:
                return converted
    names = " or ".join(getattr(option, "__name__", str(option)) for option in options)
    raise UserError(f"{key} is {value!r}; expected {names.replace('NoneType', 'None')}")


def _readings(value: Any, options: tuple) -> list[Any]:
    """What a value may mean: text is a literal where no text is wanted, and a list with commas."""
    if not isinstance(value, str) or str in options:
        return [value]
    readings = [value.split(",")] if any(map(_is_tuple, options)) else []
    try:
        return [ast.literal_eval(value), *readings]
    except (ValueError, SyntaxError):
        return readings


def _is_tuple(hint: Any) -> bool:
    return typing.get_origin(hint) is tuple


def _as_type(value: Any, hint: Any) -> Any:
    """The value as one plain type or tuple, None where it is of another type."""
    if _is_tuple(hint):
        items = [value] if isinstance(value, int | str) else value
        element = typing.get_args(hint)[0]
        options = typing.get_args(element) or (element,)
        fits = isinstance(items, list | tuple) and all(
            isinstance(item, options) and not isinstance(item, bool) for item in items
        )
        return tuple(items) if fits else None
    if hint is bool:
        return value if isinstance(value, bool) else None
    if isinstance(value, bool):
        return None
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e6 is how people write a million updates
    if hint is float and isinstance(value, int):
        return float(value)
    return value if isinstance(hint, type) and isinstance(value, hint) else None
