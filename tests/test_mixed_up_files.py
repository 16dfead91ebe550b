"""Files that were mixed up: of a run with those of another, an output with an input."""

import os
import shutil
import subprocess
import sys

import pytest
import runs

VERBS = {
    "sample": ["--prompt=the cat"],
    "score": ["--input={text}"],
    "convert": ["--to=native:{new}"],
}


@pytest.fixture(scope="module")
def other_tokens(tmp_path_factory):
    """Of another text, with as many ids."""
    folder = tmp_path_factory.mktemp("other")
    return runs.prepare(folder / "tokens", runs.write_documents(folder / "documents", seed=5))


@pytest.mark.parametrize("verb", VERBS)
def test_the_tokenizer_of_another_run(pretrained, other_tokens, tmp_path, verb):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "tokenizer")
    shutil.copytree(other_tokens / "tokenizer", workdir / "tokenizer")
    (tmp_path / "text.txt").write_text("the cat sat on the mat")
    places = {"text": tmp_path / "text.txt", "new": tmp_path / "new"}
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    words = [verb, source, *(word.format(**places) for word in VERBS[verb])]
    runs.refused(words, "run/tokenizer is not the one of the run")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "number",
    [8, *(pytest.param(number, marks=pytest.mark.exhaustive) for number in (5, 60))],
)
def test_a_checkpoint_under_another_number(pretrained, tmp_path, number):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.copytree(workdir / "checkpoints" / "6", workdir / "checkpoints" / str(number))
    sampled = runs.verb("sample", f"--workdir={workdir}", "--prompt=the", "--length=2")
    assert sampled.result["step"] == 6
    expected = [f"checkpoint {number} is damaged: it is a copy of checkpoint 6"] * (number > 6)
    assert [line.partition(";")[0] for line in sampled.said if "copy" in line] == expected
    words = ["sample", f"--workdir={workdir}", "--prompt=the", f"--step={number}"]
    runs.refused(words, "it is a copy of checkpoint 6")


def test_a_line_that_would_replace_the_peers(tmp_path):
    peer = tmp_path / "peer.json"
    peer.write_text("{}")
    words = [
        "benchmark",
        "train",
        f"--vs={peer}",
        f"--json={tmp_path}/../{tmp_path.name}/peer.json",
    ]
    runs.refused(words, "is the file of --vs")
    assert peer.read_text() == "{}"


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "result.json", "tokenizer/tokenizer.json"),
        *("checkpoints/6/params/digests.json", "checkpoints/6/optimizer/_METADATA"),
    ],
)
def test_an_output_that_is_a_file_of_the_run(finetuned, tmp_path, name):
    workdir = runs.copied(finetuned, tmp_path / "run")
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": "sun"}])
    before, output = (workdir / name).read_bytes(), f"--output={workdir / name}"
    for words in (["predict", f"--input={rows}"], ["inspect", "--prompt=the"]):
        runs.refused([*words, f"--workdir={workdir}", output], "or of the model; choose another")
        assert (workdir / name).read_bytes() == before


def test_what_was_predicted_beside_a_run_is_predicted_again(finetuned, tmp_path):
    workdir = runs.copied(finetuned, tmp_path / "run")
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": "sun"}])
    words = ["predict", f"--workdir={workdir}", f"--input={rows}"]
    for _ in range(2):
        assert runs.verb(*words, f"--output={workdir / 'answers.jsonl'}").status == 0


@pytest.mark.parametrize(
    "name",
    [
        "index.md",
        *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("table1.csv", "report.html")),
    ],
)
def test_a_report_writes_over_nothing_that_is_not_its_own(finetuned, tmp_path, name):
    runs.copied(finetuned, tmp_path / "runs" / "one")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / name).write_text("mine")
    words = ["report", f"--runs={tmp_path / 'runs'}", f"--output={tmp_path / 'notes'}"]
    runs.refused(words, f"{name} is there and not of a report")
    assert [path.read_text() for path in (tmp_path / "notes").iterdir()] == ["mine"]


