"""Pages opened in headless Chromium, on a phone and on a screen, light and dark."""

import contextlib
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

FOUND = [name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)]
SCREENS = [
    (390, "light"),
    pytest.param(390, "dark", marks=pytest.mark.exhaustive),
    pytest.param(1280, "light", marks=pytest.mark.exhaustive),
    (1280, "dark"),
]


@contextlib.contextmanager
def browser() -> Iterator:
    """Chromium; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not FOUND:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=shutil.which(FOUND[0]))
        try:
            yield running
        finally:
            running.close()


@contextlib.contextmanager
def opened(running, path: Path, width: int, scheme: str = "light") -> Iterator:
    """The page, which says nothing on the console, asks for nothing from elsewhere, and is no wider
    than the screen, neither at first nor after what is done with it."""
    context = running.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, has_touch=width < 600
    )
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if is_elsewhere(request) else None)
    page.goto(path.as_uri())
    require_no_overflow(page)
    yield page
    require_no_overflow(page)
    assert not wrong
    context.close()


def is_elsewhere(request) -> bool:
    return not request.url.startswith(("file:", "data:"))


def require_no_overflow(page) -> None:
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= page.viewport_size["width"]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.links, self.sources, self.text = [], [], [], [], ""
        self.feed(text)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given["href"]] if "href" in given else []
        self.sources += [given["src"]] if "src" in given else []
