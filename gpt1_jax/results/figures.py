"""The figures in the paper's form, and the loss curves of every run, as PNG and SVG bytes.

matplotlib is imported where it draws. The same runs give the same bytes with the same matplotlib.
"""

import contextlib
import io
import itertools
import math
import statistics
import textwrap
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt1_jax.errors import UserError
from gpt1_jax.messages import visible
from gpt1_jax.results.averages import percent, rounded
from gpt1_jax.results.finished_runs import FinishedRun, FinishedRuns, ProbeRow, ReproducedRun
from gpt1_jax.results.markdown import escaped
from gpt1_jax.results.paper import FigureName, Paper
from gpt1_jax.results.tables import BASELINES, scale_words, task_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours that are told apart also by most who do not see red and green alike (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BODIES = {"transformer": ("-", "Transformer"), "lstm": ("--", "LSTM")}
# Above the axes, where it hides no line; long enough to tell dashes from none.
LEGEND = {"fontsize": 7, "ncols": 2, "handlelength": 4, "frameon": False}
# A loss curve is drawn by so many points at most.
CURVE_POINTS = 100
PROBE_KEYS = ("body", "step", "probe", "task", "metric", "value", "n", "commonest")
# A probe that gives the same answer to so many says nothing of what it is asked.
CONSTANT = 0.95


@dataclass(frozen=True)
class Drawing:
    """A figure: file name without ending, title, images, what stands below it (in Markdown), and as
    a table what it was drawn from, unless that is the metrics of whole runs."""

    name: str
    title: str
    png: bytes
    svg: bytes
    notes: tuple[str, ...]
    header: tuple[str, ...] = ()
    rows: tuple[tuple, ...] = ()


def drawings(paper: Paper, finished: FinishedRuns) -> list[Drawing]:
    """Every figure that the runs are enough for. UserError if matplotlib is not installed."""
    with _style():
        made = [
            _transfer(paper, finished),
            _probes(paper, finished),
            _curve(paper, finished, "labels"),
            _curve(paper, finished, "tokens"),
            _losses(
                "loss_pretraining",
                "Loss of pre-training",
                finished,
                itertools.chain(*finished.pretraining.values()),
            ),
            _losses("loss_finetuning", "Loss of fine-tuning", finished, finished.runs),
            _losses("loss_single", "Loss of single runs", finished, finished.single),
        ]
    return [drawing for drawing in made if drawing]


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """How all of them are drawn; a notebook's own settings are as before when it ends."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise UserError("figures need matplotlib: pip install matplotlib") from None
    settings: dict[Any, Any] = {
        # Without a salt of one's own the ids of an SVG change from run to run.
        "svg.hashsalt": "gpt1",
        # Text as text: half the size, and it can be searched and read aloud.
        "svg.fonttype": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(settings):
        yield


def _figure(width: float, height: float) -> "Figure":
    """An empty one of so many inches. It belongs to nobody but the caller: pyplot would show it in
    a notebook, and want a backend for the whole process."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _label(name: str) -> str:
    """A name as it is drawn: on one line, without mathematics, and never left out of a legend, as
    matplotlib does with what begins with an underscore."""
    return visible(name).replace("$", "\\$").replace("_", " _", int(name.startswith("_")))


def _images(figure) -> tuple[bytes, bytes]:
    """PNG and SVG, without the date."""
    files = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes in the PNG; the SVG holds text.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure.savefig(files[0], format="png", dpi=150, metadata={"Software": None})
        figure.set_layout_engine("none")  # both have the places that were found for the first
        figure.savefig(files[1], format="svg", metadata={"Date": None, "Creator": None})
    return files[0].getvalue(), files[1].getvalue()


# Figure 2, left


def _transfer(paper: Paper, finished: FinishedRuns) -> Drawing | None:
    """Scores by the number of blocks transferred: dev solid, train dashed, a y axis for each of two
    tasks; more tasks have panels of their own."""
    runs = [run for run in finished.runs if run.figure == "2left"]
    if not runs:
        return None
    tasks = list(dict.fromkeys(run.task for run in runs))
    pairs = [tasks[first : first + 2] for first in range(0, len(tasks), 2)]
    figure = _figure(5.6 * len(pairs), 4.2)
    panels = figure.subplots(1, len(pairs), squeeze=False)
    rows = []
    for left, pair in zip(panels[0], pairs, strict=True):
        lines = []
        for place, task in enumerate(pair):
            axes = left if place == 0 else left.twinx()
            axes.spines["right"].set_visible(place == 1)
            points = _points([run for run in runs if run.task == task])
            rows += [(finished.scale, task, *point) for point in points]
            lines += _draw_transfer(axes, points, task, COLOURS[place])
        left.set_xlabel("blocks transferred (0: the embeddings only)")
        left.xaxis.get_major_locator().set_params(integer=True)
        left.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), **LEGEND)
    title = f"{paper.figures['2left'].title} ({scale_words(finished.scale)})"
    figure.suptitle(title)
    return Drawing(
        "figure2left",
        title,
        *_images(figure),
        header=("scale", "task", "blocks", "split", "metric", "median", "min", "max", "n"),
        rows=tuple(rows),
        notes=(
            "Solid: dev; dashed: the first training examples, where they were measured. The line "
            "is the median over seeds, the band from the lowest to the highest.",
            f"The paper, on RACE and MultiNLI: {paper.figures['2left'].claim}",
        ),
    )


