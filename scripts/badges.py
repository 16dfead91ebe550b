"""Writes where the project is published, `url` of setup.py, wherever else it stands: the badges of
Colab, what the notebooks fetch, the citation. After a move to another owner or name:

    edit `url` in setup.py, then
    python scripts/badges.py
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("README.md", "CITATION.cff", *sorted(ROOT.glob("notebooks/*.ipynb")))
PLACE = r"[\w.-]+/[\w.-]+"


def main() -> None:
    now = re.search(rf'url="https://github\.com/({PLACE})"', (ROOT / "setup.py").read_text())[1]
    citation = (ROOT / "CITATION.cff").read_text()
    before = re.search(rf"^repository-code: https://github\.com/({PLACE})$", citation, re.M)[1]
    for file in FILES:
        path = ROOT / file
        text = path.read_text().replace(before, now)
        # A clone is a folder of the name alone.
        path.write_text(text.replace(f"%cd -q {folder(before)}/", f"%cd -q {folder(now)}/"))


def folder(place: str) -> str:
    return place.split("/")[1]


if __name__ == "__main__":
    main()
