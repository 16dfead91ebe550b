"""Which attention each kind of device runs, with devices that are only named."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import pytest
import runs

from gpt1_jax.errors import UserError
from gpt1_jax.model.config import ModelConfig
from gpt1_jax.recipe.attention_choice import Device, choose, device_of

CPU = Device("cpu", "cpu")
T4 = Device("gpu", "Tesla T4", (7, 5))
V100 = Device("gpu", "Tesla V100-SXM2-16GB", (7, 0))
A100 = Device("gpu", "NVIDIA A100-SXM4-80GB", (8, 0))
H200 = Device("gpu", "NVIDIA H200", (9, 0))
MI300 = Device("gpu", "AMD Instinct MI300X", None)
V5E = Device("tpu", "TPU v5 lite")
PAPER = ModelConfig(dtype="bfloat16")


def paper(**changes):
    return replace(PAPER, **changes)


@pytest.mark.parametrize(
    ("device", "model", "implementation", "reason"),
    [
        (CPU, paper(), "blocks", "cpu"),
        (CPU, paper(n_ctx=128), "plain", "cpu"),
        (H200, paper(), "triton", "NVIDIA H200"),
        (A100, paper(dtype="float32"), "triton", "A100"),
        (A100, paper(dropout=0.0), "triton", "A100"),
        (V5E, paper(), "tpu", "TPU v5 lite"),
        (T4, paper(), "recompute", "8.0, and Tesla T4 has 7.5; nor does it compute in bfloat16"),
        (T4, paper(dtype="float16"), "recompute", "Tesla T4 has 7.5"),
        (V100, paper(dropout=0.0), "recompute", "7.0"),
        (MI300, paper(), "recompute", "NVIDIA"),
        # No Triton in a later JAX: what is left depends on the dropout.
        (replace(H200, triton=False, jax="0.14.0"), paper(), "recompute", "JAX 0.14.0"),
        (replace(H200, triton=False, jax="0.14.0"), paper(dropout=0.0), "cudnn", "JAX 0.14.0"),
        # Heads of another size, or too few to fill the lanes of a TPU.
        (H200, paper(n_embd=960), "recompute", "16, 32, 64 or 128, and these have 80"),
        (H200, paper(n_embd=960, attn_dropout=0.0), "cudnn", "80"),
        (H200, paper(n_head=6, dtype="float32"), "recompute", "float16 for heads of 128"),
        (V5E, paper(n_embd=960), "recompute", "80"),
        (V5E, paper(n_embd=832, n_head=13), "recompute", "2 heads of 64 at a time"),
        (V5E, paper(n_ctx=2048), "recompute", "1024, and it is 2048"),
        (H200, ModelConfig(body="lstm"), "plain", "LSTM"),
    ],
)
def test_auto_takes_what_the_device_can_run_and_says_why(device, model, implementation, reason):
    choice = choose("auto", device, model)
    assert choice.implementation == implementation
    assert reason in choice.reason
    # What auto takes can be asked for by name as well.
    assert choose(implementation, device, model).implementation == implementation


def test_only_old_gpus_are_said_not_to_compute_in_bfloat16():
    for device, dtype in [
        (H200, "bfloat16"),
        (MI300, "bfloat16"),
        (T4, "float32"),
        (CPU, "float32"),
    ]:
        assert "nor does it" not in choose("auto", device, paper(dtype=dtype)).reason


@pytest.mark.parametrize(
    ("n_shares", "implementation"),
    [(1, "tpu"), (2, "tpu"), (4, "recompute"), (6, "tpu"), (8, "tpu"), (12, "recompute")],
)
def test_the_heads_that_one_tpu_has_must_fill_its_lanes(n_shares, implementation):
    """Of 12, which 8 devices do not divide: each of them has all."""
    assert choose("auto", V5E, PAPER, n_shares).implementation == implementation


@pytest.mark.parametrize(
    ("wanted", "device", "model", "line"),
    [
        ("triton", CPU, paper(), "triton needs an NVIDIA GPU, and this is cpu"),
        ("triton", V5E, paper(), "NVIDIA GPU, and this is TPU v5 lite"),
        ("triton", T4, paper(), "needs compute capability 8.0, and Tesla T4 has 7.5"),
        ("triton", H200, paper(n_embd=960), "heads of 16, 32, 64 or 128"),
        ("tpu", H200, paper(), "needs a TPU, and this is NVIDIA H200"),
        ("tpu", V5E, paper(n_head=24), None),
        ("cudnn", H200, paper(), "needs model.attn_dropout=0"),
        ("cudnn", H200, paper(attn_dropout=0.0), None),
        ("cudnn", H200, ModelConfig(dropout=0.0), "bfloat16 or float16"),
        ("cudnn", CPU, paper(dropout=0.0), "NVIDIA GPU"),
        ("plain", H200, paper(), None),
        ("blocks", V5E, paper(), "is for CPUs, and this is TPU v5"),
        ("recompute", CPU, paper(), None),
    ],
)
def test_what_a_device_lacks_is_refused_by_name(wanted, device, model, line):
    if line is None:
        assert choose(wanted, device, model).implementation == wanted
        return
    with pytest.raises(UserError, match=line) as refusal:
        choose(wanted, device, model)
    assert "attention.implementation=auto" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_device_of_jax_is_read():
    def fake(platform, kind, **more):
        return device_of(SimpleNamespace(platform=platform, device_kind=kind, **more))

    assert fake("gpu", "Tesla T4", compute_capability="7.5") == T4
    assert fake("gpu", "AMD Instinct MI300X", compute_capability="gfx942") == MI300
    assert fake("tpu", "TPU v5 lite") == V5E


ON_CPU = pytest.mark.skipif(jax.default_backend() != "cpu", reason="about what a CPU lacks")


@pytest.mark.exhaustive
@ON_CPU
def test_training_says_what_it_chose(tokens, tmp_path):
    given = runs.pretraining(tokens, **{"stop_after": 1})
    said = runs.verb(*runs.words(given, tmp_path)).said
    assert "attention: plain (the form for cpu)" in said


@ON_CPU
@pytest.mark.parametrize("wanted", ["triton", "tpu", "cudnn"])
def test_a_kernel_that_the_platform_lacks_ends_before_the_first_step(wanted, tokens, tmp_path):
    given = runs.pretraining(tokens, **{"attention.implementation": wanted})
    outcome = runs.verb(*runs.words(given, tmp_path / "run"))
    assert outcome.status == 2
    assert len(outcome.said) == 1
    assert f"attention.implementation={wanted} needs" in outcome.said[0]
    assert not (tmp_path / "run").exists()
