"""Where each array lives: a mesh and one table of rules.

Axis `data` divides the batch, axis `model` the width of the matrices. The table covers parameters
and the optimiser's moments alike, since their trees end in the same paths.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from gpt1_jax.errors import UserError


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis; `data` = -1 takes all that `model` leaves.

    With `fsdp` the matrices and their moments are divided over `data`, too, and each is whole on a
    device only while it is used: less memory, for more traffic between the devices.
    """

    data: int = -1
    model: int = 1
    fsdp: bool = False


# Each leaf of a training state meets exactly one row. Projections out of the residual stream are
# divided by columns and those back into it by rows: one sum over `model` per branch of a block.
RULES: tuple[tuple[str, P], ...] = (
    (r"(^|/)wte/embedding$", P(None, "model")),
    (r"(^|/)wpe/embedding$", P(None, "model")),
    (r"(^|/)attn/c_attn/kernel$", P(None, "model")),
    (r"(^|/)attn/c_attn/bias$", P("model")),
    (r"(^|/)attn/c_proj/kernel$", P("model", None)),
    (r"(^|/)attn/c_proj/bias$", P()),
    (r"(^|/)mlp/c_fc/kernel$", P(None, "model")),
    (r"(^|/)mlp/c_fc/bias$", P("model")),
    (r"(^|/)mlp/c_proj/kernel$", P("model", None)),
    (r"(^|/)mlp/c_proj/bias$", P()),
    (r"(^|/)ln_[12]/(scale|bias)$", P()),
    # The LSTM: its units are divided, so that the loop over tokens has one sum as well.
    (r"(^|/)input_kernel$", P(None, None, "model")),
    (r"(^|/)recurrent_kernel$", P(None, None, "model")),
    (r"(^|/)h_\d+/bias$", P()),
    (r"(^|/)h_\d+/proj/kernel$", P("model", None)),
    (r"(^|/)h_\d+/proj/bias$", P()),
    (r"(^|/)lm_head/kernel$", P(None, "model")),
    (r"(^|/)clf/(kernel|bias)$", P()),
    (r"(^|/)(count|step)$", P()),
)


def mesh(config: MeshConfig, devices: list[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices`, by default over all. UserError where the axes do not divide them."""
    devices = jax.devices() if devices is None else devices
    data = len(devices) // config.model if config.data == -1 and config.model > 0 else config.data
    if data < 1 or config.model < 1 or data * config.model > len(devices):
        raise UserError(
            f"mesh.data {config.data} x mesh.model {config.model} does not fit "
            f"{len(devices)} device(s); set mesh.data=-1 to use all of them"
        )
    used = data * config.model
    if config.data == -1 and used != len(devices):
        raise UserError(f"mesh.model {config.model} does not divide {len(devices)} device(s)")
    if jax.process_count() > 1 and used != len(devices):
        raise UserError(
            f"mesh.data {config.data} x mesh.model {config.model} leaves devices unused, which "
            f"several processes cannot do; set mesh.data=-1 to use all {len(devices)}"
        )
    grid = np.asarray(devices[:used]).reshape(data, config.model)
    return Mesh(grid, ("data", "model"))


def path_name(path: tuple) -> str:
    """A tree path as text: 'params/h_0/attn/c_attn/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spec(name: str) -> P:
    """The one rule that matches the path. LookupError where none or several do."""
    matches = [rule for pattern, rule in RULES if re.search(pattern, name)]
    if len(matches) != 1:
        raise LookupError(f"{len(matches)} sharding rules match {name!r}; expected one")
    return matches[0]


def state_shardings(mesh: Mesh, state: Any, fsdp: bool = False) -> Any:
    """A tree like `state` (arrays or shapes) that holds each leaf's NamedSharding."""

    def placed(path, leaf):
        rule = spec(path_name(path))
        return NamedSharding(mesh, fully_sharded(rule, leaf.shape, mesh) if fsdp else rule)

    return jax.tree_util.tree_map_with_path(placed, state)


def fully_sharded(rule: P, shape: tuple[int, ...], mesh: Mesh) -> P:
    """The rule of a leaf with `data` on top: along the first dimension that is whole and divides
    evenly, else along the one that `model` divides. Vectors, which are small, keep their rule, and
    so does what divides in neither way.

    >>> mesh = Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1), ("data", "model"))
    >>> tuple(fully_sharded(P(None, "model"), (768, 3072), mesh))
    ('data', 'model')
    """
    data, model = mesh.shape["data"], mesh.shape["model"]
    axes = [*rule, *[None] * (len(shape) - len(rule))]
    if len(shape) < 2:
        return rule
    for dimension, size in enumerate(shape):
        if axes[dimension] is None and size % data == 0:
            axes[dimension] = "data"
            return P(*axes)
    for dimension, size in enumerate(shape):
        if axes[dimension] == "model" and size % (data * model) == 0:
            axes[dimension] = ("model", "data")
            return P(*axes)
    return rule


def whole(mesh: Mesh, params: Any) -> Any:
    """Parameters that are divided over `data`, as the table alone has them, within a compiled
    function: gathered where they are used."""
    return jax.lax.with_sharding_constraint(params, state_shardings(mesh, params))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows of a batch are divided over `data`."""
    return NamedSharding(mesh, P("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


@dataclass(frozen=True)
class Divided:
    """How the kernels of the model run on the devices of a mesh: the `Divide` of attention.py. Rows
    lie along `data` and heads along `model`, where these divide them; else each device has all."""

    mesh: Mesh

    def __call__(
        self, function: Callable, inputs: tuple[str, ...], outputs: tuple[str, ...]
    ) -> Callable:
        def on_shares(*arrays):
            sizes = {}
            for letters, array in zip(inputs, arrays, strict=True):
                sizes |= dict(zip(letters, array.shape, strict=True))
            axes = {
                letter: axis
                for letter, axis in (("N", "data"), ("H", "model"))
                if letter in sizes and sizes[letter] % self.mesh.shape[axis] == 0
            }
            in_specs, out_specs = (
                tuple(P(*(axes.get(letter) for letter in letters)) for letters in names)
                for names in (inputs, outputs)
            )
            # Each device's share is computed from its own alone, so there is nothing to check.
            return jax.shard_map(
                function,
                mesh=self.mesh,
                in_specs=in_specs,
                out_specs=out_specs,
                check_vma=False,
            )(*arrays)

        return on_shares


def put_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """The global batch on the devices, from the rows that this process holds."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()
    }
