"""Checkpoints: saved in the background, committed atomically, verified before they are believed.

Orbax writes each checkpoint to a temporary folder and renames it when it is whole. Just before
that, every item gets a list of the digests of its files, because Orbax itself restores a flipped
bit as a wrong number without noticing.
"""

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from gpt1_jax.errors import UserError

DIGESTS = "digests.json"
ITEMS = ("params", "optimizer", "progress")


@dataclass(frozen=True)
class CheckpointConfig:
    """Save after every `every` updates; keep the newest `keep`, and besides them the best one.

    `per_decade` checkpoints of each factor of ten in updates are saved and kept as well, evenly on
    a logarithmic axis (`on_grid`): the points of figure 2 (right) of the paper. 0 saves none.
    """

    every: int = 1000
    keep: int = 2
    per_decade: int = 0

    def __post_init__(self):
        for name, least in (("every", 1), ("keep", 1), ("per_decade", 0)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"checkpoint.{name} is {value}; expected at least {least}")


def on_grid(step: int, per_decade: int) -> bool:
    """Whether a step is one of `per_decade` in each factor of ten, rounded to whole steps.

    >>> [step for step in range(1, 101) if on_grid(step, 3)]
    [1, 2, 5, 10, 22, 46, 100]
    """
    if step < 1 or per_decade < 1:
        return False
    nearest = round(math.log10(step) * per_decade)
    return step == round(10 ** (nearest / per_decade))


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, in order, the list of digests aside."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _files(path)
        elif path.name != DIGESTS:
            yield path


class _Digested:
    """Adds the list of digests to an Orbax handler, as the last act before the commit."""

    def finalize(self, directory: epath.Path) -> None:
        super().finalize(directory)
        if jax.process_index() == 0:
            digests = {str(p.relative_to(directory)): _digest(p) for p in _files(directory)}
            (directory / DIGESTS).write_text(json.dumps(digests, indent=1))


class _TreeHandler(_Digested, ocp.PyTreeCheckpointHandler):
    pass


class _JsonHandler(_Digested, ocp.JsonCheckpointHandler):
    pass


# Orbax finds a handler by the type of the arguments, so each handler has types of its own.
@ocp.args.register_with_handler(_TreeHandler, for_save=True)
@dataclass
class _TreeSave(ocp.args.PyTreeSave):
    pass


@ocp.args.register_with_handler(_TreeHandler, for_restore=True)
@dataclass
class _TreeRestore(ocp.args.PyTreeRestore):
    pass


@ocp.args.register_with_handler(_JsonHandler, for_save=True)
@dataclass
class _JsonSave(ocp.args.JsonSave):
    pass


@ocp.args.register_with_handler(_JsonHandler, for_restore=True)
@dataclass
class _JsonRestore(ocp.args.JsonRestore):
    pass


@dataclass(frozen=True)
class _Keep:
    """Which checkpoints stay: the newest, the best step so far, and those of the grid."""

    config: CheckpointConfig
    best: dict

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        old = len(checkpoints) - self.config.keep
        return [
            i >= old or c.step == self.best["step"] or on_grid(c.step, self.config.per_decade)
            for i, c in enumerate(checkpoints)
        ]


