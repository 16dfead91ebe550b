"""A reader who types commands one after the other, with the package that is installed for them.

    PYTHONPATH=INSTALLED python tests/reader.py < commands.json > outcomes.json

Each command is a list of the words after `gpt1`, typed in the current folder; each outcome is
{"status", "output", "errors", "seconds" of CPU}. One process types them all, so that JAX starts
once; what is made small here has no flag, because no reader has a use for it.
"""

import contextlib
import importlib
import io
import json
import sys
import time
import traceback
from pathlib import Path

# Attributes of modules, by which the quickstart ends in seconds: one seed, a few updates, few rows.
SMALL = {
    ("gpt1_jax.experiments.plan", "LEAST_UPDATES"): 4,
    ("gpt1_jax.experiments.plan", "LEAST_LABELS"): 40,
    ("gpt1_jax.experiments.quickstart", "OTHER_STARTS"): 1e3,
    ("gpt1_jax.experiments.quickstart", "SPEED_STEPS"): 4,
    ("gpt1_jax.experiments.quickstart", "SEEDS"): (0,),
    ("gpt1_jax.experiments.quickstart", "DEV_EXAMPLES"): 40,
}


def make_small() -> None:
    for (module, name), value in SMALL.items():
        found = importlib.import_module(module)
        if not hasattr(found, name):
            raise AttributeError(f"{module} has no {name} any more: mend SMALL in {__file__}")
        setattr(found, name, value)
    documentation = importlib.import_module("gpt1_jax.text.documentation")
    of_all = documentation.documents
    # What is always there: Python itself and numpy.
    documentation.documents = lambda *_, **settings: of_all(["python", "numpy"], **settings)


def typed(words: list[str]) -> dict:
    """The outcome of `gpt1 WORDS`; a traceback is one of status 1."""
    from gpt1_jax.__main__ import main

    output, errors, began = io.StringIO(), io.StringIO(), time.process_time()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(words)
        except Exception:
            traceback.print_exc()
            status = 1
    seconds = time.process_time() - began
    said = {"output": output.getvalue(), "errors": errors.getvalue()}
    return {"status": status, "seconds": seconds, **said}


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
    make_small()
    json.dump([typed(words) for words in json.load(sys.stdin)], sys.stdout)
    if strangers():
        sys.exit(f"not of the installed package: {strangers()}")
