import json
import shutil
import struct
import subprocess
import sys

import faults
import pytest
import runs
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from gpt1_jax.disk import WorkdirLock
from gpt1_jax.errors import UserError
from gpt1_jax.recipe.experiment import LogConfig
from gpt1_jax.run_files import provenance, read_rows
from gpt1_jax.training.record import MetricsWriter

PLAIN = LogConfig(tensorboard=False)


def test_rows_are_written_once_after_a_resume_from_an_earlier_step(tmp_path):
    first = MetricsWriter(tmp_path, PLAIN, resumed_from=0)
    for step in (1, 2, 3):
        first.row(step, "train", {"loss": float(step)})
    first.close()
    second = MetricsWriter(tmp_path, PLAIN, resumed_from=2)
    second.row(3, "train", {"loss": 30.0})
    second.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train", "loss": 1.0}\n{"step": 2, "spl')
    assert [row["step"] for row in read_rows(path)] == [1]
    MetricsWriter(tmp_path, PLAIN, resumed_from=1).close()
    assert path.read_text().count("\n") == 1


@pytest.mark.parametrize("left", [None, pytest.param("", marks=pytest.mark.exhaustive)])
def test_a_record_that_is_lost_is_said(tokens, pretrained, tmp_path, left):
    """By the training that goes on, and below the curve that a report draws."""
    run = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "6")
    (run / "metrics.jsonl").unlink()
    if left is not None:
        (run / "metrics.jsonl").write_text(left)
    said = runs.verb(*runs.words(runs.pretraining(tokens), run), "--quiet").said
    assert any(
        "metrics.jsonl has no rows any more: what was measured up to step 4" in s for s in said
    )
    assert {row["step"] for row in runs.rows(run)} == {5, 6}
    words = ["report", f"--runs={run}", f"--output={tmp_path / 'report'}"]
    assert runs.verb(*words).status == 0
    assert "no rows before those of step 5" in (tmp_path / "report" / "index.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("do", "gone"),
    [
        ("os.remove({0}/metrics.jsonl)", "metrics.jsonl"),
        pytest.param(
            "open({0}/new, w).write(NEW); os.replace({0}/new, {0}/metrics.jsonl)",
            "metrics.jsonl",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            *("os.rename({0}/metrics.jsonl, {0}/mine)", "metrics.jsonl"),
            marks=pytest.mark.exhaustive,
        ),
        ("import shutil; shutil.rmtree({0}/events)", "events"),
        pytest.param(*("os.rename({0}/events, {0}/mine)", "events"), marks=pytest.mark.exhaustive),
    ],
)
def test_a_record_that_is_deleted_under_a_training(tokens, pretrained, tmp_path, do, gone):
    """What is written from then on is found where it is looked for, and the rows of before too."""
    run = tmp_path / "run"
    words = runs.words(runs.pretraining(tokens) | {"log.tensorboard": gone == "events"}, run)
    new = '{"step": 1, "split": "train", "loss": 0.5}\\n'
    for name in ("metrics.jsonl", "events", "mine", "new"):
        do = do.replace(f"{{0}}/{name}", repr(str(run / name)))
    do = do.replace(", w)", ", 'w')").replace("NEW", f"'{new}'")
    outcome = faults.run(words, at="before gpt1_jax.training.actions:Actions.save%1", do=do)
    assert outcome.done()["step"] == 6
    (line,) = [line for line in outcome.errors.splitlines() if "deleted or replaced" in line]
    assert f"/{gone}" in line
    expected = [(row["step"], row["split"]) for row in runs.rows(pretrained)]
    assert sorted((row["step"], row["split"]) for row in runs.rows(run)) == sorted(expected)
    if gone == "events":
        assert any(path.stat().st_size > 400 for path in (run / "events").iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "result.json",
        pytest.param("events", marks=pytest.mark.slow),
        pytest.param("metrics.jsonl", marks=pytest.mark.exhaustive),
    ],
)
def test_a_record_that_has_no_place_is_refused_before_the_first_step(tokens, tmp_path, name):
    run = tmp_path / "run"
    run.mkdir()
    (run / name).symlink_to(tmp_path / "nowhere" / "file")
    given = runs.pretraining(tokens) | {"log.tensorboard": name == "events"}
    faults.run(runs.words(given, run)).refused(name)
    assert not list((run / "checkpoints").glob("[0-9]*"))


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train"}\nnonsense\n{"step": 3, "split": "train"}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl:2: not JSON"):
        read_rows(path)


def test_only_an_active_record_writes(tmp_path):
    record = MetricsWriter(tmp_path, LogConfig(), resumed_from=0, active=False)
    record.row(1, "train", {"loss": 1.0})
    record.result({"step": 1})
    record.close()
    assert not list(tmp_path.iterdir())


def test_tensorboard_events_are_written(tmp_path):
    record = MetricsWriter(tmp_path, LogConfig(), resumed_from=0)
    record.row(1, "train", {"loss": 1.0})
    record.close()
    assert list((tmp_path / "events").glob("events.*"))


def records(path):
    """The events of a file: each is its length, a checksum of that, itself, and a checksum."""
    content = path.read_bytes()
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_tensorboard_can_set_runs_beside_each_other_by_their_settings(tmp_path):
    settings = {"optimizer.learning_rate": 1e-3, "model.dtype": "float32", "epochs": None}
    MetricsWriter(tmp_path, LogConfig(), resumed_from=0, settings=settings).close()
    (path,) = (tmp_path / "events").glob("events.*")
    found = {
        value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content)
        for event in records(path)
        for value in event.summary.value
    }
    given = found["_hparams_/session_start_info"].session_start_info.hparams
    assert given["optimizer.learning_rate"].number_value == 1e-3
    assert given["model.dtype"].string_value == "float32"
    compared = [info.name.tag for info in found["_hparams_/experiment"].experiment.metric_infos]
    assert {"valid/loss", "dev/accuracy"} <= set(compared)


def test_a_second_process_cannot_have_the_workdir_until_the_first_is_killed(tmp_path):
    script = (
        "import sys, time, pathlib\nfrom gpt1_jax.disk import WorkdirLock\n"
        "lock = WorkdirLock(pathlib.Path(sys.argv[1]))\nprint('held', flush=True)\ntime.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="another process"):
            WorkdirLock(tmp_path)
        other.kill()
    WorkdirLock(tmp_path).release()


@pytest.mark.slow
@pytest.mark.skipif(not (runs.ROOT / ".git").exists(), reason="no checkout")
def test_the_commit_is_that_of_the_start(tokens, tmp_path):
    """A checkout that moves on while a run trains is not what has run."""
    given = runs.pretraining(tokens, **{"mesh.data": 1, "steps": 1, "optimizer.warmup": 0})
    later = "import subprocess; subprocess.check_output = subprocess.run = None"
    moment = "before gpt1_jax.training.train:run_to_end"
    made = faults.run(runs.words(given, tmp_path / "run"), at=moment, do=later).done()
    command = ["git", "-C", runs.ROOT, "rev-parse", "HEAD"]
    assert made["git"]["commit"] == subprocess.check_output(command, text=True).strip()


def test_provenance_tells_versions_and_a_hash_of_the_config():
    one, other = provenance({"seed": 1}), provenance({"seed": 2})
    assert one["versions"]["jax"]
    assert one["config_hash"] != other["config_hash"]
    json.dumps(one)
