"""One training step of the paper's size on an accelerator and on the CPU, in float32 and bfloat16.

    JAX_PLATFORMS=cuda,cpu python benchmarks/one_step.py [BATCH]

Both draw the same dropout masks, so that loss and norm of the gradient must agree but for rounding.
Prints a line for each dtype, and ends with 1 if they do not. TINY, any value: a tiny model.
"""

import argparse
import json
import os
import sys

import jax

from gpt1_jax.data.batches import Windows
from gpt1_jax.machine.benchmark import RandomTokens
from gpt1_jax.machine.step import step
from gpt1_jax.recipe import experiment, sharding

# Of the loss, and of the norm of the gradient, which sums up every rounding of every layer.
TOLERANCES = {"float32": (1e-4, 2e-3), "bfloat16": (1e-2, 5e-2)}
TINY = {"model.n_layer": 1, "model.n_embd": 64, "model.n_head": 1, "model.n_ctx": 32}


def terms(dtype: str, batch_size: int, device: jax.Device) -> dict[str, float]:
    """Loss and norm of the gradient of the first step."""
    tiny = TINY if "TINY" in os.environ else {}
    given = {"steps": 10, "batch_size": batch_size, "model.dtype": dtype, "mesh.data": 1}
    given |= {"objective.lm_coef": 1.0, **tiny}
    with jax.default_device(device):
        made = step(experiment.experiment(given), [device])
        model = made.experiment.model
        tokens = RandomTokens(model.vocab_size, 4 * batch_size * model.n_ctx)
        batch = Windows(tokens, model.n_ctx, batch_size, 0, "permuted").batch(0)
        origin = made.origin
        state = origin.fresh(jax.random.key(0))
        _, found = made.update(state, sharding.put_batch(made.mesh, batch), 0)
        return {name: float(value) for name, value in found.items()}


def main(batch_size: int) -> int:
    here, there = jax.devices()[0], jax.devices("cpu")[0]
    wrong = 0
    for dtype, (of_loss, of_norm) in TOLERANCES.items():
        found = {device.platform: terms(dtype, batch_size, device) for device in (here, there)}
        first, second = found[here.platform], found[there.platform]
        off = {name: abs(first[name] / second[name] - 1) for name in ("loss", "grad_norm")}
        agrees = off["loss"] < of_loss and off["grad_norm"] < of_norm
        wrong += not agrees
        print(json.dumps({"dtype": dtype, **found, "off": off, "agrees": agrees}), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("batch", nargs="?", type=int, default=2)
    sys.exit(main(parser.parse_args().batch))
