"""Several processes of one run: how they start, that they are told the same, and what becomes of
the others where one is lost."""

import json
import random
import shlex
import shutil
import signal
import socket
import time

import faults
import jax
import pytest
import runs

from gpt1_jax.disk import WorkdirLock

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="several processes share the devices of a CPU"
)
# Before the update of step 5, in which the others see that one of them does not take part.
STEP_5 = "before gpt1_jax.recipe.sharding:put_batch%5"
LAST = runs.PRETRAINING["steps"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def by_flags(count: int) -> list[dict]:
    """What to add to the start of each of so many processes."""
    shared = [f"--coordinator=localhost:{free_port()}", f"--num_processes={count}"]
    return [{"words": [*shared, f"--process_id={number}"]} for number in range(count)]


def by_slurm(count: int) -> list[dict]:
    """The variables of `srun --ntasks=COUNT`, of which JAX takes a port."""
    shared = {
        "SLURM_JOB_ID": str(random.SystemRandom().randrange(2**12)),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": str(count),
    }
    own = [{"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)} for number in range(count)]
    return [{"variables": {**shared, **one}} for one in own]


def by_open_mpi(count: int) -> list[dict]:
    """The variables of `mpirun -n COUNT`."""
    job = random.SystemRandom().randrange(2**12) * 2**12
    shared = {
        "OMPI_MCA_orte_hnp_uri": f"{job}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": str(count),
    }
    numbers = [str(number) for number in range(count)]
    own = [{"OMPI_COMM_WORLD_RANK": n, "OMPI_COMM_WORLD_LOCAL_RANK": n} for n in numbers]
    return [{"variables": {**shared, **one}} for one in own]


def start(given, workdir, starts, events=None) -> list[faults.Process]:
    """A process for each start. `events`: by its number, what happens to a process: the options of
    faults.start, and under `given` other settings."""
    started = []
    for number, one in enumerate(starts):
        event = {**(events or {}).get(number, {})}
        words = runs.words({**given, "mesh.data": len(starts), **event.pop("given", {})}, workdir)
        words += ["--quiet", *one.get("words", [])]
        options = {"devices": 1, "variables": one.get("variables"), **event}
        started.append(faults.start(words, **options))
    return started


def awaited(processes, seconds: float = 300) -> list[faults.Outcome]:
    outcomes = []
    for process in processes:
        output, errors = process.communicate(seconds)
        outcomes.append(faults.Outcome(process.returncode, output, errors))
    return outcomes


def assert_left(outcome: faults.Outcome) -> None:
    """One line, and 75; no answer. Gloo says on standard output that it is connected."""
    outcome.refused("is lost; the same command continues", status=75)
    assert outcome.errors.count("\n") == 1
    assert "{" not in outcome.output


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_same_job_goes_on_as_one_process(
    tokens, pretrained, tmp_path
):
    """Process 0 is killed, and with it the service of XLA, which has the others abort."""
    asked = {"mesh.data": 2, "log.sample": "the cat"}
    given, workdir = runs.pretraining(tokens, **asked), tmp_path / "run"
    killed, left = awaited(start(given, workdir, by_flags(2), {0: {"at": STEP_5, "do": "kill"}}))
    assert killed.status == -signal.SIGKILL
    assert_left(left)
    commands = [[*runs.words(given, workdir), *one["words"]] for one in by_flags(2)]
    both = [runs.process(command, devices=1) for command in commands]
    ends = [process.communicate(timeout=150) for process in both]
    for process, (_, errors) in zip(both, ends, strict=True):
        assert process.returncode == 0, errors
    runs.assert_close_rows(workdir, pretrained)
    # Process 0 alone tells and writes; what was typed is not what the module finds in sys.argv.
    (answer, progress), (_, silence) = ends
    assert ("resuming after step " in progress, silence) == (True, "")
    assert f"step {LAST}/{LAST} sample: 'the cat" in progress
    result = json.loads((workdir / "result.json").read_text())
    assert json.loads(answer.splitlines()[-1]) == result
    assert (result["step"], result["n_devices"]) == (LAST, 2)
    assert shlex.split(result["command"]) == ["python", "-m", "gpt1_jax", *commands[0]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"given": {"seed": 7}}, "seed = 7, process 0 has 42"),
        pytest.param({"given": {"model.n_layr": 1}}, "model.n_layr", marks=pytest.mark.exhaustive),
        pytest.param({"given": {"data.path": "nowhere"}}, "nowhere", marks=pytest.mark.exhaustive),
        pytest.param(
            {"settings": "import gpt1_jax.runtime.agreement as a; a._code = lambda: {'x.py': 1}"},
            "code of",
            marks=pytest.mark.exhaustive,
        ),
        pytest.param(
            {"settings": "import gpt1_jax.run_files as r; r.PACKAGES = ('jax',)"},
            "version of",
            marks=pytest.mark.exhaustive,
        ),
    ],
)
def test_a_process_that_was_told_something_else_is_named(tokens, tmp_path, change, named):
    """Started as by Slurm, in every process, before the first step."""
    given, workdir = runs.pretraining(tokens), tmp_path / "run"
    for outcome in awaited(start(given, workdir, by_slurm(2), {1: change})):
        outcome.refused(named)
        assert outcome.errors.count("\n") == 1
    assert not workdir.exists()


