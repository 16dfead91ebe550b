"""Tasks from JSONL folders: what is read, and one line for each thing that can be wrong."""

import gzip
import json
import lzma
import re

import numpy as np
import pytest

from gpt1_jax.data.labels import expected_score, score_distribution
from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.task_files import RowFormat, read_examples
from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.data.tasks import FIELDS, TASKS
from gpt1_jax.errors import UserError

OWN = {"shape": "classification", "metric": "accuracy"}
GOOD = [{"text": "one", "label": 0}, {"text": "two", "label": 1}]
CHOICES = {"context": "c", "question": "q", "choices": ["x", "y"], "label": 1}


def lines(rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def folder(tmp_path, train=GOOD, dev=GOOD, **others):
    for split, rows in {"train": train, "dev": dev, **others}.items():
        data = rows if isinstance(rows, bytes) else lines(rows)
        (tmp_path / f"{split}.jsonl").write_bytes(data)
    return str(tmp_path)


def fails(match, **config):
    with pytest.raises(UserError, match=match) as caught:
        load_task(TaskConfig(**config))
    assert "\n" not in str(caught.value)


def test_every_row_of_the_table_is_complete():
    for name, task in TASKS.items():
        assert (name, task.shape in FIELDS, task.metric in METRICS) == (task.name, True, True)
    assert {"classification", "entailment", "similarity", "multiple_choice"} == set(FIELDS)


def test_training_sets_have_the_sizes_that_the_paper_speaks_of():
    sizes = {name: row.counts["tfds"]["train"] for name, row in TASKS.items() if row.group == "NLI"}
    assert sizes["rte"] == 2490
    assert max(sizes, key=sizes.get) == "snli"
    assert round(sizes["snli"], -4) == 550_000
    assert round(TASKS["stsb"].counts["tfds"]["train"], -2) == 5_700


def test_labels_are_those_of_train_sorted(tmp_path):
    rows = [{"text": "t", "label": label} for label in ("no", "yes", "maybe", "no")]
    loaded = load_task(TaskConfig(path=folder(tmp_path, rows, rows[:1]), **OWN))
    assert loaded.labels == ("maybe", "no", "yes")
    assert loaded.n_outputs == 3
    assert loaded.task.name == tmp_path.name
    assert loaded.targets("train").tolist() == [1, 2, 0, 1]
    assert loaded.targets("train").dtype == np.int32


def test_integer_labels_sort_as_numbers(tmp_path):
    rows = [{"text": "t", "label": label} for label in (10, 9, -1, 9.0)]
    loaded = load_task(TaskConfig(path=folder(tmp_path, rows, rows), **OWN))
    assert loaded.labels == (-1, 9, 10)
    assert loaded.targets("dev").tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("given", [(1, 0, 7), ("1", "0", "7")])
def test_given_labels_keep_their_order(tmp_path, given):
    loaded = load_task(TaskConfig(path=folder(tmp_path), labels=given, **OWN))
    assert loaded.labels == (1, 0, 7)
    assert loaded.targets("train").tolist() == [1, 0]


def test_a_name_brings_shape_and_metric_and_they_can_be_overridden(tmp_path):
    path = folder(tmp_path)
    assert load_task(TaskConfig("cola", path)).task.metric == "matthews"
    assert load_task(TaskConfig("cola", path, metric="accuracy")).task.metric == "accuracy"
    assert load_task(TaskConfig("rte", path, **OWN)).task.shape == "classification"
    assert load_task(TaskConfig("mine", path, **OWN)).task.name == "mine"


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_compressed_files(tmp_path, suffix, compress):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.jsonl.{suffix}").write_bytes(compress(lines(GOOD)))
    loaded = load_task(TaskConfig(path=str(tmp_path), **OWN))
    assert [example.texts for example in loaded.splits["dev"]] == [("one",), ("two",)]
    (tmp_path / f"dev.jsonl.{suffix}").write_bytes(compress(lines(GOOD))[:-9])
    fails(rf"dev\.jsonl\.{suffix}: damaged or cut off", path=str(tmp_path), **OWN)


def test_lines_are_counted_over_blank_ones_and_other_line_ends(tmp_path):
    data = b'\xef\xbb\xbf{"text": "a\\u2028b", "label": 0}\r\n\r\n{"text": "two", "label": 1}'
    loaded = load_task(TaskConfig(path=folder(tmp_path, data), **OWN))
    train = loaded.splits["train"]
    assert [(example.texts[0], example.line) for example in train] == [("a\u2028b", 1), ("two", 3)]


def test_test_split_may_lack_labels_but_only_all_of_them(tmp_path):
    unlabelled = [{"text": "three"}, {"text": "four"}]
    path = folder(tmp_path, test=unlabelled)
    loaded = load_task(TaskConfig(path=path, **OWN))
    assert [example.label for example in loaded.splits["test"]] == [None, None]
    assert loaded.targets("test") is None
    folder(tmp_path, test=[*GOOD, *unlabelled])
    fails(r"test\.jsonl, line 3: no label; other lines have one", path=path, **OWN)


def test_multiple_choice(tmp_path):
    bare = {"context": "", "question": "", "choices": ["x", "y"], "label": 0}
    path = folder(tmp_path, [CHOICES | {"choices": ["x", ""]}, bare], [CHOICES])
    loaded = load_task(TaskConfig("codah", path))
    assert loaded.n_outputs == 1
    assert loaded.labels == (0, 1)
    assert loaded.targets("train").tolist() == [1, 0]
    assert loaded.splits["train"][0].texts == ("c", "q")
    assert loaded.splits["train"][0].choices == ("x", "")
    assert loaded.splits["train"][1].texts == ("", "")


def test_scores_become_distributions(tmp_path):
    rows = [{"text_a": "a", "text_b": "b", "label": label} for label in (0, 3.8, 5.0)]
    loaded = load_task(TaskConfig("stsb", folder(tmp_path, rows, rows)))
    assert loaded.n_outputs == 6
    expected = [[1, 0, 0, 0, 0, 0], [0, 0, 0, 0.2, 0.8, 0], [0, 0, 0, 0, 0, 1]]
    np.testing.assert_allclose(loaded.targets("train"), expected, atol=1e-6)


def test_expected_score_inverts_the_distribution():
    scores = np.linspace(0.0, 5.0, 101)
    distribution = score_distribution(scores)
    np.testing.assert_allclose(distribution.sum(axis=1), 1.0, atol=1e-6)
    assert distribution.min() >= 0.0
    np.testing.assert_allclose(expected_score(distribution), scores, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (b'{"text": "one", "label": 0', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'["one", 0]', "is not an object"),
        (b'{"text": "\xe9", "label": 0}', "not UTF-8 at byte 10"),
        (b'{"label": 0}', "no key text"),
        (b'{"premise": "p", "hypothesis": "h", "label": 0}', "task.shape=entailment"),
        (b'{"text": 3, "label": 0}', "text is 3; expected a string"),
        (b'{"text": " \\n", "label": 0}', "text is empty"),
        (b'{"text": "\\ud800", "label": 0}', "half a surrogate pair"),
        (b'{"text": "one"}', "no label"),
        (b'{"text": "one", "label": null}', "no label"),
        (b'{"text": "one", "text": "two", "label": 0}', 'the key "text" stands there twice'),
        (b'{"text": "one", "label": true}', '"true"'),
        (b'{"text": "one", "label": 0.5}', "label is 0.5; expected an integer or a string"),
        (b'{"text": "one", "label": NaN}', "NaN is no number of JSON"),
        (b'{"text": "one", "label": [0]}', "expected an integer or a string"),
        (b'{"text": "one", "label": ""}', "expected an integer or a string"),
        (b'{"text": "one", "label": "zero"}', '"zero"'),
    ],
)
@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_bad_line_is_named(tmp_path, split, line, match):
    path = folder(tmp_path, **{split: lines(GOOD) + line + b"\n"})
    fails(rf"{split}\.jsonl, line 3: .*{re.escape(match)}", path=path, **OWN)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_label_outside_the_set(tmp_path, split):
    path = folder(tmp_path, **{split: [*GOOD, {"text": "three", "label": 2}]})
    fails(rf"{split}\.jsonl, line 3: label 2 is outside the set 0, 1", path=path, **OWN)


