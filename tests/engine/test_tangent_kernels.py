"""Tangent kernels of any function, against finite differences and whole Jacobians.

Every method, every choice of outputs and every size of block gives the same numbers: those of the
definition, computed here from one Jacobian of all points.
"""

import dataclasses
import functools
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED, numpy_jacobian, points

from ntk_lib.engine import tangent_kernels
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
@pytest.mark.parametrize(
    ("size", "dtype"),
    [(2**26, "float32"), (2**26, "float64"), (20_000, "float32"), (1, "float64")],
    indirect=["dtype"],
)
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


# ---------------------------------------------------------------- f as it is at the time of a call

SCALE, TABLE = 1.0, np.ones(2, "f4")
ONE, THREE = np.ones((1, 3), "f4"), np.ones(3, "f4")


class Net:
    """A model that reads an attribute of its own."""

    scale = 1.0

    def forward(self, params, x):
        return self.scale * (x @ params)

    __call__ = forward


class Unhashable(Net):
    __hash__ = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Module:
    """Arrays in a callable pytree, as equinox has it: it cannot be hashed either."""

    scale: jax.Array

    def __call__(self, params, x):
        return self.scale * (x @ params)


def reads_a_global(params, x):
    return SCALE * (x @ params)


def branches_on_a_global(params, x):
    return x @ params if SCALE == 1 else 10 * (x @ params)


def reads_a_table(params, x):
    return TABLE[0] * (x @ params)


def with_rules(params, x):
    return SCALE * jax.nn.relu(x @ params)


def reading(monkeypatch, what):
    """A function that reads 1, and how to have it read 10."""
    this = sys.modules[__name__]
    held, net, table = [1.0], Net(), np.ones(2, "f4")
    monkeypatch.setattr(this, "TABLE", table)

    def set_global():
        monkeypatch.setattr(this, "SCALE", 10.0)

    def set_table():
        monkeypatch.setattr(this, "TABLE", np.full(2, 10, "f4"))

    def change_table():
        table[:] = 10

    def set_shape():
        held[0] = jnp.full((2, 1), 10.0)

    def set_array():
        held[0] = 10 * jnp.ones(())

    def from_held(params, x):
        return jnp.asarray(held[0], "float32").reshape(-1)[0] * (x @ params)

    unhashable, module = Unhashable(), Module(jnp.ones(()))
    return {
        "a global": (reads_a_global, set_global),
        "a branch on a global": (branches_on_a_global, set_global),
        "a global with rules of derivatives": (with_rules, set_global),
        "another array": (reads_a_table, set_table),
        "an array changed in place": (reads_a_table, change_table),
        "an attribute": (net.forward, lambda: setattr(net, "scale", 10.0)),
        "a callable object": (net, lambda: setattr(net, "scale", 10.0)),
        "an unhashable object": (unhashable, lambda: setattr(unhashable, "scale", 10.0)),
        "a module of arrays": (module, lambda: setattr(module, "scale", 10 * jnp.ones(()))),
        "an entry of a list": (from_held, lambda: held.__setitem__(0, 10.0)),
        "an entry that becomes an array": (from_held, set_array),
        "an entry that changes its shape": (from_held, set_shape),
        "a partial function": (
            functools.partial(lambda c, p, t: c[0] * (t @ p), held),
            lambda: held.__setitem__(0, 10.0),
        ),
    }[what]


READ = [
    "a global",
    "a branch on a global",
    "a global with rules of derivatives",
    "another array",
    "an array changed in place",
    "an attribute",
    "a callable object",
    "an unhashable object",
    "a module of arrays",
    "an entry of a list",
    "an entry that becomes an array",
    "an entry that changes its shape",
    "a partial function",
]


