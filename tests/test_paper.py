"""The index of published numbers: its sums come out as the paper prints them."""

import subprocess
import sys
from collections import defaultdict

import pytest

from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.tasks import TASKS
from gpt1_jax.recipe import experiment
from gpt1_jax.results import paper
from gpt1_jax.results.averages import glue_score, mean, rounded

INDEX = paper.read_paper()


def published(**wanted):
    return [
        cell
        for cell in INDEX.cells
        if all(getattr(cell, name) == value for name, value in wanted.items())
    ]


def values(number, variant):
    return {cell.column: cell.value for cell in published(table=number, variant=variant)}


def test_every_cell_is_there():
    counts = {number: len(published(table=number)) for number in INDEX.tables}
    # Counted on the printed page: dashes are no cells.
    assert counts == {2: 24, 3: 12, 4: 21, 5: 36}
    assert len(published(source="leaderboard")) == 5
    # Sums of the printed tables, made from another transcription.
    sums = {number: sum(cell.value for cell in published(table=number)) for number in INDEX.tables}
    assert sums == pytest.approx({2: 1885.0, 3: 739.9, 4: 1495.1, 5: 2508.8})


def test_the_glue_score_is_72_8_with_what_the_leaderboard_adds():
    cells = defaultdict(dict)
    for cell in published(variant="full"):
        if cell.table in (2, 4, None) and cell.task:
            name = {"MNLI-m": "matched", "MNLI-mm": "mismatched"}.get(cell.column, cell.metric)
            cells[cell.task][name] = cell.value
    score = glue_score(cells)
    assert rounded(score, 2) == rounded(72.82, 2)
    (printed,) = published(metric="glue", variant="full")
    assert rounded(score) == rounded(printed.value) == rounded(72.8)


@pytest.mark.parametrize(
    ("variant", "average", "printed"),
    [
        ("full", "74.7", 74.7),
        ("no_pretraining", "59.9", 59.9),
        ("no_aux_lm", "75.0", 75.0),
        ("lstm", "69.2", 69.1),  # as printed; the footnote says so
    ],
)
def test_the_averages_of_table_5(variant, average, printed):
    row = values(5, variant)
    assert row.pop("Avg") == printed
    assert len(row) == 8
    assert str(rounded(mean(row.values()))) == average


def test_table_5_repeats_tables_2_and_4():
    row, inference, rest = values(5, "full"), values(2, "full"), values(4, "full")
    assert row["MNLI"] == float(rounded(mean([inference["MNLI-m"], inference["MNLI-mm"]])))
    assert (row["QNLI"], row["RTE"]) == (inference["QNLI"], inference["RTE"])
    for mine, theirs in (("CoLA", "CoLA"), ("SST2", "SST-2"), ("STSB", "STS-B"), ("QQP", "QQP")):
        assert row[mine] == rest[theirs]


def test_the_auxiliary_loss_helps_on_inference_and_on_the_larger_sets():
    full, without = values(5, "full"), values(5, "no_aux_lm")
    task = {cell.column: TASKS[cell.task] for cell in published(table=5) if cell.task}
    helped = {column for column in task if full[column] > without[column]}
    assert helped == {column for column in task if task[column].group == "NLI"} | {"QQP"}
    by_size = sorted(task, key=lambda column: task[column].counts["tfds"]["train"])
    assert set(by_size[-3:]) == helped - {"RTE"}
    assert by_size[0] == "RTE"


def test_race_is_the_mean_over_its_questions():
    cells = values(3, "full")
    whole = (1436 * cells["RACE-m"] + 3498 * cells["RACE-h"]) / 4934
    assert rounded(whole) == rounded(cells["RACE"])


def test_every_cell_of_ours_has_a_config_that_builds_and_does_what_the_row_says():
    cells = [cell for cell in INDEX.cells if cell.config]
    assert {cell.table for cell in cells} == {2, 3, 4, 5}
    for cell in cells:
        found, _ = experiment.load(cell.config)
        assert found.task.name == cell.task
        assert found.n_transfer == (-1 if cell.variant == "no_pretraining" else None)
        assert found.objective.lm_coef == (0.0 if cell.variant == "no_aux_lm" else 0.5)
        before, _ = experiment.load(cell.pretraining)
        assert before.model.body == ("lstm" if cell.variant == "lstm" else "transformer")


def test_every_figure_has_configs_that_build():
    left, right = INDEX.figures["2left"], INDEX.figures["2right"]
    found = [experiment.load(config)[0] for config in left.configs]
    assert [one.n_transfer for one in found] == [*range(13), *range(13)]
    assert {one.task.name for one in found} == set(left.tasks)
    bodies = [experiment.load(config)[0].model.body for config in right.configs]
    assert bodies == ["transformer", "lstm"]


def test_rows_of_others_are_quoted_and_have_no_config():
    for cell in published(source="quoted"):
        assert cell.variant is None
        assert cell.config is None


def test_metrics_are_those_of_the_tasks():
    for cell in INDEX.cells:
        if cell.source == "paper" and cell.task:
            assert cell.metric == TASKS[cell.task].metric
        assert cell.metric in (*METRICS, "glue", "average")


def test_the_tables_tell_their_tasks():
    assert INDEX.tasks(2) == ("mnli", "snli", "scitail", "qnli", "rte")
    assert INDEX.tasks(3) == ("story_cloze", "race_middle", "race_high", "race")
    assert INDEX.tasks(4) == ("cola", "sst2", "mrpc", "stsb", "qqp")
    assert INDEX.tasks(5) == ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
    assert len(INDEX.headlines()) == 12
    rows = [row.variant for row in INDEX.tables[5].rows]
    assert rows == list(INDEX.variants)


def test_the_index_is_read_without_jax():
    script = (
        "import sys\nfrom gpt1_jax.results import paper\nassert paper.read_paper().cells\n"
        "print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