def test_label_outside_the_given_set(tmp_path):
    config = {"path": folder(tmp_path), **OWN}
    fails(r"train\.jsonl, line 2: label 1 is outside the set 0, 7", labels=(0, 7), **config)
    fails("labels of the file are integers", labels=("no", "yes"), **config)
    fails("expected two or more labels, each once", labels=(0, 0, 1), **config)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"label": 2}, "label 2 is outside the set 0, 1"),
        ({"choices": ["x", "y", "z"]}, "3 choices, but 2 on line 1"),
        ({"choices": ["x"]}, ".*expected a list of two or more"),
        ({"choices": "xy"}, ".*expected a list of two or more"),
        ({"choices": ["x", 2]}, r"choices\[1\] is 2; expected a string"),
        ({"choices": ["", " "]}, "all choices are empty"),
        ({"context": "", "question": " ", "choices": ["x", ""]}, r"choices\[1\] is empty, and so"),
    ],
)
def test_bad_choices(tmp_path, change, match):
    path = folder(tmp_path, [CHOICES], [CHOICES, CHOICES | change])
    fails(rf"dev\.jsonl, line 2: {match}", name="codah", path=path)


def test_splits_have_as_many_choices(tmp_path):
    path = folder(tmp_path, [CHOICES], [CHOICES | {"choices": ["x", "y", "z"]}])
    fails(r"dev\.jsonl, line 1: 3 choices, but 2 in train\.jsonl", name="codah", path=path)


