"""One HTML page with everything: no script, no link to the outside, images inlined; it prints."""

import base64
import html
from collections.abc import Iterable, Sequence

from gpt1_jax.results import cells
from gpt1_jax.results.figures import Drawing
from gpt1_jax.results.finished_runs import Run
from gpt1_jax.results.tables import Entry, Grid, Line

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 70rem;
       margin: 0 auto; padding: 1rem 1.5rem; }
nav { border-bottom: 1px solid #ccc; padding-bottom: .5rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
a { color: #0b5394; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .8rem 0; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4;
         font-variant-numeric: tabular-nums; }
th:first-child, td:first-child, table.words :is(th, td) { text-align: left; }
thead th { border-bottom: 2px solid #888; }
tr.paper td { font-weight: 600; } tr.ours td { background: #eef5fb; }
tr.baseline td, tr.examples td { color: #666; }
ul { font-size: .85rem; padding-left: 1.2rem; }
img { max-width: 100%; height: auto; }
details { font-size: .85rem; margin: .2rem 0; } summary { cursor: pointer; }
pre { font-size: .75rem; background: #f6f6f6; padding: .6rem; overflow-x: auto;
      white-space: pre-wrap; overflow-wrap: anywhere; }
code { overflow-wrap: anywhere; }
@media print { nav { display: none; } body { max-width: none; font-size: 10pt; }
  h2 { break-after: avoid; } table, img { break-inside: avoid; } }
"""


def page(
    title: str,
    introduction: Sequence[str],
    sentences: Sequence[tuple[str, Sequence[str]]],
    tasks: dict[str, list[str]],
    grids: Sequence[Grid],
    drawings: Sequence[Drawing],
    single: Sequence[Run],
) -> str:
    """The page. sentences: heading and lines, of the paper and of ours."""
    sections = [
        ("sentences", "In sentences", _sentences(sentences)),
        ("table1", "Table 1: the tasks", _tasks(tasks)),
        *((grid.name, grid.title, _grid(grid)) for grid in grids),
        *((drawing.name, drawing.title, _drawing(drawing)) for drawing in drawings),
    ]
    if single:
        sections.append(("single", "Single runs", "".join(map(_single, single))))
    nav = "".join(
        f'<a href="#{name}">{_text(heading.split(":")[0].split(" (")[0])}</a>\n'
        for name, heading, _ in sections
    )
    body = "".join(
        f'<section id="{name}">\n<h2>{_text(heading)}</h2>\n{content}</section>\n'
        for name, heading, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(title)}</h1>\n{_paragraphs(introduction)}<nav>\n{nav}</nav>\n{body}"
        "</body>\n</html>\n"
    )


def _text(text: str) -> str:
    return html.escape(text)


def _paragraphs(lines: Iterable[str]) -> str:
    return "".join(f"<p>{_text(line)}</p>\n" for line in lines)


def _list(lines: Iterable[str]) -> str:
    items = "".join(f"<li>{_code(line)}</li>\n" for line in lines)
    return f"<ul>\n{items}</ul>\n" if items else ""


def _code(line: str) -> str:
    """Text with `code` in it."""
    parts = _text(line).split("`")
    return "".join(
        f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts)
    )


def _sentences(found: Sequence[tuple[str, Sequence[str]]]) -> str:
    return "".join(f"<h3>{_text(heading)}</h3>\n{_list(lines)}" for heading, lines in found)


def _tasks(tasks: dict[str, list[str]]) -> str:
    return _table(
        ("Kind", "Tasks"), [(kind, ", ".join(names)) for kind, names in tasks.items()], "words"
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    body = "".join(f"<tr>{''.join(f'<td>{_text(c)}</td>' for c in row)}</tr>\n" for row in rows)
    return _wrapped(header, body, kind)


def _wrapped(header: Sequence[str], body: str, kind: str = "numbers") -> str:
    head = "".join(f"<th>{_text(cell)}</th>" for cell in header)
    return (
        f'<div class="wide"><table class="{kind}">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody>\n</table></div>\n"
    )


def _grid(grid: Grid) -> str:
    parts = [_wrapped(grid.header, "".join(map(_line, grid.lines))), _list(grid.notes)]
    found = cells.with_scores(grid)
    if found:
        rows = [(cells.cell_name(entry), *cells.cell_values(entry)) for entry in found]
        parts += ["<h3>Cell by cell</h3>\n", _table(cells.CELL_HEADER, rows)]
        details = (_details(entry, grid) for entry in found if entry.scores.runs)
        parts += ["<h3>The config of each cell</h3>\n", *details]
    missing = cells.reasons(grid.entries)
    if missing:
        parts += [
            "<h3>Cells without a run</h3>\n",
            _table(cells.REASONS_HEADER, missing, "words"),
        ]
    return "".join(parts)


def _line(line: Line) -> str:
    cells = [_text(cell) for cell in line.cells]
    if line.kind == "ours":
        cells = [
            f'<a href="#{entry.name}">{cell}</a>' if entry.scores.runs else cell
            for cell, entry in zip(cells, line.entries, strict=True)
        ]
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{line.kind}"><td>{_text(line.title)}</td>{columns}</tr>\n'


def _details(entry: Entry, grid: Grid) -> str:
    """What one cell was run with: the differences first, the whole config one click further."""
    runs, against = entry.scores.runs, cells.reference(entry, grid)
    lines = [f"seed {run.seed}: {run.folder}, `{cells.command(run)}`" for run in entry.scores.runs]
    if isinstance(entry.table, int):
        lines.insert(0, f"the paper's: `{cells.config(entry)}`")
    if against is not None and against is not runs[0]:
        changed = cells.differences(runs[0], against)
        lines.append(f"otherwise than {against.folder}: {'; '.join(changed) or 'nothing'}")
    config = _text(cells.config_lines(runs[0].config))
    return (
        f"<details><summary>{_text(cells.cell_name(entry))}</summary>\n"
        # A link to what is inside opens the details, one to the details themselves does not.
        f'<div id="{entry.name}">{_list(lines)}</div>\n'
        f"<details><summary>config.json of {_text(runs[0].folder)}</summary>\n"
        f"<pre>{config}</pre></details>\n</details>\n"
    )


def _drawing(drawing: Drawing) -> str:
    image = base64.b64encode(drawing.svg).decode()
    return (
        f'<img alt="{_text(drawing.title)}" src="data:image/svg+xml;base64,{image}">\n'
        f"{_list(drawing.notes)}"
    )


def _single(run: Run) -> str:
    best = run.result.get("best")
    score = f"best {run.metric} {best['score']:.4f} at step {best['step']}" if best else ""
    return (
        f"<details><summary>{_text(run.folder)} {_text(score)}</summary>\n"
        f"<p><code>{_text(cells.command(run))}</code></p>\n"
        f"<pre>{_text(cells.config_lines(run.config))}</pre></details>\n"
    )
