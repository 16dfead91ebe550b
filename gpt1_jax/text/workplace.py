"""The subfolder `unfinished`, in which a folder of shards is made.

It begins with the arguments of the command, and whatever lies in it without them, or under a name
that `prepare` does not give, is somebody else's: it is neither read nor deleted.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpt1_jax import json_files
from gpt1_jax.disk import LOCK, write_json
from gpt1_jax.errors import UserError
from gpt1_jax.text.division import Survey
from gpt1_jax.text.shards import MANIFEST, UNFINISHED, files, read_manifest
from gpt1_jax.tokenization.sentencepiece_bpe import MODEL
from gpt1_jax.tokenization.tokenizer import DESCRIPTION
from gpt1_jax.tokenization.vocabulary import ENCODER, MERGES

ARGUMENTS, SURVEY, JOURNAL = "arguments.json", "survey.json", "journal.json"
UNITS = "units"  # what Beam has done, a file or a folder for each unit and pass
TOKENIZER = "tokenizer"
_OURS = re.compile(
    r"(arguments|survey|journal|manifest)\.json|((train|valid)-\d{5,}|documents-(train|valid))\.npy"
    r"|\.gpt1-[0-9a-f]+\.tmp"
)
_OF_A_UNIT = re.compile(_OURS.pattern + r"|(count|words|encode)-\d{6,}\.json|splits\.json|\.lock")
_OF_TOKENIZER = {DESCRIPTION, MODEL, ENCODER, MERGES}
_REMEDY = "delete the folder and prepare again"


def check_same(folder: Path, theirs: dict, ours: dict) -> None:
    """UserError if a folder was prepared with other arguments."""
    for key in ours:
        if theirs.get(key) != ours[key]:
            raise UserError(
                f"{folder}: prepared with other arguments ({key}: {theirs.get(key)}, now "
                f"{ours[key]}); choose another --output, or delete the folder"
            )


def check_free(output: Path, arguments: dict) -> None:
    """UserError unless there is nothing, or an earlier attempt with the same arguments."""
    folder = output / UNFINISHED
    begun = _begun(folder)
    if os.path.lexists(folder) and not begun and (not folder.is_dir() or _others(folder)):
        raise UserError(f"{folder}: nothing that prepare began; choose another --output")
    ours = {UNFINISHED, LOCK}
    if (folder / MANIFEST).exists() and begun:
        ours |= {*files(read_manifest(folder)), TOKENIZER}
    others = sorted(path.name for path in output.glob("*") if path.name not in ours)
    if others:
        raise UserError(
            f"{output}: holds {others[0]} and no {MANIFEST}; choose an empty or a new folder"
        )
    if begun:
        theirs = json_files.read(folder / ARGUMENTS, dict[str, Any], _REMEDY)
        check_same(output, theirs, arguments)


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """UserError for a text that lies where the folder is made."""
    folder = os.path.realpath(output / UNFINISHED)
    for path in inputs:
        if os.path.realpath(path).startswith(folder + os.sep):
            raise UserError(
                f"{path}: lies in {folder}, where prepare works; move it or choose another --output"
            )


def survey_so_far(output: Path) -> Survey | None:
    """That of an earlier attempt."""
    folder = output / UNFINISHED
    try:
        return json_files.read(folder / SURVEY, Survey, _REMEDY) if _begun(folder) else None
    except FileNotFoundError:
        return None


def begin(output: Path, arguments: dict) -> Path:
    """The folder `unfinished`, with its arguments in it: before anything else, so that nothing
    stands beside the arguments of another attempt."""
    folder = output / UNFINISHED
    folder.mkdir(exist_ok=True)
    write_json(folder / ARGUMENTS, arguments)
    return folder


def keep_survey(folder: Path, survey: Survey) -> None:
    write_json(folder / SURVEY, asdict(survey))


def move_up(output: Path) -> None:
    """Puts what is finished in its place; with the manifest, the last, the folder is valid."""
    folder = output / UNFINISHED
    for name in files(read_manifest(folder)):
        if (folder / name).exists():
            os.replace(folder / name, output / name)
    if (folder / TOKENIZER).exists():
        os.replace(folder / TOKENIZER, output / TOKENIZER)
    os.replace(folder / MANIFEST, output / MANIFEST)
    clear(output)


def clear(output: Path) -> None:
    """Deletes what `prepare` left in the folder `unfinished`, its arguments last, and the folder if
    nothing else is in it."""
    folder = output / UNFINISHED
    if not _begun(folder):
        return
    _delete(folder / TOKENIZER, _OF_TOKENIZER.__contains__)
    _delete_units(folder / UNITS)
    _delete(folder, lambda name: name != ARGUMENTS and _OURS.fullmatch(name))
    _delete(folder, _OURS.fullmatch)


def _begun(folder: Path) -> bool:
    return not folder.is_symlink() and (folder / ARGUMENTS).is_file()


def _others(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]


def _delete_units(folder: Path) -> None:
    """What is kept of units, and the folder if nothing else is in it."""
    if folder.is_dir() and not folder.is_symlink():
        for inside in folder.iterdir():
            _delete(inside, _OF_A_UNIT.fullmatch)
        _delete(folder, _OF_A_UNIT.fullmatch)


def _delete(folder: Path, is_ours) -> None:
    """The files of a folder that are ours, and the folder if it is empty then."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if is_ours(path.name) and not path.is_dir():
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
