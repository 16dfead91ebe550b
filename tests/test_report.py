"""The report on made-up runs whose numbers are known, and the sentences on the paper's own."""

import json
import pkgutil
import shutil
import subprocess
import sys

import browser
import pytest
import reproductions
import runs as small_runs
from browser import Page
from reproductions import INDEX, SMALL, entries, read_csv, refused

from gpt1_jax import results
from gpt1_jax.results import charts, finished_runs, tables
from gpt1_jax.results.averages import percent, rounded
from gpt1_jax.results.report import report


@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as running:
        yield running


def keys(tree):
    """The dotted keys of a JSON object."""
    for name, value in tree.items():
        yield name
        if isinstance(value, dict):
            yield from (f"{name}.{key}" for key in keys(value))


def test_the_made_up_files_have_the_form_of_a_real_reproduction(runs):
    """results/small is what `reproduce` left, before there were curves."""
    newer = {"by_labels", "tokens", "commonest"}
    made, real = (json.loads((root / "reproduction.json").read_text()) for root in (runs, SMALL))
    assert set(made) - newer == set(real)
    for name in ("runs", "probes"):
        assert set(made[name][0]) - newer <= set(real[name][0])
    for one in (made["runs"][0], real["runs"][0]):
        assert set(one) == set(real["runs"][0])
    for name in ("config.json", "result.json"):
        ours, theirs = (
            set(keys(json.loads((root / "finetuned/full/cola-0" / name).read_text())))
            for root in (runs, SMALL)
        )
        assert ours <= theirs


# The page and the files


def test_the_page_holds_everything_itself(reported):
    text = (reported[0] / "report.html").read_text()
    found = Page(text)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert len(found.sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.sources)
    assert all(link.startswith("#") for link in found.links)
    assert {link[1:] for link in found.links} <= set(found.ids)
    assert len(set(found.ids)) == len(found.ids)


@pytest.mark.parametrize(("width", "scheme"), browser.SCREENS)
def test_the_page_fits_a_phone_and_a_screen_light_and_dark(reported, chromium, width, scheme):
    with browser.opened(chromium, reported[0] / "report.html", width, scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0)")


def test_on_paper_no_table_is_wider_than_the_page_and_no_group_of_bars_is_divided(
    reported, chromium
):
    a4 = 718  # pixels between margins of a centimetre
    with browser.opened(chromium, reported[0] / "report.html", a4) as page:
        page.emulate_media(media="print")
        tables = page.locator("table:visible").evaluate_all(
            "all => all.map(one => one.offsetWidth)"
        )
        assert max(tables) <= a4
        divided = "all => all.map(one => getComputedStyle(one).breakInside)"
        assert set(page.locator(".group").evaluate_all(divided)) == {"avoid"}


def test_charts_come_first_and_say_their_cells_in_words(reported, chromium, runs):
    with browser.opened(chromium, reported[0] / "report.html", 1280) as page:
        assert page.locator("section").first.get_attribute("id") == "charts"
        drawn = page.locator("#charts .dots")
        spoken = drawn.evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
        cell = entries(runs)["table-5-full-cola"]
        ours, published = tables.shown(cell.scores), cell.published
        (row,) = [
            i for i, one in enumerate(spoken) if one.startswith("CoLA, Transformer w/ aux LM (")
        ]
        assert f"published {published}, ours {ours}" in spoken[row]
        places = [
            drawn.nth(row).locator(f"i.{kind}").evaluate("one => parseFloat(one.style.left)")
            for kind in ("ours", "published")
        ]
        assert places == pytest.approx([cell.scores.median, published], abs=0.01)


def test_cells_without_a_run_are_folded_below_the_command_that_runs_them(reported, runs):
    text = (reported[0] / "report.html").read_text()
    summary = f"gpt1 reproduce --table=5 --workdir={runs} --scale=small</code></summary>"
    assert summary in text
    note = "Published: single runs on test, for the tasks of GLUE by its server."
    assert text.count(note) == 1


def test_where_the_recipe_is_not_the_papers_is_said_once():
    found = charts.settings(INDEX, finished_runs.read_runs(SMALL))
    said = {(stage, what): (theirs, ours) for stage, what, theirs, ours in found}
    config = json.loads((SMALL / "pretrained/transformer" / "config.json").read_text())
    assert said["pre-training", "width"] == ("768", str(config["model"]["n_embd"]))
    config = json.loads((SMALL / "finetuned/full/cola-0" / "config.json").read_text())
    assert said["fine-tuning", "examples a batch"] == ("32", str(config["batch_size"]))
    assert ("fine-tuning", "dropout") not in said
    assert len(said) == len(found)


def test_the_config_of_each_cell_is_one_click_away(reported, runs):
    output, _ = reported
    found = Page((output / "report.html").read_text())
    appendix = (output / "runs.md").read_text()
    for name, entry in entries(runs).items():
        if entry.scores.runs:
            assert f"#{name}" in found.links
            assert f'<a id="{name}"></a>' in appendix
    assert "otherwise than finetuned/full/cola-0: n_transfer = -1 (null)" in appendix
    assert "gpt1 train --config.seed=2" in appendix


def test_the_scale_is_named_in_every_file(reported):
    output, result = reported
    for name in result["files"]:
        if name.endswith((".md", ".html")) and name != "table1.md":
            assert "small scale" in (output / name).read_text()
        elif name.endswith(".csv") and name != "table1.csv":
            scales = {row["scale"] for row in read_csv(output / name)}
            assert scales in ({"small"}, {"small", "published"})


