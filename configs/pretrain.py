"""Pre-training of GPT-1 (Radford et al. 2018, section 4.1): 12 layers, 64 windows of 512 tokens.

    gpt1 prepare --output=TOKENS --input='books/*.txt' --tokenizer=sentencepiece
    gpt1 train --config=configs/pretrain.py --workdir=RUN --config.data.path=TOKENS

Arguments choose a variant:
    (none)      1,000,000 updates, the length that the BERT paper reports and the figures fit
    epochs100   100 epochs, the length that the paper itself states, with the same warm-up
    lstm        the paper's ablation: one LSTM layer of 2048 units in place of the Transformer
    small       what `reproduce --scale=small` pre-trains: hours on two cores rather than weeks on
                eight GPUs; small,lstm has an LSTM with as many parameters
    tiny        2 layers of width 128, 300 updates: minutes on a laptop
and key=value sets a config key, as in pretrain.py:tiny,steps=1000.

Everything not named here is a default of the model and the optimiser, and those are the paper's.
"""

from ml_collections import ConfigDict

from gpt1_jax.errors import UserError
from gpt1_jax.recipe.experiment import with_arguments

VARIANTS = ("epochs100", "lstm", "small", "tiny")


def get_config(arguments: str = "") -> ConfigDict:
    parts = arguments.split(",")
    variants = {part for part in parts if part in VARIANTS}
    rest = ",".join(part for part in parts if part not in VARIANTS)
    if len(variants - {"lstm"}) > 1:
        raise UserError(f"config argument {arguments!r}; choose one of {', '.join(VARIANTS)}")
    config = ConfigDict({"steps": 1_000_000, "objective": {"lm_coef": 1.0}, "model": {}})
    # The paper's 2,000 updates of warm-up are the default's 0.002 of a million; a shorter run, by
    # steps=N, has a shorter warm-up too.
    if "epochs100" in variants:
        del config.steps
        config.epochs = 100
        config.optimizer = {"warmup": 2000}
    if "tiny" in variants:
        tiny(config)
    if "small" in variants:
        small(config)
    if "lstm" in variants:
        config.model.update({"body": "lstm", "n_layer": 1})
        if "small" in variants:
            config.model.n_units = 576
            config.optimizer.learning_rate = 1.6e-2  # by held-out loss, as the Transformer's 2e-3
    return with_arguments(config, rest, words=dict.fromkeys(VARIANTS))


def tiny(config: ConfigDict) -> None:
    config.steps = 300
    config.batch_size = 16
    config.model = {"n_layer": 2, "n_embd": 128, "n_head": 4, "n_ctx": 64}
    # Width 128 wants a larger start than the 0.02 of width 768 to leave the unigram loss soon.
    config.model.init_std = 0.08
    config.optimizer = {"learning_rate": 2e-3, "warmup": 0.1}
    config.eval = {"every": 100, "windows": 256}
    config.checkpoint = {"every": 100}
    config.log = {"sample": "It was a"}


def small(config: ConfigDict) -> None:
    config.steps = 8800
    config.batch_size = 16
    config.model = {"n_layer": 4, "n_embd": 192, "n_head": 3, "n_ctx": 128, "init_std": 0.06}
    # Where a processor has products in bfloat16, one core does half as much again in a second.
    config.model.dtype = "bfloat16"
    # One epoch of eighty novels: there is nothing to overfit.
    config.model.dropout = 0.0
    config.optimizer = {"learning_rate": 2e-3, "warmup": 0.1}
    config.eval = {"every": 2200, "windows": 512}
    config.checkpoint = {"every": 550, "per_decade": 4}
