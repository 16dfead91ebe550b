"""The tables of a report."""

import json
import shutil

import pytest
import reproductions
from reproductions import entries, every_task_once, grid, read_csv

from gpt1_jax.results import charts, finished_runs, paper, tables

# Tables


def test_a_cell_has_median_range_count_and_split_beside_the_published_value(runs):
    cell = entries(runs)["table-5-full-rte"]
    assert cell.published == 56.0
    assert (cell.scores.median, cell.scores.n, cell.scores.splits) == (55.0, 3, ("dev",))
    assert (min(cell.scores.values), max(cell.scores.values)) == (50.0, 60.0)
    assert tables.shown(cell.scores) == "55.0 (50.0 to 60.0)"
    assert cell.config == "configs/finetune.py:rte"
    baselines = {"chance": 50.0, "majority": 52.7, "bag_of_words": 56.0, "hypothesis_only": 54.0}
    assert cell.baselines == pytest.approx(baselines)


def test_the_same_run_stands_in_every_table_that_has_its_task(runs):
    found = entries(runs)
    assert found["table-4-full-cola"].scores == found["table-5-full-cola"].scores
    assert found["table-2-full-rte"].scores == found["table-5-full-rte"].scores


def test_runs_of_figures_are_no_cells_of_tables(runs):
    # Figure 2 has MRPC runs of 50, 60 and 70.
    assert entries(runs)["table-5-full-mrpc"].scores.values == pytest.approx([80, 82, 81])


