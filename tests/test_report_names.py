"""Reports of runs whose names are odd, and of folders that are none of runs."""

import os
import shutil
from xml.etree import ElementTree

import pytest
import reproductions
import runs as small_runs
from browser import Page
from markdown_it import MarkdownIt
from reproductions import read_csv, refused

from gpt1_jax.__main__ import main
from gpt1_jax.results import finished_runs
from gpt1_jax.results.report import report

# Names as people give them

ODD = (
    "<script>alert(1)<img src=x>",
    "a|b `c` *d* [e](f) & $g$ &lt; _h_",
    "two\nlines \x1b[31m # ```\n```",
)


@pytest.fixture(scope="module")
def oddly_named(pretrained, tmp_path_factory):
    """The report of runs whose workdirs and tasks have the odd names; the first was moved to one
    whose last byte is no text."""
    root = tmp_path_factory.mktemp("odd")
    for name in ODD:
        task = small_runs.write_task(root / "tasks" / name, "classification")
        given = small_runs.fine_tuning(pretrained, task, "classification")
        small_runs.run(given, root / "runs" / name)
    os.rename(root / "runs" / ODD[0], os.fsencode(root / "runs" / ODD[0]) + b"\xff")
    assert main(["report", f"--runs={root / 'runs'}", f"--output={root / 'out'}"]) == 0
    return root / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.md", "runs.md", "report.html"])
def test_odd_names_are_shown_and_do_nothing(oddly_named, name):
    page = (oddly_named / name).read_text()
    assert "<script" not in page
    if name.endswith(".md"):
        page = MarkdownIt("commonmark", {"html": True}).enable("table").render(page)
    found = Page(page)
    assert not {"script", "em"} & set(found.tags)
    assert "f" not in found.links
    assert "x" not in found.sources
    for shown in (f"{ODD[0]}\\udcff", ODD[1], r"two\nlines \x1b[31m # ```\n```"):
        assert shown in found.text


@pytest.mark.slow
def test_a_picture_shows_odd_names(oddly_named):
    """Tasks above the panels, workdirs in their legends."""
    drawn = ElementTree.fromstring((oddly_named / "loss_single.svg").read_bytes())
    texts = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    escaped = r"two\nlines \x1b[31m # ```\n```"
    assert {*ODD[:2], escaped, f"{ODD[0]}\\udcff"} <= texts


def test_odd_names_in_the_tables(tmp_path):
    """Those of tasks that are in no table of the paper, and of the folders of their runs."""
    names = (*ODD, "a.b", "a/b", "_")
    root = reproductions.write(tmp_path / "runs", {"full": dict.fromkeys(names, (0.5,))})
    output = tmp_path / "out"
    report(root, output)
    page = Page((output / "report.html").read_text())
    assert len(set(page.ids)) == len(page.ids)
    for name in ("further.md", "runs.md", "report.html"):
        text = (output / name).read_text()
        assert "<script" not in text
        if name.endswith(".md"):
            text = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        found = Page(text)
        assert not {"script", "em"} & set(found.tags)
        for shown in (*ODD[:2], r"two\nlines \x1b[31m # ```\n```"):
            assert shown in found.text
    titles = [row["column"] for row in read_csv(output / "further.csv")]
    assert titles == ["Avg", *ODD[:2], r"two\nlines \x1b[31m # ```\n```", "a.b", "a/b", "_"]


# Mistakes


@pytest.mark.parametrize("name", [*ODD, os.fsdecode(b"\xff")])
def test_a_mistake_is_one_line_whatever_the_name(tmp_path, capsys, name):
    assert main(["report", f"--runs={tmp_path / name}", f"--output={tmp_path / 'out'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "is not a folder" in line


def test_a_folder_that_is_not_there_or_has_no_runs(tmp_path):
    output = tmp_path / "out"
    assert "is not a folder" in refused(tmp_path / "none", output)
    (tmp_path / "empty").mkdir()
    assert "has no results" in refused(tmp_path / "empty", output)
    assert not output.exists()


@pytest.mark.parametrize(
    "name",
    ["reproduction.json", "finetuned/full/rte-1/result.json", "finetuned/lstm/cola-0/config.json"],
)
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_file_is_named_and_nothing_written(runs, tmp_path, name, content):
    copy = shutil.copytree(runs, tmp_path / "copy")
    (copy / name).write_text(content)
    output = tmp_path / "out"
    assert str(copy / name) in refused(copy, output)
    assert not output.exists()


def test_two_reproductions_are_not_mixed(runs, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(runs, tmp_path / "both" / name)
    assert "holds 2 reproductions" in refused(tmp_path / "both", tmp_path / "out")


def test_a_reproduction_is_reported_beside_a_copy_within_it(runs, tmp_path):
    root = shutil.copytree(runs, tmp_path / "runs")
    shutil.copytree(runs, root / "backup")
    found, alone = finished_runs.read_runs(root), finished_runs.read_runs(runs)
    assert found.left_out == {"backup": "a reproduction of its own; report it by itself"}
    assert [run.folder for run in found.runs] == [run.folder for run in alone.runs]
    assert not found.single


def test_an_output_that_is_a_file(runs, tmp_path):
    (tmp_path / "out").write_text("mine")
    assert "--output" in refused(runs, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    "occupied",
    [
        pytest.param("table1.md", marks=pytest.mark.exhaustive),
        pytest.param("table5.csv", marks=pytest.mark.exhaustive),
        "report.html",
    ],
)
def test_a_place_that_is_occupied_by_a_folder(runs, tmp_path, occupied):
    (tmp_path / "out" / occupied / "mine").mkdir(parents=True)
    (tmp_path / "out" / "index.md").write_text("mine")
    assert f"{occupied} is a folder" in refused(runs, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.md", occupied]
    assert (tmp_path / "out" / "index.md").read_text() == "mine"
