"""The small scale of the paper's tables on a GPU that is lent for minutes: what it is set to, and
the tables themselves.

    benchmarks/small_scale.sh pack DATA          where there is a network
    benchmarks/small_scale.sh search [RESULTS]   on the machine with the GPU
    benchmarks/small_scale.sh run [RESULTS]

`search` pre-trains both bodies at several rates, and keeps the one with the least loss on held-out
novels; then it fine-tunes the Transformer's at several rates, epochs and weights of the auxiliary
loss. For that each task is divided anew: a part of what is for training is held out, and the dev
set of the tables is never looked at. search.jsonl has a row for each run.

`run` makes table 5, the figures and the curves by tokens and by labels, by `gpt1 reproduce`, as far
as the time goes. Both bodies are pre-trained at once, and what needs no weights is fine-tuned
meanwhile, which compiles what the other rows share. In RESULTS are then runs.tar.gz, what a report
is made of (config.json, result.json, metrics.jsonl, reproduction.json) of all that has begun, a
few seconds old if the machine is taken away; and, as soon as they are there, transformer.tar.gz and
lstm.tar.gz, the weights for whoever begins with them. `small_scale.sh unpack RESULTS WORKDIR` lays
all that into a workdir which `gpt1 reproduce --initial=WORKDIR/pretrained/transformer
--initial_lstm=WORKDIR/pretrained/lstm` goes on with anywhere. Environment:

    LIMIT     seconds after which nothing more is begun, and what runs is stopped; by default 420.
              Stopping takes up to half a minute more
    AT_ONCE   runs at a time, by default 10
    SEEDS     of `run`, by default 0,1,2
    STEPS     updates of pre-training in a search, by default 2000
    SIZES     keys of pre-training, as in "model.n_layer=6 model.n_embd=256"
    KEYS      of `run`, for what is trained of the Transformer alone. "model.scan_layers=true
              attention.implementation=plain" has a GPU's programs compiled in a quarter of the time
    LSTM_KEYS the same for the LSTM
    TASKS     which, by default all that are carried
    TINY      any value: tiny sizes, to see that all of it works
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BEGAN = time.monotonic()
LIMIT = float(os.environ.get("LIMIT", "420"))
AT_ONCE = int(os.environ.get("AT_ONCE", "10"))
WORK = Path(os.environ.get("WORK", "runs/small_scale"))
CARRIED = WORK / "carried"
TINY = "TINY" in os.environ
HELD_OUT = 1000  # examples at most, of each task's train
BODIES = {"transformer": "configs/pretrain.py:small", "lstm": "configs/pretrain.py:small,lstm"}
GIVEN = {"transformer": "--initial", "lstm": "--initial_lstm"}
RATES = ("5e-4", "1e-3", "2e-3", "4e-3")
FINE_TUNED = ("sst2", "cola", "snli_small", "mrpc")
RECIPES = list(itertools.product(("3e-4", "1e-3"), ("3", "6"), ("0.0", "0.5")))
TINY_SIZES = "steps=2 batch_size=4 model.n_layer=1 model.n_embd=16 model.n_head=2 model.n_ctx=32"
REPORTED = ("config.json", "result.json", "metrics.jsonl", "reproduction.json")
KEPT = Path(__file__).parents[1] / "results" / "study" / "reproduction.json"
# What `run` makes of the pre-trained bodies, in this order, but for what waits for one.
STAGES = {
    "--table=5 --variants=full,no_pretraining,no_aux_lm": ("transformer",),
    "--table=5 --variants=lstm": ("lstm",),
    "--figure=2right": tuple(BODIES),
    "--figure=2left": ("transformer",),
    "--figure=tokens": ("transformer",),
    "--figure=labels": ("transformer",),
}
FEWER = {
    "--figure=2right": ("sst2", "cola", "dprd"),
    "--figure=2left": ("sst2", "snli_small"),
    "--figure=tokens": ("sst2", "snli_small"),
    "--figure=labels": ("sst2", "cola", "snli_small"),
}


def main(what: str, results: Path) -> int:
    if what == "search":
        return search(results / "search.jsonl")
    return run(results)


def divide(tasks: Path, output: Path) -> None:
    """Each task with a part of its train as dev, and without its own dev."""
    from gpt1_jax.files.text_lines import text_lines

    for folder in sorted(tasks.iterdir()):
        (path,) = folder.glob("train.jsonl*")
        lines = [line.rstrip("\n") for _, line in text_lines(path)]
        held_out = min(HELD_OUT, len(lines) // 5)
        for split, part in (("dev", lines[:held_out]), ("train", lines[held_out:])):
            place = output / folder.name / f"{split}.jsonl"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("".join(f"{line}\n" for line in part))


def search(path: Path) -> int:
    """Pre-training, then fine-tuning of the best Transformer."""
    steps = {"steps": "2" if TINY else os.environ.get("STEPS", "2000"), **_keys("SIZES")}
    jobs = {}
    for (body, config), rate in itertools.product(BODIES.items(), RATES[:2] if TINY else RATES):
        settings = {"data.path": str(CARRIED / "tokens"), "optimizer.learning_rate": rate, **steps}
        jobs[f"{body} {rate}"] = [f"--config={config}", *_flags(settings)]
    rows = _trained(jobs, path)
    losses = {row["name"]: row["result"]["metrics"]["valid"]["loss"] for row in rows}
    best = min((name for name in losses if name.startswith("transformer")), key=losses.__getitem__)
    jobs = {}
    for task, (rate, epochs, lm_coef) in itertools.product(_tasks(FINE_TUNED), RECIPES):
        settings = {"optimizer.learning_rate": rate, "epochs": epochs, "objective.lm_coef": lm_coef}
        settings |= {"initial": str(_folder(best))}
        settings |= {"task.train_examples": "16", "batch_size": "4"} if TINY else {}
        config = f"--config=configs/finetune.py:small,{task},path={CARRIED / 'divided' / task}"
        jobs[f"{task} {rate} {epochs} {lm_coef}"] = [config, *_flags(settings)]
    rows += _trained(jobs, path)
    return 0 if len(rows) == len(BODIES) * len(RATES) + len(jobs) or TINY else 75


def run(results: Path) -> int:
    """The table, the figures and the curves, as far as the time goes."""
    work = WORK / "study"
    work.mkdir(parents=True, exist_ok=True)
    if KEPT.exists() and not (work / KEPT.name).exists():
        # What words alone reach on these tasks, which would take a minute again.
        none = {"seeds": [], "runs": [], "pretraining": {}, "missing": [], "probes": []}
        kept = {**json.loads(KEPT.read_text()), **none, "anchors": {}}
        (work / KEPT.name).write_text(json.dumps(kept))
    pretraining = {body: _begun(_pretraining(body, work)) for body in BODIES}
    first = work / "pretrained" / "transformer"
    while not (first / "committed.json").exists() and pretraining["transformer"].poll() is None:
        _pause()
    waiting = {"--table=5 --variants=no_pretraining": (), **STAGES}
    failed = 0
    while waiting and _left() > 0:
        ended = {body for body, process in pretraining.items() if process.poll() is not None}
        asked = next((each for each, bodies in waiting.items() if ended.issuperset(bodies)), None)
        if asked is None:
            _pause()
            continue
        del waiting[asked]
        process = _begun(_stage(asked, work))
        while _left() > 0 and process.poll() is None:
            _pause()
            pack(work, results)
        failed += _stopped(process) != 0
    failed += sum(_stopped(process) != 0 for process in pretraining.values())
    pack(work, results)
    return 75 if failed or waiting else 0


def _pretraining(body: str, work: Path) -> list[str]:
    keys = _keys("KEYS" if body == "transformer" else "LSTM_KEYS")
    settings = {"data.path": str(CARRIED / "tokens"), **keys}
    words = ["train", f"--config={BODIES[body]}", *_flags(settings), "--quiet"]
    return [*words, f"--workdir={work / 'pretrained' / body}"]


def _stage(asked: str, work: Path) -> list[str]:
    tasks = _tasks(FEWER.get(asked, [each.name for each in (CARRIED / "tasks").iterdir()]))
    words = ["reproduce", *asked.split(), "--scale=small", f"--workdir={work}"]
    words += [f"--workers={AT_ONCE}", f"--tasks={','.join(tasks)}"]
    words += [f"--task_data={CARRIED / 'tasks'}"]
    bodies = STAGES.get(asked) or ("transformer",)
    if asked == "--figure=tokens":
        words += [f"--data={CARRIED / 'tokens'}"]
    else:
        words += [f"{GIVEN[body]}={work / 'pretrained' / body}" for body in bodies]
    words += [f"--seeds={'0' if TINY else os.environ.get('SEEDS', '0,1,2')}"]
    if asked == "--figure=2right":  # which trains nothing
        return words
    keys = _keys("LSTM_KEYS" if "lstm" in bodies else "KEYS")
    if TINY:
        keys["task.train_examples"] = "16"
    return [*words, *_flags(keys)]


def pack(work: Path, results: Path) -> None:
    """Archives of what there is, each in place of the one before when it is whole."""
    # Not looked for below the runs, whose checkpoints come and go.
    places = ("", "pretrained/*/", "finetuned/*/*/")
    found = [path for at in places for name in REPORTED for path in sorted(work.glob(at + name))]
    _archive(results / "runs.tar.gz", work, found)
    for body in BODIES:
        folder, target = work / "pretrained" / body, results / f"{body}.tar.gz"
        if (folder / "result.json").exists() and not target.exists():
            weights = WORK / "weights" / body
            words = ["convert", f"--from={folder}", f"--to=native:{weights}"]
            if _begun(words, JAX_PLATFORMS="cpu").wait() == 0:
                _archive(target, WORK / "weights", [weights])


def _archive(target: Path, work: Path, parts: list[Path]) -> None:
    made = target.with_suffix(".part")
    with tarfile.open(made, "w:gz", compresslevel=6) as archive:
        for path in parts:
            archive.add(path, path.relative_to(work))
    made.replace(target)


def _trained(jobs: dict[str, list[str]], path: Path) -> list[dict]:
    """Rows of the trainings that ended in time, each written as it is there."""

    def train(name: str) -> dict | None:
        words = ["train", *jobs[name], "--quiet", f"--workdir={_folder(name)}"]
        began = time.monotonic()
        if _within_time(words) != 0:
            return None
        result = json.loads((_folder(name) / "result.json").read_text())
        row = {"name": name, "seconds": time.monotonic() - began, "result": result}
        with path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        return row

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [row for row in pool.map(train, jobs) if row]


def _left() -> float:
    return LIMIT - (time.monotonic() - BEGAN)


def _pause() -> None:
    time.sleep(max(0.0, min(5.0, _left())))


def _begun(words: list[str], **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gpt1_jax", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, **environment})


def _stopped(process: subprocess.Popen) -> int:
    """Its exit status; what still runs is told to save and end."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    return process.wait()


def _within_time(words: list[str]) -> int:
    """The exit status of a verb, which is stopped by a signal when the time is over."""
    if _left() < 1:
        return 75
    process = _begun(words)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_left())
    return _stopped(process)


def _folder(name: str) -> Path:
    return WORK / "search" / name.replace(" ", "_")


def _keys(variable: str) -> dict[str, str]:
    given = (TINY_SIZES if TINY else "") + " " + os.environ.get(variable, "")
    return dict(pair.split("=", 1) for pair in given.split())


def _tasks(names: Iterable[str]) -> list[str]:
    chosen = os.environ.get("TASKS", "").split(",")
    return [name for name in sorted(names) if chosen == [""] or name in chosen]


def _flags(settings: dict[str, str]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


if __name__ == "__main__":
    if sys.argv[1] == "divide":
        divide(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main(sys.argv[1], Path(sys.argv[2])))
