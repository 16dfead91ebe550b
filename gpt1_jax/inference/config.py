"""How the paths of a look inside are sampled."""

from dataclasses import dataclass
from typing import Annotated

from gpt1_jax.evaluation.sample_config import SampleConfig
from gpt1_jax.flags import Flag

PATH_LENGTH = 12


@dataclass(frozen=True)
class PathsConfig(SampleConfig):
    """The same for the paths of a look inside, of which there are more and shorter ones."""

    length: Annotated[
        int | None, Flag(f"new tokens of a path; default: {PATH_LENGTH}, or what fits")
    ] = None
    num_samples: Annotated[int, Flag("sampling paths")] = 8
