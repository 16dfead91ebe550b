#!/usr/bin/env python3
r"""The life of a Cloud TPU slice: asked for, installed, fed, trained on, watched, given back.

    python3 scripts/cloud_tpu.py STEP --zone=ZONE --accelerator=TYPE --bucket=gs://NAME [--FLAG ...]

STEP is one of

    create    the bucket if it is not there, and a queued resource of spot machines
    install   this revision, with Python, on every host of the slice
    prepare   the bucket's texts to tokens in the bucket, on the first host
    train     on all hosts at once; a slice that is taken away is asked for again, and the same
              command goes on from the last checkpoint in the bucket
    watch     the state of the slice, and the newest figures of the run
    delete    gives the slice back, which ends its bill; the bucket stays
    life      all of these, in this order

`--dry_run` prints the commands and runs none, as if the slice were taken away once; what it needs
besides Python is `gcloud`, with a project and an account that are set. Exit status: 0 done, 2 a
mistake, 75 given up for now (the same command goes on), else that of the command that failed.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# What a host starts with, by generation, as Google's documentation of Cloud TPU has it.
RUNTIMES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
STEPS = ("create", "install", "prepare", "train", "watch", "delete")
GONE = ("NONE", "FAILED", "SUSPENDED")
# Of a training that the same command continues: stopped by a signal, and what a host leaves behind
# that was taken away (ssh says 255) or whose peer was (an abort, a kill).
CONTINUES = (75, 255, 134, 137, 143)


class GivenUp(Exception):
    """Ends the script: the status, and a line."""


class Cloud:
    """Runs commands."""

    def run(self, *words: str) -> int:
        """The exit status of a command whose output is the user's."""
        return subprocess.run(words, check=False).returncode

    def ask(self, *words: str) -> str:
        """What a command says, "" if it fails."""
        done = subprocess.run(words, check=False, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)


class Rehearsal(Cloud):
    """Prints commands. The slice comes when it is asked for, and is taken away in the middle of the
    first training."""

    def __init__(self) -> None:
        self._state, self._trained = "", 0

    def run(self, *words: str) -> int:
        print(shlex.join(words), flush=True)
        if "create" in words and "queued-resources" in words:
            self._state = "ACTIVE"
        if "delete" in words:
            self._state = ""
        if any("gpt1 train" in word for word in words):
            self._trained += 1
            if self._trained == 1:
                self._state = "SUSPENDED"
                return 255
        return 0

    def ask(self, *words: str) -> str:
        print(shlex.join(words), flush=True)
        return self._state if "queued-resources" in words else ""

    def wait(self, seconds: float) -> None:
        pass


