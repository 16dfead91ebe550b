"""`predict`: rows keep their order and their keys, and what was predicted stands beside them."""

import contextlib
import csv
import io
import json
import math
import os

import numpy as np
import pyarrow
import pytest
import runs
from pyarrow import parquet
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from gpt1_jax.__main__ import main
from gpt1_jax.files.table_files import open_table
from gpt1_jax.inference import row_progress


def called(capsys, *words, status=0):
    """The last line of a verb as JSON, and what it said."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    out, err = capsys.readouterr()
    return json.loads(out.splitlines()[-1]) if out else None, err


def training(pretrained, folder, argument):
    """The command to fine-tune in `folder`, with the settings that other tests compile for."""
    flags = [f"--config.{key}={value}" for key, value in runs.FINE_TUNING.items()]
    config = f"--config=configs/finetune.py:{argument}"
    return ["train", config, f"--workdir={folder / 'run'}", f"--initial={pretrained}", *flags]


@pytest.fixture(scope="module")
def reviews(pretrained, tmp_path_factory):
    """The folder of a run on a single file of reviews, and what was said meanwhile."""
    folder = tmp_path_factory.mktemp("reviews")
    with (folder / "reviews.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "Review", "stars"])
        draw = runs.random.Random(3)
        for number in range(40):
            text = f'{"sun" if number % 2 else "rain"}, "{runs.sentence(draw, 3)}"'
            writer.writerow(
                [number, text, "good" if number % 2 else ("bad", "bad ")[number % 4 > 1]]
            )
    argument = f"path={folder / 'reviews.csv'},shape=classification,metric=accuracy,"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(training(pretrained, folder, argument + "columns=text:review,label:stars")) == 0
    return folder, said.getvalue()


def test_what_the_start_says_of_a_table(reviews):
    _, said = reviews
    assert "divided into 36 rows for train and 4 for dev" in said
    assert 'labels are read "bad " as "bad"' in said
    assert "examples of CSV; text from Review, label from stars; bad " in said


def test_rows_of_csv_come_back_as_csv_with_their_columns(reviews, capsys):
    folder, _ = reviews
    flags = (f"--workdir={folder / 'run'}", f"--input={folder / 'reviews.csv'}")
    result, err = called(capsys, "predict", *flags, f"--output={folder / 'out.csv'}")
    assert "reviews.csv: CSV" in err
    with (folder / "reviews.csv").open(encoding="utf-8-sig", newline="") as file:
        before = list(csv.DictReader(file))
    with (folder / "out.csv").open(encoding="utf-8", newline="") as file:
        after = list(csv.DictReader(file))
    added = ["label", "probability", "probabilities", "gold"]
    assert list(after[0]) == [*before[0], *added]
    assert [{key: row[key] for key in before[0]} for row in after] == before
    gold, found = ([row[key] for row in after] for key in ("gold", "label"))
    assert gold == ["bad", "good"] * 20  # of which some were written "bad "
    assert result["labels"] == ["bad", "good"]
    assert result["accuracy"] == accuracy_score(gold, found)
    expected = confusion_matrix(gold, found, labels=result["labels"])
    np.testing.assert_array_equal(result["confusion_matrix"], expected)
    for row in after:
        probabilities = json.loads(row["probabilities"])
        assert float(row["probability"]) == max(probabilities)
        assert result["labels"][int(np.argmax(probabilities))] == row["label"]


def test_rows_of_json_keep_their_keys_and_gold_where_they_have_it(reviews, capsys, tmp_path):
    folder, _ = reviews
    rows = [
        {"name": "first", "review": "sun", "more": [1, {"a": None}]},
        {"review": "rain", "stars": "Good"},
        {"review": "rain", "stars": "unheard of"},
        {"review": "rain", "stars": None},
        {"review": "rain", "stars": " ", "name": "last"},
    ]
    path = runs.write_jsonl(tmp_path / "rows.jsonl", rows)
    flags = (
        f"--workdir={folder / 'run'}",
        f"--input={path}",
        f"--output={tmp_path / 'out.jsonl'}",
    )
    result, err = called(capsys, "predict", *flags)
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [{key: row[key] for key in rows[n]} for n, row in enumerate(found)] == rows
    assert [row.get("gold") for row in found] == [None, "good", "unheard of", None, None]
    assert ["gold" in row for row in found] == [False, True, True, False, False]
    assert (result["examples"], result["labelled"]) == (5, 1)
    assert "rows whose label the task has not: 1" in err
    assert np.sum(result["confusion_matrix"]) == 1
    # To a table of columns go all keys, with empty cells where a row has none.
    called(capsys, "predict", *flags[:2], f"--output={tmp_path / 'out.tsv'}")
    with (tmp_path / "out.tsv").open(newline="") as file:
        table = list(csv.DictReader(file, dialect="excel-tab"))
    assert [row["name"] for row in table] == ["first", "", "", "", "last"]
    assert table[0]["more"] == '[1, {"a": null}]'
    result, _ = called(
        capsys, "predict", *flags[:2], f"--output={tmp_path / 'x.parquet'}", status=2
    )
    assert result is None
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize("name", ["out.csv", "out.tsv", "out.jsonl"])
def test_each_row_is_one_row_whatever_ends_lines_in_it(reviews, capsys, tmp_path, name):
    folder, _ = reviews
    texts = ["sun\rrain", "sun\nrain", "sun\r\nrain", 'a "b\rc"', "plain"]
    source = runs.write_jsonl(tmp_path / "rows.jsonl", [{"review": text} for text in texts])
    flags = (f"--workdir={folder / 'run'}", f"--input={source}", f"--output={tmp_path / name}")
    called(capsys, "predict", *flags)
    table = open_table(tmp_path / name)
    assert [row["review"] for _, row in table.rows()] == texts


@pytest.mark.parametrize(
    ("row", "lost"),
    [
        ({"review": "sun", "gold": "good"}, "gold"),
        ({"review": "sun", "stars": "good", "probability": 0.5}, "probability"),
        ({"review": "sun", "stars": "good", "label": "mine"}, "label"),
    ],
)
def test_a_column_that_would_be_lost_is_said(reviews, capsys, tmp_path, row, lost):
    folder, _ = reviews
    source, output = runs.write_jsonl(tmp_path / "rows.jsonl", [row]), tmp_path / "out.jsonl"
    flags = (f"--workdir={folder / 'run'}", f"--input={source}", f"--output={output}")
    _, said = called(capsys, "predict", *flags, status=2)
    assert f"the column {lost} would be lost" in said
    assert not output.exists()


@pytest.mark.parametrize("name", ["out.jsonl.gz", "out.csv.XZ"])
def test_what_is_written_is_not_packed(reviews, capsys, tmp_path, name):
    folder, _ = reviews
    flags = (f"--workdir={folder / 'run'}", f"--input={folder / 'reviews.csv'}")
    _, said = called(capsys, "predict", *flags, f"--output={tmp_path / name}", status=2)
    assert "give a plain name" in said
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("verb", ["predict", "score"])
def test_a_pipe_is_called_one(reviews, pretrained, tmp_path, verb):
    """As a shell makes them, in place of a file that is read more than once."""
    os.mkfifo(tmp_path / "rows")
    workdir = pretrained if verb == "score" else reviews[0] / "run"
    words = [
        verb,
        f"--workdir={workdir}",
        f"--input={tmp_path / 'rows'}",
        f"--output={tmp_path / 'x'}",
    ]
    runs.refused(words, "rows is a pipe or a device, which is read only once; save it to a file")


def test_numbers_that_json_has_not(reviews, capsys, tmp_path):
    folder, _ = reviews
    values = {"x": [math.inf, math.nan], "list": [[1.0, math.nan], [-math.inf]]}
    rows = pyarrow.table({"review": ["sun", "rain"], **values})
    parquet.write_table(rows, tmp_path / "rows.parquet")
    flags = (f"--workdir={folder / 'run'}", f"--input={tmp_path / 'rows.parquet'}")
    called(capsys, "predict", *flags, f"--output={tmp_path / 'out.jsonl'}")
    found = [row for _, row in open_table(tmp_path / "out.jsonl").rows()]
    assert [(row["x"], row["list"]) for row in found] == [("inf", [1.0, None]), (None, ["-inf"])]


def test_another_file_is_evaluated_as_a_whole(reviews, capsys, tmp_path):
    folder, _ = reviews
    path = tmp_path / "new.json"
    path.write_text(json.dumps([{"review": "sun", "stars": "good"}] * 7))
    result, _ = called(capsys, "evaluate", f"--workdir={folder / 'run'}", f"--task={path}")
    assert result["metrics"]["dev"]["accuracy"] in (0, 1)


@pytest.fixture(scope="module")
def paraphrases(pretrained, tmp_path_factory):
    """A run on MRPC whose folder says its classes in words and hides those of its test set."""
    folder = tmp_path_factory.mktemp("mrpc")

    def rows(count):
        return [
            {
                "text_a": f"{'sun' if n % 3 else 'rain'} on the hill {n}",
                "text_b": f"the cat sat {n}",
                "label": "equivalent" if n % 3 else "not_equivalent",
            }
            for n in range(count)
        ]

    runs.write_jsonl(folder / "task" / "train.jsonl", rows(16))
    runs.write_jsonl(folder / "task" / "dev.jsonl", rows(9))
    hidden = [row | {"label": -1} for row in rows(4)]
    runs.write_jsonl(folder / "task" / "test.jsonl", hidden)
    assert main(training(pretrained, folder, f"mrpc,path={folder / 'task'}")) == 0
    return folder


def test_the_f1_is_that_of_the_positive_class(paraphrases, capsys):
    flags = (f"--workdir={paraphrases / 'run'}",)
    result, _ = called(capsys, "evaluate", *flags)
    measured = result["metrics"]["dev"]
    path, output = paraphrases / "task" / "dev.jsonl", paraphrases / "out.jsonl"
    result, _ = called(capsys, "predict", *flags, f"--input={path}", f"--output={output}")
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    gold, found = ([answer[key] for answer in answers] for key in ("gold", "label"))
    expected = f1_score(gold, found, pos_label="equivalent", zero_division=0.0)
    assert measured["f1"] == result["f1"] == pytest.approx(expected)
    assert measured["accuracy"] == result["accuracy"] == accuracy_score(gold, found)


def test_hidden_test_labels_are_refused_by_evaluate_and_predicted_for_glue(paraphrases, capsys):
    flags = (f"--workdir={paraphrases / 'run'}",)
    _, err = called(capsys, "evaluate", *flags, "--split=test", status=2)
    assert "hidden" in err
    called(capsys, "predict", "--glue", *flags, f"--output={paraphrases / 'MRPC.tsv'}")
    lines = (paraphrases / "MRPC.tsv").read_text().splitlines()
    assert len(lines) == 5
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


def test_how_far_it_has_come_is_said_where_no_terminal_is(paraphrases, capsys, monkeypatch):
    monkeypatch.setattr(row_progress, "EVERY", 0)
    path, output = paraphrases / "task" / "dev.jsonl", paraphrases / "out.jsonl"
    flags = (f"--workdir={paraphrases / 'run'}", f"--input={path}", f"--output={output}")
    assert "9 of 9 examples" in called(capsys, "predict", *flags)[1]
    (paraphrases / "rows.jsonl").write_text('{"text": "sun on the hill"}\n' * 3)
    flags = (f"--workdir={paraphrases / 'run'}", f"--input={paraphrases / 'rows.jsonl'}")
    said = called(capsys, "score", *flags, f"--output={output}")[1].splitlines()
    assert [line for line in said if " of 3 documents" in line][-1] == "3 of 3 documents"
