"""The graph of the released train.py again: numpy, float64, one table `we`, nothing of the package.

Arrays have the names and TF shapes of the released code. X [B, 2, T, 2] holds pairs (token row,
position row), M [B, 2, T] is 1 on real tokens, Y [B] the right one of both choices.
"""

import math

import numpy as np

LM_COEF = 0.5


def arrays(params, n_positions):
    """Our tree as the arrays of the released code, whose table ends at position n_positions."""
    tokens, positions = (np.asarray(params[name]["embedding"]) for name in ("wte", "wpe"))
    found = {"we": np.concatenate([tokens, positions[:n_positions]])}
    for layer in range(sum(name.startswith("h_") for name in params)):
        ours = params[f"h_{layer}"]
        for part, name in (
            ("attn", "c_attn"),
            ("attn", "c_proj"),
            ("mlp", "c_fc"),
            ("mlp", "c_proj"),
        ):
            found[f"h{layer}/{part}/{name}/w"] = np.asarray(ours[part][name]["kernel"])[None]
            found[f"h{layer}/{part}/{name}/b"] = ours[part][name]["bias"]
        for name in ("ln_1", "ln_2"):
            found[f"h{layer}/{name}/g"] = ours[name]["scale"]
            found[f"h{layer}/{name}/b"] = ours[name]["bias"]
    found["clf/w"], found["clf/b"] = params["clf"]["kernel"], params["clf"]["bias"]
    return {name: np.asarray(array, np.float64) for name, array in found.items()}


def pairs(tokens_BCT, n_tokens):
    """X from ids, where n_tokens rows of tokens and specials stand before the positions."""
    X = np.empty((*tokens_BCT.shape, 2), np.int64)
    X[..., 0] = tokens_BCT
    X[..., 1] = n_tokens + np.arange(tokens_BCT.shape[-1])
    return X


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def _cross_entropy(logits, answers):
    return -np.log(_softmax(logits)[(*np.indices(answers.shape), answers)])


def _conv1d(a, name, x):
    return np.einsum("nti,io->nto", x, a[name + "/w"][0]) + a[name + "/b"]


def _norm(a, name, x):
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt(np.square(x).mean(-1, keepdims=True) + 1e-5) * a[name + "/g"] + a[name + "/b"]
    )


def _attention(a, name, x, n_head):
    n, t, d = x.shape
    qkv = _conv1d(a, name + "/c_attn", x).reshape(n, t, 3, n_head, d // n_head)
    w = np.einsum("nqhk,nmhk->nhqm", qkv[:, :, 0], qkv[:, :, 1]) / math.sqrt(d // n_head)
    seen = np.tri(t)
    w = _softmax(w * seen + -1e9 * (1 - seen))
    merged = np.einsum("nhqm,nmhk->nqhk", w, qkv[:, :, 2]).reshape(n, t, d)
    return _conv1d(a, name + "/c_proj", merged)


def _mlp(a, name, x):
    x = _conv1d(a, name + "/c_fc", x)
    x = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return _conv1d(a, name + "/c_proj", x)


def losses(a, X, M, Y, n_head, classify):
    """The means of the classifier's and the language model's losses, and what is minimised."""
    B, C, T, _ = X.shape
    X, M = X.reshape(B * C, T, 2), M.reshape(B * C, T)
    h = a["we"][X].sum(2)
    for layer in range(sum(name.endswith("c_fc/w") for name in a)):
        h = _norm(a, f"h{layer}/ln_1", h + _attention(a, f"h{layer}/attn", h, n_head))
        h = _norm(a, f"h{layer}/ln_2", h + _mlp(a, f"h{layer}/mlp", h))
    lm = _cross_entropy(h[:, :-1] @ a["we"].T, X[:, 1:, 0])
    lm = (lm * M[:, 1:]).sum(1) / M[:, 1:].sum(1)
    first = (X[:, :, 0] == classify).argmax(1)
    scores = h[np.arange(B * C), first] @ a["clf/w"] + a["clf/b"]
    clf = _cross_entropy(scores.reshape(B, C), Y)
    return {
        "task_loss": clf.mean(),
        "lm_loss": lm.mean(),
        "loss": clf.mean() + LM_COEF * lm.mean(),
    }


def gradients(a, step=1e-5, **batch):
    """Of the loss, by central differences, entry by entry."""
    found = {}
    for name, array in a.items():
        found[name] = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            value, around = array[place], []
            for shift in (step, -step):
                array[place] = value + shift
                around.append(losses(a, **batch)["loss"])
            array[place] = value
            found[name][place] = (around[0] - around[1]) / (2 * step)
    return found