@every_method
@pytest.mark.parametrize("what", READ)
def test_what_f_reads_is_read_at_every_call(what, method, monkeypatch):
    f, change = reading(monkeypatch, what)
    assert float(empirical_ntk(f, THREE, ONE, method=method)[0, 0]) == pytest.approx(3.0)
    assert float(tangent_product(f, THREE, ONE, ONE[0, :1])[0]) == pytest.approx(3.0)
    slope = jax.grad(lambda p: empirical_ntk(f, p, ONE, method=method)[0, 0])
    assert np.all(slope(THREE) == 0)
    change()
    assert float(empirical_ntk(f, THREE, ONE, method=method)[0, 0]) == pytest.approx(300.0)
    assert float(tangent_product(f, THREE, ONE, ONE[0, :1])[0]) == pytest.approx(300.0)


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_a_random_key_that_f_reads_is_read_at_every_call(make):
    def drawn():
        return jax.random.uniform(key, (), minval=1, maxval=2)

    for seed in range(2):
        key = make(seed)
        theta = empirical_ntk(lambda p, x: drawn() * (x @ p), THREE, ONE)
        assert float(theta[0, 0]) == pytest.approx(3 * float(drawn()) ** 2, rel=1e-6)


def test_what_f_reads_is_read_at_every_call_under_a_transformation(monkeypatch):
    def cubic(p, x):
        return SCALE * (x @ p**2)

    def slope():
        return float(jax.grad(lambda p: empirical_ntk(cubic, p, ONE)[0, 0])(THREE)[0])

    assert slope() == pytest.approx(8.0)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 10.0)
    assert slope() == pytest.approx(800.0)


@every_method
def test_a_new_function_of_the_same_code_compiles_nothing(method):
    params, x = init((3, 5, 2), key=KEY, dtype="float32"), points(6, 3, dtype="float32")
    thetas, sizes = [], []
    for number in (0.0, 1.0, 0.0):
        shift = jnp.full((1, 2), number, "float32")
        f = lambda p, t: jax.nn.relu(apply(p, t) + shift)  # noqa: B023, E731
        thetas.append(empirical_ntk(f, params, x, method=method))
        tangent_product(f, params, x, jnp.ones((6, 2), "float32"))
        programs = (tangent_kernels._kernel, tangent_kernels._differences, tangent_kernels.run)
        sizes.append([program._cache_size() for program in programs])
    assert sizes[0] == sizes[1] == sizes[2]
    np.testing.assert_array_equal(thetas[0], thetas[2])
    assert not np.array_equal(thetas[0], thetas[1])


# ---------------------------------------------------------------- an f that couples its points


def normalised(h):
    return (h - h.mean(0, keepdims=True)) / jnp.sqrt(h.var(0, keepdims=True) + 1e-5)


def batch_norm(p, x):
    return jnp.tanh(normalised(x @ p["V"])) @ p["w"]


def dropout(p, x):
    kept = jax.random.bernoulli(KEY, 0.5, x.shape)
    return jnp.tanh(jnp.where(kept, x, 0) @ p["V"]) @ p["w"]


def mean_of_the_batch(p, x):
    h = jnp.tanh(x @ p["V"]) @ p["w"]
    return h - h.mean()


def stochastic_depth(p, x):
    h = x @ p["V"]
    h = h + jnp.where(jax.random.bernoulli(KEY, 0.5, (len(x), 1)), jnp.tanh(h), 0)
    return h @ p["w"]


def over_the_deviation(p, x):
    """Of a point alone it is 0/0."""
    h = x @ p["V"]
    return (h - h.mean(0, keepdims=True)) / h.std(0, keepdims=True) @ p["w"]


def coupled_params(dtype="float32"):
    V, w = points(5, 5, 3, dtype=dtype), points(5, 2, 4, dtype=dtype)
    return {"V": jnp.asarray(V), "w": jnp.asarray(w)}


COUPLED = [batch_norm, dropout, mean_of_the_batch, stochastic_depth, over_the_deviation]


@every_method
@pytest.mark.parametrize("with_y", [False, True])
@pytest.mark.parametrize("f", COUPLED)
def test_an_f_that_couples_the_points_of_its_batch_is_refused(f, with_y, method, dtype):
    params, x = coupled_params(dtype), points(9, 5, dtype=dtype)
    y = points(3, 5, 1, dtype=dtype) if with_y else None
    with pytest.raises(ValueError, match=r"^f needs to treat the points of a batch one by one"):
        empirical_ntk(f, params, x, y, method=method)
    product = tangent_product(f, params, x, jnp.ones((9, 2), dtype))
    assert np.all(np.isfinite(product))


