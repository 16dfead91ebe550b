"""Packages of releases that setup.py does not admit are named before anything else is said."""

import importlib

import pytest
import runs

from gpt1_jax.runtime import releases

UNFIT = {"jax": "0.99.0", "orbax-checkpoint": "0.1.0", "numpy": "1.26.4"}
FIT = {"jax": "0.10.99", "pyarrow": "99.0", "packaging": "24.1rc1"}


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Adds packages by their metadata, ahead of those that are there."""

    def add(versions: dict[str, str]) -> None:
        for name, version in versions.items():
            folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            folder.mkdir()
            described = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (folder / "METADATA").write_text(described)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
        releases.unfit.cache_clear()

    yield add
    monkeypatch.undo()
    releases.unfit.cache_clear()


@pytest.mark.parametrize("name", UNFIT)
def test_a_package_of_another_release_is_named(installed, tmp_path, name):
    installed({name: UNFIT[name]})
    said = runs.verb("sample", f"--workdir={tmp_path}", "--prompt=the").said
    assert said[0].startswith(f"{name} {UNFIT[name]} is installed, and this project was made for ")
    assert len(said) == 2  # and what was asked for


def test_packages_that_fit_are_not_spoken_of(installed, tmp_path):
    installed(FIT)
    assert len(runs.verb("sample", f"--workdir={tmp_path}", "--prompt=the").said) == 1
