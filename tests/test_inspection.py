"""The look inside: its numbers against the model's own methods, and its page in a browser."""

import base64
import json
import random
import re

import browser
import numpy as np
import pytest
import runs

import gpt1_jax
from gpt1_jax.inference.inspection import LEAST_WEIGHT

TEXT = "the cat sat on the mat and fell"


@pytest.fixture(scope="module")
def page(pretrained, tmp_path_factory):
    """What the verb writes."""
    output = tmp_path_factory.mktemp("inspect") / "look.html"
    outcome = runs.verb(
        "inspect", f"--workdir={pretrained}", f"--prompt={TEXT}", f"--output={output}"
    )
    assert outcome.status == 0, outcome
    return output, outcome.result


@pytest.fixture(scope="module")
def model(pretrained):
    return gpt1_jax.load(pretrained)


@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as running:
        yield running


def data(text: str) -> dict:
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_the_probabilities_are_those_of_score_and_the_alternatives_in_order(model):
    found = model.inspect("the cat sat", num_samples=2, length=3)
    scored = model.score("the cat sat")
    assert [place.id for place in found.places] == scored["ids"]
    assert [place.piece for place in found.places] == model.tokens("the cat sat")
    assert found.places[0].probability is None
    probabilities = [place.probability for place in found.places[1:]]
    np.testing.assert_allclose(np.log(probabilities), scored["logprobs"][1:], rtol=1e-4)
    np.testing.assert_allclose(found.perplexity, scored["perplexity"], rtol=1e-4)
    for place in found.places[1:]:
        shown = [one.probability for one in place.alternatives]
        assert shown == sorted(shown, reverse=True)
        assert sum(one > place.probability for one in shown) == min(place.rank - 1, len(shown))
        if place.rank <= len(shown):
            assert place.alternatives[place.rank - 1].piece == place.piece


def walked(branch, before=""):
    """The paths of a tree of branches, as often as they were drawn."""
    text = before + "".join(one.piece for one in branch.tokens)
    inner = [path for each in branch.branches for path in walked(each, text)]
    return inner + [text] * (branch.count - len(inner))


def ended(branch) -> int:
    return branch.ended + sum(map(ended, branch.branches))


def test_the_paths_are_the_samples_and_their_probabilities_those_of_score(model):
    prompt, settings = "the cat", {"num_samples": 8, "length": 4, "seed": 3, "top_k": 2}
    paths = model.inspect(prompt, **settings).paths
    drawn = model.sample_ids(prompt, **settings)
    assert sorted(walked(paths)) == sorted("".join(model.tokens(ids)) for ids in drawn)
    assert paths.count == sum(branch.count for branch in paths.branches) + paths.ended == 8
    assert ended(paths) == sum(len(ids) < 4 for ids in drawn)
    assert len({branch.tokens[0].piece for branch in paths.branches}) == len(paths.branches)
    first = paths.branches[0].tokens[0]
    ids = next(ids for ids in drawn if model.tokens(ids[:1]) == [first.piece])
    logprobs = model.score([*model.tokenizer.encode(prompt), ids[0]])["logprobs"]
    np.testing.assert_allclose(np.log(first.probability), logprobs[-1], rtol=1e-4)


def test_the_page_holds_the_attention_of_every_layer_and_head(model, page):
    packed = data(page[0].read_text())["attention"]
    expected = model.attention_weights(TEXT)
    counts, columns, weights = (
        np.frombuffer(base64.b64decode(packed[name]), dtype)
        for name, dtype in (("counts", "u1"), ("columns", "<u2"), ("weights", "u1"))
    )
    found = np.zeros_like(expected)
    rows = np.repeat(np.arange(counts.size), counts)
    found.reshape(-1, expected.shape[-1])[rows, columns] = weights / 255
    np.testing.assert_allclose(found, expected, atol=max(LEAST_WEIGHT, 1 / 255))
    assert (found > 0).sum() == counts.sum() > expected.shape[0] * expected.shape[1]


def test_the_verb_says_what_it_measured(model, page):
    output, result = page
    expected = model.score(TEXT)
    assert result["tokens"] == len(expected["ids"])
    np.testing.assert_allclose(result["perplexity"], expected["perplexity"], rtol=1e-4)
    assert result["output"] == str(output)


@pytest.mark.parametrize(("width", "scheme"), browser.SCREENS)
def test_the_page_fits_the_screen_and_follows_keys_and_taps(chromium, page, width, scheme):
    with browser.opened(chromium, page[0], width, scheme) as shown:
        text = shown.locator("#text button")
        text.first.focus()
        assert "nothing predicts it" in shown.locator("#panel").inner_text()
        shown.keyboard.press("ArrowRight")
        second = data(page[0].read_text())["places"][1]
        assert f"number {second[2]} of" in shown.locator("#panel").inner_text()
        shown.keyboard.press("End")
        assert "After the text" in shown.locator("#panel").inner_text()
        (text.nth(1).tap if width < 600 else text.nth(1).click)()
        assert text.nth(1).get_attribute("aria-pressed") == "true"
        arcs = shown.locator("#arcs svg").inner_html()
        shown.locator("#heads button").nth(0).focus()
        shown.keyboard.press("ArrowDown")
        assert "Layer 1, head 0" in shown.locator("#reading").inner_text()
        shown.locator("#head").select_option("1")
        assert "Layer 1, head 1" in shown.locator("#reading").inner_text()
        assert shown.locator("#arcs svg").inner_html() != arcs
        assert shown.locator("#arcs path.reads").count() >= 1


def test_a_text_with_markup_is_shown_as_text_and_a_notebook_frames_it(model, chromium, tmp_path):
    found = model.inspect("the cat <b>", num_samples=1, length=1)
    assert "<b>" not in found.page()
    framed = tmp_path / "framed.html"
    framed.write_text(f"<!DOCTYPE html><link rel=icon href='data:,'>{found._repr_html_()}")
    with browser.opened(chromium, framed, 1280) as shown:
        inside = shown.frame_locator("iframe").locator("#text")
        assert inside.inner_text().replace(" ", "").startswith("thecat<b>")


def test_a_text_that_fills_the_context_has_no_paths(model):
    ids = model.tokenizer.encode(runs.sentence(random.Random(0), 40))
    text = model.tokenizer.decode(ids[: model.model_config.n_ctx])
    found = model.inspect(text)
    assert found.paths.count == 0
    assert "fills the context" in found.page()


def test_what_does_not_fit_is_said_in_a_line_and_nothing_is_written(pretrained, tmp_path):
    output = tmp_path / "look.html"
    words = ["inspect", f"--workdir={pretrained}", f"--output={output}"]
    runs.refused([*words, "--prompt=" + "the cat " * 40], "cut at least")
    runs.refused([*words, "--prompt="], "empty")
    runs.refused([*words, "--prompt=the", "--temperature=-1"], "--temperature")
    runs.refused([*words[:2], "--prompt=the", f"--output={tmp_path / 'no' / 'x'}"], "no folder")
    assert not list(tmp_path.iterdir())
