"""Checkpoints that are damaged, gone or of another run (docs/reliability.md)."""

import json
import os
import shutil
from pathlib import Path

import faults
import orbax.checkpoint as ocp
import pytest
import runs
from faults import predict, train

from gpt1_jax.evaluation.probes import ProbeConfig
from gpt1_jax.inference import batch_inference, probe_curve, trained_model

VERBS = {
    "evaluate": [],
    "sample": ["--prompt=the"],
    "score": ["--input={texts}/0.txt"],
    "convert": ["--to=hf:{texts}/made"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_checkpoint_is_named_and_what_is_used_instead(
    said, pretrained, texts, tmp_path, verb
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    path = faults.damage_checkpoint(workdir, 6)
    flags = [flag.format(texts=tmp_path / "texts") for flag in VERBS[verb]]
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    result, errors = said([verb, source, *flags])
    assert result["step"] == 4
    assert f"checkpoint 6 is damaged: {path}" in errors
    assert "checkpoint 4 is used instead" in errors


def test_a_best_checkpoint_that_is_damaged(said, finetuned, rows, tmp_path):
    workdir = runs.copied(finetuned, tmp_path / "run")
    best = json.loads((workdir / "result.json").read_text())["best"]["step"]
    (workdir / "checkpoints" / str(best) / "params" / "digests.json").write_text("{}")
    result, errors = said(predict(workdir, rows, tmp_path / "out.jsonl"))
    assert result["step"] != best
    assert "digests.json has no digest of" in errors


@pytest.mark.parametrize("digests", ["[]", '{"_METADATA": 1}', "[" * 10**5, "", '{"x": "0"}'])
def test_digests_that_verify_nothing_are_damage(said, pretrained, tmp_path, digests):
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "checkpoints" / "6" / "optimizer" / "digests.json").write_text(digests)
    assert "checkpoint 6 is damaged" in said(["sample", f"--workdir={workdir}", "--prompt=the"])[1]


@pytest.mark.parametrize(
    ("verb", "known"),
    [
        ("sample", "committed.json"),
        ("convert", "result.json"),
        *(pytest.param(v, "result.json", marks=pytest.mark.exhaustive) for v in VERBS),
    ],
)
def test_a_newest_checkpoint_that_is_gone(said, pretrained, texts, tmp_path, verb, known):
    """Either file tells that there was one."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    for name in {"committed.json", "result.json"} - {known}:
        (workdir / name).unlink()
    flags = [flag.format(texts=tmp_path / "texts") for flag in VERBS[verb]]
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    result, errors = said([verb, source, *flags])
    assert result["step"] == 4
    assert "reached step 6, whose checkpoint is gone; checkpoint 4 is used instead" in errors


def test_a_newest_checkpoint_that_is_gone_is_trained_again(said, tokens, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    errors = said(train(tokens, workdir))[1]
    assert "reached step 6, whose checkpoint is gone\nresuming after step 4" in errors
    assert "moved" not in errors
    runs.assert_same_run(workdir, pretrained, 6)


def test_a_best_checkpoint_that_may_be_gone(said, finetuned, rows, tmp_path):
    """The newest knew which one is best."""
    workdir = runs.copied(finetuned, tmp_path / "run")
    newest, *others = sorted(map(int, os.listdir(workdir / "checkpoints")), reverse=True)
    shutil.rmtree(workdir / "checkpoints" / str(newest))
    result, errors = said(predict(workdir, rows, tmp_path / "out.jsonl"))
    assert result["step"] in others
    assert f"checkpoint {result['step']} is used instead" in errors


@pytest.mark.parametrize(
    ("content", "verb"), [("mine", "sample"), ("[]", "convert"), ('{"step": "6"}', "evaluate")]
)
def test_who_only_reads_goes_on_beside_a_damaged_committed_json(
    said, refused, tokens, pretrained, texts, tmp_path, content, verb
):
    """It is named, and the checkpoints are whole; who writes takes more care."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    (workdir / "committed.json").write_text(content)
    flags = [flag.format(texts=tmp_path / "texts") for flag in VERBS[verb]]
    source = f"--from={workdir}" if verb == "convert" else f"--workdir={workdir}"
    result, errors = said([verb, source, *flags])
    assert result["step"] == 6
    assert f"{workdir / 'committed.json'}: " in errors
    refused(train(tokens, workdir), workdir / "committed.json")


def _a_file(place):
    place.write_text("mine")


def _a_link_to_nowhere(place):
    place.symlink_to("/nowhere/checkpoints")


def _a_link_to_itself(place):
    place.symlink_to(place)


@pytest.mark.parametrize("instead", [_a_file, _a_link_to_nowhere, _a_link_to_itself])
def test_checkpoints_that_are_no_folder(refused, tokens, pretrained, tmp_path, instead):
    """A disk that is not mounted is a link to nowhere. Whether or not anything else tells that
    there was a checkpoint."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints")
    instead(workdir / "checkpoints")
    refused(["sample", f"--workdir={workdir}", "--prompt=the"], "run/checkpoints", "cannot be read")
    for name in ("result.json", "committed.json"):
        (workdir / name).unlink()
    refused(train(tokens, workdir), "run/checkpoints", "cannot be read")
    assert os.path.lexists(workdir / "checkpoints")


def test_a_checkpoint_whose_place_is_taken(refused, tokens, pretrained, tmp_path):
    workdir = runs.copied(pretrained, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints" / "6")
    _a_link_to_nowhere(workdir / "checkpoints" / "6")
    refused(train(tokens, workdir), "checkpoints/6 is no checkpoint")
    assert (workdir / "checkpoints" / "4").is_dir()
    assert (workdir / "checkpoints" / "6").is_symlink()


@pytest.mark.parametrize("step", ["6", "8", pytest.param("now", marks=pytest.mark.slow)])
def test_a_file_that_has_the_name_of_a_checkpoint_stays(
    refused, said, tokens, pretrained, tmp_path, step
):
    """Of the newest one, of the next one, and of one that is about to be written."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    place = workdir / "checkpoints" / step.replace("now", "8")
    words = train(tokens, workdir, steps=8, extend="stretch")
    if step == "now":
        moment = "before gpt1_jax.weights.checkpoint:Checkpoints.save"
        faults.run(words, at=moment, do=f"open({str(place)!r}, 'w').write('mine')").refused(
            place.name
        )
    else:
        shutil.rmtree(place, ignore_errors=True)
        place.write_text("mine")
        refused(words, place, "move it away")
    assert place.read_text() == "mine"
    place.unlink()
    assert said(words)[0]["step"] == 8


def _all_damaged(workdir):
    for step in (4, 6):
        faults.damage_checkpoint(workdir, step, "optimizer")


def _without_checkpoints(workdir):
    shutil.rmtree(workdir / "checkpoints")


def _without_steps_or_result(workdir):
    (workdir / "result.json").unlink()
    for step in (4, 6):
        shutil.rmtree(workdir / "checkpoints" / str(step))


def _with_rows_alone(workdir):
    for name in ("committed.json", "result.json"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "checkpoints")


def _without_config(workdir):
    (workdir / "config.json").unlink()
    for name in ("metrics.jsonl", "result.json"):
        (workdir / name).unlink()
    shutil.rmtree(workdir / "tokenizer")


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_all_damaged, "checkpoint 6 is damaged"),
        (_without_checkpoints, "whose checkpoint is gone"),
        (_without_steps_or_result, "reached step 6"),
        (_with_rows_alone, "metrics.jsonl has rows up to step 6"),
        (_without_config, "no config.json"),
    ],
)
def test_a_run_without_its_checkpoints_is_not_begun_again(
    refused, tokens, pretrained, tmp_path, damage, named
):
    workdir = runs.copied(pretrained, tmp_path / "run")
    damage(workdir)
    before = runs.snapshot(workdir)
    assert "another" in refused(train(tokens, workdir), named) or named == "no config.json"
    assert runs.snapshot(workdir) == before


