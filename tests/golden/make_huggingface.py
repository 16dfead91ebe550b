"""Makes tests/golden/huggingface: small models that transformers saved, and their logits.

    python tests/golden/make_huggingface.py

Needs torch and transformers (5.24.0 made the files that are committed). Every parameter is random,
also biases and gains, so that none can be exchanged unnoticed.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from transformers import (
    OpenAIGPTConfig,
    OpenAIGPTDoubleHeadsModel,
    OpenAIGPTForSequenceClassification,
    OpenAIGPTLMHeadModel,
    OpenAIGPTTokenizer,
)

FOLDER = Path(__file__).parent / "huggingface"
SPECIALS = ["_start_", "_delimiter_", "_classify_"]
CHARACTERS = "abcdefghiklmnorstuwy.,"
MERGES = ["t h", "th e</w>", "a n", "an d</w>", "i n", "o n</w>", "c a", "ca t</w>"]
SENTENCE = "The cat and the dog ran on, and the sun was low."


def vocabulary() -> dict[str, int]:
    """In the order of the released one: characters, characters at the end of a word, merges."""
    symbols = ["<unk>", *CHARACTERS, *(character + "</w>" for character in CHARACTERS)]
    symbols += [pair.replace(" ", "") for pair in MERGES]
    return {symbol: number for number, symbol in enumerate([*symbols, "\n</w>"])}


def made(cls, n_rows: int, **options):
    """A model of two layers with random values everywhere."""
    config = OpenAIGPTConfig(
        vocab_size=n_rows, n_positions=24, n_embd=16, n_layer=2, n_head=4, **options
    )
    torch.manual_seed(len(cls.__name__))
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            centre = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
            parameter.copy_(centre + 0.2 * torch.randn_like(parameter))
    return model


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    symbols = vocabulary()
    tokenizer = OpenAIGPTTokenizer(vocab=symbols, merges=[tuple(m.split()) for m in MERGES])
    ids = tokenizer(SENTENCE)["input_ids"]
    found = {"ids": ids, "sentence": SENTENCE}

    model = made(OpenAIGPTLMHeadModel, len(symbols))
    model.save_pretrained(FOLDER / "language_model")
    (FOLDER / "language_model" / "vocab.json").write_text(json.dumps(symbols))
    lines = ["#version: 0.2", *MERGES]
    (FOLDER / "language_model" / "merges.txt").write_text("\n".join(lines) + "\n")
    arrays = {"language_model": model(torch.tensor([ids[:24]])).logits}

    # As transformers 5 saves it: the vocabulary in tokenizer.json alone, the weights in parts.
    model.save_pretrained(FOLDER / "sharded", max_shard_size="12KB")
    tokenizer.save_pretrained(FOLDER / "sharded")

    tokenizer.add_special_tokens({"additional_special_tokens": SPECIALS})
    first = len(symbols)
    choices = [
        [first, *ids[:7], first + 1, *ids[9:12], first + 2],
        [first, *ids[:7], first + 1, *ids[14:17], first + 2],
    ]
    found["choices"] = choices
    model = made(OpenAIGPTDoubleHeadsModel, first + 3)
    model.save_pretrained(FOLDER / "multiple_choice")
    tokenizer.save_pretrained(FOLDER / "multiple_choice")
    last = torch.tensor([[len(choice) - 1 for choice in choices]])
    answer = model(torch.tensor([choices]), mc_token_ids=last)
    arrays |= {"multiple_choice": answer.mc_logits, "multiple_choice_lm": answer.logits}

    labels = {0: "negative", 1: "neutral", 2: "positive"}
    model = made(OpenAIGPTForSequenceClassification, first + 3, id2label=labels, pad_token_id=0)
    model.save_pretrained(FOLDER / "classification")
    tokenizer.save_pretrained(FOLDER / "classification")
    arrays["classification"] = model(torch.tensor(choices)).logits

    (FOLDER / "inputs.json").write_text(json.dumps(found) + "\n")
    np.savez(FOLDER / "logits.npz", **{k: v.detach().numpy() for k, v in arrays.items()})


if __name__ == "__main__":
    main()
