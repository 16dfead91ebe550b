"""Text that a model writes while it is trained, as the verb shows it and as TensorBoard gets it."""

import json

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


@pytest.mark.parametrize(
    "changes", [{}, {"mesh.data": 4, "mesh.model": 2, "mesh.fsdp": True}, {"model.body": "lstm"}]
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


@pytest.mark.parametrize("prompt", ["", "word " * 60])
def test_a_prompt_that_cannot_be_continued_is_refused_before_the_first_step(
    tokens, tmp_path, prompt
):
    given = runs.pretraining(tokens, **{"log.sample": prompt})
    runs.refused(runs.words(given, tmp_path / "run"), "log.sample has")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
