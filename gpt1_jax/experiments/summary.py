"""What the quickstart measured, in words: each sentence follows from the numbers and their spread.

A result here is the object of the quickstart's result.json.
"""

import statistics
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from gpt1_jax.experiments import plan as plans
from gpt1_jax.experiments.plan import Plan

Verdict = Literal["ahead", "level", "behind"]

# Differences of accuracies that are equal on paper.
ROUNDING = 1e-9
BASELINES = ("chance", "majority", "bag_of_words")
# What the full recipe is compared with, and how a sentence about it begins.
COMPARED = {
    "no_pretraining": "With pre-training the model is",
    "no_aux_lm": "With the auxiliary loss it is",
    "lstm": "Against the LSTM the Transformer is",
    "bag_of_words": "Against a bag of words it is",
}


class Comparison(NamedTuple):
    """The full recipe less another row: the difference of the means, the spread (largest less
    smallest seed, of the row where that is more), and what they come to."""

    difference: float
    spread: float
    verdict: Verdict


def compared(values: Iterable[float], others: Iterable[float]) -> Comparison:
    """One row against another, by their scores of each seed. A difference counts only beyond the
    spread of the seeds.

        .60 .70   .50 .55   ->   +.125 (spread .1), ahead
        .60 .70   .59 .58   ->   +.065 (spread .1), level
    """
    values, others = list(values), list(others)
    difference = statistics.mean(values) - statistics.mean(others)
    spread = max(max(scores) - min(scores) for scores in (values, others))
    if abs(difference) <= spread + ROUNDING:
        return Comparison(difference, spread, "level")
    return Comparison(difference, spread, "ahead" if difference > 0 else "behind")


def comparisons(scores: Mapping, baselines: Mapping) -> dict[str, dict[str, Comparison]]:
    """The full recipe against each other row and a bag of words, by task. `scores`: those of each
    seed, by variant and task; `baselines`: by task."""

    def of_row(other: str, task: str) -> list[float]:
        return [baselines[task][other]] if other in BASELINES else scores[other][task]

    return {
        other: {task: compared(full, of_row(other, task)) for task, full in scores["full"].items()}
        for other in COMPARED
    }


def described(result: Mapping) -> str:
    """The tables as text, and the sentences that follow from them."""
    plan, tasks = _plan_of(result), result["tasks"]
    lines = [
        *table_lines(result),
        "",
        f"mean of {len(result['seeds'])} seeds, ± half of what lies between the best and the "
        f"worst; {plan.pretraining_steps} updates of pre-training",
        *(
            f"{name} ({task['shape']}, {task['train']} labels, {task['dev']} in dev): "
            f"{task['question']}"
            for name, task in tasks.items()
        ),
        "",
        *sentences(result),
        "",
        _zero_shot(result["zero_shot_word_order"]),
    ]
    return "\n".join(lines)


def table_lines(result: Mapping) -> list[str]:
    """The table, with the baselines below the rows of the paper."""
    names = list(result["baselines"])
    width = max(map(len, [*result["table"], *BASELINES])) + 2

    def row(name: str, cells: Iterable[str]) -> str:
        return name.ljust(width) + "".join(cell.rjust(18) for cell in cells)

    lines = [row("accuracy on dev, %", names)]
    for variant, means in result["table"].items():
        spread = result["spread"][variant]
        cells = [f"{100 * means[name]:.1f} ±{50 * spread[name]:.1f}" for name in names]
        lines.append(row(variant, cells))
    for baseline in BASELINES:
        cells = [f"{100 * result['baselines'][name][baseline]:.1f}" for name in names]
        lines.append(row(baseline.replace("_", " "), cells))
    return lines


def sentences(result: Mapping) -> list[str]:
    """What the table says; or that it says nothing, where too little was trained."""
    if not _plan_of(result).says_something:
        return [
            f"This is too little for the table to say anything: {plans.LEAST_UPDATES} updates of "
            f"pre-training and {plans.LEAST_LABELS} labels of each task are needed."
        ]
    found = comparisons(result["scores"], result["baselines"])
    return [sentence(begins, found[other]) for other, begins in COMPARED.items()]


def sentence(begins: str, by_task: Mapping[str, Comparison]) -> str:
    """Where it is ahead, level and behind, with the difference in points and the seeds' spread."""
    parts = []
    for verdict in ("ahead", "level", "behind"):
        cells = [
            f"{task} ({100 * one.difference:+.1f}, spread {100 * one.spread:.1f})"
            for task, one in by_task.items()
            if one.verdict == verdict
        ]
        if cells:
            parts.append(f"{verdict} on {', '.join(cells)}")
    return f"{begins} {'; '.join(parts)}."


def _zero_shot(curve: Mapping[str, float]) -> str:
    steps = ", ".join(f"{100 * accuracy:.1f} % after {step}" for step, accuracy in curve.items())
    return f"word order with no training on it, by updates of pre-training: {steps}"


def _plan_of(result: Mapping) -> Plan:
    return Plan(result["plan"]["pretraining_steps"], result["plan"]["labels"])
