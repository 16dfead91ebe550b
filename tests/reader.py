"""A reader who types commands one after the other, with the package that is installed for them.

    PYTHONPATH=INSTALLED python tests/reader.py < commands.json > outcomes.json

Each command is a list of the words after `gpt1`, typed in the current folder; each outcome is
{"status", "output", "errors", "began", "seconds" of CPU}. One process types them all, so that JAX
starts once; what is made small here has no flag, because no reader has a use for it. The last
command is typed when a quickstart says what it would say of so little.
"""

import contextlib
import importlib
import io
import json
import sys
import time
import traceback
from pathlib import Path

# Attributes of modules, by which the quickstart ends in seconds: a few updates, few rows and seeds.
SMALL = {
    ("gpt1_jax.experiments.plan", "LEAST_UPDATES"): 4,
    ("gpt1_jax.experiments.plan", "LEAST_LABELS"): 40,
    ("gpt1_jax.experiments.quickstart", "VOCAB_SIZE"): 512,
    ("gpt1_jax.experiments.quickstart", "OTHER_STARTS"): 1e4,
    ("gpt1_jax.experiments.quickstart", "SPEED_STEPS"): 4,
    ("gpt1_jax.experiments.quickstart", "SEEDS"): (0, 1),
    ("gpt1_jax.experiments.quickstart", "DEV_EXAMPLES"): 40,
}


def make_small() -> dict:
    """Returns the attributes as they were."""
    before = {}
    for (module, name), value in SMALL.items():
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise AttributeError(f"{module} has no {name} any more: mend SMALL in {__file__}")
        before[module, name] = getattr(found, name)
        setattr(found, name, value)
    documentation = importlib.import_module("gpt1_jax.text.documentation")
    of_all = documentation.documents
    # What is always there, and enough for every task.
    documentation.documents = lambda *_, **settings: of_all(["scipy"], **settings)
    return before


def typed(words: list[str]) -> dict:
    """The outcome of `gpt1 WORDS`; a traceback is one of status 1."""
    from gpt1_jax.__main__ import main

    output, errors = io.StringIO(), io.StringIO()
    began, before = time.time(), time.process_time()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(words)
        except Exception:
            traceback.print_exc()
            status = 1
    used = {"began": began, "seconds": time.process_time() - before}
    said = {"output": output.getvalue(), "errors": errors.getvalue()}
    return {"status": status, **used, **said}


def strangers() -> list[str]:
    """Modules of the package that come from elsewhere than the installed one."""
    home = str(Path(sys.modules["gpt1_jax"].__file__).parent)
    found = {name: module for name, module in sys.modules.items() if name.startswith("gpt1_jax.")}
    return [
        name
        for name, module in found.items()
        if not (getattr(module, "__file__", None) or home).startswith(home)
    ]


if __name__ == "__main__":
    before = make_small()
    *commands, last = json.load(sys.stdin)
    outcomes = [typed(words) for words in commands]
    plans = importlib.import_module("gpt1_jax.experiments.plan")
    for (module, name), value in before.items():
        if module == plans.__name__:
            setattr(plans, name, value)
    json.dump([*outcomes, typed(last)], sys.stdout)
    if strangers():
        sys.exit(f"not of the installed package: {strangers()}")
