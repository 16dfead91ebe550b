"""Folders of an object store: file:// and fsspec's memory:// stand in for one, and a store of its
own kind that fails as it is told."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest
import runs
from fsspec.implementations.memory import MemoryFileSystem

from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.storage import lease as leases
from gpt1_jax.storage import places
from gpt1_jax.storage.lease import Lease
from gpt1_jax.weights.checkpoint import Checkpoints

FOREIGN = runs.ROOT / "tests" / "golden" / "huggingface"
GOLDEN = FOREIGN / "language_model"
SCORED = [f"--initial=hf:{GOLDEN}", "--input=README.md"]


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    """The caches of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def store():
    """fsspec's store in memory, empty, and without what it keeps between tests."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


class Flaky(MemoryFileSystem):
    """Fails as often as `failures` says before each call that goes well."""

    protocol = "flaky"
    store: dict = {}  # noqa: RUF012, as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012
    failures, calls = 0, 0

    def _fail(self):
        type(self).calls += 1
        if type(self).failures > 0:
            type(self).failures -= 1
            raise ConnectionError("503 Service Unavailable")

    def find(self, path, **options):
        self._fail()
        return super().find(path, **options)

    def get_file(self, *names, **options):
        self._fail()
        return super().get_file(*names, **options)

    def put_file(self, *names, **options):
        self._fail()
        return super().put_file(*names, **options)


@pytest.fixture
def flaky(monkeypatch):
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(Flaky, "failures", 0)
    monkeypatch.setattr(places, "FIRST_PAUSE", 0.001)
    Flaky.store.clear()
    return Flaky


# Copies


def test_a_copy_is_brought_up_to_date(store):
    store.pipe("/bucket/tokens/a.txt", b"one")
    store.pipe("/bucket/tokens/deep/b.txt", b"two")
    copy = places.here("memory://bucket/tokens/")
    assert (copy / "a.txt").read_bytes() == b"one"
    assert places.origin(copy) == "memory://bucket/tokens"
    first = (copy / "deep" / "b.txt").stat().st_mtime_ns
    store.pipe("/bucket/tokens/a.txt", b"changed")
    store.pipe("/bucket/tokens/c.txt", b"new")
    assert places.here("memory://bucket/tokens") == copy
    assert (copy / "a.txt").read_bytes() == b"changed"
    assert (copy / "c.txt").read_bytes() == b"new"
    # What is the same is not fetched again; what is gone there is gone here.
    assert (copy / "deep" / "b.txt").stat().st_mtime_ns == first
    store.rm("/bucket/tokens/a.txt")
    places.here("memory://bucket/tokens")
    assert not (copy / "a.txt").exists()
    # Nor is anything believed that was changed here alone.
    (copy / "c.txt").write_text("mine")
    places.here("memory://bucket/tokens")
    assert (copy / "c.txt").read_bytes() == b"new"


def test_what_was_changed_is_sent_whole(store):
    copy = places.here("memory://bucket/run", new=True)
    (copy / "events").mkdir()
    (copy / "events" / "e").write_text("drawn")
    (copy / "rows").write_text("1\n")
    (copy / ".lock").write_text("")
    places.send(copy)
    with (copy / "rows").open("a") as file:
        file.write("2\n")
    sent = store.created("/bucket/run/events/e")
    places.send(copy)
    assert store.cat("/bucket/run/rows") == b"1\n2\n"
    assert store.created("/bucket/run/events/e") == sent
    assert sorted(store.find("/bucket")) == ["/bucket/run/events/e", "/bucket/run/rows"]
    # What a verb deletes, as a report does with files of the one before, is deleted there.
    store.pipe("/bucket/run/of somebody else", b"")
    (copy / "rows").unlink()
    places.send(copy)
    assert sorted(store.find("/bucket")) == ["/bucket/run/events/e", "/bucket/run/of somebody else"]


def test_a_name_that_leads_out_of_the_copy_is_left(store):
    store.pipe("/bucket/tokens/a", b"a")
    store.store["/bucket/tokens/../../../evil"] = store.store["/bucket/tokens/a"]
    copy = places.here("memory://bucket/tokens")
    assert [path.name for path in copy.iterdir()] == ["a"]
    assert not list(copy.parents[2].rglob("evil"))


def test_names_of_this_machine_stay_what_they_are(tmp_path):
    assert places.here(tmp_path) == tmp_path
    assert places.here("~/x") == Path.home() / "x"
    assert places.origin(tmp_path) is None
    places.send(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--workdir=memory://bucket/none"], "nothing is there"),
        (["evaluate", "--workdir=nostore://bucket/none"], "no store that is known"),
        (["score", *SCORED, "--output=nostore://b/x"], "no store that is known"),
        (["prepare", "--output=x", "--input=memory://bucket/none/*"], "no file matches"),
        (["convert", f"--from=hf:{GOLDEN}", "--to=native:memory://bucket/x"], "hf: are written"),
        (["reproduce", "--table=4", "--workdir=memory://b/x"], "memory://b/x is no folder"),
    ],
)
def test_mistakes_are_one_line(store, words, said):
    outcome = runs.verb(*words)
    assert outcome.status == 2
    assert len(outcome.said) == 1
    assert said in outcome.said[0]


# What is read and what is made in one go


@pytest.fixture
def in_turn(store, tmp_path):
    """in_turn(words): what a verb leaves in a folder, where "{bucket}" stands in its words, and
    what it leaves in the store that has what was in the folder."""

    def both(*words: str) -> list[dict[str, bytes]]:
        before = runs.snapshot(tmp_path / "bucket")
        for name, content in before.items():
            store.pipe(f"/bucket/{name}", content)
        for bucket in (tmp_path / "bucket", "memory://bucket"):
            outcome = runs.verb(*(word.format(bucket=bucket) for word in words))
            assert outcome.status == 0, outcome.said
            assert str(tmp_path) not in str(outcome.result) or bucket != "memory://bucket"
        here = runs.snapshot(tmp_path / "bucket")
        there = {path.removeprefix("/bucket/"): store.cat(path) for path in store.find("/bucket")}
        assert here.keys() > before.keys()
        return [here, there]

    (tmp_path / "bucket").mkdir()
    return both


def test_text_is_read_from_a_store(in_turn, tmp_path):
    """Some of its files, one of which is held out of the others."""
    runs.write_documents(tmp_path / "bucket" / "books", count=4)
    (tmp_path / "bucket" / "books" / "notes.md").write_text("none of them")
    books = "{bucket}/books"
    here, there = in_turn(
        *("prepare", "--output={bucket}/tokens", "--vocab_size=300", "--workers=1"),
        *("--input", f"{books}/*.txt", "--valid", f"{books}/3.txt"),
    )
    assert here == there
    assert not list(tmp_path.glob("caches/**/notes.md"))


@pytest.mark.slow
def test_what_is_made_in_one_go_is_written_to_a_store(in_turn, pretrained, tmp_path):
    texts, rows = tmp_path / "bucket" / "in" / "a.txt", tmp_path / "bucket" / "in" / "rows.csv"
    runs.write_documents(texts.parent, count=1)
    texts.write_text("The cat sat.")
    rows.write_text("text\nthe cat\na dog\n")
    (tmp_path / "bucket" / "runs" / "one").mkdir(parents=True)
    for name in ("config.json", "result.json", "metrics.jsonl"):
        shutil.copy(pretrained / name, tmp_path / "bucket" / "runs" / "one")
    model, classifier = f"--initial=hf:{GOLDEN}", f"--initial=hf:{FOREIGN}/classification"
    for words in (
        ["score", model, "--input={bucket}/in/a.txt", "--output={bucket}/out/scores.jsonl"],
        ["predict", classifier, "--input={bucket}/in/rows.csv", "--output={bucket}/out/rows.csv"],
        ["inspect", model, "--prompt=The", "--output={bucket}/out/page.html", "--num_samples=1"],
        ["convert", f"--from=hf:{GOLDEN}", "--to=openai:{bucket}/out/weights"],
        ["report", "--runs={bucket}/runs", "--output={bucket}/out/report"],
    ):
        (tmp_path / "bucket" / "out").mkdir(exist_ok=True)
        here, there = in_turn(*words)
        assert here == there, words


def test_a_folder_that_is_there_is_not_written_over(store):
    store.pipe("/bucket/weights/a", b"mine")
    words = ["convert", f"--from=hf:{GOLDEN}", "--to=hf:memory://bucket/weights"]
    runs.refused(words, "memory://bucket/weights is there already")
    assert store.find("/bucket") == ["/bucket/weights/a"]


# Stores that fail


def test_a_store_that_fails_for_a_while_is_asked_again(flaky, capsys):
    copy = places.here("flaky://bucket/run", new=True)
    (copy / "a").write_text("a")
    flaky.failures = 3
    places.send(copy)
    assert [found.getvalue() for found in flaky.store.values()] == [b"a"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("503 Service Unavailable" in line for line in lines)


def test_a_store_that_fails_for_good_is_given_up(flaky, monkeypatch):
    monkeypatch.setattr(places, "PATIENCE", 0.05)
    flaky.failures = 10**9
    outcome = runs.verb("evaluate", "--workdir=flaky://bucket/run")
    assert outcome.status == 75
    assert "did not answer" in outcome.said[-1]
    assert "the same command continues" in outcome.said[-1]


# The lease


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(leases, "RENEWED", 0.05)
    monkeypatch.setattr(leases, "EXPIRES", 0.5)
    monkeypatch.setattr(leases, "LOOK", 0.02)


def test_one_that_renews_its_lease_keeps_it(store, quick):
    first = Lease("memory://bucket/run")
    with pytest.raises(UserError, match="another process is training in memory://bucket/run"):
        Lease("memory://bucket/run")
    first.require()
    first.release()
    began = time.monotonic()
    Lease("memory://bucket/run").release()
    assert time.monotonic() - began < leases.EXPIRES


def test_where_a_listing_lags_behind_one_has_the_lease(store, quick, monkeypatch):
    """A listing tells what was there a while ago: who has made a turn waits until it is listed."""
    listings, find = [], MemoryFileSystem.find

    def lagging(self, path, **options):
        listings.append((time.monotonic(), find(self, path, **options)))
        then = [found for at, found in listings if at < listings[-1][0] - 0.2]
        return then[-1] if then else [] if not options else {}

    monkeypatch.setattr(MemoryFileSystem, "find", lagging)
    first = Lease("memory://bucket/run")
    with pytest.raises(UserError, match="another process is training"):
        Lease("memory://bucket/run")
    first.require()
    first.release()


def test_a_lease_that_is_not_renewed_is_taken_over_and_its_owner_stops(store, quick, monkeypatch):
    first = Lease("memory://bucket/run")
    # As if its machine stood still.
    first._released.set()
    first._renewing.join()
    first._released.clear()
    # Clocks that jump change nothing: nobody compares them.
    monkeypatch.setattr(time, "time", lambda: -1e9)
    began = time.monotonic()
    second = Lease("memory://bucket/run")
    assert time.monotonic() - began > leases.EXPIRES
    first._renew()
    with pytest.raises(Interrupted, match="taken it over"):
        first.require()
    second.require()
    first.release()
    assert json.loads(store.cat("/bucket/run/.leases/000002.json"))["released"] is False
    second.release()


@pytest.mark.slow
def test_of_many_one_takes_over(store, quick):
    """In processes of their own, on a folder: each that has the lease says so."""
    script = (
        "import sys, time\nfrom gpt1_jax.storage import lease\n"
        "lease.RENEWED, lease.EXPIRES, lease.LOOK = 0.1, 1.0, 0.02\n"
        "held = lease.Lease(sys.argv[1])\nprint('held', flush=True)\ntime.sleep(3)\n"
        "held.require()\nheld.release()\n"
    )
    url = f"file://{Path(places.here('memory://x', new=True)).parent}/bucket"
    command = [sys.executable, "-c", script, url]
    running = [
        subprocess.Popen(
            command, cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [process.communicate()[0] for process in running]
    assert sorted(outputs) == ["", "", "held\n"]


# Runs


def train(tokens: object, workdir: object, **keys: object) -> runs.Outcome:
    given = {**runs.PRETRAINING, "data.path": tokens, **keys}
    config = [f"--config.{key}={value}" for key, value in given.items()]
    return runs.verb("train", "--config=configs/pretrain.py", f"--workdir={workdir}", *config)


def parameters(workdir: Path) -> dict:
    checkpoints = Checkpoints(workdir)
    with contextlib.closing(checkpoints):
        return checkpoints.newest_params()[1]


def assert_same(found: dict, expected: dict) -> None:
    """To the bit."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_run_in_a_store_goes_on_on_another_machine(tokens, pretrained, tmp_path, monkeypatch):
    """Stopped half way; the other machine knows only the store. In the end there is what a run in a
    folder leaves, parameters to the bit."""
    fsspec.filesystem("file").put(f"{tokens}", f"{tmp_path}/bucket/tokens", recursive=True)
    bucket = f"file://{tmp_path}/bucket"
    assert train(f"{bucket}/tokens", f"{bucket}/run", stop_after=4).status == 0
    there = tmp_path / "bucket" / "run"
    assert (there / "checkpoints" / "4").is_dir()
    rows = (there / "metrics.jsonl").read_text().splitlines()
    assert json.loads(rows[-1])["step"] == 4
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
    outcome = train(f"{bucket}/tokens", f"{bucket}/run")
    assert "resuming after step 4" in outcome.said
    assert_same(parameters(there), parameters(pretrained))
    evaluated = [runs.verb("evaluate", f"--workdir={w}").result for w in (f"{bucket}/run", there)]
    assert evaluated[0]["metrics"] == evaluated[1]["metrics"]


