"""Files that verbs read: what changed, what is damaged and what is none is named, in one line
(docs/reliability.md)."""

import json
import os
import signal

import faults
import pytest
import runs
from faults import prepare, train

from gpt1_jax import disk
from gpt1_jax.text import corpus, text_files

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
    "committed.json": ("train",),
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


@pytest.mark.parametrize(
    ("key", "value"), [("words", None), ("bytes", 0), ("tokens", 553), ("shards", [])]
)
def test_a_manifest_whose_counts_do_not_fit(refused, tokens, pretrained, tmp_path, key, value):
    copy = runs.copied(tokens, tmp_path / "tokens")
    content = json.loads((copy / "manifest.json").read_text())
    content["splits"]["valid"][key] = value
    if value is None:
        del content["splits"]["valid"][key]
    (copy / "manifest.json").write_text(json.dumps(content))
    words = ["evaluate", f"--workdir={pretrained}", f"--data={copy}"]
    refused(words, copy / "manifest.json", "splits.valid")


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
