"""From result files to tables, figures and one page, beside the published numbers.

Needs no JAX and none of the data: a laptop with copies of config.json, result.json, metrics.jsonl
and reproduction.json is enough. The same files give the same report.
"""

from collections.abc import Sequence
from pathlib import Path

from gpt1_jax import disk
from gpt1_jax.errors import UserError
from gpt1_jax.results import claims, figures, finished_runs, html_page, markdown, paper, tables
from gpt1_jax.results.averages import percent, rounded
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import Measured, Run
from gpt1_jax.results.tables import Grid, scale_words


def report(runs: str | Path, output: str | Path) -> dict:
    """Writes index.md, a Markdown and a CSV file for each table, PNG, SVG and CSV for
    each figure, runs.md (the configs) and report.html, which holds all of it.

    Args:
      runs: a folder with the reproduction.json and the run folders of `reproduce`, or with the
        folders of single runs.
      output: the folder to write to. Everything is worked out before the first file is written,
        and each is replaced in one step.

    Returns:
      `files` written, `scale`, and how many cells of ours have a `value` or are `missing`.

    Raises:
      UserError: no results, a file that cannot be read, an output that is no folder, no matplotlib.
    """
    runs, output = Path(runs).expanduser(), Path(output).expanduser()
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file; expected a folder")
    index, found = paper.load(), finished_runs.load(runs)
    grids = tables.grids(index, found)
    files = _files(index, found, grids, figures.drawings(index, found))
    with disk.as_user_error(f"--output={output}"), disk.WorkdirLock(output, "writing", "--output"):
        for name, content in files.items():
            written = content.encode() if isinstance(content, str) else content
            disk.write_bytes(output / name, written)
    entries = [entry for grid in grids for entry in grid.entries]
    with_value = sum(bool(entry.scores) for entry in entries)
    return {
        "output": str(output),
        "scale": found.scale,
        "files": list(files),
        "cells": {"value": with_value, "missing": len(entries) - with_value},
        "single_runs": len(found.single),
    }


def _files(
    index: paper.Paper, found: Measured, grids: Sequence[Grid], drawings: Sequence[Drawing]
) -> dict[str, str | bytes]:
    """The content of every file by name."""
    tasks = tables.tasks_by_group(index)
    said = [
        ("The paper, from its cells", claims.published(index)),
        (f"Our runs ({scale_words(found.scale)})", claims.measured(index, grids)),
    ]
    title = f"GPT-1: published and measured ({scale_words(found.scale)})"
    introduction = _introduction(found, grids) + _no_figures(index, found, drawings)
    kinds = [(kind, ", ".join(names)) for kind, names in tasks.items()]
    files: dict[str, str | bytes] = {
        "table1.md": f"# Table 1: the tasks\n\n{markdown.table(('Kind', 'Tasks'), kinds, False)}",
        "table1.csv": markdown.to_csv(
            ("kind", "task"), [(kind, name) for kind, names in tasks.items() for name in names]
        ),
    }
    for grid in grids:
        files[f"{grid.name}.md"] = markdown.grid(grid)
        files[f"{grid.name}.csv"] = markdown.grid_csv(grid, found.scale)
    for drawing in drawings:
        files[f"{drawing.name}.png"] = drawing.png
        files[f"{drawing.name}.svg"] = drawing.svg
        if drawing.rows:
            files[f"{drawing.name}.csv"] = markdown.to_csv(drawing.header, drawing.rows)
    files[markdown.APPENDIX] = markdown.appendix(grids, found.single, scale_words(found.scale))
    files["index.md"] = _index(title, introduction, said, grids, drawings, found.single)
    files["report.html"] = html_page.page(
        title, introduction, said, tasks, grids, drawings, found.single
    )
    return files


def _introduction(found: Measured, grids: Sequence[Grid]) -> list[str]:
    """What the reader has before him."""
    if found.scale is None:
        return [
            "Only single runs were found, so no cell of the paper's tables has a value of ours."
        ]
    entries = [entry for grid in grids for entry in grid.entries]
    with_value = sum(bool(entry.scores) for entry in entries)
    lines = [f"{with_value} of {len(entries)} cells have a value of ours, at {found.scale} scale."]
    if found.scale == "small":
        lines.append(
            "Small scale means a small model and capped training sets on any machine. Its numbers "
            "are not those of GPT-1 and stand beside the published ones only to show what is "
            "measured in the same way."
        )
    return lines


def _no_figures(index: paper.Paper, found: Measured, drawings: Sequence[Drawing]) -> list[str]:
    drawn = {drawing.name for drawing in drawings}
    return [
        f"Figure {name} ({figure.title}) has no runs: {found.why_no_figure(name)}."
        for name, figure in index.figures.items()
        if found.scale and f"figure{name}" not in drawn
    ]


def _index(
    title: str,
    introduction: Sequence[str],
    said: Sequence[tuple[str, Sequence[str]]],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    single: Sequence[Run],
) -> str:
    """The page that leads to the others."""
    parts = [f"# {title}\n", *(f"{line}\n" for line in introduction), "## Tables\n"]
    parts.append(
        "- [Table 1: the tasks](table1.md) ([CSV](table1.csv))\n"
        + "".join(f"- [{grid.title}]({grid.name}.md) ([CSV]({grid.name}.csv))\n" for grid in grids)
        + f"- [The runs behind them]({markdown.APPENDIX})\n"
        + "- report.html: all of it on one page\n"
    )
    for heading, lines in said:
        parts += [f"## {heading}\n", "".join(f"- {line}\n" for line in lines)]
    for drawing in drawings:
        parts += [f"## {drawing.title}\n", f"![{drawing.title}]({drawing.name}.png)\n"]
        notes = "".join(f"- {note}\n" for note in drawing.notes)
        parts.append(notes + (f"- [CSV]({drawing.name}.csv)\n" if drawing.rows else ""))
    if single:
        rows = [_single(run) for run in single]
        parts += ["## Single runs\n", markdown.table(("run", "task", "metric", "best dev"), rows)]
    return "\n".join(parts)


def _single(run: Run) -> tuple[str, ...]:
    best = run.result.get("best")
    score = str(rounded(percent(best["score"]))) if best else "–"
    task = run.config["task"].get("name") or "pre-training"
    return f"[{run.folder}]({markdown.APPENDIX})", task, run.metric or "–", score
