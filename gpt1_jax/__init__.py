"""GPT-1 in JAX: "Improving Language Understanding by Generative Pre-Training" (2018), whole.

Importing the package imports nothing else, so that `gpt1 --help` and the report stay quick.
"""

__version__ = "0.1.0"


def load(source, step=None, tokenizer=None):
    """A trained model, to sample, score, predict and look inside (inference/trained_model.py).

        >>> import gpt1_jax
        >>> model = gpt1_jax.load("runs/lm")
        >>> model.sample("It was a bright cold day", num_samples=3)

    `source` is the workdir of a run, or weights of another layout: "hf:D", "hf:NAME" on the Hub,
    "openai:D", whose text becomes ids in the mode `tokenizer` ("original" or "hf_basic", by default
    original for openai: and hf_basic for hf:). `step` is a checkpoint of the run, by default the
    best of a fine-tuned model and else the newest. Raises gpt1_jax.errors.UserError if there is
    none.
    """
    from gpt1_jax.inference import trained_model

    return trained_model.load(source, step, tokenizer)
