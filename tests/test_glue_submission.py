"""Submission files, read back by the rules of the GLUE server: its own reader of each file."""

import json

import pytest
import runs

from gpt1_jax.__main__ import main
from gpt1_jax.data import task_loading, tasks
from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.inference import glue_submission

THREE = ("entailment", "neutral", "contradiction")
TWO = ("entailment", "not_entailment")
# What the server reads, by file: the classes, or a range of scores; and how many rows.
SERVER = {
    "CoLA.tsv": (("0", "1"), 1063),
    "SST-2.tsv": (("0", "1"), 1821),
    "MRPC.tsv": (("0", "1"), 1725),
    "QQP.tsv": (("0", "1"), 390965),
    "STS-B.tsv": ((0.0, 5.0), 1379),
    "MNLI-m.tsv": (THREE, 9796),
    "MNLI-mm.tsv": (THREE, 9847),
    "QNLI.tsv": (TWO, 5463),
    "RTE.tsv": (TWO, 3000),
    "WNLI.tsv": (("0", "1"), 146),
    "AX.tsv": (THREE, 1104),
}


def read_back(path):
    """The predictions of a submission, in the order of their rows; fails where the server would."""
    allowed, _ = SERVER[path.name]
    lines = path.read_bytes().decode("ascii").split("\n")
    assert lines.pop() == ""
    assert lines.pop(0).split("\t") == ["index", "prediction"]
    predictions = []
    for row, line in enumerate(lines):
        index, prediction = line.split("\t")
        assert int(index) == row
        if isinstance(allowed[0], float):
            assert allowed[0] <= float(prediction) <= allowed[1]
        else:
            assert prediction in allowed
        predictions.append(prediction)
    return predictions


class Model:
    """A stand-in for a Trained: its answers are the labels that the rows of the test set carry in
    their first text."""

    workdir = "runs/model"
    step = 7

    def __init__(self, name, labels, metric=None):
        row = TASKS[name]
        self.task = tasks.Task(name, row.shape, metric or row.metric)
        self.labels = labels
        self.asked = []

    def load_task(self, name, split):
        self.asked.append((name, split))
        answers = self.answers if self.task.regression else self.labels
        examples = [
            tasks.Example((str(answer), "b"), (), None, line)
            for line, answer in enumerate(answers, 1)
        ]
        return task_loading.LoadedTask(self.task, self.labels, {split: examples})

    def predict(self, examples):
        names = {str(label): label for label in self.labels}
        texts = [example.texts[0] for example in examples]
        return [{"label": names[text] if names else float(text)} for text in texts]


@pytest.mark.parametrize(
    ("name", "labels", "files"),
    [
        ("cola", (0, 1), {"CoLA.tsv": ["0", "1"]}),
        ("sst2", (1, 0), {"SST-2.tsv": ["1", "0"]}),
        ("mrpc", (0, 1), {"MRPC.tsv": ["0", "1"]}),
        ("qqp", (0, 1), {"QQP.tsv": ["0", "1"]}),
        ("qnli", TWO, {"QNLI.tsv": list(TWO)}),
        ("rte", TWO[::-1], {"RTE.tsv": list(TWO[::-1])}),
        # Models of files that number what the server names, and the other way round.
        ("rte", (0, 1), {"RTE.tsv": list(TWO)}),
        ("mrpc", ("not_equivalent", "equivalent"), {"MRPC.tsv": ["0", "1"]}),
        # Numbers here, 1 for an entailment; the classes may be named or numbered in the files.
        ("wnli", TWO, {"WNLI.tsv": ["1", "0"]}),
        ("wnli", (0, 1), {"WNLI.tsv": ["0", "1"]}),
        ("mnli", THREE[::-1], {f"MNLI-{m}.tsv": list(THREE[::-1]) for m in ("m", "mm")}),
        ("ax", THREE, {"AX.tsv": list(THREE)}),
    ],
)
def test_the_server_reads_what_was_predicted(tmp_path, capsys, name, labels, files):
    result = glue_submission.submit(Model(name, labels), str(tmp_path / "new"))
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(files)
    err = capsys.readouterr().err
    for file, predictions in files.items():
        path = tmp_path / "new" / file
        assert read_back(path) == predictions
        assert result["files"][str(path)] == len(predictions)
        assert f"{file}: {len(labels)} rows, but the server expects {SERVER[file][1]}" in err


