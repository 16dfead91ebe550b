"""What a person sees of a training: before its first step, while it runs, and after its last."""

import json
import os
import pty
import re
import subprocess
import sys

import jax
import pages
import pytest
import runs

from gpt1_jax import messages
from gpt1_jax.__main__ import EXAMPLES, VERBS, main
from gpt1_jax.experiments import clock
from gpt1_jax.inference import row_progress
from gpt1_jax.recipe import experiment, explanations
from gpt1_jax.runtime.peaks import Peak
from gpt1_jax.training import progress


@pytest.fixture
def words(tokens, tmp_path):
    """The words of a run in a new workdir."""

    def made(**changes) -> list[str]:
        return runs.words(runs.pretraining(tokens, **changes), tmp_path / "run")

    return made


def test_a_run_says_what_it_is_where_it_begins_and_what_to_type_next(words, tmp_path):
    two = {"model.n_layer": 2}
    outcome = runs.verb(*words(**two, stop_after=2))
    said = "\n".join(outcome.said)
    parameters = runs.params(tmp_path / "run", 2)
    count = sum(leaf.size for leaf in jax.tree.leaves(parameters))
    assert f"devices: 1 x {jax.devices()[0].device_kind}, mesh.data=1, mesh.model=1" in said
    assert f"Transformer with {count:,} parameters: 2 layers, 2 heads, width 16" in said
    assert "steps 1 to 2 of 6: 128 tokens a step" in said
    assert "data.driver=thread" in said or "data.driver=tfdata" in said
    assert f"no checkpoint in {tmp_path / 'run'} yet: beginning with fresh parameters" in said
    assert outcome.said[-1].startswith(f"next: gpt1 sample --workdir={tmp_path / 'run'} --prompt=")
    again = runs.verb(*words(**two))
    said = "\n".join(again.said)
    assert f"a checkpoint was found in {tmp_path / 'run'}: going on after step 2" in said
    assert re.search(r"^valid +\d+\.\d{4} ", said, re.MULTILINE)
    assert f"{again.result['metrics']['valid']['perplexity']:.4f}" in said
    assert "was finished at step 6; nothing is left to do" in "\n".join(
        runs.verb(*words(**two)).said
    )


def test_the_command_that_it_names_runs(words):
    command = runs.verb(*words(stop_after=2)).said[-1].removeprefix("next: gpt1 ").split()
    assert runs.verb(*command, "--length=1").status == 0


@pytest.mark.slow
def test_a_task_says_its_classes_and_is_evaluated_next(pretrained, classification, tmp_path):
    given = runs.fine_tuning(pretrained, classification, "classification")
    flags = [f"--config.{key}={value}" for key, value in given.items()]
    config = "--config=configs/finetune.py"
    outcome = runs.verb("train", config, f"--workdir={tmp_path / 'run'}", *flags)
    said = "\n".join(outcome.said)
    assert "16 rain" in said.replace("'", "") or "rain 16" in said.replace("'", "")
    assert f"beginning with the weights of {pretrained}" in said
    assert f"the best is step {outcome.result['best']['step']}" in said
    assert outcome.said[-1] == f"next: gpt1 evaluate --workdir={tmp_path / 'run'}"


def test_a_line_has_loss_speed_and_the_time_left_and_none_of_them_before_it_is_known(
    words, monkeypatch
):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress, "known_peak", lambda *_: Peak(1e-6, "made up"))
    lines = [line for line in runs.verb(*words()).said if line.startswith("step ")]
    shown = [line for line in lines if "tokens/s" in line and "left" in line]
    assert shown
    form = (
        r"step \d/6: loss \d+\.\d{4}, [\d,]+ tokens/s, \S+ TFLOP/s, \d+% of the peak, [\d:]+ left"
    )
    assert all(re.fullmatch(form, line) for line in shown)
    assert not [line for line in lines if ", 0 tokens/s" in line]


