"""Tasks from TensorFlow Datasets (TFDS), and what each of its sets has of its own:

GLUE          TFDS shuffles the rows, `idx` is their place in the file; the labels of the test
              sets are hidden and stand there as -1, even those of MRPC, which are public
SNLI          -1 where the annotators did not agree; such pairs are left out
RACE          a record is an article with all its questions; answers are letters
Story Cloze   the right ending is 1 or 2, or -1 where the file has no answers; the order of the
              file is lost, and with it the division of the released code
DPRD          a sentence, a pronoun in it, and two candidates
"""

from collections.abc import Callable
from dataclasses import replace

from gpt1_jax.data.official_files import story_cloze_label
from gpt1_jax.data.task_files import pronoun_starts
from gpt1_jax.data.tasks import Example, RawSplit, Row
from gpt1_jax.errors import UserError
from gpt1_jax.text.tfds_records import TfdsSplit

HIDDEN = -1
LETTERS = "ABCD"


class TfdsSplits:
    """The splits of a row's TFDS builders, downloaded when they are not there yet. `data_dir` is
    where TFDS keeps its data, by default its own choice."""

    kind = "tfds"

    def __init__(self, row: Row, data_dir: str | None):
        self.where = "tfds " + " and ".join(row.builders)
        self.splits = tuple(row.splits)
        self._row, self._data_dir = row, data_dir

    def read(self, split: str) -> RawSplit:
        """Raises UserError if TFDS cannot provide the split, or a record is not what it should be.

        The examples are to be counted if there are as many records as TFDS wrote down when it made
        the set. Mocked data are thus exempt: nothing was written.
        """
        source_split = self._row.splits[split]
        where = f"{self.where}, split {source_split}"
        adapt = _plain if self._row.features else ADAPTERS[self._row.builders[0].split("/")[0]]
        examples, countable = [], True
        for builder in self._row.builders:
            source = TfdsSplit(
                builder, source_split, self._data_dir, "give task.path, a folder of JSONL files"
            )
            records = sorted(source.records(), key=lambda record: record.get("idx", 0))
            countable = countable and source.n_written == len(records)
            for example in (made for record in records for made in adapt(record, self._row, where)):
                examples.append(replace(example, line=len(examples) + 1))
        if not examples:
            raise UserError(f"{where}: no examples")
        unclear = frozenset(
            example.line
            for example in examples
            if self._row.pronouns and len(pronoun_starts(*example.texts)) != 1
        )
        return RawSplit(where, examples, unit="row", unclear=unclear, countable=countable)


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
