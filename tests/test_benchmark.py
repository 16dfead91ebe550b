"""`gpt1 benchmark` in tiny form: its lines, what they are compared with, and what is refused."""

import json
import os
import subprocess
import sys

import jax
import pytest
import runs

from gpt1_jax.machine import profile, text_speed
from gpt1_jax.runtime import compilation_cache, peaks

SIZES = ["--layers=1", "--d=16", "--heads=2", "--vocab=300", "--dtype=float32"]
SIZES.append("--config.mesh.data=1")
QUICK = ["--rounds=2", "--steps=2", "--warmup=1"]
TRAIN = ["benchmark", "train", "--batch=2", "--seq=16", *SIZES, *QUICK]
SAMPLE = ["benchmark", "sample", "--batch=2", "--prompt=3", "--new=5", *SIZES, "--rounds=2"]
FINETUNE = ["benchmark", "finetune", "--batch=2", "--seq=32", *SIZES, "--rounds=1", "--steps=2"]
PEER = {"peer": "pytorch", "version": "2", "mode": "train", "dtype": "fp32", "dropout": 0.1}
PEER |= {"batch": 2, "seq": 16, "tokens_per_s": 50.0}
# What the lines of all of them have.
COMMON = {"peer", "mode", "dtype", "batch", "tokens_per_s", "tflops_per_s", "attention_count"}
COMMON |= {"device", "fraction_of_peak", "versions", "version"}


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    path = tmp_path_factory.mktemp("peer") / "peer.json"
    path.write_text(json.dumps(PEER) + "\n")
    return path


@pytest.mark.slow
def test_train_beside_a_peer(peer, tmp_path):
    """The line has the peer's keys, and goes to a file, too."""
    kept = tmp_path / "ours.json"
    outcome = runs.verb(*TRAIN, "--kernels", f"--json={kept}", f"--vs={peer}")
    assert outcome.status == 0, outcome.said
    found = outcome.result
    assert json.loads(kept.read_text()) == found
    assert COMMON | PEER.keys() | {"vocab", "compile", "peak_gib", "loss"} <= found.keys()
    assert found["ms_min"] <= found["ms_median"] <= found["ms_max"]
    assert found["tokens_per_s"] == pytest.approx(2 * 16 / found["ms_median"] * 1e3)
    assert found["ratio"] == pytest.approx(found["tokens_per_s"] / 50)
    assert found["attention_count"] == "full"
    # Matrix products of the model above: a layer of 12 d^2 weights, the output and attention.
    per_token = 6 * (12 * 16**2 + 300 * 16) + 12 * 16 * 16
    assert found["tflops_per_s"] == pytest.approx(found["tokens_per_s"] * per_token / 1e12)
    assert found["fraction_of_peak"] > 0
    assert found["first_step_seconds"] > found["compile_seconds"] > 0
    assert found["temp_gib"] > 0
    assert {"gemm", "attention", "norm", "optimizer"} <= found["ms_by_part"].keys()
    largest = found["largest_operations"]
    assert largest == sorted(largest, key=lambda row: -row["ms"])
    assert any("/h_*/" in row["scope"] for row in largest)
    assert 0 < sum(row["ms"] for row in largest) <= sum(found["ms_by_part"].values()) + 1e-3


@pytest.mark.slow
def test_train_from_shards_has_their_vocabulary(tokens):
    more = ["--config.data.driver=thread", "--config.batch_size=4"]
    outcome = runs.verb(*TRAIN, f"--shards={tokens}", *more)
    assert outcome.status == 0, outcome.said
    assert outcome.result["batch"] == 4  # what was timed, not what a flag said
    assert (outcome.result["vocab"], outcome.result["batches"]) == (300, "streamed from shards")


@pytest.mark.slow
def test_sampling():
    outcome = runs.verb(*SAMPLE, "--config.model.n_layer=2")
    assert outcome.status == 0, outcome.said
    found = outcome.result
    assert found["layers"] == 2
    assert COMMON | {"s_median", "new_tokens"} <= found.keys()
    assert found["tokens_per_s"] == pytest.approx(2 * 5 / found["s_median"])


@pytest.mark.slow
def test_fine_tuning_in_buckets_and_padded():
    outcome = runs.verb(*FINETUNE, "--config.data.buckets=32", "--config.model.n_ctx=64")
    assert outcome.status == 0, outcome.said
    found = outcome.result
    assert found.keys() >= COMMON
    assert found["seq"] == 64
    ratio = found["sequences_per_s"] / found["padded_sequences_per_s"]
    assert found["ratio_to_padding"] == pytest.approx(ratio)
    assert found["sequences_per_s"] == pytest.approx(2 / found["ms_median"] * 1e3)
    assert 4 <= found["mean_length"] <= 34


