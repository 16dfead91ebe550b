"""The network of an experiment, with the attention that suits the devices of its mesh."""

from jax.sharding import Mesh

from gpt1_jax.model import attention_choice, objective
from gpt1_jax.model.attention import undivided
from gpt1_jax.model.attention_choice import Choice
from gpt1_jax.model.objective import Network
from gpt1_jax.recipe.experiment import Experiment
from gpt1_jax.recipe.sharding import Divided


def network(
    experiment: Experiment, shape: str | None, n_outputs: int, mesh: Mesh
) -> tuple[Network, Choice]:
    """The body with, for a task's input shape, its head; and which attention it runs. Raises
    UserError where `attention.implementation` names one that these devices lack."""
    device = attention_choice.device_of(mesh.devices.flat[0])
    choice = attention_choice.choose(
        experiment.attention.implementation, device, experiment.model, mesh.shape["model"]
    )
    divide = undivided if mesh.size == 1 else Divided(mesh)
    made = objective.network(experiment.model, choice.implementation, shape, n_outputs, divide)
    return made, choice
