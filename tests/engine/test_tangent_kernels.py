"""Tangent kernels of any function, against finite differences and whole Jacobians.

Every method, every choice of outputs and every size of block gives the same numbers: those of the
definition, computed here from one Jacobian of all points.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED, numpy_jacobian, points

from ntk_lib.engine import tangent_kernels
from ntk_lib.engine.programs import traced
from ntk_lib.engine.tangent_kernels import (
    OUTPUTS,
    as_matrix,
    empirical_ntk,
    tangent_product,
    upper_mirrored,
)
from ntk_lib.wide_networks import apply, init

jitted = jax.jit(
    empirical_ntk, static_argnums=0, static_argnames=("outputs", "method")
)  # a test of its own calls it as it is

every_method = pytest.mark.parametrize("method", ["contraction", "products"])
every_kind = pytest.mark.parametrize("outputs", OUTPUTS)

# ---------------------------------------------------------------- the definition


def toy(params, x):
    """Not a perceptron: products, a scalar parameter, an unused one; inputs (n, 2, 3)."""
    scores = jnp.einsum("nij,jk->nik", x, params["B"])
    pooled = jnp.sin(scores).sum(1) * params["a"]["scale"]
    return pooled + jnp.exp(-(pooled[:, ::-1] ** 2)) * params["a"]["shift"][None, :]


def toy_params():
    rng = np.random.default_rng(RNG_SEED)
    return {
        "B": jnp.asarray(rng.normal(size=(3, 2))),
        "a": {"scale": jnp.asarray(0.7), "shift": jnp.asarray(rng.normal(size=2))},
        "unused": jnp.ones(4),
    }


def test_empirical_ntk_of_any_function_is_a_product_of_jacobians(x64):
    rng = np.random.default_rng(RNG_SEED)
    params = toy_params()
    x, y = jnp.asarray(rng.normal(size=(4, 2, 3))), jnp.asarray(rng.normal(size=(3, 2, 3)))
    left, right = (numpy_jacobian(toy, params, t) for t in (x, y))
    theta = np.asarray(jitted(toy, params, x, y))
    assert theta.shape == (4, 3, 2, 2)
    for n, m, i, j in np.ndindex(4, 3, 2, 2):
        assert theta[n, m, i, j] == pytest.approx(left[n, i] @ right[m, j], abs=1e-7)
    gram = np.einsum("nip,mjp->nmij", left, left)
    np.testing.assert_allclose(jitted(toy, params, x), gram, atol=1e-7)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_empirical_ntk_of_one_output_has_no_output_axes(shape, x64):
    params, x = toy_params(), jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)))

    def first(p, t):
        return toy(p, t)[:, 0].reshape(shape)

    theta = jitted(first, params, x, x[:3])
    assert theta.shape == (4, 3)
    np.testing.assert_allclose(theta, jitted(toy, params, x, x[:3])[:, :, 0, 0], rtol=1e-12)


def test_an_entry_is_the_product_of_two_single_gradients(x64):
    params, x = init((3, 5, 1), key=KEY), jnp.asarray(points(3, 3))
    theta = np.asarray(jitted(apply, params, x, x[1:]))
    gradient = jax.jit(jax.grad(lambda p, point: apply(p, point)[0]))
    flat = [np.concatenate([np.ravel(t) for t in jax.tree.leaves(gradient(params, p))]) for p in x]
    for i, j in np.ndindex(3, 2):
        assert theta[i, j] == pytest.approx(flat[i] @ flat[j + 1], rel=1e-12)


def test_empirical_ntk_takes_a_plain_number_as_parameter(x64):
    x = jnp.array([[1.0], [3.0]])
    theta = jitted(lambda w, t: w**2 * t[:, 0], 5.0, x)
    np.testing.assert_allclose(theta, 100 * np.outer(x, x), rtol=1e-12)


# ---------------------------------------------------------------- blocks, methods, outputs


def outputs_of(k):
    """The toy with k of its outputs and their products: k = 1, 2 or 3."""

    def f(params, x):
        out = toy(params, x)
        return jnp.concatenate([out, out[:, :1] * out[:, 1:]], axis=1)[:, :k]

    return f


def by_definition(f, params, x, y, outputs):
    """Θ from the Jacobian of the whole batch, by NumPy."""

    def rows(t):
        jac = jax.jit(jax.jacobian(lambda p: f(p, jnp.asarray(t)).reshape(len(t), -1)))(params)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jac)]
        return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)

    theta = np.einsum("nip,mjp->nmij", rows(x), rows(x if y is None else y))
    if outputs == "full":
        return theta[:, :, 0, 0] if theta.shape[2] == 1 else theta
    diagonal = np.einsum("nmii->nmi", theta)
    return diagonal.sum(2) if outputs == "trace" else diagonal


def swapped(theta):
    theta = np.asarray(theta).swapaxes(0, 1)
    return theta.swapaxes(2, 3) if theta.ndim == 4 else theta


def batches(with_y, dtype="float64"):
    rng = np.random.default_rng([RNG_SEED, 1])
    x, y = rng.normal(size=(7, 2, 3)), rng.normal(size=(5, 2, 3))
    return x.astype(dtype), y.astype(dtype) if with_y else None


@pytest.fixture
def blocks_of(monkeypatch):
    """Sets how many bytes a block may take, and has every size of kernel planned."""

    def change(size):
        monkeypatch.setattr(tangent_kernels, "_BLOCK_BYTES", size)
        monkeypatch.setattr(tangent_kernels, "_SMALL", 0)

    return change


# In bytes: a single block; blocks of some points, the last one not full; blocks of one point.
SIZES = [2**26, 4000, 1]


@every_method
@every_kind
@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("with_y", [False, True])
def test_every_method_and_block_gives_the_definition(k, with_y, outputs, method, blocks_of, x64):
    f, params, (x, y) = outputs_of(k), toy_params(), batches(with_y)
    expected = by_definition(f, params, x, y, outputs)
    for size in SIZES if k == 3 else SIZES[1:2]:
        blocks_of(size)
        theta = empirical_ntk(f, params, x, y, outputs=outputs, method=method)
        assert theta.shape == expected.shape
        # sums of some ten products of numbers of order 1 to 100
        np.testing.assert_allclose(theta, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("with_y", [False, True])
@pytest.mark.parametrize("size", [1, 4095, 4096, 4097, 3 * 4096, 3 * 4096 + 5])
def test_every_parameter_is_contracted_once(size, with_y, x64):
    # some thousand are taken at a time, and then the rest; the Jacobian of x·w is x
    rng = np.random.default_rng([RNG_SEED, size])
    x, y = rng.normal(size=(3, size)), rng.normal(size=(2, size)) if with_y else None
    theta = empirical_ntk(lambda w, t: t @ w, jnp.zeros(size), x, y, method="contraction")
    # 12 000 products of order 1 and as many roundings; one left out or twice would be an error of 1
    np.testing.assert_allclose(theta, x @ (x if y is None else y).T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (2, 5), (1, 7), (7, 1), (4, 2)])
def test_blocks_need_not_divide_the_points_nor_be_square(rows, columns, products, x64):
    f, params, (x, y) = outputs_of(2), toy_params(), batches(True)
    plan = tangent_kernels._Plan(products, rows, columns)
    model, _ = tangent_kernels._model(f, params, x, None, derivatives=False)
    block = jax.ShapeDtypeStruct((columns, 2, 3), x.dtype)
    model = tangent_kernels._with_push(model, f, params, block, derivatives=False)
    for other in (None, y):
        theta = tangent_kernels._kernel(
            model,
            params,
            jnp.asarray(x),
            None if other is None else jnp.asarray(other),
            outputs="full",
            plan=plan,
            dtype=jnp.dtype("float64"),
        )
        theta = upper_mirrored(theta) if other is None else theta
        expected = by_definition(f, params, x, other, "full")
        np.testing.assert_allclose(theta, expected, rtol=1e-11, atol=1e-11)


@every_method
@every_kind
@pytest.mark.parametrize("size", [2**26, 20_000, 1])
def test_without_y_the_kernel_is_symmetric_to_the_last_bit(outputs, method, size, blocks_of, dtype):
    blocks_of(size)
    params = init((5, 40, 30, 3), key=KEY, dtype=dtype)
    x = points(9, 5, dtype=dtype)
    kernel = functools.partial(empirical_ntk, apply, outputs=outputs, method=method)
    theta = np.asarray(kernel(params, x))
    np.testing.assert_array_equal(theta, swapped(theta))
    assert theta.dtype == dtype
    # one program with more in it: XLA may round a sum of some 1500 products in two ways
    within, scale = np.asarray(jax.jit(kernel)(params, x)), np.abs(theta).max()
    tolerance = 50 * np.finfo(dtype).eps * scale
    np.testing.assert_allclose(within, swapped(within), atol=tolerance, rtol=0)
    np.testing.assert_allclose(within, theta, atol=tolerance, rtol=0)


@every_kind
def test_only_the_upper_part_is_looked_at_when_mirroring(outputs, x64):
    rng = np.random.default_rng(RNG_SEED)
    shape = {"full": (4, 4, 3, 3), "trace": (4, 4), "diagonal": (4, 4, 3)}[outputs]
    theta = rng.normal(size=shape)
    theta[np.tril_indices(4, -1)] = np.nan
    result = np.asarray(upper_mirrored(jnp.asarray(theta)))
    for i in range(4):
        np.testing.assert_array_equal(result[i, i + 1 :], theta[i, i + 1 :])
        np.testing.assert_array_equal(result[i + 1 :, i], swapped(theta[i : i + 1, i + 1 :])[:, 0])
        mean = (theta[i, i] + theta[i, i].T) / 2
        np.testing.assert_array_equal(result[i, i], mean)


@every_method
def test_tokens_scalars_and_unhashable_functions(method, blocks_of, x64):
    # integers look rows up in a table; a scalar parameter scales; the function holds an array
    class Model:
        __hash__ = None

        def __call__(self, params, tokens):
            return params["scale"] * jnp.tanh(params["table"][tokens]).sum(1)

    params = {"scale": np.float64(1.7), "table": jnp.asarray(points(6, 2))}
    tokens = np.array([[0, 1, 5], [2, 2, 3], [5, 1, 4]])
    for size in (2**26, 1):
        blocks_of(size)
        theta = empirical_ntk(Model(), params, tokens, method=method)
        jac = numpy_jacobian(Model(), params, tokens)
        np.testing.assert_allclose(
            theta, np.einsum("nip,mjp->nmij", jac, jac), rtol=1e-6, atol=1e-8
        )


@every_method
def test_it_is_traced_mapped_and_differentiated(method, blocks_of, x64):
    blocks_of(4000)
    f, params, (x, y) = outputs_of(2), toy_params(), batches(True)

    def corner(scale):
        changed = params | {"a": params["a"] | {"scale": scale}}
        theta = empirical_ntk(
            lambda p, t: scale * f(p, t), changed, x, y, outputs="trace", method=method
        )
        return theta[0, 1]

    scales = jnp.asarray([0.5, 1.2])
    values = jax.jit(jax.vmap(corner))(scales)
    np.testing.assert_allclose(values[1], corner(scales[1]), rtol=1e-12)
    ends = jax.jit(jax.vmap(corner))(jnp.asarray([0.5 - 1e-5, 0.5 + 1e-5]))
    slope = float(ends[1] - ends[0]) / 2e-5
    for derivative in (jax.grad, jax.jacfwd):
        assert float(jax.jit(derivative(corner))(0.5)) == pytest.approx(slope, rel=1e-6)


# ---------------------------------------------------------------- the choice of a method


def convolution(params, x):
    kernel, last = params
    pixels = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(pixels).mean((1, 2)) @ last


def planned(f, params, x, k, outputs="full", method="auto"):
    forward = traced(f, params, x)
    return tangent_kernels._plan(forward, params, len(x), len(x), k, outputs, method)


@every_kind
def test_auto_takes_products_for_dense_layers_and_contraction_for_convolutions(outputs, blocks_of):
    blocks_of(2**26)
    for k in (1, 10):
        params, x = init((30, 40, 50, k), key=KEY), jnp.ones((8, 30))
        assert planned(apply, params, x, k, outputs).products
        filters = (jnp.ones((3, 3, 2, 8)), jnp.ones((8, k)))
        assert not planned(convolution, filters, jnp.ones((8, 6, 6, 2)), k, outputs).products


def test_auto_takes_products_for_convolutions_with_very_many_outputs(blocks_of):
    # F is some 2·36 a weight of the filter, and the last layer's 8·2000 weights are used once
    blocks_of(2**26)
    filters, x = (jnp.ones((3, 3, 2, 8)), jnp.ones((8, 2000))), jnp.ones((8, 6, 6, 2))
    assert planned(convolution, filters, x, 2000).products


@pytest.mark.parametrize("cost", [None, [], [{}], {}, [{"flops": 10.0}]])
def test_auto_needs_no_cost_analysis(cost, blocks_of, monkeypatch):
    # what backends and versions of JAX return that do not count: nothing, a list, a part
    class Lowered:
        def cost_analysis(self):
            return cost

    class Jitted:
        def lower(self, *_):
            return Lowered()

    blocks_of(2**26)
    params, x = init((3, 4, 1), key=KEY), jnp.ones((5, 3))
    tangent_kernels._cost.cache_clear()
    monkeypatch.setattr(tangent_kernels.jax, "jit", lambda _: Jitted())
    assert planned(apply, params, x, 1) == (cost == [{"flops": 10.0}], 5, 5)


def test_a_small_kernel_does_not_ask_what_f_costs(monkeypatch):
    def asked(forward):
        raise LookupError

    monkeypatch.setattr(tangent_kernels, "_cost_of_a_point", asked)
    params, x = jnp.ones(3), jnp.ones((5, 3))
    assert planned(lambda w, t: t @ w, params, x, 1) == (False, 5, 5)
    with pytest.raises(LookupError):
        planned(lambda w, t: t @ w, params, x, 1, method="products")


def test_what_f_costs_is_asked_once_for_functions_that_do_the_same():
    tangent_kernels._cost.cache_clear()
    x = jnp.ones((5, 3))
    for number in range(3):
        shift = jnp.full(5, number, float)
        planned(lambda w, t: t @ w + shift, jnp.ones(3), x, 1, method="products")  # noqa: B023
    assert tangent_kernels._cost.cache_info().misses == 1


def test_blocks_hold_what_they_may_and_are_of_equal_size(blocks_of):
    params, x = init((30, 40, 1), key=KEY), jnp.ones((100, 30))
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    blocks_of(30 * weights)
    assert planned(apply, params, x, 1, method="contraction") == (False, 25, 25)
    assert planned(apply, params, x, 1, method="products").rows == 25
    blocks_of(weights // 2)
    assert planned(apply, params, x, 1, method="contraction") == (False, 1, 1)


@every_method
def test_a_program_holds_the_jacobian_of_blocks_only(method, blocks_of):
    # compiled from shapes alone: 64 points, whose Jacobian would be 64 copies of the weights
    params = jax.eval_shape(lambda key: init((16, 512, 512, 1), key=key), KEY)
    x = jax.ShapeDtypeStruct((64, 16), "float32")
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    blocks_of(4 * weights)
    kernel = functools.partial(jitted, apply, method=method)
    memory = jax.jit(kernel).lower(params, x).compile().memory_analysis()
    # two blocks of four points, and again as much that the backward pass holds before its result
    assert memory.temp_size_in_bytes < 20 * weights


# ---------------------------------------------------------------- the matrix, and its products


def test_as_matrix_orders_rows_and_columns_by_point(x64):
    f, params, (x, y) = outputs_of(3), toy_params(), batches(True)
    theta = empirical_ntk(f, params, x, y)
    matrix = np.asarray(as_matrix(theta))
    assert matrix.shape == (21, 15)
    for n, m, i, j in np.ndindex(7, 5, 3, 3):
        assert matrix[3 * n + i, 3 * m + j] == theta[n, m, i, j]
    np.testing.assert_array_equal(as_matrix(theta[:, :, 0, 0]), theta[:, :, 0, 0])


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("with_y", [False, True])
def test_a_tangent_product_is_the_matrix_times_the_vector(k, with_y, x64):
    f, params, (x, y) = outputs_of(k), toy_params(), batches(with_y)
    m = len(x if y is None else y)
    v = np.random.default_rng(2).normal(size=(m, k))
    matrix = np.asarray(as_matrix(empirical_ntk(f, params, x, y)))
    product = tangent_product(f, params, x, v, y)
    assert product.shape == (7, k)
    np.testing.assert_allclose(product.reshape(-1), matrix @ v.reshape(-1), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_tangent_product_of_one_output_has_the_shape_of_its_vector(shape, dtype):
    params, x = init((3, 5, 1), key=KEY, dtype=dtype), points(4, 3, dtype=dtype)
    v, theta = np.arange(4.0), np.asarray(empirical_ntk(apply, params, x))

    def f(p, t):
        return apply(p, t).reshape(shape)

    for vector in (v, v[:, None]):
        product = tangent_product(f, params, x, vector)
        assert product.shape == vector.shape
        assert product.dtype == dtype
        scale = np.abs(theta).max() * 6
        tolerance = 20 * np.finfo(dtype).eps * scale  # a sum of some 20 products
        np.testing.assert_allclose(product, theta @ vector.astype(dtype), atol=tolerance, rtol=0)


def test_a_tangent_product_holds_nothing_of_the_size_of_a_kernel():
    # 4096 points, whose kernel would be 64 MiB; forward signals are 4096·(16 + 8 + 1) numbers
    params = jax.eval_shape(lambda key: init((16, 8, 1), key=key), KEY)
    x, v = jax.ShapeDtypeStruct((4096, 16), "float32"), jax.ShapeDtypeStruct((4096,), "float32")
    product = functools.partial(tangent_product, apply)
    memory = jax.jit(product).lower(params, x, v).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 10 * 4 * 4096 * 25