def test_one_key_for_a_batch_of_one_point_is_found_by_taking_it_twice():
    with pytest.raises(ValueError, match=r"^f needs to treat .* when the batch is turned round"):
        empirical_ntk(dropout, coupled_params(), points(1, 5, dtype="float32"))


def layer_norm(h):
    centred = h - h.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def recurrent(p, x):
    def step(h, part):
        gate = jax.nn.sigmoid(part[:, None] * p["w"][:, 0][None] + h @ p["V"])
        return gate * h + (1 - gate) * jnp.tanh(part[:, None] + h @ p["V"]), None

    start = jnp.zeros((len(x), 5), x.dtype)
    return jax.lax.scan(step, start, x.T)[0] @ p["w"]


def attention(p, x):
    h = x[:, :, None] * p["V"][None]
    scores = jax.nn.softmax(jnp.einsum("btd,bsd->bts", h, h), axis=-1)
    return layer_norm(scores @ h).mean(1) @ p["w"]


def convolved(p, x):
    image = x.reshape(-1, 1, 5, 1)
    filters = p["V"].reshape(1, 5, 1, 5)
    names = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(image, filters, (1, 1), "SAME", dimension_numbers=names)
    return jnp.tanh(h).mean((1, 2)) @ p["w"]


def in_bfloat16(p, x):
    half = jax.tree.map(lambda w: w.astype("bfloat16"), p)
    h = x.astype("bfloat16")
    for _ in range(4):
        h = jnp.tanh(h @ half["V"])
    return (h @ half["w"]).astype(x.dtype)


def a_key_for_each_point(p, x):
    def one(row):
        key = jax.random.key(jax.lax.bitcast_convert_type(row[0].astype("float32"), jnp.uint32))
        return jnp.where(jax.random.bernoulli(key, 0.5, row.shape), row, 0) @ p["V"] @ p["w"]

    return jax.vmap(one)(x)


SEPARATE = [layer_norm, recurrent, attention, convolved, in_bfloat16, a_key_for_each_point]


@pytest.mark.parametrize("f", SEPARATE)
def test_an_f_that_treats_each_point_by_itself_is_not_refused(f, dtype):
    params, x = coupled_params(dtype), points(9, 5, dtype=dtype)

    def g(p, t):
        return f(p, t) if f is not layer_norm else layer_norm(t @ p["V"]) @ p["w"]

    assert empirical_ntk(g, params, x, points(3, 5, 1, dtype=dtype)).shape == (9, 3, 2, 2)


def test_a_large_network_is_not_refused_for_its_rounding():
    params = init((784, 512, 512, 512, 10), key=KEY, dtype="float32")
    x = points(5, 784, dtype="float32")
    assert empirical_ntk(apply, params, 100 * x, outputs="trace").shape == (5, 5)


def test_outputs_that_are_all_rounding_are_not_taken_for_coupling(dtype):
    # (x V) w - x (V w) is 0 but for rounding, which another size of batch may change
    rng, x = np.random.default_rng(RNG_SEED), points(9, 300, dtype=dtype)
    V, w = (jnp.asarray(rng.normal(size=s).astype(dtype)) for s in ((300, 300), (300, 2)))
    for f, params in (
        (lambda p, t: (t @ p["V"]) @ p["w"] - t @ (p["V"] @ p["w"]), {"V": V, "w": w}),
        (lambda p, t: (t @ V) @ p["w"] - t @ (p["V"] @ w), {"V": V, "w": w}),
    ):
        assert empirical_ntk(f, params, x, outputs="trace").shape == (9, 9)


# ---------------------------------------------------------------- inputs of several arrays


class Graph(NamedTuple):
    A: jax.Array
    X: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Tokens:
    ids: jax.Array
    mask: jax.Array


