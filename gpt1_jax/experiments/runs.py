"""One run among many: the result of a config, trained now or before."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gpt1_jax.experiments.config import Scale
from gpt1_jax.messages import say
from gpt1_jax.recipe import experiment
from gpt1_jax.results.paper import Variant
from gpt1_jax.run_files import read_result
from gpt1_jax.training.state import NoCheckpoint
from gpt1_jax.training.train import train

BODIES = ("transformer", "lstm")


def body_of(variant: Variant) -> str:
    """Which pre-trained body a row of table 5 starts from."""
    return "lstm" if variant.pretraining.endswith(":lstm") else "transformer"


@dataclass(frozen=True)
class Run:
    """A config string with dotted settings on top, and the folder of its run."""

    spec: str
    settings: Mapping[str, str]
    workdir: Path

    def result(self, quiet: bool = True) -> dict:
        """Its result.json. A run that is finished is not done again, also where its checkpoints
        were deleted since; one that was stopped goes on."""
        described, explicit = experiment.load(self.spec, self.settings)
        try:
            return train(described, explicit, self.workdir, quiet=quiet)
        except NoCheckpoint as error:
            finished = read_result(self.workdir)
            if finished is None or finished["step"] < error.last_step:
                raise
            say(f"{self.workdir} has no checkpoint any more; it is finished, and its result stands")
            return finished


def config_string(scale: Scale, file: str, *words: str) -> str:
    """A config of configs/ with its arguments, as in `configs/finetune.py:small,rte,lm_coef=0`."""
    arguments = ",".join(filter(None, ["small" if scale == "small" else "", *words]))
    return f"configs/{file}.py" + (f":{arguments}" if arguments else "")