BAR = """
from gpt1_jax.inference.row_progress import counting
with counting(3, "rows") as add:
    add(3)
"""


def test_a_terminal_that_says_it_has_no_columns_shows_the_bar_all_the_same():
    ours, theirs = pty.openpty()  # of no columns, until somebody sets them
    command = [sys.executable, "-c", BAR]
    done = subprocess.run(command, stderr=theirs, cwd=runs.ROOT, check=True)
    os.close(theirs)
    assert done.returncode == 0
    assert b"3/3" in os.read(ours, 10_000)
    os.close(ours)


def test_quiet_says_nothing(words):
    assert runs.verb(*words(stop_after=2), "--quiet").said == []


def test_other_verbs_tell_their_progress_and_with_quiet_nothing(
    tokens, pretrained, finetuned, classification, tmp_path, monkeypatch
):
    monkeypatch.setattr(row_progress, "EVERY", 0.0)
    text = sorted((tokens.parent / "documents").iterdir())[0]
    lm, task = f"--workdir={pretrained}", f"--workdir={finetuned}"
    rows = f"--input={classification / 'dev.jsonl'}"
    ends = {
        "prepare": f"next: gpt1 train --config=configs/pretrain.py:tiny --workdir=runs/lm "
        f"--config.data.path={tmp_path / 'prepare1'}",
        "evaluate": "valid, ",
        "score": "1 of 1 documents",
        "predict": "gold, predicted:",
    }
    for verb, *flags in (
        ("prepare", f"--input={text}", "--vocab_size=300", "--workers=1"),
        ("evaluate", lm),
        ("score", lm, f"--input={text}"),
        ("predict", task, rows),
    ):
        told, quiet = (
            [verb, *flags, *([] if verb == "evaluate" else [f"--output={tmp_path / verb}{n}"])]
            for n in (1, 2)
        )
        said = "\n".join(runs.verb(*told).said)
        assert ends[verb] in said, verb
        outcome = runs.verb(*quiet, "--quiet")
        assert (outcome.status, outcome.said) == (0, []), verb


def test_a_clock_that_is_hushed_tells_nothing(capsys):
    with messages.hushed(), clock.Clock(60) as parts, parts.part("pre-training"):
        messages.tell("progress")
    assert capsys.readouterr().err == ""


def test_a_run_says_which_part_of_the_held_out_text_it_was_measured_on(words):
    outcome = runs.verb(*words(stop_after=3))
    windows = outcome.result["valid_windows"]
    assert windows["read"] == runs.PRETRAINING["eval.windows"] < windows["all"]
    line = f"valid: the first 8 of {windows['all']} windows (eval.windows); `evaluate` reads all"
    assert any(said.startswith(line) for said in outcome.said)


def test_every_key_has_one_line_of_explanation():
    assert list(explanations.EXPLANATIONS) == list(experiment.KEYS)
    assert max(map(len, explanations.EXPLANATIONS.values())) < 80


def test_print_config_shows_every_key_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    words = ["train", "--config=configs/pretrain.py:tiny", "--config.seed=7", "--print_config"]
    assert main(words) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert {line[2:].split()[0] for line in lines} == set(experiment.KEYS)
    (seed,) = [line for line in lines if line[2:].startswith("seed ")]
    assert seed.split() == ["*", "seed", "7", "(default:", "42)", *seed.split()[5:]]
    assert json.loads(last)["model.n_layer"] == 2
    assert not list(tmp_path.iterdir())


def test_help_has_examples_that_are_typed_by_a_test(capsys):
    typed = {command.text.removeprefix(".venv/bin/") for command in pages.TYPED}
    assert EXAMPLES.keys() == VERBS.keys()
    for verb, examples in EXAMPLES.items():
        assert set(examples) <= typed, verb
        assert main([verb, "--help"]) == 0
        assert all(example in capsys.readouterr().out for example in examples[:1])
