"""Self-contained HTML pages from the templates that lie beside the modules which fill them."""

from collections.abc import Callable, Mapping
from typing import Any

import jinja2

from gpt1_jax.messages import visible


def rendered(
    room: str,
    template: str,
    values: Mapping[str, Any],
    filters: Mapping[str, Callable] | None = None,
) -> str:
    """The page that a template in the folder of `room` makes of `values`. What it prints is on one
    line and escaped, but for what is markup by its type; a name it does not know is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gpt1_jax", room),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters or {}
    return environment.get_template(template).render(values)
