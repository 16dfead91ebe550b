"""A key that nothing in a run reads is said, with the kind of run that would."""

import pytest
from test_configs import ALL, load

from gpt1_jax.__main__ import main
from gpt1_jax.recipe import experiment
from gpt1_jax.recipe.unread import READERS, unread

TASK = "finetune.py:path=rows,shape=classification,metric=accuracy"


def said(capsys, tmp_path, spec, *keys) -> str:
    """By `train`, which then finds no data."""
    words = ["train", f"--config=configs/{spec}", f"--workdir={tmp_path / 'run'}"]
    assert main([*words, *(f"--config.{key}" for key in keys)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "key", "reader"),
    [
        ("pretrain.py:tiny", "n_transfer=3", "--initial"),
        ("pretrain.py:tiny", "model.n_units=64", "model.body=lstm"),
        ("pretrain.py:tiny,lstm", "model.attn_dropout=0.3", "model.body=transformer"),
        ("pretrain.py:tiny", "eval.train_examples=50", "fine-tuning"),
        ("pretrain.py:tiny", "probes.examples=7", "probes.per_decade"),
        (TASK, "eval.windows=9", "pre-training"),
        (TASK, "task.data_dir=elsewhere", "without task.path"),
    ],
)
def test_training_says_which_key_it_does_not_read_and_what_would(
    capsys, tmp_path, spec, key, reader
):
    line = said(capsys, tmp_path, spec, key).splitlines()[0]
    assert f"--config.{key}" in line
    assert reader in line


def test_what_is_read_or_as_it_is_anyway_is_not_spoken_of(capsys, tmp_path):
    read = said(capsys, tmp_path, "pretrain.py:tiny,lstm", "model.n_units=64", "n_transfer=None")
    assert "nothing in this run reads" not in read
    assert "nothing in this run reads" not in said(capsys, tmp_path, TASK, "data.buckets=16,32")


def test_rows_name_keys_that_exist_and_the_projects_configs_set_none_in_vain():
    for keys, _, _ in READERS:
        for key in keys:
            start = key.removesuffix("*")
            assert any(known.startswith(start) for known in experiment.KEYS), key
    for name, arguments in ALL:
        if arguments.startswith("finetune"):
            continue  # the quickstart adds its task
        _, given = experiment.load(f"configs/{name}:{arguments}")
        # An LSTM takes the sizes of the Transformer that it stands beside, its heads too.
        found = unread(load(f"{name}:{arguments}"), given - {"model.n_head"})
        assert not found, (name, arguments)
