"""Weights in every direction: the same parameters bit for bit, the same logits as transformers."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import runs
import tiny
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from gpt1_jax.__main__ import main
from gpt1_jax.data.tasks import NO_TASK, Task
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network
from gpt1_jax.tokenization import loading, sentencepiece_bpe
from gpt1_jax.weights import convert, openai, released, weights
from gpt1_jax.weights import workdir as workdirs
from gpt1_jax.weights.source import absolute_source, read_weights
from gpt1_jax.weights.weights import Weights, without_padding

GOLDEN = Path(__file__).parent / "golden" / "huggingface"
INPUTS = json.loads((GOLDEN / "inputs.json").read_text())
LOGITS = np.load(GOLDEN / "logits.npz")
# Width 64, so that the number of heads follows from it as in the released model.
SIZES = {"n_ctx": 16, "n_embd": 64, "n_head": 1, "n_layer": 2}


@pytest.fixture(scope="session")
def pieces(tokens):
    """A SentencePiece tokenizer."""
    return loading.load(tokens)


@pytest.fixture(scope="session")
def symbols():
    """The small vocabulary of the golden files, in the mode `original`."""
    return loading.from_vocabulary(GOLDEN / "language_model", "original")


def made(tokenizer, task=NO_TASK, labels=(), seed=0, **changes) -> Weights:
    """Random weights, with a head for a task."""
    special = 3 if task.has_head else 0
    sizes = {**SIZES, "vocab_size": tokenizer.vocab_size, "n_special": special, **changes}
    model = ModelConfig(**sizes)
    n_outputs = 0 if not task.has_head else 1 if task.shape == "multiple_choice" else len(labels)
    net = network(model, "plain", task.shape, n_outputs)
    config = workdirs.foreign_config(model, tokenizer, task, labels, n_outputs, "end", "x")
    params = tiny.params(net, seed)
    return Weights(params, model, tokenizer, config, "made here", 7, task, labels)


def classifier(tokenizer, **changes) -> Weights:
    return made(tokenizer, Task("weather", "classification", "f1"), ("rain", "sun"), **changes)


def chooser(tokenizer) -> Weights:
    return made(tokenizer, Task("cloze", "multiple_choice", "accuracy"), (0, 1))


def assert_same(found: Weights, expected: Weights) -> None:
    """Bit for bit, name by name; and the same model, tokenizer and task."""
    assert set(found.flat) == set(expected.flat)
    for path, array in expected.flat.items():
        assert found.flat[path].dtype == np.float32
        assert found.flat[path].tobytes() == np.ascontiguousarray(array).tobytes(), path
    assert found.model == expected.model
    assert found.tokenizer.mode == expected.tokenizer.mode
    assert found.tokenizer.fingerprint == expected.tokenizer.fingerprint
    assert (found.task, found.labels, found.step) == (
        expected.task,
        expected.labels,
        expected.step,
    )
    assert found.separator == expected.separator


def hidden_and_logits(found: Weights, ids: np.ndarray):
    net = network(found.model, "plain", found.task.shape, found.n_outputs)
    hidden = net.hidden(found.params, ids)
    return net, hidden, np.asarray(net.logits(found.params, hidden))


# Every direction


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param("language model", "pieces", marks=pytest.mark.exhaustive),
        ("classifier", "symbols"),
        pytest.param("chooser", "pieces", marks=pytest.mark.exhaustive),
    ],
)
def test_every_direction_keeps_every_bit(request, tmp_path, kind, text):
    make = {"language model": made, "classifier": classifier, "chooser": chooser}[kind]
    expected = make(request.getfixturevalue(text))
    convert.write_weights(expected, f"native:{tmp_path / 'first'}")
    # Each format is left and entered by each other.
    route = ["native", "hf", "openai", "native", "openai", "hf", "native"]
    for number, kind in enumerate(route[1:]):
        source = f"{route[number]}:{tmp_path / (str(number) if number else 'first')}"
        target = f"{kind}:{tmp_path / str(number + 1)}"
        said = convert.convert(source, target)
        assert said["tokenizer"] == expected.tokenizer.mode
        assert_same(read_weights(target), expected)


def test_the_lstm_has_no_foreign_form(tmp_path, pieces):
    lstm = made(pieces, body="lstm", n_units=8, n_layer=1)
    for kind in ("openai", "hf"):
        with pytest.raises(UserError, match="LSTM"):
            convert.write_weights(lstm, f"{kind}:{tmp_path / 'there'}")
    convert.write_weights(lstm, f"native:{tmp_path / 'lstm'}")
    assert_same(read_weights(tmp_path / "lstm"), lstm)
    assert [path.name for path in tmp_path.iterdir()] == ["lstm"]


def test_a_chosen_step_of_a_run(pretrained, tmp_path):
    convert.convert(str(pretrained), f"openai:{tmp_path / 'four'}", step=4)
    found = read_weights(f"openai:{tmp_path / 'four'}")
    expected = weights.flatten_dict(runs.params(pretrained, 4), sep="/")
    assert found.step == 4
    assert all(np.array_equal(found.flat[path], expected[path]) for path in expected)


# OpenAI's layout


def write_released(folder: Path, tokenizer, lengths, seed=0, n_embd=64) -> dict:
    """Arrays as OpenAI released them, in shards of the given lengths; returns them by name."""
    shapes = [[16, n_embd], [tokenizer.vocab_size, n_embd]]
    names = ["positions", "tokens"]
    for layer in range(2):
        for module, inside, out in (
            ("attn/c_attn", n_embd, 3 * n_embd),
            ("attn/c_proj", n_embd, n_embd),
            ("ln_1", n_embd, None),
            ("mlp/c_fc", n_embd, 4 * n_embd),
            ("mlp/c_proj", 4 * n_embd, n_embd),
            ("ln_2", n_embd, None),
        ):
            shapes += [[1, inside, out], [out]] if out else [[inside], [inside]]
            names += [f"h{layer}/{module}/{leaf}" for leaf in ("wb" if out else "gb")]
    random = np.random.default_rng(seed)
    arrays = [random.standard_normal(shape, np.float32) for shape in shapes]
    flat = np.concatenate([array.reshape(-1) for array in arrays])
    edges = np.cumsum([0, *lengths, len(flat) - sum(lengths)])
    folder.mkdir(parents=True)
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        np.save(folder / f"params_{number}.npy", flat[low:high])
    (folder / "params_shapes.json").write_text(json.dumps(shapes))
    for theirs, ours in (
        ("vocab.json", "encoder_bpe_40000.json"),
        ("merges.txt", "vocab_40000.bpe"),
    ):
        shutil.copy(GOLDEN / "language_model" / theirs, folder / ours)
    return dict(zip(names, arrays, strict=True))


def test_released_arrays_in_uneven_shards(tmp_path, symbols):
    arrays = write_released(tmp_path / "model", symbols, (3, 70_001, 1, 20_000))
    found = read_weights(f"openai:{tmp_path / 'model'}")
    assert found.model == ModelConfig(vocab_size=symbols.vocab_size, **SIZES)
    assert found.tokenizer.mode == "original"
    np.testing.assert_array_equal(found.params["wpe"]["embedding"], arrays["positions"])
    np.testing.assert_array_equal(found.params["wte"]["embedding"], arrays["tokens"])
    block = found.params["h_1"]
    # [in, out] as it is; only the leading axis of the convolution goes.
    np.testing.assert_array_equal(block["attn"]["c_attn"]["kernel"], arrays["h1/attn/c_attn/w"][0])
    np.testing.assert_array_equal(block["mlp"]["c_proj"]["kernel"], arrays["h1/mlp/c_proj/w"][0])
    np.testing.assert_array_equal(block["ln_2"]["scale"], arrays["h1/ln_2/g"])
    np.testing.assert_array_equal(block["ln_2"]["bias"], arrays["h1/ln_2/b"])
    convert.write_weights(found, f"openai:{tmp_path / 'again'}")
    whole = [np.load(tmp_path / "again" / f"params_{number}.npy") for number in range(10)]
    flat = np.concatenate([array.reshape(-1) for array in arrays.values()])
    np.testing.assert_array_equal(np.concatenate(whole), flat)
    for name in ("params_shapes.json", "encoder_bpe_40000.json", "vocab_40000.bpe"):
        first, second = (tmp_path / folder / name for folder in ("model", "again"))
        assert first.read_bytes() == second.read_bytes()


def test_the_list_of_shapes_is_the_released_one(real_data, tmp_path):
    expected = json.loads((real_data / "gpt1_bpe" / "params_shapes.json").read_text())
    model = ModelConfig()
    shapes = jax.eval_shape(network(model, "plain", None, 0).init, jax.random.key(0))
    flat = weights.flatten_dict(shapes, sep="/")
    names = openai.paths(12, head=False)
    assert len(names) == len(expected) == 146
    for name, shape in zip(names, expected, strict=True):
        assert list(flat[name].shape) == (shape[1:] if len(shape) == 3 else shape)


# Transformers' layout


@pytest.mark.parametrize("folder", ["language_model", "sharded"])
def test_logits_of_a_language_model(folder):
    found = read_weights(f"hf:{GOLDEN / folder}")
    assert found.tokenizer.mode == "hf_basic"
    assert found.tokenizer.encode(INPUTS["sentence"]) == INPUTS["ids"]
    _, _, logits = hidden_and_logits(found, np.array([INPUTS["ids"]]))
    np.testing.assert_allclose(logits, LOGITS["language_model"], rtol=1e-5, atol=1e-5)


def test_logits_of_a_double_heads_model():
    found = read_weights(f"hf:{GOLDEN / 'multiple_choice'}")
    assert found.task.shape == "multiple_choice"
    choices = np.array(INPUTS["choices"])
    net, hidden, logits = hidden_and_logits(found, choices)
    answer = net.answer(found.params, hidden, np.array([[choices.shape[1] - 1] * 2]))
    np.testing.assert_allclose(answer, LOGITS["multiple_choice"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(logits, LOGITS["multiple_choice_lm"][0], rtol=1e-5, atol=1e-5)


def test_logits_of_a_sequence_classification():
    found = read_weights(f"hf:{GOLDEN / 'classification'}")
    assert found.labels == ("negative", "neutral", "positive")
    choices = np.array(INPUTS["choices"])
    net, hidden, _ = hidden_and_logits(found, choices)
    answer = net.answer(found.params, hidden, np.array([[choices.shape[1] - 1]] * 2))
    np.testing.assert_allclose(answer, LOGITS["classification"], rtol=1e-5, atol=1e-5)


def altered(folder: Path, change, name="language_model") -> str:
    """A copy of a golden folder whose tensors went through `change`."""
    shutil.copytree(GOLDEN / name, folder)
    tensors = change(load_file(folder / "model.safetensors"))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return f"hf:{folder}"


def test_an_old_file_has_no_prefix_but_masks_and_a_tied_output(tmp_path):
    def old(tensors):
        bare = {name.removeprefix("transformer."): array for name, array in tensors.items()}
        mask = np.tril(np.ones((1, 1, 24, 24), np.float32))
        bare |= {f"h.{layer}.attn.bias": mask for layer in range(2)}
        return bare | {"lm_head.weight": bare["tokens_embed.weight"].copy()}

    found = read_weights(altered(tmp_path / "old", old))
    assert_same(found, read_weights(f"hf:{GOLDEN / 'language_model'}"))


def test_special_rows_go_by_name_and_padding_rows_come_last(tmp_path, capsys):
    """Transformers appends tokens in whatever order they are added."""
    folder = tmp_path / "shuffled"

    def shuffled(tensors):
        table = tensors.pop("lm_head.weight")
        order = [*range(54), 56, 54, 55]  # classify, start, delimiter
        rows = np.concatenate([table[order], np.ones((7, 16), np.float32)])
        return tensors | {"lm_head.weight": rows}

    source = altered(folder, shuffled, "multiple_choice")
    description = json.loads((folder / "tokenizer.json").read_text())
    rows = {"_classify_": 54, "_start_": 55, "_delimiter_": 56}
    for token in description["added_tokens"][1:]:
        token["id"] = rows[token["content"]]
    (folder / "tokenizer.json").write_text(json.dumps(description))
    found = read_weights(source)
    assert "7 row(s) of the token table belong to no token" in capsys.readouterr().err
    assert (found.params["wte"]["embedding"][57:] == 1).all()
    expected = read_weights(f"hf:{GOLDEN / 'multiple_choice'}")
    assert_same(without_padding(found), expected)


def test_half_precision_becomes_float32(tmp_path):
    def halved(tensors):
        return {name: array.astype(np.float16) for name, array in tensors.items()}

    found = read_weights(altered(tmp_path / "half", halved))
    expected = read_weights(f"hf:{GOLDEN / 'language_model'}").flat
    for path, array in found.flat.items():
        np.testing.assert_array_equal(array, expected[path].astype(np.float16).astype(np.float32))


def test_an_exported_folder_is_complete(tmp_path, pretrained):
    convert.convert(str(pretrained), f"hf:{tmp_path / 'out'}")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "config.json",
        "generation_config.json",
        "gpt1.json",
        "model.safetensors",
        "sentencepiece.model",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    result = json.loads((pretrained / "result.json").read_text())
    card = (tmp_path / "out" / "README.md").read_text()
    assert result["tokenizer"] in card
    assert result["config_hash"] in card
    assert f"{result['metrics']['valid']['perplexity']:.6g}" in card
    assert "sentencepiece" in card
    with safe_open(tmp_path / "out" / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
        names = set(file.keys())
    with safe_open(GOLDEN / "language_model" / "model.safetensors", "numpy") as file:
        # It has two blocks.
        assert names == {name for name in file.keys() if ".h.1." not in name}  # noqa: SIM118
    theirs = json.loads((GOLDEN / "language_model" / "config.json").read_text())
    ours = json.loads((tmp_path / "out" / "config.json").read_text())
    assert set(theirs) - set(ours) == {"transformers_version"}


def test_the_exported_pieces_give_the_same_ids(tmp_path, pieces):
    from tokenizers import Tokenizer

    convert.write_weights(made(pieces), f"hf:{tmp_path / 'out'}")
    theirs = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    random = np.random.default_rng(0)
    parts = [*runs.WORDS, " ", "  ", "\n", "\r\n", "\t", "\0", "▁", "é", "\u0301", "🙂", "日本"]
    parts += ["</s>", "<unk>", "<0x0A>", "aaa", "\xa0", "'", "--"]
    for _ in range(500):
        text = "".join(random.choice(parts, random.integers(0, 40)))
        ids = pieces.encode(text)
        assert theirs.encode(text).ids == ids
        assert theirs.decode(ids) == text


# Heads that transformers cannot represent


def test_heads_without_a_form_in_transformers(tmp_path, pieces):
    pair = made(pieces, Task("same", "similarity", "accuracy"), ("no", "yes"))
    biased = classifier(pieces)
    biased.params["h_1"]["ln_2"]["bias"][:] = 0
    for found, reason in ((pair, "both orders"), (biased, "bias")):
        with pytest.raises(UserError, match=reason):
            convert.write_weights(found, f"hf:{tmp_path / 'out'}")
        assert not list(tmp_path.iterdir())
    convert.write_weights(pair, f"openai:{tmp_path / 'pair'}")
    assert_same(read_weights(f"openai:{tmp_path / 'pair'}"), pair)


def test_a_bias_is_folded_into_the_kernel(tmp_path, pieces):
    """Of what a norm gives, one sum is the same for every input."""
    found = classifier(pieces)
    found.params["clf"]["bias"] += np.float32(0.5)
    _, hidden, _ = hidden_and_logits(found, np.arange(32).reshape(2, 16))
    head = found.params["clf"]
    logits = hidden @ head["kernel"] + head["bias"][None, None]
    convert.write_weights(found, f"hf:{tmp_path / 'out'}")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_allclose(hidden @ tensors["score.weight"].T, logits, rtol=1e-5, atol=1e-5)
    assert_same(read_weights(f"hf:{tmp_path / 'out'}"), found)
    # Trained further elsewhere, it is not the head that was kept.
    tensors["score.weight"] += 1
    save_file(tensors, tmp_path / "out" / "model.safetensors")
    with pytest.raises(UserError, match=r"remove gpt1\.safetensors"):
        read_weights(f"hf:{tmp_path / 'out'}")
    (tmp_path / "out" / "gpt1.safetensors").unlink()
    other = read_weights(f"hf:{tmp_path / 'out'}")
    np.testing.assert_array_equal(other.params["clf"]["kernel"], tensors["score.weight"].T)


# OpenAI's own files


def test_the_released_vocabulary_is_known(real_data):
    for name in ("encoder_bpe_40000.json", "vocab_40000.bpe"):
        assert released.blob_id(real_data / "gpt1_bpe" / name) == released.BLOBS[name]


def test_convert_says_whether_arrays_are_the_released_ones(pieces, tmp_path, monkeypatch, capsys):
    """Small arrays in place of OpenAI's, known by the ids that git gives them."""
    model = tmp_path / "model"
    basic = loading.from_vocabulary(GOLDEN / "language_model", "hf_basic")
    convert.write_weights(made(basic, n_special=0), f"openai:{model}")
    (model / "gpt1.json").unlink()

    def git_id(name):
        words = ["git", "hash-object", str(model / name)]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    def converted(target):
        words = ("convert", f"--from=openai:{model}", f"--to=hf:{tmp_path / target}")
        assert main([*words, "--tokenizer=hf_basic"]) == 0
        output, errors = capsys.readouterr()
        return json.loads(output), errors

    found, said = converted("other")
    assert "released" not in found
    assert "OpenAI" not in said
    monkeypatch.setattr(released, "N_PARAMETERS", found["parameters"])
    found, said = converted("unknown")
    assert not found["released"]
    assert "none of the released files" in said
    monkeypatch.setattr(released, "BLOBS", {name: git_id(name) for name in released.BLOBS})
    found, said = converted("whole")
    assert found["released"]
    assert "released, whole and unchanged" in said
    shard = np.load(model / "params_3.npy")
    np.save(model / "params_3.npy", -shard)
    found, said = converted("changed")
    assert not found["released"]
    assert "for want of params_3.npy;" in said


