"""One HTML page with everything: no script, no link to the outside, images inlined; it prints."""

import base64
from collections.abc import Mapping, Sequence

from gpt1_jax.results import cells
from gpt1_jax.results.averages import rounded
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import FinishedRun
from gpt1_jax.results.html_template import rendered
from gpt1_jax.results.markdown import to_html
from gpt1_jax.results.tables import Grid

TEMPLATE = "report.html.jinja"


def page(
    title: str,
    introduction: Sequence[str],
    said: Mapping[str, Sequence[str]],
    tasks: Mapping[str, Sequence[str]],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    single: Sequence[FinishedRun],
) -> str:
    """The page. introduction: paragraphs; said: lists by heading; both in Markdown. tasks: titles
    by kind."""
    values = {
        "title": title,
        "introduction": introduction,
        "said": said,
        "tasks": tasks,
        "grids": grids,
        "drawings": drawings,
        "single": single,
        "cells": cells,
        "rounded": rounded,
    }
    filters = {"markdown": to_html, "base64": lambda data: base64.b64encode(data).decode()}
    return rendered("results", TEMPLATE, values, filters)