class Checkpoints:
    """The checkpoints of a run, in workdir/checkpoints."""

    def __init__(self, workdir: Path | str, config: CheckpointConfig | None = None):
        """With a config the folder can be written to; without, it is only read."""
        self.folder = epath.Path(workdir).resolve() / "checkpoints"
        self._best = {"step": None}
        # Orbax warns and informs on the root logger's level of absl; its news is not the user's.
        logging.getLogger("absl").setLevel(logging.ERROR)
        options = ocp.CheckpointManagerOptions(
            create=config is not None,
            read_only=config is None,
            preservation_policy=_Keep(config, self._best) if config else None,
            # An interrupted save leaves a temporary folder behind, which nobody will finish.
            cleanup_tmp_directories=config is not None,
        )
        self._manager = None
        if config is not None or self.folder.is_dir():
            self._manager = ocp.CheckpointManager(
                self.folder,
                options=options,
                item_handlers={
                    "params": _TreeHandler(),
                    "optimizer": _TreeHandler(),
                    "progress": _JsonHandler(),
                },
            )

    def steps(self) -> list[int]:
        """The steps that have a committed checkpoint, ascending."""
        return sorted(self._manager.all_steps()) if self._manager else []

    def save(self, step: int, params: Any, optimizer: Any, progress: dict) -> None:
        """Copies the state off the devices and writes it in the background.

        `progress` is a small JSON object; its "best_step", if any, is spared by retention.
        """
        self._best["step"] = progress.get("best_step")
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=_TreeSave(params),
                optimizer=_TreeSave(optimizer),
                progress=_JsonSave(progress),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything saved is committed; raises what went wrong in the background."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        if self._manager:
            self._manager.close()

    def damage(self, step: int) -> str | None:
        """What is wrong with a checkpoint's files, or None."""
        for item in ITEMS:
            folder = self.folder / str(step) / item
            try:
                expected = json.loads((folder / DIGESTS).read_text())
            except (OSError, ValueError) as error:
                return f"{folder / DIGESTS} cannot be read ({type(error).__name__})"
            found = {str(p.relative_to(folder)): p for p in _files(folder)}
            if missing := sorted(set(expected) - set(found)):
                return f"{folder / missing[0]} is missing"
            for name, digest in expected.items():
                if _digest(found[name]) != digest:
                    return f"{found[name]} does not have the digest it was written with"
        return None

    def newest_sound(self) -> tuple[int | None, list[str]]:
        """The newest step whose files are as they were written (None if there is none), and a line
        about each newer one that is damaged."""
        complaints = []
        for step in reversed(self.steps()):
            damage = self.damage(step)
            if damage is None:
                return step, complaints
            complaints.append(f"checkpoint {step} is damaged: {damage}")
        return None, complaints

    def set_aside_after(self, step: int | None) -> None:
        """Renames the checkpoints newer than `step`, found damaged, so that their steps can be
        saved again and nothing is deleted. Every process calls it, when it has seen them."""
        multihost_utils.sync_global_devices("damaged checkpoints are seen")
        if jax.process_index() == 0:
            for newer in [s for s in self.steps() if step is None or s > step]:
                target = self.folder.parent / "damaged" / f"{newer}"
                while target.exists():
                    target = target.with_name(target.name + "+")
                target.parent.mkdir(exist_ok=True)
                (self.folder / str(newer)).rename(target)
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    def restore(self, step: int, params: Any, optimizer: Any) -> tuple[Any, Any, dict]:
        """The state of a step, placed like the abstract trees (ShapeDtypeStruct with shardings)."""
        arguments = ocp.checkpoint_utils.construct_restore_args
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                params=_TreeRestore(params, restore_args=arguments(params)),
                optimizer=_TreeRestore(optimizer, restore_args=arguments(optimizer)),
                progress=_JsonRestore(),
            ),
        )
        self._best["step"] = restored["progress"].get("best_step")
        return restored["params"], restored["optimizer"], restored["progress"]

    def progress(self, step: int) -> dict:
        """The small JSON object saved with a step."""
        restored = self._manager.restore(step, args=ocp.args.Composite(progress=_JsonRestore()))
        return restored["progress"]

    def load_params(self, step: int) -> dict:
        """The parameters of a step as numpy arrays, after their digests were checked."""
        if damage := self.damage(step):
            raise UserError(f"checkpoint {step} is damaged: {damage}; choose another --step")
        metadata = self._manager.item_metadata(step)["params"].tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(params=_TreeRestore(restore_args=as_numpy)),
        )
        return restored["params"]


def check_space(workdir: Path, state: Any) -> None:
    """UserError unless the disk has room for one more checkpoint of `state` (arrays or shapes)."""
    needed = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    # Another process may not have made the folder yet.
    made = next(folder for folder in (workdir, *workdir.absolute().parents) if folder.exists())
    free = shutil.disk_usage(made).free
    if free < needed:
        raise UserError(
            f"{workdir} has {free / 1e9:.2f} GB free, one checkpoint takes {needed / 1e9:.2f} GB; "
            "free some space or choose another --workdir"
        )
