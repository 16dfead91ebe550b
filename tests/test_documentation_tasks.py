"""Tasks cut from a corpus of invented sentences: nothing of one side is known from another."""

import random
from collections import Counter
from itertools import product

import pytest

from gpt1_jax.data import documentation_tasks, tasks
from gpt1_jax.data import task_loading as data_tasks
from gpt1_jax.data.documentation_tasks import (
    NEXT_WORDS,
    cut,
    hold_out,
    mask,
    sentences,
    shingles,
    write,
)
from gpt1_jax.errors import UserError
from gpt1_jax.text.documentation import Corpus, Document

PACKAGES = ("python", "numpy", "scipy", "jax", "flax")
WORDS = ["".join(letters) for letters in product("bdklmt", "aiou", "nrst")]


def invented_sentence(rng: random.Random) -> str:
    words = [rng.choice(NEXT_WORDS if rng.random() < 0.3 else WORDS) for _ in range(14)]
    words[rng.randrange(1, 14)] = rng.choice(["`code`", "numpy", "own.name", "camelCase", "two"])
    if rng.random() < 0.2:  # the opening of several sentences, too short to be a known run of words
        words = ["tot", "mis", "kot", "dat", *words[4:]]
    return " ".join(["The", *words]) + "."


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    rng = random.Random(0)
    common = [invented_sentence(rng) for _ in range(40)]
    documents = [
        Document(
            f"{invented_sentence(rng)} {rng.choice(common)}\n{invented_sentence(rng)}",
            package,
            f"{package}/{file}.py",
        )
        for package in PACKAGES
        for file in range(60)
        for _ in range(6)
    ]
    return Corpus(tuple(documents), dict.fromkeys(PACKAGES, "1"), ())


def texts(row: dict) -> str:
    """The words of a row, in their true order if it is a multiple choice."""
    if "choices" in row:
        return row["context"] + row["choices"][row["label"]]
    return row.get("text") or row["premise"]


def test_names_are_masked():
    text = (
        "NumPy calls f() of own.module, a camelCase or snake_case name, `x = 1`s, and scikit-learn."
    )
    assert mask(text) == "`x` calls `x` of `x`, a `x` or `x` name, `x`, and `x`."
    assert mask("Use TensorFlow 2.1 or Python 3, e.g. on a TPU.") == (
        "Use `x` or `x`, e.g. on a TPU."
    )


def test_sentences_are_divided_and_the_unusable_left_out():
    long = "The values of the array are added to the mean of all others."
    document = Document(
        f"{long} Too short. {long}\n{long[:-1]} = 3.\n{long[:-1]}:", "numpy", "a.py"
    )
    assert [sentence.text for sentence in sentences([document])] == [long, long]


def test_files_are_held_out_whole_and_their_sentences_are_known_from_nowhere(corpus):
    held_out = hold_out(corpus, seed=0)
    files = [
        {(text.package, text.source) for text in part}
        for part in (held_out.pretraining, held_out.train, held_out.dev)
    ]
    assert all(len(part) > 10 for part in files)
    assert sum(map(len, files)) == len(set().union(*files))
    known = set().union(*(shingles(mask(d.text)) for d in held_out.pretraining))
    for sentence in held_out.train + held_out.dev:
        assert known.isdisjoint(shingles(sentence.text))
        known |= shingles(sentence.text)


def test_the_files_that_the_tasks_were_chosen_on_are_not_held_out_again(corpus):
    quarters = [hold_out(corpus, 0, quarter) for quarter in range(4)]
    files = [{(text.package, text.source) for text in one.train + one.dev} for one in quarters]
    assert all(len(one) > 10 for one in files)
    assert sum(map(len, files)) == len(set().union(*files))
    chosen_on = {d for d in corpus.documents if (d.package, d.source) in files[0]}
    assert chosen_on <= set(hold_out(corpus, 0).pretraining)


def test_no_text_is_on_two_sides(corpus):
    for task in cut(corpus).tasks.values():
        train, dev = ({texts(row) for row in rows} for rows in (task.train, task.dev))
        assert train.isdisjoint(dev)


def test_labels_are_balanced_on_each_side_and_groups_whole(corpus):
    for task in cut(corpus, train=110, dev=101).tasks.values():
        for rows, most in ((task.train, 110), (task.dev, 101)):
            counts = Counter(row["label"] for row in rows)
            assert len(set(counts.values())) == 1
            assert len(counts) > 1
            assert 0.5 * most < len(rows) <= most


def test_a_word_fits_as_often_as_not_and_so_does_each_fragment(corpus):
    task = cut(corpus).tasks["word_fits"]
    everything = "\n".join(mask(document.text) for document in corpus.documents)
    for row in task.train:
        assert row["label"] == "no" or row["premise"] + row["hypothesis"] + " " in everything
        twin = {"premise": row["premise"], "hypothesis": row["hypothesis"]}
        assert {**twin, "label": "no" if row["label"] == "yes" else "yes"} not in task.train
    for field in ("premise", "hypothesis"):
        counts = Counter((row[field], row["label"]) for row in task.train)
        for value in {row[field] for row in task.train}:
            assert counts[value, "yes"] == counts[value, "no"] > 0


def test_choices_differ_in_nothing_but_order(corpus):
    everything = "\n".join(mask(document.text) for document in corpus.documents)
    for row in cut(corpus).tasks["word_order"].train:
        assert texts(row) in everything
        first, second = row["choices"]
        assert first != second
        assert sorted(first.split()) == sorted(second.split())
        assert sum(a != b for a, b in zip(first.split(), second.split(), strict=True)) in (2, 4)


def test_no_name_is_left_in_a_task(corpus):
    for task in cut(corpus).tasks.values():
        for row in task.train + task.dev:
            assert mask(texts(row)) == texts(row)
            assert not any(name in texts(row).lower() for name in ("numpy", "code", "camel"))


def test_the_cut_is_a_function_of_corpus_and_seed(corpus):
    assert cut(corpus, seed=1) == cut(corpus, seed=1)
    first, second = cut(corpus, seed=1), cut(corpus, seed=2)
    assert first.tasks != second.tasks
    assert first.pretraining != second.pretraining


def test_the_reader_of_tasks_reads_what_was_written(corpus, tmp_path):
    made = cut(corpus, train=100, dev=100).tasks
    assert {task.shape for task in made.values()} == set(tasks.FIELDS) - {"similarity"}
    for name, folder in write(made, tmp_path).items():
        config = data_tasks.TaskConfig(path=str(folder), shape=made[name].shape, metric="accuracy")
        loaded = data_tasks.load_task(config)
        assert len(loaded.splits["train"]) == len(made[name].train)
        assert len(loaded.splits["dev"]) == len(made[name].dev)
        assert sorted(path.name for path in folder.iterdir()) == ["dev.jsonl", "train.jsonl"]


def test_a_small_corpus_is_refused(corpus):
    small = Corpus(corpus.documents[:30], corpus.versions, ())
    with pytest.raises(UserError, match=f"task {next(iter(documentation_tasks._TASKS))} of the"):
        cut(small)
