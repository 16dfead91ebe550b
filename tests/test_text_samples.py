"""Text that a model writes while it is trained, as the verb shows it and as TensorBoard gets it."""

import json
import math

import pytest
import runs
from test_record import records

PROMPT = "the cat"


def written(workdir) -> dict[int, str]:
    """The texts of the events, by step, out of their Markdown."""
    (path,) = (workdir / "events").glob("events.*")
    return {
        event.step: value.tensor.string_val[0].decode()
        for event in records(path)
        for value in event.summary.value
        if value.tag.startswith("sample")
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.exhaustive),
        {"mesh.data": 4, "mesh.model": 2, "mesh.fsdp": True},
        pytest.param({"model.body": "lstm", "model.n_units": 16}, marks=pytest.mark.exhaustive),
    ],
)
def test_each_evaluation_shows_what_sample_then_writes(tokens, tmp_path, changes):
    asked = {"log.sample": PROMPT, "log.tensorboard": True, "eval.every": 3, **changes}
    outcome = runs.verb(*runs.words(runs.pretraining(tokens, **asked), tmp_path))
    words = ["--temperature=0.7", "--top_k=40", f"--prompt={PROMPT}"]
    (sample,) = runs.verb("sample", f"--workdir={tmp_path}", *words).result["samples"]
    said = [line for line in outcome.said if " sample: " in line]
    assert said[-1] == f"step 6/6 sample: {PROMPT + sample!r}"
    events = written(tmp_path)
    assert sorted(events) == [3, 6]
    assert events[6] == "".join(f"    {line}\n" for line in (PROMPT + sample).splitlines())
    assert not json.dumps(runs.rows(tmp_path)).count(PROMPT)


def test_tensorboard_has_the_rate_and_the_speed_and_rows_have_what_repeats(tokens, tmp_path):
    given = runs.pretraining(tokens, **{"log.tensorboard": True})
    runs.verb(*runs.words(given, tmp_path))
    rates = {
        row["step"]: row["learning_rate"] for row in runs.rows(tmp_path) if row["split"] == "train"
    }
    (path,) = (tmp_path / "events").glob("events.*")
    values = [(event.step, value) for event in records(path) for value in event.summary.value]
    shown = {
        step: value.simple_value for step, value in values if value.tag == "train/learning_rate"
    }
    assert shown == pytest.approx(rates)
    # Warm-up over the first tenth of six updates, then a cosine; an update knows those done before.
    assert rates[1] == 0.0
    assert rates[4] == pytest.approx(1e-2 * 0.5 * (1 + math.cos(math.pi * 3 / 6)))
    speeds = [value.simple_value for _, value in values if value.tag == "train/tokens_per_s"]
    assert len(speeds) == 6
    assert speeds[-1] > 0
    assert not [row for row in runs.rows(tmp_path) if "tokens_per_s" in row]


@pytest.mark.parametrize("prompt", ["", "word " * 60])
def test_a_prompt_that_cannot_be_continued_is_refused_before_the_first_step(
    tokens, tmp_path, prompt
):
    given = runs.pretraining(tokens, **{"log.sample": prompt})
    runs.refused(runs.words(given, tmp_path / "run"), "log.sample has")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
