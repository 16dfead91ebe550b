"""Configs are read strictly: a typing error ends the run before it begins."""

import dataclasses
from typing import get_args

import pytest
from ml_collections import ConfigDict

from gpt1_jax import config_files
from gpt1_jax.data.metrics import METRICS
from gpt1_jax.data.tasks import FIELDS, Metric, Shape
from gpt1_jax.data.transformations import TRUNCATIONS
from gpt1_jax.errors import UserError
from gpt1_jax.model.config import DTYPES, PRESETS, Dtype, Preset
from gpt1_jax.recipe import config_values, experiment
from gpt1_jax.recipe.experiment import KEYS, OPERATIONAL, Experiment, identity, with_arguments
from gpt1_jax.recipe.optimizer import SCHEDULES, ScheduleName


def config_file(folder, body="config = ConfigDict({'steps': 10})"):
    path = folder / "mine.py"
    path.write_text(
        "from ml_collections import ConfigDict\n\n\n"
        f"def get_config(arguments=''):\n    {body}\n    return config\n"
    )
    return str(path)


def with_values(**values) -> Experiment:
    return experiment.experiment(
        {"steps": 10, **{k.replace("__", "."): v for k, v in values.items()}}
    )


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.n_layers", "model.n_layer"),
        ("optimizer.lr", None),
        ("learning_rate", "optimizer.learning_rate"),
        ("n_ctx", "model.n_ctx"),
        ("optimiser.warmup", "optimizer.warmup"),
        ("model", None),
        ("step", "steps"),
        ("batchsize", "batch_size"),
        ("xyzzy.plugh", None),
        ("", None),
    ],
)
def test_an_unknown_key_is_an_error_with_the_nearest_one(key, nearest):
    with pytest.raises(UserError) as raised:
        experiment.experiment({"steps": 1, key: 1})
    assert f"unknown config key {key!r}" in str(raised.value)
    if nearest:
        assert f"did you mean {nearest!r}?" in str(raised.value)


def test_an_unknown_key_in_a_file_and_on_the_command_line(tmp_path):
    path = config_file(tmp_path, "config = ConfigDict({'steps': 1, 'model': {'n_heads': 2}})")
    with pytest.raises(UserError, match=r"'model.n_heads'; did you mean 'model.n_head'"):
        experiment.load(path)
    with pytest.raises(UserError, match=r"'model.width'"):
        experiment.load(config_file(tmp_path), {"model.width": "3"})


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("steps", "7", 7),
        ("steps", "1e6", 1_000_000),
        ("steps", "1_000", 1000),
        ("optimizer.learning_rate", "3", 3.0),
        ("optimizer.learning_rate", "6.25e-5", 6.25e-5),
        ("model.scan_layers", "True", True),
        ("model.scan_layers", "False", False),
        ("log.tensorboard", "true", True),
        ("log.tensorboard", "false", False),
        ("log.tensorboard", "FALSE", False),
        ("model.preset", "released", "released"),
        ("model.softmax_rows", "None", None),
        ("data.separator", "none", "none"),
        ("optimizer.warmup", "2000", 2000.0),
        ("data.buckets", "(8,16)", (8, 16)),
        ("data.buckets", "8,16", (8, 16)),
        ("data.buckets", "[8, 16]", (8, 16)),
        ("data.buckets", "8", (8,)),
        ("task.labels", "no,yes", ("no", "yes")),
        ("task.labels", "None", None),
        ("task.labels", "True,False", ("True", "False")),
        ("eval.every", "None", None),
        ("eval.every", "none", None),
        ("eval.every", "12", 12),
        ("initial", "None", None),
        ("initial", "runs/1", "runs/1"),
        ("data.path", "2024", "2024"),
        ("model.attn_dropout", "0", 0.0),
        ("n_transfer", "-1", -1),
    ],
)
def test_text_becomes_a_value_of_the_type(tmp_path, key, text, value):
    found, _ = experiment.load(config_file(tmp_path), {key: text})
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("steps", "many", "int"),
        ("steps", "1.5", "int"),
        ("steps", "True", "int"),
        ("batch_size", "None", "int"),
        ("batch_size", "[8]", "int"),
        ("batch_size", "", "int"),
        ("optimizer.learning_rate", "fast", "float"),
        ("optimizer.learning_rate", "True", "float"),
        ("optimizer.learning_rate", "1,5", "float"),
        ("model.scan_layers", "1", "True or False"),
        ("model.scan_layers", "yes", "True or False"),
        ("data.buckets", "8,wide", "whole numbers"),
        ("data.buckets", "8,16.5", "whole numbers"),
        ("data.buckets", "True", "whole numbers"),
        ("model.dtype", 32, "one of float32, bfloat16, float16"),
        ("model.softmax_rows", "some", "one of tokens, all or None"),
        ("data.path", 3, "str or None"),
        ("eval.every", "often", "int or None"),
    ],
)
def test_a_value_of_another_type_is_an_error_that_names_key_value_and_type(key, value, expected):
    with pytest.raises(UserError) as raised:
        experiment.experiment({"steps": 1, key: value})
    message = str(raised.value)
    assert message.startswith(f"{key} is {value!r}; expected ")
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "word", "line"),
    [
        ("model.preset", "relesed", "one of paper, released; did you mean released?"),
        ("model.body", "LSTM2", "one of transformer, lstm"),
        ("model.dtype", "float23", "float32, bfloat16, float16; did you mean float32?"),
        ("model.embd_dropout_on", "tables", "activation, table or None; did you mean table?"),
        (
            "attention.implementation",
            "flash",
            "one of auto, plain, blocks, recompute, ",
        ),
        ("data.windows", "permutted", "one of permuted, iid; did you mean permuted?"),
        ("data.separator", "eos", "one of none, end"),
        ("data.driver", "tf.data", "one of auto, tfdata, thread; did you mean tfdata?"),
        ("task.shape", "clasification", "did you mean classification?"),
        ("task.metric", "acuracy", "did you mean accuracy?"),
        ("task.truncation", "longest", "did you mean longest_first?"),
        ("task.check_counts", "strictly", "one of warn, strict, off; did you mean strict?"),
        ("task.ambiguous_pronouns", "none", "one of skip, first"),
        ("task.score_loss", "l2", "one of soft6, mse"),
        ("optimizer.schedule", "warmup_cosin", "did you mean warmup_cosine?"),
    ],
)
def test_a_word_outside_a_closed_set_is_an_error_that_lists_it(key, word, line):
    with pytest.raises(UserError) as raised:
        experiment.experiment({"steps": 1, key: word})
    assert str(raised.value).startswith(f"{key} is {word!r}; expected one of ")
    assert line in str(raised.value)