@pytest.mark.slow
def test_checkpoints_are_copied_where_orbax_has_no_way(
    tokens, pretrained, store, tmp_path, monkeypatch
):
    """Whole; one that was not sent to its end is left for the one before."""
    assert train(tokens, "memory://bucket/run", stop_after=4).status == 0
    sent = store.find("/bucket/run/checkpoints")
    assert {path.split("/")[4] for path in sent} == {"2", "4"}
    store.rm("/bucket/run/checkpoints/4/params/digests.json")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other machine"))
    outcome = train(tokens, "memory://bucket/run")
    assert "resuming after step 2" in outcome.said
    assert runs.rows(places.here("memory://bucket/run")) == runs.rows(pretrained)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third machine"))
    copy = places.here("memory://bucket/run")
    assert sorted(path.name for path in (copy / "checkpoints").iterdir()) == ["4", "6"]
    assert_same(parameters(copy), parameters(pretrained))


def test_two_runs_in_one_workdir_of_a_store(tokens, tmp_path, quick):
    url = f"file://{tmp_path}/bucket/run"
    held = Lease(url)
    with contextlib.closing(contextlib.ExitStack()) as stack:
        stack.callback(held.release)
        outcome = train(tokens, url)
    assert outcome.status == 2
    assert "another process is training in" in outcome.said[-1]
    assert not (tmp_path / "bucket" / "run" / "config.json").exists()


def test_prepare_writes_to_a_store_when_all_is_done(tmp_path, store):
    (tmp_path / "book.txt").write_text("the cat sat on the mat. " * 400)
    words = ["--input", str(tmp_path / "book.txt"), "--vocab_size=300", "--workers=1"]
    for output in ("memory://bucket/tokens", str(tmp_path / "tokens")):
        assert runs.verb("prepare", f"--output={output}", *words).status == 0
    for path in (tmp_path / "tokens").rglob("*"):
        if path.is_file():
            name = path.relative_to(tmp_path / "tokens").as_posix()
            assert store.cat(f"/bucket/tokens/{name}") == path.read_bytes()
    again = runs.verb("prepare", "--output=memory://bucket/tokens", *words)
    assert any("already prepared" in line for line in again.said)
