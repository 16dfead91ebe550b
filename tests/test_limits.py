"""Values that no machine has room for, names that are no text, places that are taken: one line."""

import json
import os
import shutil
import time
from dataclasses import replace

import faults
import jax
import numpy as np
import pytest
import runs
import tiny

from gpt1_jax import disk
from gpt1_jax.evaluation import sample
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network
from gpt1_jax.tokenization import loading, text_rules, vocabulary
from gpt1_jax.tokenization.gpt1_bpe import OriginalTokenizer


def refused(words, *named) -> str:
    """Ends with 2 and one line, soon."""
    began = time.process_time()
    line = runs.refused(words, *named)
    assert time.process_time() - began < 2
    return line


HUGE = {
    "batch_size": ("1e12", "999999999", "-1"),
    "model.n_embd": ("1000000000", "1e30"),
    "model.n_layer": ("1000000", "10000000000"),
    "model.n_ctx": ("1e12", "100000"),
    "steps": ("10000000000000000000000",),
    "epochs": ("1e300",),
    "seed": ("99999999999999999999", "-1", "4294967296"),
    "eval.batch_size": ("1e12",),
    "data.prefetch": ("1e12",),
    "mesh.data": ("1e12",),
    "optimizer.learning_rate": ("1e300",),
    "objective.lm_coef": ("1e308", "-1e39"),
    "optimizer.accumulation": ("1e12",),
}


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, vs in HUGE.items() for v in vs])
def test_a_training_that_no_machine_has_room_for(tokens, tmp_path, key, value):
    given = runs.pretraining(tokens)
    if key == "epochs":
        del given["steps"]
    last = {"model.n_ctx": "n_ctx", "mesh.data": "mesh.data"}.get(key, key.rpartition(".")[2])
    refused(runs.words({**given, key: value}, tmp_path / "run"), last)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--num_samples=100000000000", "samples"),
        ("--length=1000000000000", "--length"),
        ("--seed=99999999999999999999", "--seed"),
        ("--seed=18446744073709551616", "--seed"),
        ("--seed=-1", "--seed"),
        ("--step=99999999999999999999", "checkpoint"),
    ],
)
def test_a_sample_that_no_machine_has_room_for(pretrained, flag, named):
    refused(["sample", f"--workdir={pretrained}", "--prompt=the", flag], named)