@pytest.mark.exhaustive
def test_other_data_in_one_process_is_named(tokens, tmp_path):
    """The same settings, another text behind the same name."""
    other = runs.prepare(
        tmp_path / "tokens",
        runs.write_documents(tmp_path / "documents", seed=1),
        vocab=str(tokens / "tokenizer"),
    )
    given = runs.pretraining(tokens)
    events = {1: {"given": {"data.path": str(other)}}}
    for outcome in awaited(start(given, tmp_path / "run", by_flags(2), events)):
        outcome.refused("process 1 has ", "resolved.data")
    assert not (tmp_path / "run").exists()


@pytest.mark.exhaustive
def test_a_second_set_of_processes_is_refused(tokens, tmp_path):
    """In the words of its process 0, which alone asks for the lock."""
    with WorkdirLock(tmp_path / "run"):
        both = start(runs.pretraining(tokens), tmp_path / "run", by_flags(2))
        for outcome in awaited(both):
            outcome.refused("another process is training in")


@pytest.mark.exhaustive
def test_where_checkpoints_are_copied_one_process_is_wanted(tokens, tmp_path):
    caches = {"variables": {"XDG_CACHE_HOME": str(tmp_path)}}
    starts = [{**one, **caches} for one in by_flags(2)]
    both = start(runs.pretraining(tokens), "memory://bucket/run", starts)
    for outcome in awaited(both):
        outcome.refused("memory://bucket/run", "one process alone writes checkpoints there")
        assert outcome.errors.count("\n") == 1


def test_a_verb_that_wants_one_process_says_so(pretrained, monkeypatch):
    (start_of_one, _) = by_slurm(2)
    for name, value in start_of_one["variables"].items():
        monkeypatch.setenv(name, value)
    words = ["evaluate", f"--workdir={pretrained}"]
    assert "Slurm" in runs.refused(words, "evaluate runs in one process")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert runs.verb(*words).status == 0