@pytest.mark.parametrize("name", ["/dev/stdout", pytest.param("/dev/fd/1", marks=pytest.mark.slow)])
def test_what_a_file_has_stays_where_the_shell_appends(finetuned, tmp_path, name):
    rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": "sun"}, {"text": "rain"}])
    collected = tmp_path / "all.jsonl"
    collected.write_text("earlier\n")
    words = ["predict", "--quiet", f"--workdir={finetuned}", f"--input={rows}", f"--output={name}"]
    with collected.open("a") as file:
        command = [sys.executable, "-m", "gpt1_jax", *words]
        done = subprocess.run(command, stdout=file, env=runs.environment(1), check=False)
    assert done.returncode == 0
    first, *lines, last = collected.read_text().splitlines()
    assert (first, len(lines)) == ("earlier", 2)
    assert '"examples": 2' in last


@pytest.mark.slow
@pytest.mark.parametrize("stream", [1, 2])
def test_a_stream_that_is_closed(pretrained, tmp_path, stream):
    """As a daemon's are. A result that goes nowhere is said; progress that does is not missed."""
    command = [sys.executable, "-m", "gpt1_jax", "evaluate", f"--workdir={pretrained}"]
    names = {1: "stderr", 2: "stdout"}
    shell = ["sh", "-c", f'exec "$@" {stream}>&-', "sh", *command]
    pipe = {names[stream]: subprocess.PIPE}
    done = subprocess.run(shell, **pipe, text=True, env=runs.environment(1), check=False)
    if stream == 1:
        assert done.returncode == 2
        assert "standard output is closed" in done.stderr.splitlines()[-1]
    else:
        assert done.returncode == 0
        assert '"metrics"' in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["prepare", "--output=", "--input=x.txt"], "--output is empty"),
        (["report", "--runs=x", "--output="], "--output is empty"),
        (["train", "--config=configs/pretrain.py", "--workdir="], "--workdir is empty"),
        (["report", "--runs=", "--output=x"], "--runs is empty"),
        (
            ["train", "--config=configs/pretrain.py", "--workdir=w", "--config.data.path="],
            "data.path is empty",
        ),
        (
            ["train", "--config=configs/finetune.py:path=,rte", "--workdir=w", "--initial=x"],
            "task.path is empty",
        ),
        (["reproduce", "--table=5", "--workdir=x", "--task_data="], "--task_data is empty"),
    ],
)
def test_no_name_is_not_the_current_folder(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    runs.refused(words, said)
    assert not os.listdir(tmp_path)


def test_inputs_that_are_given_twice_add_up(tmp_path):
    runs.write_documents(tmp_path / "books", count=3)
    first, second, third = (f"{tmp_path}/books/{number}.txt" for number in range(3))
    words = [f"--output={tmp_path / 'tokens'}", "--vocab_size=300", "--workers=1"]
    done = runs.verb("prepare", *words, "--input", first, second, "--input", third)
    assert done.status == 0
    assert any("3 text files" in line for line in done.said)


@pytest.mark.parametrize(
    "words",
    ["report --runs=x --runs=y --output=z", "predict --workdir=w --input=x --input y --output=z"],
)
def test_one_of_two_values_is_not_left_out_in_silence(words):
    runs.refused(words.split(), "is given twice, x and y")


@pytest.mark.parametrize("twice", ["rte,sst2", "rte,path=a,path=b", "rte,lm_coef=0,lm_coef=1"])
def test_an_argument_of_a_config_is_given_once(tmp_path, twice):
    words = ["train", f"--config=configs/finetune.py:{twice}", f"--workdir={tmp_path / 'run'}"]
    runs.refused(words, "is given twice")


@pytest.mark.parametrize("temperature", ["1e-38", "1e-50", "1e-4"])
def test_the_colder_the_likelier(pretrained, temperature):
    words = ["sample", f"--workdir={pretrained}", "--prompt=the cat", "--length=4"]
    coldest = runs.verb(*words, "--temperature=0").result
    assert runs.verb(*words, f"--temperature={temperature}").result["samples"] == coldest["samples"]
