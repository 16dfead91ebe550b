"""GPT-1 in JAX: "Improving Language Understanding by Generative Pre-Training" (2018), whole.

Importing the package imports nothing else, so that `gpt1 --help` and the report stay quick.
"""

__version__ = "0.1.0"


def load(source, step=None):
    """A trained model, to sample, score, predict and look inside: evaluation.trained.Trained.

        >>> import gpt1_jax
        >>> model = gpt1_jax.load("runs/lm")
        >>> model.sample("It was a bright cold day", num_samples=3)

    `source` is the workdir of a run; `step` one of its checkpoints, by default the best of a
    fine-tuned model and else the newest. Raises gpt1_jax.errors.UserError if there is none.
    """
    from gpt1_jax.evaluation import trained

    return trained.load(source, step)
