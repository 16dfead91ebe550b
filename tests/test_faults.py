"""What may happen to files: nothing is silently wrong, nothing is lost (docs/reliability.md)."""

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import faults
import pytest
import runs

from gpt1_jax import disk
from gpt1_jax.__main__ import main
from gpt1_jax.disk import WorkdirLock
from gpt1_jax.text import corpus, text_files
from gpt1_jax.training import claim
from gpt1_jax.weights.checkpoint import Checkpoints


@pytest.fixture
def refused(capsys):
    """Runs the command line, which must refuse with one line that names what is given."""

    def run(words, *named) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("gpt1: ")
        for name in named:
            assert str(name) in line
        return line

    return run


@pytest.fixture
def said(capsys):
    """Runs the command line, which must succeed; returns its result and what it said."""

    def run(words) -> tuple[dict, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        output, errors = capsys.readouterr()
        assert status == 0, errors
        return json.loads(output.splitlines()[-1]), errors

    return run


@pytest.fixture
def rows(tmp_path) -> Path:
    lines = [{"text": text} for text in ("sun on the mat", "rain fell", "the sun")]
    return runs.write_jsonl(tmp_path / "rows.jsonl", lines)


def predict(model: Path, rows: Path, output: Path) -> list:
    return ["predict", f"--workdir={model}", f"--input={rows}", f"--output={output}"]


@pytest.fixture
def texts(tmp_path) -> str:
    """The glob of text files."""
    return runs.write_documents(tmp_path / "texts", count=3, n_words=300)


def prepare(texts: str, output: Path, *flags) -> list:
    words = ["prepare", f"--output={output}", "--input", texts, "--vocab_size=300", "--workers=1"]
    return [*words, *flags]


def train(tokens: Path, workdir: Path, **changes) -> list:
    return [*runs.words(runs.pretraining(tokens, **changes), workdir), "--quiet"]


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


# What is read


def test_a_text_that_changed(refused, said, texts, tmp_path, monkeypatch):
    output, first = tmp_path / "out", tmp_path / "texts" / "0.txt"
    words = prepare(texts, output, "--valid_fraction=0")
    said(words)
    before, text, times = runs.snapshot(output), first.read_text(), first.stat()
    first.write_text(text.replace("cat", "dog"))
    os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
    refused(words, "another text of the same length")
    assert runs.snapshot(output) == before
    first.write_text(text)
    assert "already prepared" in said(words)[1]
    # Between two readings, and within one.
    words[1] = f"--output={tmp_path / 'other'}"
    with monkeypatch.context() as patch:
        survey = corpus.take_survey

        def changing(*arguments):
            found = survey(*arguments)
            first.write_text(text.replace("cat", "dog"))
            os.utime(first, ns=(times.st_atime_ns, first.stat().st_mtime_ns))
            return found

        patch.setattr(corpus, "take_survey", changing)
        refused(words, "changed while it was")
    assert not (tmp_path / "other").exists()
    with monkeypatch.context() as patch:
        blocks = text_files.decoded

        def growing(path, block):
            yield from blocks(path, block)
            with path.open("a") as file:
                file.write("more")

        patch.setattr(text_files, "decoded", growing)
        refused(words, "0.txt", "changed while it was read")
    assert not (tmp_path / "other").exists()


def test_a_text_that_changed_since_it_was_interrupted(said, texts, tmp_path):
    output, first = tmp_path / "out", tmp_path / "texts" / "0.txt"
    words = prepare(texts, output, "--valid_fraction=0")
    killed = faults.run(words, at="tokenizer/tokenizer.json", do="kill")
    assert killed.status == -signal.SIGKILL
    first.write_text(first.read_text().replace("cat", "dog"))
    assert "begins anew" in said(words)[1]
    words[1] = f"--output={tmp_path / 'other'}"
    said(words)
    assert runs.snapshot(output) == runs.snapshot(tmp_path / "other")


@pytest.mark.parametrize("name", ["train-00000.npy", "valid-00000.npy"])
def test_a_flipped_bit_is_neither_trained_on_nor_evaluated(
    refused, tokens, pretrained, tmp_path, name
):
    damaged = runs.copied(tokens, tmp_path / "tokens")
    faults.flip_a_bit(damaged / name)
    refused(train(damaged, tmp_path / "run"), name, "checksum")
    assert not (tmp_path / "run").exists()
    refused(["evaluate", f"--workdir={pretrained}", f"--data={damaged}"], name, "checksum")


def test_shards_are_verified_once(said, tokens, tmp_path, monkeypatch):
    copy, workdir, hashed = runs.copied(tokens, tmp_path / "tokens"), tmp_path / "run", []
    count = disk.sha256
    monkeypatch.setattr(disk, "sha256", lambda path: hashed.append(path.name) or count(path))
    said(train(copy, workdir, stop_after=1))
    arrays = ["train-00000.npy", "documents-train.npy", "valid-00000.npy", "documents-valid.npy"]
    assert hashed == arrays
    said(train(copy, workdir, stop_after=2))
    said(["evaluate", f"--workdir={workdir}"])
    assert len(hashed) == 4
    (copy / "train-00000.npy").touch()
    said(train(copy, workdir, stop_after=3))
    assert hashed[4:] == ["train-00000.npy"]


# Checkpoints


VERBS = {
    "evaluate": [],
    "sample": ["--prompt=the"],
    "score": ["--input={texts}/0.txt"],
    "convert": ["--to=hf:{texts}/made"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_checkpoint_is_named_and_what_is_used_instead(
    said, pretrained, texts, tmp_path, verb
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    path = faults.damage_checkpoint(workdir, 6)
    flags = [flag.format(texts=tmp_path / "texts") for flag in VERBS[verb]]
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    result, errors = said([verb, source, *flags])
    assert result["step"] == 4
    assert f"checkpoint 6 is damaged: {path}" in errors
    assert "checkpoint 4 is used instead" in errors


def test_a_best_checkpoint_that_is_damaged(said, finetuned, rows, tmp_path):
    workdir = runs.copied(finetuned, tmp_path / "run")
    best = json.loads((workdir / "result.json").read_text())["best"]["step"]
    (workdir / "checkpoints" / str(best) / "params" / "digests.json").write_text("{}")
    result, errors = said(predict(workdir, rows, tmp_path / "out.jsonl"))
    assert result["step"] != best
    assert "digests.json has no digest of" in errors


@pytest.mark.parametrize("digests", ["[]", '{"_METADATA": 1}', "[" * 10**5, "", '{"x": "0"}'])
def test_digests_that_verify_nothing_are_damage(said, pretrained, tmp_path, digests):
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "checkpoints" / "6" / "optimizer" / "digests.json").write_text(digests)
    assert "checkpoint 6 is damaged" in said(["sample", f"--workdir={workdir}", "--prompt=the"])[1]


@pytest.mark.parametrize(
    ("verb", "known"),
    [
        ("sample", "committed.json"),
        ("convert", "result.json"),
        *(pytest.param(v, "result.json", marks=pytest.mark.exhaustive) for v in VERBS),
    ],
)
def test_a_newest_checkpoint_that_is_gone(said, pretrained, texts, tmp_path, verb, known):
    """Either file tells that there was one."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    for name in {"committed.json", "result.json"} - {known}:
        (workdir / name).unlink()
    flags = [flag.format(texts=tmp_path / "texts") for flag in VERBS[verb]]
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    result, errors = said([verb, source, *flags])
    assert result["step"] == 4
    assert "reached step 6, whose checkpoint is gone; checkpoint 4 is used instead" in errors


def test_a_newest_checkpoint_that_is_gone_is_trained_again(said, tokens, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    errors = said(train(tokens, workdir))[1]
    assert "reached step 6, whose checkpoint is gone\nresuming after step 4" in errors
    assert "moved" not in errors
    runs.assert_same_run(workdir, pretrained, 6)


def test_a_best_checkpoint_that_may_be_gone(said, finetuned, rows, tmp_path):
    """The newest knew which one is best."""
    workdir = runs.copied(finetuned, tmp_path / "run")
    newest, *others = sorted(map(int, os.listdir(workdir / "checkpoints")), reverse=True)
    shutil.rmtree(workdir / "checkpoints" / str(newest))
    result, errors = said(predict(workdir, rows, tmp_path / "out.jsonl"))
    assert result["step"] in others
    assert f"checkpoint {result['step']} is used instead" in errors


def _a_file(place):
    place.write_text("mine")


def _a_link_to_nowhere(place):
    place.symlink_to("/nowhere/checkpoints")


def _a_link_to_itself(place):
    place.symlink_to(place)


@pytest.mark.parametrize("instead", [_a_file, _a_link_to_nowhere, _a_link_to_itself])
def test_checkpoints_that_are_no_folder(refused, tokens, pretrained, tmp_path, instead):
    """A disk that is not mounted is a link to nowhere. Whether or not anything else tells that
    there was a checkpoint."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    instead(workdir / "checkpoints")
    refused(["sample", f"--workdir={workdir}", "--prompt=the"], "run/checkpoints", "cannot be read")
    for name in ("result.json", "committed.json"):
        (workdir / name).unlink()
    refused(train(tokens, workdir), "run/checkpoints", "cannot be read")
    assert os.path.lexists(workdir / "checkpoints")


def test_a_checkpoint_whose_place_is_taken(refused, tokens, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    _a_link_to_nowhere(workdir / "checkpoints" / "6")
    refused(train(tokens, workdir), "checkpoints/6: Not a directory", "step 6 was not saved")
    assert (workdir / "checkpoints" / "4").is_dir()


def _all_damaged(workdir):
    for step in (4, 6):
        faults.damage_checkpoint(workdir, step, "optimizer")


def _without_checkpoints(workdir):
    shutil.rmtree(workdir / "checkpoints")


def _without_steps_or_result(workdir):
    (workdir / "result.json").unlink()
    for step in (4, 6):
        shutil.rmtree(workdir / "checkpoints" / str(step))


def _without_config(workdir):
    (workdir / "config.json").unlink()
    for name in ("metrics.jsonl", "result.json"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "tokenizer")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_all_damaged, "checkpoint 6 is damaged"),
        (_without_checkpoints, "whose checkpoint is gone"),
        (_without_steps_or_result, "reached step 6"),
        (_without_config, "no config.json"),
    ],
)
def test_a_run_without_its_checkpoints_is_not_begun_again(
    refused, tokens, pretrained, tmp_path, damage, named
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    damage(workdir)
    before = runs.snapshot(workdir)
    assert "another" in refused(train(tokens, workdir), named) or named == "no config.json"
    assert runs.snapshot(workdir) == before


def test_a_checkpoint_that_is_deleted_while_it_is_read(said, pretrained, tmp_path, monkeypatch):
    """By a process that trains there and has saved newer ones."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    aside = shutil.move(workdir / "checkpoints" / "6", tmp_path / "6")
    restore, deleted = Checkpoints._restored, []

    def deleting(self, step, **items):
        if step == 4:
            shutil.move(aside, workdir / "checkpoints" / "6")
            shutil.rmtree(workdir / "checkpoints" / "4")
            deleted.append(step)
        return restore(self, step, **items)

    monkeypatch.setattr(Checkpoints, "_restored", deleting)
    result, errors = said(["sample", f"--workdir={workdir}", "--prompt=the"])
    assert deleted == [4]
    assert result["step"] == 6
    assert "damaged" not in errors


@pytest.mark.parametrize(
    ("key", "value"),
    [("model.n_head", 1), ("model.n_layer", 1), ("resolved.tokenizer", "0"), ("model.n_ctx", 8)],
)
def test_a_config_of_another_model(refused, pretrained, tmp_path, key, value):
    workdir = runs.copied(pretrained, tmp_path / "run")
    content = json.loads((workdir / "config.json").read_text())
    section, name = key.split(".")
    content[section][name] = value
    (workdir / "config.json").write_text(json.dumps(content))
    refused(["sample", f"--workdir={workdir}", "--prompt=the"], "config.json", key)


# JSON


def _twice(text):
    return text.rstrip().removesuffix("}") + ', "seed": 1, "seed": 1}'


DAMAGES = {
    "list": lambda text: "[]",
    "null": lambda text: "null",
    "nested": lambda text: "[" * 10**5,
    "twice": _twice,
    "nan": lambda text: text.rstrip().removesuffix("}") + ', "more": NaN}',
    "bytes": lambda text: "\udcff" + text,
    "cut": lambda text: text[: len(text) // 2],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_json_of_a_run_that_is_damaged(refused, tokens, pretrained, tmp_path, damage):
    workdir, copy = tmp_path / "run", tmp_path / "tokens"
    for source, target in ((pretrained, workdir), (tokens, copy)):
        runs.copied(source, target)
    sampling = ["sample", f"--workdir={workdir}", "--prompt=the"]
    cases = [
        (workdir / "config.json", sampling),
        (workdir / "config.json", train(tokens, workdir)),
        (workdir / "result.json", train(tokens, workdir)),
        (workdir / "result.json", ["report", f"--runs={workdir}", f"--output={tmp_path / 'r'}"]),
        (workdir / "tokenizer" / "tokenizer.json", sampling),
        (copy / "manifest.json", train(copy, tmp_path / "new")),
    ]
    for path, words in cases:
        text = path.read_text()
        path.write_bytes(DAMAGES[damage](text).encode(errors="surrogateescape"))
        refused(words, path)
        path.write_text(text)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("config.json", "identity", []),
        ("config.json", "resolved.labels", None),
        ("config.json", "resolved.n_outputs", "0"),
        ("config.json", "model.n_layer", "2"),
        ("config.json", "model.n_layer", [2]),
        ("result.json", "step", "6"),
        ("result.json", "metrics", []),
        ("tokenizer/tokenizer.json", "mode", None),
        ("tokenizer/tokenizer.json", "fingerprint", 7),
    ],
)
def test_json_of_a_run_in_another_shape(refused, tokens, pretrained, tmp_path, name, key, value):
    workdir = runs.copied(pretrained, tmp_path / "run")
    content = json.loads((workdir / name).read_text())
    *sections, last = key.split(".")
    section = content
    for part in sections:
        section = section[part]
    section[last] = value
    (workdir / name).write_text(json.dumps(content))
    words = ["sample", f"--workdir={workdir}", "--prompt=the"]
    refused(words, workdir / name, last)


@pytest.fixture
def soon():
    """What waits without end is interrupted."""

    def stop(*_):
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


OF_A_RUN = {
    "config.json": ("sample", "train", "report"),
    "result.json": ("sample", "train", "report"),
    "metrics.jsonl": ("report",),
    "committed.json": ("sample", "train"),
    "tokenizer/sentencepiece.model": ("sample",),
    "checkpoints/6/_CHECKPOINT_METADATA": ("sample",),
}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_read(refused, soon, tokens, pretrained, tmp_path, make):
    """A pipe is waited for without end."""
    run, output = tmp_path / "run", tmp_path / "report"
    runs.copied(pretrained, run)
    words = {
        "sample": ["sample", f"--workdir={run}", "--prompt=the"],
        "train": train(tokens, run),
        "report": ["report", f"--runs={run}", f"--output={output}"],
    }
    for name, verbs in OF_A_RUN.items():
        if make == os.mkdir and name.startswith("checkpoints"):
            continue
        (run / name).rename(tmp_path / "aside")
        make(run / name)
        for verb in verbs:
            refused(words[verb], run / name)
        (run / name).rename(tmp_path / f"{name.replace('/', ' ')} that is none")
        (tmp_path / "aside").rename(run / name)


@pytest.mark.parametrize("item", ["params/digests.json", "optimizer/_METADATA"])
def test_a_pipe_in_a_checkpoint_is_damage(said, soon, pretrained, tmp_path, item):
    workdir = runs.copied(pretrained, tmp_path / "run")
    path = workdir / "checkpoints" / "6" / item
    path.unlink()
    os.mkfifo(path)
    result, errors = said(["sample", f"--workdir={workdir}", "--prompt=the"])
    assert result["step"] == 4
    assert f"checkpoint 6 is damaged: {path}" in errors


@pytest.mark.parametrize("name", ["manifest.json", "train-00000.npy", "documents-train.npy"])
def test_a_pipe_among_shards(refused, soon, tokens, tmp_path, name):
    copy = runs.copied(tokens, tmp_path / "tokens")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    refused(train(copy, tmp_path / "run"), copy / name, "a pipe")


@pytest.mark.parametrize(
    ("key", "value"), [("seed", -1), ("model.loss_chunks", -1), ("checkpoint.keep", 0)]
)
def test_a_value_that_no_run_has(refused, pretrained, tmp_path, key, value):
    """The line names the file that it stands in."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    content = json.loads((workdir / "config.json").read_text())
    *section, name = key.split(".")
    (content[section[0]] if section else content)[name] = value
    (workdir / "config.json").write_text(json.dumps(content))
    words = ["sample", f"--workdir={workdir}", "--prompt=the"]
    refused(words, workdir / "config.json", f"{key} is {value}; expected")


@pytest.mark.parametrize("line", [b"[]", b"null", b'{"step": "1", "split": "train"}', b"[" * 10**5])
def test_a_row_of_metrics_that_is_none(refused, tokens, pretrained, tmp_path, line):
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "result.json").unlink()
    rows = (workdir / "metrics.jsonl").read_bytes()
    for content in (line + b"\n" + rows, rows + line + b"\n"):
        (workdir / "metrics.jsonl").write_bytes(content)
        refused(train(tokens, workdir), "metrics.jsonl:")
        assert (workdir / "metrics.jsonl").read_bytes() == content


@pytest.mark.parametrize("content", ["[]", '{"scale": 1}', '{"scale": "small", "runs": [3]}'])
def test_a_damaged_ledger(refused, tmp_path, content):
    (tmp_path / "reproduction.json").write_text(content)
    refused(["report", f"--runs={tmp_path}", f"--output={tmp_path / 'r'}"], "reproduction.json")
    words = ["reproduce", "--table=1", "--scale=small", f"--workdir={tmp_path}"]
    refused(words, "reproduction.json")


# A full disk


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own, of a size in kilobytes."""
    mounted = []

    def mount(kilobytes: int) -> Path:
        place = tmp_path / "disk"
        place.mkdir()
        options = f"size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")
        mounted.append(place)
        return place

    yield mount
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(folder: Path, leaving: int, after: Path | None = None) -> Path:
    """All but so many bytes, once there is the file `after`."""
    while after and not after.exists():
        time.sleep(0.02)
    path = folder / "filler"
    with path.open("wb") as file:
        file.write(bytes(max(0, shutil.disk_usage(folder).free - leaving)))
    return path


UNSEEN = (
    "from gpt1_jax.weights import checkpoint, space; "
    "checkpoint.check_space = space.check_space = lambda *_: None"
)


@pytest.mark.parametrize(
    ("leaving", "settings"),
    [
        (0, ""),
        pytest.param(8192, UNSEEN, marks=pytest.mark.exhaustive),
        pytest.param(8192, "", marks=pytest.mark.exhaustive),
    ],
)
def test_a_disk_that_fills_up_while_it_is_trained(
    tokens, pretrained, small_disk, leaving, settings
):
    """At checkpoint 4, before it is written or meanwhile: nothing of before is lost, and the same
    command goes on."""
    place = small_disk(4096)
    workdir = place / "run"
    words = train(tokens, workdir, **{"log.tensorboard": not settings})
    do = (
        "import sys; sys.path.insert(0, 'tests'); import pathlib, test_faults; "
        f"folder = pathlib.Path({str(place)!r}); "
        f"test_faults.fill(folder, {leaving}, folder / 'run' / 'committed.json')"
    )
    moment = "before gpt1_jax.weights.checkpoint:Checkpoints.save%2"
    outcome = faults.run(words, at=moment, do=do, settings=settings)
    assert "free some" in outcome.refused()
    (place / "filler").unlink()
    assert (workdir / "checkpoints" / "2").is_dir()
    for line in (workdir / "metrics.jsonl").read_bytes().splitlines():
        json.loads(line)
    assert runs.verb(*words).status == 0
    runs.assert_same_run(workdir, pretrained, 6)


def test_a_disk_that_is_full_from_the_start(refused, finetuned, rows, texts, tokens, small_disk):
    place = small_disk(256)
    (place / "out.jsonl").write_text("before")
    fill(place, 4096)
    refused(prepare(texts, place / "tokens"), "pace left")
    refused(train(tokens, place / "run"), "free")
    refused(["convert", f"--from={finetuned}", f"--to=native:{place / 'm'}"], "free")
    refused(["report", f"--runs={finetuned}", f"--output={place / 'report'}"], "pace left")
    long = runs.write_jsonl(rows, [{"text": "sun"}] * 300)
    refused(predict(finetuned, long, place / "out.jsonl"), "pace left")
    assert (place / "out.jsonl").read_text() == "before"
    assert not list(place.glob(".gpt1-*"))


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, -1))"


@pytest.mark.exhaustive
def test_a_checkpoint_that_is_larger_than_files_may_be(tokens, pretrained, tmp_path):
    """As under `ulimit -f`: the one before it is kept, and the same command goes on from it."""
    words = train(tokens, tmp_path / "run")
    outcome = faults.run(words, at="committed.json", do=LIMITED)
    outcome.refused("File too large", "step 4", "ulimit -f")
    assert runs.verb(*words).status == 0
    runs.assert_same_run(tmp_path / "run", pretrained, 6)


@pytest.mark.parametrize("kind", ["hf", "native"])
def test_weights_that_are_larger_than_files_may_be(pretrained, tmp_path, kind):
    words = ["convert", f"--from={pretrained}", f"--to={kind}:{tmp_path / 'new'}"]
    faults.run(words, settings=LIMITED).refused(f"{tmp_path / 'new'} cannot", "ulimit -f")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "ways"),
    [
        ("report", ("full", "closed", "errors too")),
        ("sample", ("closed",)),
        ("score", ("full",)),
        pytest.param("sample", ("full", "errors too"), marks=pytest.mark.exhaustive),
        pytest.param("score", ("closed", "errors too"), marks=pytest.mark.exhaustive),
    ],
)
def test_an_output_that_nobody_takes(pretrained, texts, tmp_path, verb, ways):
    where = f"--workdir={pretrained}"
    flags = {
        "sample": [where, "--prompt=the"],
        "score": [where, f"--input={texts}"],
        "report": ["--help"],
    }[verb]
    words = [verb, *flags]
    if "full" in ways:
        with open("/dev/full", "w") as full:
            faults.run(words, stdout=full).refused("standard output")
    if "closed" in ways:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as closed:
            faults.run(words, stdout=closed).refused("standard output")
    if "errors too" in ways:  # not even to say so
        with open("/dev/full", "w") as full:
            assert faults.run(words, stdout=full, stderr=full).status == 2


def test_a_result_of_a_part_that_nobody_takes(tmp_path):
    """What else failed is said by the table that is there; that it is lost is the line."""
    settings = (
        "from gpt1_jax.errors import PartlyFailed\n"
        "from gpt1_jax.results import report\n"
        "def failing(*_): raise PartlyFailed('a cell failed', {})\n"
        "report.report = failing"
    )
    with open("/dev/full", "w") as full:
        words = ["report", f"--runs={tmp_path}", f"--output={tmp_path / 'out'}"]
        faults.run(words, settings=settings, stdout=full).refused("standard output")


def test_progress_that_nobody_reads_ends_no_run(tokens, tmp_path):
    words = train(tokens, tmp_path / "run", stop_after=2)[:-1]
    with open("/dev/full", "w") as full:
        assert faults.run(words, stderr=full).status == 0


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


def test_every_test_that_the_page_names_exists():
    tests = Path(__file__).parent
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", (runs.ROOT / "docs/reliability.md").read_text())
    assert len(named) > 30
    for file, name in named:
        assert f"def {name}(" in (tests / file).read_text(), f"{file}::{name}"