def test_scores_are_clipped_to_their_range(tmp_path):
    model = Model("stsb", ())
    model.answers = (-0.25, 5.000001, 3.14159265)
    glue_submission.submit(model, str(tmp_path))
    assert read_back(tmp_path / "STS-B.tsv") == ["0.000000", "5.000000", "3.141593"]


def test_each_test_set_is_asked_for_by_its_name(tmp_path):
    model = Model("mnli", THREE)
    glue_submission.submit(model, str(tmp_path))
    assert model.asked == [("mnli", "test"), ("mnli", "test_mismatched")]
    glue_submission.submit(model, str(tmp_path / "diagnostics.tsv"), task="ax")
    assert model.asked[2:] == [("ax", "test")]
    lines = (tmp_path / "diagnostics.tsv").read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{row}\t{label}" for row, label in enumerate(THREE))]


def test_all_of_the_servers_files_are_in_the_table():
    found = {
        file: row.counts["tfds"][split]
        for row in TASKS.values()
        for split, file in row.glue.items()
    }
    assert found == {file: rows for file, (_, rows) in SERVER.items()}


@pytest.mark.parametrize(
    ("name", "labels", "settings", "match"),
    [
        ("snli", THREE, {}, "does not score snli; it knows mnli, qnli"),
        ("snli", THREE, {"task": "axx"}, "does not score axx"),
        ("rte", TWO, {"task": "cola"}, "cola is classification, but runs/model was .*entailment"),
        ("snli", THREE, {"task": "rte"}, "has the label 'neutral'; rte has entailment, not_"),
        ("rte", ("yes", "no"), {}, "has the label 'yes'; rte has entailment"),
        ("stsb", (0, 1), {"metric": "f1"}, "predicts classes, but STS-B wants scores"),
    ],
)
def test_a_submission_that_cannot_be(tmp_path, name, labels, settings, match):
    model = Model(name, labels, settings.pop("metric", None))
    with pytest.raises(UserError, match=match):
        glue_submission.submit(model, str(tmp_path / "new"), **settings)
    assert not (tmp_path / "new").exists()


def test_an_output_that_cannot_be(tmp_path):
    model = Model("mnli", THREE)
    with pytest.raises(UserError, match=r"one file, mnli has MNLI-m.tsv and MNLI-mm.tsv"):
        glue_submission.submit(model, str(tmp_path / "all.tsv"))
    with pytest.raises(UserError, match=r"one of the test sets of mnli; give the file"):
        glue_submission.submit(model, str(tmp_path), path="rows.jsonl")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"file is no folder"):
        glue_submission.submit(model, str(tmp_path / "file"))
    (tmp_path / "x.tsv").mkdir()
    with pytest.raises(UserError, match=r"x\.tsv is a folder"):
        glue_submission.submit(model, str(tmp_path / "x.tsv"), task="ax")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture(scope="module")
def rte(pretrained, tmp_path_factory):
    """The workdir of a run on a folder of entailments that calls itself rte."""
    folder = runs.write_task(tmp_path_factory.mktemp("rte") / "rte", "entailment")
    for path in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        named = [row | {"label": TWO[row["label"]]} if "label" in row else row for row in rows]
        runs.write_jsonl(path, named)
    changes = {"task.name": "rte", "stop_after": 2}
    given = runs.fine_tuning(pretrained, folder, "entailment", "accuracy", **changes)
    runs.run(given, folder.parent / "run")
    return folder.parent / "run"


