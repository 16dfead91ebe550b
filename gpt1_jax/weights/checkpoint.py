"""Checkpoints: saved in the background, committed atomically, verified before they are believed.

Orbax writes each checkpoint to a temporary folder and renames it when it is whole. Just before
that, every item gets a list of the digests of its files, because Orbax itself restores a flipped
bit as a wrong number without noticing.
"""

import contextlib
import functools
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from gpt1_jax import disk, run_files
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.messages import say
from gpt1_jax.storage import digests, places
from gpt1_jax.storage.retention import CheckpointConfig, Retention
from gpt1_jax.weights.space import check_space, refusal

# The form of a checkpoint, which docs/formats.md describes; those before the number had the first.
FORMAT = 1
_FORMAT, _MADE_BY = "format", "made_by"  # keys of a checkpoint's progress
ITEMS = ("params", "optimizer", "progress")
# Seconds after which a checkpoint whose files go missing is looked at again.
_PAUSES = (0.1, 0.4, 1.5)


class Gone(UserError):
    """A checkpoint that another process deleted while it was read, newer ones having come."""


@dataclass(frozen=True)
class _Keep:
    """`Retention`, as Orbax asks for it."""

    retention: Retention

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.retention.kept(steps)
        return [step in kept for step in steps]


@functools.cache
def _quiet() -> None:
    """Orbax and its threads say much about what they do, and page after page about what goes wrong;
    all of that is raised by `save` or `wait` too, which say it in a line."""
    for name in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(unraisable):
        # Writes that end after their event loop, which a full disk has ended, complain about that.
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def reached(workdir: Path, reads_only: bool = False) -> int | None:
    """The newest step that a run has ever saved, None where there is none.

    Raises UserError where its checkpoints cannot be looked at: what has the name of their folder is
    a file, a folder that nobody may read, a link to a disk that is not there; or where the files
    that tell the step cannot be read. Who `reads_only` is told of a committed.json that is damaged,
    and goes on; who writes is refused then, and where a file has the name of a checkpoint, which
    Orbax would write over.
    """
    place = Path(places.original(workdir) / "checkpoints")
    if _is_here(workdir) and os.path.lexists(place):
        try:
            names = os.listdir(place)
        except OSError as error:
            link = f" is a link to {os.readlink(place)} and" if place.is_symlink() else ""
            raise UserError(
                f"{place}{link} cannot be read: {error.strerror}; expected the folder of "
                "checkpoints that `train` made"
            ) from None
        # What Orbax reads beside the items, which have digests. Who trains here may delete some.
        with contextlib.suppress(FileNotFoundError):
            for path in place.glob("*/*"):
                if path.exists() and not (path.is_file() or path.is_dir()):
                    raise UserError(f"{path} is a pipe or a device, and no file; copy it again")
        for name in names if not reads_only else ():
            if name.isdecimal():
                _require_free(place / name)
    return run_files.reached(workdir, say if reads_only else None)


def _require_free(place: Path) -> None:
    """UserError if what has the name of a checkpoint is none, but a file of somebody's."""
    if os.path.lexists(place) and not place.is_dir():
        raise UserError(f"{place} is no checkpoint, whose name it has; move it away")


def _is_here(workdir: Path) -> bool:
    """Whether the checkpoints are files of this machine."""
    return places.origin(workdir) is None or places.is_alone(workdir)