def test_the_length_of_a_run_is_among_what_is_not_the_papers(runs, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(runs, copy)
    for path in copy.rglob("config.json"):
        config = json.loads(path.read_text())
        config |= {"steps": 60, "epochs": None}
        path.write_text(json.dumps(config))
    rows = charts.settings(paper.read_paper(), finished_runs.read_runs(copy))
    assert ("pre-training", "updates", "1,000,000", "60") in rows
    assert ("fine-tuning", "epochs", "3", "60 updates") in rows


def test_a_cell_without_a_run_says_why(runs):
    found = entries(runs)
    assert found["table-5-full-qqp"].scores.reason == "its files are not here"
    assert found["table-4-full-qqp"].scores.reason == "its files are not here"
    assert found["table-5-full-sst2"].scores.reason == "no folder"
    assert found["table-5-full-mnli"].scores.reason == (
        f"not run: gpt1 reproduce --table=5 --tasks=mnli --workdir={runs} --scale=small, with the "
        "flags of before that name data"
    )
    assert "without a value: SST2, STSB, QQP, MNLI, QNLI" in found["table-5-full-avg"].scores.reason
    assert not [entry for entry in found.values() if not entry.scores and not entry.scores.reason]


def test_a_run_that_was_not_finished_is_named(runs, tmp_path):
    copy = shutil.copytree(runs, tmp_path / "copy")
    for seed in reproductions.SEEDS:
        (copy / f"finetuned/lstm/cola-{seed}" / "result.json").unlink()
    cell = entries(copy)["table-5-lstm-cola"]
    assert cell.scores.reason == (
        "finetuned/lstm/cola-2 has no result.json: not finished, or not copied"
    )


def test_runs_that_a_reproduction_has_and_the_report_has_not(runs, tmp_path):
    """One that was stopped gives its cell no value; one that is not there, or that nobody listed,
    is named, but for the pre-trainings that others of the list began with."""
    root = shutil.copytree(runs, tmp_path / "copy")
    cut, gone = "finetuned/lstm/cola-0", "finetuned/full/rte-1"
    path = root / cut / "config.json"
    config = json.loads(path.read_text()) | {"resolved": {"total_steps": 60}}
    path.write_text(json.dumps(config))
    shutil.rmtree(root / gone)
    for name in ("pretrained/short", "finetuned/by_hand"):
        reproductions.write_run(root / name, None)
    of_full = root / "finetuned/full/rte-0/config.json"
    initial = {"initial": "/elsewhere/pretrained/short"}
    of_full.write_text(json.dumps(json.loads(of_full.read_text()) | initial))
    found = finished_runs.read_runs(root)
    assert found.left_out == {
        "finetuned/by_hand": "reproduction.json does not list it",
        gone: "has no result.json: not finished, or not copied",
        cut: "was stopped after 6 of 60 updates",
    }
    assert found.of_cell("lstm", "cola")[0].seed == 1
    assert entries(root)["table-5-full-rte"].scores.n == 2


def test_the_average_is_over_all_columns_once_all_have_run(tmp_path):
    scores = every_task_once()
    scores["full"]["cola"] = (0.1,)
    found = entries(reproductions.write(tmp_path / "runs", scores, baselines={}))
    assert found["table-5-full-avg"].scores.values == [pytest.approx((7 * 50 + 10) / 8)]
    assert found["table-5-no-aux-lm-avg"].scores.values == [50.0]
    assert not [name for name in found if "avg-of" in name]


def test_an_average_is_over_the_seeds_that_every_column_has(tmp_path):
    scores = {"full": {**every_task_once()["full"], "cola": (0.1, 0.3)}}
    found = entries(reproductions.write(tmp_path / "runs", scores))
    assert found["table-5-full-avg"].scores.by_seed == {0: pytest.approx((7 * 50 + 10) / 8)}


def test_an_average_of_some_columns_stands_beside_the_same_of_the_published(runs):
    found = grid(runs, "table5")
    assert found.header[1] == "Avg of 2"
    published = {line.title: line.cells[0] for line in found.lines if line.kind == "paper"}
    # (45.4 + 82.3) / 2 and (30.3 + 83.2) / 2
    assert published["Transformer w/ aux LM (full), published"] == "63.9"
    assert published["LSTM w/ aux LM, published"] == "56.8"
    assert entries(runs)["table-5-full-avg-of-2"].scores.values == pytest.approx([45, 48, 46.5])


def test_the_glue_score_of_ours_needs_wnli_and_the_second_metrics(tmp_path):
    names = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
    root = reproductions.write(tmp_path / "runs", {"full": dict.fromkeys(names, (0.5,))})
    cell = entries(root)["table-4-full-glue"]
    # The made-up rows have accuracy beside each metric, but no Spearman and no mismatched MNLI.
    assert cell.scores.reason == (
        "needs every column; without a value: stsb spearman, mnli mismatched"
    )
    for task, row in (
        ("stsb", {"split": "dev", "spearman": 0.7}),
        ("mnli", {"split": "dev_mismatched", "accuracy": 0.9}),
    ):
        with (root / f"finetuned/full/{task}-0/metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 4, **row}) + "\n")
    found = entries(root)
    # Eight tasks at 50 but for STS-B at (50 + 70) / 2 and MNLI at (50 + 90) / 2.
    assert found["table-4-full-glue"].scores.values == [pytest.approx((7 * 50 + 60 + 70) / 9)]
    assert found["table-2-full-mnli-mm"].scores.values == [90.0]
    assert found["table-5-full-mnli"].scores.values == [70.0]
    assert found["table-5-full-mnli"].scores.splits == ("dev", "dev_mismatched")


def test_what_was_measured_of_an_earlier_model_is_not_shown(tmp_path):
    """A run that was trained on by hand since reproduction.json was written."""
    root = reproductions.write(tmp_path / "runs", {"full": {"mnli": (0.5,)}})
    path = root / "reproduction.json"
    whole = json.loads(path.read_text())
    for measured, shown in (
        ({}, [90.0]),
        ({"step": 4}, [90.0]),
        ({"step": 2}, []),
        ({"value": 0.4}, []),
    ):
        further = {"dev_mismatched": {"accuracy": 0.9}}
        runs = [whole["runs"][0] | {"further": further} | measured, *whole["runs"][1:]]
        path.write_text(json.dumps(whole | {"runs": runs}))
        assert entries(root)["table-2-full-mnli-mm"].scores.values == shown


def test_the_best_step_is_taken_not_the_last(runs):
    found = finished_runs.read_runs(runs)
    run = found.of_cell("full", "rte")[0]
    assert run.score("accuracy") == 0.60
    assert run.score("accuracy", "train_examples") == pytest.approx(0.70)
    assert run.score("f1") is None
    assert entries(runs)["table-5-full-mrpc"].scores.runs[0].score("accuracy") == 0.80


def test_a_note_says_whether_dev_chose_the_checkpoint(runs, tmp_path):
    assert "which also chose the checkpoint" in "".join(grid(runs, "table5").notes)
    root = reproductions.write(tmp_path / "runs", {"full": {"rte": (0.5,)}})
    path = root / "finetuned/full/rte-0/metrics.jsonl"
    rows = [
        line for line in path.read_text().splitlines() if '"dev"' not in line or '"step": 4' in line
    ]
    path.write_text("\n".join(rows))
    assert "on dev, at the end of training" in "".join(grid(root, "table5").notes)


def test_tasks_of_no_table_have_a_table_of_their_own(runs):
    found = grid(runs, "further")
    assert found.header == ("", "CODAH")
    assert [line.cells for line in found.lines if line.kind == "ours"] == [
        ("42.0 (40.0 to 44.0)",),
        ("26.0 (25.0 to 27.0)",),
    ]


def test_qnli_is_compared_with_its_second_version(reported):
    output, _ = reported
    (row,) = (
        row
        for row in read_csv(output / "table5.csv")
        if row["column"] == "QNLI" and row["row"] == "Transformer w/ aux LM (full)"
    )
    assert (row["published"], row["published_current_data"]) == ("88.1", "87.4")
    assert "v2 (104,743)" in (output / "table5.md").read_text()


def test_table_1_has_the_twelve_tasks_in_four_groups(reported):
    rows = read_csv(reported[0] / "table1.csv")
    kinds = [row["kind"] for row in rows]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "NLI": 5,
        "QA": 2,
        "Similarity": 3,
        "Classification": 2,
    }


# Mistakes


def test_halves_of_our_values_are_rounded_as_those_of_the_paper(tmp_path):
    # In binary, 100 * 0.5775 is less than 57.75.
    root = reproductions.write(tmp_path / "runs", {"full": {"rte": (0.5775,)}})
    assert tables.shown(entries(root)["table-5-full-rte"].scores) == "57.8"
