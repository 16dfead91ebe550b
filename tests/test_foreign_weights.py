"""Folders that transformers or a training loop saved elsewhere: answered as transformers answers,
or refused in one line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import runs
from safetensors.numpy import load_file, save_file

import gpt1_jax
from gpt1_jax.__main__ import main

GOLDEN = Path(__file__).parent / "golden" / "huggingface"
TEXT = "the cat and the dog"


@pytest.fixture
def called(capsys):
    """Runs a command line; its exit status, its JSON (None without), and what it said."""

    def run(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        output, errors = capsys.readouterr()
        assert "Traceback" not in errors
        return status, json.loads(output.splitlines()[-1]) if output else None, errors

    return run


@pytest.fixture
def folder(tmp_path):
    """A copy of a golden folder with changes of config.json, of the tensors and of
    tokenizer.json."""

    def make(kind, config=None, tensors=None, tokenizer=None):
        made = Path(shutil.copytree(GOLDEN / kind, tmp_path / "model"))
        for name, change in (("config.json", config), ("tokenizer.json", tokenizer)):
            if change:
                path = made / name
                path.write_text(json.dumps(change(json.loads(path.read_text()))))
        if tensors:
            path = made / "model.safetensors"
            save_file(tensors(load_file(path)), path, metadata={"format": "pt"})
        return made

    return make


@pytest.fixture
def predicted(called, folder, tmp_path):
    """The row that `predict` writes for TEXT, or the one line with which it refuses."""

    def run(**changes):
        source = folder("classification", **changes)
        rows = runs.write_jsonl(tmp_path / "rows.jsonl", [{"text": TEXT}])
        output = tmp_path / "out.jsonl"
        words = ("predict", f"--initial=hf:{source}", f"--input={rows}", f"--output={output}")
        status, _, said = called(*words)
        if status == 0:
            return json.loads(output.read_text())
        assert status == 2
        assert not output.exists()
        (line,) = said.splitlines()
        return line

    return run


def without_labels(**changes):
    def change(config):
        for key in ("id2label", "label2id"):
            config.pop(key, None)
        return config | changes

    return change


# What config.json says of the head


def test_the_key_is_the_number_of_the_output_wherever_it_stands(predicted, tmp_path):
    """Twelve outputs, of which number 10 wins; sorted as strings, 10 comes third."""
    names = {str(number): f"class{number}" for number in sorted(range(12), key=str)}

    def twelve(tensors):
        score = np.zeros((12, 16), np.float32)
        score[10] = np.sign(first_logit()) * tensors["score.weight"][0]
        return tensors | {"score.weight": score}

    row = predicted(config=without_labels(id2label=names), tensors=twelve)
    assert row["label"] == "class10"
    assert row["probabilities"].index(max(row["probabilities"])) == 10


@pytest.mark.parametrize("given", [{"id2label": None}, {}])
def test_labels_without_names_are_numbered_as_transformers_does(predicted, given):
    row = predicted(config=without_labels(**given))
    assert row["label"] in ("LABEL_0", "LABEL_1", "LABEL_2")
    assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("given", [{}, {"problem_type": "regression"}])
def test_one_output_is_a_score(predicted, given):
    def one(tensors):
        return tensors | {"score.weight": tensors["score.weight"][:1]}

    row = predicted(config=without_labels(id2label={"0": "LABEL_0"}, **given), tensors=one)
    assert row["label"] == pytest.approx(first_logit(), abs=1e-5)
    assert row.get("probabilities") is None


def first_logit():
    """Of the classifier for TEXT, from the last hidden state."""
    model = gpt1_jax.load(f"hf:{GOLDEN / 'classification'}")
    size = model.tokenizer.vocab_size
    ids = [size, *model.tokenizer.encode(TEXT), size + 2]
    state = model.hidden_states(ids)[-1][-1]
    weight = load_file(GOLDEN / "classification" / "model.safetensors")["score.weight"]
    return float(state @ weight[0])


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (without_labels(problem_type="multi_label_classification"), "multi_label_classification"),
        (without_labels(problem_type="regression"), "regression with 3 outputs"),
        (without_labels(id2label={"0": "no", "1": "yes"}), "id2label names 0, 1, the head has 3"),
        (without_labels(id2label=["no", "yes", "maybe"]), "id2label"),
        (without_labels(id2label={"a": "no", "b": "yes", "c": "maybe"}), "id2label names a, b, c"),
        (without_labels(problem_type="ranking"), "'ranking', which is unknown"),
        (without_labels(num_labels=2), "3 output(s); expected 2, as num_labels says"),
    ],
)
def test_a_head_that_has_no_form_here_is_refused(predicted, config, says):
    line = predicted(config=config)
    assert "config.json" in line
    assert says in line


def test_a_single_output_has_nothing_to_choose_from(predicted):
    def one(tensors):
        return tensors | {"score.weight": tensors["score.weight"][:1]}

    given = without_labels(id2label={"0": "yes"}, problem_type="single_label_classification")
    assert "expected two classes or more" in predicted(config=given, tensors=one)


@pytest.fixture
def without_rows(folder):
    """A classifier that was trained elsewhere without the rows of special tokens."""

    def plain(tensors):
        table = tensors["transformer.tokens_embed.weight"]
        return tensors | {"transformer.tokens_embed.weight": table[:-3].copy()}

    def tokens(description):
        return description | {"added_tokens": [], "post_processor": None}

    made = folder("classification", tensors=plain, tokenizer=tokens)
    for name in ("tokenizer_config.json", "added_tokens.json", "gpt1.json", "gpt1.safetensors"):
        (made / name).unlink(missing_ok=True)
    return made


@pytest.mark.parametrize(
    "verb", [("predict", "--input=rows.jsonl"), ("predict", "--glue"), ("evaluate", "--task=rte")]
)
def test_a_head_without_the_rows_that_it_is_read_at_is_refused(
    called, without_rows, tmp_path, verb
):
    output = tmp_path / "out.tsv"
    words = (*verb, f"--initial=hf:{without_rows}")
    words += (f"--output={output}",) if verb[0] == "predict" else ()
    status, _, said = called(*words)
    (line,) = said.splitlines()
    assert status == 2
    assert "its head cannot answer, because it has no rows _start_, _delimiter_, _classify_" in line
    assert not output.exists()


def test_its_language_model_is_used_without_it(called, without_rows):
    status, found, said = called("sample", f"--initial=hf:{without_rows}", "--prompt=the")
    assert status == 0
    assert found["samples"]
    assert "its head is left out, because it has no rows" in said


def test_a_padding_that_hides_the_last_token_is_refused(predicted):
    assert "pad_token_id is 56, the row of _classify_" in predicted(
        config=lambda config: config | {"pad_token_id": 56}
    )


def framing(*pieces, rows=(54, 55, 56)):
    """A change of tokenizer.json: what is put around a text, A."""

    def change(description):
        names = ("_start_", "_delimiter_", "_classify_")
        kinds = {piece: "Sequence" if piece == "A" else "SpecialToken" for piece in pieces}
        frame = {
            "type": "TemplateProcessing",
            "single": [{kinds[piece]: {"id": piece, "type_id": 0}} for piece in pieces],
            "pair": [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"],
            "special_tokens": {
                name: {"id": name, "ids": [row], "tokens": [name]}
                for name, row in zip(names, rows, strict=True)
            },
        }
        return description | {"post_processor": frame}

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (framing("A", "_classify_"), "single is A _classify_"),
        (framing("_start_", "A", "_delimiter_", "_classify_"), "so answers would differ"),
        (framing("_start_", "A", "_classify_", rows=(54, 55, 3)), "gives _classify_ the rows [3]"),
        (framing("_start_", "A", "_classify_"), None),
    ],
)
def test_what_a_tokenizer_puts_around_a_text_is_what_is_put_here(predicted, change, says):
    line = predicted(tokenizer=change)
    assert line["label"] if says is None else says in line


# Names and buffers


def prefixed(prefix):
    return lambda tensors: {prefix + name: array for name, array in tensors.items()}


def with_positions(tensors):
    return tensors | {"transformer.position_ids": np.arange(24, dtype=np.int64)[None]}


def in_float64(tensors):
    return {name: array.astype(np.float64) for name, array in tensors.items()}


def bare(tensors):
    return {name.removeprefix("transformer."): array for name, array in tensors.items()}


@pytest.mark.parametrize(
    "change",
    [
        prefixed("_orig_mod."),
        prefixed("module."),
        prefixed("model._forward_module."),
        lambda tensors: prefixed("_orig_mod.")(bare(tensors)),
        bare,
        with_positions,
        lambda tensors: bare(with_positions(tensors)),
        in_float64,
    ],
)
def test_wrappers_and_buffers_change_nothing(called, folder, tmp_path, change):
    (tmp_path / "text.txt").write_text(TEXT)
    words = ("score", f"--input={tmp_path / 'text.txt'}")
    status, expected, _ = called(*words, f"--initial=hf:{GOLDEN / 'language_model'}")
    assert status == 0
    status, found, _ = called(*words, f"--initial=hf:{folder('language_model', tensors=change)}")
    assert status == 0
    assert found["loss"] == expected["loss"]


@pytest.mark.parametrize("key", ["n_positions", "layer_norm_epsilon", "afn"])
def test_a_key_that_a_version_left_out_has_its_default(called, folder, tmp_path, key):
    """The number of positions had another name before."""

    def without(config):
        if key == "n_positions":
            config["n_ctx"] = config["n_positions"]
        del config[key]
        return config

    (tmp_path / "text.txt").write_text(TEXT)
    source = folder("language_model", config=without)
    status, found, _ = called("score", f"--initial=hf:{source}", f"--input={tmp_path / 'text.txt'}")
    assert status == 0
    assert found["tokens"] > 3


# tokenizer.json


def ids(called, vocab, tmp_path):
    (tmp_path / "text.txt").write_text(f"{TEXT} " * 20)
    words = ("prepare", f"--output={tmp_path / 'out'}", f"--input={tmp_path / 'text.txt'}")
    given = (f"--vocab={vocab}", "--tokenizer=hf_basic", "--valid_fraction=0", "--workers=1")
    status, _, said = called(*words, *given)
    return np.load(tmp_path / "out" / "train-00000.npy").tolist() if status == 0 else said


def as_lines(description):
    model = description["model"]
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    return description


def changed(section, **values):
    def change(description):
        description[section] = (description[section] or {}) | values
        return description

    return change


def truncating(description):
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    return description | {"truncation": cut}


def alone(section, of):
    """A section in a Sequence of one, as the library writes it."""

    def change(description):
        inner = description[section] or {"type": "TemplateProcessing", "special_tokens": {}}
        return description | {section: {"type": "Sequence", of: [inner]}}

    return change


@pytest.mark.parametrize(
    "change",
    [
        as_lines,
        changed("normalizer", strip_accents=True),
        truncating,
        alone("normalizer", "normalizers"),
        alone("pre_tokenizer", "pretokenizers"),
        alone("post_processor", "processors"),
    ],
)
def test_each_form_of_the_file_gives_the_same_ids(called, folder, tmp_path, change):
    plain = ids(called, GOLDEN / "sharded", tmp_path)
    shutil.rmtree(tmp_path / "out")
    assert ids(called, folder("sharded", tokenizer=change), tmp_path) == plain


def padded(rows, value):
    """A table that was made longer, as for a round size or for a padding token."""

    def change(tensors):
        for name in ("transformer.tokens_embed.weight", "lm_head.weight"):
            if name in tensors:
                more = np.full((rows, tensors[name].shape[1]), value, np.float32)
                tensors[name] = np.concatenate([tensors[name], more])
        return tensors

    return change


@pytest.mark.parametrize(
    ("kind", "rows", "value", "layout", "token"),
    [
        ("language_model", 7, 0.0, None, None),
        ("multiple_choice", 2, 0.3, "native", None),
        ("multiple_choice", 3, -0.1, "openai", None),
        ("classification", 1, 0.2, "hf", "[PAD]"),
    ],
)
def test_rows_of_no_token_are_in_the_softmax(
    called, folder, tmp_path, kind, rows, value, layout, token
):
    """As in transformers, also of weights that were converted."""
    adds = token and (
        lambda made: {
            **made,
            "added_tokens": [*made["added_tokens"], {**made["added_tokens"][-1], **padding}],
        }
    )
    padding = {"content": token, "id": 57}
    source = f"hf:{folder(kind, tensors=padded(rows, value), tokenizer=adds)}"
    plain = gpt1_jax.load(f"hf:{GOLDEN / kind}")
    states = plain.hidden_states(TEXT)[-1].astype(np.float64)
    table = np.asarray(plain.params["wte"]["embedding"])
    table = np.concatenate([table, np.full((rows, table.shape[1]), value)])
    scores = states @ table.T
    ids = plain.score(TEXT)["ids"]
    expected = scores[range(len(ids) - 1), ids[1:]] - np.log(np.exp(scores[:-1]).sum(1))
    if layout:
        to = f"{layout}:{tmp_path / 'to'}"
        assert called("convert", f"--from={source}", f"--to={to}")[0] == 0
        source = to
    text = runs.write_jsonl(tmp_path / "text.jsonl", [{"text": TEXT}])
    status, _, said = called(
        "score", f"--initial={source}", f"--input={text}", f"--output={tmp_path / 'out.jsonl'}"
    )
    assert status == 0, said
    found = json.loads((tmp_path / "out.jsonl").read_text())
    np.testing.assert_allclose(found["logprobs"][1:], expected, rtol=2e-6, atol=2e-6)


def adding(name, row):
    return lambda description: (
        description | {"added_tokens": [{"content": name, "id": row, "special": False}]}
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (adding("l", 12), "added_tokens has 'l' (row 12)"),
        (adding("the", 3), "added_tokens has 'the' (row 3)"),
        (adding("[CLS]", 0), "added_tokens has '[CLS]' (row 0)"),
        (changed("normalizer", lowercase=False), "normalizer.lowercase is False"),
        (changed("pre_tokenizer", type="Whitespace"), "pre_tokenizer.type is 'Whitespace'"),
        (
            lambda description: alone("normalizer", "normalizers")(
                changed("normalizer", lowercase=False)(description)
            ),
            "normalizer.lowercase is False",
        ),
        (changed("model", dropout=0.1), "model.dropout is 0.1"),
        (changed("model", fuse_unk=True), "model.fuse_unk is True"),
        (changed("model", merges=[["t", "h", "e"]]), "model.merges[0]"),
        (changed("model", merges="t h"), "model.merges"),
        (changed("model", merges=[["q", "zzz"]]), "merges[0]: 'q' is not in the vocabulary"),
        (changed("post_processor", type="BertProcessing", sep=["x", 1]), "post_processor"),
    ],
)
def test_a_setting_that_changes_ids_is_refused(called, folder, tmp_path, change, says):
    line = ids(called, folder("sharded", tokenizer=change), tmp_path)
    assert isinstance(line, str), line
    assert "tokenizer.json" in line
    assert says in line


def test_a_vocabulary_beside_another_one_is_refused(called, folder, tmp_path):
    """Which of the two transformers reads depends on its version."""
    source = folder("sharded")
    vocabulary = json.loads((source / "tokenizer.json").read_text())["model"]
    a, t = vocabulary["vocab"]["a</w>"], vocabulary["vocab"]["t</w>"]
    swapped = vocabulary["vocab"] | {"a</w>": t, "t</w>": a}
    (source / "vocab.json").write_text(json.dumps(swapped))
    merges = "".join(" ".join(pair) + "\n" for pair in vocabulary["merges"])
    (source / "merges.txt").write_text("#version: 0.2\n" + merges)
    assert "other symbols or merges than the vocabulary beside it" in ids(called, source, tmp_path)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"_start_": 56, "_delimiter_": 55, "_classify_": 54}, "remove whichever"),
        ({"_start_": 54, "_more_": 55}, "the same row, 55"),
    ],
)
def test_special_tokens_of_two_files_agree(called, folder, tmp_path, rows, says):
    source = folder("classification")
    listed = json.loads((source / "tokenizer.json").read_text())["added_tokens"]
    assert [one["id"] for one in listed if one["content"].startswith("_")] == [54, 55, 56]
    (source / "added_tokens.json").write_text(json.dumps(rows))
    status, _, said = called("convert", f"--from=hf:{source}", f"--to=native:{tmp_path / 'to'}")
    assert status == 2
    assert says in said


@pytest.mark.parametrize(
    ("key", "value"),
    [("summary_type", "mean"), ("summary_activation", "tanh"), ("summary_use_proj", False)],
)
def test_a_choice_that_is_read_otherwise_is_refused(called, folder, tmp_path, key, value):
    source = folder("multiple_choice", config=lambda config: config | {key: value})
    status, _, said = called("convert", f"--from=hf:{source}", f"--to=native:{tmp_path / 'to'}")
    assert status == 2
    assert f"{key} is {value!r}" in said


def test_weights_under_another_name_are_named(called, folder, tmp_path):
    source = folder("language_model")
    for name in ("model.fp16.safetensors", "adapter_model.safetensors"):
        (shard,) = source.glob("*.safetensors")
        shard.rename(source / name)
        status, _, said = called("convert", f"--from=hf:{source}", f"--to=native:{tmp_path / 'to'}")
        assert status == 2
        assert f"no model.safetensors, only {name}; if that is the whole model" in said


def two_of_them(tensors):
    return {f"{copy}.{name}": tensor for name, tensor in tensors.items() for copy in ("ema", "raw")}


def of_another_model(tensors):
    return {"encoder.weight": tensors["transformer.positions_embed.weight"]}


@pytest.mark.parametrize(
    ("change", "there"),
    [(two_of_them, "ema.transformer.h.0"), (of_another_model, "encoder.weight")],
)
def test_names_that_are_not_those_of_one_model(called, folder, tmp_path, change, there):
    source = folder("language_model", tensors=change)
    status, _, said = called("convert", f"--from=hf:{source}", f"--to=native:{tmp_path / 'to'}")
    assert status == 2
    assert f"hf:{source} has no tokens_embed.weight but {there}" in said


@pytest.mark.parametrize("kind", ["language_model", "classification", "sharded"])
def test_a_mark_that_an_editor_of_windows_left_is_no_part_of_a_file(called, folder, tmp_path, kind):
    source, texts = folder(kind), tmp_path / "text.txt"
    texts.write_text(TEXT)
    words = ("score", f"--initial=hf:{source}", f"--input={texts}")
    before = called(*words)[1]["loss"]
    for path in (*source.glob("*.json"), *source.glob("*.txt")):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    status, result, said = called(*words)
    assert status == 0, said
    assert result["loss"] == before


def test_a_file_that_was_never_fetched_is_called_that(called, folder, tmp_path):
    source = folder("language_model")
    (source / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    status, _, said = called("convert", f"--from=hf:{source}", f"--to=native:{tmp_path / 'to'}")
    assert status == 2
    assert "git lfs pull" in said
