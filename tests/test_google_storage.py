"""A run in gs://, against an emulator of Google's store, where that and gcsfs are installed:

pip install gcsfs gcp-storage-emulator
"""

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest
import runs
from google_storage import Store

pytestmark = pytest.mark.skipif(find_spec("gcsfs") is None, reason="gcsfs is not installed")


@pytest.fixture(scope="module")
def bucket():
    """Variables of the environment with which gcsfs and TensorStore find the stand-in."""
    store = Store()
    yield {
        "STORAGE_EMULATOR_HOST": store.url,
        "TENSORSTORE_GCS_HTTP_URL": store.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks for what only Google has
    }
    store.shutdown()
    store.server_close()


def gpt1(bucket: dict, caches: object, *words: str) -> dict:
    environment = {**runs.environment(devices=1), **bucket, "XDG_CACHE_HOME": str(caches)}
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


def test_a_run_in_a_bucket_goes_on_on_another_machine(bucket, tmp_path):
    runs.write_documents(tmp_path / "books", count=8)
    here, there = tmp_path / "here", tmp_path / "there"
    words = ["--input", f"{tmp_path}/books/*.txt", "--vocab_size=300", "--workers=1"]
    for output in ("gs://books/tokens", str(tmp_path / "tokens")):
        gpt1(bucket, here, "prepare", f"--output={output}", *words)
    keys = [f"--config.{key}={value}" for key, value in runs.PRETRAINING.items()]
    train = ["train", "--config=configs/pretrain.py", *keys]
    inside = [*train, "--workdir=gs://books/run", "--config.data.path=gs://books/tokens"]
    assert gpt1(bucket, here, *inside, "--config.stop_after=4")["step"] == 4
    result = gpt1(bucket, there, *inside)
    whole = gpt1(
        bucket, here, *train, f"--workdir={tmp_path}/run", f"--config.data.path={tmp_path}/tokens"
    )
    assert (result["step"], result["metrics"]) == (6, whole["metrics"])
    pair = ("gs://books/run", f"{tmp_path}/run")
    evaluated = [gpt1(bucket, here, "evaluate", f"--workdir={one}")["metrics"] for one in pair]
    assert evaluated[0] == evaluated[1]


def test_a_lease_in_a_bucket_is_one_alone(bucket):
    """Whoever has it says so, and lets go of it only after the other has seen it renewed."""
    script = (
        "import time\nfrom gpt1_jax.storage import lease\n"
        "lease.RENEWED, lease.LOOK = 0.2, 0.05\n"
        "held = lease.Lease('gs://books/held')\nprint('held', flush=True)\ntime.sleep(8)\n"
        "held.require()\nheld.release()\n"
    )
    environment = {**runs.environment(devices=1), **bucket}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=runs.ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for _ in range(2)
    ]
    assert sorted(process.communicate()[0] for process in running) == ["", "held\n"]
