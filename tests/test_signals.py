"""Signals, real ones, at named moments of real processes: what is left, and what is said."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pytest
import runs

from gpt1_jax import signals

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


def send(*numbers: int, pause: float = 0.3) -> str:
    """A statement that sends these signals, then hangs: what a library does that swallows every
    exception, or that waits in C code."""
    kills = f"; time.sleep({pause}); ".join(f"os.kill(os.getpid(), {n})" for n in map(int, numbers))
    return f"import os, time; {kills}; time.sleep(100)"


def stopped(words, at: str, number: int, here: Path) -> None:
    """The verb ends soon after the signal, with one line. `here` is a file for the moment."""
    outcome = faults.run(words, at=at, do=f"open({str(here)!r}, 'w').close(); {send(number)}")
    # Two seconds are promised, where the processors have time for it; else it hangs for 100.
    assert time.time() - here.stat().st_mtime < 50
    here.unlink()
    outcome.refused(f"stopped by {signal.Signals(number).name}", status=128 + number)
    assert outcome.output == ""


@pytest.fixture
def rows(tmp_path):
    return runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": "sun on the mat"}])


def prepare(tmp_path, *flags) -> list[str]:
    texts = runs.write_documents(tmp_path / "texts", count=3, n_words=300)
    words = ["prepare", f"--output={tmp_path / 'out'}", "--input", texts]
    return [*words, "--vocab_size=300", "--workers=1", *flags]


def train(tokens, workdir, **changes) -> list[str]:
    return [*runs.words(runs.pretraining(tokens, **changes), workdir), "--quiet"]


def at_any_time(seconds: float, number: int) -> None:
    """A signal so long after the start: by Python's own handling where it has not loaded the
    package yet, else a clean end."""
    with runs.process(["sample", "--workdir=none", "--prompt=the"], devices=1) as process:
        time.sleep(seconds)
        process.send_signal(number)
        output, errors = process.communicate(timeout=300)
    assert output == ""
    if process.returncode == 2:  # it had found its mistake
        return
    if process.returncode == -number:
        assert number != INT or "/gpt1_jax/" not in errors
    elif process.returncode == 1:  # it had not yet begun to look for the package
        assert number == INT
        assert "/gpt1_jax/" not in errors
    else:
        assert process.returncode == 128 + number
        (line,) = errors.splitlines()
        assert "start the same command again" in line


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        pytest.param(0.05, INT, marks=pytest.mark.exhaustive),
        (0.3, TERM),
        pytest.param(1.0, HUP, marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_while_python_imports(seconds, number):
    at_any_time(seconds, number)


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [INT, TERM, HUP])
@pytest.mark.parametrize("attempt", range(20))
def test_a_signal_at_any_time_after_the_start(attempt, number):
    """Each attempt at another one; a failure shows the arguments of `at_any_time`."""
    at_any_time(random.SystemRandom().uniform(0, 3), number)


def test_prepare_that_is_stopped_goes_on(tmp_path):
    words = prepare(tmp_path)
    stopped(words, "tokenizer/tokenizer.json", INT, tmp_path / "here")
    assert (tmp_path / "out" / "unfinished" / "tokenizer").is_dir()
    assert not list(tmp_path.rglob(".lock"))
    assert runs.verb(*words).result["splits"]


def test_a_closed_terminal_and_its_processes(tmp_path):
    """Ctrl-C and a hang-up reach the workers too: they say nothing, and end with it."""
    words = prepare(tmp_path, "--workers=2")
    settings = "import gpt1_jax.text.workers as w; w.number = lambda *_: 2"
    here = tmp_path / "here"
    do = f"open({str(here)!r}, 'w'); import time; time.sleep(100)"
    moment = "after gpt1_jax.text.corpus:_learned"
    with faults.start(words, at=moment, do=do, settings=settings, start_new_session=True) as one:
        while not here.exists():
            assert one.poll() is None
            time.sleep(0.05)
        began = time.monotonic()
        os.killpg(one.pid, INT)
        _, errors = one.communicate(timeout=300)
    assert one.returncode == 130
    assert time.monotonic() - began < 50
    assert "stopped by SIGINT" in errors.splitlines()[-1]
    assert errors.count("stopped by") == 1
    assert "Traceback" not in errors


MOMENTS = {
    "train": ("before gpt1_jax.training.train:update_function", TERM),
    "evaluate": ("before gpt1_jax.evaluation.evaluate:stream_losses", HUP),
    "convert": ("before gpt1_jax.weights.openai:write_arrays", INT),
    "sample": ("before gpt1_jax.evaluation.sample:generate", TERM),
    "score": ("before gpt1_jax.inference.log_probabilities:log_probabilities", INT),
}


def _words(verb, tokens, pretrained, tmp_path) -> list[str]:
    if verb == "train":
        return train(tokens, tmp_path / "run")
    source = f"--from={pretrained}" if verb == "convert" else f"--workdir={pretrained}"
    (tmp_path / "text.txt").write_text("the cat")
    flags = {
        "convert": [f"--to=openai:{tmp_path / 'deep' / 'made'}"],
        "sample": ["--prompt=the"],
        "score": [f"--input={tmp_path / 'text.txt'}", f"--output={tmp_path / 'out.jsonl'}"],
    }
    return [verb, source, *flags.get(verb, [])]


@pytest.mark.parametrize("verb", ["train", "evaluate", "convert"])
def test_a_verb_that_is_stopped_leaves_nothing(verb, tokens, pretrained, tmp_path):
    words = _words(verb, tokens, pretrained, tmp_path)
    before = runs.snapshot(tmp_path)
    stopped(words, *MOMENTS[verb], tmp_path / "here")
    if verb != "train":
        assert runs.snapshot(tmp_path) == before
        assert not (tmp_path / "deep").exists()
    else:
        assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", [INT, TERM, HUP])
@pytest.mark.parametrize("verb", MOMENTS)
def test_every_verb_by_every_signal(verb, number, tokens, pretrained, tmp_path):
    words = _words(verb, tokens, pretrained, tmp_path)
    stopped(words, MOMENTS[verb][0], number, tmp_path / "here")
    assert not list(tmp_path.rglob(".gpt1-*"))
    assert runs.verb(*words).status == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("verb", ["quickstart", "reproduce"])
def test_experiments_that_are_stopped(verb, tmp_path):
    words, moment = {
        "quickstart": (["quickstart", "--minutes=1"], "text.documentation:documents"),
        # What comes next needs a network.
        "reproduce": (
            ["reproduce", "--table=4", "--scale=small"],
            "experiments.requirements:_require_tfds",
        ),
    }[verb]
    moment = f"before gpt1_jax.{moment}"
    stopped([*words, f"--workdir={tmp_path / 'work'}"], moment, INT, tmp_path / "here")


def test_a_signal_while_another_module_is_half_loaded(tmp_path):
    """The one whose bars its line has to stand above."""
    half = "import sys, types; sys.modules['tqdm'] = types.ModuleType('tqdm')"
    moment = "before gpt1_jax.__main__:requested"
    words = ["sample", "--workdir=none", "--prompt=the"]
    outcome = faults.run(words, at=moment, do=f"{half}; {send(TERM)}")
    assert outcome.refused("stopped by SIGTERM", status=143)
    assert len(outcome.errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("ending", "number"),
    [
        ("mistake", TERM),
        pytest.param("done", INT, marks=pytest.mark.exhaustive),
        pytest.param("unwritable", HUP, marks=pytest.mark.exhaustive),
    ],
)
def test_a_signal_after_the_last_word(ending, number, pretrained, tmp_path):
    """What was said stands, and so does the exit status; a second signal need not wait."""
    (tmp_path / "text.txt").write_text("the cat")
    scored = ["score", f"--workdir={pretrained}", f"--input={tmp_path / 'text.txt'}"]
    words, status, last = {
        "mistake": (["sample", "--workdir=none", "--prompt=the"], 2, "none is no workdir"),
        "done": ([*scored, f"--output={tmp_path / 'scores.jsonl'}"], 0, "windows of"),
        "unwritable": ([*scored, "--output=/dev/full"], 2, "/dev/full cannot be written"),
    }[ending]
    moment = "before gpt1_jax.runtime.processes:leave"
    signalled = f"import os, time; os.kill(os.getpid(), {int(number)}); time.sleep(0.5)"
    once = faults.run(words, at=moment, do=signalled)
    assert once.status == status
    assert last in once.errors.splitlines()[-1]
    assert bool(once.output) == (status == 0)
    other = TERM if number == INT else INT
    assert faults.run(words, at=moment, do=f"{signalled}; {send(other)}").status == 130


SAVING = "before gpt1_jax.training.actions:Actions.save"


@pytest.mark.parametrize(
    ("at", "numbers"),
    [
        # Of a terminal that is closed: by the shell, and by the kernel when the shell ends.
        (f"{SAVING}%2", [HUP, HUP]),
        # By `timeout`: to its child, and to the group that the child is in.
        pytest.param(f"{SAVING}%2", [TERM, TERM], marks=pytest.mark.exhaustive),
        # After the last update. One TERM is test_resume.py's.
        pytest.param("before result.json", [INT], marks=pytest.mark.slow),
        pytest.param(f"{SAVING}%1", [INT], marks=pytest.mark.exhaustive),
        pytest.param(
            "before gpt1_jax.training.actions:Actions.evaluate%2",
            [TERM],
            marks=pytest.mark.exhaustive,
        ),
        pytest.param("before result.json", [TERM], marks=pytest.mark.exhaustive),
    ],
)
def test_a_training_that_has_begun_saves(at, numbers, tokens, pretrained, tmp_path):
    words = train(tokens, tmp_path / "run")
    kills = "; ".join(f"os.kill(os.getpid(), {int(number)})" for number in numbers)
    outcome = faults.run(words, at=at, do=f"import os; {kills}")
    outcome.refused("saved", status=75)
    assert outcome.output == ""
    assert runs.verb(*words).result["step"] == 6
    runs.assert_same_run(tmp_path / "run", pretrained, 6)


@pytest.mark.slow
def test_a_second_signal_leaves_at_once(tokens, pretrained, tmp_path):
    words = train(tokens, tmp_path / "run")
    outcome = faults.run(words, at=f"{SAVING}%2", do=send(TERM, INT))
    assert outcome.status == signals.AT_ONCE == 130
    assert outcome.errors.count("\n") == 1
    assert "once more leaves at once" in outcome.errors
    assert runs.verb(*words).status == 0
    runs.assert_same_run(tmp_path / "run", pretrained, 6)


@pytest.mark.slow
def test_nohup_is_respected(tokens, tmp_path):
    """What `nohup` does is to ignore the signal. It comes, for certain, while the run trains."""
    ignore = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    kill = f"import os; os.kill(os.getpid(), {int(HUP)})"
    words = train(tokens, tmp_path / "run")
    assert faults.run(words, at=f"{SAVING}%1", do=kill, settings=ignore).done()["step"] == 6


@pytest.mark.exhaustive
def test_nohup_itself_is_respected(tokens, tmp_path):
    words = ["nohup", sys.executable, "-m", "gpt1_jax", *train(tokens, tmp_path / "run", steps=40)]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(words, cwd=runs.ROOT, stdout=nowhere, stderr=nowhere) as process:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(HUP)
        assert process.wait(timeout=300) == 0


def test_handlers_are_as_before(pretrained):
    """Also where a training is a function in a notebook, which has handlers of its own."""
    before = [signal.getsignal(number) for number in signals.NUMBERS]
    assert runs.verb("sample", f"--workdir={pretrained}", "--prompt=the", "--length=2").status == 0
    assert [signal.getsignal(number) for number in signals.NUMBERS] == before
    assert signal.set_wakeup_fd(-1) == -1