def answered(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_predict_writes_the_submission_of_its_own_test_set(rte, tmp_path, capsys):
    flags = ("predict", "--glue", f"--workdir={rte}", f"--output={tmp_path / 'RTE.tsv'}")
    result, err = answered(capsys, *flags)
    assert result == {"step": 2, "files": {str(tmp_path / "RTE.tsv"): 5}}
    assert "5 rows, but the server expects 3000" in err
    predictions = read_back(tmp_path / "RTE.tsv")
    plain = tmp_path / "plain.jsonl"
    test = rte.parent / "rte" / "test.jsonl"
    answered(capsys, "predict", f"--workdir={rte}", f"--input={test}", f"--output={plain}")
    assert predictions == [json.loads(line)["label"] for line in plain.read_text().splitlines()]
    # The same from a file that is given.
    answered(capsys, *flags[:3], f"--input={test}", f"--output={tmp_path / 'other'}")
    assert read_back(tmp_path / "other" / "RTE.tsv") == predictions


def test_evaluating_on_another_task_by_name_or_folder(rte, tmp_path, capsys):
    lines = [
        {"premise": "the cat", "hypothesis": "the dog sat", "label": TWO[i % 2]} for i in (0, 1)
    ]
    runs.write_jsonl(tmp_path / "wnli" / "dev.jsonl", lines)
    result, err = answered(capsys, "evaluate", f"--workdir={rte}", f"--task={tmp_path / 'wnli'}")
    assert result["metrics"]["dev"]["accuracy"] in (0, 0.5, 1)
    assert result["truncated"] == 0
    assert "0 examples cut" in err
    long = [{**line, "premise": "the cat sat on " * 9} for line in lines]
    runs.write_jsonl(tmp_path / "wnli" / "dev.jsonl", [*lines, *long])
    result, err = answered(capsys, "evaluate", f"--workdir={rte}", f"--task={tmp_path / 'wnli'}")
    assert result["truncated"] == 2
    assert "2 examples cut to fit n_ctx" in err
    assert main(["evaluate", f"--workdir={rte}", "--task=cola"]) == 2
    assert "cola is classification" in capsys.readouterr().err
    assert main(["evaluate", f"--workdir={rte}", "--split=test"]) == 2
    assert "predict --glue writes the file that the GLUE server scores" in capsys.readouterr().err
    assert main(["evaluate", f"--workdir={rte}", "--split=dev_matched"]) == 2
    assert "has no dev_matched split; it has train, dev, test" in capsys.readouterr().err


def test_what_was_cut_is_said_by_predict(rte, tmp_path, capsys):
    rows = runs.write_jsonl(
        tmp_path / "rows.jsonl", [{"premise": "the cat sat on " * 9, "hypothesis": "the dog"}]
    )
    _, err = answered(
        capsys, "predict", f"--workdir={rte}", f"--input={rows}", f"--output={tmp_path / 'out'}"
    )
    assert "1 of 1 examples cut to fit n_ctx" in err


def test_predict_wants_rows_or_a_submission(rte, tmp_path, capsys):
    for flags, named in (([], "--input"), (["--input=x", "--task=ax"], "--task goes with --glue")):
        assert main(["predict", f"--workdir={rte}", f"--output={tmp_path / 'o'}", *flags]) == 2
        assert named in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        (["1", "only one sentence"], "line 3: no key hypothesis"),
        (["1", "a", "b", "and more"], "line 3: more columns than the header has"),
    ],
    ids=str,
)
def test_a_row_that_is_not_whole_moves_no_other(rte, tmp_path, cells, said):
    lines = [["index", "sentence1", "sentence2"], ["0", "sun", "b"], cells, ["2", "rain", "c"]]
    path, output = tmp_path / "test.tsv", tmp_path / "RTE.tsv"
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    words = ["predict", f"--workdir={rte}", f"--input={path}"]
    runs.refused([*words, "--glue", f"--output={output}"], said)
    runs.refused([*words, f"--output={output}"], said)
    assert not output.exists()


def test_a_row_without_a_label_is_predicted(rte, tmp_path):
    lines = ["index\tsentence1\tsentence2\tlabel", "0\tsun\tb\tentailment", "1\tsun\tc"]
    (tmp_path / "dev.tsv").write_text("\n".join(lines) + "\n")
    words = [f"--workdir={rte}", f"--input={tmp_path / 'dev.tsv'}"]
    outcome = runs.verb("predict", *words, f"--output={tmp_path / 'out.jsonl'}")
    assert (outcome.result["examples"], outcome.result["labelled"]) == (2, 1)


def test_its_test_set_is_not_replaced(rte, tmp_path):
    test, lines = tmp_path / "RTE.tsv", "index\tsentence1\tsentence2\n0\tsun\tb\n"
    test.write_text(lines)
    words = ["predict", "--glue", f"--workdir={rte}", f"--input={test}"]
    for output in (tmp_path, test):
        runs.refused([*words, f"--output={output}"], "is the file of --input")
        assert test.read_text() == lines
