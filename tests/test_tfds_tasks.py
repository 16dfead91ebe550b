"""Every task as TensorFlow Datasets has it: features, labels, splits, and the traps of each set.

Records pass through TFDS's own features, and some tests build a whole set from files of its kind.
"""

import importlib.resources
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gpt1_jax.data.task_loading import TaskConfig, load_task
from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.text import tfds_records

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.slow  # TensorFlow takes seconds to load, and each process would


@pytest.fixture
def mocked(monkeypatch):
    """Loads a task of a TFDS whose splits have the given records."""
    tf = pytest.importorskip("tensorflow")
    monkeypatch.setattr(tfds_records, "require_reachable", lambda urls: None)

    def loading(records, only=None, **config):
        def as_dataset(builder, split, **_):
            name = builder.name
            if builder.builder_config:
                name += "/" + builder.builder_config.name
            features = builder.info.features
            rows = records[name, split]
            data = [features.serialize_example(features.encode_example(row)) for row in rows]
            return tf.data.Dataset.from_tensor_slices(data).map(features.deserialize_example)

        with tfds.testing.mock_data(as_dataset_fn=as_dataset):
            return load_task(TaskConfig(**config), only)

    return loading


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Loads a task that TFDS builds from files which a test writes, in place of its download."""
    # TFDS 4.9.10 imports this package without asking for it.
    monkeypatch.setitem(sys.modules, "importlib_resources", importlib.resources)

    def loading(download, only=None, **config):
        manager = tfds.download.DownloadManager
        monkeypatch.setattr(manager, "download_and_extract", lambda self, url: download)
        monkeypatch.setattr(tfds_records, "require_reachable", lambda urls: None)
        return load_task(TaskConfig(**config, data_dir=str(tmp_path / "tfds")), only)

    return loading


def glue(name, texts, labels, splits=("train", "validation", "test"), hidden=-1):
    """Records of a GLUE set, the test set's in another order than that of its file."""
    keys = TASKS[name].features
    rows = [
        dict(zip(keys, texts, strict=True)) | {"label": label, "idx": index}
        for index, label in enumerate(labels)
    ]
    test = [row | {"label": hidden, keys[0]: f"row {row['idx']}"} for row in rows]
    builder = f"glue/{name}"
    return {(builder, split): test[::-1] if split.startswith("test") else rows for split in splits}


@pytest.mark.parametrize(
    ("name", "labels", "names"),
    [
        ("cola", (0, 1), [0, 1]),
        ("sst2", (1, 0), [1, 0]),
        ("mrpc", (1, 0), [1, 0]),
        ("qqp", (0, 1), [0, 1]),
        ("qnli", (0, 1), ["entailment", "not_entailment"]),
        ("rte", (1, 0), ["not_entailment", "entailment"]),
        # Of all of GLUE only this one begins with the negative class.
        ("wnli", (0, 1), ["not_entailment", "entailment"]),
    ],
)
def test_glue(mocked, name, labels, names):
    row = TASKS[name]
    texts = ("one", "two")[: len(row.features)]
    records = glue(name, texts, labels)
    loaded = mocked(records, name=name)
    assert set(loaded.splits) == {"train", "dev"}
    for split in ("train", "dev"):
        examples = loaded.splits[split]
        assert [example.texts for example in examples] == [texts, texts]
        assert [loaded.labels[example.label] for example in examples] == names
    assert loaded.labels == tuple(sorted(names))
    test = mocked(records, "test", name=name)
    assert [example.texts[0] for example in test.splits["test"]] == ["row 0", "row 1"]
    assert test.targets("test") is None
    with pytest.raises(UserError, match=r"test split of tfds .* hidden; predict --glue"):
        test.require_labels("test")


def test_stsb_has_scores_and_minus_one_where_they_are_hidden(mocked):
    records = glue("stsb", ("a", "b"), (0.0, 3.8), hidden=-1.0)
    loaded = mocked(records, name="stsb")
    np.testing.assert_allclose([e.label for e in loaded.splits["dev"]], [0, 3.8], atol=1e-6)
    assert loaded.task.metrics == ("pearson", "spearman")
    assert mocked(records, "test", name="stsb").targets("test") is None


def test_mnli_has_two_dev_and_two_test_sets(mocked):
    splits = ("train", "validation_matched", "test_matched", "test_mismatched")
    records = glue("mnli", ("p", "h"), (2, 0, 1), splits)
    records |= {("glue/mnli", "validation_mismatched"): records["glue/mnli", "train"][:1]}
    loaded = mocked(records, name="mnli")
    assert loaded.labels == ("contradiction", "entailment", "neutral")
    assert loaded.targets("dev").tolist() == [0, 1, 2]
    mismatched = mocked(records, "dev_mismatched", name="mnli")
    assert mismatched.targets("dev_mismatched").tolist() == [0]
    assert mocked(records, "test_mismatched", name="mnli").targets("test_mismatched") is None


