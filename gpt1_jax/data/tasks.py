"""The tasks as a table (Radford et al. 2018, table 1, and some more), and what an example is.

A row says what a task is, what its classes are called, and how its data are found: where TensorFlow
Datasets (TFDS) keeps them, and the columns of the files that GLUE hands out. They are read in
task_files.py, official_files.py and tfds_tasks.py, and checked in task_loading.py.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Shape = Literal["classification", "entailment", "similarity", "multiple_choice"]
Metric = Literal["accuracy", "f1", "matthews", "pearson", "spearman"]
Truncation = Literal["longest_first", "context", "halves"]
ScoreLoss = Literal["soft6", "mse"]
"""How a score is learned: as a distribution over the six whole scores (`tasks.score_distribution`),
whose expectation is the prediction; or as one linear output, by the squared error."""

FIELDS: dict[Shape, tuple[str, ...]] = {
    "classification": ("text",),
    "entailment": ("premise", "hypothesis"),
    "similarity": ("text_a", "text_b"),
    "multiple_choice": ("context", "question"),
}
"""The keys of the texts of an example, by shape (Radford et al. 2018, section 3.3)."""

REGRESSION: tuple[Metric, ...] = ("pearson", "spearman")
"""Metrics of tasks whose label is a score, 0 to 5, rather than a class."""

ENTAILMENT = ("entailment", "neutral", "contradiction")
TWO_WAY = ("entailment", "not_entailment")


@dataclass(frozen=True, slots=True)
class Example:
    """One row: the texts of its shape in the order of FIELDS, the choices if it is a multiple
    choice, and the label, None where there is none. A reader gives the label as it is written,
    `load_task` the index of a class or choice, or a float if it is a score. `line` counts the rows
    of a set, or the lines of a file, from 1. `pronoun_start` is where the pronoun stands in the
    context, of a definite pronoun resolution alone."""

    texts: tuple[str, ...]
    choices: tuple[str, ...]
    label: Any
    line: int
    pronoun_start: int | None = None


@dataclass(frozen=True)
class Task:
    """What goes in (`shape`), what is measured (`metric`, which chooses the checkpoint, and
    `further` ones), and how that is cut which does not fit (`truncation`, a rule of
    transformations.py; None: the first rule of the shape); and how a score is learned, where the
    labels are scores."""

    name: str
    shape: Shape | None
    metric: Metric | Literal["loss"]
    further: tuple[Metric, ...] = ()
    truncation: Truncation | None = None
    score_loss: ScoreLoss = "soft6"

    @property
    def has_head(self) -> bool:
        """Whether there is something to answer: all tasks but NO_TASK."""
        return self.shape is not None

    @property
    def regression(self) -> bool:
        """Whether a label is a score rather than a class."""
        return self.metric in REGRESSION

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """All that is measured of answers, the one that chooses first."""
        return () if self.metric == "loss" else (self.metric, *self.further)


NO_TASK = Task(name="language model", shape=None, metric="loss")
"""What a language model has been trained on: the text itself, with no labels and no head."""


@dataclass(frozen=True)
class RawSplit:
    """A split as its source has it, with the labels that are written there.

    where, unit: for messages, as in "dev.jsonl, line 7".
    kind: what the source turned out to be, in words.
    text_labels: whether its labels had to be text, as in CSV, where 1 may be a number or a word.
    unclear: rows (`Example.line`) of which it is not clear where their pronoun stands.
    countable: whether the number of examples should be that of the table.
    notes: what else a person should know.
    """

    where: str
    examples: list[Example]
    unit: str = "line"
    kind: str = ""
    text_labels: bool = False
    unclear: frozenset[int] = frozenset()
    countable: bool = False
    notes: tuple[str, ...] = ()

    def place(self, example: Example) -> str:
        return f"{self.where}, {self.unit} {example.line}"


@dataclass(frozen=True)
class Division:
    """How a split of the source becomes train and dev where the source has no dev: a `share` of the
    examples of split `of` is drawn with `seed`; `twins` stay on one side, examples with the same
    choices."""

    of: str
    share: float
    seed: int
    twins: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the table. The first fields are those of a Task.

    title, group: as the paper names the task, and its line of table 1; no group: not in it.
    builders: TFDS names whose examples are read one after the other; none: local files only.
    splits: the source's names of our splits train, dev, test, and of more that some have.
    features: TFDS features of the texts, in the order of FIELDS[shape].
    labels: what the class numbers 0, 1, ... of TFDS and of GLUE's files on the Hub mean, as the
      task's files say it; `words`: the names of the classes where `labels` are numbers too;
      `aliases`: other names that some editions give them.
    positive: the class of interest where there are two, whose F1 is measured.
    columns, label_column: the columns of the texts (and choices) and the label in the files that
      GLUE's server or the Hub hands out, `headerless` all of them where such a file has no header;
      `files`: the names of its splits where they are not ours.
    counts: by source ("tfds", or "official" for files in the form in which the authors hand them
      out), the examples of each split, those without a gold label left out.
    choices: of each example of a multiple choice.
    pronouns: whether the question of each example is a pronoun that stands in the context.
    glue: the file names of the GLUE server by split; `glue_numbers`: whether it wants class numbers
      rather than names.
    """

    name: str
    shape: Shape
    metric: Metric
    title: str
    group: str | None = None
    further: tuple[Metric, ...] = ()
    truncation: Truncation | None = None
    builders: tuple[str, ...] = ()
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "dev": "validation", "test": "test"}
    )
    features: tuple[str, ...] = ()
    labels: tuple[str | int, ...] = ()
    words: tuple[str, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    positive: str | int | None = None
    columns: tuple[str, ...] = ()
    label_column: str | None = None
    headerless: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    division: Division | None = None
    choices: int = 2
    pronouns: bool = False
    glue: Mapping[str, str] = field(default_factory=dict)
    glue_numbers: bool = False

    def class_number(self, label: str | int) -> int | None:
        """The number of a class, of its number or name in any of their spellings; None if the task
        has no such class.

            TASKS["rte"].class_number("Not Entailment") == 1
        """
        if isinstance(label, int):
            return label if 0 <= label < len(self.labels) else None
        numbers = {str(number): number for number in range(len(self.labels))} | dict(self.aliases)
        for names in (self.labels, self.words):
            numbers |= {folded(str(name)): number for number, name in enumerate(names)}
        name = folded(label)
        return numbers.get(name, numbers.get(re.sub("[ -]+", "_", name)))


# The tags of Unicode's decompositions (standard annex 44, 5.7.3) that are another shape of the same
# character: full and half width, a letter in another typeface or at another place of its word. What
# says something else (a superscript, a number in a circle, a fraction) is not among them.
_SHAPES = (
    "wide",
    "narrow",
    "font",
    "noBreak",
    "vertical",
    "initial",
    "medial",
    "final",
    "isolated",
)


def folded(name: str) -> str:
    """What is left of a name when it is read as a person reads it, who sees no difference between
    "Good", "good" and "good ", none of width, and no characters of width zero; but one between m2
    and m\N{SUPERSCRIPT TWO}.

    >>> folded(" Not  \N{FULLWIDTH LATIN CAPITAL LETTER G}ood ")
    'not good'
    """
    seen = "".join(_plain(one) for one in name if unicodedata.category(one) != "Cf")
    return " ".join(unicodedata.normalize("NFC", seen).casefold().split())


def _plain(one: str) -> str:
    """A character in its usual shape."""
    tag, _, codes = unicodedata.decomposition(one).partition(" ")
    if tag.strip("<>") not in _SHAPES:
        return one
    return "".join(chr(int(code, 16)) for code in codes.split())


def _counts(train: int, dev: int, test: int) -> dict[str, int]:
    return {"train": train, "dev": dev, "test": test}


def _race(name: str, title: str, levels: tuple[str, ...], counts: dict[str, int]) -> Row:
    """A part of RACE. Counts are of questions, since the articles of the source become as many
    examples as they have questions."""
    return Row(
        name,
        "multiple_choice",
        "accuracy",
        title,
        group="QA" if len(levels) == 2 else None,
        truncation="context",
        builders=tuple(f"race/{level}" for level in levels),
        columns=("article", "question", "options"),
        label_column="answer",
        choices=4,
        splits={"train": "train", "dev": "dev", "test": "test"},
        counts={"tfds": counts},
    )


def _story_cloze(name: str, year: str, counts: dict[str, int]) -> Row:
    """Story Cloze has no training stories with two endings: the released code divides the
    validation file, 1,497 to 374, by this seed, and cuts story and ending alike."""
    return Row(
        name,
        "multiple_choice",
        "accuracy",
        "Story Cloze" if year == "2016" else f"Story Cloze ({year})",
        group="QA" if year == "2016" else None,
        truncation="halves",
        builders=(f"story_cloze/{year}",),
        splits={"validation": "validation", "test": "test"},
        counts={"tfds": counts, "official": counts},
        division=Division("validation", share=374 / 1871, seed=3535999445),
    )


_ROWS = (
    # Natural language inference. Counts are those of the TFDS catalogue.
    Row(
        "snli",
        "entailment",
        "accuracy",
        "SNLI",
        group="NLI",
        builders=("snli",),
        features=("premise", "hypothesis"),
        labels=ENTAILMENT,
        columns=("sentence1", "sentence2"),
        label_column="gold_label",
        counts={"tfds": _counts(549_367, 9_842, 9_824)},
    ),
    Row(
        "mnli",
        "entailment",
        "accuracy",
        "MultiNLI",
        group="NLI",
        builders=("glue/mnli",),
        splits={
            "train": "train",
            "dev": "validation_matched",
            "dev_mismatched": "validation_mismatched",
            "test": "test_matched",
            "test_mismatched": "test_mismatched",
        },
        features=("premise", "hypothesis"),
        labels=ENTAILMENT,
        columns=("sentence1", "sentence2"),
        label_column="gold_label",
        files={"dev": "dev_matched", "test": "test_matched"},
        counts={
            "tfds": _counts(392_702, 9_815, 9_796)
            | {"dev_mismatched": 9_832, "test_mismatched": 9_847}
        },
        glue={"test": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    ),
    # Version 2 of QNLI; the paper had version 1, whose training set is larger.
    Row(
        "qnli",
        "entailment",
        "accuracy",
        "Question NLI",
        group="NLI",
        builders=("glue/qnli",),
        features=("question", "sentence"),
        labels=TWO_WAY,
        positive="entailment",
        counts={"tfds": _counts(104_743, 5_463, 5_463)},
        glue={"test": "QNLI.tsv"},
    ),
    Row(
        "rte",
        "entailment",
        "accuracy",
        "RTE",
        group="NLI",
        builders=("glue/rte",),
        features=("sentence1", "sentence2"),
        labels=TWO_WAY,
        positive="entailment",
        counts={"tfds": _counts(2_490, 277, 3_000)},
        glue={"test": "RTE.tsv"},
    ),
    # TFDS reads the official file as CSV with quotes, and 499 rows of it vanish in others.
    Row(
        "scitail",
        "entailment",
        "accuracy",
        "SciTail",
        group="NLI",
        builders=("sci_tail",),
        features=("premise", "hypothesis"),
        labels=("entails", "neutral"),
        aliases={"entailment": 0},
        positive="entails",
        columns=("sentence1", "sentence2"),
        label_column="gold_label",
        counts={
            "tfds": _counts(23_097, 1_304, 2_126),
            "official": _counts(23_596, 1_304, 2_126),
        },
    ),
    # Question answering.
    _race("race", "RACE", ("middle", "high"), _counts(87_866, 4_887, 4_934)),
    _race("race_middle", "RACE-m", ("middle",), _counts(25_421, 1_436, 1_436)),
    _race("race_high", "RACE-h", ("high",), _counts(62_445, 3_451, 3_498)),
    _story_cloze("story_cloze", "2016", {"validation": 1_871, "test": 1_871}),
    _story_cloze("story_cloze_2018", "2018", {}),
    # Sentence similarity.
    Row(
        "mrpc",
        "similarity",
        "f1",
        "MSR Paraphrase Corpus",
        group="Similarity",
        further=("accuracy",),
        builders=("glue/mrpc",),
        features=("sentence1", "sentence2"),
        labels=(0, 1),
        words=("not_equivalent", "equivalent"),
        positive=1,
        columns=("#1 String", "#2 String"),
        label_column="Quality",
        counts={"tfds": _counts(3_668, 408, 1_725)},
        glue={"test": "MRPC.tsv"},
        glue_numbers=True,
    ),
    Row(
        "qqp",
        "similarity",
        "f1",
        "Quora Question Pairs",
        group="Similarity",
        further=("accuracy",),
        builders=("glue/qqp",),
        features=("question1", "question2"),
        labels=(0, 1),
        words=("not_duplicate", "duplicate"),
        positive=1,
        label_column="is_duplicate",
        counts={"tfds": _counts(363_846, 40_430, 390_965)},
        glue={"test": "QQP.tsv"},
        glue_numbers=True,
    ),
    Row(
        "stsb",
        "similarity",
        "pearson",
        "STS Benchmark",
        group="Similarity",
        further=("spearman",),
        builders=("glue/stsb",),
        features=("sentence1", "sentence2"),
        label_column="score",
        counts={"tfds": _counts(5_749, 1_500, 1_379)},
        glue={"test": "STS-B.tsv"},
        glue_numbers=True,
    ),
    # Classification.
    Row(
        "sst2",
        "classification",
        "accuracy",
        "Stanford Sentiment Treebank-2",
        group="Classification",
        builders=("glue/sst2",),
        features=("sentence",),
        labels=(0, 1),
        words=("negative", "positive"),
        positive=1,
        counts={"tfds": _counts(67_349, 872, 1_821)},
        glue={"test": "SST-2.tsv"},
        glue_numbers=True,
    ),
    Row(
        "cola",
        "classification",
        "matthews",
        "CoLA",
        group="Classification",
        builders=("glue/cola",),
        features=("sentence",),
        labels=(0, 1),
        words=("unacceptable", "acceptable"),
        positive=1,
        headerless=("source", "label", "mark", "sentence"),
        counts={"tfds": _counts(8_551, 1_043, 1_063)},
        glue={"test": "CoLA.tsv"},
        glue_numbers=True,
    ),
    # No columns of the paper, but the GLUE server wants them, and WNLI is part of the 72.8. The
    # class numbers of WNLI are the reverse of RTE's.
    Row(
        "wnli",
        "entailment",
        "accuracy",
        "Winograd NLI",
        builders=("glue/wnli",),
        features=("sentence1", "sentence2"),
        labels=("not_entailment", "entailment"),
        positive="entailment",
        counts={"tfds": _counts(635, 71, 146)},
        glue={"test": "WNLI.tsv"},
        glue_numbers=True,
    ),
    Row(
        "ax",
        "entailment",
        "matthews",
        "GLUE diagnostics",
        builders=("glue/ax",),
        splits={"test": "test"},
        features=("premise", "hypothesis"),
        labels=ENTAILMENT,
        columns=("sentence1", "sentence2"),
        files={"test": "diagnostic"},
        counts={"tfds": {"test": 1_104}},
        glue={"test": "AX.tsv"},
    ),
    # Of the paper's zero-shot figure. The sentences come in pairs that differ in a few words.
    Row(
        "dprd",
        "multiple_choice",
        "accuracy",
        "Definite pronoun resolution",
        builders=("definite_pronoun_resolution",),
        splits={"train": "train", "test": "test"},
        counts={"tfds": {"train": 1_322, "test": 564}},
        division=Division("train", share=0.1, seed=0, twins=True),
        pronouns=True,
    ),
    # Small stand-ins: for SNLI, and for the two sets of multiple choice.
    Row("snli_small", "entailment", "accuracy", "SNLI, its dev set divided", labels=ENTAILMENT),
    Row("codah", "multiple_choice", "accuracy", "CODAH"),
    Row("comve_validation", "multiple_choice", "accuracy", "ComVE A"),
    Row("comve_explanation", "multiple_choice", "accuracy", "ComVE B"),
)

TASKS = {row.name: row for row in _ROWS}
