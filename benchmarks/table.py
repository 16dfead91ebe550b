"""The tables of README.md and docs/benchmarks.md from the files of benchmarks/results.

    python benchmarks/table.py            writes them into the pages
    python benchmarks/table.py --check    ends with 1 where a page has another

A file there is named after its machine and date; a line of it is a row that benchmarks/run.py
measured, or one that was measured before there was this script and has the keys `row`, `machine`,
`date`, `ours`, `peer` and `ratio`, each side with `tokens_per_s`. The newest row of a name on a
machine is shown, and beside it those with another `note`. To measure a row again, delete its line.
README.md has of each name on a machine only the newest that is set beside something.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README, ALL = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- benchmarks: by benchmarks/table.py -->\n", "<!-- end of benchmarks -->"


def rows() -> list[dict]:
    """All that was measured, the newest of each name, machine and note, in the files' order."""
    found: dict[tuple, dict] = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            key = (row["machine"], row["row"], row.get("note"))
            if key not in found or row["date"] >= found[key]["date"]:
                found[key] = row
    return list(found.values())


def compared(rows: list[dict]) -> list[dict]:
    """Of each name on a machine the newest row with a ratio, whatever its note."""
    found: dict[tuple, dict] = {}
    for row in rows:
        key = (row["machine"], row["row"])
        if _ratio(row) and (key not in found or row["date"] >= found[key]["date"]):
            found[key] = row
    return list(found.values())


def table(rows: list[dict]) -> str:
    """The rows in Markdown."""
    lines = [
        "| machine, date | what | ours, tokens/s | peer, tokens/s | ratio |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        note = f" ({row['note']})" if row.get("note") else ""
        lines.append(
            f"| {row['machine']}, {row['date']}{note} | {row['row']} | {_ours(row)} | "
            f"{_peer(row['peer'])} | {_ratio(row)} |"
        )
    return "\n".join(lines) + "\n"


def _ours(row: dict) -> str:
    ours = row["ours"]
    if ours is None:
        return "failed"
    if "sequences_per_s" in ours:
        return f"{_number(ours['sequences_per_s'])} sequences/s"
    jax = ours.get("versions", {}).get("jax") or ours.get("version")
    speed = f"{_number(ours['tokens_per_s'])} (JAX {jax}"
    # One token after another waits for memory: its share of the peak says nothing.
    if ours.get("mode") != "generate" and "fraction_of_peak" in ours:
        speed += f", {100 * ours['fraction_of_peak']:.0f} % of the peak"
    if isinstance(starts := ours.get("first_step_seconds"), dict):
        speed += f"; first step after {starts['cold']:.1f} s, again {starts['warm']:.1f} s"
    return speed + ")"


def _peer(peer: dict | None) -> str:
    if peer is None:
        return ""
    return f"{_number(peer['tokens_per_s'])} ({peer['peer']} {peer.get('version', '')})"


def _ratio(row: dict) -> str:
    if row["ours"] and "ratio_to_padding" in row["ours"]:
        packed = row["ours"].get("ratio_of_packing")
        more = f"; packed {packed:.1f} x buckets" if packed else ""
        return f"{row['ours']['ratio_to_padding']:.1f} x padding to 512{more}"
    return "" if row["ratio"] is None else f"{row['ratio']:.2f}"


def _number(value: float) -> str:
    """Three digits, as in 351,000 or 28.4.

    >>> _number(350_876.2), _number(28.43)
    ('351,000', '28.4')
    """
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def written(page: str, rows: list[dict]) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table(rows) + END + after


if __name__ == "__main__":
    found = rows()
    shown = {README: compared(found), ALL: found}
    now = {path: path.read_text() for path in shown}
    new = {path: written(now[path], some) for path, some in shown.items()}
    if "--check" in sys.argv:
        sys.exit(int(new != now))
    for path, text in new.items():
        path.write_text(text)
