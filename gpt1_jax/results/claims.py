"""The sentences of the paper's sections 4.2 and 5, worked out from the cells: those of the paper
from what is printed, and the same of our runs with their seeds and spread.
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from gpt1_jax.results.averages import GLUE, glue_score, mean, rounded
from gpt1_jax.results.cells import beyond_the_seed
from gpt1_jax.results.finished_runs import Scores
from gpt1_jax.results.markdown import escaped
from gpt1_jax.results.paper import Column, Paper, Table
from gpt1_jax.results.tables import FURTHER, Entry, Grid

ABLATIONS = 5
GLUE_COLUMNS = {"MNLI-m": "matched", "MNLI-mm": "mismatched"}
METRIC_WORDS = {"spearman": "Spearman"}


def published(paper: Paper) -> list[str]:
    """What the paper says, from its own cells, in Markdown."""
    margins = margins_of_paper(paper)
    won = {title: margin for title, margin in margins.items() if margin > 0}
    lost = {title: margin for title, margin in margins.items() if margin <= 0}
    return [
        f"The full model is the best on {len(won)} of {len(margins)} tasks, by {_listed(won)}.",
        f"The {_number(len(lost))} that it does not win are {_listed(lost)}.",
        _glue(paper),
        *_published_ablations(paper),
    ]


def margins_of_paper(paper: Paper) -> dict[str, Decimal]:
    """The full model less the best quoted row, by the title of the column that stands for a task;
    in points, exact."""
    margins = {}
    for number, column in paper.headlines().values():
        ours, best = _own_and_best(paper.tables[number], column)
        margins[column.title] = Decimal(str(ours)) - Decimal(str(best))
    return margins


def _own_and_best(table: Table, column: Column) -> tuple[float, float]:
    place = table.columns.index(column)
    (own,) = (row.numbers[place] for row in table.rows if row.variant)
    quoted = [row.values[place] for row in table.rows if not row.variant]
    return own, max(value for value in quoted if value is not None)


def _glue(paper: Paper) -> str:
    """The GLUE score of the full model as its server would compute it from the cells."""
    cells: dict[str, dict[str, float]] = {}
    for cell in paper.cells:
        if cell.variant == "full" and cell.table != ABLATIONS and cell.task in GLUE:
            metric = GLUE_COLUMNS.get(cell.column, cell.metric)
            cells.setdefault(cell.task, {})[metric] = cell.value
    added = ", ".join(
        f"{cell.column} {METRIC_WORDS.get(cell.metric, cell.metric)} {cell.value}"
        for cell in paper.leaderboard
        if cell.task in GLUE
    )
    return (
        f"Its GLUE score, recomputed from the cells with what its leaderboard adds ({added}), is "
        f"{rounded(glue_score(cells))}."
    )


def _published_ablations(paper: Paper) -> Iterator[str]:
    table = paper.tables[ABLATIONS]
    tasks = [column.title for column in table.columns if column.task]
    rows = {
        row.variant: dict(
            zip([c.title for c in table.columns], map(_decimal, row.numbers), strict=True)
        )
        for row in table.rows
    }
    full = rows["full"]

    def average(variant: str) -> str:
        printed = rows[variant]["Avg"] - full["Avg"]
        exact = mean(rows[variant][t] for t in tasks) - mean(full[t] for t in tasks)
        text = f"{_signed(printed)} on average"
        if rounded(exact) != printed:
            text += f" by the printed averages ({_signed(exact)} by the cells themselves)"
        return text

    def ahead(variant: str) -> dict[str, Decimal]:
        return {t: rows[variant][t] - full[t] for t in tasks if rows[variant][t] > full[t]}

    yield (
        f"The LSTM in place of the Transformer: {average('lstm')}; it is ahead only on "
        f"{_listed(ahead('lstm'))}."
    )
    without = ahead("no_pretraining")
    where = f"on {_listed(without)}" if without else "on no task"
    yield f"Without pre-training: {average('no_pretraining')}; ahead {where}."
    behind = {t: full[t] - rows["no_aux_lm"][t] for t in tasks if full[t] > rows["no_aux_lm"][t]}
    yield (
        f"The auxiliary language model loss helps on {_listed(behind)}; without it "
        f"{_listed(ahead('no_aux_lm'))}."
    )


def measured(paper: Paper, grids: Sequence[Grid]) -> list[str]:
    """The same of our runs, as far as they go, in Markdown."""
    entries = [entry for grid in grids for entry in grid.entries if entry.scores]
    by_variant: dict[str, dict[tuple, Entry]] = {}
    for entry in entries:
        by_variant.setdefault(entry.variant.name, {})[_place(entry)] = entry
    full = by_variant.get("full", {})
    found = [*_against_others(paper, entries), *_against_words(full.values())]
    for variant, others in by_variant.items():
        pairs = {place: (full[place], other) for place, other in others.items() if place in full}
        if variant != "full" and pairs:
            found += _against_full(variant, pairs)
    found += _not_seeds_alone(entries)
    return found or ["Nothing has run yet that a sentence could be about."]


def _not_seeds_alone(entries: Sequence[Entry]) -> Iterator[str]:
    """Where the spread of a cell is not that of its seeds alone."""
    # An average has no runs of its own.
    differing = [beyond_the_seed(entry.scores.runs) for entry in entries if entry.scores.runs]
    keys = {key for cell in differing for changed in cell.values() for key in changed}
    if keys:
        yield (
            f"In {sum(map(bool, differing))} of {len(differing)} cells the runs differ in more "
            f"than their seed, by {escaped(', '.join(sorted(keys)))}: the configs of the runs say "
            "how."
        )


def _table_words(table: int | str) -> str:
    return "tasks that are not in the paper" if table == FURTHER else f"table {table}"


def _place(entry: Entry) -> tuple:
    return entry.table, entry.column.title


def _against_others(paper: Paper, entries: Sequence[Entry]) -> Iterator[str]:
    """Our full model against the best row that the paper quotes."""
    margins, spreads = {}, {}
    headlines = {column: number for number, column in paper.headlines().values()}
    for entry in entries:
        column, number = entry.column, headlines.get(entry.column)
        if entry.variant.name == "full" and number is not None and number == entry.table:
            _, best = _own_and_best(paper.tables[number], column)
            margins[column.title] = _decimal(entry.scores.median) - _decimal(best)
            spreads[column.title] = _spread(entry.scores)
    if margins:
        won = sum(margin > 0 for margin in margins.values())
        yield (
            f"Our full model is above the best row that the paper quotes on {won} of the "
            f"{len(margins)} tasks of the paper that have run: {_listed(margins, spreads)}. Ours "
            "is dev and that row is test, so this is no ranking."
        )


def _against_full(variant: str, pairs: Mapping[tuple, tuple[Entry, Entry]]) -> Iterator[str]:
    """What a row of table 5 changes, on average and task by task."""
    what = WORDS.get(variant, variant)
    changes: dict[Verdict, dict[str, Decimal]] = {name: {} for name in VERDICTS}
    spreads = {}
    for full, other in pairs.values():
        title = full.column.title
        if full.column.metric == "average":
            where = f"{escaped(title)}, {_table_words(full.table)}"
            yield f"{what}, {where}: {compared(full.scores, other.scores)}."
        elif full.column.task:
            changes[verdict(full.scores, other.scores)][title] = _change(full.scores, other.scores)
            spreads[title] = _spread(max(full.scores, other.scores, key=lambda s: s.spread))
    parts = [
        f"{VERDICTS[name]} on {_listed(found, spreads)}" for name, found in changes.items() if found
    ]
    if parts:
        yield f"{what}, task by task: {'; '.join(parts)}."
    together = {
        full.column.task: statistics.fmean(full.scores.paired(other.scores))
        for full, other in pairs.values()
        if full.column.task and full.scores.paired(other.scores)
    }
    yield from _tested(what, together)


def _against_words(entries: Iterable[Entry]) -> Iterator[str]:
    """Our full model against the best that is known of a task without a model: by how much it is
    ahead on how many tasks."""
    ahead, differences = {}, {}
    for entry in entries:
        if entry.column.task and "bag_of_words" in entry.baselines:
            best = max(entry.baselines[name] for name in LINEAR if name in entry.baselines)
            differences[entry.column.task] = entry.scores.median - best
            if min(entry.scores.values) > best:
                ahead[entry.column.title] = _decimal(entry.scores.median) - _decimal(best)
    if differences:
        where = f": {_listed(ahead)}" if ahead else ""
        yield (
            "Our full model is ahead of the better of the two linear models on words, with every "
            f"seed, on {len(ahead)} of {len(differences)} tasks{where}."
        )
        yield from _tested("Our full model beside it", differences)


def _tested(what: str, changes: Mapping[str, float]) -> Iterator[str]:
    """The mean over tasks, and how often chance would make as much of it: were there no difference,
    that of each task would be as likely with the other sign (a permutation test in pairs; the seeds
    of a task change sign together, since they share its examples)."""
    if len(changes) < LEAST_TASKS:
        return
    import numpy as np
    from scipy.stats import permutation_test

    values = list(changes.values())
    found = permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
    )
    yield (
        f"{what}, all {len(changes)} tasks together: {_signed(_decimal(found.statistic))} on "
        f"average, p = {found.pvalue:.2g} in a permutation test that pairs tasks and seeds."
    )


LINEAR = ("bag_of_words", "word_pairs")
# With fewer, no difference whatever could be told from chance at 1 in 20.
LEAST_TASKS = 6
WORDS = {
    "no_pretraining": "Without pre-training",
    "no_aux_lm": "Without the auxiliary language model loss, which helps where this is lower",
    "lstm": "The LSTM in place of the Transformer",
}
Verdict = Literal["lower", "higher", "within", "unknown"]
VERDICTS: dict[Verdict, str] = {
    "lower": "lower",
    "higher": "higher",
    "within": "no further apart than seeds are",
    "unknown": "of one seed, whose spread is not known,",
}


def verdict(full: Scores, other: Scores) -> Verdict:
    """What another row is beside the full one: a change of the median counts if it is more than the
    spread of the seeds of either."""
    change = other.median - full.median
    if min(full.n, other.n) == 1:
        return "unknown"
    if abs(change) <= max(full.spread, other.spread):
        return "within"
    return "higher" if change > 0 else "lower"


def compared(full: Scores, other: Scores) -> str:
    """The change of the median, held against what a seed changes."""
    text = (
        f"{_signed(_change(full, other))}, {rounded(other.median)} against {rounded(full.median)}"
    )
    found = verdict(full, other)
    if found == "unknown":
        return f"{text}, of one seed, whose spread is not known"
    spread = rounded(max(full.spread, other.spread))
    return (
        f"{text} (medians of {other.n} and {full.n} seeds), "
        f"{'within' if found == 'within' else 'more than'} the seeds' spread of {spread}"
    )


def _change(full: Scores, other: Scores) -> Decimal:
    return _decimal(other.median) - _decimal(full.median)


def _spread(scores: Scores) -> str:
    return f"{scores.n} seeds, spread {rounded(scores.spread)}" if scores.n > 1 else "1 seed"


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _signed(value: Decimal) -> str:
    return f"{rounded(value):+}"


def _listed(changes: Mapping[str, Decimal], remarks: Mapping[str, str] | None = None) -> str:
    """`CoLA +10.4, RACE +5.7`, the largest first; each with its remark in brackets."""
    ordered = sorted(changes.items(), key=lambda item: -abs(item[1]))
    return ", ".join(
        f"{escaped(title)} {_signed(change)}" + (f" ({remarks[title]})" if remarks else "")
        for title, change in ordered
    )


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three"}.get(count, str(count))
