"""Every mistake of a user: exit status 2, one line that names the thing, nothing overwritten."""

import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest
import runs

from gpt1_jax.__main__ import main

VERBS = (
    *("quickstart", "reproduce", "prepare", "train", "evaluate", "sample", "predict"),
    *("score", "convert", "report"),
)


@pytest.fixture
def refused(capsys):
    """Runs the command line, which must refuse, and returns its one line."""

    def run(*words) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        assert "Traceback" not in errors
        (line,) = errors.splitlines()
        assert line.startswith("gpt1: ")
        return line

    return run


@pytest.fixture
def answered(capsys):
    """Runs the command line and returns the JSON of its last line on standard output."""

    def run(*words) -> dict:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        output = capsys.readouterr().out
        assert output.count("\n") == 1
        return json.loads(output)

    return run


@pytest.fixture
def train(tokens, tmp_path):
    """The words of a run that would be fine, in a new workdir."""

    def words(**changes) -> list[str]:
        return [*runs.words(runs.pretraining(tokens, **changes), tmp_path / "run"), "--quiet"]

    return words


# The command line itself


def test_help_answers_at_once_and_imports_nothing_heavy():
    script = (
        "import sys\nfrom gpt1_jax.__main__ import VERBS, main\n"
        "for words in (['--help'], *([verb, '--help'] for verb in VERBS)):\n"
        "    assert main(words) == 0\n"
        "heavy = ('jax', 'numpy', 'flax', 'tensorflow', 'pydantic')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=runs.ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb, capsys):
    assert main([verb, "--help"]) == 0
    without = ("prepare", "convert", "report")
    assert "--workdir" in capsys.readouterr().out or verb in without


def test_help_has_the_words_of_closed_sets_the_defaults_and_what_a_flag_changes(capsys):
    assert main(["reproduce", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--scale paper|small" in shown
    assert "default: 0,1,2" in shown
    assert "--config.KEY VALUE" in shown
    assert main(["predict", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "--glue" in shown
    assert shown.count("usage: gpt1 predict") == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "VERB"),
        (["trian"], "'trian'; did you mean train?"),
        (["sample", "--workdir=W", "--temprature=1"], "did you mean --temperature?"),
        (["sample", "--workdir=W", "--prompt=x", "--step=last"], "--step is 'last'; expected int"),
        (["sample", "--workdir=W", "--prompt=x", "--stop=lines"], "did you mean newline?"),
        (["sample", "--workdir=W", "--initial=hf:x", "--prompt=x"], "--workdir and --initial"),
        (["sample", "--prompt=x"], "--workdir"),
        (["reproduce", "--workdir=W", "--table=6"], "one of 1, 2, 3, 4, 5"),
        (["reproduce", "--workdir=W", "--figure=2"], "one of 2left, 2right"),
        (["reproduce", "--workdir=W", "--table=5", "--scale=smal"], "did you mean small?"),
        (["reproduce", "--workdir=W", "--table=5", "--seeds=0,one"], "--seeds is '0,one'"),
        (["reproduce", "--workdir=W", "--table=5", "--figure=2left"], "--figure"),
        (["convert", "--from=a", "--to=b", "--tokenizer=sentencepiece"], "original, hf_basic"),
        (["prepare", "--output=W", "--input=x", "--tokenizer=orignal"], "did you mean original?"),
        (["train"], "--config"),
        (["train", "--config=configs/pretrain.py"], "--workdir"),
        (["train", "--config=configs/pretrain.py", "--workdir=W", "--steps=3"], "--steps=3"),
        (["train", "--config=configs/pretrain.py", "--workdir=W", "more"], "more"),
        (["train", "--config=configs/pretrain.py", "--workdir=W", "--config.steps"], "KEY=VALUE"),
        (["train", "--config=configs/pretrain.py", "--workdir=W", "--profile=5"], "--profile=5"),
        (["train", "--config=configs/pretrain.py", "--workdir=W", "--profile=9:2"], "9:2"),
        (
            ["train", "--config=configs/pretrain.py", "--workdir=W", "--num_processes=2"],
            "--coordinator",
        ),
        (
            [
                *("train", "--config=configs/pretrain.py", "--workdir=W", "--coordinator=host"),
                *("--num_processes=2", "--process_id=0"),
            ],
            "HOST:PORT",
        ),
        (
            [
                *("train", "--config=configs/pretrain.py", "--workdir=W", "--coordinator=host:1"),
                *("--num_processes=2", "--process_id=2"),
            ],
            "--process_id=2",
        ),
        (["train", "--config=configs/pretrain.py:tiny,epochs100", "--workdir=W"], "choose one"),
        (["evaluate", "--workdir=W", "--data=x", "--task=y"], "--data and --task"),
        (["evaluate", "--workdir=W", "--step=last"], "last"),
        (["evaluate", "--workdir=W", "--config.steps=3"], "--config.steps=3: it reads no config"),
        (["evaluate", "--workdir=W", "--probe_data=x"], "--probe_data goes with --probes"),
        (["evaluate", "--workdir=W", "--probes", "--task=x"], "--task does not go with --probes"),
        (["prepare", "--output=W"], "--input"),
        (["prepare", "--input=x"], "--output"),
        (["prepare", "--compare=original,hf_basic", "--input=x"], "--vocab"),
        (["prepare", "--compare=original,hf_basic", "--docs", "--vocab=x"], "--docs does not go"),
        (["prepare", "--compare=original,hf_basic", "--input=x", "--output=W"], "--output"),
        (["prepare", "--compare=original,words", "--input=x", "--vocab=x"], "words"),
        (["prepare", "--compare=original,original", "--input=x", "--vocab=x"], "two different"),
        (["prepare", "--output=W", "--docs", "--input=x"], "--input"),
        (["sample", "--workdir=W"], "--prompt"),
        (["score", "--workdir=W"], "--input"),
        (["score", "--workdir=W", "--input=x", "--stride=far"], "far"),
        (["predict", "--workdir=W", "--input=x"], "--output"),
    ],
)
def test_a_command_that_is_none(refused, tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    assert named in refused(*words)
    assert not list(tmp_path.iterdir())


# From text to tokens


def test_a_corpus_that_cannot_be_read(refused, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "empty.txt").write_bytes(b"")
    (corpus / "blank.txt").write_bytes(b" \n\n")
    (corpus / "binary.txt").write_bytes(b"\x00\x01\x02PK\x03\x04" * 100)
    (corpus / "latin.txt").write_bytes(b"0123456789caf\xe9 au lait")
    (corpus / "torn.jsonl").write_text('{"text": "one"}\n{"text": "tw\n')
    (corpus / "cut.txt.gz").write_bytes(b"\x1f\x8b\x08\x00nothing")
    output = tmp_path / "tokens"

    def prepare(name):
        return refused("prepare", f"--output={output}", "--input", corpus / name, "--workers=1")

    assert "missing.txt" in prepare("missing.txt")
    assert "white space" in prepare("empty.txt")
    assert "white space" in prepare("blank.txt")
    assert "binary.txt" in prepare("binary.txt")
    line = prepare("latin.txt")
    assert "latin.txt" in line
    assert "13" in line
    assert re.search(r"torn\.jsonl\D+2", prepare("torn.jsonl"))
    assert "cut.txt.gz" in prepare("cut.txt.gz")
    assert not output.exists()


def test_prepare_does_not_touch_a_folder_of_something_else(refused, tokens, tmp_path):
    glob = runs.write_documents(tmp_path / "documents")
    before = runs.snapshot(tokens)
    assert str(tokens) in refused("prepare", f"--output={tokens}", "--input", glob)
    assert runs.snapshot(tokens) == before
    assert "0.txt" in refused("prepare", f"--output={tmp_path / 'documents'}", "--input", glob)


# Training


def test_what_is_wrong_with_a_config_is_said_before_anything_is_written(
    refused, train, tmp_path, tokens
):
    broken = tmp_path / "broken.py"
    broken.write_text("def get_config(arguments):\n    return (\n")
    n_tokens = json.loads((tokens / "manifest.json").read_text())["splits"]["train"]["tokens"]
    flags = train()[2:]
    cases = [
        ([*train(), "--config.model.n_layers=2"], "'model.n_layer'"),
        ([*train(), "--config.batchsize=2"], "'batch_size'"),
        (train(steps="many"), "steps is 'many'; expected int"),
        (train(**{"model.dropout": "high"}), "model.dropout is 'high'; expected float"),
        (train(**{"mesh.data": 3}), "batch_size 8"),
        (train(batch_size=12, **{"mesh.data": 8}), "batch_size 12"),
        (train(**{"mesh.data": 2, "optimizer.accumulation": 8}), "batch_size 8"),
        (train(**{"mesh.data": 16}), "mesh.data 16"),
        (train(**{"mesh.data": 1, "mesh.model": 3}), "model.n_embd 16"),
        (train(**{"mesh.data": 0}), "mesh.data 0"),
        (train(**{"model.n_ctx": 6000}), f"{n_tokens} tokens"),
        (train(**{"optimizer.warmup": 2000}), "2000 updates and the whole run has 6"),
        (train(**{"model.preset": "relesed"}), "did you mean released?"),
        (train(**{"model.vocab_size": 400}), "model.vocab_size is 400"),
        (train(**{"eval.stride": 17}), "eval.stride 17"),
        (train(**{"objective.lm_coef": 0}), "objective.lm_coef"),
        (train(**{"data.path": None}), "data.path"),
        (train(**{"data.path": tmp_path}), "manifest.json"),
        (train(**{"data.path": tmp_path / "nowhere"}), "nowhere"),
        (train(**{"attention.implementation": "cudnn"}), "cudnn"),
        (["train", f"--config={tmp_path}/none.py", *flags], "none.py"),
        (["train", f"--config={tmp_path}", *flags], "no such file"),
        (["train", f"--config={broken}", *flags], "broken.py:2"),
        (["train", "--config=configs/pretrain.py:tinny", *flags], "'tiny'"),
    ]
    for words, named in cases:
        assert named in refused(*words)
    assert not (tmp_path / "run").exists()


def test_a_workdir_that_is_not_to_be_touched(refused, train, tmp_path, tokens, pretrained):
    assert "batch_size = 8" in refused(*train(batch_size=16), f"--workdir={pretrained}")
    (tmp_path / "file").write_text("mine")
    assert "is a file" in refused(*train(), f"--workdir={tmp_path / 'file'}")
    assert "file" in refused(*train(), f"--workdir={tmp_path / 'file' / 'below'}")
    before = runs.snapshot(tokens)
    assert "tokenizer" in refused(*train(), f"--workdir={tokens}")
    assert runs.snapshot(tokens) == before
    assert (tmp_path / "file").read_text() == "mine"


def test_a_broken_config_json_is_named(refused, train, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "config.json").write_text('{"steps": ')
    assert "config.json" in refused(*train())
    assert "config.json" in refused("evaluate", f"--workdir={workdir}")
    # That of another library's model.
    (workdir / "config.json").write_text('{"model_type": "gpt"}')
    assert "not that of a run" in refused("evaluate", f"--workdir={workdir}")
    assert "not that of a run" in refused(*train())


def test_a_tokenizer_that_does_not_match_the_shards(refused, train, tokens, pretrained, tmp_path):
    glob = runs.write_documents(tmp_path / "documents", seed=3)
    other = runs.prepare(tmp_path / "other", glob, vocab_size=310)
    # To evaluate, to go on training, and a tokenizer that was exchanged.
    line = refused("evaluate", f"--workdir={pretrained}", f"--data={other}")
    assert "another tokenizer" in line
    line = refused(*train(**{"data.path": other}), f"--initial={pretrained}")
    assert "another tokenizer" in line
    mixed = shutil.copytree(tokens, tmp_path / "mixed")
    shutil.rmtree(mixed / "tokenizer")
    shutil.copytree(other / "tokenizer", mixed / "tokenizer")
    assert "another tokenizer" in refused(*train(**{"data.path": mixed}))
    shutil.rmtree(mixed / "tokenizer")
    assert "tokenizer" in refused(*train(**{"data.path": mixed}))
    assert not (tmp_path / "run").exists()


def test_shards_that_are_not_whole(refused, train, tokens, tmp_path):
    folder = shutil.copytree(tokens, tmp_path / "tokens")
    shard = folder / "train-00000.npy"
    shard.write_bytes(shard.read_bytes()[:-100])
    assert "train-00000.npy" in refused(*train(**{"data.path": folder}))
    shard.unlink()
    assert "train-00000.npy" in refused(*train(**{"data.path": folder}))


def test_no_space_for_a_checkpoint(refused, train, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    assert "one checkpoint takes" in refused(*train())
    assert not list((tmp_path / "run").glob("[a-z]*"))


@pytest.fixture
def tune(pretrained, tmp_path):
    """The words of a fine-tuning on a task of the shape classification."""

    def words(task, *flags, initial=pretrained):
        config = (
            f"configs/finetune.py:path={task},shape=classification,metric=accuracy,batch_size=8"
        )
        config += ",log.tensorboard=False,mesh.data=1"
        start = [f"--initial={initial}"] if initial else []
        workdir = f"--workdir={tmp_path / 'tuned'}"
        return ["train", f"--config={config}", workdir, "--quiet", *start, *flags]

    return words


def test_a_task_whose_files_are_wrong(refused, tune, classification, tmp_path):
    cases = [
        ("train", 7, '{"text": "sun', "train.jsonl, line 7"),
        ("train", 3, "[1]", "train.jsonl, line 3"),
        ("dev", 4, '{"text": "sun", "label": "snow"}', 'dev.jsonl, line 4: label "snow"'),
        ("train", 2, '{"text": "sun", "label": null}', "train.jsonl, line 2"),
        ("dev", 5, '{"text": "sun"}', "dev.jsonl, line 5"),
        ("train", 9, '{"label": "sun"}', "train.jsonl, line 9"),
    ]
    for case, (split, number, line, named) in enumerate(cases):
        folder = shutil.copytree(classification, tmp_path / str(case))
        lines = (folder / f"{split}.jsonl").read_text().splitlines()
        lines[number - 1] = line
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
        assert named in refused(*tune(folder))
    assert not (tmp_path / "tuned").exists()


def test_a_task_or_a_start_that_is_none(refused, tune, pretrained, classification, tmp_path):
    assert "nowhere" in refused(*tune(tmp_path / "nowhere"))
    assert "train.jsonl" in refused(*tune(tmp_path))
    assert "initial" in refused(*tune(classification, initial=None))
    line = refused(*tune(classification, initial=tmp_path))
    assert f"{tmp_path} is no workdir" in line
    line = refused(*tune(classification, "--config.model.n_ctx=32"))
    assert "model.n_ctx is 32" in line
    assert "has 16" in line
    line = refused(*tune(classification, "--config.batch_size=64"))
    assert "32 examples" in line
    line = refused(*tune(classification, "--config.task.labels=sun,snow"))
    assert '"rain"' in line
    line = refused(*tune(classification, "--config.task.metric=accurracy"))
    assert "did you mean accuracy" in line
    # Weights and a config for fine-tuning, but no task.
    line = refused(
        "train",
        "--config=configs/finetune.py",
        f"--initial={pretrained}",
        f"--workdir={tmp_path / 'tuned'}",
    )
    assert "task.path" in line
    assert not (tmp_path / "tuned").exists()


def test_other_sizes_than_those_of_the_weights_are_fine_where_they_shape_nothing(
    answered, tune, classification
):
    flags = ("--config.model.dropout=0", "--config.model.n_ctx=16", "--config.stop_after=1")
    result = answered(*tune(classification, *flags))
    assert result["step"] == 1
    assert result["best"]["step"] is None  # which the closing lines do without


# From checkpoints to answers


def test_a_workdir_without_a_model(refused, pretrained, tmp_path):
    verbs = (
        ["evaluate"],
        ["sample", "--prompt=the"],
        ["score", "--input=x.txt"],
        ["predict", "--input=x.jsonl", f"--output={tmp_path / 'y.jsonl'}"],
    )
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(pretrained / "config.json", bare)
    for verb, *flags in verbs:
        assert "no config.json" in refused(verb, f"--workdir={tmp_path / 'none'}", *flags)
        assert "no usable checkpoint" in refused(verb, f"--workdir={bare}", *flags)
        line = refused(verb, f"--workdir={pretrained}", "--step=99", *flags)
        assert "no checkpoint of step 99; it has 4, 6" in line


def test_an_evaluation_that_cannot_be(refused, pretrained, finetuned, classification, tmp_path):
    assert "test" in refused("evaluate", f"--workdir={pretrained}", "--split=test")
    line = refused("evaluate", f"--workdir={pretrained}", f"--task={classification}")
    assert "fine-tuned" in line
    assert "manifest.json" in refused(
        "evaluate", f"--workdir={pretrained}", f"--data={classification}"
    )
    assert "exam" in refused("evaluate", f"--workdir={finetuned}", "--split=exam")
    assert "no labels" in refused("evaluate", f"--workdir={finetuned}", "--split=test")
    assert "elsewhere" in refused(
        "evaluate", f"--workdir={finetuned}", f"--task={tmp_path / 'elsewhere'}"
    )


def test_a_sample_that_cannot_be(refused, pretrained):
    def sample(*flags):
        return refused("sample", f"--workdir={pretrained}", *flags)

    line = sample(f"--prompt={'the cat sat ' * 20}")
    assert "the context is 16" in line
    assert "cut at least" in line
    assert "--length is 99" in sample("--prompt=the", "--length=99")
    assert "empty" in sample("--prompt=")
    assert "--length" in sample("--prompt=the", "--length=0")
    assert "--top_p" in sample("--prompt=the", "--top_p=1.5")
    assert "--temperature" in sample("--prompt=the", "--temperature=-1")
    assert "warm" in sample("--prompt=the", "--temperature=warm")
    assert "--temperature" in sample("--prompt=the", "--temperature=nan")
    assert "newline, document, none" in sample("--prompt=the", "--stop=line")


def test_a_score_that_cannot_be(refused, pretrained, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    output = tmp_path / "scores.jsonl"
    output.write_text("mine\n")
    good = texts / "good.txt"
    good.write_text("the cat sat")
    contents = {
        "empty.txt": (b"", "white space"),
        "blank.txt": (b" \n ", "white space"),
        "binary.txt": (b"the\x00cat", "binary"),
        "latin.txt": (b"the caf\xe9 ", "not UTF-8 at byte 7"),
        "cut.txt.gz": (b"\x1f\x8b\x08\x00nothing", "cut off"),
        "torn.jsonl": (b'{"text": "one"}\n{"text": "tw\n', "line 2"),
        "other.jsonl": (b'{"text": "one"}\n{"sentence": "two"}\n', "line 2"),
        "blank.jsonl": (b'{"text": "one"}\n\n{"text": ""}\n', "blank.jsonl:3"),
        "none.jsonl": (b"\n\n", "no documents"),
    }

    def score(*flags, target=output):
        written = [f"--output={target}"] if target else []
        return refused("score", f"--workdir={pretrained}", *flags, *written)

    for name, (content, named) in contents.items():
        (texts / name).write_bytes(content)
        for target in (output, None):
            line = score(f"--input={texts / name}", target=target)
            assert named in line
            assert name in line
    assert "missing.txt" in score(f"--input={texts}/missing.txt")
    assert "a folder" in score(f"--input={texts}")
    for stride in (0, -3, 17):
        line = score(f"--input={good}", f"--stride={stride}")
        assert f"--stride={stride}; expected 1 to 16" in line
    assert "no folder" in score(f"--input={good}", target=tmp_path / "none" / "scores.jsonl")
    assert "is a folder" in score(f"--input={good}", target=tmp_path)
    assert "is the file of --input or of the model" in score(f"--input={good}", target=good)
    assert good.read_text() == "the cat sat"
    assert output.read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.jsonl", "texts"]
    assert sorted(path.name for path in texts.iterdir()) == sorted(["good.txt", *contents])


def test_a_prediction_that_cannot_be(refused, pretrained, finetuned, classification, tmp_path):
    output = tmp_path / "answers.jsonl"
    output.write_text("mine\n")
    rows = tmp_path / "rows.jsonl"

    def predict(*flags, workdir=finetuned, target=output):
        return refused("predict", f"--workdir={workdir}", f"--output={target}", *flags)

    assert "language model" in predict(f"--input={classification}/dev.jsonl", workdir=pretrained)
    assert "none.jsonl" in predict(f"--input={tmp_path}/none.jsonl")
    rows.write_text('{"text": "sun"}\n{"text": 3}\n')
    assert "rows.jsonl, line 2" in predict(f"--input={rows}")
    rows.write_bytes(b'{"text": "sun"}\n{"text": "\xff"}\n')
    assert "rows.jsonl, line 2" in predict(f"--input={rows}")
    rows.write_text('{"premise": "sun", "hypothesis": "rain"}\n')
    assert "entailment" in predict(f"--input={rows}")
    rows.write_text("")
    assert "no examples" in predict(f"--input={rows}")
    rows.write_text('{"text": "sun"}\n')
    assert "no folder" in predict(f"--input={rows}", target=tmp_path / "none" / "answers.jsonl")
    assert "folder" in predict(f"--input={rows}", target=tmp_path)
    assert "--input" in predict(f"--input={rows}", target=rows)
    assert rows.read_text() == '{"text": "sun"}\n'
    assert output.read_text() == "mine\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "rows.jsonl"]


def test_a_damaged_checkpoint_is_not_believed(refused, answered, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    for file in (workdir / "checkpoints" / "6" / "params" / "d").iterdir():
        file.write_bytes(b"damaged")
    assert "checkpoint 6 is damaged" in refused("evaluate", f"--workdir={workdir}", "--step=6")
    assert answered("evaluate", f"--workdir={workdir}")["step"] == 4


def test_every_verb_ends_with_a_line_of_json(answered, tmp_path, classification, finetuned):
    glob = runs.write_documents(tmp_path / "documents")
    tokens, pretrained = tmp_path / "tokens", tmp_path / "pretrained"
    made = answered(
        "prepare", f"--output={tokens}", "--input", glob, "--vocab_size=300", "--workers=1"
    )
    assert made["splits"]["train"]["tokens"] > 1000
    words = runs.words(runs.pretraining(tokens), pretrained)
    assert answered(*words) == json.loads((pretrained / "result.json").read_text())
    found = answered("evaluate", f"--workdir={pretrained}")
    assert found["step"] == 6
    assert set(found["metrics"]) == {"valid"}
    assert {"loss", "perplexity", "bits_per_byte"} <= set(found["metrics"]["valid"])
    assert found["tokens_per_s"] > 0
    flags = ("--prompt=the cat", "--length=3", "--num_samples=2", "--seed=1")
    found = answered("sample", f"--workdir={pretrained}", *flags)
    assert len(found["samples"]) == 2
    assert found == answered("sample", f"--workdir={pretrained}", *flags)
    output = tmp_path / "scores.jsonl"
    flags = (f"--input={tmp_path}/documents/0.txt", f"--output={output}", "--stride=8")
    found = answered("score", f"--workdir={pretrained}", *flags)
    assert (found["step"], found["documents"], found["stride"]) == (6, 1, 8)
    assert len(json.loads(output.read_text())["ids"]) == found["tokens"]
    found = answered("evaluate", f"--workdir={finetuned}", "--split=train")
    assert set(found["metrics"]) == {"train"}
    assert 0 <= found["metrics"]["train"]["accuracy"] <= 1
    output = tmp_path / "answers.jsonl"
    flags = (f"--input={classification / 'test.jsonl'}", f"--output={output}")
    assert answered("predict", f"--workdir={finetuned}", *flags)["examples"] == 5
    assert output.read_text().count("\n") == 5
