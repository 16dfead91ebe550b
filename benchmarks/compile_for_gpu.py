"""The update of a config compiled for an NVIDIA GPU that is not there: memory and kernels.

    JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 \\
        python benchmarks/compile_for_gpu.py h100|t4[:COUNT] CONFIG [KEY=VALUE ...]

with JAX for CUDA installed (pip install 'jax[cuda13]'), of 0.11 or later. Prints a line of JSON.
Which algorithm is the fastest is not tried out, so that temporaries may differ a little from those
on the GPU itself; HLO=FILE keeps the compiled program.
"""

import argparse
import contextlib
import json
import os
import re
import time
from collections import Counter

import jax

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()

from jax.experimental import topologies

from gpt1_jax.machine.compile import collective_operations
from gpt1_jax.machine.step import step
from gpt1_jax.recipe import experiment
from gpt1_jax.run_files import versions

GIB = 2**30
# As the data sheets and CUDA's programming guide have them (compute capability 9.0 and 7.5).
GPUS = {
    "h100": {
        "kind": "NVIDIA H100 80GB HBM3",
        "cores": 132,
        "capability": (9, 0),
        "threads_per_core": 2048,
        "fpus_per_core": 128,
        "shared_per_core": 233472,
        "shared_optin": 232448,
        "bandwidth": 3352320000000,
        "l2": 52428800,
        "clock_ghz": 1.98,
        "memory": 84942979072,
    },
    "t4": {
        "kind": "Tesla T4",
        "cores": 40,
        "capability": (7, 5),
        "threads_per_core": 1024,
        "fpus_per_core": 64,
        "shared_per_core": 65536,
        "shared_optin": 65536,
        "bandwidth": 320064000000,
        "l2": 4194304,
        "clock_ghz": 1.59,
        "memory": 15642263552,
    },
}


def target(gpu: dict) -> str:
    """XLA's description of a GPU."""
    major, minor = gpu["capability"]
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024
          threads_per_warp: 32
          shared_memory_per_block: 49152
          shared_memory_per_core: {gpu["shared_per_core"]}
          threads_per_core_limit: {gpu["threads_per_core"]}
          core_count: {gpu["cores"]}
          fpus_per_core: {gpu["fpus_per_core"]}
          block_dim_limit_x: 2147483647
          block_dim_limit_y: 65535
          block_dim_limit_z: 65535
          memory_bandwidth: {gpu["bandwidth"]}
          l2_cache_size: {gpu["l2"]}
          clock_rate_ghz: {gpu["clock_ghz"]}
          device_memory_size: {gpu["memory"]}
          shared_memory_per_block_optin: {gpu["shared_optin"]}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          registers_per_core_limit: 65536
          registers_per_block_limit: 65536
        }}
        platform_name: "CUDA"
        runtime_version {{ major: 13 }}
        dnn_version_info {{ major: 9 minor: 12 }}
        device_description_str: "{gpu["kind"]}"
    """


@contextlib.contextmanager
def meant(gpu: dict):
    """For the kernels, whose lowering asks which GPU is there."""
    named = jax.sharding.AbstractDevice(gpu["kind"], gpu["cores"], "gpu")
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=named)):
        yield


def main(name: str, config: str, given: list[str]) -> None:
    name, _, count = name.partition(":")
    gpu = GPUS[name]
    devices = topologies.get_topology_desc(
        name, "cuda", target_config=target(gpu), topology=f"1x1x{count or 1}"
    ).devices
    jax.config.update("jax_platforms", "cpu")  # what is computed on the way is computed here
    keys = dict(word.split("=", 1) for word in given)
    described, _ = experiment.load(config, keys)
    made = step(described, list(devices))
    with meant(gpu):
        lowered = made.lowered()
    began = time.perf_counter()
    compiled = lowered.compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    if "HLO" in os.environ:
        with open(os.environ["HLO"], "w") as stream:
            stream.write(text)
    entry = text[text.index("\nENTRY") :]
    kinds = Counter(re.findall(r"= \S+(?: \S+)* (fusion|custom-call|copy)\(", entry))
    line = {
        "gpu": gpu["kind"],
        "count": made.mesh.size,
        "config": config,
        "keys": keys,
        "attention": made.experiment.attention.implementation,
        "argument_gib": memory.argument_size_in_bytes / GIB,
        "temp_gib": memory.temp_size_in_bytes / GIB,
        "memory_gib": gpu["memory"] / GIB,
        "operations": dict(kinds),
        "collectives": collective_operations(text),
        "compile_seconds": round(time.perf_counter() - began, 1),
        "versions": versions(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("gpu", help="as in h100, or t4:4 for four of them")
    parser.add_argument("config")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    words = parser.parse_args()
    if words.gpu.partition(":")[0] not in GPUS:
        parser.error(f"no {words.gpu}; expected one of {', '.join(GPUS)}")
    main(words.gpu, words.config, words.settings)