@pytest.mark.slow
def test_preparing(monkeypatch):
    # Which takes seconds to import.
    monkeypatch.setattr(text_speed, "find_spec", lambda name: None)
    book = runs.ROOT / "README.md"
    outcome = runs.verb("benchmark", "prepare", f"--input={book}", "--rounds=1", "--megabytes=0.02")
    assert outcome.status == 0, outcome.said
    assert outcome.result["megabytes_per_s"]["sentencepiece"]["again"] > 0
    assert outcome.result["batches_tokens_per_s"]["thread"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["benchmark"], "train, finetune, sample, prepare"),
        (["benchmark", "trian"], "trian"),
        ([*TRAIN, "--prompt=3"], "--prompt"),
        ([*TRAIN, "--implementation=none"], "attention.implementation"),
        ([*TRAIN, "--dtype=int8"], "--dtype"),
        ([*TRAIN, "--rounds=0"], "--rounds"),
        ([*TRAIN, "--batch=0"], "batch_size"),
        ([*TRAIN, "--shards=nowhere"], "nowhere"),
        ([*TRAIN, "--vs=nowhere.json"], "nowhere.json"),
        ([*TRAIN, "--vs=README.md"], "not JSON"),
        ([*TRAIN, "--vs={peer}", "--dropout=0"], "dropout is 0.1 there and 0.0 here"),
        ([*TRAIN, "--vs={peer}", "--batch=4"], "batch is 2 there and 4 here"),
        ([*SAMPLE, "--vs={peer}"], "mode is train there and generate here"),
        ([*SAMPLE, "--new=600"], "509"),
        # What no memory holds, said before an array is made of it.
        ([*TRAIN, "--batch=1000000000"], "make batch_size smaller"),
        ([*TRAIN, "--seq=1000000000"], "model.n_ctx"),
        ([*TRAIN, "--d=10000000"], "width 10000000"),
        ([*SAMPLE, "--batch=1000000000"], "make --batch smaller"),
        ([*SAMPLE, "--d=10000000"], "width 10000000"),
        ([*FINETUNE, "--batch=1000000000"], "make batch_size smaller"),
        (["benchmark", "prepare", "--input=nowhere"], "nowhere"),
        (["benchmark", "prepare", "--input=tests"], "is a folder"),
        (["benchmark", "prepare", "--input=README.md", "--megabytes=1e-9"], "no text in its first"),
        (["benchmark", "prepare", "--input=README.md", "--vocab=nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_what_is_refused_is_one_line(words, said, peer):
    outcome = runs.verb(*(word.format(peer=peer) for word in words))
    assert (outcome.status, outcome.result, len(outcome.said)) == (2, None, 1)
    assert said in outcome.said[0]


@pytest.mark.parametrize(
    ("kind", "dtype", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989),
        ("NVIDIA H100 PCIe", "bfloat16", 756),
        ("NVIDIA A100-SXM4-40GB", "float32", 156),
        ("NVIDIA L40S", "bfloat16", None),
        ("Tesla T4", "float16", 65),
        ("TPU v5 lite", "bfloat16", 197),
        ("TPU v5", "bfloat16", 459),
        ("cpu", "float32", None),
    ],
)
def test_peaks_by_kind_of_device(kind, dtype, tflops):
    found = peaks.known_peak(kind, dtype)
    assert (found and found.tflops) == tflops


def test_parts_of_a_program():
    program = """
%fused (p: f32[2]) -> f32[2] {
  ROOT %dot.9 = f32[2]{0} dot(%p, %p), metadata={op_name="jit(update)/h_0/mlp/dot_general"}
}

ENTRY %main (a: f32[2]) -> f32[2] {
  %gemm_fusion.1 = f32[2]{0} fusion(%a), kind=kCustom, calls=%fused, metadata={op_name="x/mlp/c"}
  %add.2 = f32[2]{0} add(%a, %a), metadata={op_name="jit(update)/jvp(GPT)/h_0/ln_1/add"}
  %mul.3 = f32[2]{0} multiply(%a, %a), metadata={op_name="jit(update)/optimizer/mul"}
  %while.4 = (f32[2]{0}) while(%t), body=%b, metadata={op_name="jit(update)/while"}
  ROOT %copy.5 = f32[2]{0} copy(%mul.3)
}
"""
    found = profile.instructions_of(program)
    assert {name: tuple(found[name]) for name in found if name != "dot_9"} == {
        "gemm_fusion_1": ("gemm", "x/mlp/c"),
        "add_2": ("norm", "jit(update)/jvp(GPT)/h_*/ln_1/add"),
        "mul_3": ("optimizer", "jit(update)/optimizer/mul"),
        "while_4": (None, "jit(update)/while"),
        "copy_5": ("other", ""),
    }


@pytest.mark.parametrize(
    ("backend", "named", "expected"),
    [("cpu", None, None), ("gpu", None, "caches/gpt1_jax/compiled"), ("gpu", "mine", "mine")],
)
def test_programs_are_kept_for_the_next_start(monkeypatch, tmp_path, backend, named, expected):
    """On accelerators, in the user's caches, unless a folder is named."""
    updated = {"jax_compilation_cache_dir": named}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(compilation_cache, "jax", FakeJax(updated, backend))
    compilation_cache.begin()
    place = updated["jax_compilation_cache_dir"]
    assert place == (expected if named or not expected else str(tmp_path / expected))


class FakeJax:
    """As much of JAX as is asked, with an accelerator where the tests have none."""

    def __init__(self, values, backend):
        self.values, self.backend = values, backend
        self.config = self

    def __getattr__(self, name):
        return self.values[name]

    def default_backend(self):
        return self.backend

    def update(self, name, value):
        self.values[name] = value


def test_the_tables_of_the_pages_are_those_of_the_results():
    """By `python benchmarks/table.py`, which leaves the pages as they are."""
    command = [sys.executable, "benchmarks/table.py", "--check"]
    assert subprocess.run(command, cwd=runs.ROOT, check=False).returncode == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("group", ["sample"])
def test_the_script_of_the_gpu_rows_in_tiny_form(tmp_path, group):
    """On the CPU, without a peer: each row is in the file, with what failed left out."""
    environment = {**runs.environment(devices=1), "TINY": "1", "PLATFORM": "cpu", "PEER": "none.py"}
    environment["WHEELS"] = str(tmp_path / "none")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    done = subprocess.run(
        ["benchmarks/gpu.sh", group, str(tmp_path)],
        cwd=runs.ROOT,
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("*.jsonl")
    row = json.loads(written.read_text())
    assert row["ours"]["tokens_per_s"] > 0
    assert (row["group"], row["peer"], row["ratio"]) == (group, None, None)
