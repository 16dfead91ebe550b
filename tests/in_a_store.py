"""Verbs in processes of their own, which know an object store by variables of the environment."""

import json
import subprocess
import sys

import runs

LEASE = """
import sys, time
from gpt1_jax.storage import lease
lease.RENEWED, lease.LOOK = 0.2, 0.05
held = lease.Lease(sys.argv[1])
print('held', flush=True)
time.sleep(8)
held.require()
held.release()
"""


def gpt1(variables: dict, caches: object, *words: str) -> dict:
    """The answer of a verb on the machine that has these caches."""
    environment = {**runs.environment(devices=1), **variables, "XDG_CACHE_HOME": str(caches)}
    done = subprocess.run(
        [sys.executable, "-m", "gpt1_jax", *words],
        cwd=runs.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def holders(variables: dict, url: str) -> list[str]:
    """What two that want the same lease say: whoever has it says so, and lets go of it only after
    the other has seen it renewed."""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", LEASE, url],
            cwd=runs.ROOT,
            env={**runs.environment(devices=1), **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    return sorted(process.communicate()[0] for process in running)
