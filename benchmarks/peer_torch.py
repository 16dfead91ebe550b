"""GPT-1 in PyTorch, the way its users would train and sample it today, timed.

    python benchmarks/peer_torch.py train --batch=64 --seq=512 --pad-vocab --json=peer.json
    python benchmarks/peer_torch.py generate --model=openai-gpt|gpt2 --batch=1 --prompt=32 --new=256
    gpt1 benchmark train --batch=64 --seq=512 --dropout=0.1 --vs=peer.json

Needs torch, and transformers for `generate`; the project needs neither. Training is compiled, with
autocast, scaled_dot_product_attention with its own dropout, fused AdamW, TF32 and, if asked, the
vocabulary padded to a multiple of 128. The line that it prints has the keys of `gpt1 benchmark`.
"""

import argparse
import contextlib
import json
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Layer(nn.Module):
    """Attention and MLP, each added, dropped out and normed afterwards."""

    def __init__(self, width: int, heads: int, rate: float):
        super().__init__()
        self.heads, self.rate = heads, rate
        self.to_qkv = nn.Linear(width, 3 * width)
        self.from_heads = nn.Linear(width, width)
        self.wider, self.narrower = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(rate)

    def forward(self, x):
        rows, length, width = x.shape
        qkv = self.to_qkv(x).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=self.rate if self.training else 0.0
        )
        attended = self.from_heads(attended.transpose(1, 2).reshape(rows, length, width))
        x = self.norm_1(x + self.drop(attended))
        inner = functional.gelu(self.wider(x), approximate="tanh")
        return self.norm_2(x + self.drop(self.narrower(inner)))


class Model(nn.Module):
    """The decoder with learned positions and the output tied to the input; gives the loss."""

    def __init__(self, vocab: int, seq: int, width: int, heads: int, layers: int, rate: float):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocab, width), nn.Embedding(seq, width)
        self.layers = nn.ModuleList(Layer(width, heads, rate) for _ in range(layers))
        self.drop = nn.Dropout(rate)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, ids):
        x = self.drop(self.tokens(ids) + self.positions.weight[: ids.shape[1]])
        for layer in self.layers:
            x = layer(x)
        logits = functional.linear(x[:, :-1], self.tokens.weight)
        return functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())


def train(asked) -> dict:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(0)
    vocab = -(-asked.vocab // 128) * 128 if asked.pad_vocab else asked.vocab
    model = Model(vocab, asked.seq, asked.d, asked.heads, asked.layers, asked.dropout).to(DEVICE)
    adam = torch.optim.AdamW(model.parameters(), lr=2.5e-4, weight_decay=0.01, fused=True)
    network = torch.compile(model) if asked.compile else model
    dtype = DTYPES[SHORT.get(asked.dtype, asked.dtype)]
    narrow = dtype != torch.float32
    batches = [torch.randint(asked.vocab, (asked.batch, asked.seq), device=DEVICE) for _ in "four"]

    def update(number: int):
        with torch.autocast(DEVICE, dtype) if narrow else contextlib.nullcontext():
            loss = network(batches[number % len(batches)])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad(set_to_none=True)
        return loss

    began = time.perf_counter()
    update(0)
    first = wait() - began
    for number in range(asked.warmup):
        loss = update(number)
    taken = []
    for _ in range(asked.rounds):
        wait()
        began = time.perf_counter()
        for number in range(asked.steps):
            loss = update(number)
        taken.append((wait() - began) / asked.steps)
    seconds = statistics.median(taken)
    rate = asked.batch * asked.seq / seconds
    weights = 12 * asked.layers * asked.d**2 + asked.vocab * asked.d
    flops = 6 * weights + 12 * asked.layers * asked.d * asked.seq
    return {
        "dropout": asked.dropout,
        "seq": asked.seq,
        "vocab": vocab,
        "compile": asked.compile,
        "ms_median": 1e3 * seconds,
        "ms_min": 1e3 * min(taken),
        "ms_max": 1e3 * max(taken),
        "tokens_per_s": rate,
        "tflops_per_s": rate * flops / 1e12,
        "attention_count": "full",
        "peak_gib": peak_gib(),
        "loss": float(loss.detach()),
        "first_step_seconds": first,
    }


def generate(asked) -> dict:
    """`generate` of transformers: with openai-gpt, which has no cache, or with gpt2, which has."""
    import transformers

    sizes = {"vocab_size": asked.vocab, "n_positions": 512, "n_embd": asked.d}
    sizes |= {"n_layer": asked.layers, "n_head": asked.heads}
    if asked.model == "gpt2":
        made = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    else:
        made = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**sizes))
    model = made.to(DEVICE, DTYPES[SHORT.get(asked.dtype, asked.dtype)]).eval()
    ids = torch.randint(asked.vocab, (asked.batch, asked.prompt), device=DEVICE)
    settings = {"max_new_tokens": asked.new, "min_new_tokens": asked.new, "do_sample": True}
    settings |= {"top_k": 40, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    taken = []
    with torch.no_grad():
        model.generate(ids, **settings)
        for _ in range(asked.rounds):
            wait()
            began = time.perf_counter()
            model.generate(ids, **settings)
            taken.append(wait() - began)
    seconds = statistics.median(taken)
    return {
        "peer": f"transformers {asked.model}",
        "version": transformers.__version__,
        "torch": torch.__version__,
        "new_tokens": asked.new,
        "prompt": asked.prompt,
        "s_median": seconds,
        "s_min": min(taken),
        "s_max": max(taken),
        "tokens_per_s": asked.batch * asked.new / seconds,
    }


def wait() -> float:
    """The time when all that was asked of the device is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=["train", "generate"])
    numbers = {"batch": 64, "seq": 512, "vocab": 40478, "d": 768, "heads": 12, "layers": 12}
    numbers |= {"warmup": 3, "steps": 10, "rounds": 5, "prompt": 32, "new": 256}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--dtype", choices=[*DTYPES, *SHORT], default="bfloat16")
    parser.add_argument("--model", choices=["openai-gpt", "gpt2"], default="openai-gpt")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--pad-vocab", action="store_true", help="to a multiple of 128")
    parser.add_argument("--json", help="a file that gets the line, too")
    asked = parser.parse_args()
    line = {"peer": "pytorch", "version": torch.__version__, "mode": asked.mode}
    line |= {"dtype": asked.dtype, "batch": asked.batch, "layers": asked.layers}
    line |= {"d": asked.d, "heads": asked.heads}
    line |= train(asked) if asked.mode == "train" else generate(asked)
    line["device"] = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    print(json.dumps(line))
    if asked.json:
        Path(asked.json).write_text(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