def test_more_numbers_out_of_reach(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat")
    output = f"--output={tmp_path / 'out'}"
    refused(["prepare", output, "--input", text, "--vocab_size=1000000000"], "vocab_size")
    refused(["quickstart", f"--workdir={tmp_path / 'q'}", "--minutes=1e300"], "--minutes")
    words = ["reproduce", "--table=4", "--scale=small", f"--workdir={tmp_path / 'r'}"]
    refused([*words, "--seeds=0,99999999999999999999"], "--seeds")
    assert list(tmp_path.iterdir()) == [text]


@pytest.mark.parametrize("body", ["transformer", "lstm"])
def test_parameters_are_counted_without_making_them(body):
    config = replace(tiny.CONFIG, body=body, n_units=24)
    shapes = jax.eval_shape(network(config, "plain", None, 0).init, jax.random.key(0))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert config.n_parameters == count
    assert ModelConfig().n_parameters == 116_534_784


CONFIGS = {
    "no hash": "return {[]: 1}",
    "no ConfigDict": "return {'steps': 1}",
    "nothing": "return None",
    "raises": "raise RuntimeError('no\\n way \\x1b[31m')",
    "leaves": "import sys; sys.exit('bye')",
    "itself": "c = ConfigDict({'steps': 1}); c.loop = c; return c",
    "forever": "return get_config(a)",
    "no words": "raise type('E', (Exception,), {'__str__': lambda self: 1 / 0})()",
    "interrupts": "raise KeyboardInterrupt",
    "closes": "raise GeneratorExit",
    "required": "c = ConfigDict(); c.steps = 1; c.seed = placeholder(int, True); return c",
    "numbers": "return ConfigDict({'steps': {1: 2}}, convert_dict=False)",
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_file_that_is_none(tmp_path, name):
    path = tmp_path / "config.py"
    path.write_text(
        "from ml_collections.config_dict import ConfigDict, placeholder\n"
        f"def get_config(a=None):\n    {CONFIGS[name]}\n"
    )
    refused(["train", f"--config={path}", f"--workdir={tmp_path / 'run'}"])


def test_ids_beyond_the_vocabulary_are_called_that(tokens, tmp_path):
    """Shards that are whole, of a tokenizer with more ids."""
    copy = runs.copied(tokens, tmp_path / "tokens")
    path = copy / "train-00000.npy"
    ids = np.load(path)
    ids[len(ids) // 2] = 40_000
    np.save(path, ids)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["sha256"] = disk.sha256(path)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    words = runs.words(runs.pretraining(copy), tmp_path / "run")
    line = refused(words, "40000", "beyond the vocabulary of 300", "train-00000.npy")
    assert "learning_rate" not in line


# Names


NAMES = [b"caf\xe9.txt", b"line\nbreak.txt", b"\x1b[31mred\x07.txt"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_no_text(tmp_path, name):
    path = os.fsencode(tmp_path) + b"/" + name
    with open(path, "w") as file:
        file.write("the cat sat on the mat. " * 100)
    words = ["--vocab_size=300", "--workers=1", f"--output={tmp_path / 'out'}"]
    outcome = runs.verb("prepare", *words, "--input", os.fsdecode(path))
    assert outcome.status in (0, 2)
    assert all(line.isprintable() for line in outcome.said)
    if outcome.status == 0:
        assert outcome.result["splits"]["train"]["documents"] == 1
    refused(["prepare", *words, "--input", os.fsdecode(path) + "x"], "no file matches")


def test_a_run_may_have_a_colon_in_its_name(pretrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs.copied(pretrained, tmp_path / "12:30")
    assert runs.verb("sample", "--workdir=12:30", "--prompt=the", "--length=2").status == 0
    refused(["sample", "--workdir=12:31", "--prompt=the"], "12:31")


@pytest.mark.parametrize("kind", ["openai", "hf"])
def test_a_workdir_that_is_called_like_a_layout_of_weights(pretrained, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    words = ["sample", f"--workdir={kind}:x", "--prompt=the", "--length=2"]
    refused(words, f"--workdir={kind}:x: there is no folder", f"--initial={kind}:x")
    runs.copied(pretrained, tmp_path / f"{kind}:x")
    assert runs.verb(*words).status == 0


def test_plain_surroundings(pretrained, tmp_path):
    """No locale, no UTF-8, no columns."""
    bare = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    settings = f"os.environ.update({bare | {'COLUMNS': '0'}!r})"
    words = ["sample", f"--workdir={pretrained}", "--prompt=caf\u00e9", "--length=2"]
    assert faults.run(words, settings=settings).done()["samples"]


# Places


@pytest.mark.parametrize("place", ["events", "damaged", "checkpoints"])
def test_a_place_that_is_taken(tokens, pretrained, tmp_path, place):
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "result.json").unlink()
    if place == "checkpoints":
        shutil.rmtree(workdir / place)
    else:
        faults.damage_checkpoint(workdir, 6)
    (workdir / place).write_text("mine")
    changes = {"log.tensorboard": True}
    refused(runs.words(runs.pretraining(tokens, **changes), workdir), place)
    assert (workdir / place).read_text() == "mine"


def test_a_jax_of_64_bits(pretrained):
    with jax.enable_x64(True):
        refused(["sample", f"--workdir={pretrained}", "--prompt=the"], "JAX_ENABLE_X64")


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["JAX_ENABLE_X64=perhaps", "JAX_PLATFORMS=abacus"])
def test_a_jax_that_does_not_start_as_the_environment_has_it(pretrained, monkeypatch, variable):
    monkeypatch.setenv(*variable.split("="))
    sample = runs.process(["sample", f"--workdir={pretrained}", "--prompt=the"])
    _, said = sample.communicate(timeout=60)
    assert sample.returncode == 2
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith("gpt1: JAX does not start: ")
    assert variable in last


REFUSES = "lambda *_: exec('raise PermissionError(1, chr(78))')"
UNDER = {
    "removed": "import shutil; shutil.rmtree({!r}, ignore_errors=True)",
    "a file": "os.rename({0!r}, {0!r} + '.aside'); open({0!r}, 'w').write('mine')",
    "no rows": f"from gpt1_jax.training import record; record._append = {REFUSES}",
    "no events": f"import tensorboardX.event_file_writer as e; e.EventsWriter.flush = {REFUSES}",
}


@pytest.mark.parametrize(
    ("do", "step"),
    [
        ("a file", 1),
        pytest.param("no rows", 1, marks=pytest.mark.slow),
        pytest.param("no events", 1, marks=pytest.mark.slow),
        pytest.param("removed", 1, marks=pytest.mark.exhaustive),
        pytest.param("removed", 2, marks=pytest.mark.exhaustive),
        pytest.param("removed", 3, marks=pytest.mark.exhaustive),
    ],
)
def test_a_workdir_that_is_removed_under_a_training(tokens, tmp_path, do, step):
    """Or replaced by a file, or made unwritable."""
    given = runs.pretraining(tokens) | {"log.tensorboard": do == "no events"}
    words = [*runs.words(given, tmp_path / "run"), "--quiet"]
    moment = f"before gpt1_jax.training.actions:Actions.save%{step}"
    faults.run(words, at=moment, do=UNDER[do].format(str(tmp_path / "run"))).refused("run")


# What is shown


def test_a_prompt_and_its_continuation_are_joined_as_the_tokenizer_means_it(pretrained):
    """Of GPT-1 every prompt ends a word; SentencePiece keeps every character."""
    text = "the cat sat on the mat , and so did I ."
    words = OriginalTokenizer(vocabulary.learn(text_rules.count_words(text), 100))
    pieces = loading.load(pretrained / "tokenizer")
    for tokenizer, more in ((words, "sat on"), (pieces, " sat on"), (pieces, "ch"), (words, "")):
        ids = tokenizer.encode(more)
        space = " " if tokenizer is words and more else ""
        assert sample.continuation(tokenizer, "the cat", ids).rstrip() == space + more
        assert sample.continuation(tokenizer, "the cat ", ids) == tokenizer.decode(ids)
    outcome = runs.verb("sample", f"--workdir={pretrained}", "--prompt=the cat", "--length=3")
    assert "the cat" + outcome.result["samples"][0] in "\n".join(outcome.said)


@pytest.mark.parametrize(
    "asked",
    [
        lambda *_: jax.numpy.zeros(2**45, "uint8").block_until_ready(),
        lambda *_: np.zeros(2**50),
        lambda *_: bytearray(2**62),
    ],
)
def test_memory_that_is_not_there_after_all(pretrained, monkeypatch, asked):
    monkeypatch.setattr(sample, "generate", asked)
    refused(
        ["sample", f"--workdir={pretrained}", "--prompt=the"], "no memory is left", "batch_size"
    )
