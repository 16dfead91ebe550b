"""What mkdocs.yml calls while it builds: links that are right on GitHub become right in the site.

README.md, which lies beside docs/, becomes the first page. Pages that lie elsewhere in the project
and are linked to are taken along; a link to anything else there becomes its name.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Of the project, by the place in the site.
ELSEWHERE = {
    "index.md": "README.md",
    "results_small.md": "results/small/README.md",
    "results_study.md": "results/study/README.md",
}
LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere."""
    for place, path in ELSEWHERE.items():
        files.append(File.generated(config, place, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site has them."""
    here = ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found["text"], found["target"], found["anchor"] or ""
        if not target or "://" in target:
            return found[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        place = next((place for place, file in ELSEWHERE.items() if file == path), None)
        place = place or path.removeprefix("docs/")
        if files.get_file_from_path(place):
            return f"{text}({place}{anchor})"
        # Left as it is where it leads nowhere, for mkdocs to complain of.
        return text[1:-1] if (ROOT / path).exists() else found[0]

    return LINK.sub(link, markdown)
