"""The mesh and the table: where arrays live must not change what is computed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec as P

from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.model.objective import network as any_network
from gpt1_jax.recipe import sharding
from gpt1_jax.recipe.optimizer import OptimizerConfig, optimizer, span
from gpt1_jax.recipe.sharding import MeshConfig
from gpt1_jax.training import state

pytestmark = pytest.mark.skipif(
    jax.default_backend() != "cpu", reason="the eight fake devices are of the CPU"
)


def training_state(config):
    """The shapes of everything a fine-tuning run holds."""
    network = any_network(config, "plain", "classification", 3)

    def init(key):
        params = network.init(key)
        chain = optimizer(OptimizerConfig(), span(OptimizerConfig(), 10))
        return {"params": params, "optimizer": chain.init(params), "step": jnp.int32(0)}

    return jax.eval_shape(init, jax.random.key(0))


def leaves(tree):
    return {
        sharding.path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def test_each_leaf_meets_one_rule_and_each_rule_a_leaf():
    met = set()
    lstm = ModelConfig(body="lstm", n_layer=1, tied_output=False)
    for config in (ModelConfig(), lstm):
        for name in leaves(training_state(config)):
            matches = [pattern for pattern, _ in sharding.RULES if re.search(pattern, name)]
            assert len(matches) == 1, name
            met.update(matches)
    assert met == {pattern for pattern, _ in sharding.RULES}


def test_moments_live_where_their_parameters_do():
    state = training_state(ModelConfig())
    specs = {
        name: placed.spec
        for name, placed in leaves(sharding.state_shardings(mesh_of(4, 2), state)).items()
    }
    parameters = {name: spec for name, spec in specs.items() if name.startswith("params/")}
    assert len(specs) == 3 * len(parameters) + 2
    for name, spec in parameters.items():
        ending = "/" + name.removeprefix("params/")
        assert [other for path, other in specs.items() if path.endswith(ending)] == [spec] * 3, name


@pytest.mark.parametrize("model", [2, 4, 8])
def test_the_papers_arrays_divide_evenly(model):
    state = training_state(ModelConfig(n_special=3))
    shardings = leaves(sharding.state_shardings(mesh_of(8 // model, model), state))
    held = 0
    for name, leaf in leaves(state).items():
        held += int(np.prod(shardings[name].shard_shape(leaf.shape)))
    total = sum(leaf.size for leaf in jax.tree.leaves(state))
    # All but norms, some biases and the head is divided.
    assert held == pytest.approx(total / model, rel=0.01)


@pytest.mark.parametrize(("data", "model"), [(8, 1), (4, 2), (1, 8)])
def test_a_fully_sharded_state_is_a_share_on_each_device(data, model):
    """Of matrices, a part for each of `data`; vectors, which are small, as the table has them."""
    state = training_state(ModelConfig(n_special=3))
    placed = leaves(sharding.state_shardings(mesh_of(data, model), state, fsdp=True))
    table = leaves(sharding.state_shardings(mesh_of(data, model), state))
    for name, leaf in leaves(state).items():
        share, before = (
            int(np.prod(where[name].shard_shape(leaf.shape))) for where in (placed, table)
        )
        assert share == (before // data if leaf.ndim > 1 else before), name


@pytest.mark.parametrize("name", ["params/h_0/attn/c_attn/kernels", "params/lstm/kernel", "clf"])
def test_an_unknown_leaf_is_loud(name):
    with pytest.raises(LookupError, match="0 sharding rules match"):
        sharding.spec(name)


def test_two_rules_for_a_leaf_are_loud(monkeypatch):
    monkeypatch.setattr(sharding, "RULES", (*sharding.RULES, (r"kernel$", P())))
    with pytest.raises(LookupError, match="2 sharding rules match"):
        sharding.spec("params/clf/kernel")


def mesh_of(data, model):
    return sharding.mesh(MeshConfig(data=data, model=model))


@pytest.mark.parametrize(
    ("data", "model", "shape"),
    [(-1, 1, (8, 1)), (-1, 2, (4, 2)), (4, 2, (4, 2)), (1, 1, (1, 1)), (2, 3, (2, 3))],
)
def test_the_mesh_takes_what_it_is_given(data, model, shape):
    made = mesh_of(data, model)
    assert made.axis_names == ("data", "model")
    assert made.devices.shape == shape
    assert len(set(made.devices.flat)) == np.prod(shape)


@pytest.mark.parametrize(
    ("data", "model"),
    [(9, 1), (4, 3), (0, 1), (-2, 1), (1, 0), (-1, 0), (-1, -1), (2, -1), (-1, 3), (-1, 16)],
)
def test_a_mesh_that_does_not_fit_is_the_users_mistake(data, model):
    with pytest.raises(UserError, match=r"^mesh\.[^\n]*8 device\(s\)[^\n]*$"):
        mesh_of(data, model)


@pytest.fixture(scope="module")
def problem():
    """Similarity with the auxiliary loss, dropout on: the loss and gradients of one device."""
    network = tiny.network(n_outputs=2)
    compute = tiny.loss_and_gradients(network)
    params = tiny.params(network)
    batch = tiny.batch(n_examples=8, n_candidates=2, label=[0, 1, 1, 0, 1, 0, 1, 1])
    return compute, params, batch, compute(params, batch, 5)


@pytest.mark.parametrize(
    ("data", "model"),
    [
        pytest.param(8, 1, marks=pytest.mark.exhaustive),
        (4, 2),
        pytest.param(1, 4, marks=pytest.mark.exhaustive),
    ],
)
def test_many_devices_compute_what_one_does(problem, data, model):
    compute, params, batch, expected = problem
    mesh = mesh_of(data, model)
    params = jax.device_put(params, sharding.state_shardings(mesh, params))
    kernel = params["h_0"]["attn"]["c_attn"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (16, 48 // model)
    batch = sharding.put_batch(mesh, batch)
    assert batch["tokens"].addressable_shards[0].data.shape == (8 // data, 2, 8)
    loss, gradients = compute(params, batch, 5)
    assert len(loss.sharding.device_set) == data * model
    tiny.assert_trees_close((loss, gradients), expected)


def test_a_batch_keeps_its_order():
    batch = {"rows": np.arange(16, dtype=np.uint32)}
    placed = sharding.put_batch(mesh_of(8, 1), batch)["rows"]
    np.testing.assert_array_equal(placed, batch["rows"])
    for number, shard in enumerate(placed.addressable_shards):
        np.testing.assert_array_equal(shard.data, [2 * number, 2 * number + 1])


def test_on_one_gpu_the_first_state_is_drawn_by_a_kernel_that_is_there_already():
    def lowered(key):
        drawn = jax.jit(lambda key: jax.random.normal(key, (8,)))
        return drawn.trace(key).lower(lowering_platforms=("cuda",)).as_text()

    key = jax.random.key(0)
    assert "cu_threefry2x32" in state.with_ready_bits(lowered)(key)
    assert "cu_threefry2x32" not in lowered(key)
