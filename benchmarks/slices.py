r"""What `gpt1 compile` says of the slices that Cloud TPU lends: lines, a table and a plot.

    nice -n 19 python benchmarks/slices.py compile [FIRST ...]    what is not in LINES yet
    python benchmarks/slices.py table [--check]                   from LINES into docs/cloud_tpu.md

`compile` takes two to ten minutes of two cores for a row, writes each as soon as it is there, and
goes on where it was stopped; rows whose name begins with FIRST come alone. To compile a row again,
delete its line. `table --check` ends with 1 where the page has another table.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from gpt1_jax.machine.topology import Slice, slice_named

ROOT = Path(__file__).resolve().parents[1]
LINES = ROOT / "benchmarks" / "results" / "slices" / "compiled.jsonl"
PLOT = ROOT / "docs" / "pictures" / "slices.svg"
PAGE = ROOT / "docs" / "cloud_tpu.md"
BEGIN, END = "<!-- slices: by benchmarks/slices.py -->\n", "<!-- end of slices -->"
HOURS, END_OF_HOURS = "<!-- hours: by benchmarks/slices.py -->\n", "<!-- end of hours -->"
SLICES = ("v5e-4", "v5e-16", "v5e-256", "v4-8", "v4-256", "v5p-8", "v5p-128", "v6e-16", "v6e-256")
PAPER, A_CHIP = 64, 16  # sequences of an update: in the paper, and where the batch grows
FINE_TUNED = 32  # sequences of an update of the paper's fine-tuning


class Row(NamedTuple):
    name: str
    config: str
    keys: dict[str, object]


def rows_of(where: Slice) -> list[Row]:
    """The updates of a slice: 64 sequences as in the paper, as many as fill it, fine-tuning."""
    # With more chips than sequences each sequence is divided along the width.
    model = max(1, where.chips // PAPER)
    return [
        Row(f"{where.given} {PAPER}", "pretrain.py", {"batch_size": PAPER, "mesh.model": model}),
        Row(f"{where.given} growing", "pretrain.py", {"batch_size": A_CHIP * where.chips}),
        Row(
            f"{where.given} fine-tuning",
            "finetune.py:mnli",
            {"batch_size": max(FINE_TUNED, where.chips)},
        ),
    ]


def all_rows() -> list[tuple[Slice, Row]]:
    """All of them, the paper's batch on every slice first."""
    found = [(where, rows_of(where)) for where in map(slice_named, SLICES)]
    return [(where, rows[kind]) for kind in range(3) for where, rows in found]


def known() -> dict[str, dict]:
    if not LINES.exists():
        return {}
    return {row["row"]: row for row in map(json.loads, LINES.read_text().splitlines())}


