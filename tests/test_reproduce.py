"""Tables and figures from runs: what is done once, what is missing and why, what is reported."""

import csv
import html
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time

import jax
import pytest
import runs

from gpt1_jax.experiments import clock, fine_tuning
from gpt1_jax.recipe import experiment
from gpt1_jax.results import finished_runs

# Every run of a test has these sizes, pre-training and fine-tuning alike. With one layer the two
# bodies, and figure 2 (left), cost as little as they can.
SIZES = {
    "steps": 2,
    "batch_size": 8,
    "model.n_layer": 1,
    "model.n_embd": 24,
    "model.n_ctx": 16,
    "model.n_units": 16,
    "eval.windows": 4,
    "eval.batch_size": 8,
    "checkpoint.per_decade": 0,
    "mesh.data": 1,
}
# What the table is fine-tuned on; later calls say it again, for they are the same runs.
SETTINGS = {**SIZES, "task.train_examples": 24}
VARIANTS = ("full", "no_pretraining", "no_aux_lm", "lstm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tasks of the paper by name, with the files of a made-up rule: cola, mnli with both dev sets,
    and rte, whose training set is smaller than a batch."""
    folder = tmp_path_factory.mktemp("reproduce")
    runs.write_task(folder / "tasks" / "cola", "classification", classes=(0, 1))
    runs.write_task(folder / "tasks" / "rte", "entailment", n_train=4)
    words = ("entailment", "neutral")
    mnli = runs.write_task(folder / "tasks" / "mnli", "entailment", classes=words)
    (mnli / "dev_mismatched.jsonl").write_text((mnli / "dev.jsonl").read_text())
    return folder


@pytest.fixture(scope="module")
def reproduce(folder, tokens):
    """Runs the verb on that folder, with other flags where a test asks for them."""

    def run(settings=SIZES, **changes) -> runs.Outcome:
        flags = {
            "workdir": folder / "work",
            "scale": "small",
            "seeds": "0,1",
            "tasks": "cola",
            "data": tokens,
            "task_data": folder / "tasks",
            **changes,
        }
        words = [f"--{name}={value}" for name, value in flags.items() if value is not None]
        words += [f"--config.{key}={value}" for key, value in settings.items()]
        return runs.verb("reproduce", *words)

    return run


@pytest.fixture(scope="module")
def table(reproduce):
    """Table 5 with one seed, and table 4, which adds a second seed of its only row."""
    for changes in ({"table": 5, "seeds": 0}, {"table": 4}):
        done = reproduce(SETTINGS, **changes)
        assert done.status == 0, done.said[-1]
    return done.result


@pytest.fixture
def refused(reproduce):
    """Runs the verb, which must refuse in one line before anything else is said or printed."""

    def run(**changes) -> str:
        done = reproduce(**changes)
        assert (done.status, done.result) == (2, None)
        (line,) = done.said
        return line

    return run


def ledger(workdir):
    return json.loads((workdir / "reproduction.json").read_text())


def config(workdir):
    return json.loads((workdir / "config.json").read_text())


def finetuned(folder, variant):
    seeds = (0, 1) if variant == "full" else (0,)
    return [folder / "work" / "finetuned" / variant / f"cola-{seed}" for seed in seeds]


def test_runs_that_are_known_are_counted_and_have_the_scores_of_now(
    folder, table, reproduce, monkeypatch
):
    """What the ledger has of an earlier model is measured again, on every split; what it has of
    this one is not."""
    monkeypatch.setitem(fine_tuning.FURTHER, "cola", {"again": (None, "dev")})
    whole = ledger(folder / "work")
    first, second = (one for one in whole["runs"] if one["variant"] == "full")
    for one in (first, second):
        one["further"] = {"again": {"matthews": 0.9}}
    first |= {"value": 0.9, "step": 1}
    (folder / "work" / "reproduction.json").write_text(json.dumps(whole))
    said = reproduce(SETTINGS, table=4).said
    assert re.fullmatch(
        r"in all: 0\.0 million tokens of pre-training, 2 runs of fine-tuning; about a minute "
        r"on 8 x cpu, [\d.]+ .B for models",
        next(line for line in said if line.startswith("in all")),
    )
    counted = [line.rpartition("(")[2] for line in said if line.startswith("full cola, seed")]
    assert counted == ["run 1 of 2)", "run 2 of 2)"]
    now = [one for one in ledger(folder / "work")["runs"] if one["variant"] == "full"]
    assert [one["folder"] for one in now] == [first["folder"], second["folder"]]
    for one in now:
        best = json.loads((folder / "work" / one["folder"] / "result.json").read_text())["best"]
        assert (one["step"], one["value"]) == (best["step"], best["score"])
    assert [one["further"]["again"]["matthews"] for one in now] == [now[0]["value"], 0.9]


def test_some_rows_are_made_without_the_weights_of_the_others(reproduce, tmp_path):
    done = reproduce(SETTINGS, table=5, seeds=0, variants="no_pretraining,full", workdir=tmp_path)
    assert done.status == 0, done.said[-1]
    assert {name for name, row in done.result["table"].items() if row["cola"] is not None} == {
        "full",
        "no_pretraining",
    }
    assert [path.name for path in (tmp_path / "pretrained").iterdir()] == ["transformer"]


@pytest.mark.exhaustive
def test_a_signal_stops_the_processes_and_the_same_command_goes_on(folder, tokens):
    workdir = folder / "stopped"
    flags = {"table": 4, "tasks": "cola", "seeds": "0,1", "scale": "small", "workers": 2}
    flags |= {"data": tokens, "task_data": folder / "tasks", "workdir": workdir}
    words = [f"--{name}={value}" for name, value in flags.items()]
    words += [f"--config.{key}={value}" for key, value in (SETTINGS | {"steps": 4000}).items()]
    command = [sys.executable, "-m", "gpt1_jax", "reproduce", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        metrics = workdir / "pretrained" / "transformer" / "metrics.jsonl"
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
    assert process.returncode == 75, said
    steps = [int(path.name) for path in metrics.parent.glob("checkpoints/[0-9]*")]
    assert 0 < max(steps) < 4000


def test_what_a_task_compiled_is_gone_with_it(folder, table, reproduce, tmp_path):
    """Or a reproduction of many tasks runs out of memory and of mappings."""
    settings = {key: value for key, value in SETTINGS.items() if not key.startswith("model.")}
    flags = {"data": None, "initial": folder / "work" / "pretrained" / "transformer"}
    done = reproduce(settings, table=4, seeds=0, workdir=tmp_path, **flags)
    assert done.status == 0
    assert not jax.devices()[0].client.live_executables()


def test_of_several_processes_one_says_that_they_stop(folder, table):
    workdir = folder / "interrupted"
    flags = {"table": 4, "tasks": "cola", "seeds": "0,1", "scale": "small", "workers": 2}
    flags |= {"initial": folder / "work" / "pretrained" / "transformer", "workdir": workdir}
    words = [f"--{name}={value}" for name, value in flags.items()]
    words += [f"--task_data={folder / 'tasks'}", "--config.steps=4000"]
    command = [sys.executable, "-m", "gpt1_jax", "reproduce", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # Both are at work, and may not have begun to train.
        cells = workdir / "finetuned" / "full"
        while process.poll() is None and len(list(cells.glob("*/config.json"))) < 2:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().splitlines()
    assert process.returncode == 75, said
    stopping, last = [line for line in said if re.search("stop|semaphore", line)]
    assert stopping == "stopping after this step; once more leaves at once"
    assert last.startswith("gpt1: stopped by a signal; the runs that had begun are saved")


def test_the_time_left_is_by_the_runs_of_this_call(monkeypatch):
    now = iter([0.0, 0.0, 10.0, 10.0, 40.0])
    monkeypatch.setattr(clock.time, "monotonic", lambda: next(now))
    count = clock.Count(cells=2)
    for made in (False, True, True):
        with count.run(made):
            pass
    assert count.said(runs_of_a_cell=3) == "run 3 of 6, about 1:00 left"


def test_a_cell_is_the_median_of_its_runs_and_each_run_is_what_its_row_says(folder, table):
    assert tuple(table["table"]) == VARIANTS
    for variant, row in table["table"].items():
        cells = finetuned(folder, variant)
        results = [json.loads((cell / "result.json").read_text()) for cell in cells]
        assert row == {"cola": statistics.median(one["best"]["score"] for one in results)}
        found = config(cells[-1])
        assert found["seed"] == len(cells) - 1
        assert found["task"]["name"] == "cola"
        assert found["n_transfer"] == (-1 if variant == "no_pretraining" else None)
        assert found["objective"]["lm_coef"] == (0 if variant == "no_aux_lm" else 0.5)
        body = "lstm" if variant == "lstm" else "transformer"
        assert found["model"]["body"] == body
        assert found["initial"].endswith(f"pretrained/{body}")


def test_keys_of_the_tasks_reach_the_fine_tuning_alone(folder, table):
    for variant in VARIANTS:
        assert config(finetuned(folder, variant)[0])["task"]["train_examples"] == 24
    for body in ("transformer", "lstm"):
        pretrained = config(folder / "work" / "pretrained" / body)
        assert pretrained["task"]["train_examples"] is None
        assert pretrained["model"]["n_embd"] == 24


def test_the_ledger_names_every_run_and_the_baselines(folder, table):
    found = ledger(folder / "work")
    assert found["scale"] == "small"
    assert len(found["runs"]) == 4 + 1
    for one in found["runs"]:
        assert (folder / "work" / one["folder"] / "result.json").exists()
    expected = {"chance", "majority", "bag_of_words", "word_pairs"}
    assert expected <= set(found["baselines"]["cola"])
    assert not found["missing"]


def test_the_report_is_made_of_it(folder, table, tmp_path):
    page = (folder / "work" / "report" / "report.html").read_text()
    assert "small" in page
    assert table["files"]
    again = runs.verb("report", f"--runs={folder / 'work'}", f"--output={tmp_path / 'report'}")
    assert again.status == 0
    assert (tmp_path / "report" / "table5.csv").exists()


def test_a_cell_that_fails_makes_the_status_nonzero_and_the_rest_runs(folder, table, reproduce):
    done = reproduce(SETTINGS, table=5, seeds=0, tasks=f"rte,{folder / 'tasks' / 'cola'}")
    assert done.status == 2
    assert done.said[-1].startswith("gpt1: failed: full rte: ")
    assert "and 3 more" in done.said[-1]
    found = done.result["table"]
    assert {variant: row["cola"] for variant, row in found.items()} == {
        variant: row["cola"] for variant, row in table["table"].items()
    }
    assert {row["rte"] for row in found.values()} == {None}
    reasons = {(one["variant"], one["task"]): one["reason"] for one in done.result["missing"]}
    assert set(reasons) == {(variant, "rte") for variant in VARIANTS}


def test_again_and_elsewhere_it_trains_nothing_and_fails_no_more(
    folder, table, reproduce, tmp_path, monkeypatch
):
    """All was moved, and is called by a relative name."""
    moved = runs.copied(folder / "work", tmp_path / "moved")
    files = {path: path.stat().st_mtime_ns for path in moved.rglob("metrics.jsonl")}
    monkeypatch.chdir(tmp_path)
    # The tokens are those of the pre-training that is there.
    again = reproduce(SETTINGS, table=5, seeds=0, data=None, workdir="moved")
    # What failed before is no failure of a call that does not ask for it.
    assert again.status == 0, again.said
    assert again.result["table"] == table["table"]
    assert files == {path: path.stat().st_mtime_ns for path in moved.rglob("metrics.jsonl")}


@pytest.mark.parametrize("deleted", ["finetuned", "pretrained", "*"])
def test_what_is_finished_needs_no_checkpoints(folder, table, reproduce, tmp_path, deleted):
    """Its score is all that a table wants; what is longer goes on from one, and says so."""
    work = runs.copied(folder / "work", tmp_path / "work")
    gone = list(work.glob(f"{deleted}/**/checkpoints"))
    assert gone
    for path in gone:
        shutil.rmtree(path)
    files = {path: path.stat().st_mtime_ns for path in work.rglob("metrics.jsonl")}
    again = reproduce(SETTINGS, table=5, seeds=0, data=None, workdir=work)
    assert again.status == 0, again.said
    assert again.result["table"] == table["table"]
    assert files == {path: path.stat().st_mtime_ns for path in work.rglob("metrics.jsonl")}
    (said,) = {line.partition(" has ")[2] for line in again.said if " has no checkpoint" in line}
    assert said == "no checkpoint any more; it is finished, and its result stands"
    if deleted == "*":
        longer = {**SETTINGS, "steps": 4, "extend": "restart"}
        done = reproduce(longer, table=5, seeds=0, data=None, workdir=work)
        assert done.status == 2
        assert "no checkpoint of this run is usable" in done.said[-1]


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, {"seeds": 0, "initial": "others", "data": None}),
        ({"batch_size": 4}, {"seeds": 0}),
        ({"steps": 3}, {"seeds": "0,1"}),
    ],
)
def test_a_call_that_is_refused_leaves_the_ledger_as_it_was(
    folder, table, reproduce, pretrained, tmp_path, changes, flags
):
    work = runs.copied(folder / "work", tmp_path / "work")
    settings = {**SETTINGS, **changes}
    if "initial" in flags:
        flags = {**flags, "initial": pretrained}
        settings = {key: value for key, value in settings.items() if not key.startswith("model.")}
    before = ledger(work)
    done = reproduce(settings, table=4, workdir=work, **flags)
    assert done.status == 2
    assert "holds a run " in done.said[-1]
    (one,) = [one for one in done.result["missing"] if one["task"] == "cola"]
    assert "holds a run " in one["reason"]
    assert ledger(work) == before


def test_tasks_of_the_paper_that_are_not_there_are_missing_and_no_failure(
    folder, table, reproduce, tmp_path
):
    (tmp_path / "tasks").mkdir()
    shutil.copytree(folder / "tasks" / "cola", tmp_path / "tasks" / "cola")
    done = reproduce(SETTINGS, table=4, tasks=None, task_data=tmp_path / "tasks")
    assert done.status == 0
    assert done.result["table"]["full"] == {
        **dict.fromkeys(["sst2", "mrpc", "stsb", "qqp"]),
        "cola": table["table"]["full"]["cola"],
    }
    reasons = {one["task"]: one["reason"] for one in done.result["missing"]}
    assert "tasks/qqp is not a folder" in reasons["qqp"]


def test_seeds_from_two_pre_trainings_are_reported_as_such(folder, table, reproduce, tmp_path):
    """Neither is forgotten, and the spread of a cell is not passed off as that of its seeds."""
    work = tmp_path / "work"
    for seed, name in enumerate(("first", "second")):
        given = work / "pretrained" / name
        shutil.copytree(folder / "work" / "pretrained" / "transformer", given)
        flags = {"workdir": work, "table": 4, "seeds": seed, "data": None, "initial": given}
        settings = {key: value for key, value in SETTINGS.items() if not key.startswith("model.")}
        assert reproduce(settings, **flags).status == 0
    assert ledger(work)["pretraining"] == {"transformer": ["pretrained/first", "pretrained/second"]}
    said = (work / "report" / "index.md").read_text()
    assert "In 2 of 2 cells the runs differ in more than their seed, by initial:" in said
    for page in ("runs.md", "report.html"):
        lines = html.unescape((work / "report" / page).read_text()).splitlines()
        told = {line for line in lines if "seed 1 otherwise than seed 0" in line}
        assert told
        for line in told:
            assert re.search(r"seed 0: initial = .*pretrained/second.* \(.*pretrained/first", line)
            assert "; " not in line  # Nothing but that.
    drawn = (work / "report" / "loss_pretraining.svg").read_text()
    assert all(name in drawn for name in ("pretrained/first", "pretrained/second"))


@pytest.mark.exhaustive
def test_a_cell_that_was_trained_on_has_its_new_score_on_every_split(
    folder, table, reproduce, tmp_path
):
    """The two dev splits of this task are the same."""
    given, mnli = folder / "work" / "pretrained" / "transformer", folder / "tasks" / "mnli"
    settings = {key: value for key, value in SIZES.items() if not key.startswith("model.")}
    flags = {"workdir": tmp_path, "table": 2, "tasks": "mnli", "seeds": 0, "data": None}
    assert reproduce(settings, **flags, initial=given).status == 0
    assert not (tmp_path / "pretrained").exists()
    cell = tmp_path / "finetuned" / "full" / "mnli-0"
    assert config(cell)["initial"] == str(given)
    (before,) = ledger(tmp_path)["runs"]
    assert before["further"]["dev_mismatched"]["accuracy"] == before["value"]
    assert "dev_mismatched" in (tmp_path / "report" / "table2.csv").read_text()
    longer = {**settings, "steps": 60, "extend": "restart"}
    by_hand = {**longer, "seed": 0, "task.path": mnli, "initial": given}
    words = [f"--config.{key}={value}" for key, value in by_hand.items()]
    done = runs.verb(
        "train", "--config=configs/finetune.py:small,mnli", f"--workdir={cell}", *words
    )
    assert done.result["best"]["score"] > before["value"]
    # The report has no score of before beside that of now.
    (run,) = finished_runs.read_runs(tmp_path).runs
    assert (run.score("accuracy"), run.score("accuracy", "dev_mismatched")) == (
        done.result["best"]["score"],
        None,
    )
    assert reproduce(longer, **flags, initial=given).status == 0
    (after,) = ledger(tmp_path)["runs"]
    assert after["value"] == done.result["best"]["score"]
    assert after["further"]["dev_mismatched"]["accuracy"] == after["value"]


@pytest.mark.exhaustive
def test_figure_2_left_has_a_run_for_every_depth(folder, table, reproduce):
    done = reproduce(SETTINGS, seeds=0, figure="2left")
    assert done.status == 0
    found = [one for one in ledger(folder / "work")["runs"] if one["figure"] == "2left"]
    assert [one["n_transfer"] for one in found] == [0, 1]
    for one in found:
        splits = {row["split"] for row in runs.rows(folder / "work" / one["folder"])}
        assert {"dev", "train_examples"} <= splits
    # The points of the figure are no cells of the table.
    assert done.result["table"] == table["table"]


def curve(workdir, name):
    """The rows of a figure, as the report has them."""
    with (workdir / "report" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.exhaustive
def test_the_curve_by_labels_is_trained_in_processes_of_their_own(
    folder, table, reproduce, monkeypatch, capfd
):
    """With and without pre-training, beside linear models on the same labels. What such a process
    leaves is what this one leaves; what failed in it is said at the end."""
    monkeypatch.setattr(fine_tuning, "LABELS", (8, 1000))
    initial, workdir = folder / "work" / "pretrained" / "transformer", folder / "labels"
    changes = {"seeds": 0, "tasks": "cola,rte", "initial": initial, "workers": 2}
    done = reproduce(SETTINGS, figure="labels", workdir=workdir, **changes)
    assert done.status == 2
    assert "failed: full rte: the training set has 4 examples" in done.said[-1]
    said = capfd.readouterr().err  # where the processes say it for themselves
    cells = {}
    for variant, transfer in (("full", None), ("no_pretraining", -1)):
        for labels in (8, 24):
            kind = variant if labels == 24 else f"{variant}_{labels}_labels"
            cell = workdir / "finetuned" / kind / "cola-0"
            assert config(cell)["task"]["train_examples"] == labels
            assert config(cell)["n_transfer"] == transfer
            assert f"{cell} is trained" in said
            cells[variant, labels] = json.loads((cell / "result.json").read_text())
    alone = json.loads((finetuned(folder, "full")[0] / "result.json").read_text())
    for key in ("best", "command"):  # which is what was typed, not what started the process
        assert cells["full", 24][key] == alone[key]
    rows = curve(workdir, "labels")
    for row in ("full", "no_pretraining", "bag_of_words", "word_pairs"):
        assert [one["labels"] for one in rows if one["row"] == row] == ["8", "24"]


def test_few_labels_are_gone_through_more_often():
    described, _ = experiment.load("configs/finetune.py:small,sst2")
    each = {count: fine_tuning.epochs_of(count, described) for count in (100, 1000, 3000)}
    assert each == {100: 50, 1000: 5, 3000: 3}  # batches of 16, at least 300 updates
    counted, _ = experiment.load("configs/finetune.py:small,sst2", {"steps": "7"})
    assert fine_tuning.epochs_of(100, counted) is None


@pytest.mark.exhaustive
def test_the_curve_by_tokens_pre_trains_for_longer_and_longer(folder, table, reproduce):
    """Each with a schedule of its own; none and the longest are rows of table 5, which has run."""
    work = folder / "work"
    of_table = [work / "finetuned" / kind / "cola-0" for kind in ("no_pretraining", "full")]
    before = [(cell / "metrics.jsonl").stat().st_mtime_ns for cell in of_table]
    done = reproduce(SETTINGS, figure="tokens", seeds=0)
    assert done.status == 0, done.said[-1]
    assert [(cell / "metrics.jsonl").stat().st_mtime_ns for cell in of_table] == before
    assert config(work / "pretrained" / "transformer_1")["steps"] == 1
    an_update = SIZES["batch_size"] * SIZES["model.n_ctx"]
    sources = {0: "transformer", an_update: "transformer_1", 2 * an_update: "transformer"}
    kinds = ("no_pretraining", f"tokens_{an_update}", "full")
    for (tokens, source), kind in zip(sources.items(), kinds, strict=True):
        found = config(work / "finetuned" / kind / "cola-0")
        assert found["initial"] == str(work / "pretrained" / source)
        assert found["n_transfer"] == (None if tokens else -1)
    assert [int(row["tokens"]) for row in curve(work, "tokens")] == list(sources)


@pytest.mark.exhaustive
def test_figure_2_right_probes_every_stored_checkpoint_of_both_bodies(folder, table, reproduce):
    named = {"tasks": folder / "tasks" / "cola", "task_data": None}
    done = reproduce({**SIZES, "probes.examples": 10}, figure="2right", **named)
    assert done.status == 0
    assert "--seeds makes no difference here" in done.said
    points = {(row["body"], row["step"], row["probe"]) for row in done.result["probes"]}
    assert points == {
        (body, step, "acceptability") for body in ("transformer", "lstm") for step in (0, 2)
    }
    assert {row["n"] for row in done.result["probes"]} == {10}
    assert set(ledger(folder / "work")["anchors"]) == {"acceptability"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "--table, --figure"),
        ({"table": 6}, "--table"),
        ({"figure": "2"}, "--figure"),
        ({"table": 5, "scale": "big"}, "--scale"),
        ({"table": 5, "seeds": "1,1"}, "--seeds=1,1"),
        ({"table": 5, "seeds": "1-2"}, "whole numbers with commas between"),
        ({"table": 5, "tasks": "colla"}, "--tasks=colla"),
        ({"table": 5, "tasks": "CoLA"}, "did you mean cola?"),
        ({"table": 5, "tasks": "cola, cola"}, "cola twice"),
        ({"table": 5, "tasks": "cola,qqp"}, "qqp: "),
        ({"table": 5, "task_data": "nowhere"}, "--task_data=nowhere"),
        ({"table": 5, "data": "nowhere"}, "nowhere"),
        ({"table": 5, "data": None, "scale": "paper"}, "--data"),
        ({"table": 2, "initial": "nowhere"}, "nowhere"),
        ({"figure": "tokens", "initial": "somewhere"}, "leave out --initial"),
        ({"table": 5, "workers": 0}, "--workers=0"),
        ({"table": 5, "variants": "full,no_pretrain"}, "did you mean no_pretraining?"),
        ({"table": 4, "variants": "lstm"}, "expected some of full"),
        ({"figure": "labels", "variants": "no_aux_lm"}, "expected some of full, no_pretraining"),
        ({"figure": "2right", "tasks": "cola,rte"}, "question_answering=rte"),
        ({"table": 5, "settings": {"model.layers": 2}}, "model.n_layer"),
        ({"table": 5, "settings": {"model.n_layer": "two"}}, "model.n_layer"),
        ({"table": 5, "settings": {"task.train_examples": 0}}, "task.train_examples"),
        ({"table": 5, "settings": {"seed": 1}}, "--seeds"),
        ({"table": 5, "settings": {"task.path": "x"}}, "--task_data"),
        ({"table": 5, "settings": {"probes.examples": 10}}, "--figure=2right"),
        ({"table": 1, "tasks": None, "settings": {"steps": 2}}, "nothing is trained"),
        ({"figure": "2right", "settings": {"task.train_examples": 9}}, "--figure=2left"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_runs(refused, tmp_path, changes, named):
    assert named in refused(**{"workdir": tmp_path / "work", **changes})
    assert not (tmp_path / "work").exists()


def test_weights_of_another_body_and_another_scale_are_refused(folder, table, refused, tmp_path):
    before = runs.snapshot(folder / "work")
    lstm = folder / "work" / "pretrained" / "lstm"
    assert "holds a lstm" in refused(workdir=tmp_path / "work", table=2, initial=lstm)
    assert "choose another --workdir" in refused(table=5, scale="paper")
    assert runs.snapshot(folder / "work") == before


@pytest.mark.slow
def test_without_a_network_the_folder_of_tasks_is_asked_for_at_once(refused, tmp_path, monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    line = refused(
        workdir=tmp_path / "work", table=5, tasks=None, task_data=None, data_dir=tmp_path
    )
    assert "glue/cola" in line
    assert "--task_data" in line