class _Newer:
    """Checkpoint 6 comes and 4 goes, as a training has it that goes on."""

    def __init__(self, workdir, aside):
        self.place, self.done = workdir / "checkpoints", False
        self.aside = shutil.move(self.place / "6", aside)

    def come(self) -> bool:
        """Whether it was the first time."""
        if self.done:
            return False
        shutil.move(self.aside, self.place / "6")
        shutil.rmtree(self.place / "4")
        self.done = True
        return True


@pytest.mark.parametrize("moment", ["__init__", "item_metadata", "restore"])
def test_a_checkpoint_that_is_deleted_while_it_is_read(
    said, pretrained, tmp_path, monkeypatch, moment
):
    """By a process that trains there and has saved newer ones."""
    newer = _Newer(workdir := runs.copied(pretrained, tmp_path / "run"), tmp_path / "6")
    before = getattr(ocp.CheckpointManager, moment)

    def deleting(*arguments, **options):
        if newer.come() and moment == "__init__":
            raise FileNotFoundError(2, "No such file or directory")  # of what it had the name
        return before(*arguments, **options)

    monkeypatch.setattr(ocp.CheckpointManager, moment, deleting)
    result, errors = said(["sample", f"--workdir={workdir}", "--prompt=the"])
    assert newer.done
    assert result["step"] == 6
    assert "checkpoint" not in errors


