"""Signals while TensorFlow Datasets downloads, which swallows whatever is raised in it."""

import os
import signal
import time

import faults
import pytest
import runs

# A builder in its place: its download goes on after every exception, KeyboardInterrupt too.
STUBBORN = """
import sys, time, types
sys.modules["tensorflow_datasets"] = types.ModuleType("tensorflow_datasets")
import gpt1_jax.text.tfds_records as records

class Builder:
    def download_and_prepare(self):
        open({here!r}, "w").close()
        for _ in range(600):
            try:
                time.sleep(0.1)
            except BaseException:
                pass

records.available_builder = lambda *_: Builder()
"""


@pytest.mark.parametrize(
    ("verb", "number"), [("prepare", signal.SIGINT), ("train", signal.SIGTERM)]
)
def test_a_download_that_swallows_signals_is_stopped(verb, number, pretrained, tmp_path):
    made = tmp_path / "made"
    words = ["prepare", "--tfds=tiny_shakespeare", f"--output={made}", "--workers=1"]
    if verb == "train":
        words = ["train", "--config=configs/finetune.py:rte", f"--workdir={made}"]
        words.append(f"--initial={pretrained}")
    here = tmp_path / "here"
    settings = STUBBORN.format(here=str(here))
    with faults.start(words, settings=settings, start_new_session=True) as process:
        while not here.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        began = time.monotonic()
        os.kill(process.pid, number)
        output, errors = process.communicate(timeout=60)
    # Two seconds are promised, where the processors have time for it.
    assert time.monotonic() - began < 5
    outcome = faults.Outcome(process.returncode, output, errors)
    outcome.refused(f"stopped by {signal.Signals(number).name}", status=128 + number)
    assert output == ""
    assert not made.exists() or runs.snapshot(made).keys() <= {"unfinished/arguments.json"}
