"""Strict numerics for every test: shapes checked, no implicit promotion of dtype or rank."""

import jax
import jaxtyping
import pytest
from jaxtyping import install_import_hook

install_import_hook("ntk_lib", "beartype.beartype")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


@pytest.fixture
def no_hook():
    """What a user without the import hook meets: our own message, not the type checker's."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
