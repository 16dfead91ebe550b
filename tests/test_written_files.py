"""Files that verbs write: one way for each, whole or not at all, and nothing of a user's is touched
(docs/reliability.md)."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import faults
import pytest
import runs
from faults import predict, prepare, train

from gpt1_jax import disk
from gpt1_jax.disk import WorkdirLock
from gpt1_jax.training import claim

# Files that are written


def test_a_name_beside_the_output_is_somebody_elses(said, finetuned, rows, tmp_path):
    output, precious = tmp_path / "out.jsonl", tmp_path / "precious"
    precious.write_text("precious")
    beside = tmp_path / "out.jsonl.tmp"
    # The input, a file of the user's, a link of the user's.
    shutil.copy(rows, beside)
    said(predict(finetuned, beside, output))
    assert beside.read_bytes() == rows.read_bytes()
    beside.write_text("mine")
    said(predict(finetuned, rows, output))
    assert beside.read_text() == "mine"
    beside.unlink()
    beside.symlink_to(precious)
    said(predict(finetuned, rows, output))
    assert precious.read_text() == "precious"
    assert output.read_text().count("\n") == 3


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_output_that_is_an_input_by_another_name(refused, finetuned, rows, tmp_path, link):
    before = rows.read_bytes()
    link(rows, tmp_path / "out.jsonl")
    refused(predict(finetuned, rows, tmp_path / "out.jsonl"), "the file of --input")
    assert rows.read_bytes() == before


def test_an_output_that_is_no_file(said, refused, finetuned, rows, tmp_path):
    pipe, link, loop = (tmp_path / name for name in ("pipe", "link", "loop"))
    os.mkfifo(pipe)
    refused(predict(finetuned, rows, pipe), "nobody reads")
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        time.sleep(0.2)
        said(predict(finetuned, rows, pipe))
        assert reader.communicate()[0].count("\n") == 3
    assert pipe.is_fifo()
    # What a shell makes of --output=>(command).
    reading, writing = os.pipe()
    said(predict(finetuned, rows, Path(f"/dev/fd/{writing}")))
    os.close(writing)
    with os.fdopen(reading) as reader:
        assert reader.read().count("\n") == 3
    refused(predict(finetuned, rows, Path("/dev/full")), "No space left")
    assert Path("/dev/full").is_char_device()
    link.symlink_to(tmp_path / "target")
    said(predict(finetuned, rows, link))
    assert link.is_symlink()
    assert (tmp_path / "target").read_text().count("\n") == 3
    loop.symlink_to(loop)
    refused(predict(finetuned, rows, loop), "a loop of links")


@pytest.mark.parametrize(
    ("do", "status"),
    [
        ("term", 143),
        ("raise OSError(28, '')", 2),
        pytest.param("int", 130, marks=pytest.mark.exhaustive),
    ],
)
def test_an_output_of_before_outlives_what_stops(finetuned, rows, tmp_path, do, status):
    (tmp_path / "out.jsonl").write_text("before")
    moment = "after gpt1_jax.inference.trained_model:TrainedModel.answers"
    words = predict(finetuned, rows, tmp_path / "out.jsonl")
    faults.run(words, at=moment, do=do).refused(status=status)
    assert (tmp_path / "out.jsonl").read_text() == "before"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl", "rows.jsonl"]


def test_a_folder_appears_whole_and_spares_what_is_beside_it(said, refused, pretrained, tmp_path):
    beside = tmp_path / "made.tmp"
    beside.mkdir()
    (beside / "thesis.tex").write_text("precious")
    words = ["convert", f"--from={pretrained}", f"--to=hf:{tmp_path / 'made'}"]
    said(words)
    assert (beside / "thesis.tex").read_text() == "precious"
    refused(words, "is there already")
    words[-1] = f"--to=openai:{tmp_path / 'deep' / 'er'}"
    moment = "before gpt1_jax.weights.openai:write_arrays"
    faults.run(words, at=moment, do="raise OSError(28, 'No space left on device')").refused("space")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "made.tmp"]


# Who writes, and what may be deleted


def test_two_prepare_into_one_folder(refused, said, texts, tmp_path):
    here = tmp_path / "reading"
    do = f"open({str(here)!r}, 'w').close(); import time; time.sleep(60)"
    moment = "before gpt1_jax.text.corpus:take_survey"
    with faults.start(prepare(texts, tmp_path / "out"), at=moment, do=do) as first:
        while not here.exists():
            assert first.poll() is None
            time.sleep(0.05)
        refused(prepare(texts, tmp_path / "out", "--seed=1"), "another process is preparing")
        first.kill()
    said(prepare(texts, tmp_path / "out"))
    assert not list((tmp_path / "out").glob(".*"))


def test_two_runs_in_one_workdir(refused, tokens, tmp_path, monkeypatch):
    """The second comes while the first has the workdir, before it wrote there."""
    lock = WorkdirLock(tmp_path / "run")
    refused(train(tokens, tmp_path / "run", seed=1), "another process is training")
    assert runs.snapshot(tmp_path / "run") == {}
    lock.release()
    assert not (tmp_path / "run").exists()
    # What decides is read when the lock is held.
    seen = []
    monkeypatch.setattr(claim, "_check_same", lambda *_: seen.append(WorkdirLock(tmp_path / "run")))
    (tmp_path / "run").mkdir()
    config = {"identity": {}, "model": {}, "resolved": {}}
    config["resolved"] = {"tokenizer": "", "task": None, "labels": [], "n_outputs": 0}
    config["resolved"]["total_steps"] = 1
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    refused(train(tokens, tmp_path / "run"), "another process is training")
    assert not seen


def test_prepare_deletes_nothing_that_it_did_not_make(refused, said, texts, tmp_path):
    output = tmp_path / "out"
    unfinished = output / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "notes.txt").write_text("precious " * 50)
    refused(prepare(texts, output), "unfinished")
    refused(prepare(str(unfinished / "notes.txt"), output), "notes.txt", "where prepare works")
    assert runs.snapshot(output) == {"unfinished/notes.txt": b"precious " * 50}
    shutil.rmtree(output)
    # A file that came while it was prepared.
    killed = faults.run(prepare(texts, output), at="survey.json", do="kill")
    assert killed.status == -signal.SIGKILL
    (unfinished / "notes.txt").write_text("precious")
    said(prepare(texts, output))
    said(prepare(texts, output))
    assert [path.name for path in unfinished.iterdir()] == ["notes.txt"]


# A full disk


def test_a_place_that_is_taken(refused, tokens, pretrained, tmp_path):
    """By a file where a folder has to be."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    faults.damage_checkpoint(workdir, 6)
    (workdir / "damaged").write_text("mine")
    refused(train(tokens, workdir), "damaged")
    assert (workdir / "damaged").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "events").write_text("mine")
    refused(train(tokens, tmp_path / "other", **{"log.tensorboard": True}), "events")


def test_threads_do_not_share_temporary_names(tmp_path):
    """Two writers of one file: each whole, one of them last."""
    texts = [letter * 10**6 for letter in "ab"]
    threads = [
        threading.Thread(target=disk.write_text, args=(tmp_path / "file", text)) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
