"""From result files to tables, figures and one page, beside the published numbers.

Needs no JAX and none of the data: a laptop with copies of config.json, result.json, metrics.jsonl
and reproduction.json is enough. The same files give the same report.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from gpt1_jax import disk, json_files
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.results import claims, csv_files, figures, html_page, markdown_files, tables
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import FinishedRuns, read_runs
from gpt1_jax.results.markdown import escaped
from gpt1_jax.results.paper import Paper, read_paper
from gpt1_jax.results.tables import Grid, scale_words
from gpt1_jax.storage import places

# What the report wrote, with its digests: the next one deletes of it what it has no more.
JOURNAL = "files.json"
# Runs that are not in a report are said one by one, of more than these how many.
MOST_SAID = 10


def report(runs: str | Path, output: str | Path) -> dict:
    """Writes index.md, a Markdown and a CSV file for each table, PNG, SVG and CSV for
    each figure, runs.md (the configs) and report.html, which holds all of it.

    Args:
      runs: a folder with the reproduction.json and the run folders of `reproduce`, or with the
        folders of single runs.
      output: the folder to write to. Everything is worked out, and every place found free or a
        file, before the first file is written; each is replaced in one step. Files of an earlier
        report that are none of this one are deleted.

    Returns:
      `files` written, `scale`, how many cells of ours have a `value` or are `missing`, and by
      folder why runs are `left_out`.

    Raises:
      UserError: no results, a file that cannot be read, an output that is no folder, cannot take a
        file or has one of the same name that no report wrote, no matplotlib.
    """
    runs, output = places.here(runs), places.here(output, new=True)
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file; expected a folder")
    paper, found = read_paper(), read_runs(runs)
    _say_what_is_not_whole(found)
    grids = tables.grids(paper, found)
    files = _files(paper, found, grids, figures.drawings(paper, found))
    with disk.as_user_error(f"--output={output}"), disk.WorkdirLock(output, "writing", "--output"):
        for name in (*files, JOURNAL):
            disk.output_path(output / name)
        before = _written_before(output)
        for name in files:
            if name not in before and (output / name).exists():
                raise UserError(
                    f"{output / name} is there and not of a report; choose another --output, or "
                    "move it away"
                )
        written = {n: c.encode() if isinstance(c, str) else c for n, c in files.items()}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in written.items()}
        # Named before they are there, so that none is forgotten where this is stopped.
        disk.write_json(output / JOURNAL, before | digests)
        for name, data in written.items():
            disk.write_bytes(output / name, data)
        _remove(output, {name: before[name] for name in before.keys() - digests.keys()})
        disk.write_json(output / JOURNAL, digests)
        places.send(output)
    entries = [entry for grid in grids for entry in grid.entries]
    with_value = sum(bool(entry.scores) for entry in entries)
    return {
        "output": places.shown(output),
        "scale": found.scale,
        "files": [*files, JOURNAL],
        "cells": {"value": with_value, "missing": len(entries) - with_value},
        "single_runs": len(found.single),
        "left_out": found.left_out,
    }


def _say_what_is_not_whole(found: FinishedRuns) -> None:
    """A line about each run that is not in the report, and each that is but was stopped."""
    for run in found.single:
        if run.stopped:
            say(f"{run.folder}: {run.stopped}; the report says so beside its score")
    if len(found.left_out) > MOST_SAID:
        say(f"{len(found.left_out)} runs are not in the report; {markdown_files.APPENDIX} says why")
        return
    for name, reason in found.left_out.items():
        say(f"{name} is not in the report: {reason}")


def _written_before(output: Path) -> dict[str, str]:
    """The digests of an earlier report's files by name. UserError for names of other places."""
    remedy = "expected what `report` wrote; delete it, and the files of the report before by hand"
    try:
        names = json_files.read(output / JOURNAL, dict[str, str], remedy)
    except FileNotFoundError:
        return {}
    if any(name != Path(name).name for name in names):
        raise UserError(f"{output / JOURNAL} names files elsewhere; {remedy}")
    return names


def _remove(output: Path, digests: dict[str, str]) -> None:
    """Deletes files of an earlier report that are none of this one, unless they were changed."""
    for name, digest in digests.items():
        path = output / name
        if path.is_file() and not path.is_symlink() and disk.sha256(path) == digest:
            path.unlink()


def _files(
    paper: Paper, found: FinishedRuns, grids: Sequence[Grid], drawings: Sequence[Drawing]
) -> dict[str, str | bytes]:
    """The content of every file by name."""
    scale = scale_words(found.scale)
    title = f"GPT-1: published and measured ({scale})"
    introduction = _introduction(found, grids) + _no_figures(paper, found, drawings)
    introduction += _left_out(found)
    said = {
        "The paper, from its cells": claims.published(paper),
        f"Our runs ({scale})": claims.measured(paper, grids),
    }
    tasks = tables.tasks_by_group(paper)
    kinds = [(kind, name) for kind, names in tasks.items() for name in names]
    files: dict[str, str | bytes] = {
        "table1.md": markdown_files.tasks(tasks),
        "table1.csv": csv_files.to_csv(("kind", "task"), kinds),
    }
    for grid in grids:
        files[f"{grid.name}.md"] = markdown_files.grid(grid)
        files[f"{grid.name}.csv"] = csv_files.grid(grid, found.scale)
    for drawing in drawings:
        files[f"{drawing.name}.png"] = drawing.png
        files[f"{drawing.name}.svg"] = drawing.svg
        if drawing.rows:
            files[f"{drawing.name}.csv"] = csv_files.to_csv(drawing.header, drawing.rows)
    files[markdown_files.APPENDIX] = markdown_files.appendix(grids, found, scale)
    files["index.md"] = markdown_files.index(
        title, introduction, said, grids, drawings, found.single
    )
    files["report.html"] = html_page.page(
        title, introduction, said, tasks, grids, drawings, paper, found
    )
    return files


def _introduction(found: FinishedRuns, grids: Sequence[Grid]) -> list[str]:
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


def _left_out(found: FinishedRuns) -> list[str]:
    """How many runs are not here."""
    count = len(found.left_out)
    what = "1 run is" if count == 1 else f"{count} runs are"
    where = f"the end of {markdown_files.APPENDIX}, and of report.html"
    return [f"{what} not in the report; why, stands at {where}."] if count else []


def _no_figures(paper: Paper, found: FinishedRuns, drawings: Sequence[Drawing]) -> list[str]:
    """Which figures are not here, and why."""
    drawn = {drawing.name.removeprefix("figure") for drawing in drawings}
    return [
        f"Figure {name} ({figure.title}) is not there: {escaped(found.why_no_figure(name))}."
        for name, figure in paper.figures.items()
        if found.scale and name not in drawn
    ]
