"""The public names: few, documented, typed, and none imported before it is used."""

import inspect
import subprocess
import sys

import pytest

import gpt1_jax


def test_dir_shows_the_public_names_and_nothing_else():
    assert dir(gpt1_jax) == sorted([*gpt1_jax.__all__, "__version__"])
    assert set(gpt1_jax.__all__) >= {"GPT", "ModelConfig", "load", "train", "prepare", "report"}


@pytest.mark.parametrize("name", gpt1_jax.__all__)
def test_each_name_is_there_and_documented(name):
    found = getattr(gpt1_jax, name)
    assert inspect.getdoc(found)
    if inspect.isfunction(found):
        parameters = inspect.signature(found).parameters
        hints = found.__annotations__
        assert {*parameters, "return"} == hints.keys()
        assert all(part in found.__doc__ for part in ("Args:", "Raises:"))
        assert all(f"{word}:" in found.__doc__ for word in parameters)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        gpt1_jax.lod  # noqa: B018


def test_importing_the_package_imports_nothing_else():
    script = (
        "import sys; before = set(sys.modules); import gpt1_jax; dir(gpt1_jax)\n"
        "heavy = {'jax', 'numpy', 'flax', 'pydantic', 'tensorflow'} & set(sys.modules)\n"
        "ours = [n for n in set(sys.modules) - before if n.startswith('gpt1_jax.')]\n"
        "print(sorted(heavy), ours)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[] []"


def test_settings_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(gpt1_jax.UserError, match="did you mean 'vocab_size'"):
        gpt1_jax.prepare(tmp_path / "tokens", "*.txt", vocabsize=300)
    with pytest.raises(gpt1_jax.UserError, match="did you mean 'steps'"):
        gpt1_jax.train("configs/pretrain.py:tiny", tmp_path / "run", {"step": 3})
