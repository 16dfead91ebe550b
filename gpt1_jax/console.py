"""The console script `gpt1`: the same as `python -m gpt1_jax`, from its first import on."""

import runpy


def main() -> None:
    runpy.run_module("gpt1_jax", run_name="__main__", alter_sys=True)