def compile_missing(first: list[str]) -> None:
    for where, row in all_rows():
        if row.name in known() or (first and not row.name.startswith(tuple(first))):
            continue
        print(f"{row.name} ...", file=sys.stderr, flush=True)
        keys = {"model.dtype": "bfloat16", **row.keys}
        words = [f"--config=configs/{row.config}", f"--topology={where.given}"]
        words += [f"--config.{key}={value}" for key, value in keys.items()]
        done = subprocess.run(
            [sys.executable, "-m", "gpt1_jax", "compile", *words],
            cwd=ROOT,
            env={**os.environ, "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        line = {"row": row.name, "date": time.strftime("%Y-%m-%d"), **json.loads(done.stdout)}
        LINES.parent.mkdir(parents=True, exist_ok=True)
        with LINES.open("a") as file:
            file.write(json.dumps(line) + "\n")


def table() -> str:
    """The lines in Markdown, in the order of `all_rows`."""
    lines = [
        "| slice, chips | update | sequences, mesh | GiB a chip, of | sent a chip, MB "
        "| compiled in, s | step, ms, predicted | tokens/s, predicted | efficiency, predicted |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    found = known()
    ordered = [found[row.name] for _, row in all_rows() if row.name in found]
    return "\n".join([*lines, *map(_line, ordered)]) + "\n"


# A million updates, as the BERT paper reports, and the 100 epochs of the paper itself by the count
# of tokens that OpenAI's figure of its compute comes from (1.19e11).
LENGTHS = {"a million updates": 1_000_000, "100 epochs": 3_600_000}


def hours() -> str:
    """What the paper's pre-training takes on each slice, in Markdown."""
    lines = [
        "| slice, chips | step, ms | " + " | ".join(f"{name}, hours" for name in LENGTHS) + " | "
        "chip hours of each |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in known().items():
        if not name.endswith(f" {PAPER}") or row["predicted"] is None:
            continue
        step = row["predicted"]["step_seconds"]
        taken = [updates * step / 3600 for updates in LENGTHS.values()]
        chips = ", ".join(f"{each * row['chips']:,.0f}" for each in taken)
        cells = [f"{name.split()[0]}, {row['chips']}", f"{1e3 * step:.1f}"]
        lines.append("| " + " | ".join([*cells, *(f"{each:.1f}" for each in taken), chips]) + " |")
    return "\n".join(lines) + "\n"


def _line(row: dict) -> str:
    name, what = row["row"].split(" ", 1)
    task = "fine-tuning, MNLI" if what == "fine-tuning" else "pre-training"
    mesh = "{data} x {model}".format(**row["config"]["mesh"])
    gib = (row["argument_bytes_per_chip"] + row["temp_bytes_per_chip"]) / 2**30
    memory = f"{gib:.2f} of {row['hbm_bytes_per_chip'] / 2**30:.0f}"
    guess = row["predicted"]
    if guess is None:
        speed = ["does not fit" if not row["fits"] else "not predicted", "", ""]
        sent = ""
    else:
        tokens = float(f"{guess['tokens_per_s']:.3g}")
        speed = [
            f"{1e3 * guess['step_seconds']:.1f} ({_parts(guess)})",
            f"{tokens:,.0f}",
            f"{100 * guess['scaling_efficiency']:.0f} %",
        ]
        sent = f"{guess['sent_bytes_per_chip'] / 1e6:.0f}"
    cells = [f"{name}, {row['chips']}", task, f"{row['config']['batch_size']}, {mesh}", memory]
    return "| " + " | ".join([*cells, sent, f"{row['compile_seconds']:.0f}", *speed]) + " |"


def _parts(guess: dict) -> str:
    parts = [guess[f"{part}_seconds"] for part in ("matrix", "memory", "link")]
    return ", ".join(f"{1e3 * seconds:.1f}" for seconds in parts)


def plot() -> None:
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    styles = (str(PAPER), "o-", "64 sequences"), ("growing", "s--", f"{A_CHIP} a chip")
    for index, generation in enumerate(dict.fromkeys(name.split("-")[0] for name in SLICES)):
        for what, style, label in styles:
            points = sorted(
                (row["chips"], row["predicted"]["tokens_per_s"])
                for name, row in known().items()
                if name.split("-")[0] == generation
                and name.endswith(f" {what}")
                and row["predicted"]
            )
            if points:
                chips, speeds = zip(*points, strict=True)
                given = {"color": f"C{index}", "markersize": 4, "linewidth": 1}
                axes.plot(chips, speeds, style, label=f"{generation}, {label}", **given)
    axes.set(xscale="log", yscale="log", xlabel="chips", ylabel="tokens/s, predicted")
    axes.legend(fontsize=7, frameon=False, ncols=2)
    figure.tight_layout()
    # Neither a date nor random names of parts: the same lines give the same file.
    with matplotlib.rc_context({"svg.hashsalt": PLOT.stem}):
        figure.savefig(PLOT, metadata={"Date": None})


def written(page: str) -> str:
    """The page with the tables in their places."""
    for begin, made, end in ((BEGIN, table(), END), (HOURS, hours(), END_OF_HOURS)):
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        page = before + begin + made + end + after
    return page


if __name__ == "__main__":
    asked, rest = sys.argv[1:2], sys.argv[2:]
    if asked == ["compile"]:
        compile_missing(rest)
    elif asked == ["table"]:
        now = PAGE.read_text()
        if "--check" in rest:
            sys.exit(int(written(now) != now))
        PAGE.write_text(written(now))
        plot()
    else:
        sys.exit(__doc__)