@pytest.mark.slow
def test_another_process_without_jax_gives_the_same_bytes(reported, runs, tmp_path):
    output, result = reported
    again = tmp_path / "again"
    script = (
        "import sys\nfrom gpt1_jax.__main__ import main\n"
        f"assert main(['report', '--runs={runs}', '--output={again}']) == 0\n"
        "print(sorted({'jax', 'flax', 'orbax', 'tensorflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answer, heavy = done.stdout.splitlines()
    assert json.loads(answer) == {**result, "output": str(again)}
    assert heavy == "[]"
    for name in result["files"]:
        assert (again / name).read_bytes() == (output / name).read_bytes(), name


def test_no_module_of_the_room_imports_jax():
    names = [f"gpt1_jax.results.{module.name}" for module in pkgutil.iter_modules(results.__path__)]
    assert len(names) > 10
    script = (
        f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n"
        "print(sorted({'jax', 'jaxlib', 'flax', 'orbax', 'tensorflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_it_says_what_it_wrote(reported, runs):
    output, result = reported
    assert sorted(result["files"]) == sorted(path.name for path in output.iterdir())
    cells = entries(runs).values()
    assert result["cells"]["value"] == sum(bool(cell.scores) for cell in cells) == 16
    assert result["cells"]["missing"] == len(cells) - 16


def test_single_runs_are_reported_too(tmp_path):
    reproductions.write_run(tmp_path / "runs" / "mine", "rte", score=0.625)
    reproductions.write_run(tmp_path / "runs" / "language", None)
    result = report(tmp_path / "runs", tmp_path / "out")
    assert (result["scale"], result["single_runs"], result["cells"]["value"]) == (None, 2, 0)
    index = (tmp_path / "out" / "index.md").read_text()
    assert "| [mine](runs.md) | rte | accuracy | 62.5 |" in index
    assert "| [language](runs.md) | pre-training | – | – |" in index
    (mine,) = finished_runs.read_runs(tmp_path / "runs" / "mine").single
    assert mine.folder == "mine"


def test_what_looks_like_a_run_and_is_not_in_the_report_is_named(tmp_path):
    """Links to runs are followed, each run stands there once, and none that was stopped before its
    end has a score without a word about it."""
    folder, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for place, last in ((folder / "cut", 60), (folder / "begun", 6), (elsewhere / "mine", 6)):
        resolved = {**reproductions.RESOLVED, "total_steps": last}
        reproductions.write_run(place, "rte", score=0.625, resolved=resolved)
    (folder / "begun" / "result.json").unlink()
    for name in ("damaged", "half"):
        shutil.copytree(folder / "begun", folder / name)
    (folder / "damaged" / "config.json").write_text("{")
    (folder / "half" / "config.json").unlink()
    (folder / "weights").mkdir()  # as transformers has them, which look like no run
    (folder / "weights" / "config.json").write_text('{"model_type": "openai-gpt"}')
    (folder / "a").symlink_to(elsewhere / "mine")
    (folder / "b").symlink_to(elsewhere)
    (folder / "around").symlink_to(folder)
    (folder / "moved").symlink_to(tmp_path / "nowhere")
    output = tmp_path / "out"
    done = small_runs.verb("report", f"--runs={folder}", f"--output={output}")
    assert (done.status, done.result["single_runs"]) == (0, 2)
    reasons = {
        "begun": "no result.json",
        "damaged": "config.json: not JSON",
        "half": "no config.json",
        "moved": "a link that leads nowhere",
    }
    assert list(done.result["left_out"]) == list(reasons)
    index = (output / "index.md").read_text()
    for name, reason in reasons.items():
        assert reason in done.result["left_out"][name]
        line = f"{name} is not in the report: {done.result['left_out'][name]}"
        assert line in done.said
        assert f"\n- {name}: " in (output / "runs.md").read_text()
        assert f"<li>{name}: " in (output / "report.html").read_text()
    assert "4 runs are not in the report" in index
    assert "| [a](runs.md) | rte | accuracy | 62.5 |" in index
    assert "| [cut](runs.md) | rte | accuracy | 62.5 (stopped after 6 of 60 updates) |" in index
    assert "cut: stopped after 6 of 60 updates; the report says so beside its score" in done.said


def test_many_runs_that_are_not_in_the_report_are_one_line(tmp_path, capsys, monkeypatch):
    folder, output = tmp_path / "runs", tmp_path / "out"
    for number in range(12):
        reproductions.write_run(folder / f"{number}", None)
        (folder / f"{number}" / "result.json").unlink()
    said = refused(folder, output)
    assert "has no results: neither a reproduction.json nor a folder with" in said
    assert said.endswith(f"; {folder}/0: no result.json: not finished, or not copied")
    reproductions.write_run(folder / "whole", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # spares the drawing
    refused(folder, output)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "12 runs are not in the report; runs.md says why"


def test_copied_files_of_real_runs_are_read(pretrained, finetuned, tmp_path):
    for workdir in (pretrained, finetuned):
        (tmp_path / "runs" / workdir.parent.name).mkdir(parents=True)
        for name in ("config.json", "result.json", "metrics.jsonl"):
            shutil.copy(workdir / name, tmp_path / "runs" / workdir.parent.name)
    (tmp_path / "runs" / pretrained.parent.name / "metrics.jsonl").unlink()
    assert report(tmp_path / "runs", tmp_path / "out")["single_runs"] == 2
    best = json.loads((finetuned / "result.json").read_text())["best"]["score"]
    index = (tmp_path / "out" / "index.md").read_text()
    assert f"| {rounded(percent(best))} |" in index
    assert f"- {pretrained.parent.name}: metrics.jsonl has no rows, so there is no curve" in index
    assert (tmp_path / "out" / "loss_single.png").exists()
