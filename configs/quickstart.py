"""The paper in miniature, for two CPU cores and no network: what `gpt1 quickstart` trains.

    gpt1 quickstart --workdir=runs/quickstart

    transformer   pre-training on the documentation installed here: 3 layers of width 128 (default)
    lstm          the same with an LSTM of about as many parameters
    finetune      one of the tasks cut from that documentation

The command sets the lengths, which depend on the time there is; the rest is here.
"""

from ml_collections import ConfigDict

from gpt1_jax.recipe.experiment import with_arguments

BODIES = ("transformer", "lstm")


def get_config(arguments: str = "") -> ConfigDict:
    first, _, rest = arguments.partition(",")
    if first == "finetune":
        return with_arguments(finetuning(), rest, words={}, short={"lm_coef": "objective.lm_coef"})
    config = pretraining()
    if first == "lstm":
        config.model.update({"body": "lstm", "n_layer": 1, "n_units": 320})
    rest = rest if first in BODIES else arguments
    return with_arguments(config, rest, words=dict.fromkeys([*BODIES, "finetune"]))


def pretraining() -> ConfigDict:
    config = ConfigDict()
    config.steps = 1500
    config.batch_size = 16
    config.objective = {"lm_coef": 1.0}
    config.model = {
        "n_layer": 3,
        "n_embd": 128,
        "n_head": 4,
        "n_ctx": 64,
        # Nothing is seen twice, so there is nothing to overfit.
        "dropout": 0.0,
        # Four times the 0.02 of width 768: with less, a small model stays at the unigram loss
        # for hundreds of updates.
        "init_std": 0.08,
    }
    # The corpus is thousands of short texts.
    config.data = {"separator": "end"}
    config.optimizer = {"learning_rate": 2e-3, "warmup": 0.1}
    config.eval = {"windows": 256}
    config.log = {"every": 10, "tensorboard": False}
    return config


def finetuning() -> ConfigDict:
    config = ConfigDict()
    config.epochs = 3
    config.batch_size = 16
    config.objective = {"lm_coef": 0.5}
    config.model = {"dropout": 0.1}
    # What the tasks' texts are cut to fit; 64 would cost twice as much.
    config.data = {"buckets": (32, 48)}
    # Only at the end: a best epoch chosen on dev would flatter the table.
    config.eval = {"every": 100_000}
    config.optimizer = {"learning_rate": 1e-3, "schedule": "warmup_linear", "warmup": 0.1}
    config.checkpoint = {"every": 100_000, "keep": 1}
    config.log = {"every": 10, "tensorboard": False}
    return config
