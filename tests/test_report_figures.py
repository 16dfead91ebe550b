"""The figures of a report."""

import json
import re
import shutil
import sys

import pytest
import reproductions
from reproductions import SMALL, read_csv, refused

from gpt1_jax.results import figures
from gpt1_jax.results.markdown import escaped
from gpt1_jax.results.report import report

# Figures


def test_figure_2_left_has_the_scores_by_blocks_of_dev_and_train(reported):
    rows = read_csv(reported[0] / "figure2left.csv")
    dev = [row for row in rows if (row["task"], row["split"]) == ("rte", "dev")]
    assert [(row["blocks"], row["median"]) for row in dev] == [
        ("0", "50.0"),
        ("1", "60.0"),
        ("2", "70.0"),
    ]
    train = [row for row in rows if (row["task"], row["split"]) == ("rte", "train_examples")]
    assert [row["median"] for row in train] == ["60.0", "70.0", "80.0"]


def test_figure_2_right_is_relative_to_the_anchors(reported):
    rows = read_csv(reported[0] / "figure2right.csv")
    last = [row for row in rows if row["body"] == "transformer"][-1]
    # 60 % between 50 and 90
    assert (last["step"], float(last["relative"])) == ("1000", 0.25)
    assert "sentiment 0 = 50, 1 = 90" in (reported[0] / "index.md").read_text()
    # Which gave the same answer to all before the first update, and to half of them at the end.
    assert [float(row["commonest"]) for row in rows[:4]] == [1.0, 0.995, 0.95, 0.5]


@pytest.mark.parametrize(
    ("name", "key", "dashed"), [("2left", "split", "train_examples"), ("2right", "body", "lstm")]
)
def test_train_and_the_lstm_are_dashed_as_in_the_paper(reported, name, key, dashed):
    rows = read_csv(reported[0] / f"figure{name}.csv")
    lines = {(row["task"], row[key]) for row in rows}
    n_dashed = sum(kind == dashed for _, kind in lines)
    assert 0 < n_dashed < len(lines)
    # Each line once, and once in the legend.
    drawn = (reported[0] / f"figure{name}.svg").read_text().count("stroke-dasharray")
    assert drawn == 2 * n_dashed


def test_a_figure_without_runs_says_why(tmp_path, runs):
    copy = shutil.copytree(runs, tmp_path / "copy")
    path = copy / "reproduction.json"
    whole = json.loads(path.read_text())
    whole["runs"] = [run for run in whole["runs"] if not run["figure"]]
    missing = {"variant": "lstm", "task": "probes", "figure": "2right", "reason": "no data of RACE"}
    whole |= {"probes": [], "missing": [missing]}
    path.write_text(json.dumps(whole))
    report(copy, tmp_path / "out")
    index = (tmp_path / "out" / "index.md").read_text()
    command = f"gpt1 reproduce --figure=2left --workdir={copy} --scale=small"
    assert f"is not there: not run: {escaped(command)}" in index
    assert "is not there: no data of RACE" in index
    assert not (tmp_path / "out" / "figure2left.png").exists()


@pytest.mark.slow
def test_all_figures_of_the_study_are_drawn(tmp_path):
    """From the files that are committed, whose report is this one."""
    study = SMALL.with_name("study")
    report(study, tmp_path)
    index = (tmp_path / "index.md").read_text()
    missing = re.findall(r"^Figure (\w+) .*is not there", index, re.MULTILINE)
    assert missing == []
    assert "![Scores by the number of labels (small scale)](labels.svg)" in index
    curve = (study / "report" / "labels.csv").read_text()
    assert (tmp_path / "labels.csv").read_text() == curve
    shown = (SMALL.parents[1] / "docs" / "pictures" / "labels.svg").read_text()
    assert shown == (study / "report" / "labels.svg").read_text()
    # Each row of the curve is drawn in each of three panels, and named once for all.
    drawing = (tmp_path / "labels.svg").read_text()
    assert [drawing.count(f">{name}<") for name in ("pre-trained", "bag of words")] == [1, 1]


def test_images_are_png_and_svg_without_a_date(reported):
    output, result = reported
    images = [name for name in result["files"] if name.endswith(".png")]
    assert len(images) == 4
    for name in images:
        assert (output / name).read_bytes().startswith(b"\x89PNG")
        assert b"<dc:date>" not in (output / name).with_suffix(".svg").read_bytes()


# The page and the files


def test_a_loss_curve_is_the_mean_of_neighbours_and_not_longer_than_it_is_wide():
    steps, values = figures._smoothed(range(10, 4010, 10), [0.0, 2.0] * 200)
    assert len(steps) == len(values) == figures.CURVE_POINTS
    assert steps[:2] == [10, 50]
    assert values[50] == pytest.approx(1.0, abs=0.1)
    assert figures._smoothed([1, 2], [5.0, 6.0]) == ([1, 2], [5.0, 6.0])


# Mistakes


def test_no_matplotlib(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install matplotlib" in refused(runs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.exhaustive
def test_a_notebooks_own_way_of_drawing_stays_as_it_was(runs, tmp_path):
    import matplotlib

    before = dict(matplotlib.rcParams)
    report(runs, tmp_path / "out")
    assert dict(matplotlib.rcParams) == before


def test_probes_without_anchors(tmp_path):
    root = reproductions.write(tmp_path / "runs", anchors={})
    assert "no anchors of the probe sentiment" in refused(root, tmp_path / "out")
