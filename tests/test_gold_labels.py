"""Labels of known tasks and of one's own through training, evaluation and prediction: in words or
in numbers, hidden, without gold, with blanks around them."""

import json

import pytest
import runs

SENTENCES = ("sun on a mat", "rain in the road", "a dog and no cat")


def rows(keys, labels, times=1):
    """Rows whose texts differ; no label for None."""
    made = []
    for number in range(len(labels) * times):
        label = labels[number % len(labels)]
        row = {key: f"{SENTENCES[(number + place) % 3]} {number}" for place, key in enumerate(keys)}
        made.append(row if label is None else row | {"label": label})
    return made


PAIR, TEXT = ("premise", "hypothesis"), ("text",)


@pytest.fixture
def trained(pretrained, tmp_path):
    """Trains on a task with these rows by split; the outcome and its workdir."""

    def run(arguments, **splits):
        folder = tmp_path / "task"
        for split, made in splits.items():
            runs.write_jsonl(folder / f"{split}.jsonl", made)
        given = {key: value for key, value in runs.FINE_TUNING.items() if "task." not in key}
        given["initial"] = pretrained
        words = runs.words(given, tmp_path / "run")
        words[1] = f"--config=configs/finetune.py:{arguments},path={folder}"
        return runs.verb(*words), tmp_path / "run", folder

    return run


def scored(*words):
    outcome = runs.verb(*words)
    assert outcome.status == 0, outcome.said
    return outcome.result


@pytest.mark.slow
def test_numbers_of_three_classes_and_pairs_without_gold(trained, tmp_path):
    """As the Hub has SNLI and MNLI; the annotators of -1 did not agree."""
    train = rows(PAIR, [0, 1, 2, -1], times=4)
    outcome, workdir, folder = trained("snli", train=train, dev=rows(PAIR, [0, 1, 2], times=2))
    assert outcome.status == 0, outcome.said
    left_out = "train.jsonl: 4 examples without a gold label are left out"
    assert any(left_out in line for line in outcome.said)
    dev = folder / "dev.jsonl"
    named = scored("evaluate", f"--workdir={workdir}", f"--task={folder}")["metrics"]["dev"]
    assert named == scored("evaluate", f"--workdir={workdir}")["metrics"]["dev"]
    assert named["accuracy"] == outcome.result["metrics"]["dev"]["accuracy"]
    assert named == scored("evaluate", f"--workdir={workdir}", f"--task={dev}")["metrics"]["dev"]
    words = [f"--workdir={workdir}", f"--input={dev}", f"--output={tmp_path / 'out.jsonl'}"]
    result = scored("predict", *words)
    assert result["labels"] == ["contradiction", "entailment", "neutral"]
    assert result["labelled"] == 6
    assert result["accuracy"] == named["accuracy"]
    found = [json.loads(line)["gold"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found == ["entailment", "neutral", "contradiction"] * 2
    # In words they are the same task.
    in_words = rows(PAIR, ["entailment", "neutral", "contradiction"], times=2)
    again = runs.write_jsonl(tmp_path / "words" / "dev.jsonl", in_words)
    words = ["evaluate", f"--workdir={workdir}", f"--task={again}"]
    assert scored(*words)["metrics"]["dev"] == named


def test_hidden_labels_of_a_test_set_and_numbers_of_words(trained, tmp_path):
    splits = {split: rows(PAIR, [0, 1], times=6) for split in ("train", "dev")}
    outcome, workdir, _ = trained("rte", **splits, test=rows(PAIR, [-1], times=4))
    assert outcome.status == 0, outcome.said
    refused = runs.verb("evaluate", f"--workdir={workdir}", "--split=test")
    assert refused.status == 2
    assert "hidden" in refused.said[-1]
    output = tmp_path / "RTE.tsv"
    assert scored("predict", "--glue", f"--workdir={workdir}", f"--output={output}")
    lines = output.read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert len(lines) == 5
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}


@pytest.mark.parametrize(
    "labels", [pytest.param(("good", "bad", "good "), marks=pytest.mark.exhaustive), (-1, 0, 1)]
)
def test_the_classes_of_a_task_of_ones_own(trained, labels):
    """A blank behind a word makes no class, a minus before a number does."""
    splits = {split: rows(TEXT, labels, times=4) for split in ("train", "dev")}
    outcome, workdir, _ = trained("shape=classification,metric=accuracy", **splits)
    assert outcome.status == 0, outcome.said
    config = json.loads((workdir / "config.json").read_text())
    expected = ["bad", "good"] if isinstance(labels[0], str) else [-1, 0, 1]
    assert config["resolved"]["labels"] == expected
    assert scored("evaluate", f"--workdir={workdir}")["metrics"]["dev"]["accuracy"] <= 1
