"""Markdown as text: names made safe for it, code, tables, and a line of it as HTML."""

import functools
import html
import re
from collections.abc import Iterable, Sequence

from markdown_it import MarkdownIt

from gpt1_jax.messages import visible

# What would begin something other than text; an underscore within a word is only itself.
_MARKS = re.compile(r"[\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """Markdown that shows `text` as it is, whatever it has in it, on one line."""
    return _MARKS.sub(r"\\\g<0>", html.escape(visible(text), quote=False))


def code(text: str) -> str:
    """Markdown that shows `text` as code."""
    if re.search(r"[`<>&|]", text):
        return f"<code>{escaped(text)}</code>"
    return f"`{visible(text)}`"


def block(text: str) -> str:
    """Markdown that shows the lines of `text` as code."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}{fence}\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: bool = True) -> str:
    """A Markdown table of cells in Markdown; all columns but the first are set to the right, or
    none."""
    lines = [header, ["---", *["---:" if right else "---"] * (len(header) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def items(lines: Iterable[str]) -> str:
    """A list of lines in Markdown."""
    return "".join(f"- {line}\n" for line in lines)


def to_html(line: str) -> str:
    """A line of Markdown as HTML; what is HTML in it already is shown as text."""
    return _parser().renderInline(line)


@functools.cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False})