@pytest.mark.parametrize("label", [5.1, -0.1, "3", True])
def test_bad_scores(tmp_path, label):
    row = {"text_a": "a", "text_b": "b", "label": 1}
    path = folder(tmp_path, [row], [row, row | {"label": label}])
    fails(r"dev\.jsonl, line 2: .*expected a number from 0 to 5", name="stsb", path=path)


def test_folders(tmp_path):
    fails("is not a folder or a file", path=str(tmp_path / "absent"), **OWN)
    path = folder(tmp_path)
    (tmp_path / "train.jsonl.gz").write_bytes(b"")
    fails(r"train\.jsonl stands beside train\.jsonl\.gz", path=path, **OWN)
    (tmp_path / "train.jsonl.gz").unlink()
    (tmp_path / "dev.jsonl").write_bytes(b"\n")
    fails(r"dev\.jsonl: no examples", path=path, **OWN)
    (tmp_path / "dev.jsonl").unlink()
    fails(r"has no dev\.jsonl", path=path, **OWN)


def test_configs(tmp_path):
    path = folder(tmp_path)
    fails("set task.name, or task.path")
    fails("task.path is needed for task.name=codah", name="codah")
    fails(r"task.name=rtee is not known \(did you mean rte\?\)", name="rtee", path=path)
    fails("task.shape is needed", path=path)
    fails("task.metric is needed", path=path, shape="classification")
    fails("does not fit multiple_choice", path=path, shape="multiple_choice", metric="f1")


def test_classes_and_metrics_fit(tmp_path):
    path = folder(tmp_path, GOOD[:1] * 2, GOOD[:1])
    fails("expected two or more classes", path=path, **OWN)
    three = [*GOOD, {"text": "three", "label": 2}]
    path = folder(tmp_path, three, three)
    fails("3 classes, but task.metric=f1", path=path, shape="classification", metric="f1")
    path = folder(tmp_path, [CHOICES], [CHOICES])
    fails("scores and choices have none", name="codah", path=path, labels=(0, 1))


