"""docs/ as a site: it is built without a warning, and a reader's browser fetches nothing for it."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from pages import PAGES, ROOT

pytest.importorskip("mkdocs")


class Parts(HTMLParser):
    """What a page loads, and what it links to."""

    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.linked: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "link" or "src" in given:
            self.loaded.append(given.get("href") or given.get("src"))
        elif tag == "a" and given.get("href"):
            self.linked.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={folder}"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_it(site):
    names = {"index" if page == "README.md" else page[5:-3] for page in PAGES}
    assert names <= {path.stem for path in site.glob("*.html")}


def test_what_a_page_loads_and_links_to_in_the_site_is_in_it(site):
    for page in site.glob("*.html"):
        parts = Parts(page.read_text())
        assert len(parts.loaded) > 3
        outside = [url for url in parts.loaded if "://" in url or url.startswith("//")]
        assert not outside, page.name
        if page.name == "404.html":  # its addresses begin at the root of a server
            continue
        for url in parts.loaded + parts.linked:
            path = url.partition("#")[0]
            if path and not re.match(r"\w+:", path):
                assert (site / path).exists(), (page.name, url)


def test_its_styles_load_nothing_from_elsewhere(site):
    styles = list(site.rglob("*.css"))
    assert styles
    for style in styles:
        assert not re.findall(r"(?:url\(|@import)[\"' ]*(?:https?:)?//", style.read_text()), style