def test_closed_sets_are_those_of_the_tables():
    pairs = ((Metric, METRICS), (Shape, FIELDS), (Shape, TRUNCATIONS), (ScheduleName, SCHEDULES))
    for words, table in (*pairs, (Preset, PRESETS), (Dtype, DTYPES)):
        assert set(get_args(words)) == set(table)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": -3}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"stop_after": 0}, "stop_after"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"n_transfer": -2}, "n_transfer"),
        ({"optimizer.accumulation": 0}, "accumulation"),
        ({"optimizer.accumulation": 3}, "batch_size 64"),
        ({"optimizer.warmup": 1.5}, "optimizer.warmup"),
        ({"model.n_head": 5}, "model.n_head"),
        ({"model.n_head": 0}, "model.n_head"),
        ({"model.n_layer": 0}, "model.n_layer"),
        ({"model.dropout": 1.0}, "dropout"),
        ({"model.clf_dropout": -0.1}, "dropout"),
        ({"data.prefetch": 0}, "data.prefetch"),
        ({"data.buckets": (0,)}, "data.buckets"),
        ({"eval.every": 0}, "eval.every"),
        ({"eval.stride": 0}, "eval.stride"),
        ({"log.every": 0}, "log.every"),
        ({"checkpoint.every": 0}, "checkpoint.every"),
        ({"checkpoint.keep": 0}, "checkpoint.keep"),
        ({"objective.lm_coef": -0.5}, "objective.lm_coef"),
        ({"epochs": 3.0}, "steps and epochs"),
        ({"steps": None}, "steps and epochs"),
    ],
)
def test_a_value_outside_its_range_is_an_error_that_names_the_key(values, named):
    with pytest.raises(UserError) as raised:
        experiment.experiment({"steps": 10, **values})
    assert named in str(raised.value)


def test_the_length_that_is_asked_for_replaces_the_other_one(tmp_path):
    in_steps = config_file(tmp_path)
    assert experiment.load(in_steps, {"epochs": "0.5"})[0].epochs == 0.5
    assert experiment.load(in_steps, {"epochs": "0.5"})[0].steps is None
    in_epochs = config_file(tmp_path, "config = ConfigDict({'epochs': 3})")
    assert experiment.load(in_epochs, {"steps": "5"})[0].steps == 5
    assert experiment.load(in_epochs, {"steps": "5", "epochs": "None"})[0].epochs is None
    with pytest.raises(UserError, match="one of steps and epochs"):
        experiment.load(in_epochs, {"steps": "5", "epochs": "2"})


def test_taking_one_length_away_leaves_the_other(tmp_path):
    assert experiment.load(config_file(tmp_path), {"epochs": "None"})[0].steps == 10


def test_explicit_keys_are_those_of_the_file_and_the_command_line(tmp_path):
    path = config_file(tmp_path, "config = ConfigDict({'steps': 3, 'model': {'n_layer': 2}})")
    found, explicit = experiment.load(path, {"optimizer.l2": "0"})
    assert explicit == {"steps", "model.n_layer", "optimizer.l2"}
    assert found.optimizer.l2 == 0.0
    assert found.model.n_layer == 2