def _points(runs: Sequence[ReproducedRun]) -> list[tuple]:
    """(blocks, split, metric, median, min, max, n) in per cent, in order."""
    values: dict[tuple, list[float]] = {}
    for run in runs:
        blocks = run.config["model"]["n_layer"] if run.n_transfer is None else run.n_transfer
        for split in ("dev", "train_examples"):
            score = run.score(run.metric, split)
            if score is not None:
                values.setdefault((split, blocks, run.metric), []).append(percent(score))
    return [
        (blocks, split, metric, *_summary(found))
        for (split, blocks, metric), found in sorted(values.items())
    ]


def _summary(values: list[float]) -> tuple:
    median = statistics.median(values)
    return (*(float(rounded(v, 2)) for v in (median, min(values), max(values))), len(values))


def _draw_transfer(axes, points: list[tuple], task: str, colour: str) -> list:
    lines, title = [], _label(task_title(task))
    for split, style, words in (("dev", "-", "dev"), ("train_examples", "--", "train")):
        chosen = [point for point in points if point[1] == split]
        if not chosen:
            continue
        blocks, _, metrics, medians, lows, highs, _ = zip(*chosen, strict=True)
        (line,) = axes.plot(
            blocks,
            medians,
            style,
            color=colour,
            marker="o",
            ms=3,
            label=f"{title}, {words}",
        )
        axes.fill_between(blocks, lows, highs, color=colour, alpha=0.15, lw=0)
        axes.set_ylabel(f"{title}: {metrics[0]}, %", color=colour)
        axes.tick_params(axis="y", colors=colour)
        lines.append(line)
    return lines


# Figure 2, right


def _probes(paper: Paper, finished: FinishedRuns) -> Drawing | None:
    """Zero-shot scores by updates of pre-training, 0 chance and 1 the best known: the Transformer
    solid, the LSTM dashed, a colour for each task."""
    if not finished.probes:
        return None
    figure = _figure(6.4, 4.8)
    axes = figure.subplots()
    steps = [row["step"] for row in finished.probes]
    # A logarithmic axis has no 0: what was measured before the first update stands left of it all.
    origin = min(filter(None, steps), default=2) / 2
    names = list(dict.fromkeys(row["probe"] for row in finished.probes))
    rows = []
    for name, body in itertools.product(names, BODIES):
        chosen = [r for r in finished.probes if (r["probe"], r["body"]) == (name, body)]
        chosen.sort(key=lambda row: row["step"])
        relative = [_relative(finished, row) for row in chosen]
        style, title = BODIES[body]
        if chosen:
            colour = COLOURS[names.index(name) % len(COLOURS)]
            label = f"{_label(_probe_title(name))}, {title}"
            x = [row["step"] or origin for row in chosen]
            axes.plot(x, relative, style, color=colour, marker="o", ms=3, label=label)
            constant = [i for i, row in enumerate(chosen) if row.get("commonest", 0) >= CONSTANT]
            hollow = [x[i] for i in constant], [relative[i] for i in constant]
            axes.plot(*hollow, ls="", color=colour, marker="o", ms=5, mfc="white")
        rows += [
            (finished.scale, *map(row.get, PROBE_KEYS), float(rounded(place, 4)))
            for row, place in zip(chosen, relative, strict=True)
        ]
    axes.set_xscale("log")
    axes.axhline(0, color="#999999", lw=0.8)
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 0), max(high, 1))
    axes.set_xlabel("updates of pre-training")
    axes.set_ylabel("relative performance (0: chance, 1: best known)")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), **LEGEND)
    title = f"{paper.figures['2right'].title} ({scale_words(finished.scale)})"
    figure.suptitle(title)
    anchors = f"Anchors, in per cent of the metric: {_anchors(finished)}."
    figure.supxlabel("\n".join(textwrap.wrap(_label(anchors), 95)), fontsize=7)
    early = " The points farthest left are from before the first update." if 0 in steps else ""
    return Drawing(
        "figure2right",
        title,
        *_images(figure),
        header=("scale", *PROBE_KEYS, "relative"),
        rows=tuple(rows),
        notes=(
            f"Solid: Transformer; dashed: LSTM.{early}",
            f"Hollow: {CONSTANT:.0%} of the answers and more are the same one, so that the score "
            "is that of a constant.",
            f"{escaped(anchors)} The paper does not print its own.",
            f"The paper, on tasks of its own choice: {paper.figures['2right'].claim}",
        ),
    )


