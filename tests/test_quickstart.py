"""The quickstart: its recipe learns, its table is what its runs measured, and it claims no more."""

import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pages
import pytest
import runs

from gpt1_jax.experiments import plan as plans
from gpt1_jax.experiments import quickstart as quick
from gpt1_jax.experiments.clock import Clock
from gpt1_jax.experiments.plan import Costs, Plan, Work, plan_within
from gpt1_jax.experiments.summary import compared, sentences, table_lines
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.shards import Tokens

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def small_documentation():
    """What is always there: Python itself and numpy."""
    return documentation.documents(["python", "numpy"])


def unigram_loss(train: Tokens, valid: Tokens) -> float:
    """Nats per token of a model that knows how frequent each token is, and nothing else."""
    ids = train.read(0, len(train)), valid.read(0, len(valid))
    counts = np.bincount(ids[0], minlength=quick.VOCAB_SIZE) + 1
    return float(-np.log(counts / counts.sum())[ids[1]].mean())


@pytest.mark.exhaustive
def test_the_recipe_is_half_a_nat_under_the_unigram_loss_after_300_updates(
    small_documentation, tmp_path
):
    tokens = tmp_path / "tokens"
    config = PrepareConfig(output=str(tokens), vocab_size=quick.VOCAB_SIZE, workers=2)
    corpus.prepare(config, small_documentation.documents)
    # In a process of its own, because the tests switch most optimisations of the compiler off.
    mine = {name: v for name, v in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    command = [sys.executable, "-m", "gpt1_jax", "train", f"--config={quick.CONFIG}", "--quiet"]
    command += [f"--workdir={tmp_path / 'run'}", f"--config.data.path={tokens}"]
    done = subprocess.run(
        [*command, "--config.steps=300"],
        env={**mine, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    splits = (Tokens.open(tokens, split, 1) for split in ("train", "valid"))
    assert metrics["valid"]["loss"] < unigram_loss(*splits) - 0.5


@pytest.fixture(scope="module")
def quickstarts(reader):
    """The folder of a quickstart where a little is taken to say something, and the outcomes of its
    command: the first, and one later that does not take it so."""
    folder, outcomes = reader
    typed = [command for command in outcomes if command.words()[0] == "quickstart"]
    assert typed[-1] == pages.AGAIN
    return folder / "runs" / "quickstart", [outcomes[command] for command in typed]


@pytest.fixture(scope="module")
def finished(quickstarts):
    """Workdir, result of the first, what it said."""
    workdir, (first, _) = quickstarts
    return workdir, result_of(first), first["errors"].splitlines()


def result_of(outcome: dict) -> dict:
    assert outcome["status"] == 0
    return json.loads(outcome["output"].splitlines()[-1])


def test_the_table_has_the_variants_by_tasks_of_two_shapes_at_least(finished):
    workdir, result, _ = finished
    assert set(result["table"]) == {"full", "no_pretraining", "no_aux_lm", "lstm"}
    for row in result["table"].values():
        assert len(row) >= 3
        assert set(row) == set(result["baselines"])
    configs = workdir.glob(f"finetuned/full/*-{SEEDS[0]}/config.json")
    shapes = {json.loads(path.read_text())["task"]["shape"] for path in configs}
    assert len(shapes) >= 2


def test_a_cell_is_the_mean_of_its_runs_and_the_runs_differ_as_the_row_says(finished):
    workdir, result, _ = finished
    for variant, row in result["table"].items():
        for task, value in row.items():
            folders = [workdir / "finetuned" / variant / f"{task}-{seed}" for seed in SEEDS]
            found = [json.loads((folder / "result.json").read_text()) for folder in folders]
            scores = [one["metrics"]["dev"]["accuracy"] for one in found]
            assert value == pytest.approx(np.mean(scores))
            assert result["spread"][variant][task] == pytest.approx(max(scores) - min(scores))
            config = json.loads((folders[1] / "config.json").read_text())
            assert config["seed"] == SEEDS[1]
            assert config["n_transfer"] == (-1 if variant == "no_pretraining" else None)
            assert config["objective"]["lm_coef"] == (0 if variant == "no_aux_lm" else 0.5)
            assert config["model"]["body"] == ("lstm" if variant == "lstm" else "transformer")


def test_the_curve_begins_before_the_first_update_and_ends_after_the_last(finished):
    assert list(finished[1]["zero_shot_word_order"]) == ["0", "1", "2", "3", "4"]


def test_what_is_printed_is_what_was_measured(finished):
    _, result, said = finished
    table = "\n".join(said[-40:])
    for row in result["table"].values():
        for value in row.values():
            assert f"{100 * value:.1f} ±" in table
    for row in result["baselines"].values():
        for name in ("chance", "majority", "bag_of_words"):
            assert f"{100 * row[name]:.1f}" in table
    assert set(result["sample"].splitlines()) <= set(said)
    assert any(line.startswith("With pre-training the model is ") for line in said)


def test_it_speaks_at_once_and_names_each_part_with_the_time_left(finished):
    _, _, said = finished
    assert said[0].startswith("the paper in miniature")
    parts = [line for line in said if re.fullmatch(r"\[\d+:\d\d\] .*; about \d+:\d\d left", line)]
    for name in ("reading the documentation", "pre-training the lstm, 4 updates", "fine-tuning"):
        assert any(name in line for line in parts)
    assert len(parts) == 3 + 1 + 2 + 4 * 3 + 1


def test_where_time_is_too_short_it_takes_longer_and_says_so(finished):
    _, result, said = finished
    assert result["plan"] == {"pretraining_steps": 4, "labels": 40}
    assert any(line.startswith("longer than --minutes=8") for line in said)


def test_the_result_on_disk_is_the_one_returned(quickstarts):
    workdir, (_, last) = quickstarts
    assert json.loads((workdir / "result.json").read_text()) == result_of(last)


def test_again_it_trains_nothing_and_what_is_too_little_claims_nothing(quickstarts):
    workdir, (first, again) = quickstarts
    # The plan of before is kept; by the true floors it is too little.
    assert result_of(again)["plan"] == result_of(first)["plan"]
    assert result_of(again)["table"] == result_of(first)["table"]
    trained = [path.stat().st_mtime for path in workdir.rglob("metrics.jsonl")]
    assert len(trained) == 2 + 2 + 4 * 3 * len(SEEDS)
    assert max(trained) < again["began"]
    said = again["errors"]
    assert "too little for the table to say anything" in said
    assert "ahead on" not in said
    assert "level on" not in said


def test_a_plan_that_is_none_and_too_little_time_are_refused(tmp_path):
    done = runs.verb("quickstart", f"--workdir={tmp_path}", "--minutes=0.5")
    assert (done.status, len(done.said)) == (2, 1)
    assert "--minutes" in done.said[0]


@pytest.mark.parametrize(
    ("values", "others", "verdict"),
    [
        ([0.6, 0.7], [0.5, 0.55], "ahead"),
        # Ahead in every seed, and still by less than what a seed changes.
        ([0.6, 0.7], [0.59, 0.58], "level"),
        ([0.5, 0.5], [0.5, 0.5], "level"),
        ([0.402, 0.402], [0.391, 0.391], "ahead"),
        ([0.38, 0.391], [0.402, 0.39], "level"),
        ([0.3, 0.3], [0.5, 0.4], "behind"),
        # A tenth by a tenth, whatever the last digits are.
        ([0.7, 0.8], [0.6, 0.7], "level"),
    ],
)
def test_a_difference_counts_beyond_the_spread_of_the_seeds(values, others, verdict):
    assert compared(values, others).verdict == verdict


# The README's machine: two cores, 16 and 15 thousand tokens a second.
TASKS = {"next_word": 1, "word_fits": 1, "word_order": 2}
BODIES = ("transformer", "lstm")


def planned(slowness: float, minutes: float) -> tuple[Plan, float]:
    """The plan of a machine that is so many times slower, after a minute of preparing, and how long
    all of it takes."""
    update = {"transformer": 0.064 * slowness, "lstm": 0.069 * slowness}
    label = {
        task: {body: 96 * n / 1024 * update[body] for body in BODIES} for task, n in TASKS.items()
    }
    costs = Costs(update, label, dict.fromkeys(BODIES, 4.0 * slowness))
    tuned = [(task, body) for task in TASKS for body in 3 * BODIES[:1] + BODIES[1:]]
    work = Work(BODIES, tuple(tuned * 3), other_seconds=12 * slowness)
    plan = plan_within(plans.PLANNED_SHARE * 60 * minutes - 60, work, costs, most_labels=2000)
    return plan, 60 + work.seconds(plan, costs)


def test_a_plan_fits_its_time_and_never_says_nothing():
    plan, seconds = planned(slowness=1, minutes=8)
    assert plan.says_something
    assert not plan.is_least
    assert 420 < seconds <= 0.95 * 480
    for slowness, minutes in ((1, 1), (5, 4), (20, 8)):
        plan, seconds = planned(slowness, minutes)
        assert plan == Plan(plans.LEAST_UPDATES, plans.LEAST_LABELS)
        assert seconds > 60 * minutes


def test_on_a_terminal_the_time_left_is_in_a_bar(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Clock(1200) as clock:
        clock.expect(600)
        with clock.part("pre-training", 300):
            pass
        with clock.part("fine-tuning", 300):
            pass
    assert re.search(r"\[0:00\] pre-training; about 10:00 left +\|.*\|", terminal.getvalue())


@pytest.mark.parametrize("part", [{"done": True}, {"begun": True}], ids=str)
def test_what_was_made_before_says_nothing_about_how_long_the_rest_takes(part):
    """Each of the parts takes no time here."""
    with Clock(1200) as clock:
        clock.expect(600)
        with clock.part("pre-training", 300, **part):
            pass
        assert clock.seconds_left == pytest.approx(300)
        with clock.part("fine-tuning", 100):
            pass
        assert clock.seconds_left < 1


def test_the_readme_shows_a_run_and_what_follows_from_it():
    result = json.loads((runs.ROOT / "results" / "quickstart" / "result.json").read_text())
    readme = (runs.ROOT / "README.md").read_text()
    for line in [*table_lines(result), *sentences(result)]:
        assert line in readme.splitlines()
    page = (runs.ROOT / "docs" / "quickstart.md").read_text()
    for number in (result["plan"]["pretraining_steps"], result["seconds"]):
        assert f"{number:,.0f}" in readme
        assert f"{number:,.0f}" in page
