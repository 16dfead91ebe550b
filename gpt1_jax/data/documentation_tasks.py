"""Tasks cut from the embedded corpus, sound by construction.

The order of the steps is what makes them so:

1. whole source files are held out for the tasks, and these files divided into train and dev;
2. the held-out sentences are masked: names of libraries, code spans and identifiers all become the
   same `x`, so that no name gives an answer away;
3. a sentence that shares a run of eight words with the pre-training text is dropped, and so is one
   that shares a run with the sentences before it, those of train first;
4. only then are examples built, those of dev from dev sentences alone, in groups that hold every
   label equally often; twins are in one group, and a group is taken whole or not at all.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.data.tasks import Shape
from gpt1_jax.disk import write_text
from gpt1_jax.errors import UserError
from gpt1_jax.text.documentation import PACKAGES, Corpus, Document

MASK = "`x`"


@dataclass(frozen=True)
class Sentence:
    """A masked sentence of a held-out file."""

    text: str
    package: str
    source: str


@dataclass(frozen=True)
class HeldOut:
    """The corpus divided: documents to pre-train on, sentences for the two sides of the tasks."""

    pretraining: tuple[Document, ...]
    train: tuple[Sentence, ...]
    dev: tuple[Sentence, ...]


@dataclass(frozen=True)
class DocumentationTask:
    """A task with its rows, which have the keys of its shape and `label`."""

    name: str
    shape: Shape
    question: str  # what is asked, for a person
    train: tuple[dict, ...]
    dev: tuple[dict, ...]


@dataclass(frozen=True)
class Cut:
    """Documents to pre-train on, and tasks from files that are not among them."""

    pretraining: tuple[Document, ...]
    tasks: dict[str, DocumentationTask]


def cut(corpus: Corpus, seed: int = 0, train: int = 1000, dev: int = 500) -> Cut:
    """All tasks of the corpus, a function of the corpus and the seed.

    Args:
      corpus: the documents.
      seed: decides which files are held out, which words are swapped, and so on.
      train: labels of each task at most; a group of examples that would not fit is left out.
      dev: the same for the other side.

    Raises:
      UserError: the corpus is too small for examples of every label.
    """
    held_out = hold_out(corpus, seed)
    tasks = {}
    for name, (shape, question, build) in _TASKS.items():
        seen: set[str] = set()  # of both sides: a fragment may repeat where its sentence does not
        rows = []
        sides = ("train", held_out.train, train), ("dev", held_out.dev, dev)
        for side, sentences_of_side, most in sides:
            rng = random.Random(f"{seed}/{name}/{side}")
            shuffled = rng.sample(sentences_of_side, len(sentences_of_side))
            rows.append(_whole_groups(build(shuffled, seen, rng), most))
            if not rows[-1] or _labels(rows[0]) != _labels(rows[-1]):
                raise UserError(
                    f"task {name} of the documentation: {len(corpus.documents)} texts are too few "
                    f"for its {side} examples; install the packages of requirements.txt"
                )
        tasks[name] = DocumentationTask(name, shape, question, *rows)
    return Cut(held_out.pretraining, tasks)


def _whole_groups(groups: Iterable[list[dict]], most: int) -> tuple[dict, ...]:
    rows: list[dict] = []
    for group in groups:
        if len(rows) + len(group) > most:
            break
        rows += group
    return tuple(rows)


def _labels(rows: Iterable[dict]) -> set:
    return {row["label"] for row in rows}


def write(tasks: dict[str, DocumentationTask], folder: Path) -> dict[str, Path]:
    """Write each task as `folder/NAME/train.jsonl` and `dev.jsonl`; the folder of each task."""
    folders = {}
    for task in tasks.values():
        folders[task.name] = Path(folder) / task.name
        folders[task.name].mkdir(parents=True, exist_ok=True)
        for side, rows in (("train", task.train), ("dev", task.dev)):
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            write_text(folders[task.name] / f"{side}.jsonl", lines)
    return folders


# Holding out


# Quarter 0 of the files, with seed 0, is where forms, words and sizes of the tasks were chosen by
# their dev; results come from another, of which nothing was chosen.
SHOWN_QUARTER = 1


def hold_out(
    corpus: Corpus, seed: int, quarter: int = SHOWN_QUARTER, dev_fraction: float = 0.3
) -> HeldOut:
    """Divide by file, then drop the held-out sentences whose words are known from elsewhere.

    Args:
      corpus: the documents.
      seed: decides, with its package and path, in which quarter a file is.
      quarter: 0 to 3, the one that is held out.
      dev_fraction: of the files held out, for dev.
    """
    pretraining: list[Document] = []
    held_out: tuple[list[Document], list[Document]] = ([], [])
    for document in corpus.documents:
        place = 4 * _place(f"{seed}/{document.package}/{document.source}") - quarter
        if 0 <= place < 1:
            held_out[place < dev_fraction].append(document)
        else:
            pretraining.append(document)
    known: set[int] = set()
    for document in pretraining:
        known |= shingles(mask(document.text))
    train, dev = (_fresh(sentences(documents), known) for documents in held_out)
    return HeldOut(tuple(pretraining), train, dev)


def _place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big") / 2**56


def _fresh(candidates: Iterable[Sentence], known: set[int]) -> tuple[Sentence, ...]:
    """The sentences that share no run of words with what is known. All are known afterwards."""
    fresh = []
    for sentence in candidates:
        own = shingles(sentence.text)
        if own.isdisjoint(known):
            fresh.append(sentence)
        known |= own
    return tuple(fresh)


def shingles(text: str, size: int = 8) -> set[int]:
    """Hashes of all runs of `size` words, letters and digits alone; of all words if they are fewer.

    Hashes of strings differ between processes: good for comparing, not for keeping.
    """
    words = re.findall(r"[a-z0-9]+", text.lower())
    return {hash(tuple(words[i : i + size])) for i in range(max(1, len(words) - size + 1))}


# Masking, and dividing into sentences

_OTHER_LIBRARIES = (
    "scikit", "pyplot", "mpl", "jnp", "jaxlib", "xla", "pallas", "nnx", "linen", "tf", "tfds",
    "tflite", "pytorch", "torch", "hugging face", "huggingface", "hf", "cpython", "pandas",
    "cython", "cupy", "dask", "blas", "lapack", "cuda",
)  # fmt: skip
_LIBRARIES = sorted({*(name for row in PACKAGES for name in row), *_OTHER_LIBRARIES}, reverse=True)
_NAME = re.compile(
    "|".join(
        (
            r"`[^`]*`",  # code span
            rf"(?i:\b(?:{'|'.join(map(re.escape, _LIBRARIES))})\b)(?![.]\w)(?:[ -]?\d+(?:\.\d+)*)?",
            r"\b(?!e\.g|i\.e)[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+",  # dotted
            r"\b\w+\(\)",  # call
            r"\b\w*_\w*",  # snake_case
            r"\b\w*[a-z0-9][A-Z]\w*|\b[A-Z]{2,}[a-z]{2,}\w*",  # camelCase
        )
    )
)
_MASKS = re.compile(rf"{MASK}(?:[\s.'’-]*{MASK}|\(\)|'s?(?=\s)|s\b)*")
_SENTENCE_END = re.compile(r"(?<=[a-z`)][.?!])\s+(?=[A-Z`])")
_PLAIN = re.compile(rf"(?:[A-Za-z][A-Za-z'-]*|{MASK})[,;:]?")


def mask(text: str) -> str:
    """A text in which code spans, identifiers and names of libraries are all the same `x`."""
    return _MASKS.sub(MASK, _NAME.sub(MASK, text))


def sentences(documents: Iterable[Document]) -> Iterator[Sentence]:
    """The masked sentences that are long enough to judge, and short enough for a small context."""
    for document in documents:
        for paragraph in document.text.split("\n"):
            for text in _SENTENCE_END.split(mask(paragraph)):
                if _is_usable(text):
                    yield Sentence(text, document.package, document.source)


def _is_usable(text: str) -> bool:
    words = text.removesuffix(".").split()
    return (
        len(words) >= 10
        and len(text) <= 180
        and text[0].isupper()
        and text[-1] == "."
        and text.count(MASK) <= 2
        and all(_PLAIN.fullmatch(word) for word in words)
    )


# The tasks. Each takes shuffled sentences and yields groups of rows, every label equally often in
# each; `seen` holds the fragments that are used already.

# Common words that call for different surroundings.
NEXT_WORDS = ("a", "be", "of", "the", "to")
_SIDE = 5  # words of context, and of each choice, in word_order
# With a vocabulary of 2,048 every example fits 32 ids, so that a step is cheap.
_LONGEST_FRAGMENT = 14  # words
_MOST_CHARACTERS = {"next_word": 70, "word_order": 65}


def _next_word(
    shuffled: list[Sentence], seen: set[str], rng: random.Random
) -> Iterator[list[dict]]:
    """Groups of one fragment for each word that goes on after it."""
    fragments = _fragments(shuffled, seen, rng)
    for group in zip(*(fragments[word] for word in NEXT_WORDS), strict=False):
        pairs = zip(group, NEXT_WORDS, strict=True)
        yield [{"text": fragment, "label": word} for fragment, word in pairs]


def _word_fits(
    shuffled: list[Sentence], seen: set[str], rng: random.Random
) -> Iterator[list[dict]]:
    """Groups in which each two words swap their fragments: each word fits as often as it does not,
    and so does each fragment."""
    fragments = _fragments(shuffled, seen, rng)
    pairs = [(a, b) for a in NEXT_WORDS for b in NEXT_WORDS if a < b]
    while all(len(found) >= len(NEXT_WORDS) - 1 for found in fragments.values()):
        group = []
        for pair in pairs:
            for right, wrong in (pair, pair[::-1]):
                premise = fragments[right].pop()
                # With its space, a word has the ids that it has in running text.
                group.append({"premise": premise, "hypothesis": f" {right}", "label": "yes"})
                group.append({"premise": premise, "hypothesis": f" {wrong}", "label": "no"})
        yield group


def _word_order(
    shuffled: list[Sentence], seen: set[str], rng: random.Random
) -> Iterator[list[dict]]:
    """Groups of two examples, one for each place of the true order.

    Both choices are made of the same words, so nothing but their order can tell them apart.
    """
    group: list[dict] = []
    for sentence in shuffled:
        words = sentence.text.removesuffix(".").split()
        start = rng.randrange(len(words) - 2 * _SIDE + 1)
        context = words[start : start + _SIDE]
        ending = words[start + _SIDE : start + 2 * _SIDE]
        swapped = _two_pairs_swapped(ending, rng)
        fragment = " ".join(context + ending)
        if swapped == ending or len(fragment) > _MOST_CHARACTERS["word_order"]:
            continue
        if not _is_new(fragment, seen):
            continue
        choices = [" " + " ".join(ending), " " + " ".join(swapped)]
        label = len(group)
        row = {"context": " ".join(context), "question": "", "choices": choices, "label": label}
        group.append(row | {"choices": choices[::-1]} if label else row)
        if len(group) == 2:
            yield group
            group = []


def _two_pairs_swapped(words: list[str], rng: random.Random) -> list[str]:
    """Five words, two disjoint pairs of neighbours swapped."""
    first, second = rng.choice([(0, 2), (0, 3), (1, 3)])
    swapped = list(words)
    for place in (first, second):
        swapped[place : place + 2] = swapped[place : place + 2][::-1]
    return swapped


def _fragments(
    shuffled: list[Sentence], seen: set[str], rng: random.Random
) -> dict[str, list[str]]:
    """By each of NEXT_WORDS, the words in front of it, one fragment a sentence."""
    found: dict[str, list[str]] = {word: [] for word in NEXT_WORDS}
    for sentence in shuffled:
        words = sentence.text.split()
        places = [i for i in range(_SIDE, len(words)) if words[i] in NEXT_WORDS]
        if not places:
            continue
        place = rng.choice(places)
        before = words[max(0, place - _LONGEST_FRAGMENT) : place]
        while len(" ".join(before)) > _MOST_CHARACTERS["next_word"]:
            before = before[1:]
        if _is_new(" ".join(before), seen):
            found[words[place]].append(" ".join(before))
    return found


def _is_new(fragment: str, seen: set[str]) -> bool:
    """Whether a fragment is used for the first time."""
    new = fragment not in seen
    seen.add(fragment)
    return new


_Builder = Callable[[list[Sentence], set[str], random.Random], Iterator[list[dict]]]
_TASKS: dict[str, tuple[Shape, str, _Builder]] = {
    "next_word": ("classification", "which word comes next?", _next_word),
    "word_fits": ("entailment", "does this word come next?", _word_fits),
    "word_order": ("multiple_choice", "which is the true order of the words?", _word_order),
}
