"""A workdir that is free, or already this run's own; and a run that goes on for longer."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from gpt1_jax import disk, run_files
from gpt1_jax.errors import UserError
from gpt1_jax.recipe.config_values import flatten
from gpt1_jax.recipe.experiment import Experiment, Extend, identity, stored
from gpt1_jax.storage import places
from gpt1_jax.storage.lease import Lease
from gpt1_jax.storage.retention import CheckpointConfig
from gpt1_jax.text import shards
from gpt1_jax.training.state import NoCheckpoint
from gpt1_jax.weights.checkpoint import Checkpoints

# What an extension changes of a run's identity.
LENGTH = ("steps", "epochs", "resolved.total_steps")
# What changes with the data of a run, whatever was set; and what may change while they stay the
# same: where they lie, and how they are read.
_OF_DATA = ("resolved.tokenizer", "resolved.data")
_READING = (
    *("data.path", "task.path", "task.columns", "task.data_dir", "task.split_seed"),
    "task.ambiguous_pronouns",
)


class AnotherRun(UserError):
    """A workdir holds another run than the one that was asked for, and stays as it is."""


@dataclass(frozen=True)
class Claim:
    """A workdir under its lock and, in an object store, its lease, both of which process 0 holds.
    `before` is the config.json that was there, empty for a new run, and `settings` what it says of
    checkpoints; `extends` whether this run is to have more updates than that one."""

    lock: disk.WorkdirLock | None
    lease: Lease | None
    before: dict[str, Any]
    settings: CheckpointConfig | None
    extends: bool

    def release(self) -> None:
        """Lets another process have the workdir."""
        if self.lease:
            self.lease.release()
        if self.lock:
            self.lock.release()

    def require(self) -> None:
        """Interrupted if another process has the workdir now."""
        if self.lease:
            self.lease.require()

    def require_nothing_saved(self, workdir: Path, last_step: int) -> None:
        """NoCheckpoint where the rows of a run go on after its second save was due, which waits for
        the first to be on the disk: to begin again would wipe the record of what was trained."""
        if self.settings is None:
            return
        path = workdir / "metrics.jsonl"
        newest = max((row["step"] for row in run_files.read_rows(path)), default=0)
        if newest > 2 * self.settings.every:
            raise NoCheckpoint(f"{path} has rows up to step {newest}, and there is none", last_step)

    def extensions(self, extend: Extend | None, after: int, steps: int) -> list[dict[str, Any]]:
        """How often the run was made longer, for config.json: after which update, to how many, and
        how. A run of which no checkpoint is left has nothing to extend."""
        made = self.before.get("resolved", {}).get("extensions", [])
        if not self.extends or after == 0:
            return made
        return [*made, {"after": after, "steps": steps, "schedule": extend}]

    def spare(self, checkpoints: Checkpoints) -> list[int]:
        """Sees to it that no checkpoint is deleted which a command of before kept by its settings
        and this one would not: they are free to change, and what was kept is not theirs. Returns
        the steps of those, for config.json."""
        if self.settings is None:
            return []
        return checkpoints.spare(self.settings, self.before["resolved"].get("spared", ()))


def schedule_begins_after(extensions: list[dict[str, Any]]) -> int:
    """The updates before the schedule of the learning rate: those before the last restart."""
    return max((e["after"] for e in extensions if e["schedule"] == "restart"), default=0)


def claim(workdir: Path, config: dict[str, Any], extend: Extend | None) -> Claim:
    """The workdir, for a run with this config.json. AnotherRun where it holds another."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir={workdir} is a file; expected a folder")
    with contextlib.ExitStack() as refused:
        # First of all: what is decided here would not hold beside another process.
        lock = disk.WorkdirLock(workdir) if jax.process_index() == 0 else None
        if lock:
            refused.callback(lock.release)
        url, lease = places.origin(workdir), None
        if lock and url:
            lease = Lease(url)
            refused.callback(lease.release)
            places.here(url, new=True)  # what the one before has written until then
        before: dict[str, Any] = {}
        settings = None
        extends = False
        if (workdir / "config.json").exists():
            before = run_files.read_config(workdir)
            settings = stored(before, workdir / "config.json").checkpoint
            _check_kind(workdir, before["identity"], config["identity"])
            if _began_alike(workdir, before, config):
                moved = {"initial": config["identity"]["initial"]}
                before = {**before, "identity": before["identity"] | moved}
            _check_data(workdir, before, config)
            extends = _is_longer(workdir, before["identity"], config["identity"], extend)
            _check_same(workdir, before["identity"], config["identity"], extends)
        else:
            _require_no_run(workdir)
        refused.pop_all()
    return Claim(lock, lease, before, settings, extends)


