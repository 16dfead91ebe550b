"""GPT-1 and its optimiser again: numpy, float64, loops instead of axes, nothing of the package.

Written from the paper and the released code; the tests hold the package against it.
"""

import math

import numpy as np


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def attention(query_LK, key_MK, value_MK, offset=0, multiplier_LM=None):
    """One head of one sequence. Query l sees the keys 0 .. offset + l."""
    out_LK = np.zeros((len(query_LK), value_MK.shape[1]))
    for place, query_K in enumerate(np.asarray(query_LK, np.float64)):
        seen = offset + place + 1
        scores = np.asarray(key_MK[:seen], np.float64) @ query_K / math.sqrt(len(query_K))
        weights = np.exp(log_softmax(scores))
        if multiplier_LM is not None:
            weights = weights * multiplier_LM[place, :seen]
        out_LK[place] = weights @ np.asarray(value_MK[:seen], np.float64)
    return out_LK


def _linear(x, layer):
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def _layer_norm(x, layer):
    centred = x - x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return centred / deviation * np.asarray(layer["scale"]) + np.asarray(layer["bias"])


def _gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _no_dropout(layer, place, shape):
    return np.ones(shape)


def _heads(x_LD, n_head):
    return np.split(x_LD, n_head, axis=-1)


def hidden(params, tokens_NL, n_head, multipliers=_no_dropout):
    """Hidden states [N, L, D]; dropout multiplies by `multipliers(layer, place, shape)`."""
    length = tokens_NL.shape[1]
    wte = np.asarray(params["wte"]["embedding"], np.float64)
    wpe = np.asarray(params["wpe"]["embedding"], np.float64)
    x_NLD = wte[tokens_NL] + wpe[:length]
    like_x = x_NLD.shape
    x_NLD = x_NLD * multipliers(0, "embedding", like_x)
    for layer in range(sum(name.startswith("h_") for name in params)):
        block = params[f"h_{layer}"]
        on_weights = multipliers(layer, "attention", (len(x_NLD), n_head, length, length))
        attended_NLD = np.zeros(like_x)
        for row, x_LD in enumerate(x_NLD):
            query_LD, key_LD, value_LD = np.split(_linear(x_LD, block["attn"]["c_attn"]), 3, -1)
            parts = zip(
                _heads(query_LD, n_head),
                _heads(key_LD, n_head),
                _heads(value_LD, n_head),
                on_weights[row],
                strict=True,
            )
            merged_LD = np.concatenate([attention(q, k, v, 0, m) for q, k, v, m in parts], -1)
            attended_NLD[row] = _linear(merged_LD, block["attn"]["c_proj"])
        attended_NLD = attended_NLD * multipliers(layer, "attention_output", like_x)
        normed_NLD = _layer_norm(x_NLD + attended_NLD, block["ln_1"])
        mlp_NLD = _linear(_gelu(_linear(normed_NLD, block["mlp"]["c_fc"])), block["mlp"]["c_proj"])
        mlp_NLD = mlp_NLD * multipliers(layer, "mlp_output", like_x)
        x_NLD = _layer_norm(normed_NLD + mlp_NLD, block["ln_2"])
    return x_NLD


def lstm_hidden(params, tokens_NL, multipliers=_no_dropout):
    """Hidden states [N, L, D] of the LSTM, one token of one sequence at a time."""
    x_NLD = np.asarray(params["wte"]["embedding"], np.float64)[tokens_NL]
    x_NLD = x_NLD * multipliers(0, "embedding", x_NLD.shape)
    for layer in range(sum(name.startswith("h_") for name in params)):
        weights = params[f"h_{layer}"]
        units = weights["recurrent_kernel"].shape[0]
        bias_4U = np.asarray(weights["bias"], np.float64).reshape(4, units)
        out_NLD = np.zeros(x_NLD.shape)
        for row, x_LD in enumerate(x_NLD):
            output, cell = np.zeros(units), np.zeros(units)
            for place, x_D in enumerate(x_LD):
                enter, forget, new, leave = (
                    x_D @ np.asarray(weights["input_kernel"][:, gate], np.float64)
                    + output @ np.asarray(weights["recurrent_kernel"][:, gate], np.float64)
                    + bias_4U[gate]
                    for gate in range(4)
                )
                cell = cell / (1 + np.exp(-forget)) + np.tanh(new) / (1 + np.exp(-enter))
                output = np.tanh(cell) / (1 + np.exp(-leave))
                out_NLD[row, place] = _linear(output, weights["proj"])
        x_NLD = out_NLD * multipliers(layer, "mlp_output", out_NLD.shape)
    return x_NLD


