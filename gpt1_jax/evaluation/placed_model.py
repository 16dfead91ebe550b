"""A model ready to be measured: what every measure is taken of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import Network


@dataclass(frozen=True)
class PlacedModel:
    """A network with its parameters on the devices, and how a batch gets there.

    params: the tree of model/objective.py. put: an array [N, ...] that every process has in full
    onto the devices, divided by rows where several share them. batch_size: rows that go through at
    a time.
    """

    network: Network
    params: dict
    put: Callable[[np.ndarray], jax.Array] = jax.device_put
    batch_size: int = 64

    @property
    def config(self) -> ModelConfig:
        return self.network.body.config

    def put_batch(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
        """Each array of a batch on the devices."""
        return {name: self.put(array) for name, array in batch.items()}
