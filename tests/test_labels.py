"""Labels as files have them: of known tasks by name or by number, with and without gold, and
classes of one's own that are not always spelled alike."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpt1_jax.data.labels import Classes, gold_label
from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.data.tasks import FIELDS, TASKS
from gpt1_jax.errors import UserError

COLUMNS = ("context:article", "choices:options", "label:answer")
OWN = {"shape": "classification", "metric": "accuracy"}


def rows(name_or_shape, labels, keys=None):
    """A row for each label; without the key for a label that is absent."""
    row = TASKS.get(name_or_shape)
    keys = keys or FIELDS[row.shape if row else name_or_shape]
    texts = [{key: f"{key} {n}" for key in keys} for n in range(len(labels))]
    return [
        text if label is ABSENT else text | {"label": label}
        for text, label in zip(texts, labels, strict=True)
    ]


ABSENT = object()


def folder(path, **splits):
    path.mkdir(exist_ok=True)
    for split, made in splits.items():
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    return str(path)


def named(path, name, only=None, **labels):
    made = {split: rows(name, found) for split, found in labels.items()}
    return load_task(TaskConfig(name, folder(path, **made)), only)


def classes(loaded, split="train"):
    return [loaded.labels[example.label] for example in loaded.splits[split]]


@pytest.mark.parametrize(
    ("name", "in_words"),
    [
        ("rte", ["entailment", "not_entailment"]),
        ("qnli", ["entailment", "not_entailment"]),
        # Of all of GLUE only this one begins with the negative class.
        ("wnli", ["not_entailment", "entailment"]),
        ("mnli", ["entailment", "neutral", "contradiction"]),
        ("snli", ["entailment", "neutral", "contradiction"]),
        ("scitail", ["entails", "neutral"]),
    ],
)
def test_the_numbers_of_a_task_in_words_are_its_words(tmp_path, name, in_words):
    numbers = list(range(len(in_words)))
    loaded = named(tmp_path, name, train=numbers, dev=[str(n) for n in numbers])
    assert classes(loaded) == classes(loaded, "dev") == in_words
    spelled = [word.upper().replace("_", " ") + " " for word in in_words]
    assert classes(named(tmp_path, name, train=spelled, dev=in_words)) == in_words
    assert f'labels are read 0 as "{in_words[0]}" (1)' in loaded.notes[0]


@pytest.mark.parametrize(
    ("name", "negative", "positive"),
    [
        ("mrpc", "not_equivalent", "equivalent"),
        ("qqp", "not_duplicate", "duplicate"),
        ("sst2", "negative", "positive"),
        ("cola", "unacceptable", "acceptable"),
    ],
)
def test_the_words_of_a_task_in_numbers(tmp_path, name, negative, positive):
    """The positive class is the second, as the metric wants it."""
    loaded = named(tmp_path, name, train=[positive, negative], dev=[1, 0])
    assert loaded.labels == (negative, positive)
    assert loaded.targets("train").tolist() == loaded.targets("dev").tolist() == [1, 0]
    of_numbers = named(tmp_path, name, train=[1, 0], dev=["1", "0"])
    assert of_numbers.labels == (0, 1)
    assert of_numbers.targets("train").tolist() == of_numbers.targets("dev").tolist() == [1, 0]
    said = f"f1 is that of the positive class, {positive} (task.labels names it last)"
    assert (said in loaded.describe()) == ("f1" in loaded.task.metrics)


def test_the_positive_class_of_an_entailment_is_the_entailment(tmp_path):
    path = folder(tmp_path, **dict.fromkeys(("train", "dev"), rows("rte", [0, 1])))
    assert load_task(TaskConfig("rte", path, metric="f1")).positive == "entailment"
    path = folder(tmp_path, **dict.fromkeys(("train", "dev"), rows("classification", ["x", "y"])))
    own = TaskConfig(path=path, shape="classification", metric="f1")
    assert load_task(own).positive == "y"
    given = TaskConfig(path=path, shape="classification", metric="f1", labels=("y", "x"))
    assert load_task(given).positive == "x"


@pytest.mark.parametrize("missing", [-1, "-1", "-", "", None, ABSENT, -1.0])
def test_rows_without_a_gold_label_are_left_out_and_counted(tmp_path, missing):
    labels = [0, missing, 1, 2, missing]
    loaded = named(tmp_path, "snli", train=labels, dev=[2, 1, 0], test=labels)
    assert loaded.labels == ("contradiction", "entailment", "neutral")
    assert [len(loaded.splits[split]) for split in ("train", "dev", "test")] == [3, 3, 3]
    notes = [note for note in loaded.notes if "left out" in note]
    assert notes == [
        f"{tmp_path}/{split}.jsonl: 2 examples without a gold label are left out"
        for split in ("train", "test")
    ]


@pytest.mark.parametrize(("name", "label"), [("rte", 0), ("stsb", 2.5), ("codah", 1)])
@pytest.mark.parametrize("hidden", [-1, "-", ABSENT])
def test_hidden_test_labels_do_not_stop_training(tmp_path, name, label, hidden):
    keys = None if name != "codah" else ("context", "question")
    made = {
        split: [row | {"choices": ["a", "b"]} for row in rows(name, labels, keys)]
        for split, labels in (("train", [label] * 3), ("dev", [label]), ("test", [hidden] * 2))
    }
    loaded = load_task(TaskConfig(name, folder(tmp_path, **made)))
    assert len(loaded.splits["test"]) == 2
    assert loaded.targets("test") is None
    assert loaded.describe()[2].endswith("labels are hidden")
    with pytest.raises(UserError, match="hidden"):
        loaded.require_labels("test")


def test_all_labels_missing_where_some_are_needed(tmp_path):
    with pytest.raises(UserError, match=r"dev\.jsonl: no example has a gold label; snli needs"):
        named(tmp_path, "snli", train=[0, 1, 2], dev=[-1, "-"])


def test_minus_one_is_a_class_like_others_in_a_task_of_ones_own(tmp_path):
    made = rows("classification", [-1, 0, 1])
    loaded = load_task(TaskConfig(path=folder(tmp_path, train=made, dev=made), **OWN))
    assert loaded.labels == (-1, 0, 1)
    assert loaded.targets("dev").tolist() == [0, 1, 2]


def test_a_number_and_its_text_are_one_class(tmp_path):
    """HellaSwag has its choices as text; of two files one may have its classes so."""
    choosing = {"context": "c", "question": "q", "choices": ["x", "y"]}
    made = [choosing | {"label": label} for label in ("0", "1", "1")]
    path = folder(tmp_path / "choices", train=made, dev=made)
    config = TaskConfig(path=path, shape="multiple_choice", metric="accuracy")
    assert load_task(config).targets("dev").tolist() == [0, 1, 1]
    for kind, train, dev in (("int", [0, 1], ["1", "0.0"]), ("str", ["0", "1"], [1, 0])):
        made = {"train": rows("classification", train), "dev": rows("classification", dev)}
        loaded = load_task(TaskConfig(path=folder(tmp_path / kind, **made), **OWN))
        assert loaded.targets("dev").tolist() == [1, 0]
        assert "labels are read" in loaded.notes[0]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_true_and_false_are_classes(tmp_path, kind):
    """In every kind of file the same two."""
    path = Path(folder(tmp_path / kind))
    for split in ("train", "dev"):
        made = rows("classification", [True, False, True])
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(made), path / f"{split}.parquet")
        elif kind == "csv":
            lines = [f"{row['text']},{str(row['label']).lower()}" for row in made]
            (path / f"{split}.csv").write_text("\n".join(["text,label", *lines]))
        else:
            folder(path, **{split: made})
    loaded = load_task(TaskConfig(path=str(path), **OWN))
    assert loaded.labels == ("false", "true")
    assert classes(loaded, "dev") == ["true", "false", "true"]
    known = Classes(loaded.labels)
    assert gold_label(loaded.task, known, True, text=False) == 1
    assert gold_label(loaded.task, known, "false", text=False) == 0


@pytest.mark.parametrize(
    ("labels", "n", "hint"),
    [
        ([1, 4, 2], 4, "write 0 to 3 for 1 to 4, or letters, A to D"),
        (["2", "1", "1"], 2, "write 0 to 1 for 1 to 2, or letters, A to B"),
        ([3.0, 3.0, 1.0], 3, "write 0 to 2 for 1 to 3, or letters, A to C"),
        ([0, 4, 2], 4, None),
        ([1, 5, 2], 4, None),
    ],
)
def test_places_of_choices_that_are_counted_from_one(tmp_path, labels, n, hint):
    choosing = {"context": "c", "question": "q", "choices": ["x", "y", "z", "w"][:n]}
    made = [choosing | {"label": label} for label in labels]
    path = folder(tmp_path / "choices", train=made, dev=made)
    with pytest.raises(UserError, match="is outside the set 0, 1") as found:
        load_task(TaskConfig(path=path, shape="multiple_choice", metric="accuracy"))
    assert "write 0 to" not in str(found.value) if hint is None else hint in str(found.value)


@pytest.mark.parametrize(
    ("name", "labels"),
    [("race", ["A", "D", "B"]), ("own", [" b", "A", "b"]), ("own", ["1", "A", "B"])],
)
def test_a_letter_is_the_place_of_a_choice(tmp_path, name, labels):
    """As RACE has it, whose columns on the Hub are these."""
    keys = ("article", "question", "options", "answer")
    keys = keys if name == "race" else ("context", "question", "choices", "label")
    texts = ("c", "q", ["w", "x", "y", "z"])
    made = [dict(zip(keys, (*texts, label), strict=True)) for label in labels]
    path = folder(tmp_path / "choices", train=made, dev=made)
    own = {"shape": "multiple_choice", "metric": "accuracy"}
    loaded = load_task(TaskConfig("race", path) if name == "race" else TaskConfig(path=path, **own))
    places = {"A": 0, "B": 1, "1": 1, "D": 3}
    expected = [places[label.strip().upper()] for label in labels]
    assert loaded.targets("dev").tolist() == expected
    known = Classes(tuple(range(4)))
    found = [gold_label(loaded.task, known, label, text=False) for label in labels]
    assert found == expected
    made[2] |= {keys[3]: "E"}
    columns = COLUMNS if name == "race" else None
    path = folder(tmp_path / "five", train=made, dev=made)
    with pytest.raises(UserError, match='line 3: label "E" is outside the set 0, 1, 2, 3'):
        load_task(TaskConfig(path=path, columns=columns, **own))


def test_labels_that_read_the_same_are_one_class(tmp_path):
    train = rows(
        "classification", ["good", "good ", "Bad", "good", "bad", "bad", "so  so", "so so"]
    )
    dev = rows("classification", ["GOOD", "bad", "so so"])
    path = folder(tmp_path, train=train, dev=dev)
    loaded = load_task(TaskConfig(path=path, **OWN))
    assert loaded.labels[:2] == ("bad", "good")
    assert len(loaded.labels) == 3
    assert loaded.targets("train").tolist() == [1, 1, 0, 1, 0, 0, 2, 2]
    assert loaded.targets("dev").tolist() == [1, 0, 2]
    assert f'{path}/train.jsonl: labels are read "good " as "good" (1)' in loaded.notes[0]
    assert '"GOOD" as "good" (1)' in loaded.notes[1]
    # Whoever means them to differ says so.
    config = TaskConfig(path=path, labels=("bad", "Bad", "good", "so so"), **OWN)
    assert load_task(config).targets("train").tolist() == [2, 2, 1, 2, 0, 0, 3, 3]


def test_another_shape_of_a_character_is_the_same_and_another_meaning_is_not(tmp_path):
    """Full and half width, a typeface, the place in a word; superscripts, circles, fractions."""
    shapes = ["m2", "ｍ２", "𝐦𝟐", "ﾊﾞ", "バ", "\u0633", "\ufeb3", "a b", "a\u00a0b"]
    meanings = ["m²", "m₂", "①", "1", "½", "1/2", "x"]
    train = rows("classification", [*shapes, *meanings])
    loaded = load_task(TaskConfig(path=folder(tmp_path, train=train, dev=train), **OWN))
    *same, square, below, circle, one, half, quotient, _ = loaded.targets("train").tolist()
    assert same[0] == same[1] == same[2]
    assert (same[3], same[5], same[7]) == (same[4], same[6], same[8])
    apart = {same[0], square, below, circle, one, half, quotient}
    assert len(apart) == 7
    assert len(loaded.labels) == 4 + len(meanings)


def test_what_is_odd_about_classes_is_said(tmp_path):
    loaded = named(tmp_path, "mnli", train=[0, 0, 1], dev=[2, 0])
    assert loaded.describe() == [
        "train: 3 examples of JSON lines; contradiction 0, entailment 2, neutral 1",
        "dev: 2 examples of JSON lines; contradiction 1, entailment 1, neutral 0",
        "train has no example of the class contradiction, though dev has",
        "train has a single example of the class neutral",
    ]


def test_hundreds_of_classes_fit_in_a_line(tmp_path):
    made = rows("classification", list(range(300)))
    loaded = load_task(TaskConfig(path=folder(tmp_path, train=made, dev=made), **OWN))
    assert loaded.describe()[0].endswith("19 1 and 280 more classes")


# What GLUE's server hands out: no quoting, columns of each task's own, test sets without labels.
SERVED = {
    "cola": (None, ["gj04", "{label}", "", "{0}"], [0, 1]),
    "sst2": (["sentence", "label"], ["{0}", "{label}"], [0, 1]),
    "mrpc": (
        ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
        ["{label}", "7", "8", "{0}", "{1}"],
        [0, 1],
    ),
    "qqp": (
        ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        ["1", "2", "3", "{0}", "{1}", "{label}"],
        [0, 1],
    ),
    "stsb": (
        ["index", "genre", "sentence1", "sentence2", "score"],
        ["1", "news", "{0}", "{1}", "{label}"],
        [2.5, 5.0],
    ),
    "mnli": (
        ["index", "sentence1_parse", "sentence1", "sentence2", "label1", "gold_label"],
        ["1", "( x )", "{0}", "{1}", "neutral", "{label}"],
        ["neutral", "entailment", "contradiction"],
    ),
    "qnli": (
        ["index", "question", "sentence", "label"],
        ["1", "{0}", "{1}", "{label}"],
        ["entailment", "not_entailment"],
    ),
    "rte": (
        ["index", "sentence1", "sentence2", "label"],
        ["1", "{0}", "{1}", "{label}"],
        ["entailment", "not_entailment"],
    ),
    "wnli": (
        ["index", "sentence1", "sentence2", "label"],
        ["1", "{0}", "{1}", "{label}"],
        [0, 1],
    ),
}


def served(path, name):
    """The folder of a task as the server packs it."""
    header, cells, labels = SERVED[name]
    texts = [f'"{n}, an open mark.' for n in range(len(labels))]
    lines = ["\t".join(header)] if header else []
    for text, label in zip(texts, labels, strict=True):
        lines.append("\t".join(cells).format(text, text + "?", label=label))
    if name == "qqp":
        lines.append("1\t2\t3\tcut off")
    suffix = "_matched" if name == "mnli" else ""
    data = "\n".join(lines) + "\n"
    for split in ("train", f"dev{suffix}", "dev_mismatched"):
        if split != "dev_mismatched" or suffix:
            (path / f"{split}.tsv").write_text("\ufeff" * (name == "mrpc") + data)
    row = TASKS[name]
    columns = row.columns or row.features
    hidden = [
        "\t".join(["index", *columns]),
        *("\t".join(["0", t, t][: len(columns) + 1]) for t in texts),
    ]
    (path / f"test{suffix}.tsv").write_text("\n".join(hidden) + "\n")
    return str(path)


@pytest.mark.parametrize("name", SERVED)
def test_the_folders_of_glues_server_are_read_as_they_are(tmp_path, name):
    config = TaskConfig(name, served(tmp_path, name), check_counts="off")
    loaded = load_task(config)
    labels = SERVED[name][2]
    assert [e.texts[0] for e in loaded.splits["dev"]] == [
        f'"{n}, an open mark.' for n in range(len(labels))
    ]
    if name == "stsb":
        assert [e.label for e in loaded.splits["dev"]] == labels
    else:
        numbers = [TASKS[name].class_number(label) for label in labels]
        found = [TASKS[name].class_number(label) for label in classes(loaded, "dev")]
        assert found == numbers
    assert loaded.targets("test") is None
    assert loaded.notes == (
        (
            f"{tmp_path}/train.tsv: 1 row(s) with too few or too many columns are left out",
            f"{tmp_path}/dev.tsv: 1 row(s) with too few or too many columns are left out",
        )
        if name == "qqp"
        else loaded.notes
    )
    assert ("dev_mismatched" in loaded.splits) == (name == "mnli")
    counted = load_task(TaskConfig(name, config.path)).notes
    assert any("are expected of" in note for note in counted)


def test_labels_of_csv_are_numbers_if_all_look_like_it(tmp_path):
    def loaded(*labels):
        for split in ("train", "dev"):
            with (tmp_path / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *(("t", x) for x in labels)])
        return load_task(TaskConfig(path=str(tmp_path), **OWN)).labels

    assert loaded("10", "9", "-1") == (-1, 9, 10)
    assert loaded("1.0", "0.0") == (0, 1)
    assert loaded("1", "2", "3+") == ("1", "2", "3+")
    assert loaded("01", "1") == ("01", "1")
