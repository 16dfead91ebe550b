"""Whole files through a model: the same numbers as for one text, row for row, or no file at all."""

import csv
import gzip
import json
import lzma
import math
from dataclasses import replace

import numpy as np
import pytest
import runs

import gpt1_jax
from gpt1_jax.data.task_files import RowFormat, read_examples
from gpt1_jax.errors import Interrupted, UserError
from gpt1_jax.inference import batch_inference, log_probabilities, predictions
from gpt1_jax.text import corpus
from gpt1_jax.text.config import PrepareConfig

TEXTS = ["the cat sat on the mat and the dog ran to the hill " * 3, "a", "the dog\nsaw  a cat"]


@pytest.fixture(scope="module")
def model(pretrained):
    return gpt1_jax.load(pretrained)


@pytest.fixture(scope="module")
def classifier(finetuned):
    return gpt1_jax.load(finetuned)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_for_each_document_is_what_score_says_of_its_text(model, tmp_path):
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    output = tmp_path / "scores.jsonl"
    totals = batch_inference.score(model, str(rows), str(output), None)
    found = lines(output)
    assert [set(line) for line in found] == [{"ids", "logprobs", "mean_logprob", "perplexity"}] * 3
    for line, text in zip(found, TEXTS, strict=True):
        expected = model.score(text)
        assert line["ids"] == expected["ids"] == model.tokenizer.encode(text)
        assert line["logprobs"][0] is None
        assert line["logprobs"][1:] == pytest.approx(expected["logprobs"][1:], abs=1e-5)
        if expected["perplexity"] is not None:
            assert line["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-5)
    (single,) = [line for line in found if len(line["ids"]) == 1]
    assert single["mean_logprob"] is single["perplexity"] is None
    logprobs = [number for line in found for number in line["logprobs"][1:]]
    assert totals["documents"] == 3
    assert totals["tokens"] == totals["tokens_scored"] + 3 == len(logprobs) + 3
    assert totals["loss"] == pytest.approx(-np.mean(logprobs), rel=1e-6)
    assert totals["perplexity"] == pytest.approx(math.exp(totals["loss"]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "scores.jsonl"]


def test_packed_files_and_text_files_are_read_alike(model, tmp_path):
    text = TEXTS[0]
    (tmp_path / "plain.txt").write_text(text)
    (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(text.encode()))
    row = json.dumps({"text": text}).encode()
    (tmp_path / "row.jsonl").write_bytes(row)
    (tmp_path / "row.jsonl.xz").write_bytes(lzma.compress(row))
    found = []
    for name in ("plain.txt", "packed.txt.gz", "row.jsonl", "row.jsonl.xz"):
        batch_inference.score(model, str(tmp_path / name), str(tmp_path / "out"), None)
        found += lines(tmp_path / "out")
    assert found == found[:1] * 4


def with_stride(model, stride):
    """The model of a run whose config had this eval.stride."""
    evaluation = replace(model.config.eval, stride=stride)
    return replace(model, config=replace(model.config, eval=evaluation))


@pytest.mark.parametrize("stride", [None, 5])
def test_the_perplexity_is_that_of_evaluate(model, tmp_path, stride, monkeypatch):
    (tmp_path / "long.txt").write_text(runs.sentence(runs.random.Random(5), 900))
    # Blocks of a few words, which are encoded one by one.
    monkeypatch.setattr("gpt1_jax.text.sources.BLOCK", 100)
    found = batch_inference.score(model, str(tmp_path / "long.txt"), str(tmp_path / "out"), stride)
    corpus.prepare(
        PrepareConfig(
            output=str(tmp_path / "tokens"),
            inputs=(str(tmp_path / "long.txt"),),
            vocab=str(model.workdir / "tokenizer"),
            valid_fraction=0.0,
            workers=1,
        )
    )
    metrics, count = with_stride(model, stride).evaluate_tokens(tmp_path / "tokens", "train")
    assert count == found["tokens_scored"]
    assert found["stride"] == (stride or model.model_config.n_ctx)
    assert found["perplexity"] == pytest.approx(metrics["perplexity"], rel=1e-6)


def test_the_stride_of_the_run_is_the_default(model):
    assert with_stride(model, 3).score(TEXTS[0]) == model.score(TEXTS[0], stride=3)
    assert with_stride(model, 3).score(TEXTS[0]) != model.score(TEXTS[0], stride=16)


def test_scores_go_to_standard_output_where_no_file_is_named(model, tmp_path, capsys):
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    batch_inference.score(model, str(rows), str(tmp_path / "out"), 4)
    capsys.readouterr()
    batch_inference.score(model, str(rows), None, 4)
    output, errors = capsys.readouterr()
    assert output == (tmp_path / "out").read_text()
    assert "windows of 16 tokens that start 4 apart" in errors


@pytest.mark.parametrize(("name", "dialect"), [("s.csv", "excel"), ("s.TSV", "excel-tab")])
def test_scores_are_a_table_where_the_name_says_so(model, tmp_path, name, dialect):
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in [*TEXTS, "the"]])
    for output in ("s.jsonl", name):
        batch_inference.score(model, str(rows), str(tmp_path / output), None)
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    with (tmp_path / name).open(newline="") as file:
        table = list(csv.DictReader(file, dialect=dialect))
    # A cell has the JSON of its value, and nothing where that is null.
    found = [{key: json.loads(cell or "null") for key, cell in row.items()} for row in table]
    assert found == [json.loads(line) for line in lines]