def _probe_title(name: str) -> str:
    return visible(name.replace("_", " "))


def _relative(finished: FinishedRuns, row: ProbeRow) -> float:
    """(score - random) / (best - random)."""
    anchors = finished.anchors[row["probe"]]
    return (percent(row["value"]) - anchors["random"]) / (anchors["best"] - anchors["random"])


def _anchors(finished: FinishedRuns) -> str:
    return "; ".join(
        f"{_probe_title(name)} 0 = {anchors['random']:g}, 1 = {anchors['best']:g}"
        + (f" ({visible(anchors['source'])})" if "source" in anchors else "")
        for name, anchors in finished.anchors.items()
    )


# Curves by labels and by tokens


def _curve(paper: Paper, finished: FinishedRuns, name: FigureName) -> Drawing | None:
    """Scores by the number of labels, with and without pre-training and beside linear models; or by
    the tokens of pre-training. A panel for each task."""
    runs = [run for run in finished.runs if run.figure == name]
    if not runs:
        return None
    tasks = list(dict.fromkeys(run.task for run in runs))
    figure = _figure(3.6 * len(tasks), 3.4)
    panels = figure.subplots(1, len(tasks), squeeze=False)
    rows: list[tuple] = []
    for axes, task in zip(panels[0], tasks, strict=True):
        mine = [run for run in runs if run.task == task]
        lines = _lines_of(mine, finished, name)
        for colour, (row, points) in zip(COLOURS, lines.items(), strict=False):
            _draw_curve(axes, points, _label(CURVES.get(row, row)), colour)
            rows += [(finished.scale, task, row, mine[0].metric, *point) for point in points]
        _scale_by_factors(axes, {point[0] for points in lines.values() for point in points})
        axes.set(xlabel=AXES[name], ylabel=f"{mine[0].metric}, %")
        axes.set_title(_label(task_title(task)), fontsize=8)
    lines_by_row = {line.get_label(): line for axes in panels[0] for line in axes.get_lines()}
    figure.legend(handles=lines_by_row.values(), loc="outside lower center", **LEGEND)
    title = f"{paper.figures[name].title} ({scale_words(finished.scale)})"
    figure.suptitle(title)
    return Drawing(
        name,
        title,
        *_images(figure),
        header=("scale", "task", "row", "metric", name, "median", "min", "max", "n"),
        rows=tuple(rows),
        notes=(
            "Dev; the line is the median over seeds, the band from the lowest to the highest. The "
            "paper has no such figure.",
        ),
    )


def _scale_by_factors(axes, places: Collection[int]) -> None:
    """Logarithmic; 0, where it is a place, lies a decade below the power of ten that the least
    other has reached."""
    if 0 in places:
        least = min(filter(None, places), default=1)
        axes.set_xscale("symlog", linthresh=10 ** math.floor(math.log10(least)))
    else:
        axes.set_xscale("log")


AXES = {"labels": "labels", "tokens": "tokens of pre-training"}
CURVES = {"full": "pre-trained", "no_pretraining": "from the beginning"} | {
    name: BASELINES[name].lower() for name in ("bag_of_words", "word_pairs")
}