def test_a_checkpoint_that_comes_while_the_names_are_read(said, pretrained, tmp_path, monkeypatch):
    """Neither it nor the one that is deleted for it may be among them."""
    workdir = runs.copied(pretrained, tmp_path / "run")
    steps, asked = ocp.CheckpointManager.all_steps, []

    def without_the_newest(manager, *_, **__):
        asked.append(manager)
        return [step for step in steps(manager) if step < 6 or manager is not asked[0]]

    monkeypatch.setattr(ocp.CheckpointManager, "all_steps", without_the_newest)
    result, errors = said(["sample", f"--workdir={workdir}", "--prompt=the"])
    assert result["step"] == 6
    assert "gone" not in errors


@pytest.mark.parametrize(("module", "moment"), [(os, "scandir"), (Path, "samefile")])
def test_a_checkpoint_that_is_deleted_while_an_output_is_looked_for(
    said, pretrained, texts, tmp_path, monkeypatch, module, moment
):
    """Among the files of the run, which an output may not be."""
    newer = _Newer(workdir := runs.copied(pretrained, tmp_path / "run"), tmp_path / "6")
    before, listed = getattr(module, moment), batch_inference.files_of

    def deleting(*paths):
        if any("/checkpoints/4/" in str(path) for path in paths):
            newer.come()
        return before(*paths)

    def files_of(folder):
        monkeypatch.setattr(module, moment, deleting)
        return listed(folder)

    monkeypatch.setattr(batch_inference, "files_of", files_of)
    (tmp_path / "out.jsonl").write_text("")
    words = ["score", f"--workdir={workdir}", f"--input={tmp_path}/texts/0.txt"]
    said([*words, f"--output={tmp_path}/out.jsonl"])
    assert newer.done


def test_a_curve_of_probes_beside_a_training(pretrained, classification, tmp_path, monkeypatch):
    workdir = runs.copied(pretrained, tmp_path / "run")
    load, said = trained_model.load, []

    def deleting(folder, step):
        if step == 4:
            shutil.rmtree(workdir / "checkpoints" / "4")
        return load(folder, step)

    monkeypatch.setattr(trained_model, "load", deleting)
    monkeypatch.setattr(probe_curve, "say", said.append)
    others = dict.fromkeys(("acceptability", "question_answering", "pronoun_resolution"))
    probe = ProbeConfig(path=str(classification.parent), sentiment=classification.name, **others)
    assert {row["step"] for row in probe_curve.curve(workdir, probe)} == {0, 6}
    assert said == ["checkpoint 4 was deleted meanwhile, and is left out"]


TASK = {"name": "rte", "shape": "entailment", "metric": "accuracy"}


def with_another(run, folder, key, value):
    """A copy of a run with a value of its config.json that is not its own."""
    workdir = runs.copied(run, folder / "run")
    content = json.loads((workdir / "config.json").read_text())
    *sections, name = key.split(".")
    place = content
    for section in sections:
        place = place[section]
    place[name] = value
    (workdir / "config.json").write_text(json.dumps(content))
    return workdir


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("model.n_head", 1), ("model.n_layer", 2), ("resolved.tokenizer", "0")],
        *[("model.n_ctx", 8), ("resolved.task", TASK)],
    ],
)
def test_a_config_of_another_model(refused, pretrained, tmp_path, key, value):
    workdir = with_another(pretrained, tmp_path, key, value)
    refused(["sample", f"--workdir={workdir}", "--prompt=the"], "config.json", key)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("metric", "f1"), ("shape", "acceptability"), ("further", ["matthews"])],
        *[("truncation", "tail"), ("score_loss", "mse")],
    ],
)
def test_a_config_of_another_task(refused, finetuned, rows, tmp_path, key, value):
    workdir = with_another(finetuned, tmp_path, f"resolved.task.{key}", value)
    refused(predict(workdir, rows, tmp_path / "out"), "config.json", f"resolved.task.{key}")
