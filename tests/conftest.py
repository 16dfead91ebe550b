"""A strict room: eight CPU devices, no silent rank promotion; pyproject.toml makes warnings errors.

The settings are environment variables so that they reach the processes which tests start, too.
"""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("GPT1_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Tests compile much and compute little: a fifth of the time of optimised compilation.
        "--xla_cpu_use_fusion_emitters=false",
    ]
).strip()
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tolerances are those of float32; a GPU would otherwise multiply in TF32.
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real novels and tasks, where they lie beside the project; the test is skipped elsewhere."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside the project")
    return REAL_DATA
