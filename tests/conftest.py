"""Strict numerics for every test: shapes checked, no implicit promotion of dtype or rank.

A test that compares bits is marked ``optimised``, and one that computes long marks itself so:
`make unit` compiles their programs as a reader's are compiled. The rest, which compare by a
tolerance and compile more than they compute, are compiled in half the time.
"""

import functools
import inspect

import jax
import jax.experimental
import jaxtyping
import pytest
from jaxtyping import install_import_hook

install_import_hook("ntk_lib", "beartype.beartype")

if not hasattr(jax, "enable_x64"):  # before JAX 0.8, which `make test-lowest` runs on
    jax.enable_x64 = jax.experimental.enable_x64
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


BITS = ("array_equal(", "ends_well(")  # ends_well: scripts that compare them


@functools.cache  # a function has up to thousands of cases
def compares_bits(function):
    return any(call in inspect.getsource(function) for call in BITS)


# Files that take minutes, the longest first, so that at the end no core waits for another.
LONG = ("tangent_kernels", "evaluation", "limiting_ntk", "interpolation", "any_size", "scale")
LONG = [f"test_{name}" for name in (*LONG, "wide_networks", "kernels", "early_stopping")]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))
    for item in items:
        function = getattr(item, "function", None)
        if function and compares_bits(function):
            item.add_marker("optimised")