def masked_mean(p, b):
    ids, mask = (b["ids"], b["mask"]) if isinstance(b, dict) else (b.ids, b.mask)
    h = jnp.tanh(p["table"][ids]) * mask[:, :, None].astype(p["table"].dtype)
    return h.sum(1) @ p["last"]


def on_graphs(p, b):
    A, X = b
    return jnp.tanh(jnp.einsum("nij,njk->nik", A, X) @ p["table"][:2, :]).sum(1) @ p["last"]


def several(kind, n, seed):
    rng = np.random.default_rng([RNG_SEED, seed])
    if kind in ("dict", "dataclass"):
        ids, mask = rng.integers(0, 6, (n, 4)), rng.random((n, 4)) < 0.7
        return {"ids": ids, "mask": mask} if kind == "dict" else Tokens(ids, mask)
    A, X = rng.normal(size=(n, 3, 3)), rng.normal(size=(n, 3, 2))
    return (A, X) if kind == "tuple" else Graph(A, X)


SEVERAL = ["dict", "dataclass", "tuple", "named tuple"]


# every structure in full, one of them in every kind of output
@every_method
@pytest.mark.parametrize(
    ("kind", "outputs"),
    [*((kind, "full") for kind in SEVERAL), ("dict", "diagonal"), ("tuple", "trace")],
)
def test_inputs_may_be_several_arrays_with_one_leading_axis(kind, outputs, method, blocks_of, x64):
    rng = np.random.default_rng(RNG_SEED)
    params = {"table": rng.normal(size=(6, 3)), "last": rng.normal(size=(3, 2))}
    f = masked_mean if kind in ("dict", "dataclass") else on_graphs
    x, y = several(kind, 7, 0), several(kind, 4, 1)

    def whole(points):
        jac = jax.jit(jax.jacobian(lambda p: f(p, jax.tree.map(jnp.asarray, points))))(params)
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(jac)]
        return np.concatenate([leaf.reshape(*leaf.shape[:2], -1) for leaf in leaves], axis=2)

    for other in (None, y):
        full = np.einsum("nip,mjp->nmij", whole(x), whole(x if other is None else other))
        diagonal = np.einsum("nmii->nmi", full)
        expected = {"full": full, "diagonal": diagonal, "trace": diagonal.sum(2)}[outputs]
        for size in (2**26, 1500):
            blocks_of(size)
            theta = empirical_ntk(f, params, x, other, outputs=outputs, method=method)
            np.testing.assert_allclose(theta, expected, rtol=1e-11, atol=1e-11)
        if outputs == "full":
            v = rng.normal(size=(full.shape[1], 2))
            product = tangent_product(f, params, x, v, other)
            np.testing.assert_allclose(product, np.einsum("nmij,mj->ni", full, v), atol=1e-10)


def test_coupling_is_found_in_inputs_of_several_arrays(x64):
    def f(p, b):
        return normalised(b["a"] * b["b"]) @ p

    x = {"a": points(6, 3), "b": points(6, 3, 1)}
    with pytest.raises(ValueError, match=r"^f needs to treat the points of a batch one by one"):
        empirical_ntk(f, jnp.ones(3), x)


def test_lists_and_tuples_of_numbers_are_one_array_as_ever(x64):
    w, rows = jnp.array([1.0, 2.0]), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    expected = np.array(rows) @ np.array(rows).T
    for given in (rows, tuple(map(tuple, rows)), [np.array(row) for row in rows]):
        np.testing.assert_allclose(empirical_ntk(lambda p, t: t @ p, w, given), expected)


# ---------------------------------------------------------------- half precision


