"""Tasks from TensorFlow Datasets (TFDS), and what each of its sets has of its own:

GLUE          TFDS shuffles the rows, `idx` is their place in the file; the labels of the test
              sets are hidden and stand there as -1, even those of MRPC, which are public
SNLI          -1 where the annotators did not agree; such pairs are left out
RACE          a record is an article with all its questions; answers are letters
Story Cloze   the right ending is 1 or 2, or -1 where the file has no answers; the order of the
              file is lost, and with it the division of the released code
DPRD          a sentence, a pronoun in it, and two candidates
"""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from gpt1_jax.data.task_files import pronoun_starts, story_cloze_label
from gpt1_jax.data.tasks import Example, Part, Row
from gpt1_jax.errors import UserError

HIDDEN = -1
LETTERS = "ABCD"


class TfdsSets:
    """The splits of a row's TFDS builders, downloaded when they are not there yet. `data_dir` is
    where TFDS keeps its data, by default its own choice."""

    kind = "tfds"

    def __init__(self, row: Row, data_dir: str | None):
        self.where = "tfds " + " and ".join(row.builders)
        self.splits = tuple(row.splits)
        self._row, self._data_dir = row, data_dir

    def read(self, split: str) -> Part:
        """Raises UserError if TFDS cannot provide the split, or a record is not what it should be.

        The examples are to be counted if there are as many records as TFDS wrote down when it made
        the set. Mocked data are thus exempt: nothing was written.
        """
        source_split = self._row.splits[split]
        where = f"{self.where}, split {source_split}"
        adapt = _plain if self._row.features else ADAPTERS[self._row.builders[0].split("/")[0]]
        examples, unlabelled, countable = [], 0, True
        for builder in self._row.builders:
            records, n_written = tfds_records(builder, source_split, self._data_dir)
            countable = countable and n_written == len(records)
            for example in (made for record in records for made in adapt(record, self._row, where)):
                if example.label is None and self._row.name == "snli":
                    unlabelled += 1
                    continue
                examples.append(replace(example, line=len(examples) + 1))
        if not examples:
            raise UserError(f"{where}: no examples")
        unclear = frozenset(
            example.line
            for example in examples
            if self._row.pronouns and len(pronoun_starts(*example.texts)) != 1
        )
        return Part(where, examples, "row", unlabelled, unclear, countable)


def is_prepared(name: str, data_dir: str | None) -> bool:
    """Whether TFDS has made this set on this machine; a look at its folder, without TensorFlow."""
    home = data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    return any(Path(home).expanduser().glob(f"{name}/*/dataset_info.json"))


def unreachable() -> str | None:
    """Why TFDS could download nothing from here, in seconds where it takes minutes itself; None if
    it could. It keeps the descriptions of its sets, and some sets, at this address."""
    missing = [name for name in ("tensorflow", "tensorflow_datasets") if not find_spec(name)]
    if missing:
        return f"{' and '.join(missing)} not installed"
    try:
        urllib.request.urlopen("https://storage.googleapis.com/tfds-data", timeout=10).close()
    except urllib.error.HTTPError:
        pass  # an answer, whatever it says
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None


def tfds_records(name: str, split: str, data_dir: str | None) -> tuple[list[dict], int | None]:
    """The records of a split, in the order of `idx` where they have one, and how many TFDS wrote
    when it made the set; None if it did not say.

    Raises UserError if TFDS is not installed or cannot provide the split.
    """
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"tfds {name} needs tensorflow and tensorflow-datasets ({error.name} is missing); "
            "install them, or give task.path, a folder of JSONL files"
        ) from None
    tf.config.set_visible_devices([], "GPU")
    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=data_dir)
        # What TFDS says about it is progress.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare()
        # One file at a time and no shuffling: the order is that of the files.
        reading = tfds.ReadConfig(interleave_cycle_length=1)
        rows = builder.as_dataset(split=split, shuffle_files=False, read_config=reading)
        records = list(tfds.as_numpy(rows))
        written = builder.info.splits
        n_written = written[split].num_examples if split in written else None
    except (Exception, SystemExit) as error:  # whatever its many downloaders and readers raise
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"TFDS cannot provide {name}, split {split} ({reason}); give task.path, a folder of "
            "JSONL files"
        ) from error
    return sorted(records, key=lambda record: record.get("idx", 0)), n_written


def _plain(record: dict, row: Row, where: str) -> list[Example]:
    """A record with a feature for each text, and a class number or score as the label."""
    texts = tuple(record[name].decode() for name in row.features)
    label = record["label"].item()
    if label == HIDDEN:
        label = None
    elif row.labels:
        label = row.labels[label]
    return [Example(texts, (), label, 0)]


def _race(record: dict, row: Row, where: str) -> list[Example]:
    """An example for each question of an article."""
    article, examples = record["article"].decode(), []
    questions, answers = record["questions"].tolist(), record["answers"].tolist()
    for question, options, answer in zip(
        questions, _nested(record["options"]), answers, strict=True
    ):
        letter = answer.decode()
        if letter not in LETTERS or len(options) != len(LETTERS):
            raise UserError(
                f"{where}: {len(options)} options and the answer {letter!r} in "
                f"{record['example_id'].decode()}; expected four, and a letter from A to D"
            )
        choices = tuple(option.decode() for option in options)
        examples.append(Example((article, question.decode()), choices, LETTERS.index(letter), 0))
    return examples


def _nested(options) -> list[list[bytes]]:
    """Lists of lists: TFDS has ragged ones where articles differ in their numbers of questions."""
    return options.to_list() if hasattr(options, "to_list") else [list(row) for row in options]


def _story_cloze(record: dict, row: Row, where: str) -> list[Example]:
    endings = tuple(ending.decode() for ending in record["endings"])
    label = story_cloze_label(record["label"].item(), where)
    return [Example((record["context"].decode(), ""), endings, label, 0)]


def _pronoun(record: dict, row: Row, where: str) -> list[Example]:
    """The first place is the one that TFDS says is meant, where there are several."""
    sentence, pronoun = record["sentence"].decode(), record["pronoun"].decode()
    candidates = tuple(candidate.decode() for candidate in record["candidates"])
    start = next(iter(pronoun_starts(sentence, pronoun)), None)
    return [Example((sentence, pronoun), candidates, record["label"].item(), 0, start)]


ADAPTERS: dict[str, Callable[[dict, Row, str], list[Example]]] = {
    "race": _race,
    "story_cloze": _story_cloze,
    "definite_pronoun_resolution": _pronoun,
}