def test_the_diagnostics_are_a_hidden_test_set_alone(mocked):
    records = glue("ax", ("p", "h"), (0, 0), ("test",))
    loaded = mocked(records, "test", name="ax")
    assert loaded.labels == ("contradiction", "entailment", "neutral")
    assert loaded.targets("test") is None
    with pytest.raises(UserError, match=r"tfds glue/ax has no train split; .* it has test"):
        mocked(records, name="ax")


def test_snli_pairs_without_a_gold_label_are_left_out_and_counted(mocked):
    row = {"premise": "p", "hypothesis": "h"}
    rows = [row | {"label": label} for label in (1, -1, 0, 2, -1)]
    loaded = mocked({("snli", "train"): rows, ("snli", "validation"): rows[2:]}, name="snli")
    assert loaded.targets("train").tolist() == [2, 1, 0]
    assert [example.line for example in loaded.splits["train"]] == [1, 3, 4]
    assert loaded.notes == (
        "tfds snli, split train: 2 examples without a gold label are left out",
        "tfds snli, split validation: 1 examples without a gold label are left out",
    )


def article(number, questions, answers="A"):
    return {
        "article": f"article {number}",
        "questions": [f"question {number}{place}" for place in range(questions)],
        "options": [[f"{letter}{place}" for letter in "abcd"] for place in range(questions)],
        "answers": list(answers[:1] * questions),
        "example_id": f"high{number}.txt",
    }


@pytest.mark.parametrize(
    ("name", "levels"),
    [("race", ("middle", "high")), ("race_middle", ("middle",)), ("race_high", ("high",))],
)
def test_race_articles_become_an_example_for_each_question(mocked, name, levels):
    records = {}
    for level in levels:
        for split in ("train", "dev", "test"):
            records[f"race/{level}", split] = [article(1, 3, "D"), article(2, 1, "B")]
    loaded = mocked(records, name=name)
    dev = loaded.splits["dev"]
    assert [example.texts for example in dev[:4]] == [
        ("article 1", "question 10"),
        ("article 1", "question 11"),
        ("article 1", "question 12"),
        ("article 2", "question 20"),
    ]
    assert dev[1].choices == ("a1", "b1", "c1", "d1")
    assert loaded.targets("dev").tolist() == [3, 3, 3, 1] * len(levels)
    assert loaded.task.truncation == "context"
    # Unlike GLUE's, the labels of the test set are public.
    assert mocked(records, "test", name=name).targets("test").tolist() == [3, 3, 3, 1] * len(levels)


def test_race_answers_are_letters(mocked):
    bad = {("race/high", split): [article(1, 2, "E")] for split in ("train", "dev")}
    with pytest.raises(UserError, match=r"split train: 4 options and the answer 'E' in high1.txt"):
        mocked(bad, name="race_high")


def story(number, label):
    return {
        "context": f"{number}. It rained.",
        "endings": [f"{number} sun.", f"{number} rain."],
        "label": label,
    }


@pytest.mark.parametrize("name", ["story_cloze", "story_cloze_2018"])
def test_story_cloze_divides_its_validation_file(mocked, name):
    builder = TASKS[name].builders[0]
    stories = [story(number, 1 + number % 2) for number in range(10)]
    hidden = [story(number, -1) for number in range(3)]
    records = {(builder, "validation"): stories, (builder, "test"): hidden}
    loaded = mocked(records, name=name)
    train, dev = loaded.splits["train"], loaded.splits["dev"]
    assert (len(train), len(dev)) == (8, 2)
    assert {e.texts[0] for e in train + dev} == {row["context"] for row in stories}
    assert all(e.label == (int(e.texts[0].split(".")[0]) % 2) for e in train + dev)
    assert train[0].texts[1] == ""
    assert loaded.task.truncation == "halves"
    test = mocked(records, "test", name=name)
    with pytest.raises(UserError, match=r"test split of .* hidden$"):
        test.require_labels("test")
    other = mocked(records, name=name, split_seed=1)
    assert other.splits["dev"] != dev


def test_a_right_ending_is_the_first_or_the_second(mocked):
    records = {("story_cloze/2016", "validation"): [story(0, 1), story(1, 0)]}
    with pytest.raises(
        UserError, match=r"split validation: the right ending is 0; expected 1 or 2"
    ):
        mocked(records, name="story_cloze")


def pronoun(sentence, candidates, label=0):
    return {"sentence": sentence, "pronoun": "it", "candidates": candidates, "label": label}