@pytest.mark.parametrize(("half", "most"), [("bfloat16", 0.05), ("float16", 0.005)])
@every_kind
def test_in_half_precision_the_sums_are_those_of_float32(half, most, outputs):
    params = init((20, 100, 100, 3), key=KEY, dtype="float32")
    x, y = points(6, 20, dtype="float32"), points(4, 20, 1, dtype="float32")
    rounded = jax.tree.map(lambda w: w.astype(half), params)
    single = jax.tree.map(lambda w: w.astype("float32"), rounded)
    for other in (None, y):
        theta = empirical_ntk(apply, rounded, x, other, outputs=outputs)
        exact = np.asarray(empirical_ntk(apply, single, x, other, outputs=outputs))
        assert theta.dtype == "float32"
        assert np.abs(theta - exact).max() < most * np.abs(exact).max()


def test_sums_of_many_parameters_lose_nothing_in_half_precision():
    # 4096 products of 1: in bfloat16 a sum stops at 256, in float16 at 2048
    for half in ("bfloat16", "float16"):
        w, x = jnp.zeros(4096, half), jnp.ones((2, 4096), half)
        np.testing.assert_array_equal(
            empirical_ntk(lambda p, t: t @ p, w, x), np.full((2, 2), 4096)
        )


def test_auto_takes_no_products_in_half_precision(blocks_of, monkeypatch):
    blocks_of(2**26)
    params, x = init((30, 40, 50, 10), key=KEY, dtype="float32"), jnp.ones((8, 30))
    assert planned(apply, params, x, 10).products
    chosen = []
    monkeypatch.setattr(tangent_kernels, "_by_layers", lambda *_: None)  # nothing is recognised
    plan = tangent_kernels._plan
    monkeypatch.setattr(tangent_kernels, "_plan", lambda *a: chosen.append(a[-1]) or plan(*a))
    empirical_ntk(apply, jax.tree.map(lambda w: w.astype("bfloat16"), params), x)
    empirical_ntk(lambda p, t: apply(p, t).astype("bfloat16"), params, x)
    assert chosen == ["contraction"] * 2


# ---------------------------------------------------------------- running statistics


NORM = {"scale": ONE[0], "bias": ONE[0], "mean": ONE[0], "var": ONE[0]}


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"params": {"w": THREE}, "batch_stats": {"m": THREE}}, r"\['batch_stats'\]"),
        ({"params": {"w": THREE}, "cache": {"m": THREE}}, r"\['cache'\]"),
        ({"w": THREE, "model": {"batch_stats": [THREE]}}, r"\['model'\]\['batch_stats'\]\[0\]"),
        ({"w": THREE, "running_mean": THREE}, r"\['running_mean'\]"),
        ({"w": THREE, "bn": {"running_var": THREE}}, r"\['bn'\]\['running_var'\]"),
        ({"w": THREE, "bn": {"moving_mean": THREE}}, r"\['bn'\]\['moving_mean'\]"),
        ({"w": THREE, "bn": NORM}, r"\['bn'\]\['mean'\], \['bn'\]\['var'\]"),
    ],
)
@pytest.mark.parametrize("function", [empirical_ntk, tangent_product])
def test_running_statistics_among_the_parameters_are_named_in_a_warning(params, named, function):
    def f(p, x):
        return x @ (p["params"]["w"] if "params" in p else p["w"])

    more = (np.ones(1, "f4"),) if function is tangent_product else ()
    with pytest.warns(UserWarning, match=f"^params needs what is trained, got {named}: running"):
        function(f, params, ONE, *more)


@pytest.mark.parametrize(
    "params",
    [
        {"w": THREE, "mean": THREE, "var": THREE},  # a Gaussian, say
        {"w": THREE, "ln": {"scale": THREE, "bias": THREE}},
        {"params": {"w": THREE}},
        {"params": {"w": THREE}, "batch_stats": {}},
    ],
)
def test_other_parameters_give_no_warning(params):
    theta = empirical_ntk(lambda p, x: x @ p.get("params", p)["w"], params, ONE)
    assert float(theta[0, 0]) == 3.0


# ---------------------------------------------------------------- the choice of a method


def convolution(params, x):
    kernel, last = params
    pixels = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(pixels).mean((1, 2)) @ last


def planned(f, params, x, k, outputs="full", method="auto"):
    return tangent_kernels._plan(f, params, x, len(x), k, outputs, method)


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
    def asked(*_):
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
