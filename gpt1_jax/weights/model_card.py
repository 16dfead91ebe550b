"""README.md of an exported folder: what the model is, and the numbers of the run that made it."""

from pathlib import Path

import gpt1_jax
from gpt1_jax.run_files import provenance
from gpt1_jax.tokenization.tokenizer_json import SPECIALS
from gpt1_jax.weights import huggingface_heads
from gpt1_jax.weights.weights import Weights, n_parameters

_USE = {
    huggingface_heads.LANGUAGE_MODEL: """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)""",
    huggingface_heads.DOUBLE_HEADS: """\
from transformers import AutoTokenizer, OpenAIGPTDoubleHeadsModel

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = OpenAIGPTDoubleHeadsModel.from_pretrained(FOLDER)
# input_ids [batch, choices, length]: _start_ context question _delimiter_ choice _classify_
# mc_token_ids [batch, choices]: the places of _classify_""",
    huggingface_heads.CLASSIFIER: """\
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForSequenceClassification.from_pretrained(FOLDER)
# input_ids: _start_ text _classify_, or _start_ premise _delimiter_ hypothesis _classify_;
# padding (0) on the right""",
}


def write_card(weights: Weights, architecture: str, folder: Path) -> None:
    model, tokenizer = weights.model, weights.tokenizer
    kind = f"fine-tuned on {weights.task.name}" if weights.task.has_head else "a language model"
    result = weights.result or {}
    made = provenance(weights.config)
    rows = {
        "parameters": f"{n_parameters(weights.flat):,}",
        "layers, width, heads": f"{model.n_layer}, {model.n_embd}, {model.n_head}",
        "context": f"{model.n_ctx} tokens",
        "token table": f"{model.vocab_size} tokens, {model.n_special} special ones"
        + (f", {model.n_padding} rows of none" if model.n_padding else ""),
        "tokenizer": f"{tokenizer.mode}, fingerprint {tokenizer.fingerprint}",
        "updates": str(weights.step) if weights.step else "not recorded",
        "hash of the run's config": result.get("config_hash", "not recorded"),
        "trained with": _versions(result["versions"]) if "versions" in result else "not recorded",
        "converted with": _versions({"gpt1_jax": gpt1_jax.__version__, **made["versions"]}),
    }
    sections = [
        "---\nlibrary_name: transformers\ntags:\n- openai-gpt\n---",
        f"# GPT-1, {kind}",
        "Exported by gpt1_jax, a JAX implementation of *Improving Language Understanding by "
        "Generative Pre-Training* (2018).",
        f"```python\n{_USE[architecture]}\n```",
        _table("", rows),
        _numbers(weights, result),
        _tokens(weights),
    ]
    (folder / "README.md").write_text("\n\n".join(filter(None, sections)) + "\n", "utf-8")


def _table(name: str, rows: dict[str, str]) -> str:
    lines = [f"| {name} | |", "| --- | --- |", *(f"| {key} | {rows[key]} |" for key in rows)]
    return "\n".join(lines)


def _versions(versions: dict[str, str | None]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _numbers(weights: Weights, result: dict) -> str:
    """The metrics that result.json has, and the step that each belongs to."""
    metrics = result.get("metrics")
    if not metrics:
        return "No metrics are recorded for these weights."
    rows = {
        f"{split} {name}": f"{value:.6g}"
        for split, values in metrics.items()
        for name, value in values.items()
    }
    if best := result.get("best"):
        metric = weights.task.metric if weights.task.has_head else "score"
        rows[f"best dev {metric}, at update {best['step']}"] = f"{best['score']:.6g}"
    seeds = ", ".join(map(str, result.get("seeds", [])))
    text = f"Numbers of the run (seed {seeds}) at its last update, {result.get('step')}"
    if result.get("step") != weights.step:
        text += f"; the weights here are those after update {weights.step}"
    return f"{text}:\n\n{_table('split and metric', rows)}"


def _tokens(weights: Weights) -> str:
    """What to know about the ids."""
    lines = []
    if weights.tokenizer.mode == "original":
        lines.append(
            "The weights were trained on ids of the original tokenisation (ftfy, spaCy, line ends "
            "kept). The tokenizer in this folder is the one that transformers has for GPT-1, which "
            "splits as BERT does, strips accents and loses line ends: on the same text its ids "
            "differ. gpt1_jax reads this folder with the original tokenisation."
        )
    if weights.model.n_special:
        first = weights.model.vocab_size
        names = ", ".join(f"`{name}` {first + number}" for number, name in enumerate(SPECIALS))
        lines.append(f"Special tokens: {names}.")
    if weights.tokenizer.end is not None:
        lines.append(
            f"Documents end with the token {weights.tokenizer.end} where the training data had it."
        )
    return "\n\n".join(lines)