def test_definite_pronouns(mocked):
    rows = []
    for number in range(20):
        candidates = [f"the cat {number}", f"the mat {number}"]
        rows.append(pronoun(f"It sat: it was tired {number}.", candidates))
        rows.append(pronoun(f"It sat: it was soft {number}.", candidates[::-1]))
    rows.append(pronoun("it fits where it is.", ["a", "b"], 1))
    records = {(TASKS["dprd"].builders[0], split): rows for split in ("train", "test")}
    loaded = mocked(records, name="dprd")
    train, dev = loaded.splits["train"], loaded.splits["dev"]
    # Twins share their candidates, and none has a twin on the other side.
    assert (len(train), len(dev)) == (36, 4)
    assert not {frozenset(e.choices) for e in train} & {frozenset(e.choices) for e in dev}
    assert {example.pronoun_start for example in train + dev} == {8}
    assert loaded.notes == (
        "tfds definite_pronoun_resolution, split train: 1 of 41 examples are left out, whose "
        "pronoun stands in several places (task.ambiguous_pronouns=first keeps them)",
    )
    test = mocked(records, "test", name="dprd", ambiguous_pronouns="first").splits["test"]
    assert test[-1].pronoun_start == 0
    assert (test[-1].label, test[-1].choices) == (1, ("a", "b"))


SCITAIL = [
    ("A cell divides.", "Cells divide.", "entails"),
    ('"Quoted, it says.', "Nothing.", "neutral"),
    ('The second quote: "here.', "Nothing at all.", "neutral"),
    ("Iron rusts.", "Rust is iron.", "neutral"),
    ("Water is wet.", "Wetness.", "entails"),
]


def write_scitail(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        rows = SCITAIL if split == "train" else SCITAIL[:1] + SCITAIL[3:]
        lines = ["\t".join(row) + "\n" for row in rows]
        (folder / f"scitail_1.0_{split}.tsv").write_text("".join(lines))
    return folder


def test_scitail_by_tfds_loses_rows_that_the_files_have(built, tmp_path):
    """What TFDS takes for one quoted field is two rows here; its counts are checked, since it wrote
    them down."""
    folder = write_scitail(tmp_path / "SciTailV1.1" / "tsv_format")
    loaded = built(tmp_path, name="scitail")
    assert loaded.labels == ("entails", "neutral")
    assert sorted(loaded.targets("dev").tolist()) == [0, 0, 1]
    assert len(loaded.splits["train"]) == 4
    where = "tfds sci_tail, split"
    assert loaded.notes == (
        f"{where} train: 4 examples, but 23097 are expected of scitail",
        f"{where} validation: 3 examples, but 1304 are expected of scitail",
    )
    with pytest.raises(UserError, match=r"4 examples, but 23097 are expected.*check_counts=warn"):
        built(tmp_path, name="scitail", check_counts="strict")
    assert not built(tmp_path, name="scitail", check_counts="off").notes
    whole = load_task(TaskConfig("scitail", str(folder)))
    assert [e.texts for e in whole.splits["train"]] == [row[:2] for row in SCITAIL]
    assert whole.labels == loaded.labels


def test_an_article_of_race_in_the_files_of_its_authors(built, tmp_path):
    for split in ("train", "dev", "test"):
        folder = tmp_path / "RACE" / split / "middle"
        folder.mkdir(parents=True)
        for number in (1, 2):
            row = article(number, number + 1, "C")
            text = json.dumps(row | {"id": row["example_id"]})
            (folder / f"{number}.txt").write_text(text)
    loaded = built(type(tfds.core.Path(tmp_path))(tmp_path), name="race_middle")
    assert loaded.targets("dev").tolist() == [2] * 5
    assert "split dev: 5 examples, but 1436 are expected of race_middle" in loaded.notes[1]


def test_tfds_that_cannot_provide_a_set_is_said_in_a_line(monkeypatch, tmp_path):
    class Unreachable:
        url_infos = None

        def is_prepared(self):
            return False

        def download_and_prepare(self):
            raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds, "builder", lambda name, data_dir: Unreachable())
    with pytest.raises(UserError) as caught:
        load_task(TaskConfig("rte"))
    assert str(caught.value) == (
        "TFDS cannot provide glue/rte, split train (no route to host); give task.path, a folder of "
        "JSONL files"
    )
    find = tfds_records.importlib.util.find_spec
    monkeypatch.setattr(
        tfds_records.importlib.util,
        "find_spec",
        lambda name: None if name == "tensorflow_datasets" else find(name),
    )
    with pytest.raises(UserError, match=r"tfds glue/rte needs tensorflow and tensorflow-datasets"):
        load_task(TaskConfig("rte"))


def test_without_a_network_a_set_that_is_not_there_fails_at_once(monkeypatch, tmp_path):
    """TFDS itself would try for minutes. Nothing listens at the address of the proxy."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"glue/rte \(no connection to .*task\.path"):
        load_task(TaskConfig("rte", data_dir=str(tmp_path)))
    assert time.monotonic() - began < 2 * tfds_records.PATIENCE


def test_every_task_of_tfds_is_one_that_tfds_has():
    for row in TASKS.values():
        for name in row.builders:
            with tfds.testing.mock_data():
                features = tfds.builder(name).info.features
            assert set(row.features) <= set(features)
            if row.labels and isinstance(row.labels[0], str):
                assert list(row.labels) == features["label"].names