# To use them


@pytest.fixture(scope="module")
def exported(pretrained, tmp_path_factory):
    """The pre-trained model of the tests, in each layout."""
    folder = tmp_path_factory.mktemp("exported")
    for kind in ("hf", "openai", "native"):
        convert.convert(str(pretrained), f"{kind}:{folder / kind}")
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "hf",
        pytest.param("openai", marks=pytest.mark.exhaustive),
        pytest.param("native", marks=pytest.mark.exhaustive),
    ],
)
def test_verbs_take_them_in_place_of_a_workdir(exported, pretrained, tokens, kind, capsys):
    def answer(*words):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 0
        return json.loads(capsys.readouterr().out)

    source = f"--initial={kind}:{exported / kind}"
    prompt = ("--prompt=the cat", "--length=4", "--seed=1")
    expected = answer("sample", f"--workdir={pretrained}", *prompt)
    assert answer("sample", source, *prompt) == expected
    # Other batches, so other sums.
    expected = answer("evaluate", f"--workdir={pretrained}")["metrics"]["valid"]
    found = answer("evaluate", source, f"--data={tokens}")["metrics"]["valid"]
    assert found == pytest.approx(expected, rel=1e-6)


def test_training_starts_from_them_and_resumes_without(
    exported, finetuned, classification, tmp_path
):
    source = shutil.copytree(exported / "hf", tmp_path / "hf")
    given = runs.fine_tuning(f"hf:{source}", classification, "classification")
    workdir = tmp_path / "run"
    runs.run({**given, "stop_after": 4}, workdir)
    shutil.rmtree(source)
    runs.run(given, workdir)
    runs.assert_same_run(workdir, finetuned, 6)


