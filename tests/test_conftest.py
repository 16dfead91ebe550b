"""The strict room is in force."""

import warnings

import jax
import jax.numpy as jnp
import pytest


def test_rank_promotion_raises():
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones((2, 3)) + jnp.ones(3)


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="careful"):
        warnings.warn("careful", stacklevel=1)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="fake devices are of the CPU")
def test_there_are_eight_devices():
    assert jax.device_count() == 8


def test_quick_are_the_tests_of_files_that_do_not_compile(request):
    assert "jax" in globals()
    assert request.node.get_closest_marker("quick") is None
