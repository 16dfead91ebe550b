"""Every config file builds, and says what the paper says."""

import re
from dataclasses import replace
from pathlib import Path

import jax
import pytest

from gpt1_jax.data.tasks import TASKS
from gpt1_jax.errors import UserError
from gpt1_jax.model.objective import network
from gpt1_jax.recipe import experiment

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
VARIANTS = {
    "pretrain.py": ("", "epochs100", "lstm", "small", "small,lstm", "tiny", "tiny,steps=1000"),
    "finetune.py": (
        "rte",
        "rte,lm_coef=0",
        "story_cloze,preset=released",
        "path=FOLDER,shape=classification,metric=accuracy",
        "path=FOLDER,shape=classification,metric=accuracy,labels=no,yes",
        "small,rte",
        "small_data,rte",
        "rte,small_data,lm_coef=0.5",
        "small_data,path=FOLDER,shape=classification,metric=accuracy",
        *TASKS,
    ),
    "quickstart.py": (
        "",
        "transformer",
        "lstm",
        "finetune",
        "steps=10",
        "lstm,steps=10",
        "finetune,epochs=2",
    ),
}
ALL = [(name, arguments) for name, variants in VARIANTS.items() for arguments in variants]


def load(spec):
    return experiment.load(f"configs/{spec}")[0]


def test_each_config_file_is_known_here():
    found = {path.name for path in CONFIGS.glob("*.py") if "def get_config" in path.read_text()}
    assert found == set(VARIANTS)


@pytest.mark.parametrize(("name", "arguments"), ALL)
def test_every_variant_builds(name, arguments):
    found = load(f"{name}:{arguments}")
    assert (found.steps is None) != (found.epochs is None)


def test_every_argument_that_a_config_documents_builds():
    documented = [
        spec.rstrip(".,")
        for name in VARIANTS
        for spec in re.findall(rf"{name}:[^\s\\]+", (CONFIGS / name).read_text())
    ]
    assert len(documented) >= 4
    for spec in documented:
        load(spec)


def test_pretraining_is_the_recipe_of_the_paper():
    found = load("pretrain.py")
    assert found.steps == 1_000_000
    assert found.batch_size == 64
    model, optimizer = found.model, found.optimizer
    assert (model.n_layer, model.n_embd, model.n_head, model.n_ctx) == (12, 768, 12, 512)
    assert model.vocab_size == 40478
    assert [model.rate(place) for place in ("embd", "attn", "resid")] == [0.1, 0.1, 0.1]
    assert model.init_std == 0.02
    assert optimizer.learning_rate == 2.5e-4
    assert optimizer.schedule == "warmup_cosine"
    assert optimizer.warmup * found.steps == 2000
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
    assert (optimizer.l2, optimizer.vector_l2, optimizer.max_grad_norm) == (0.01, False, 1.0)
    assert found.objective.lm_coef == 1.0
    assert not found.is_task


def test_the_other_length_of_pretraining_is_a_hundred_epochs():
    million, epochs = load("pretrain.py"), load("pretrain.py:epochs100")
    assert (epochs.steps, epochs.epochs) == (None, 100)
    assert epochs.model == million.model
    assert epochs.optimizer == replace(million.optimizer, warmup=2000)


def test_a_shorter_run_has_a_shorter_warm_up():
    found = load("pretrain.py:steps=20")
    found.optimizer.require_room(found.steps)


def test_the_lstm_of_the_paper_is_one_layer_of_2048_units_in_the_same_recipe():
    found, transformer = load("pretrain.py:lstm"), load("pretrain.py")
    assert (found.model.body, found.model.n_layer, found.model.n_units) == ("lstm", 1, 2048)
    assert (found.steps, found.batch_size) == (transformer.steps, transformer.batch_size)
    assert found.optimizer == transformer.optimizer


def test_the_small_bodies_have_as_many_parameters():
    def count(spec):
        shapes = jax.eval_shape(network(load(spec).model, "plain", None, 0).init, jax.random.key(0))
        blocks = {name: leaf for name, leaf in shapes.items() if name.startswith("h_")}
        return sum(leaf.size for leaf in jax.tree.leaves(blocks))

    transformer, lstm = count("pretrain.py:small"), count("pretrain.py:small,lstm")
    assert abs(lstm - transformer) < 0.06 * transformer