def test_the_command_line_overrides_the_file(tmp_path):
    path = config_file(tmp_path, "config = ConfigDict({'steps': 3, 'model': {'n_layer': 2}})")
    assert experiment.load(path, {"model.n_layer": "4"})[0].model.n_layer == 4


def test_each_default_is_that_of_its_dataclass():
    found = with_values()
    for field in dataclasses.fields(Experiment):
        if dataclasses.is_dataclass(field.default_factory):
            assert getattr(found, field.name) == field.default_factory()


def test_the_operational_keys_exist():
    for name in OPERATIONAL:
        assert any(key == name or key.startswith(name + ".") for key in KEYS), name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 11),
        ("batch_size", 32),
        ("seed", 1),
        ("initial", "elsewhere"),
        ("n_transfer", 1),
        ("model.n_layer", 2),
        ("model.dropout", 0.0),
        ("model.dtype", "bfloat16"),
        ("model.init_std", 0.1),
        ("data.windows", "iid"),
        ("data.separator", "end"),
        ("data.buckets", (7,)),
        ("task.metric", "f1"),
        ("objective.lm_coef", 0.0),
        ("optimizer.learning_rate", 1.0),
        ("optimizer.accumulation", 2),
    ],
)
def test_what_a_run_is_belongs_to_its_identity(key, value):
    changed = experiment.experiment({"steps": 10, key: value})
    different = {k for k, v in identity(changed).items() if identity(with_values())[k] != v}
    assert different == {key}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mesh.data", 2),
        ("mesh.model", 2),
        ("checkpoint.every", 7),
        ("checkpoint.keep", 7),
        ("eval.every", 7),
        ("log.every", 7),
        ("log.tensorboard", False),
        ("data.driver", "thread"),
        ("data.prefetch", 7),
        ("data.path", "moved"),
        ("task.path", "moved"),
        ("attention.implementation", "cudnn"),
        ("stop_after", 7),
        ("model.remat", True),
        ("model.scan_layers", True),
    ],
)
def test_how_a_run_is_computed_does_not(key, value):
    changed = experiment.experiment({"steps": 10, key: value})
    assert changed != with_values()
    assert identity(changed) == identity(with_values())


WORDS = {"rte": "task.name", "cola": "task.name", "tiny": None}
SHORT = {"lm_coef": "objective.lm_coef", "labels": "task.labels"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("rte", {"task.name": "rte"}),
        ("rte,lm_coef=0", {"task.name": "rte", "objective.lm_coef": "0"}),
        ("labels=no,yes,maybe", {"task.labels": "no,yes,maybe"}),
        ("labels=no,yes,lm_coef=1", {"task.labels": "no,yes", "objective.lm_coef": "1"}),
        ("task.path=/a=b/c,d", {"task.path": "/a=b/c,d"}),
        ("model.n_layer=2,", {"model.n_layer": "2"}),
    ],
)
def test_arguments_of_a_config_file(text, expected):
    found = with_arguments(ConfigDict(), text, WORDS, SHORT)
    assert config_values.flatten(found.to_dict()) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("rtee", "did you mean 'rte'"),
        ("lm_coeff=0", "did you mean 'lm_coef'"),
        ("model.n_layers=2", "did you mean 'model.n_layer'"),
        ("tiny", "'tiny'"),
        ("=3", "'=3'"),
        ("zzzzzz", "expected rte, cola, tiny"),
    ],
)
def test_an_unknown_argument_is_an_error_with_the_nearest_one(text, named):
    with pytest.raises(UserError, match="unknown config argument") as raised:
        with_arguments(ConfigDict(), text, WORDS, SHORT)
    assert named in str(raised.value)


def test_arguments_replace_the_length_of_the_file_too():
    found = with_arguments(ConfigDict({"epochs": 3}), "steps=5", WORDS)
    assert config_values.flatten(found.to_dict()) == {"steps": "5"}


def test_a_config_file_is_found_here_first_and_then_in_the_installation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = config_files.find_config("configs/pretrain.py")
    assert installed.is_file()
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "pretrain.py").write_text("")
    assert config_files.find_config("configs/pretrain.py").resolve() != installed.resolve()


def test_a_missing_config_file_is_named_beside_those_there_are(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.py: no such file.*configs/finetune\.py"):
        experiment.load("nothing.py:tiny")
    with pytest.raises(UserError, match="no such file"):
        experiment.load(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("def get_config(arguments):\n    return {\n", "mine.py:2"),
        ("import nothing_of_this_name\n", "nothing_of_this_name"),
        ("config = {}\n", "get_config"),
        ("def get_config(arguments):\n    return undefined\n", "undefined"),
        ("def get_config(arguments):\n    return 3\n", "ConfigDict"),
        ("def get_config():\n    return {}\n", "argument"),
    ],
)
def test_a_mistake_in_a_config_file_is_said_in_one_line(tmp_path, content, named):
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        experiment.load(str(path))
    assert "mine.py" in str(raised.value)
    assert named in str(raised.value)
    assert "\n" not in str(raised.value)
