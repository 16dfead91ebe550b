"""Whose a workdir is, and a run that goes on for more updates than it was begun with."""

import json

import pytest
import runs

from gpt1_jax.__main__ import main

LAST = runs.PRETRAINING["steps"]
LONGER = LAST + 4


@pytest.fixture
def given(tokens):
    return runs.pretraining(tokens)


def extended(given, workdir, how, **changes):
    """The command, again in the workdir, for more updates."""
    changes = {"steps": LONGER, "extend": how, **changes}
    return [*runs.words({**given, **changes}, workdir), "--quiet"]


def extensions(workdir):
    return json.loads((workdir / "config.json").read_text())["resolved"]["extensions"]


def test_more_updates_are_a_choice_that_has_a_name(given, pretrained, tmp_path, capsys):
    workdir = runs.copied(pretrained, tmp_path / "run")
    before = runs.snapshot(workdir)
    assert main([*runs.words({**given, "steps": LONGER}, workdir), "--quiet"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"a run of {LAST} updates, this one has {LONGER}" in line
    assert "--config.extend=stretch" in line
    assert "--config.extend=restart" in line
    assert main(extended(given, workdir, "longer")) == 2
    assert "stretch" in capsys.readouterr().err
    assert runs.snapshot(workdir) == before


@pytest.mark.parametrize("how", [pytest.param("stretch", marks=pytest.mark.exhaustive), "restart"])
def test_a_longer_run_is_recorded_and_goes_on_after_a_stop(given, pretrained, tmp_path, how):
    whole, pieces = (runs.copied(pretrained, tmp_path / name) for name in ("whole", "pieces"))
    assert main(extended(given, whole, how)) == 0
    assert main(extended(given, pieces, how, stop_after=LAST + 1)) == 0
    # The choice was made: the same length is all that the command has to say.
    assert main([*runs.words({**given, "steps": LONGER}, pieces), "--quiet"]) == 0
    expected = [{"after": LAST, "steps": LONGER, "schedule": how}]
    assert extensions(whole) == extensions(pieces) == expected
    runs.assert_same_run(pieces, whole, LONGER)
    result = json.loads((whole / "result.json").read_text())
    assert result["step"] == LONGER
    steps = [row["step"] for row in runs.rows(whole) if row["split"] == "train"]
    assert steps == list(range(1, LONGER + 1))


@pytest.mark.exhaustive
def test_a_new_schedule_warms_up_and_a_stretched_one_does_not(given, pretrained, tmp_path):
    def moved(how):
        """Whether the first update of the extension changes anything."""
        workdir = runs.copied(pretrained, tmp_path / how)
        changes = {"optimizer.warmup": given["optimizer.warmup"], "stop_after": LAST + 1}
        assert main(extended(given, workdir, how, **changes)) == 0
        before, after = runs.params(workdir, LAST), runs.params(workdir, LAST + 1)
        return (before["wte"]["embedding"] != after["wte"]["embedding"]).any()

    assert moved("stretch")
    assert not moved("restart")


def test_a_run_is_never_made_shorter(given, pretrained, tmp_path, capsys):
    workdir = runs.copied(pretrained, tmp_path / "run")
    assert main(extended(given, workdir, "stretch", steps=LAST - 1)) == 2
    assert f"steps = {LAST}, this one has {LAST - 1}" in capsys.readouterr().err
    assert extensions(workdir) == []


@pytest.mark.slow
def test_a_run_of_another_kind_is_called_that(given, pretrained, classification, tmp_path):
    """Whichever of the two is longer."""
    task = runs.fine_tuning(pretrained, classification, "classification", stop_after=1)
    flags = [f"--config.{key}={value}" for key, value in task.items()]
    fine_tuning = ["train", "--config=configs/finetune.py", f"--workdir={pretrained}", *flags]
    said = runs.refused(fine_tuning, "holds the pre-training of a model, and this is fine-tuning")
    assert "extend" not in said
    workdir = tmp_path / "classifier"
    fine_tuning[2] = f"--workdir={workdir}"
    assert runs.verb(*fine_tuning).status == 0
    longer = runs.words({**given, "steps": 9}, workdir)
    assert "extend" not in runs.refused(longer, "holds the fine-tuning of a model")