def test_read_gives_labels_as_written(tmp_path):
    (tmp_path / "new.jsonl").write_bytes(lines([{"text": "a", "label": "x"}, {"text": "b"}]))
    examples = read_examples(tmp_path / "new.jsonl", RowFormat("classification"))
    assert [example.label for example in examples] == ["x", None]


def _counts_of_the_readme(real_data) -> dict[tuple[str, str], tuple[int, str]]:
    row = re.compile(
        r"^\| `tasks/(\w+)/(\w+)\.jsonl\.xz` \| (\d+) \| \d+ \| (.*) \|$", re.MULTILINE
    )
    found = row.findall((real_data / "README.md").read_text())
    return {(name, split): (int(rows), labels) for name, split, rows, labels in found}


@pytest.mark.slow
def test_real_tasks_have_the_counts_of_their_readme(real_data):
    expected = _counts_of_the_readme(real_data)
    assert len(expected) == 20
    found = {}
    for name in sorted({name for name, _ in expected}):
        config = TaskConfig(name, str(real_data / "tasks" / name), ambiguous_pronouns="first")
        loaded = load_task(config)
        for split, examples in loaded.splits.items():
            labels = [example.label for example in examples]
            if loaded.task.regression:
                counts = f"mean {np.mean(labels):.2f}"
            else:
                pairs = zip(loaded.labels, np.bincount(labels), strict=True)
                counts = ", ".join(f"{label}: {count}" for label, count in pairs)
            found[name, split] = (len(examples), counts)
    assert found == expected


OF_SHAPE = {
    "classification": {"text": "t"},
    "entailment": {"premise": "p", "hypothesis": "h"},
    "similarity": {"text_a": "a", "text_b": "b"},
    "multiple_choice": {"context": "c", "question": "q", "choices": ["x", "y"]},
}


@pytest.mark.parametrize("held", OF_SHAPE)
@pytest.mark.parametrize("asked", OF_SHAPE)
def test_a_folder_of_another_shape_is_named(tmp_path, asked, held):
    rows = [OF_SHAPE[held] | {"label": label} for label in (0, 1)]
    config = {"path": folder(tmp_path, rows, rows), "shape": asked, "metric": "accuracy"}
    if asked == held:
        assert len(load_task(TaskConfig(**config)).splits["dev"]) == 2
    else:
        keys = f"its keys are those of task.shape={held}"
        fails(rf"train\.jsonl, line 1: no key \w+; {asked} needs .*{keys}", **config)


def test_values_outside_their_sets(tmp_path):
    path = folder(tmp_path)
    fails(
        "task.truncation=halves is not for task.shape=classification; expected longest_first",
        path=path,
        **OWN,
        truncation="halves",
    )
    fails(r"task.split_seed=-1; expected 0 to", path=path, split_seed=-1, **OWN)
    fails("rte of TFDS is entailment", name="rte", shape="similarity")


def test_a_task_reports_all_of_its_metrics_and_its_truncation(tmp_path):
    row = {"text_a": "a", "text_b": "b"}
    path = folder(tmp_path, *[[row | {"label": label} for label in (0, 1)]] * 2)
    assert load_task(TaskConfig("mrpc", path)).task.metrics == ("f1", "accuracy")
    assert load_task(TaskConfig("mrpc", path, metric="accuracy")).task.metrics == ("accuracy",)
    assert load_task(TaskConfig("mrpc", path)).task.truncation == "longest_first"
    assert load_task(TaskConfig("mrpc", path, truncation="halves")).task.truncation == "halves"
    own = load_task(TaskConfig(path=path, shape="similarity", metric="f1"))
    assert own.task.metrics == ("f1",)
