"""A run in gs://, against a stand-in of Google's store, where gcsfs is installed (`.ci/extras`)."""

from importlib.util import find_spec

import pytest
import runs
from google_storage import Store
from in_a_store import gpt1, holders

pytestmark = pytest.mark.skipif(find_spec("gcsfs") is None, reason="gcsfs is not installed")


@pytest.fixture(scope="module")
def store():
    made = Store()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def bucket(store):
    """Variables of the environment with which gcsfs and TensorStore find the stand-in."""
    return {
        "STORAGE_EMULATOR_HOST": store.url,
        "TENSORSTORE_GCS_HTTP_URL": store.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # asks for what only Google has
    }


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


def test_text_is_read_from_a_bucket_and_results_are_written_there(store, bucket, tmp_path):
    glob = runs.write_documents(tmp_path / "books", count=3)
    for number in range(3):
        content = (tmp_path / "books" / f"{number}.txt").read_bytes()
        store.objects["books", f"text/{number}.txt"] = (content, 1)
    for name, books in (("here", glob), ("there", "gs://books/text/*.txt")):
        words = [f"--output={tmp_path}/{name}", "--vocab_size=300", "--workers=1"]
        gpt1(bucket, tmp_path, "prepare", "--input", books, *words)
    assert runs.snapshot(tmp_path / "there") == runs.snapshot(tmp_path / "here")
    golden = runs.ROOT / "tests" / "golden" / "huggingface" / "language_model"
    for place in (tmp_path, "gs://books"):
        gpt1(bucket, tmp_path, "convert", f"--from=hf:{golden}", f"--to=hf:{place}/weights")
        words = [f"--initial=hf:{place}/weights", f"--output={place}/scores.jsonl"]
        gpt1(bucket, tmp_path, "score", "--input", books, *words)
    there = {name: content for (_, name), (content, _) in store.objects.items()}
    assert there["scores.jsonl"] == (tmp_path / "scores.jsonl").read_bytes()
    for name, content in runs.snapshot(tmp_path / "weights").items():
        assert there[f"weights/{name}"] == content, name


def test_a_lease_in_a_bucket_is_one_alone(bucket):
    assert holders(bucket, "gs://books/held") == ["", "held\n"]