def test_a_model_key_that_contradicts_the_weights(exported, classification, tmp_path):
    given = runs.fine_tuning(f"hf:{exported / 'hf'}", classification, "classification")
    with pytest.raises(UserError, match=r"model.n_embd is 24, but hf:.* has 16"):
        runs.run({**given, "model.n_embd": 24}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert absolute_source("hf:here") == f"hf:{tmp_path / 'here'}"
    assert absolute_source("hf:org/name") == "hf:org/name"
    assert absolute_source("openai:here") == f"openai:{tmp_path / 'here'}"
    assert absolute_source("here") == str(tmp_path / "here")
    assert absolute_source("gs://bucket/run") == "gs://bucket/run"
    assert absolute_source(None) is None


# What cannot be read, or written


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs `convert`, which must refuse and write nothing, and returns its one line."""

    def run(source, *flags, target=f"native:{tmp_path / 'target'}") -> str:
        capsys.readouterr()
        names = {path.name for path in tmp_path.iterdir()}
        assert main(["convert", f"--from={source}", f"--to={target}", *flags]) == 2
        output, errors = capsys.readouterr()
        assert output == ""
        (line,) = errors.splitlines()
        assert line.startswith("gpt1: ")
        assert {path.name for path in tmp_path.iterdir()} == names
        return line

    return run


def test_arrays_of_other_names_or_shapes(refused, tmp_path):
    kernel = "transformer.h.1.attn.c_attn.weight"

    def changed(name, **changes):
        def change(tensors):
            for full, array in changes.items():
                if array is None:
                    del tensors[full]
                else:
                    tensors[full] = array
            return tensors

        return refused(altered(tmp_path / name, change))

    whole = load_file(GOLDEN / "language_model" / "model.safetensors")
    line = changed("missing", **{kernel: None})
    assert "missing: h.1.attn.c_attn.weight" in line
    line = changed("extra", **{"transformer.h.1.attn.gate": np.ones(3, np.float32)})
    assert "not expected: h.1.attn.gate" in line
    line = changed("turned", **{kernel: np.ascontiguousarray(whole[kernel].T)})
    assert "h.1.attn.c_attn.weight is [48, 16] (transposed), expected [16, 48]" in line
    broken = whole[kernel].copy()
    broken[3, 5] = np.nan
    assert "h.1.attn.c_attn.weight" in changed("nan", **{kernel: broken})
    output = whole["transformer.tokens_embed.weight"] + 1
    assert "lm_head.weight" in changed("untied", **{"lm_head.weight": output})
    line = changed("long", **{kernel: whole[kernel].astype(np.int64)})
    assert f"{kernel} in" in line
    assert "I64" in line
    huge = whole[kernel].astype(np.float64)
    huge[3, 5] = 1e300
    assert "beyond float32" in changed("huge", **{kernel: huge})


def config_of(folder: Path, **changes) -> str:
    shutil.copytree(GOLDEN / "language_model", folder)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    return f"hf:{folder}"


def test_another_architecture(refused, tmp_path):
    line = refused(config_of(tmp_path / "gpt2", model_type="gpt2"))
    assert "'gpt2'" in line
    assert "'openai-gpt'" in line
    assert "afn 'relu'" in refused(config_of(tmp_path / "relu", afn="relu"))
    assert "n_layer" in refused(config_of(tmp_path / "two", n_layer="two"))
    assert "n_layer is 1000000" in refused(config_of(tmp_path / "deep", n_layer=1_000_000))
    for n_layer in (1, 3):
        line = refused(config_of(tmp_path / f"of {n_layer}", n_layer=n_layer))
        assert f"n_layer {n_layer}, the weights beside it have 2 blocks" in line
    assert "hf:" in refused(str(tmp_path / "gpt2"))
    (tmp_path / "gpt2" / "config.json").unlink()
    assert "config.json" in refused(f"hf:{tmp_path / 'gpt2'}")


def test_files_that_are_cut_or_gone(refused, tmp_path):
    cut = Path(shutil.copytree(GOLDEN / "language_model", tmp_path / "cut"))
    content = (cut / "model.safetensors").read_bytes()
    for length in (3, 200, len(content) - 100):
        (cut / "model.safetensors").write_bytes(content[:length])
        assert f"{cut / 'model.safetensors'} is damaged or cut short" in refused(f"hf:{cut}")
    shards = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "shards"))
    (shards / "model-00002-of-00003.safetensors").unlink()
    assert "model-00002-of-00003.safetensors is missing" in refused(f"hf:{shards}")


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "a/b"])
def test_an_index_that_points_elsewhere(refused, tmp_path, name):
    folder = Path(shutil.copytree(GOLDEN / "sharded", tmp_path / "sharded"))
    shutil.copy(folder / "model-00001-of-00003.safetensors", tmp_path / "secret.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["transformer.h.0.ln_1.bias"] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "outside the folder" in refused(f"hf:{folder}")


def test_pickles_are_never_opened(refused, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "language_model", tmp_path / "old"))
    (folder / "model.safetensors").unlink()
    assert "no model.safetensors" in refused(f"hf:{folder}")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    line = refused(f"hf:{folder}")
    assert "pytorch_model.bin" in line
    assert "save_pretrained" in line
    arrays = tmp_path / "arrays"
    arrays.mkdir()
    (arrays / "best_params.jl").write_bytes(b"\x80\x04.")
    line = refused(f"openai:{arrays}")
    assert "best_params.jl" in line
    assert "safetensors" in line
    for source in ("model.pt", "openai:params.pkl", "hf:D/tf_model.h5", "native:x.ckpt"):
        assert "safetensors" in refused(source)


def test_shards_that_are_not_those_of_the_list(refused, tmp_path, symbols):
    def source(name, change):
        write_released(tmp_path / name, symbols, (3, 70_001, 1, 20_000))
        change(tmp_path / name)
        return f"openai:{tmp_path / name}"

    def objects(folder):
        np.save(folder / "params_1.npy", np.array([{}], object), allow_pickle=True)

    def cut(folder):
        path = folder / "params_1.npy"
        path.write_bytes(path.read_bytes()[:-10])

    def listed(change):
        def rewrite(folder):
            path = folder / "params_shapes.json"
            path.write_text(json.dumps(change(json.loads(path.read_text()))))

        return rewrite

    line = refused(source("gone", lambda folder: (folder / "params_2.npy").unlink()))
    assert "params_2.npy is missing" in line
    line = refused(source("short", lambda folder: (folder / "params_4.npy").unlink()))
    assert "the last shard is missing or short" in line
    more = source("more", lambda folder: np.save(folder / "params_5.npy", np.zeros(9, np.float32)))
    assert "params_5.npy goes on after" in refused(more)
    assert "params_1.npy is damaged" in refused(source("pickled", objects))
    assert "params_1.npy is damaged" in refused(source("cut", cut))
    line = refused(source("fewer", listed(lambda shapes: shapes[:-3])))
    assert "12 for each block" in line
    turned = listed(lambda shapes: [*shapes[:2], [1, 192, 64], *shapes[3:]])
    line = refused(source("turned", turned))
    assert "model/h0/attn/c_attn/w is [192, 64] (transposed), expected [64, 192]" in line
    assert "params_shapes.json" in refused(f"openai:{tmp_path / 'none'}")
    write_released(tmp_path / "narrow", symbols, (3,), n_embd=48)
    assert "no multiple of 64" in refused(f"openai:{tmp_path / 'narrow'}")


def test_a_vocabulary_that_is_not_that_of_the_weights(refused, tmp_path, symbols, pieces):
    write_released(tmp_path / "model", symbols, ())
    table = json.loads((tmp_path / "model" / "encoder_bpe_40000.json").read_text())
    longer = json.dumps(table | {"q": len(table)})
    (tmp_path / "model" / "encoder_bpe_40000.json").write_text(longer)
    line = refused(f"openai:{tmp_path / 'model'}")
    assert f"{len(table) + 1} tokens, the weights {len(table)}" in line
    folder = Path(shutil.copytree(GOLDEN / "language_model", tmp_path / "hf"))
    (folder / "vocab.json").write_text(longer)
    assert "token table 54 rows" in refused(f"hf:{folder}")
    # One that was exchanged for another of the same size.
    convert.write_weights(made(pieces), f"hf:{tmp_path / 'out'}")
    other = sentencepiece_bpe.train_sentencepiece(["quite another text than that"], 300)
    other.save(tmp_path / "out")
    assert "not the one that these weights were trained with" in refused(f"hf:{tmp_path / 'out'}")
    # Nor do two modes of one vocabulary meet.
    convert.write_weights(made(symbols), f"hf:{tmp_path / 'original'}")
    line = refused(f"hf:{tmp_path / 'original'}", "--tokenizer=hf_basic")
    assert "was trained with original" in line
    assert "expected one of" in refused(f"hf:{GOLDEN / 'sharded'}", "--tokenizer=bert")


def test_added_tokens_that_have_no_place(refused, tmp_path):
    folder = Path(shutil.copytree(GOLDEN / "multiple_choice", tmp_path / "added"))
    description = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(description.replace("_classify_", "[CLS]"))
    assert "but none for _classify_" in refused(f"hf:{folder}")
    for special in ("_start_", "_delimiter_"):
        description = description.replace(special, f"pad{special}")
    (folder / "tokenizer.json").write_text(description.replace("_classify_", "[CLS]"))
    assert "[CLS]" in refused(f"hf:{folder}")


def test_a_target_that_is_there_is_not_touched(refused, tmp_path):
    source = f"hf:{GOLDEN / 'language_model'}"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for kind in ("native", "hf", "openai"):
        for name in ("full", "file"):
            line = refused(source, target=f"{kind}:{tmp_path / name}")
            assert f"{tmp_path / name} is there already" in line
    assert (tmp_path / "full" / "mine").read_text() == "mine"
    assert "no format" in refused(source, target=str(tmp_path / "plain"))
    assert "unknown format 'hug'" in refused(source, target="hug:out")
    assert "no folder after" in refused("hf:")
    assert "--step=3" in refused(source, "--step=3")
    # An empty folder will do.
    (tmp_path / "empty").mkdir()
    convert.convert(source, f"hf:{tmp_path / 'empty'}")
    assert (tmp_path / "empty" / "model.safetensors").exists()


def test_a_name_on_the_hub_without_a_network(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    line = refused("hf:openai-community/openai-gpt")
    assert "hf:openai-community/openai-gpt is no folder here" in line
    assert "--local-dir" in line
    assert "no such folder" in refused(f"hf:{tmp_path}/none")