def test_the_page_about_pretraining_has_their_sizes():
    page = (CONFIGS.parent / "docs" / "pretraining.md").read_text()
    rows = re.findall(
        r"^\| `configs/(pretrain\.py\S*)` \| (\d+) layers, (\d+) wide, (\d+) tokens of context.*?"
        r" \| ([\d,]+) of (\d+) windows",
        page,
        re.MULTILINE,
    )
    assert [spec for spec, *_ in rows] == ["pretrain.py:tiny", "pretrain.py:small", "pretrain.py"]
    for spec, *numbers in rows:
        found = load(spec)
        model = found.model
        sizes = [model.n_layer, model.n_embd, model.n_ctx, found.steps, found.batch_size]
        assert [int(number.replace(",", "")) for number in numbers] == sizes, spec


def test_the_page_about_fine_tuning_has_their_settings():
    page = (CONFIGS.parent / "docs" / "fine_tuning.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z][^|]*) \| (.+) \|$", page, re.MULTILINE))
    for place, spec in enumerate(("rte", "small,rte", "small_data,rte")):
        found = load(f"finetune.py:{spec}")
        values = {
            "epochs": found.epochs,
            "batch": found.batch_size,
            "rate": found.optimizer.learning_rate,
            "warm-up, of all updates": found.optimizer.warmup,
            "weight of the language model loss": found.objective.lm_coef,
            "updates for 300 labels": 300 // found.batch_size * found.epochs,
        }
        for name, value in values.items():
            assert float(rows[name].split(" | ")[place]) == value, (spec, name)


def test_tiny_is_tiny():
    found = load("pretrain.py:tiny")
    assert found.steps <= 300
    assert 12 * found.model.n_layer * found.model.n_embd**2 < 1_000_000


def test_finetuning_is_the_recipe_of_the_paper():
    found = load("finetune.py:rte")
    assert (found.steps, found.epochs, found.batch_size) == (None, 3, 32)
    optimizer = found.optimizer
    assert optimizer.learning_rate == 6.25e-5
    assert (optimizer.schedule, optimizer.warmup) == ("warmup_linear", 0.002)
    assert found.objective.lm_coef == 0.5
    assert found.model.rate("clf") == 0.1
    assert found.n_transfer is None
    assert found.task.name == "rte"
    assert found.is_task


def test_finetuning_keeps_the_settings_of_pretraining_that_it_does_not_name():
    before, after = load("pretrain.py"), load("finetune.py:rte")
    named = {"learning_rate": 6.25e-5, "schedule": "warmup_linear", "warmup": 0.002}
    assert after.optimizer == replace(before.optimizer, **named)
    assert after.model == before.model


def test_small_data_makes_hundreds_of_updates_of_some_hundred_rows():
    def updates(found):
        return int(found.epochs) * (300 // found.batch_size)

    recipe, paper = load("finetune.py:small_data,rte"), load("finetune.py:rte")
    assert updates(paper) < 100 < 300 <= updates(recipe)
    assert recipe.optimizer.learning_rate > paper.optimizer.learning_rate
    # Neither rows nor texts are cut for it.
    assert recipe.task == paper.task
    assert recipe.data == paper.data


def test_a_recipe_is_one_of_several():
    with pytest.raises(UserError, match="choose one of small, small_data"):
        load("finetune.py:small,small_data,rte")
    with pytest.raises(UserError, match="did you mean 'small_data'"):
        load("finetune.py:small_dat,rte")


def test_the_released_experiment_is_that_of_its_train_py():
    found = load("finetune.py:story_cloze,preset=released")
    assert (found.task.name, found.epochs, found.batch_size, found.seed) == (
        "story_cloze",
        3,
        8 * 4,
        42,
    )
    assert int(found.epochs) * (1497 // found.batch_size) == 138
    model, optimizer = found.model, found.optimizer
    assert model.choice("embd_dropout_on") == "table"
    assert model.choice("softmax_rows") == "all"
    assert [model.rate(place) for place in ("embd", "attn", "resid", "clf")] == [0.1] * 4
    assert (optimizer.learning_rate, optimizer.schedule) == (6.25e-5, "warmup_linear")
    assert (optimizer.warmup, optimizer.l2, optimizer.vector_l2) == (0.002, 0.01, False)
    assert (optimizer.max_grad_norm, optimizer.accumulation) == (1.0, 1)
    assert found.objective.lm_coef == 0.5
    assert (found.eval.every, found.n_transfer) == (None, None)


def test_arguments_of_finetuning_have_short_names():
    found = load("finetune.py:path=/d,shape=similarity,metric=f1,labels=0,1,lm_coef=0,steps=5")
    assert (found.task.path, found.task.shape, found.task.metric) == ("/d", "similarity", "f1")
    assert [int(label) for label in found.task.labels] == [0, 1]
    assert found.objective.lm_coef == 0.0
    assert (found.steps, found.epochs) == (5, None)
