"""Which implementation of attention a device runs, and why."""

from dataclasses import dataclass
from importlib.util import find_spec

import jax
import jax.numpy as jnp

from gpt1_jax.errors import UserError
from gpt1_jax.model.attention import QUERIES, Implementation, Wanted
from gpt1_jax.model.config import ModelConfig

# The kernels need bfloat16 units and asynchronous copies, which came with the A100.
LEAST_CAPABILITY = (8, 0)
HEADS_OF_TRITON = (16, 32, 64, 128)
# A block of keys with its values has to fit the memory that a program shares.
MOST_BYTES_OF_HEAD = 256
HEADS_OF_TPU = (32, 64, 128)
LANES = 128
# The TPU kernel is unrolled over blocks of 128 queries and holds whole rows of scores.
MOST_TOKENS_OF_TPU = 1024
HEADS_OF_CUDNN = 128


@dataclass(frozen=True)
class Device:
    """What the choice depends on. capability: of an NVIDIA GPU, (9, 0) for an H100, else None.
    triton: whether JAX, of version `jax`, still has this backend."""

    platform: str
    kind: str
    capability: tuple[int, int] | None = None
    triton: bool = True
    jax: str = jax.__version__


@dataclass(frozen=True)
class Choice:
    implementation: Implementation
    reason: str


def device_of(device: jax.Device) -> Device:
    """What is known of one of jax.devices(), or of a device that is only compiled for."""
    # AMD's GPUs have one as well, which is a name like gfx90a.
    capability = str(getattr(device, "compute_capability", ""))
    major, _, minor = capability.partition(".")
    numbers = (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
    triton = find_spec("jax.experimental.pallas.triton") is not None
    return Device(device.platform, device.device_kind, numbers, triton)


def choose(wanted: Wanted, device: Device, model: ModelConfig, n_shares: int = 1) -> Choice:
    """The implementation that runs, where the heads of a layer are divided over `n_shares` devices.
    Raises UserError where `wanted` is one by name that cannot run there."""
    if model.body == "lstm":
        return Choice("plain", "an LSTM has none")
    if wanted != "auto":
        problem = _problem(wanted, device, model, n_shares)
        if problem is not None:
            raise UserError(
                f"attention.implementation={wanted} {problem}; attention.implementation=auto "
                "takes what fits"
            )
        return Choice(wanted, "as attention.implementation says")
    if device.platform == "gpu":
        return _of_gpu(device, model, n_shares)
    if device.platform == "tpu":
        problem = _problem("tpu", device, model, n_shares)
        if problem is None:
            return Choice("tpu", f"{device.kind} draws its dropout in the kernel")
        return Choice("recompute", f"the kernel {problem}")
    blocks = device.platform == "cpu" and model.n_ctx > QUERIES
    return Choice("blocks" if blocks else "plain", f"the form for {device.kind}")


def _of_gpu(device: Device, model: ModelConfig, n_shares: int) -> Choice:
    problem = _problem("triton", device, model, n_shares)
    if problem is None:
        return Choice("triton", f"{device.kind} draws its dropout in the kernel")
    if _problem("cudnn", device, model, n_shares) is None:
        return Choice("cudnn", f"there is no dropout to draw, and the kernel {problem}")
    reason = f"the kernel {problem}"
    if _is_old(device) and model.dtype == "bfloat16":
        reason += "; nor does it compute in bfloat16: model.dtype=float16 or float32 is faster"
    return Choice("recompute", reason)


def _is_old(device: Device) -> bool:
    return device.capability is not None and device.capability < LEAST_CAPABILITY


def _problem(name: Implementation, device: Device, model: ModelConfig, n_shares: int) -> str | None:
    """Why an implementation cannot run, to be read after its name; None if it can."""
    # The compiler of TPUs overflows its stack on it.
    if name == "blocks" and device.platform != "cpu":
        return f"is for CPUs, and this is {device.kind}"
    if name == "triton":
        return _problem_of_gpu(device) or _problem_of_triton(device, model)
    if name == "cudnn":
        return _problem_of_gpu(device) or _problem_of_cudnn(model)
    if name == "tpu":
        return _problem_of_tpu(device, model, n_shares)
    return None


def _problem_of_gpu(device: Device) -> str | None:
    if device.platform != "gpu" or device.capability is None:
        return f"needs an NVIDIA GPU, and this is {device.kind}"
    if _is_old(device):
        return "needs compute capability {}.{}, and {} has {}.{}".format(
            *LEAST_CAPABILITY, device.kind, *device.capability
        )
    return None


def _problem_of_triton(device: Device, model: ModelConfig) -> str | None:
    size = model.n_embd // model.n_head
    if not device.triton:
        return f"needs a backend that JAX {device.jax} no longer has"
    if size not in HEADS_OF_TRITON:
        return f"needs heads of {_list(HEADS_OF_TRITON)}, and these have {size}"
    if size * jnp.dtype(model.compute_dtype).itemsize > MOST_BYTES_OF_HEAD:
        return f"needs model.dtype bfloat16 or float16 for heads of {size}"
    return None


def _problem_of_cudnn(model: ModelConfig) -> str | None:
    size = model.n_embd // model.n_head
    if model.rate("attn") > 0 or model.dtype == "float32":
        return "needs model.attn_dropout=0 and model.dtype bfloat16 or float16"
    if size % 8 or size > HEADS_OF_CUDNN:
        return f"needs heads of a multiple of 8 up to {HEADS_OF_CUDNN}, and these have {size}"
    return None


def _problem_of_tpu(device: Device, model: ModelConfig, n_shares: int) -> str | None:
    size = model.n_embd // model.n_head
    if device.platform != "tpu":
        return f"needs a TPU, and this is {device.kind}"
    if size not in HEADS_OF_TPU:
        return f"needs heads of {_list(HEADS_OF_TPU)}, and these have {size}"
    # Heads that the devices do not divide stay whole on each (recipe/sharding.py:Divided).
    heads = model.n_head if model.n_head % n_shares else model.n_head // n_shares
    together = LANES // size
    if heads % together:
        return f"needs {together} heads of {size} at a time, and a device has {heads}"
    if model.n_ctx > MOST_TOKENS_OF_TPU:
        return f"needs model.n_ctx up to {MOST_TOKENS_OF_TPU}, and it is {model.n_ctx}"
    return None


def _list(sizes: tuple[int, ...]) -> str:
    return ", ".join(map(str, sizes[:-1])) + f" or {sizes[-1]}"
