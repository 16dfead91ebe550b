"""What transformers makes of exported folders. Skipped where it and torch are not installed."""

import lzma
import os
from collections import Counter

import numpy as np
import pytest
from test_convert import chooser, classifier, hidden_and_logits, made

import gpt1_jax
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.tokenization import loading
from gpt1_jax.tokenization.gpt1_bpe import BasicTokenizer
from gpt1_jax.tokenization.vocabulary import learn
from gpt1_jax.weights import convert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
os.environ["HF_HUB_OFFLINE"] = "1"

WORDS = "the cat sat on a hill and saw the dog the dog ran to the hill"
TEXT = "the cat sat on a hill and saw the dog\nthe dog ran"


def opened(found, folder, cls="AutoModelForCausalLM"):
    convert.write_weights(found, f"hf:{folder}")
    model, loading = getattr(transformers, cls).from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values())
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def pieces(tokens):
    return loading.load(tokens)


def test_a_language_model_with_pieces(pieces, tmp_path):
    found = made(pieces)
    model, tokenizer = opened(found, tmp_path / "out")
    assert tokenizer(TEXT)["input_ids"] == pieces.encode(TEXT)
    ids = pieces.encode(TEXT)[:16]
    assert tokenizer.decode(ids) == pieces.decode(ids)
    assert tokenizer.eos_token_id == pieces.end == model.generation_config.eos_token_id
    _, _, logits = hidden_and_logits(found, np.array([ids]))
    theirs = model(torch.tensor([ids])).logits.detach().numpy()
    np.testing.assert_allclose(logits, theirs, rtol=1e-5, atol=1e-5)
    model.generate(torch.tensor([ids[:4]]), do_sample=True, pad_token_id=0)


def test_a_multiple_choice(pieces, tmp_path):
    found = chooser(pieces)
    model, tokenizer = opened(found, tmp_path / "out", "OpenAIGPTDoubleHeadsModel")
    start, delimiter, classify = pieces.start, pieces.delimiter, pieces.classify
    special = tokenizer.convert_tokens_to_ids(["_start_", "_delimiter_", "_classify_"])
    assert special == [start, delimiter, classify]
    choices = np.array(
        [[start, 5, 6, 7, delimiter, 9, classify], [start, 5, 6, 7, delimiter, 8, classify]]
    )
    net, hidden, _ = hidden_and_logits(found, choices)
    ours = net.answer(found.params, hidden, np.array([[6, 6]]))
    theirs = model(torch.tensor(choices[None]), mc_token_ids=torch.tensor([[6, 6]])).mc_logits
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_a_classification_of_texts_of_different_lengths(pieces, tmp_path):
    found = classifier(pieces)
    model, _ = opened(found, tmp_path / "out", "AutoModelForSequenceClassification")
    assert model.config.id2label == {0: "rain", 1: "sun"}
    rows = np.array([[300, 5, 6, 7, 302, 0, 0], [300, 5, 6, 7, 9, 11, 302]])
    net, hidden, _ = hidden_and_logits(found, rows)
    ours = net.answer(found.params, hidden, np.array([[4], [6]]))
    theirs = model(torch.tensor(rows)).logits.detach().numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["sentencepiece", "hf_basic"])
def test_the_pipeline_gives_the_labels_and_scores_of_predict(pieces, mode, tmp_path):
    """The tokenizer adds the special tokens by itself, and the head reads the last of them."""
    tokenizer = (
        pieces if mode == "sentencepiece" else BasicTokenizer(learn(Counter(WORDS.split()), 120))
    )
    found = classifier(tokenizer)
    convert.write_weights(found, f"hf:{tmp_path / 'out'}")
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "out"))
    texts = ["the cat sat", "a dog ran to the hill", "and the hill"]
    ours = gpt1_jax.load(f"hf:{tmp_path / 'out'}").predict([{"text": text} for text in texts])
    for text, row in zip(texts, ours, strict=True):
        theirs = pipeline(text)[0]
        assert theirs["label"] == row["label"]
        assert theirs["score"] == pytest.approx(max(row["probabilities"]), abs=1e-5)


def test_the_model_of_the_paper(real_data, tmp_path):
    """116,534,784 random parameters, the released vocabulary, a novel."""
    basic = loading.from_vocabulary(real_data / "gpt1_bpe", "hf_basic")
    found = made(
        basic, **{n: getattr(ModelConfig(), n) for n in ("n_ctx", "n_embd", "n_head", "n_layer")}
    )
    assert sum(array.size for array in found.flat.values()) == 116_534_784
    model, tokenizer = opened(found, tmp_path / "out")
    with lzma.open(real_data / "books" / "valid" / "Forster_View_1908.txt.xz", "rt") as file:
        text = file.read(20_000)
    ids = basic.encode(text)
    assert tokenizer(text)["input_ids"] == ids
    _, _, logits = hidden_and_logits(found, np.array([ids[:256]]))
    theirs = model(torch.tensor([ids[:256]])).logits.detach().numpy()
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(logits / scale, theirs / scale, rtol=0, atol=1e-5)
