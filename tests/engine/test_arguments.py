"""What the checks of arguments give for good ones; what they refuse is in ``test_refusals``."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lib.engine.arguments import (
    as_array,
    as_choice,
    as_inputs,
    as_nonnegative,
    as_params,
    as_positive,
    as_symmetric,
    check_numbers,
)
from ntk_lib.wide_networks import Layer, nngp


def test_as_inputs_gives_float_arrays_of_one_dtype(no_hook, dtype):
    for value in ([[1, 2]], [[1.0, 2.0]], np.array([[1, 2]]), jnp.array([[1, 2]]), ((1, 2.0),)):
        x, y = as_inputs(value)
        assert y is None
        assert x.dtype == dtype
        np.testing.assert_array_equal(x, [[1, 2]])
    x, y = as_inputs(np.array([[1, 2]], np.int8), np.array([[0.5, 1.0]], np.float32))
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, [[1, 2]])


def test_later_changes_of_the_callers_array_do_not_reach_ours(no_hook, dtype):
    # JAX may share the memory of a NumPy array that happens to be aligned
    for offset in range(16):
        mine = np.zeros(1016, dtype)[offset : offset + 1000]
        array = as_array("x", mine)
        mine[:] = 5
        assert float(array[0]) == 0


def test_finite_numbers_whose_sum_overflows_are_finite(no_hook):
    big = np.full(100, 3e38, np.float32)
    np.testing.assert_array_equal(as_array("x", big), big)
    with pytest.raises(ValueError, match=r"^x needs finite numbers, got 2 NaN"):
        as_array("x", np.array([np.inf, -np.inf, 1.0], np.float32))


def test_as_inputs_keeps_low_precision_and_takes_the_wider_of_two(no_hook, x64):
    half, single, double = (np.ones((1, 2), t) for t in (np.float16, np.float32, np.float64))
    assert as_inputs(half)[0].dtype == "float16"
    assert {t.dtype.name for t in as_inputs(half, single)} == {"float32"}
    assert {t.dtype.name for t in as_inputs(double, single)} == {"float64"}


def test_check_numbers_gives_floats(no_hook):
    assert check_numbers(depth=np.int64(1), gain=np.float32(2), beta=0) == (2.0, 0.0)
    assert all(type(t) is float for t in check_numbers(depth=1, gain=jnp.float32(2), beta=1))


@pytest.mark.parametrize(
    ("name", "beta"), [("relu", 0.1), ("erf", 0.0), ("sin", 0.0), ("cos", 0.0)]
)
def test_a_zero_point_is_fine_where_no_angle_is_taken(name, beta):
    x = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert np.all(np.isfinite(nngp(x, depth=3, activation=name, beta=beta)))


def test_integers_are_points_too(no_hook, dtype):
    x = np.array([[1, 2], [3, -4]])
    np.testing.assert_array_equal(nngp(x, depth=3), nngp(x.astype(dtype), depth=3))
    np.testing.assert_array_equal(nngp(x.tolist(), depth=3), nngp(x.astype(dtype), depth=3))
    assert nngp(x, depth=3).dtype == dtype


def test_values_are_not_checked_where_they_cannot_be_seen():
    x = jnp.array([[jnp.nan, 1.0]])
    assert np.isnan(jax.jit(lambda t: nngp(t, depth=2))(x)).all()


def test_a_layer_is_its_weights_and_biases():
    W, b = Layer(W=jnp.ones((2, 3)), b=jnp.ones(2))
    assert (W.shape, b.shape) == ((2, 3), (2,))


def test_what_has_the_right_sign_and_symmetry_passes(no_hook, x64):
    assert as_positive("rate", 1e-300) == 1e-300
    assert as_nonnegative("time", 0) == 0
    assert as_nonnegative("time", math.inf, infinite=True) == math.inf
    rounded = np.array([[1.0, 1 + 1e-15], [1.0, 1.0]])
    np.testing.assert_allclose(as_symmetric("gram", rounded), rounded)


# ---------------------------------------------------------------- words and pytrees


def test_as_choice_takes_one_of_the_words(no_hook):
    assert as_choice("kind", "b", ("a", "b")) == "b"


def test_as_params_gives_arrays_and_keeps_dtypes_and_structure(no_hook, x64):
    params = {"a": 2.0, "b": [np.ones(2, np.float32), jnp.ones((1, 3))]}
    result = as_params(params)
    assert jax.tree.structure(result) == jax.tree.structure(params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(result))
    assert [leaf.dtype.name for leaf in jax.tree.leaves(result)] == [
        "float64",
        "float32",
        "float64",
    ]
