"""JAX as the environment sets it up: on which devices it computes, or why on none; and the memory
that those lack."""

import os
import traceback

from gpt1_jax.runtime import processes

# Where JAX reads its variables, and where it looks for devices.
_MODULES = ("jax._src.config", "jax._src.xla_bridge")


def quiet_compiler_of_tpus() -> None:
    """Where libtpu is installed without a TPU, as the tests want it, it complains at each start of
    knowing no machine. Told of one, it finds no chip in it and says nothing."""
    if not processes.has_tpu():
        os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
        os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")


def complaint(error: Exception) -> str | None:
    """What is wrong with the environment, or its memory, where `error` comes of that; None where it
    does not."""
    # By its name, for JAX may not be loaded; a device says more of it in tables of many lines.
    of_a_device = type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error)
    if of_a_device or isinstance(error, MemoryError):
        reason = str(error).partition("\n")[0].removeprefix("RESOURCE_EXHAUSTED: ")
        return (
            f"no memory is left ({reason[:200] or 'of the machine'}); compute less at a time: "
            "batch_size or eval.batch_size, optimizer.accumulation, model.remat of a training, "
            "--num_samples"
        )
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if frames[-1].f_globals.get("__name__") not in _MODULES:
        return None
    # Nothing at all is said of a platform whose plugin is not installed.
    reason = str(error).partition("\n")[0] or "no such platform is installed"
    asked = [f"{name}={value}" for name, value in os.environ.items() if name.startswith("JAX_")]
    return f"JAX does not start: {reason} (the environment has {', '.join(asked) or 'no JAX_...'})"