def _lines_of(
    runs: Sequence[ReproducedRun], finished: FinishedRuns, name: FigureName
) -> dict[str, list[tuple]]:
    """(place, median, min, max, n) by the row that a line is of."""
    values: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        score = run.score(run.metric)
        place = run.tokens if name == "tokens" else run.labels
        if score is not None and place is not None:
            values.setdefault(run.variant, {}).setdefault(place, []).append(percent(score))
    for known in finished.by_labels.get(runs[0].task, []) if name == "labels" else []:
        scores: Mapping[str, Any] = known
        for row in ("bag_of_words", "word_pairs"):
            place = known["examples"]["train"]
            values.setdefault(row, {})[place] = [percent(scores[row])]
    return {
        row: [(place, *_summary(found)) for place, found in sorted(points.items())]
        for row, points in values.items()
    }


def _draw_curve(axes, points: list[tuple], label: str, colour: str) -> None:
    places, medians, lows, highs, counts = zip(*points, strict=True)
    style = "-" if max(counts) > 1 else "--"
    axes.plot(places, medians, style, color=colour, marker="o", ms=3, label=label)
    axes.fill_between(places, lows, highs, color=colour, alpha=0.15, lw=0)


# Loss curves


def _losses(
    name: str, title: str, finished: FinishedRuns, runs: Iterable[FinishedRun]
) -> Drawing | None:
    """Loss by updates, a panel for each task, and each of its figures: lines are training, dots are
    held-out."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(_panel(run), []).append(run)
    if not groups:
        return None
    columns = min(3, len(groups))
    lines = math.ceil(len(groups) / columns)
    size = (6.4, 4.0) if len(groups) == 1 else (3.6 * columns, 2.7 * lines)
    figure = _figure(*size)
    panels = figure.subplots(lines, columns, squeeze=False)
    for axes in panels.flat[len(groups) :]:
        axes.set_axis_off()
    for axes, (group, members) in zip(panels.flat, groups.items(), strict=False):
        _draw_losses(axes, members)
        axes.set(xlabel="updates", ylabel="loss")
        axes.set_title(group, fontsize=8)
    title = f"{title} ({scale_words(finished.scale)})"
    figure.suptitle(title)
    return Drawing(
        name,
        title,
        *_images(figure),
        notes=(
            "Lines: training, the mean of neighbouring updates; dots: held-out. Of a task it is "
            "the loss of the task alone.",
            *filter(None, (run.gap for members in groups.values() for run in members)),
        ),
    )


def _panel(run: FinishedRun) -> str:
    title = "pre-training" if run.task_name is None else _label(task_title(run.task_name))
    figure = run.figure if isinstance(run, ReproducedRun) else None
    return f"{title}, by {BY[figure]}" if figure in BY else title


BY = {"2left": "blocks transferred", "labels": "labels", "tokens": "tokens of pre-training"}


def _draw_losses(axes, runs: Sequence[FinishedRun]) -> None:
    """Lines of one kind share a colour."""
    from matplotlib import colormaps

    kinds = list(dict.fromkeys(_kind(run) for run in runs))
    colours = dict(zip(kinds, COLOURS, strict=False))
    if len(kinds) > len(COLOURS):
        colours = {k: colormaps["viridis"](i / len(kinds)) for i, k in enumerate(kinds)}
    for run in runs:
        colour = colours[_kind(run)]
        line = _smoothed(*run.curve("train", "task_loss" if run.metric else "loss"))
        axes.plot(*line, color=colour, lw=0.8, alpha=0.8)
        dots = run.curve("dev" if run.metric else "valid", "loss")
        axes.plot(*dots, color=colour, ls="", marker="o", ms=4)
    for kind, colour in colours.items():
        axes.plot([], [], color=colour, label=kind)
    axes.legend(fontsize=6, ncols=1 + len(kinds) // 8)


def _smoothed(steps: Sequence[int], values: Sequence[float]) -> tuple[list, list]:
    """At most CURVE_POINTS of a curve, each the mean of itself and its neighbours, a twentieth of
    the curve in all."""
    reach, stride = len(values) // 40, max(1, math.ceil(len(values) / CURVE_POINTS))
    places = range(0, len(values), stride)
    means = [
        statistics.fmean(values[max(0, place - reach) : place + reach + 1]) for place in places
    ]
    return [steps[place] for place in places], means


def _kind(run: FinishedRun) -> str:
    """What lines of one colour share."""
    if not isinstance(run, ReproducedRun):
        return _label(run.folder)
    row = _label(run.variant.replace("_", " "))
    if run.figure == "2left":
        return f"{run.n_transfer} blocks"
    if run.figure == "tokens":
        return f"{run.tokens:,} tokens"
    return f"{row}, {run.config['task']['train_examples']}" if run.figure == "labels" else row
