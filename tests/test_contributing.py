"""What CONTRIBUTING.md shows, done as it says."""

import re

import pytest
import runs

from gpt1_jax.data.tasks import TASKS, Row


@pytest.mark.slow
def test_a_task_in_ten_lines(pretrained, tmp_path, monkeypatch):
    """The row of the page makes a task that is trained by its name, here on files."""
    page = (runs.ROOT / "CONTRIBUTING.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(code.splitlines()) <= 10
    row = eval(code, {"Row": Row})
    assert row.name not in TASKS
    monkeypatch.setitem(TASKS, row.name, row)
    files = runs.write_task(tmp_path / row.name, "entailment", classes=row.labels)
    keys = {key: value for key, value in runs.FINE_TUNING.items() if not key.startswith("task.")}
    words = [f"--config.{key}={value}" for key, value in keys.items()]
    config = f"--config=configs/finetune.py:{row.name},path={files}"
    workdir = f"--workdir={tmp_path / 'run'}"
    done = runs.verb("train", config, workdir, f"--initial={pretrained}", *words)
    assert done.status == 0, done.said[-1]
    measured = runs.verb("evaluate", workdir).result["metrics"]["dev"]
    assert measured["accuracy"] == done.result["best"]["score"]
    assert any("entailment" in line for line in done.said)  # the classes with their counts
