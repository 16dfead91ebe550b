"""Tables and figures from runs: what is done once, what is missing and why, what is reported."""

import dataclasses
import json
import statistics

import pytest
import runs

from gpt1_jax import run_files
from gpt1_jax.errors import UserError
from gpt1_jax.experiments import reproduce as module
from gpt1_jax.experiments.config import Request
from gpt1_jax.experiments.reproduce import reproduce

# Every run of a test has these sizes, pre-training and fine-tuning alike.
SETTINGS = {
    "steps": "2",
    "batch_size": "8",
    "model.n_layer": "2",
    "model.n_embd": "24",
    "model.n_ctx": "16",
    "model.n_units": "16",
    "eval.windows": "4",
    "eval.batch_size": "8",
    "mesh.data": "1",
}


def request(folder, tokens, tasks=("cola",), **changes):
    return Request(
        **{
            "workdir": str(folder / "work"),
            "scale": "small",
            "seeds": (0, 1),
            "tasks": tasks,
            "data": str(tokens),
            "task_data": str(folder / "tasks"),
            "settings": SETTINGS,
            **changes,
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two tasks of the paper by name, with the files of a made-up rule."""
    folder = tmp_path_factory.mktemp("reproduce")
    runs.write_task(folder / "tasks" / "cola", "classification")
    runs.write_task(folder / "tasks" / "rte", "entailment")
    return folder


@pytest.fixture(scope="module")
def table(folder, tokens):
    return reproduce(request(folder, tokens, table=5))


def ledger(folder):
    return json.loads((folder / "work" / "reproduction.json").read_text())


def test_a_cell_is_the_median_of_its_runs_and_each_run_is_what_its_row_says(folder, table):
    assert list(table["table"]) == ["full", "no_pretraining", "no_aux_lm", "lstm"]
    for variant, row in table["table"].items():
        assert set(row) == {"cola"}
        for task, value in row.items():
            runs_of_cell = [folder / "work" / "finetuned" / variant / f"{task}-{s}" for s in (0, 1)]
            results = [json.loads((one / "result.json").read_text()) for one in runs_of_cell]
            assert value == statistics.median(one["best"]["score"] for one in results)
            config = json.loads((runs_of_cell[1] / "config.json").read_text())
            assert config["seed"] == 1
            assert config["task"]["name"] == task
            assert config["n_transfer"] == (-1 if variant == "no_pretraining" else None)
            assert config["objective"]["lm_coef"] == (0 if variant == "no_aux_lm" else 0.5)
            body = "lstm" if variant == "lstm" else "transformer"
            assert config["model"]["body"] == body
            assert config["initial"].endswith(f"pretrained/{body}")


def test_the_ledger_names_every_run_and_the_baselines(folder, table):
    found = ledger(folder)
    assert found["scale"] == "small"
    assert len(found["runs"]) == 4 * 2
    for one in found["runs"]:
        assert (folder / "work" / one["folder"] / "result.json").exists()
    assert set(found["baselines"]) == {"cola"}
    assert {"chance", "majority", "bag_of_words"} <= set(found["baselines"]["cola"])
    assert not found["missing"]


def test_columns_of_other_splits_are_measured_after_the_training(folder, tokens, tmp_path):
    made = runs.write_task(tmp_path / "tasks" / "mnli", "entailment")
    (made / "dev_mismatched.jsonl").write_text((made / "dev.jsonl").read_text())
    chosen = request(tmp_path, tokens, tasks=("mnli",), seeds=(0,), table=2)
    initial = str(folder / "work" / "pretrained" / "transformer")
    reproduce(dataclasses.replace(chosen, initial=initial))
    (one,) = ledger(tmp_path)["runs"]
    assert one["further"]["dev_mismatched"]["accuracy"] == one["value"]
    table = (tmp_path / "work" / "report" / "table2.csv").read_text()
    assert "dev_mismatched" in table


def test_again_it_trains_nothing(folder, table, tokens):
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}
    assert reproduce(request(folder, tokens, table=5))["table"] == table["table"]
    assert files == {path: path.stat().st_mtime_ns for path in folder.rglob("metrics.jsonl")}


def test_the_report_is_made_of_it(folder, table):
    page = (folder / "work" / "report" / "report.html").read_text()
    assert "small" in page
    assert table["files"]


def test_what_cannot_run_says_why_and_the_rest_runs(folder, table, tokens):
    result = reproduce(request(folder, tokens, tasks=("cola", "qqp"), table=5))
    assert result["table"]["full"]["cola"] == table["table"]["full"]["cola"]
    assert result["table"]["full"]["qqp"] is None
    reasons = {(one["variant"], one["task"]): one["reason"] for one in result["missing"]}
    assert set(reasons) == {(variant, "qqp") for variant in table["table"]}
    assert all("tasks/qqp is not a folder" in reason for reason in reasons.values())


def test_nothing_is_pretrained_for_tasks_that_are_not_there(tmp_path, tokens, monkeypatch):
    def absent(config):
        raise UserError("not there")

    monkeypatch.setattr(module.tasks, "load", absent)
    (tmp_path / "tasks").mkdir()
    result = reproduce(request(tmp_path, tokens, table=4, tasks=None))
    assert not (tmp_path / "work" / "pretrained").exists()
    assert set(result["table"]["full"]) == {"cola", "sst2", "mrpc", "stsb", "qqp"}
    assert len(result["missing"]) == 5


def test_a_task_may_be_named_by_its_folder(folder, table, tokens):
    named = str(folder / "tasks" / "cola")
    result = reproduce(request(folder, tokens, tasks=(named,), task_data=None, table=4))
    assert result["table"]["full"] == {"cola": table["table"]["full"]["cola"]}


def test_figure_2_left_has_a_run_for_every_depth(folder, table, tokens):
    reproduce(request(folder, tokens, tasks=("rte",), seeds=(0,), figure="2left"))
    found = [one for one in ledger(folder)["runs"] if one["figure"] == "2left"]
    assert [one["n_transfer"] for one in found] == [0, 1, 2]
    for one in found:
        splits = {row["split"] for row in runs.rows(folder / "work" / one["folder"])}
        assert {"dev", "train_examples"} <= splits
    # The points of the figure are no cells of the table.
    again = reproduce(request(folder, tokens, table=5))
    assert again["table"] == table["table"]


def test_figure_2_right_probes_every_stored_checkpoint_of_both_bodies(folder, table, tokens):
    result = reproduce(request(folder, tokens, tasks=("cola",), figure="2right"))
    points = {(row["body"], row["step"], row["probe"]) for row in result["probes"]}
    assert points == {
        (body, step, "acceptability") for body in ("transformer", "lstm") for step in (0, 1, 2)
    }
    assert set(ledger(folder)["anchors"]) == {"acceptability"}


def test_weights_that_are_given_are_not_trained(folder, table, tokens, tmp_path):
    given = folder / "work" / "pretrained" / "transformer"
    (tmp_path / "tasks").symlink_to(folder / "tasks")
    reproduce(
        request(
            tmp_path,
            tokens,
            tasks=("rte",),
            seeds=(0,),
            table=2,
            data=None,
            initial=str(given),
        )
    )
    assert not (tmp_path / "work" / "pretrained").exists()
    config = run_files.read_config(tmp_path / "work" / "finetuned" / "full" / "rte-0")
    assert config["initial"] == str(given)


def test_what_does_not_fit_is_refused_before_anything_runs(folder, table, tokens, tmp_path):
    cases = [
        ({}, "--table and --figure"),
        ({"table": 5, "figure": "2left"}, "--table and --figure"),
        ({"table": 5, "seeds": (1, 1)}, "--seeds=1,1"),
        ({"table": 5, "settings": {"model.layers": "2"}}, "model.n_layer"),
        ({"table": 5, "tasks": ("colla",)}, "--tasks=colla"),
        ({"table": 5, "task_data": "nowhere"}, "--task_data=nowhere"),
        ({"table": 5, "scale": "paper"}, "choose another --workdir"),
    ]
    before = runs.snapshot(folder / "work")
    for changes, named in cases:
        with pytest.raises(UserError, match=named):
            reproduce(request(folder, tokens, **changes))
    assert runs.snapshot(folder / "work") == before
    lstm = str(folder / "work" / "pretrained" / "lstm")
    result = reproduce(
        request(tmp_path, tokens, table=2, task_data=str(folder / "tasks"), initial=lstm)
    )
    assert all("holds a lstm" in one["reason"] for one in result["missing"])