def _check_kind(workdir: Path, before: dict, now: dict) -> None:
    """AnotherRun where one is a language model and the other is fine-tuned on a task."""
    kinds = [
        "fine-tuning" if any(key.startswith("resolved.task.") for key in one) else "pre-training"
        for one in (before, now)
    ]
    if kinds[0] != kinds[1]:
        raise AnotherRun(
            f"{workdir} holds the {kinds[0]} of a model, and this is {kinds[1]}; choose another "
            "--workdir"
        )


def _began_alike(workdir: Path, before: dict, config: dict) -> bool:
    """Whether both begin with the same weights, wherever these lie now. AnotherRun where both say
    which, and they lie elsewhere now and are others."""
    old, new = (one["resolved"].get("initial") for one in (before, config))
    if old is None or new is None:
        return False
    if old != new and before.get("initial") != config["initial"]:
        raise AnotherRun(
            f"{workdir} holds a run that began with the weights {old[:12]} of "
            f"{before.get('initial')}, those of {config['initial']} are {new[:12]}; choose another "
            "--workdir, or the weights that it began with"
        )
    return old == new


def _check_data(workdir: Path, before: dict, config: dict) -> None:
    """AnotherRun where all is as it was set, and the data are not as they were; it says what is
    known of the difference. Nobody sets these keys, and the length of a run may follow from them.
    """
    old, new = _with_defaults(before["identity"]), config["identity"]
    differing = {key for key in {**old, **new} if old.get(key) != new.get(key)} - {*LENGTH}
    key = next((key for key in _OF_DATA if key in differing), None)
    if key is None or not all(key.startswith("resolved.") for key in differing):
        return
    task, initial, tokens = config["task"], config["initial"], config["data"]["path"]
    where = (task["path"] or task["name"]) if config["resolved"]["task"] else tokens
    known, digests = before["resolved"].get("digests", {}), config["resolved"]["digests"]
    if key == "resolved.tokenizer":
        where, what = initial or tokens, "the tokenizer is"
    elif changed := [name for name in known if digests.get(name) != known[name]]:
        what = f"{' and '.join(changed)} {'are' if len(changed) > 1 else 'is'}"
    else:
        what = "its content is"
    old, new = flatten(before), flatten(config)
    also = [
        f", {key} was {json.dumps(old.get(key))}" for key in _READING if old.get(key) != new[key]
    ]
    raise AnotherRun(
        f"{workdir} holds a run on other data than {where} has now: {what} not the same"
        f"{''.join(also)}; go on with those data, or choose another --workdir"
    )


def _is_longer(workdir: Path, before: dict, now: dict, extend: Extend | None) -> bool:
    """Whether the run that was begun is to go on for more updates, as it was asked to."""
    if before.get("steps") == 0:
        raise AnotherRun(
            f"{workdir} holds weights that `convert` wrote; choose another --workdir, and start "
            f"from them with --initial={workdir}"
        )
    old, new = before.get("resolved.total_steps"), now["resolved.total_steps"]
    if not isinstance(old, int) or old >= new:
        return False
    if extend is None:
        raise AnotherRun(
            f"{workdir} holds a run of {old} updates, this one has {new}; to go on with it add "
            "--config.extend=stretch (one schedule over all updates) or --config.extend=restart (a "
            "new schedule from here on), or choose another --workdir"
        )
    return True


def _require_no_run(workdir: Path) -> None:
    """UserError for a folder without config.json that holds what only a run could have left."""
    left = [*(workdir / name for name in ("tokenizer", "metrics.jsonl", "result.json"))]
    left += (workdir / "checkpoints").glob("[0-9]*")
    for path in left:
        if path.exists():
            raise UserError(
                f"--workdir={workdir} holds {path.relative_to(workdir)} but no config.json, so it "
                "is not that of a run; copy config.json back, or choose an empty or a new folder"
            )
    shards.require_own(workdir / shards.VERIFIED)


def _check_same(workdir: Path, before: dict, now: dict, extends: bool) -> None:
    # What was set comes before what follows from it.
    keys = sorted(set(before) | set(now), key=lambda key: (key.startswith("resolved."), key))
    before = _with_defaults(before)
    for key in keys:
        if extends and key in LENGTH:
            continue
        if before.get(key) != now.get(key):
            raise AnotherRun(
                f"{workdir} holds a run with {key} = {_short(before.get(key))}, this one has "
                f"{_short(now.get(key))}; choose another --workdir or the same setting"
            )


def _with_defaults(before: dict) -> dict:
    """The identity of a run: a key that is newer than it has the value that stands for what was
    done before."""
    return identity(Experiment(steps=1)) | before


def _short(value: Any) -> str:
    """On which paths differ, is more often their end than their beginning."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:15]}...{text[-40:]}"