def test_a_table_that_is_not_written_here_is_refused(model, tmp_path):
    (tmp_path / "book.txt").write_text("the cat sat")
    with pytest.raises(UserError, match=r"\.parquet is not written; expected \.jsonl"):
        batch_inference.score(model, str(tmp_path / "book.txt"), str(tmp_path / "s.PARQUET"), None)
    assert not (tmp_path / "s.PARQUET").exists()


def test_predictions_stand_in_the_order_of_the_rows(classifier, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "CHUNK", 7)
    draw = runs.random.Random(1)
    texts = [f"{draw.choice(['sun', 'rain'])} {runs.sentence(draw, n % 9)}" for n in range(40)]
    rows = [{"text": text} for text in texts]
    path = runs.write_jsonl(tmp_path / "rows.jsonl", rows)
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    n_ctx = classifier.model_config.n_ctx
    n_long = sum(len(classifier.tokenizer.encode(text)) > n_ctx - 2 for text in texts)
    assert 0 < n_long < 40
    for name in (path, packed):
        found = predictions.predict(classifier, str(name), str(tmp_path / "answers.jsonl"))
        assert (found["examples"], found["truncated"]) == (40, n_long)
        answers = lines(tmp_path / "answers.jsonl")
        for row, answer in zip(rows, answers, strict=True):
            (alone,) = classifier.predict([row])
            assert alone["label"] == answer["label"]
            assert alone["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)


def test_rows_in_memory_and_examples_are_predicted_alike(classifier, classification):
    examples = read_examples(classification / "dev.jsonl", RowFormat("classification"))
    rows = [{"text": example.texts[0]} for example in examples]
    assert classifier.predict(rows) == classifier.predict(examples)
    with pytest.raises(UserError, match="rows, line 2: no key text"):
        classifier.predict([*rows[:1], {"txt": "sun"}])
    with pytest.raises(UserError, match="no rows"):
        classifier.predict([])


def test_a_row_that_is_wrong_is_found_before_anything_is_computed(
    model, classifier, tmp_path, monkeypatch
):
    def computed(*_):
        raise AssertionError("computed")

    monkeypatch.setattr(type(model), "answers", computed)
    monkeypatch.setattr(type(model), "log_probabilities", computed)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "sun"}\n' * 1500 + '{"text": " "}\n{"text": 3}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1501: text is empty"):
        predictions.predict(classifier, str(path), str(tmp_path / "out"))
    with pytest.raises(UserError, match=r"rows\.jsonl:1501: nothing but white space"):
        batch_inference.score(model, str(path), str(tmp_path / "out"), None)
    assert list(tmp_path.iterdir()) == [path]


def test_what_stops_half_way_leaves_the_file_that_was_there(model, tmp_path, monkeypatch):
    path = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": text} for text in TEXTS])
    (tmp_path / "out").write_text("mine")
    written = []

    def summary(logprobs):
        written.append(logprobs)
        if len(written) == 2:
            raise Interrupted("by a signal")
        return {"perplexity": 1.0}

    monkeypatch.setattr(log_probabilities, "summary", summary)
    with pytest.raises(Interrupted):
        batch_inference.score(model, str(path), str(tmp_path / "out"), None)
    assert (tmp_path / "out").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "rows.jsonl"]
