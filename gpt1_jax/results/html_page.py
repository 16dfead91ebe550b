"""One HTML page with everything: no script, no link to the outside, images inlined; it prints. And
how any such page is made from its template."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2

from gpt1_jax.messages import visible
from gpt1_jax.results import cells, charts
from gpt1_jax.results.averages import rounded
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import FinishedRuns
from gpt1_jax.results.markdown import to_html
from gpt1_jax.results.paper import Paper
from gpt1_jax.results.tables import Grid

TEMPLATE = "report.html.jinja"


def page(
    title: str,
    introduction: Sequence[str],
    said: Mapping[str, Sequence[str]],
    tasks: Mapping[str, Sequence[str]],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    paper: Paper,
    found: FinishedRuns,
) -> str:
    """The page. introduction: paragraphs; said: lists by heading; both in Markdown. tasks: titles
    by kind. What several tables say below them is said once."""
    notes = [note for grid in grids for note in grid.notes]
    common = [note for note in dict.fromkeys(notes) if notes.count(note) > 1]
    values = {
        "title": title,
        "introduction": introduction,
        "said": said,
        "tasks": tasks,
        "grids": grids,
        "drawings": drawings,
        "single": found.single,
        "left_out": found.left_out,
        "common": common,
        "charts": {grid.name: charts.chart(grid) for grid in grids},
        "settings": charts.settings(paper, found),
        "commands": {
            f"table{number}": found.command(f"--table={number}") for number in paper.tables
        },
        "cells": cells,
        "rounded": rounded,
    }
    filters = {"markdown": to_html, "base64": lambda data: base64.b64encode(data).decode()}
    return rendered("results", TEMPLATE, values, filters)


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
    return environment.get_template(template).render(values).lstrip()
