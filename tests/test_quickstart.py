"""The quickstart: its recipe learns, and its table is what its runs measured."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from gpt1_jax.errors import UserError
from gpt1_jax.experiments import quickstart as quick
from gpt1_jax.experiments.config import QuickstartConfig
from gpt1_jax.experiments.quickstart import Plan, quickstart
from gpt1_jax.text import corpus, documentation
from gpt1_jax.text.config import PrepareConfig
from gpt1_jax.text.shards import Tokens


@pytest.fixture(scope="module")
def small_documentation():
    """What is always there: Python itself and numpy."""
    return documentation.documents(["python", "numpy"])


def unigram_loss(train: Tokens, valid: Tokens) -> float:
    """Nats per token of a model that knows how frequent each token is, and nothing else."""
    ids = train.read(0, len(train)), valid.read(0, len(valid))
    counts = np.bincount(ids[0], minlength=quick.VOCAB_SIZE) + 1
    return float(-np.log(counts / counts.sum())[ids[1]].mean())


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
def finished(small_documentation, tmp_path_factory):
    """A quickstart with too few updates to learn anything: folder, result, what was said."""
    workdir = tmp_path_factory.mktemp("quickstart")
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documentation, "documents", lambda **_: small_documentation)
        patch.setattr(quick, "_plan", lambda *_: Plan(4, 40, {"transformer": 1e4, "lstm": 1e4}))
        patch.setattr(quick, "SEEDS", (0, 1))
        patch.setattr(quick, "DEV_EXAMPLES", 40)
        patch.setattr(quick, "say", said.append)
        result = quickstart(QuickstartConfig(workdir=str(workdir)))
        yield workdir, result, said


def test_the_table_has_the_variants_by_tasks_of_two_shapes_at_least(finished):
    workdir, result, _ = finished
    assert set(result["table"]) == {"full", "no_pretraining", "no_aux_lm", "lstm"}
    for row in result["table"].values():
        assert len(row) >= 3
        assert set(row) == set(result["baselines"])
    configs = workdir.glob("finetuned/full/*-0/config.json")
    shapes = {json.loads(path.read_text())["task"]["shape"] for path in configs}
    assert len(shapes) >= 2


def test_a_cell_is_the_mean_of_its_runs_and_the_runs_differ_as_the_row_says(finished):
    workdir, result, _ = finished
    for variant, row in result["table"].items():
        for task, value in row.items():
            folders = [workdir / "finetuned" / variant / f"{task}-{seed}" for seed in (0, 1)]
            found = [json.loads((folder / "result.json").read_text()) for folder in folders]
            scores = [one["metrics"]["dev"]["accuracy"] for one in found]
            assert value == pytest.approx(np.mean(scores))
            assert result["spread"][variant][task] == pytest.approx(max(scores) - min(scores))
            config = json.loads((folders[1] / "config.json").read_text())
            assert config["seed"] == 1
            assert config["n_transfer"] == (-1 if variant == "no_pretraining" else None)
            assert config["objective"]["lm_coef"] == (0 if variant == "no_aux_lm" else 0.5)
            assert config["model"]["body"] == ("lstm" if variant == "lstm" else "transformer")


def test_the_curve_begins_before_the_first_update_and_ends_after_the_last(finished):
    assert list(finished[1]["zero_shot_word_order"]) == ["0", "1", "2", "3", "4"]


def test_what_is_printed_is_what_was_measured(finished):
    _, result, said = finished
    table = said[-1]
    for row in result["table"].values():
        for value in row.values():
            assert f"{100 * value:.1f} ±" in table
    assert result["sample"] in table
    assert table.count("Pre-training") == len(result["baselines"])


def test_a_gain_within_the_spread_of_the_seeds_is_reported_as_such():
    scores = {"full": {"a": [0.6, 0.7]}, "no_pretraining": {"a": [0.5, 0.55]}}
    assert quick._gain(scores, "a") == "+12.5 points, more than the seeds' spread of 10.0."
    # Ahead in every seed, and still by less than what a seed changes.
    scores["no_pretraining"]["a"] = [0.59, 0.58]
    assert quick._gain(scores, "a") == "+6.5 points, within the seeds' spread of 10.0."


def test_the_result_on_disk_is_the_one_returned(finished):
    workdir, result, _ = finished
    assert json.loads((workdir / "result.json").read_text()) == result


def test_again_it_trains_nothing(finished, monkeypatch):
    workdir, result, _ = finished
    files = {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")}
    again = quickstart(QuickstartConfig(workdir=str(workdir)))
    assert again["table"] == result["table"]
    assert files == {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.jsonl")}


def test_too_little_time_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--minutes"):
        quickstart(QuickstartConfig(workdir=str(tmp_path), minutes=0.5))
