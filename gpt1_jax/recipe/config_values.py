"""Dotted keys: of nested dicts, and of nested dataclasses, which they fill with typed values."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt1_jax.errors import UserError
from gpt1_jax.typed_values import convert, nearest


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one dict with dotted keys."""
    flat = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
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


def keys(cls: Any, prefix: str = "") -> list[str]:
    """The keys of a dataclass whose sections are dataclasses."""
    found = []
    for name, hint in typing.get_type_hints(cls).items():
        key = prefix + name
        found += keys(hint, key + ".") if dataclasses.is_dataclass(hint) else [key]
    return found


def require_keys(given: Iterable[str], known: Sequence[str]) -> None:
    """Raises UserError for a key that is none of the known ones, with the nearest of them."""
    last_words = {key.rpartition(".")[2]: key for key in reversed(known)}
    for key in given:
        if key not in known:
            near = nearest(key, known) or last_words.get(
                nearest(key.rpartition(".")[2], last_words) or ""
            )
            hint = f"; did you mean {near!r}?" if near else ""
            raise UserError(f"unknown config key {key!r}{hint}")


def build(cls: Any, given: Mapping[str, Any], prefix: str = "") -> Any:
    """The dataclass with the values of dotted keys `given`, each as the type of its field, and the
    defaults for all others. Raises UserError for a value of another type."""
    values = {}
    for name, hint in typing.get_type_hints(cls).items():
        key = prefix + name
        if dataclasses.is_dataclass(hint):
            values[name] = build(hint, given, key + ".")
        elif key in given:
            values[name] = _text(convert(given[key], hint, key), key)
    return cls(**values)


def _text(value: Any, key: str) -> Any:
    """The value. UserError if it has no form in config.json: bytes that are not UTF-8, which the
    names of files may have, and half surrogate pairs."""
    for word in value if isinstance(value, tuple) else (value,):
        if isinstance(word, str) and "\0" in word:
            raise UserError(f"{key} is {word!r}; expected text without a NUL")
        if isinstance(word, str) and not word.isascii():
            try:
                word.encode()
            except UnicodeEncodeError:
                raise UserError(f"{key} is {word!r}; expected text, or a name in UTF-8") from None
    return value