def test_a_port_that_is_taken_is_one_line(tokens, tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        words = runs.words(runs.pretraining(tokens), tmp_path / "run")
        words += [f"--coordinator=localhost:{port}", "--num_processes=2", "--process_id=0"]
        runs.refused(words, f"port {port}")


@pytest.mark.exhaustive
@pytest.mark.parametrize("verb", ["sample", "score", "predict", "reproduce", "quickstart"])
def test_every_verb_that_wants_one_process_says_so(verb, pretrained, monkeypatch):
    for name, value in by_open_mpi(2)[1]["variables"].items():
        monkeypatch.setenv(name, value)
    flags = {
        "sample": ["--prompt=the"],
        "score": ["--input=none"],
        "predict": ["--input=none", "--output=none"],
        "reproduce": ["--table=4"],
    }.get(verb, [])
    runs.refused([verb, f"--workdir={pretrained}", *flags], verb, "Open MPI")


def test_kubernetes_without_its_package_is_one_line(tokens, tmp_path):
    """Which JAX needs in order to find the other pods."""
    variables = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    words = runs.words(runs.pretraining(tokens), tmp_path / "run")
    outcome = faults.run(words, variables=variables)
    outcome.refused("Kubernetes", "--coordinator")


@pytest.mark.exhaustive
@pytest.mark.parametrize(("starts", "count"), [(by_slurm, 2), (by_open_mpi, 2), (by_flags, 4)])
def test_several_processes_train_as_one(starts, count, tokens, pretrained, tmp_path):
    """And process 0 alone has an answer for standard output that is in the record."""
    for outcome in awaited(start(runs.pretraining(tokens), tmp_path / "run", starts(count))):
        assert outcome.done()["n_devices"] == count
        assert outcome.errors == ""
    runs.assert_close_rows(tmp_path / "run", pretrained)


@pytest.mark.exhaustive
@pytest.mark.parametrize(("first", "then"), [(4, 1), (1, 4), (2, 4)])
def test_a_checkpoint_of_some_processes_is_read_by_others(
    first, then, tokens, pretrained, tmp_path
):
    given, workdir = runs.pretraining(tokens), tmp_path / "run"
    for outcome in awaited(start({**given, "stop_after": 4}, workdir, by_flags(first))):
        assert outcome.done()["step"] == 4
    for outcome in awaited(start(given, workdir, by_flags(then))):
        assert outcome.done()["step"] == LAST
    runs.assert_close_rows(workdir, pretrained)


LONG = {"steps": 100, "eval.every": 50, "checkpoint.every": 10}


@pytest.fixture(scope="module")
def long_runs(tokens, tmp_path_factory):
    """Undisturbed, by the number of processes."""
    made = {}

    def undisturbed(count: int):
        if count not in made:
            made[count] = tmp_path_factory.mktemp("long") / "run"
            given = runs.pretraining(tokens, **LONG)
            for outcome in awaited(start(given, made[count], by_flags(count))):
                outcome.done()
        return made[count]

    return undisturbed


@pytest.mark.exhaustive
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_moments(seed, count, tokens, long_runs, tmp_path, record_property):
    """The others leave within a minute, and the same job goes on to the same parameters; with
    another number of processes, to the same losses but for rounding. How long they took is in what
    `--junitxml=F -o junit_family=xunit1` writes."""
    draw = random.Random(100 * count + seed)
    given, workdir = runs.pretraining(tokens, **LONG), tmp_path / "run"
    who, moment = draw.randrange(count), draw.randrange(12, 90)
    here = tmp_path / "here"
    then = f"open({str(here)!r}, 'w').close(), os.kill(os.getpid(), 9)"
    timer = f"import os, threading; threading.Timer({draw.random() / 5}, lambda: ({then})).start()"
    event = {"at": f"before gpt1_jax.recipe.sharding:put_batch%{moment}", "do": timer}
    started = start(given, workdir, by_flags(count), {who: event})
    outcomes = awaited(started)
    seconds = time.time() - here.stat().st_mtime
    assert outcomes.pop(who).status == -signal.SIGKILL
    for outcome in outcomes:
        assert_left(outcome)
    assert seconds < 60
    record_property("seconds", round(seconds, 1))
    again = shutil.copytree(workdir, tmp_path / "again")
    for outcome in awaited(start(given, workdir, by_flags(count))):
        outcome.done()
    runs.assert_same_run(workdir, long_runs(count), LONG["steps"])
    for outcome in awaited(start(given, again, by_flags(6 - count))):
        outcome.done()
    runs.assert_close_rows(again, long_runs(count))


@pytest.mark.exhaustive
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize(
    "at",
    [
        "before gpt1_jax.training.train:update_function",
        "before gpt1_jax.training.actions:Actions.evaluate",
        "before gpt1_jax.training.actions:Actions.save",
        "after gpt1_jax.training.actions:Actions.save",
        "before gpt1_jax.weights.checkpoint:Checkpoints.wait",
    ],
)
@pytest.mark.parametrize(
    "how", ["kill", "import os; os.kill(os.getpid(), 19)"], ids=["killed", "stopped"]
)
def test_lost_at_every_moment(at, who, how, tokens, pretrained, tmp_path):
    """Killed, or stopped so that it falls silent with its connections open."""
    given, workdir = runs.pretraining(tokens), tmp_path / "run"
    both = start(given, workdir, by_flags(2), {who: {"at": at, "do": how}})
    began = time.monotonic()
    (left,) = awaited([both[1 - who]], seconds=100)
    assert_left(left)
    assert time.monotonic() - began < 90
    if both[who].poll() is None:
        both[who].kill()
    awaited([both[who]])
    assert runs.verb(*runs.words(given, workdir), "--quiet").status == 0
    runs.assert_close_rows(workdir, pretrained)


NAN = """
import gpt1_jax.data.batches as b
sound = b.Windows.batch
def batch(self, step, rows=None):
    made = sound(self, step, rows)
    if step == 3:
        made["weights"] = made["weights"] * float("nan")
    return made
b.Windows.batch = batch
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize("skips", [False, True])
def test_a_loss_that_is_not_finite_in_one_process(skips, tokens, tmp_path):
    given = runs.pretraining(tokens, **{"optimizer.skip_nonfinite": skips})
    both = start(given, tmp_path / "run", by_flags(2), {1: {"settings": NAN}})
    for outcome in awaited(both):
        if skips:
            assert outcome.done()["skipped"] == 1
        else:
            outcome.refused("loss nan", "at step 4", "step 2")


@pytest.mark.exhaustive
def test_what_one_process_cannot_do_ends_the_others(tokens, tmp_path):
    """Its own mistake or bug it says itself."""
    for do, status, said in (
        ("from gpt1_jax.errors import UserError; raise UserError('full')", 2, "gpt1: full"),
        ("raise TypeError('a bug')", 1, "TypeError: a bug"),
    ):
        event = {"at": "before gpt1_jax.training.actions:Actions.evaluate", "do": do}
        both = start(runs.pretraining(tokens), tmp_path / str(status), by_flags(2), {0: event})
        failed, left = awaited(both)
        assert failed.status == status
        assert failed.errors.splitlines()[-1] == said
        assert_left(left)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to", [(0,), (1,), (0, 1)])
def test_a_signal_stops_all_at_the_same_step(to, number, tokens, tmp_path):
    given = runs.pretraining(tokens, **{"steps": 20_000, "checkpoint.every": 50})
    workdir = tmp_path / "run"
    both = start(given, workdir, by_flags(2))
    while not (workdir / "checkpoints" / "50").exists():
        assert [process.poll() for process in both] == [None, None]
        time.sleep(0.1)
    for one in to:
        both[one].send_signal(number)
    lines = [outcome.refused("is saved in", status=75) for outcome in awaited(both)]
    assert len(set(lines)) == 1


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("at", "do"),
    [
        ("before gpt1_jax.training.train:update_function", "term"),
        ("before gpt1_jax.training.actions:Actions.evaluate", "term"),
        ("before gpt1_jax.training.actions:Actions.evaluate", "int"),
        ("before gpt1_jax.training.actions:Actions.save", "term"),
        ("after gpt1_jax.training.actions:Actions.save", "int"),
    ],
)
def test_a_signal_to_one_while_it_compiles_evaluates_or_saves(at, do, tokens, long_runs, tmp_path):
    given, workdir = runs.pretraining(tokens, **LONG), tmp_path / "run"
    both = awaited(start(given, workdir, by_flags(2), {1: {"at": at, "do": do}}))
    lines = {outcome.refused("is saved in", status=75) for outcome in both}
    assert len(lines) == 1
    for outcome in awaited(start(given, workdir, by_flags(2))):
        outcome.done()
    runs.assert_same_run(workdir, long_runs(2), LONG["steps"])


@pytest.mark.exhaustive
def test_a_second_signal_to_one_of_several(tokens, tmp_path):
    """It leaves at once, and the others lose it."""
    twice = "import os, time; os.kill(os.getpid(), 2); time.sleep(0.6); os.kill(os.getpid(), 2)"
    event = {"at": "before gpt1_jax.training.actions:Actions.save", "do": f"{twice}; time.sleep(9)"}
    left, stopped = awaited(
        start(runs.pretraining(tokens), tmp_path / "run", by_flags(2), {1: event})
    )
    assert stopped.status == 130
    assert_left(left)
