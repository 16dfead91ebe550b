"""A run that is interrupted, however that happens, ends as if it had not been."""

import json
import os
import random
import shutil
import signal

import faults
import jax
import numpy as np
import pytest
import runs

from gpt1_jax.__main__ import main
from gpt1_jax.data.batches import Windows
from gpt1_jax.disk import WorkdirLock
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import evaluate
from gpt1_jax.recipe import experiment
from gpt1_jax.run_files import read_rows
from gpt1_jax.storage import digests
from gpt1_jax.training import train as training

LAST = runs.PRETRAINING["steps"]


@pytest.fixture(scope="module")
def given(tokens):
    return runs.pretraining(tokens)


@pytest.fixture(scope="module")
def stopped(given, tmp_path_factory):
    """A run that `stop_after` ended after step 4 of 6, with checkpoints 2 and 4."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    result = runs.run({**given, "stop_after": 4}, workdir)
    assert result["step"] == 4
    return workdir


def flip_a_bit(folder):
    """In the middle of the largest data file of a checkpoint's item."""
    names = json.loads((folder / digests.DIGESTS).read_text())
    path = max((folder / name for name in names), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("first", [1, pytest.param(3, marks=pytest.mark.exhaustive)])
def test_pretraining_in_pieces_equals_the_whole(given, pretrained, tmp_path, first):
    """Step 1 is neither evaluated nor saved by interval, step 3 is evaluated."""
    for stop_after in (first, 5, None):
        result = runs.run({**given, "stop_after": stop_after}, tmp_path)
        # The newest row of each split, also of one from before the piece.
        newest = {row.pop("split"): row for row in runs.rows(tmp_path)}
        assert result["step"] == newest["train"]["step"]
        assert result["metrics"] == {
            split: {name: value for name, value in row.items() if name != "step"}
            for split, row in newest.items()
        }
    runs.assert_same_run(tmp_path, pretrained, LAST)
    assert result["metrics"] == json.loads((pretrained / "result.json").read_text())["metrics"]


def test_finetuning_in_pieces_equals_the_whole(pretrained, classification, finetuned, tmp_path):
    given = runs.fine_tuning(pretrained, classification, "classification")
    for stop_after in (1, 4, None):
        result = runs.run({**given, "stop_after": stop_after}, tmp_path)
    runs.assert_same_run(tmp_path, finetuned, LAST)
    expected = json.loads((finetuned / "result.json").read_text())
    assert result["metrics"] == expected["metrics"]
    assert result["best"] == expected["best"]


def test_a_stop_is_saved_but_not_evaluated(given, tmp_path):
    result = runs.run({**given, "stop_after": 1}, tmp_path)
    assert [(row["step"], row["split"]) for row in runs.rows(tmp_path)] == [(1, "train")]
    assert set(result["metrics"]) == {"train"}
    assert runs.params(tmp_path, 1)


LONG = {"steps": 100, "eval.every": 50, "checkpoint.every": 25}


@pytest.fixture(scope="module")
def long_run(given, tmp_path_factory):
    """Uninterrupted."""
    workdir = tmp_path_factory.mktemp("long") / "run"
    runs.run({**given, **LONG}, workdir)
    return workdir


@pytest.mark.parametrize("seed", [0])
def test_a_killed_run_goes_on_to_the_same_end(given, long_run, tmp_path, seed):
    """kill -9 at a moment drawn after a checkpoint drawn, then the same command again."""
    draw = random.Random(seed)
    command = [*runs.words({**given, **LONG}, tmp_path / "run"), "--quiet"]
    seconds = draw.random() / 5
    killing = f"import os, threading; threading.Timer({seconds}, os.kill, (os.getpid(), 9)).start()"
    outcome = faults.run(command, at=f"committed.json%{draw.choice((1, 2))}", do=killing)
    assert outcome.status == -signal.SIGKILL
    assert not (tmp_path / "run" / "result.json").exists()
    assert main(command) == 0
    runs.assert_same_run(tmp_path / "run", long_run, LONG["steps"])
    stands = [(row["step"], row["split"]) for row in runs.rows(tmp_path / "run")]
    assert len(stands) == len(set(stands)) == LONG["steps"] + LONG["steps"] // 50


@pytest.mark.slow
def test_a_signal_saves_and_ends_with_75(given, long_run, tmp_path):
    command = runs.words({**given, **LONG}, tmp_path / "run")
    outcome = faults.run(command, at="committed.json", do="term")
    last = outcome.refused("the same command continues", status=75)
    assert outcome.output == ""
    step = int(last.partition("after step ")[2].split()[0])
    assert str(step) in os.listdir(tmp_path / "run" / "checkpoints")
    assert main([*command, "--quiet"]) == 0
    runs.assert_same_run(tmp_path / "run", long_run, LONG["steps"])


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(
    stopped, given, pretrained, tmp_path, capsys
):
    workdir = runs.copied(stopped, tmp_path / "run")
    flip_a_bit(workdir / "checkpoints" / "4" / "params")
    runs.run(given, workdir, quiet=False)
    said = capsys.readouterr().err
    assert "checkpoint 4 is damaged" in said
    assert "resuming after step 2" in said
    runs.assert_same_run(workdir, pretrained, LAST)


def test_rows_beyond_the_checkpoint_and_a_torn_line_are_dropped(
    stopped, given, pretrained, tmp_path
):
    workdir = runs.copied(stopped, tmp_path / "run")
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "split": "train", "loss": 99.0}\n{"step": 6, "spl')
    runs.run(given, workdir)
    runs.assert_same_run(workdir, pretrained, LAST)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("steps", 5),
        ("batch_size", 16),
        ("model.n_layer", 2),
        ("model.dropout", 0.0),
        ("model.dtype", "bfloat16"),
        ("optimizer.learning_rate", 0.5),
        ("objective.lm_coef", 0.25),
        ("data.separator", "end"),
        ("data.windows", "iid"),
    ],
)
def test_a_run_of_other_identity_is_refused_and_nothing_changes(
    pretrained, given, tmp_path, key, value
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    before = runs.snapshot(workdir)
    with pytest.raises(UserError) as raised:
        runs.run({**given, key: value}, workdir)
    message = str(raised.value)
    assert f"{key} = " in message
    assert json.dumps(value) in message
    assert runs.snapshot(workdir) == before


def test_other_tokens_by_the_same_tokenizer_are_another_run(pretrained, given, tokens, tmp_path):
    other = runs.prepare(
        tmp_path / "tokens",
        runs.write_documents(tmp_path / "documents", seed=1),
        vocab=str(tokens / "tokenizer"),
    )
    workdir = runs.copied(pretrained, tmp_path / "run")
    words = runs.words({**given, "data.path": str(other)}, workdir)
    said = runs.refused(
        words, f"other data than {other} has now", "train and valid are not the same"
    )
    assert f'data.path was "{tokens}"' in said


def test_a_task_that_has_changed_is_named(pretrained, classification, tmp_path):
    """Also where its rows have become more, which is no wish for a longer run."""
    task = runs.copied(classification, tmp_path / "task")
    given = runs.fine_tuning(pretrained, task, "classification", epochs=1.5, stop_after=1)
    given |= {"steps": None, "data.buckets": 8}
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    words = ["train", "--config=configs/finetune.py", f"--workdir={tmp_path / 'run'}", *flags]
    assert runs.verb(*words).status == 0
    for split in ("dev", "train"):
        path = task / f"{split}.jsonl"
        before = path.read_text()
        path.write_text(before * 2)
        said = runs.refused(words, f"other data than {task} has now: {split} is not the same")
        assert "resolved" not in said
        assert "extend" not in said
        path.write_text(before)


def test_moved_tokens_are_the_same_run(stopped, given, pretrained, tokens, tmp_path):
    moved = shutil.copytree(tokens, tmp_path / "moved")
    workdir = runs.copied(stopped, tmp_path / "run")
    runs.run({**given, "data.path": str(moved)}, workdir)
    runs.assert_same_run(workdir, pretrained, LAST)


def test_intervals_may_change_from_piece_to_piece(stopped, given, pretrained, tmp_path):
    changes = {"log.every": 6, "eval.every": 5, "checkpoint.every": 1, "data.prefetch": 5}
    workdir = runs.copied(stopped, tmp_path / "run")
    runs.run({**given, **changes}, workdir)
    expected = [row for row in runs.rows(pretrained) if row["step"] in (1, 2, 3, 4, 6)]
    found = runs.rows(workdir)
    assert [row for row in found if row["step"] != 5] == expected
    assert [row["split"] for row in found if row["step"] == 5] == ["valid"]


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ({"checkpoint.per_decade": 4}, {1, 2, 3}),
        pytest.param({"checkpoint.keep": 9}, {2, 4}, marks=pytest.mark.exhaustive),
    ],
)
def test_what_another_setting_kept_stays(given, tmp_path, capsys, setting, kept):
    """Also under the command after the next, and however that changes what is kept."""

    def steps():
        return {int(name) for name in os.listdir(tmp_path / "checkpoints")}

    runs.run({**given, **setting, "stop_after": 4}, tmp_path)
    assert steps() >= kept
    runs.run({**given, "checkpoint.keep": 1, "stop_after": 5}, tmp_path, quiet=False)
    assert f"checkpoints {str(sorted(kept))[1:-1]}" in capsys.readouterr().err
    runs.run({**given, "checkpoint.keep": 1, "checkpoint.per_decade": 1}, tmp_path)
    assert steps() >= kept | {6}
    assert 5 not in steps()