def logits(params, hidden_NLD):
    """Next-token scores: the output is the token table once more."""
    return hidden_NLD @ np.asarray(params["wte"]["embedding"], np.float64).T


def lm_loss(params, hidden_NLD, tokens_NL, weights_NL):
    """The mean over sequences of each one's own mean."""
    means = []
    for row, (tokens_L, weights_L) in enumerate(zip(tokens_NL, weights_NL, strict=True)):
        predicted_LV = log_softmax(logits(params, hidden_NLD[row]))
        losses = [-predicted_LV[place - 1, tokens_L[place]] for place in range(1, len(tokens_L))]
        means.append(np.average(losses, weights=weights_L[1:]))
    return np.mean(means)


def task_logits(params, hidden_NLD, extract_BC, each):
    """One row of scores per example: of its candidates with `each`, else of the classes."""
    rows = []
    for example, places in enumerate(extract_BC):
        first = example * len(places)
        states = [hidden_NLD[first + candidate, place] for candidate, place in enumerate(places)]
        read = [_linear(state, params["clf"]) for state in (states if each else [sum(states)])]
        rows.append([score[0] for score in read] if each else read[0])
    return np.asarray(rows)


def task_loss(logits_Bk, label):
    """Mean cross-entropy against classes [B] or distributions [B, k]."""
    log_probabilities = log_softmax(logits_Bk)
    if label.ndim == 1:
        return -np.mean([row[answer] for row, answer in zip(log_probabilities, label, strict=True)])
    return -np.mean((label * log_probabilities).sum(axis=1))


def schedule(name, x, warmup):
    """The factor of the rate when the fraction x of all updates is done."""
    warming = warmup > 0 and x <= warmup
    if name == "warmup_cosine":
        return x / warmup if warming else 0.5 * (1 + math.cos(math.pi * x))
    warm = x / warmup if warming else 1.0
    return warm * (1 - x) if name == "warmup_linear" else warm


class ReleasedAdam:
    """opt.py of the released code, over a dict of arrays."""

    def __init__(self, params, config, total_updates):
        self.params = {name: np.asarray(p, np.float64) for name, p in params.items()}
        self.m = {name: np.zeros(p.shape) for name, p in self.params.items()}
        self.v = {name: np.zeros(p.shape) for name, p in self.params.items()}
        self.config, self.total_updates, self.done = config, total_updates, 0

    def update(self, gradients):
        c, t = self.config, self.done
        gradients = {name: np.asarray(g, np.float64) for name, g in gradients.items()}
        norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
        if c.max_grad_norm > 0 and norm > c.max_grad_norm:
            gradients = {name: g * c.max_grad_norm / norm for name, g in gradients.items()}
        step = c.learning_rate * math.sqrt(1 - c.b2 ** (t + 1)) / (1 - c.b1 ** (t + 1))
        step *= schedule(c.schedule, t / self.total_updates, c.warmup)
        for name, g in gradients.items():
            self.m[name] = c.b1 * self.m[name] + (1 - c.b1) * g
            self.v[name] = c.b2 * self.v[name] + (1 - c.b2) * g**2
            change = self.m[name] / (np.sqrt(self.v[name]) + c.eps)
            if self.params[name].ndim > 1 or c.vector_l2:
                change = change + c.l2 * self.params[name]
            self.params[name] = self.params[name] - step * change
        self.done += 1
