"""Disks without room, outputs that nobody takes (docs/reliability.md)."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import faults
import pytest
import runs
from faults import predict, prepare, train


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


@pytest.mark.slow
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
        "import sys; sys.path.insert(0, 'tests'); import pathlib, test_full_disks; "
        f"folder = pathlib.Path({str(place)!r}); "
        f"test_full_disks.fill(folder, {leaving}, folder / 'run' / 'committed.json')"
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


@pytest.mark.parametrize("kind", [pytest.param("openai", marks=pytest.mark.slow), "hf", "native"])
def test_a_disk_that_fills_up_while_weights_are_written(pretrained, small_disk, kind):
    """One that has less room than it said, as if another process were faster. One shard has pages
    enough for a hole, which a mapped file would be filled in by a signal."""
    place = small_disk(16)
    unseen = (
        "import shutil; from collections import namedtuple; from gpt1_jax.weights import openai; "
        "openai.N_SHARDS = 1; "
        "usage = namedtuple('usage', 'total used free')(0, 0, 10**12); "
        "shutil.disk_usage = lambda *_: usage"
    )
    words = ["convert", f"--from={pretrained}", f"--to={kind}:{place / 'made'}"]
    faults.run(words, settings=unseen).refused("made", "No space left")
    assert not list(place.iterdir())


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, -1))"


@pytest.mark.exhaustive
def test_a_checkpoint_that_is_larger_than_files_may_be(tokens, pretrained, tmp_path):
    """As under `ulimit -f`: the one before it is kept, and the same command goes on from it."""
    words = train(tokens, tmp_path / "run")
    outcome = faults.run(words, at="committed.json", do=LIMITED)
    outcome.refused("File too large", "step 4", "ulimit -f")
    assert runs.verb(*words).status == 0
    runs.assert_same_run(tmp_path / "run", pretrained, 6)


@pytest.mark.parametrize(
    ("kind", "largest"),
    [
        pytest.param("hf", 8192, marks=pytest.mark.slow),
        ("native", 8192),
        ("openai", 2048),
    ],
)
def test_weights_that_are_larger_than_files_may_be(pretrained, tmp_path, kind, largest):
    limited = LIMITED.replace("8192", str(largest))
    words = ["convert", f"--from={pretrained}", f"--to={kind}:{tmp_path / 'new'}"]
    faults.run(words, settings=limited).refused(f"{tmp_path / 'new'} cannot", "ulimit -f")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("verb", "ways"),
    [
        ("report", ("full", "closed", "errors too")),
        pytest.param("sample", ("closed",), marks=pytest.mark.slow),
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


@pytest.mark.slow
def test_progress_that_nobody_reads_ends_no_run(tokens, tmp_path):
    words = train(tokens, tmp_path / "run", stop_after=2)[:-1]
    with open("/dev/full", "w") as full:
        assert faults.run(words, stderr=full).status == 0