@pytest.mark.exhaustive
def test_devices_may_change_from_piece_to_piece(stopped, given, pretrained, tmp_path):
    workdir = runs.copied(stopped, tmp_path / "run")
    runs.run({**given, "mesh.data": 4, "mesh.model": 2}, workdir)
    runs.assert_close_rows(workdir, pretrained)


@pytest.mark.slow
def test_tf_data_and_the_thread_train_alike(given, pretrained, tmp_path):
    pytest.importorskip("tensorflow")
    for driver in ("tfdata", "thread"):
        runs.run({**given, "data.driver": driver, "checkpoint.every": LAST}, tmp_path / driver)
        runs.assert_same_run(tmp_path / driver, pretrained, LAST)


def test_a_finished_command_returns_its_result_and_trains_nothing(
    given, pretrained, tmp_path, monkeypatch
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    before = runs.snapshot(workdir)
    monkeypatch.setattr(training, "run_to_end", None)
    assert runs.run(given, workdir) == json.loads((pretrained / "result.json").read_text())
    assert runs.snapshot(workdir) == before


@pytest.mark.parametrize("left", ["none", "of an earlier piece"])
def test_a_result_that_was_lost_at_the_very_end_is_written_again(
    given, stopped, pretrained, tmp_path, left
):
    """A kill between the last checkpoint and the result."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "result.json").unlink()
    if left != "none":
        shutil.copy(stopped / "result.json", workdir)
    result = runs.run(given, workdir)
    expected = json.loads((pretrained / "result.json").read_text())
    assert (result["step"], result["metrics"]) == (expected["step"], expected["metrics"])
    assert json.loads((workdir / "result.json").read_text()) == result
    runs.assert_same_run(workdir, pretrained, LAST)


def test_two_processes_never_train_in_one_workdir(given, stopped, tmp_path, capsys):
    workdir = runs.copied(stopped, tmp_path / "run")
    lock = WorkdirLock(workdir)
    before = runs.snapshot(workdir)
    assert main(runs.words(given, workdir)) == 2
    assert "another process is training" in capsys.readouterr().err
    assert runs.snapshot(workdir) == before
    lock.release()
    assert main([*runs.words(given, workdir), "--quiet"]) == 0


def nan_at(number):
    """Windows.batch, with weights that make the loss of one step no number."""
    sound = Windows.batch

    def batch(self, step, rows=None):
        made = sound(self, step, rows)
        if step == number - 1:
            made["weights"] = made["weights"] * np.float32("nan")
        return made

    return batch


@pytest.mark.parametrize(
    ("bad", "good"),
    [(1, "none"), (6, "step 4"), pytest.param(4, "step 2", marks=pytest.mark.exhaustive)],
)
def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(
    given, pretrained, tmp_path, monkeypatch, bad, good
):
    with monkeypatch.context() as patched:
        patched.setattr(Windows, "batch", nan_at(bad))
        with pytest.raises(UserError) as raised:
            runs.run(given, tmp_path)
    message = str(raised.value)
    assert f"at step {bad};" in message
    assert f"last good checkpoint is {good}" in message
    kept = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()]
    assert all(step < bad for step in kept)
    assert all(row["step"] < bad for row in read_rows(tmp_path / "metrics.jsonl"))
    runs.run(given, tmp_path)
    runs.assert_same_run(tmp_path, pretrained, LAST)


@pytest.mark.slow
def test_an_update_that_is_not_finite_is_skipped_where_that_is_asked_for(
    given, tmp_path, monkeypatch
):
    """It changes nothing and is counted, also over an interruption."""
    monkeypatch.setattr(Windows, "batch", nan_at(3))
    given = {**given, "optimizer.skip_nonfinite": True, "checkpoint.every": 1}
    runs.run({**given, "stop_after": 3}, tmp_path)
    before, after = runs.params(tmp_path, 2), runs.params(tmp_path, 3)
    jax.tree.map(np.testing.assert_array_equal, before, after)
    result = runs.run(given, tmp_path)
    assert (result["skipped"], result["metrics"]["train"]["skipped"]) == (1, 1)
    train = {row["step"]: row for row in runs.rows(tmp_path) if row["split"] == "train"}
    assert set(train[3]) == {"step", "split", "skipped", "learning_rate"}
    assert [train[step]["skipped"] for step in range(1, 7)] == [0, 0, 1, 1, 1, 1]
    changed = runs.params(tmp_path, 6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(changed))
    assert not np.array_equal(changed["wte"]["embedding"], after["wte"]["embedding"])


def test_parameters_that_are_not_finite_are_found_by_the_evaluation(
    given, pretrained, tmp_path, monkeypatch
):
    """The loss of a step is that of the parameters before it."""
    bad = {"loss": float("nan"), "perplexity": float("nan")}
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "perplexity_metrics", lambda *_: bad)
        with pytest.raises(UserError, match=r"at step 3; .*last good checkpoint is step 2"):
            runs.run(given, tmp_path)
    assert not (tmp_path / "checkpoints" / "3").exists()
    runs.run(given, tmp_path)
    runs.assert_same_run(tmp_path, pretrained, LAST)


def test_a_loss_that_is_not_finite_is_said_in_one_line(given, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Windows, "batch", nan_at(2))
    assert main([*runs.words(given, tmp_path / "run"), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "optimizer.learning_rate" in line


def test_a_trace_is_taken_of_the_steps_that_are_left(given, stopped, tmp_path, monkeypatch):
    """Also where the run resumes inside of them, or ends there."""
    calls = []
    monkeypatch.setattr(training.jax.profiler, "start_trace", lambda path: calls.append("start"))
    monkeypatch.setattr(training.jax.profiler, "stop_trace", lambda: calls.append("stop"))
    for profile in ((2, 5), (6, 9), (2, 3)):
        workdir = runs.copied(stopped, tmp_path / f"{profile}")
        training.train(*_described(given), workdir, profile=profile, quiet=True)
        assert calls == ([] if profile == (2, 3) else ["start", "stop"]), profile
        calls.clear()


def _described(given):
    return experiment.experiment(given), set(given)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["hf:", *(pytest.param(kind, marks=pytest.mark.exhaustive) for kind in ("", "openai:"))]
)
def test_weights_that_moved_are_not_needed_again(
    pretrained, classification, tmp_path, monkeypatch, kind
):
    """They were named by a relative name. A run without a checkpoint needs them, and names them."""
    monkeypatch.chdir(tmp_path)
    if kind:
        assert runs.verb("convert", f"--from={pretrained}", f"--to={kind}weights").status == 0
    else:
        runs.copied(pretrained, tmp_path / "weights")
    given = runs.fine_tuning(f"{kind}weights", classification, "classification")
    runs.run({**given, "stop_after": 2}, tmp_path / "run")
    (tmp_path / "weights").rename(tmp_path / "moved")
    assert runs.run(given, tmp_path / "run")["step"] == LAST
    for name in ("checkpoints", "metrics.jsonl", "result.json", "committed.json"):
        path = tmp_path / "run" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match="/weights"):
        runs.run(given, tmp_path / "run")


@pytest.mark.slow
def test_weights_that_moved_with_the_run_are_known_by_their_content(
    pretrained, classification, tmp_path
):
    """As where the folder of all runs is renamed, or copied to another machine."""
    begun = tmp_path / "runs"
    runs.copied(pretrained, begun / "weights")

    def given(folder):
        return runs.fine_tuning(folder / "weights", classification, "classification")

    runs.run({**given(begun), "stop_after": 2}, begun / "run")
    here = tmp_path / "renamed"
    begun.rename(here)
    old = runs.copied(here, tmp_path / "old")
    path = old / "run" / "config.json"
    config = json.loads(path.read_text())
    known = config["resolved"].pop("initial")
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"initial = .*/weights.* this one has .*/old/weights"):
        runs.run(given(old), old / "run")
    others = runs.copied(here, tmp_path / "others")
    for name in ("6", "result.json", "committed.json"):  # then it is the checkpoint before it
        path = others / "weights" / ("checkpoints" if name == "6" else "") / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = (others / "run" / "config.json").read_bytes()
    with pytest.raises(UserError, match=rf"{known[:12]} of .*/weights are [0-9a-f]{{12}};"):
        runs.run(given(others), others / "run")
    assert (others / "run" / "config.json").read_bytes() == before
    again = runs.copied(here, tmp_path / "again")
    for place in (here, again):
        assert runs.run({**given(place), "stop_after": 4}, place / "run")["step"] == 4
        shutil.rmtree(place / "weights")  # from there on not needed
        assert runs.run(given(place), place / "run")["step"] == LAST