class Checkpoints:
    """The checkpoints of a run, in workdir/checkpoints."""

    def __init__(
        self,
        workdir: Path | str,
        config: CheckpointConfig | None = None,
        made_by: Mapping[str, Any] | None = None,
    ):
        """With a config the folder can be written to; without, it is only read. `made_by` is kept
        with every checkpoint that is saved (run_files.made_by)."""
        self._workdir = Path(workdir)
        self.folder = places.original(workdir) / "checkpoints"
        self._is_here = _is_here(self._workdir)
        if places.is_alone(workdir) and config is not None and jax.process_count() > 1:
            raise UserError(
                f"{places.shown(self._workdir)}: one process alone writes checkpoints there; "
                "several write to gs:// or to a folder that all of them reach"
            )
        self._retention = Retention(config or CheckpointConfig())
        self._saving: int | None = None
        self._made_by = dict(made_by or {})
        self._failed = False
        _quiet()
        options = ocp.CheckpointManagerOptions(
            create=config is not None,
            read_only=config is None,
            preservation_policy=_Keep(self._retention) if config else None,
            # An interrupted save leaves a temporary folder behind, which nobody will finish.
            cleanup_tmp_directories=config is not None,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._note_committed),
        )
        # Before the checkpoints are listed: one that is committed now would be taken for gone.
        self._reached = reached(self._workdir, reads_only=config is None)
        self._manager = None
        self._place: int | None = None
        if config is not None or self.folder.is_dir():
            self._manager = self._listed(options)
            if options.read_only and self._newest_is_gone(self.steps()):
                # Or it was deleted for one that came while the names were read.
                self._manager.close()
                self._manager = self._listed(options)

        if config is not None and self._is_here and Path(self.folder).is_dir():
            # Held open, so that no other folder can be mistaken for it.
            self._place = os.open(self.folder, os.O_RDONLY)
        self._config = self._workdir / "config.json"
        self._of_a_run = False

    def _listed(self, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
        """Orbax's manager, which looks at every checkpoint as it begins, and gives up where one is
        deleted meanwhile. Who only reads tries again; Gone if that happens each time."""
        handlers = {
            "params": digests.TreeHandler(),
            "optimizer": digests.TreeHandler(),
            "progress": digests.JsonHandler(),
        }
        for pause in (*_PAUSES, None):
            try:
                return ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
            except (FileNotFoundError, NotADirectoryError):
                if not options.read_only:
                    raise
            if pause is not None:
                time.sleep(pause)
        raise Gone(
            f"{self.folder}: checkpoints are deleted as fast as they are listed; start again"
        )

    def _require_there(self) -> None:
        """UserError if the folder is no longer the one that was opened, which Orbax would make anew
        without what else was in the workdir, or if that is gone."""
        if self._place is None:
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            same = os.path.samestat(os.fstat(self._place), os.stat(self.folder))
            if same and (not self._of_a_run or self._config.exists()):
                return
        raise UserError(
            f"{self.folder} was removed while it was written to, and with it what was trained; "
            "the same command begins anew"
        )

    def steps(self) -> list[int]:
        """The steps that have a committed checkpoint, ascending."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def _newest_is_gone(self, steps: list[int]) -> bool:
        """Whether the run has saved a later step than all that are there."""
        return self._reached is not None and self._reached > max(steps, default=-1)

    def spare(self, before: CheckpointConfig, already: Iterable[int] = ()) -> list[int]:
        """Leaves alone what a command with other settings has kept (`Retention.spare`), and returns
        those steps."""
        return self._retention.spare(before, self.steps(), already)

    def save(self, step: int, params: Any, optimizer: Any, progress: dict) -> None:
        """Copies the state off the devices and writes it in the background.

        `progress` is a small JSON object; its "best_step", if any, is spared by retention.
        """
        self._retention.best = progress.get("best_step")
        with self._writing():
            self._of_a_run = self._of_a_run or self._config.exists()
            self._manager.wait_until_finished()
            self._require_there()
            if self._is_here:
                _require_free(Path(self.folder) / str(step))
            check_space(self._workdir, (params, optimizer))
            self._saving = step
            described = progress | {_FORMAT: FORMAT, _MADE_BY: self._made_by}
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=digests.TreeSave(params),
                    optimizer=digests.TreeSave(optimizer),
                    progress=digests.JsonSave(described),
                ),
                force=True,
            )

    def wait(self) -> None:
        """Returns when everything saved is committed; raises what went wrong in the background, a
        full disk and the like as UserError."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager:
            # What went wrong in the background is said once.
            with contextlib.suppress(Exception) if self._failed else self._writing():
                self._manager.close()
        if self._place is not None:
            os.close(self._place)
            self._place = None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._require_there()
            yield
            self._require_there()
        except UserError:
            self._give_up()
            raise
        except Exception as error:
            self._give_up()
            self._require_there()
            refused = refusal(error)
            if places.origin(self._workdir) and not (self._is_here and refused):
                reason = " ".join(str(error).split())[:300]
                raise Interrupted(
                    f"{self.folder}: step {self._saving} was not saved ({reason}); the same "
                    "command goes on from the checkpoint before it"
                ) from None
            if refused is None:
                raise
            where = refused.filename2 or refused.filename or self.folder
            raise UserError(
                f"{where}: {refused.strerror}, so the checkpoint of step {self._saving} was not "
                f"saved; {disk.way_out(refused)}, and the same command goes on from the one before "
                "it"
            ) from None

    def _give_up(self) -> None:
        self._failed = True
        # Writes that had not begun are dropped, of which Python speaks when the process ends.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)

    def _note_committed(self) -> None:
        if jax.process_index() == 0 and self._saving is not None:
            disk.write_json(self._workdir / run_files.COMMITTED, {"step": self._saving})
            places.send(self._workdir)

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files, or None."""
        found = (digests.damage(self.folder / str(step) / item) for item in ITEMS)
        return next(filter(None, found), None)

    def _sound(self, step: int) -> str | None:
        """`damage`. Raises Gone if the checkpoint is no longer there a moment later: a process that
        trains here deletes old ones file by file."""
        for pause in (0, *_PAUSES):
            time.sleep(pause)
            if (damage := self.damage(step)) is None:
                return None
            if not (self.folder / str(step)).exists():
                raise Gone(f"checkpoint {step} was deleted while it was read; start again")
            if "missing" not in damage:
                break
        return damage

    def _misplaced(self, step: int) -> str | None:
        """What is said of a folder that holds another step than its name says, or None."""
        found = self.progress(step).get("step", step)
        return None if found == step else f"it is a copy of checkpoint {found}"

    def newest_sound(self) -> tuple[int | None, list[str]]:
        """The newest step whose files are as they were written (None if there is none), and a line
        about each newer one that is damaged or gone. Raises Gone like `_sound`."""
        steps, complaints = self.steps(), []
        if self._newest_is_gone(steps):
            complaints.append(f"the run reached step {self._reached}, whose checkpoint is gone")
        for step in reversed(steps):
            damage = self._sound(step) or self._misplaced(step)
            if damage is None:
                return step, complaints
            complaints.append(f"checkpoint {step} is damaged: {damage}")
        return None, complaints

    def set_aside_after(self, step: int) -> list[str]:
        """Renames the checkpoints newer than `step`, found damaged, so that their steps can be
        saved again and nothing is deleted, and says where they are now. Every process calls it,
        when it has seen them."""
        multihost_utils.sync_global_devices("damaged checkpoints are seen")
        damaged = [newer for newer in self.steps() if newer > step]
        folder = self.folder.parent / "damaged"
        if jax.process_index() == 0:
            for newer in damaged:
                target = folder / f"{newer}"
                while target.exists():
                    target = target.with_name(target.name + "+")
                with disk.as_user_error(target.parent):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    (self.folder / str(newer)).rename(target)
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()
        return [f"checkpoint {newer} was moved to {folder}" for newer in damaged]

    def restore(self, step: int, params: Any, optimizer: Any) -> tuple[Any, Any, dict]:
        """The state of a step, placed like the abstract trees (ShapeDtypeStruct with shardings).
        UserError like `progress`."""
        progress = self.progress(step)
        arguments = ocp.checkpoint_utils.construct_restore_args
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=digests.TreeRestore(params, restore_args=arguments(params)),
                optimizer=digests.TreeRestore(optimizer, restore_args=arguments(optimizer)),
            ),
        )
        for name in (_FORMAT, _MADE_BY):
            progress.pop(name, None)
        self._retention.best = progress.get("best_step")
        return restored["params"], restored["optimizer"], progress

    def progress(self, step: int) -> dict:
        """The small JSON object saved with a step. UserError for a format that is unknown here."""
        with self._reading(step):
            items = ocp.args.Composite(progress=digests.JsonRestore())
            progress = self._manager.restore(step, args=items)["progress"]
        if progress.get(_FORMAT, 1) > FORMAT:
            raise UserError(
                f"{self.folder / str(step)} has format {progress[_FORMAT]}, and this version of "
                f"gpt1 reads up to {FORMAT}; use a newer one"
            )
        return progress

    def require_made_by(self, step: int, expected: Mapping[str, Any]) -> None:
        """UserError if a checkpoint was saved by another model than the config.json beside it
        describes, so that its parameters would mean something else."""
        for key, value in self.progress(step).get(_MADE_BY, {}).items():
            if expected.get(key) != value:
                raise UserError(
                    f"{self.folder.parent / 'config.json'} says {key} is {expected.get(key)!r}, "
                    f"checkpoint {step} was made with {value!r}; copy the config.json of the run"
                )

    def load_params(self, step: int) -> dict:
        """The parameters of a step as numpy arrays, after their digests were checked."""
        if damage := self._sound(step) or self._misplaced(step):
            raise UserError(f"checkpoint {step} is damaged: {damage}; choose another --step")
        self.progress(step)
        return self._params(step)

    def newest_params(self) -> tuple[int, dict]:
        """The best step of a fine-tuned run, else the newest, and its parameters. What is damaged
        is said, with what is used instead. Raises Gone like `_sound`."""
        newest, complaints = self.newest_sound()
        if newest is None:
            why = f": {complaints[0]}" if complaints else ""
            raise UserError(f"{self.folder.parent} has no usable checkpoint{why}")
        step = newest
        best = self.progress(newest).get("best_step")
        if best not in (None, newest):
            damage = self._sound(best) if best in self.steps() else "it is not there"
            if damage is None:
                step = best
            else:
                complaints.append(f"the best checkpoint, {best}, is damaged: {damage}")
        params = self._params(step)
        for complaint in complaints:
            say(f"{complaint}; checkpoint {step} is used instead")
        return step, params

    def _params(self, step: int) -> dict:
        with self._reading(step):
            metadata = self._manager.item_metadata(step)["params"].tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
            items = ocp.args.Composite(params=digests.TreeRestore(restore_args=as_numpy))
            return self._manager.restore(step, args=items)["params"]

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Raises Gone if what goes wrong meanwhile is that the checkpoint is no longer there."""
        try:
            yield
        except Exception:  # whatever Orbax raises where a file is gone
            if self._sound(step) is None:
                raise
            raise Gone(f"checkpoint {step} was deleted while it was read; start again") from None
