"""Text that a model writes now and then while it is trained, for whoever watches."""

from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental import multihost_utils

from gpt1_jax.data.task_loading import LoadedTask
from gpt1_jax.errors import UserError
from gpt1_jax.evaluation import sample
from gpt1_jax.evaluation.placed_model import PlacedModel
from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.recipe.network import network
from gpt1_jax.recipe.sharding import MeshConfig
from gpt1_jax.tokenization.tokenizer import Tokenizer

# The same draws each time, and nearer to the likeliest words than the distribution is.
SETTINGS = SampleConfig(temperature=0.7, top_k=40)


@dataclass(frozen=True)
class TextSamples:
    """What continues `prompt`. The network is for one device, the first of process 0: a single
    sequence cannot be divided."""

    prompt: str
    tokenizer: Tokenizer
    network: Network

    def text(self, params: Any) -> str | None:
        """The prompt and its continuation, on process 0. To be called by every process: each may
        hold a part of the parameters."""
        if len(jax.tree.leaves(params)[0].sharding.device_set) > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        if jax.process_index() != 0:
            return None
        ids_1T = sample.generate(
            PlacedModel(self.network, params),
            self.tokenizer.encode(self.prompt),
            SETTINGS,
            self.tokenizer.vocab_size,
            sample.stop_ids(SETTINGS.stop, self.tokenizer),
        )
        ids = [index for index in ids_1T[0].tolist() if index >= 0]
        return self.prompt + sample.continuation(self.tokenizer, self.prompt, ids)


def text_samples(
    experiment: Experiment, tokenizer: Tokenizer, loaded: LoadedTask
) -> TextSamples | None:
    """As `log.sample` asks for them. UserError for a prompt that the model cannot continue."""
    prompt = experiment.log.sample
    if prompt is None:
        return None
    length, n_ctx = len(tokenizer.encode(prompt)), experiment.model.n_ctx
    if not 0 < length < n_ctx:
        raise UserError(
            f"log.sample has {length} tokens; expected at least 1, and less than the context of "
            f"{n_ctx}"
        )
    alone = sharding.mesh(MeshConfig(), jax.local_devices()[:1])
    net, _ = network(experiment, loaded.task.shape, loaded.n_outputs, alone)
    return TextSamples(prompt, tokenizer, net)
