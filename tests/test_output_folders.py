"""Folders and names that verbs write: one writer at a time, nothing stale, names on one line."""

import json
import os
import shutil

import faults
import pytest
import runs

from gpt1_jax import disk


@pytest.mark.slow
def test_two_convert_into_one_folder(pretrained, tmp_path):
    """The second comes while the first writes, into a folder that is there or not."""
    target = tmp_path / "deep" / "made"
    words = ["convert", f"--from={pretrained}", f"--to=openai:{target}"]
    says = "another process is writing"
    second = f"import runs; one = runs.verb(*{words!r}); assert {says!r} in one.said[-1], one"
    path = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); "
    moment = "before gpt1_jax.weights.openai:write_arrays"
    faults.run(words, at=moment, do=path + second).done()
    assert sorted(name.name for name in target.parent.iterdir()) == ["made"]
    assert not (target / ".lock").exists()
    runs.refused(words, "is there already")


def test_a_report_deletes_what_an_earlier_one_wrote(reader, tmp_path):
    root, output = reader[0] / "runs" / "table5", tmp_path / "out"
    shutil.copytree(reader[0] / "report", output)
    words = ["report", f"--runs={root}", f"--output={output}"]
    names = sorted(path.name for path in output.iterdir())
    journal = json.loads((output / "files.json").read_text())
    assert journal.keys() | {"files.json"} == {*names}
    # As after a run whose figure is no longer drawn; one of its files somebody has changed since.
    for name, content in (("old.csv", "a,b\n"), ("changed.svg", "mine"), ("never.md", "mine")):
        (output / name).write_text(content)
    digest = disk.sha256(output / "old.csv")
    journal |= {"old.csv": digest, "changed.svg": digest, "gone.png": digest}
    (output / "files.json").write_text(json.dumps(journal))
    again = runs.verb(*words).result["files"]
    assert sorted(again) == names
    left = {path.name for path in output.iterdir()}
    assert left == {*names, "changed.svg", "never.md"}
    (output / "files.json").write_text(json.dumps({"../runs/reproduction.json": digest}))
    runs.refused(words, "files.json names files elsewhere")


ODD_NAME = "line\nend \x1b[31m"


def test_names_are_shown_on_one_line(finetuned, tmp_path):
    """Of a table and of a column in it, on every line that is said."""
    rows = [{"text": "sun on the mat", f"key {ODD_NAME}": 1}]
    path = runs.write_jsonl(tmp_path / ODD_NAME / "rows.jsonl", rows)
    words = ["predict", f"--workdir={finetuned}", f"--input={path}"]
    outcome = runs.verb(*words, f"--output={tmp_path / 'out.jsonl'}")
    assert outcome.status == 0, outcome.said
    assert any("line\\nend" in line for line in outcome.said)
    assert all(line.isprintable() for line in outcome.said)
    assert json.loads((tmp_path / "out.jsonl").read_text())[f"key {ODD_NAME}"] == 1


def test_a_run_has_a_name_that_is_text(tokens, pretrained, tmp_path):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    runs.refused(runs.words(runs.pretraining(tokens), odd), "--workdir", "not UTF-8")
    runs.refused(["convert", f"--from={pretrained}", f"--to=openai:{odd}"], "--to", "not UTF-8")
    given = runs.pretraining(tokens) | {"data.path": odd}
    runs.refused(runs.words(given, tmp_path / "run"), "data.path", "UTF-8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ['{"mine": 1}', "[1, 2]", "mine"])
def test_a_file_of_a_users_called_verified_json_stays(tokens, tmp_path, content):
    """A run has one of this name, which says what it need not read again."""
    (tmp_path / "verified.json").write_text(content)
    words = runs.words(runs.pretraining(tokens), tmp_path)
    runs.refused(words, str(tmp_path / "verified.json"), "move it away")
    assert [path.read_text() for path in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize("layout", ["", "hf:", "openai:"])
def test_a_model_has_a_name_that_is_text(pretrained, tmp_path, layout):
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    runs.copied(pretrained, odd)
    source = f"--initial={layout}{odd}" if layout else f"--workdir={odd}"
    runs.refused(["sample", source, "--prompt=the"], "not UTF-8", "rename")


GOOD = '{"text": "sun on the mat", "label": "sun"}\n'
ROWS = {
    '["sun"]': "is not an object",
    "null": "null is not an object",
    '{"text": 3}': "text is 3; expected",
    '{"text": null}': "text is null; expected",
    '{"text": "a", "x": ' + "[" * 100_000 + "}": "nested too deeply",
    '{"text": "a", "text": "b"}': "stands there twice",
    '{"text": "a", "x": {"y": 1, "y": 2}}': '"y" stands there twice',
    '{"text": "a", "x": NaN}': "NaN is no number",
    '{"text": "a", "x": 1e999}': "1e999 is no number",
    '{"text": "a", "x": [{"y": "\\udc80"}]}': "half a surrogate pair",
    '{"text": "a", "k\\ud800": 1}': "half a surrogate pair",
    '{"text": "a", "x": ' + "9" * 5_000 + "}": "a number of 5000 digits",
    '{"text": "a"} {"text": "b"}': "more after the value",
    '{"text": "a", ': "not JSON",
}


@pytest.mark.parametrize(
    "row",
    [
        row if place % 3 == 0 else pytest.param(row, marks=pytest.mark.exhaustive)
        for place, row in enumerate(ROWS)
    ],
    ids=lambda row: row[:30],
)
def test_rows_of_json_in_another_shape(finetuned, tmp_path, row):
    """Each verb that reads rows names the file and the line; the output of before stays."""
    path, output = tmp_path / "rows.jsonl", tmp_path / "out.csv"
    path.write_text(GOOD + row + "\n")
    output.write_text("before")
    words = ["predict", f"--workdir={finetuned}", f"--input={path}", f"--output={output}"]
    runs.refused(words, f"{path}, line 2", ROWS[row])
    words = ["score", f"--workdir={finetuned}", f"--input={path}", f"--output={output}"]
    runs.refused(words, f"{path}, line 2", ROWS[row])
    assert output.read_text() == "before"
    words = ["--vocab_size=300", f"--output={tmp_path / 'tokens'}", "--input", str(path)]
    runs.refused(["prepare", *words], f"{path}, line 2", ROWS[row])
    assert not (tmp_path / "tokens").exists()
    (tmp_path / "rows.json").write_text(f"[{GOOD}, {row}]")
    words = ["predict", f"--workdir={finetuned}", f"--input={tmp_path / 'rows.json'}"]
    runs.refused([*words, f"--output={output}"], "rows.json, ")