class Slice:
    """A slice, what is done with it, and the bucket that outlives it."""

    def __init__(self, flags: argparse.Namespace, cloud: Cloud):
        self.flags, self.cloud = flags, cloud
        self.run_folder = f"{flags.bucket}/runs/{flags.name}"

    # Each step leaves alone what is there already, so that it can be given again.

    def create(self) -> None:
        bucket = self.flags.bucket
        if not self.cloud.ask("gcloud", "storage", "buckets", "describe", bucket):
            where = f"--location={self.flags.zone.rpartition('-')[0]}"
            self._must("gcloud", "storage", "buckets", "create", bucket, where)
        self._ready()

    def install(self) -> None:
        archive = f"/tmp/{self.flags.name}.tar.gz"
        self._must(
            "git", "-C", str(ROOT), "archive", "--format=tar.gz", f"--output={archive}", "HEAD"
        )
        target = f"{self.flags.name}:gpt1.tar.gz"
        self._must(*self._tpu("tpu-vm", "scp", archive, target), "--worker=all")
        # The hosts' own Python is older than 3.11.
        self._everywhere(
            "mkdir -p gpt1 && tar -xzf gpt1.tar.gz -C gpt1 && cd gpt1 && "
            "python3 -m pip install --quiet --user uv && "
            "python3 -m uv venv --quiet --allow-existing --python=3.11 .venv && "
            "python3 -m uv pip install --quiet --python=.venv -c requirements.txt '.[tpu,gcs]'"
        )

    def prepare(self) -> None:
        bucket, books = self.flags.bucket, self.flags.books
        self._everywhere(
            f"cd gpt1 && gcloud storage rsync --recursive {bucket}/{books} {books} && "
            f".venv/bin/gpt1 prepare --output={bucket}/tokens --input '{books}/*'",
            worker="0",
        )

    def train(self) -> None:
        """The same command until it is done, on a new slice where the old one is gone."""
        for _ in range(self.flags.attempts):
            if self._ready():
                self.install()
            status = self.cloud.run(*self._ssh(self.training(), "all"))
            if status == 0:
                return
            if status not in CONTINUES:
                raise GivenUp(status, f"training ended with {status}, which no new start mends")
            say(f"training was stopped ({status}); the same command continues")
            self.cloud.wait(self.flags.pause)
        raise GivenUp(75, f"stopped {self.flags.attempts} times; the same command continues")

    def watch(self) -> None:
        self._must(*self._tpu("queued-resources", "describe", self.flags.name))
        figures = f"{self.run_folder}/metrics.jsonl"
        self._must("gcloud", "storage", "cat", "--range=-2000", figures)

    def delete(self) -> None:
        self._must(*self._tpu("queued-resources", "delete", self.flags.name), "--force")

    def training(self) -> str:
        """The command of every host, for the first start and for any other."""
        tokens = f"{self.flags.bucket}/tokens"
        keys = {"model.dtype": "bfloat16", "data.path": tokens} | dict(self.flags.key)
        config = [f"--config.{key}={value}" for key, value in keys.items()]
        train = [".venv/bin/gpt1", "train", f"--config={self.flags.config}"]
        train += [f"--workdir={self.run_folder}", *config]
        return "cd gpt1 && " + shlex.join(train)

    def _ready(self) -> bool:
        """Returns when the slice is there, asked for anew if need be; whether it was."""
        anew = False
        for _ in range(self.flags.attempts):
            state = self._state()
            if state == "ACTIVE":
                return anew
            if state in GONE:
                # A request that came to an end keeps its name until it is deleted.
                if state != "NONE":
                    self.delete()
                self._request()
                anew = True
            self.cloud.wait(self.flags.pause)
        raise GivenUp(75, f"no slice came; {self.flags.name} stays asked for, until `delete`")

    def _state(self) -> str:
        asked = self._tpu("queued-resources", "describe", self.flags.name)
        return self.cloud.ask(*asked, "--format=value(state.state)") or "NONE"

    def _request(self) -> None:
        flags = self.flags
        self._must(
            *self._tpu("queued-resources", "create", flags.name),
            f"--node-id={flags.name}",
            f"--accelerator-type={flags.accelerator}",
            f"--runtime-version={RUNTIMES[flags.accelerator.partition('-')[0]]}",
            "--spot",
            # For the bucket, and nothing but what the account of the hosts may do anyway.
            "--scopes=cloud-platform",
        )

    def _tpu(self, *words: str) -> list[str]:
        return ["gcloud", "compute", "tpus", *words, f"--zone={self.flags.zone}"]

    def _ssh(self, command: str, worker: str) -> list[str]:
        words = self._tpu("tpu-vm", "ssh", self.flags.name)
        return [*words, f"--worker={worker}", f"--command={command}"]

    def _everywhere(self, command: str, worker: str = "all") -> None:
        self._must(*self._ssh(command, worker))

    def _must(self, *words: str) -> None:
        if status := self.cloud.run(*words):
            raise GivenUp(status, f"{shlex.join(words[:5])} ... ended with {status}")


def say(line: str) -> None:
    print(f"cloud_tpu: {line}", file=sys.stderr)


def parsed(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=[*STEPS, "life"])
    parser.add_argument("--zone", required=True, help="of the slice, as in us-west4-a")
    parser.add_argument("--accelerator", required=True, help="v4-8, v5litepod-16, v5p-8, v6e-16 ..")
    parser.add_argument("--bucket", required=True, help="gs://NAME, in the zone's region")
    parser.add_argument("--name", default="gpt1", help="of the slice and the run; default: gpt1")
    parser.add_argument("--books", default="books", help="folder of texts there; default: books")
    parser.add_argument("--config", default="configs/pretrain.py", help="what to train")
    parser.add_argument("--key", action="append", default=[], help="KEY=VALUE of the config")
    parser.add_argument("--attempts", type=int, default=1000, help="looks, and starts, at most")
    parser.add_argument("--pause", type=float, default=60.0, help="seconds between two of them")
    parser.add_argument("--dry_run", action="store_true", help="print the commands")
    flags = parser.parse_args(words)
    if flags.accelerator.partition("-")[0] not in RUNTIMES:
        parser.error(f"--accelerator={flags.accelerator}; expected {', '.join(RUNTIMES)}, -NUMBER")
    flags.bucket = flags.bucket.rstrip("/")
    if not re.fullmatch("gs://[^/]+", flags.bucket):
        parser.error(f"--bucket={flags.bucket}; expected gs://NAME")
    if any("=" not in key for key in flags.key):
        parser.error(f"--key={flags.key[-1]}; expected KEY=VALUE")
    flags.key = [tuple(key.partition("=")[::2]) for key in flags.key]
    return flags


def main(words: list[str]) -> int:
    flags = parsed(words)
    os.environ["CLOUDSDK_CORE_DISABLE_PROMPTS"] = "1"
    slice_ = Slice(flags, Rehearsal() if flags.dry_run else Cloud())
    try:
        for step in STEPS if flags.step == "life" else (flags.step,):
            getattr(slice_, step)()
    except GivenUp as error:
        status, line = error.args
        say(line)
        return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
