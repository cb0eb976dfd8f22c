"""What the checks of arguments give for good ones; what they refuse is in ``test_refusals``."""

import functools
import math
import sys

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
from ntk_lib.kernels import rbf
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


def test_as_inputs_computes_in_float32_or_more_and_takes_the_wider_of_two(no_hook, x64):
    half, single, double = (np.ones((1, 2), t) for t in (np.float16, np.float32, np.float64))
    brief = jnp.ones((1, 2), jnp.bfloat16)
    for short in (half, brief, np.asarray(brief)):
        assert as_inputs(short)[0].dtype == "float32"
        assert {t.dtype.name for t in as_inputs(short, short)} == {"float32"}
        assert {t.dtype.name for t in as_inputs(short, single)} == {"float32"}
        assert {t.dtype.name for t in as_inputs(double, short)} == {"float64"}
    assert {t.dtype.name for t in as_inputs(double, single)} == {"float64"}


@pytest.mark.parametrize("short", [jnp.bfloat16, jnp.float16])
def test_kernels_of_short_floats_are_those_of_their_float32_values(no_hook, short):
    x = jnp.array([[1.5, -2.0], [0.25, 300.0]], short)  # 300² is no float16
    for kernel in (functools.partial(nngp, depth=3), rbf):
        assert kernel(x).dtype == "float32"
        np.testing.assert_array_equal(kernel(x), kernel(x.astype("float32")))
        inside = jax.jit(kernel)(x)
        assert inside.dtype == "float32"
        np.testing.assert_allclose(inside, kernel(x), rtol=1e-5)


def test_foreign_bytes_and_long_doubles_are_native_floats(no_hook, dtype):
    x = np.array([[1.5, -2.0], [0.25, 3.0]])
    order = "<" if sys.byteorder == "big" else ">"
    for kind in ("f4", "f8", "i2"):
        foreign = x.astype(order + kind)
        array = as_array("x", foreign)
        assert array.dtype == as_array("x", x.astype(kind)).dtype
        np.testing.assert_array_equal(array, x.astype(kind))
    for wide in (x.astype(np.longdouble), np.longdouble(0.25)):
        assert as_array("x", wide).dtype == dtype
        np.testing.assert_array_equal(as_array("x", wide), np.asarray(wide, float))
    np.testing.assert_array_equal(rbf(x.astype(order + "f4")), rbf(x.astype("f4")))


class Frame:
    """What is asked of a pandas frame."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self.dtypes = [getattr(c, "dtype", c) for c in columns.values()]
        self.values = np.array([[object()]])

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize(
    ("column", "said"),
    [(np.array([True]), "bool"), (np.array(["a"]), "<U1"), ("Int64", "Int64")],
)
def test_a_table_is_refused_with_the_column_its_dtype_and_the_way_out(no_hook, column, said):
    frame = Frame(a=np.ones(1), flag=column, later="string")
    with pytest.raises(TypeError, match=rf"^x needs a numeric array, got Frame .* {said}: ") as no:
        as_array("x", frame)
    assert "column 'flag'" in str(no.value)
    assert "x.astype(float)" in str(no.value)
    assert "get_dummies(x).astype(float)" in str(no.value)


def test_booleans_are_refused_with_the_way_out(no_hook):
    with pytest.raises(
        TypeError, match=r"^x needs real numbers, got dtype bool: numpy.asarray\(x, float"
    ):
        as_array("x", np.array([True]))


@pytest.mark.parametrize("error", [RuntimeError, TypeError])
def test_a_tensor_that_numpy_cannot_read_is_refused_with_the_way_out(no_hook, error):
    class Tensor:
        dtype = "torch.bfloat16"

        def detach(self):
            return self

        def __array__(self, dtype=None, copy=None):
            raise error("Can't call numpy() on Tensor that requires grad.")

    says = r"^x needs a numeric array, got Tensor of torch\.bfloat16: x\.detach\(\)"
    with pytest.raises(TypeError, match=says):
        as_array("x", Tensor())


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
