"""A strict room: eight CPU devices, no silent rank promotion, warnings are errors (pyproject.toml)."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = os.environ.get("GPT1_TEST_PLATFORM", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import pytest

REAL_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real novels and tasks, where they lie beside the project; the test is skipped elsewhere."""
    if not REAL_DATA.is_dir():
        pytest.skip("no real data beside the project")
    return REAL_DATA
