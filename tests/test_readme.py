"""The commands of the README parse, and its configs build."""

import re
import shlex
from pathlib import Path

import pytest

from gpt1_jax.__main__ import VERBS, Train, requested
from gpt1_jax.recipe import experiment

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    shlex.split(part)[1:]
    for block in BLOCKS
    for line in block.splitlines()
    for part in line.split("&&")
    if part.split() and part.split()[0].endswith("gpt1")
]


def test_the_first_two_blocks_install_run_and_test_in_one_line_each():
    quickstart, test = BLOCKS[:2]
    assert quickstart.count("\n") == test.count("\n") == 1
    assert quickstart.rstrip().endswith("gpt1 quickstart")
    assert test.rstrip().endswith("pytest")
    assert "[test]" in test


def test_ci_finds_the_test_command():
    pattern = re.search(r"grep -m1 -E '([^']+)'", (ROOT / ".ci" / "run").read_text()).group(1)
    assert re.search(pattern, README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_parse(command):
    verb = requested(command)
    if isinstance(verb, Train):
        experiment.load(verb.config, verb.keys)


def test_every_verb_of_the_readme_is_there_and_the_other_way_round():
    assert {command[0] for command in COMMANDS} == set(VERBS)


def test_every_key_of_the_table_of_settings_exists():
    table = README.split("## Settings")[1].split("##")[0]
    rows = [line.split("|")[1:4] for line in table.splitlines() if line.startswith("| `")]
    for sections, _, keys in rows:
        for section in re.findall(r"`(\w+)`", sections):
            found = {key for key in experiment.KEYS if key.startswith(f"{section}.")}
            assert found
            if len(re.findall("`", sections)) == 2:
                assert {f"{section}.{key}" for key in re.findall(r"`(\w+)`", keys)} <= found


def test_files_that_the_readme_names_are_there():
    for name in re.findall(r"`((?:\w+/)*\w+\.py)", README):
        assert (ROOT / name).exists() or (ROOT / "gpt1_jax" / name).exists(), name
