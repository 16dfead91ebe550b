"""A run in s3://, against moto's server in the place of Amazon's, where s3fs and moto are installed
(`.ci/extras`)."""

import subprocess
import sys
import time
import urllib.request
from importlib.util import find_spec

import pytest
import runs
from in_a_store import gpt1, holders
from test_processes import free_port

pytestmark = pytest.mark.skipif(
    not (find_spec("s3fs") and find_spec("moto")), reason="s3fs or moto is not installed"
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """Variables of the environment with which s3fs finds the server, which has an empty bucket."""
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-p", url.rpartition(":")[2]]
    with open(tmp_path_factory.mktemp("moto") / "said", "wb") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{url}/books", method="PUT")).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.1)
        yield {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
    finally:
        server.terminate()
        server.wait()


def test_a_run_in_s3_goes_on_on_another_machine(bucket, tmp_path):
    glob = runs.write_documents(tmp_path / "books", count=8)
    words = ["--input", glob, "--vocab_size=300", "--workers=1"]
    keys = [f"--config.{key}={value}" for key, value in runs.PRETRAINING.items()]
    train = ["train", "--config=configs/pretrain.py", *keys]
    answers = {}
    for place in (str(tmp_path), "s3://books"):
        gpt1(bucket, tmp_path / "here", "prepare", f"--output={place}/tokens", *words)
        inside = [*train, f"--workdir={place}/run", f"--config.data.path={place}/tokens"]
        stopped = gpt1(bucket, tmp_path / "here", *inside, "--config.stop_after=4")
        assert stopped["step"] == 4
        answers[place] = gpt1(bucket, tmp_path / "there", *inside)["metrics"]
        evaluate = ["evaluate", f"--workdir={place}/run"]
        assert gpt1(bucket, tmp_path / "third", *evaluate)["step"] == 6
    assert answers["s3://books"] == answers[str(tmp_path)]


def test_text_is_read_from_s3_and_results_are_written_there(bucket, tmp_path):
    golden = runs.ROOT / "tests" / "golden" / "huggingface" / "language_model"
    scores = {}
    for place in (str(tmp_path), "s3://books"):
        gpt1(bucket, tmp_path, "convert", f"--from=hf:{golden}", f"--to=hf:{place}/weights")
        words = ["score", f"--initial=hf:{place}/weights", f"--output={place}/scores.jsonl"]
        gpt1(bucket, tmp_path, *words, f"--input={place}/weights/*.md")
        words = ["prepare", f"--output={tmp_path}/tokens-{len(scores)}", "--vocab_size=300"]
        found = gpt1(bucket, tmp_path, *words, "--input", f"{place}/weights/*.md")
        scores[place] = found["source"], found["splits"]
    assert scores["s3://books"] == scores[str(tmp_path)]


def test_a_lease_in_s3_is_one_alone(bucket):
    assert holders(bucket, "s3://books/held") == ["", "held\n"]
