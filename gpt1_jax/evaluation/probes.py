"""Zero-shot probes: a language model answers with no training on the task (Radford et al. 2018,
section 5 and figure 2, right).

Each turns an example into (context, continuation) sequences, and compares the mean log-probability
of the continuations' tokens:

    sentiment            it 's charming . very | positive       against   ... very | negative
    acceptability        | the whole text .                     against a threshold tuned on train
    question_answering   document question | answer             the likeliest answer
    pronoun_resolution   Bill ran because Bill | was late .     the candidate that makes the rest
                         Bill ran because Tom | was late .      likeliest, itself not counted

The paper gives no more than that. What is decided here: words of the probe that are several tokens
count by the mean over these (of the original vocabulary, positive is 6353 and negative 9503, one
token each); the threshold is that of the best Matthews correlation on train; and what is too long
for n_ctx loses the beginning of its context, alike for all candidates of an example, and only then
the end of its continuation (`fitted`).

Shapes: N sequences, L tokens, E examples, C candidates of each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt1_jax.data import task_loading
from gpt1_jax.data.metrics import METRICS, undefined
from gpt1_jax.data.task_loading import LoadedTask, TaskConfig
from gpt1_jax.data.tasks import TASKS, Example, Metric, Shape
from gpt1_jax.errors import UserError
from gpt1_jax.messages import say
from gpt1_jax.tokenization.tokenizer import Tokenizer

# Candidates are written as at the beginning of a sentence; within one these words are not.
DETERMINERS = ("the", "a", "an", "this", "that", "his", "her", "its", "their", "my", "our", "your")
POSSESSIVES = ("his", "its", "their")

Pair = tuple[list[int], list[int]]
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class Anchor:
    """Scores, in percent, that are 0 and 1 on the relative axis: (score - random) /
    (best - random). None takes those of the task (ANCHORS)."""

    random: float | None = None
    best: float | None = None


@dataclass(frozen=True)
class AnchorsConfig:
    """The anchors of each probe."""

    sentiment: Anchor = Anchor()
    acceptability: Anchor = Anchor()
    question_answering: Anchor = Anchor()
    pronoun_resolution: Anchor = Anchor()


@dataclass(frozen=True)
class ProbeConfig:
    """Which task each probe asks: a folder of that name in the folder `path`, or without a path a
    set of TensorFlow Datasets (`data_dir`: where it keeps its data). None leaves the probe out. It
    takes at most `examples` of a split, always the same ones.

    While training, the probes run `per_decade` times in each factor of ten in updates, evenly on a
    logarithmic axis, and at the end; 0 does not run them.
    """

    path: str | None = None
    data_dir: str | None = None
    per_decade: int = 0
    examples: int = 500
    sentiment: str | None = "sst2"
    acceptability: str | None = "cola"
    question_answering: str | None = "race"
    pronoun_resolution: str | None = "dprd"
    anchors: AnchorsConfig = AnchorsConfig()

    def __post_init__(self):
        for name, least in (("per_decade", 0), ("examples", 1)):
            value = getattr(self, name)
            if value < least:
                raise UserError(f"probes.{name} is {value}; expected at least {least}")


ANCHORS = {
    "sst2": (50.0, 93.2, "table 4 of the paper"),
    "cola": (0.0, 35.0, "table 4 of the paper"),
    "race": (25.0, 53.3, "table 3 of the paper, where it is an ensemble: unverified"),
    "dprd": (50.0, 76.4, "unverified"),
}
"""Random guessing and the best known score of a single model, in percent of the metric, by task.
The paper does not print what it took. Of the figures here, those of RACE and of definite pronoun
resolution are candidates that nobody has verified. For any other task the best is a perfect score,
and named as such."""


def sentiment(example: Example, encode: Encode) -> list[Pair]:
    """The words negative and positive (classes 0 and 1) after the text and "very"."""
    context = encode(f"{example.texts[0].strip()} very")
    return [(context, encode(f" {word}")) for word in ("negative", "positive")]


def acceptability(example: Example, encode: Encode) -> list[Pair]:
    """The text, after nothing."""
    return [([], encode(example.texts[0].strip()))]


def question_answering(example: Example, encode: Encode) -> list[Pair]:
    """Each choice after context and question, from which a space divides it."""
    before = " ".join(filter(None, (text.strip() for text in example.texts)))
    context, space = encode(before), " " if before else ""
    choices = [choice.strip() for choice in example.choices]
    return [(context, encode(space + choice) if choice else []) for choice in choices]


def pronoun_resolution(example: Example, encode: Encode) -> list[Pair]:
    """What follows the pronoun in the context, after the context up to there with each candidate in
    its place."""
    sentence, pronoun = example.texts
    before = sentence[: example.pronoun_start]
    rest = encode(sentence[example.pronoun_start + len(pronoun) :].rstrip())
    return [
        (encode(before + _in_place_of(pronoun, choice.strip(), before)), rest)
        for choice in example.choices
    ]


def _in_place_of(pronoun: str, candidate: str, before: str) -> str:
    """The candidate as it is written where the pronoun stood, after `before`.

    he -> Tom      it, within a sentence -> the bee      It, at the beginning -> The bee
    his -> Tom's   their -> the boys'
    """
    first, space, others = candidate.partition(" ")
    if not before.strip() or before.rstrip()[-1] in ".!?":
        candidate = candidate[:1].upper() + candidate[1:]
    elif first.lower() in DETERMINERS:
        candidate = first.lower() + space + others
    if pronoun.lower() in POSSESSIVES:
        candidate += "'" if candidate.endswith("s") else "'s"
    return candidate


@dataclass(frozen=True)
class Probe:
    """What a probe asks for: examples of a shape, turned to pairs of context and continuation. Its
    answer is the likeliest of them, or with `tuned` whether the only one is likely enough."""

    shape: Shape
    metric: Metric
    pairs: Callable[[Example, Encode], list[Pair]]
    tuned: bool = False


PROBES = {
    "sentiment": Probe("classification", "accuracy", sentiment),
    "acceptability": Probe("classification", "matthews", acceptability, tuned=True),
    "question_answering": Probe("multiple_choice", "accuracy", question_answering),
    "pronoun_resolution": Probe("multiple_choice", "accuracy", pronoun_resolution),
}


@dataclass(frozen=True)
class Encoded:
    """The examples of a split as C pairs of each, one after the other, and their labels [E]; how
    many examples were cut to fit n_ctx."""

    pairs: list[Pair]
    labels: np.ndarray
    cut: int


@dataclass(frozen=True)
class Question:
    """A probe of a task, ready to be put to a model. `train` only where a threshold is tuned."""

    probe: str
    task: str
    anchors: dict
    dev: Encoded
    train: Encoded | None


def prepare(
    config: ProbeConfig, tokenizer: Tokenizer, beginning: list[int], n_ctx: int
) -> list[Question]:
    """The probes of the config, read and encoded. `beginning`: what a text of the training begins
    after, an end token or nothing.

    Raises UserError as `probe_tasks` does.
    """
    tasks = probe_tasks(config)
    return [
        _question(name, loaded, config, tokenizer, beginning, n_ctx)
        for name, loaded in tasks.items()
    ]


def _question(
    name: str,
    loaded: LoadedTask,
    config: ProbeConfig,
    tokenizer: Tokenizer,
    beginning: list[int],
    n_ctx: int,
) -> Question:
    probe, task = PROBES[name], getattr(config, name)

    def encoded(split: str) -> Encoded:
        examples = loaded.splits[split]
        fits = []
        for example in examples:
            pairs = probe.pairs(example, tokenizer.encode)
            fits.append(fitted([(beginning + context, rest) for context, rest in pairs], n_ctx))
        return Encoded(
            pairs=[pair for pairs, _ in fits for pair in pairs],
            labels=np.array([example.label for example in examples]),
            cut=sum(cut for _, cut in fits),
        )

    n_choices = len(loaded.splits["dev"][0].choices) or 2
    return Question(
        probe=name,
        task=task,
        anchors=_anchors(name, task, getattr(config.anchors, name), n_choices),
        dev=encoded("dev"),
        train=encoded("train") if probe.tuned else None,
    )


def probe_tasks(config: ProbeConfig) -> dict[str, LoadedTask]:
    """The task of each probe with its examples. A probe whose metric is undefined on them is left
    out, and a line says so.

    Raises UserError for a task that is missing, or has not the shape that its probe needs, and
    where no probe is left.
    """
    chosen = [name for name in PROBES if getattr(config, name) is not None]
    if not chosen:
        raise UserError(f"every probe is None; set one of probes.{', probes.'.join(PROBES)}")
    tasks = {name: _task(name, config) for name in chosen}
    for name in chosen:
        labels = [example.label for example in tasks[name].splits["dev"]]
        lines = undefined(
            {PROBES[name].metric: METRICS[PROBES[name].metric](labels, labels)}, len(labels)
        )
        for line in lines:
            line = f"probes.{name}={getattr(config, name)}: {line}"
            del tasks[name]
            if not tasks:
                raise UserError(f"{line}; raise probes.examples, or name another task")
            say(f"{line}; the probe is left out")
    return tasks


def _task(name: str, config: ProbeConfig) -> LoadedTask:
    """UserError where it does not fit the probe."""
    probe, task = PROBES[name], getattr(config, name)
    key = f"probes.{name}={task}"
    row, path = TASKS.get(task), None
    if row and row.shape != probe.shape:
        raise UserError(f"{key} is a task of {row.shape}; expected one of {probe.shape}")
    if name == "pronoun_resolution" and not (row and row.pronouns):
        known = ", ".join(row.name for row in TASKS.values() if row.pronouns)
        raise UserError(f"{key} has no pronouns whose place is known; expected {known}, or None")
    if config.path is not None:
        path = Path(config.path).expanduser() / task
        if not path.is_dir():
            raise UserError(
                f"{key}: there is no folder {path}; name another task of {config.path}, or None to "
                "leave the probe out"
            )
    loaded = task_loading.load_task(
        TaskConfig(
            name=task,
            path=path and str(path),
            data_dir=config.data_dir,
            shape=probe.shape,
            metric=probe.metric,
            train_examples=config.examples,
            dev_examples=config.examples,
        )
    )
    if probe.shape == "classification" and len(loaded.labels) != 2:
        raise UserError(f"{key}: {loaded.where} has {len(loaded.labels)} classes; expected two")
    for note in loaded.notes:
        say(note)
    return loaded


def _anchors(name: str, task: str, given: Anchor, n_choices: int) -> dict:
    chance = 0.0 if PROBES[name].metric == "matthews" else 100.0 / n_choices
    random, best, source = ANCHORS.get(task, (chance, 100.0, "chance and a perfect score"))
    if given != Anchor():
        source = "set in the config"
        random = random if given.random is None else given.random
        best = best if given.best is None else given.best
    if not best > random:
        raise UserError(
            f"probes.anchors.{name}: best {best:g} is not above random {random:g}, in percent"
        )
    return {"random": random, "best": best, "source": source}


def fitted(pairs: Sequence[Pair], n_ctx: int) -> tuple[list[Pair], bool]:
    """The pairs of an example with what fits into `n_ctx` inputs, of which the last token of all is
    none, and whether anything was cut. With n_ctx = 4:

        1 2 3 | 7 8    1 2 3 | 9     ->   1 2 3 | 7 8   1 2 3 | 9
        1 2 3 | 7 8 9  1 2 3 | 6     ->   2 3 | 7 8 9   2 3 | 6
        1 2 | 3 4 5 6 7              ->   2 | 3 4 5 6
    """
    longest = max(len(continuation) for _, continuation in pairs)
    kept = max(1, n_ctx + 1 - longest)
    result = []
    for context, continuation in pairs:
        end_of_context = context[-kept:]
        result.append((end_of_context, continuation[: n_ctx + 1 - len(end_of_context)]))
    return result, result != list(pairs)
