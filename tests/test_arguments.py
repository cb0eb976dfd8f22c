"""Bad arguments: what is tried and what is said, seen through nngp, which uses every check."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lib.activations import as_activation
from ntk_lib.arguments import (
    as_inputs,
    as_nonnegative,
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


def test_as_inputs_keeps_low_precision_and_takes_the_wider_of_two(no_hook, x64):
    half, single, double = (np.ones((1, 2), t) for t in (np.float16, np.float32, np.float64))
    assert as_inputs(half)[0].dtype == "float16"
    assert {t.dtype.name for t in as_inputs(half, single)} == {"float32"}
    assert {t.dtype.name for t in as_inputs(double, single)} == {"float64"}


X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
NAN, INFINITE = X.copy(), X.copy()
NAN[1, 0], INFINITE[2, 1] = np.nan, -np.inf

BAD_INPUT = [
    pytest.param(
        {"x": X[0]}, ValueError, r"x needs shape \(points, features\), got \(2,\)", id="x1"
    ),
    pytest.param({"x": X[None]}, ValueError, r"x needs shape .* got \(1, 3, 2\)", id="x-rank-3"),
    pytest.param({"x": 1.0}, ValueError, r"x needs shape .* got \(\)", id="x-scalar"),
    pytest.param({"y": X[0]}, ValueError, r"y needs shape .* got \(2,\)", id="y-rank-1"),
    pytest.param({"y": X[:, :1]}, ValueError, "y needs the 2 features of x, got 1", id="features"),
    pytest.param(
        {"x": X[:0]}, ValueError, r"x needs at least one point .* got \(0, 2\)", id="none"
    ),
    pytest.param({"x": X[:, :0]}, ValueError, r"x needs .* one feature, got \(3, 0\)", id="flat"),
    pytest.param({"y": X[:0]}, ValueError, r"y needs at least one point .*", id="y-empty"),
    pytest.param({"x": NAN}, ValueError, "x needs finite numbers, got 1 NaN or", id="nan"),
    pytest.param({"x": INFINITE}, ValueError, "x needs finite numbers, got 1", id="infinite"),
    pytest.param({"y": NAN}, ValueError, "y needs finite numbers, got 1", id="y-nan"),
    pytest.param({"x": X * 1j}, TypeError, "x needs real numbers, got dtype complex", id="complex"),
    pytest.param({"x": X > 2}, TypeError, "x needs real numbers, got dtype bool", id="bool"),
    pytest.param({"x": "two points"}, TypeError, "x needs a numeric array, got str", id="word"),
    pytest.param({"x": None}, TypeError, "x needs a numeric array, got NoneType", id="nothing"),
    pytest.param({"x": [[1.0], [2.0, 3.0]]}, TypeError, "x needs a numeric array", id="ragged"),
    pytest.param({"x": [[10**30]]}, TypeError, "x needs a numeric array", id="huge-integer"),
    pytest.param({"y": "two points"}, TypeError, "y needs a numeric array, got str", id="y-word"),
]
BAD_NUMBERS = [
    pytest.param({"depth": 0}, ValueError, "depth needs .* 1 weight layer, got 0", id="depth-0"),
    pytest.param({"depth": -2}, ValueError, "depth needs .* got -2", id="depth-negative"),
    pytest.param({"depth": 2.0}, TypeError, "depth needs an integer, .* got 2.0", id="depth-float"),
    pytest.param(
        {"depth": True}, TypeError, "depth needs an integer, .* got True", id="depth-bool"
    ),
    pytest.param({"depth": "3"}, TypeError, "depth needs an integer, .* got '3'", id="depth-word"),
    pytest.param({"depth": None}, TypeError, "depth needs an integer", id="depth-none"),
    pytest.param({"gain": 0.0}, ValueError, "gain needs a positive .* got 0.0", id="gain-0"),
    pytest.param({"gain": -1.0}, ValueError, "gain needs a positive .* got -1", id="gain-negative"),
    pytest.param({"gain": math.nan}, ValueError, "gain needs .* got nan", id="gain-nan"),
    pytest.param({"gain": math.inf}, ValueError, "gain needs .* got inf", id="gain-infinite"),
    pytest.param({"gain": "two"}, TypeError, "gain needs .*'two'", id="gain-word"),
    pytest.param({"gain": None}, TypeError, "gain needs .*None", id="gain-none"),
    pytest.param({"gain": np.ones(2)}, TypeError, "gain needs", id="gain-array"),
    pytest.param({"gain": 1j}, TypeError, "gain needs", id="gain-complex"),
    pytest.param({"beta": -0.1}, ValueError, "beta needs .* 0 or more, got -0.1", id="beta-neg"),
    pytest.param({"beta": math.nan}, ValueError, "beta needs .* got nan", id="beta-nan"),
    pytest.param({"beta": math.inf}, ValueError, "beta needs .* got inf", id="beta-infinite"),
    pytest.param({"beta": "small"}, TypeError, "beta needs .*'small'", id="beta-word"),
]
BAD_ACTIVATION = [
    pytest.param(
        {"activation": "gelu"},
        ValueError,
        "activation needs to be one of relu, leaky_relu, erf, sin, cos; got 'gelu'",
        id="unknown",
    ),
    pytest.param({"activation": jnp.tanh}, TypeError, r"activation needs .*quadrature", id="f"),
    pytest.param({"activation": None}, TypeError, "activation needs .* got NoneType", id="none"),
]


@pytest.mark.parametrize(("changed", "error", "says"), BAD_INPUT + BAD_NUMBERS + BAD_ACTIVATION)
def test_nngp_refuses_bad_arguments(no_hook, changed, error, says):
    with pytest.raises(error, match=f"^{says}"):
        nngp(**{"x": X, "y": X, "depth": 3} | changed)


@pytest.mark.parametrize(("changed", "error", "says"), BAD_INPUT)
def test_as_inputs_refuses_bad_points(no_hook, changed, error, says):
    with pytest.raises(error, match=f"^{says}"):
        as_inputs(**{"x": X, "y": X} | changed)


@pytest.mark.parametrize(("changed", "error", "says"), BAD_NUMBERS)
def test_check_numbers_refuses_bad_numbers(no_hook, changed, error, says):
    with pytest.raises(error, match=f"^{says}"):
        check_numbers(**{"depth": 3, "gain": 1.0, "beta": 0.0} | changed)


@pytest.mark.parametrize(("changed", "error", "says"), BAD_ACTIVATION)
def test_as_activation_refuses_what_is_none(no_hook, changed, error, says):
    with pytest.raises(error, match=f"^{says}"):
        as_activation(**changed)


def test_check_numbers_gives_floats(no_hook):
    assert check_numbers(depth=np.int64(1), gain=np.float32(2), beta=0) == (2.0, 0.0)
    assert all(type(t) is float for t in check_numbers(depth=1, gain=jnp.float32(2), beta=1))


@pytest.mark.parametrize("argument", ["x", "y"])
@pytest.mark.parametrize("name", ["relu", "leaky_relu"])
def test_a_point_without_direction_has_no_angle(no_hook, name, argument):
    zero = X.copy()
    zero[1] = 0
    inputs = {"x": X, "y": X} | {argument: zero}
    with pytest.raises(
        ValueError, match=f"^{argument} needs nonzero points when beta is 0.* row 1"
    ):
        nngp(**inputs, depth=2, activation=name, beta=0.0)


@pytest.mark.parametrize(
    ("name", "beta"), [("relu", 0.1), ("erf", 0.0), ("sin", 0.0), ("cos", 0.0)]
)
def test_a_zero_point_is_fine_where_no_angle_is_taken(name, beta):
    x = np.array([[0.0, 0.0], [1.0, 2.0]])
    assert np.all(np.isfinite(nngp(x, depth=3, activation=name, beta=beta)))


def test_a_point_whose_square_underflows_has_no_angle():
    # 1e-25 is a float32, its square is not: a kernel of NaN would come back
    x = np.full((2, 2), 1e-25, np.float32)
    with pytest.raises(ValueError, match=r"^x needs nonzero points"):
        nngp(x, depth=2, beta=0.0)


def test_a_point_whose_square_overflows_is_refused():
    x = np.full((2, 2), 1e25, np.float32)
    with pytest.raises(ValueError, match=r"^x needs"):
        nngp(x, depth=2)


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


@pytest.mark.parametrize(
    ("take", "error", "says"),
    [
        (lambda: as_positive("rate", 0), ValueError, "rate needs a positive number, got 0"),
        (lambda: as_positive("rate", -0.5), ValueError, "rate needs a positive number, got -0.5"),
        (lambda: as_positive("rate", math.inf), ValueError, "rate needs a finite number"),
        (lambda: as_positive("rate", "fast"), TypeError, "rate needs a real number"),
        (lambda: as_nonnegative("time", -1), ValueError, "time needs a number that is 0 or more"),
        (lambda: as_nonnegative("time", math.inf), ValueError, "time needs a finite number"),
        (
            lambda: as_nonnegative("time", math.nan, infinite=True),
            ValueError,
            "time needs a finite",
        ),
        (lambda: as_symmetric("gram", np.ones(2)), ValueError, r"gram needs shape \(n, n\)"),
        (lambda: as_symmetric("gram", np.ones((2, 3))), ValueError, r"gram needs shape \(n, n\)"),
        (lambda: as_symmetric("gram", np.ones((0, 0))), ValueError, r"gram needs shape \(n, n\)"),
        (lambda: as_symmetric("gram", [[1.0, 2.0], [0.0, 1.0]]), ValueError, "gram needs a symm"),
    ],
)
def test_signs_and_symmetry_are_checked(no_hook, take, error, says):
    with pytest.raises(error, match=rf"^{says}"):
        take()


def test_what_has_the_right_sign_and_symmetry_passes(no_hook, x64):
    assert as_positive("rate", 1e-300) == 1e-300
    assert as_nonnegative("time", 0) == 0
    assert as_nonnegative("time", math.inf, infinite=True) == math.inf
    rounded = np.array([[1.0, 1 + 1e-15], [1.0, 1.0]])
    np.testing.assert_allclose(as_symmetric("gram", rounded), rounded)
