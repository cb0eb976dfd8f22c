"""Tangent kernels by layers that are found in a trace, against whole Jacobians."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RNG_SEED

from ntk_lib.engine import structure, tangent_kernels
from ntk_lib.engine.programs import traced
from ntk_lib.engine.tangent_kernels import OUTPUTS, empirical_ntk


def draw(*shape, seed=0):
    return np.asarray(np.random.default_rng([RNG_SEED, seed, *shape]).normal(size=shape))


# ---------------------------------------------------------------- models, of one batch each


def dense(p, x):
    h = jax.nn.relu(jnp.dot(x, p["first"].T * 0.5) + p["bias"][None])
    return (p["last"] @ h.T).T / np.sqrt(5.0)


def convolutional(p, x):
    names = ("NHWC", "HWIO", "NHWC")
    h = jax.lax.conv_general_dilated(x, p["same"], (2, 1), "SAME", dimension_numbers=names)
    names = ("NHWC", "OHWI", "NCHW")
    h = jax.lax.conv_general_dilated(
        jnp.tanh(h), p["valid"], (1, 1), ((1, 0), (0, 0)), (1, 2), (2, 1), dimension_numbers=names
    )
    grouped = jax.lax.conv_general_dilated(h, p["grouped"], (1, 1), "SAME", feature_group_count=2)
    return grouped.mean((2, 3))


def normalised(h):
    h = h - h.mean(-1, keepdims=True)
    return h / jnp.sqrt((h**2).mean(-1, keepdims=True) + 1e-5)


def transformer(p, ids):
    """A causal block of tokens, its last layer the embedding; queries and keys from one product."""
    h = p["embedding"][ids] * 2.0 + p["places"][None]

    @jax.checkpoint
    def block(h):
        query, key, value = jnp.split(normalised(h) * p["scale"][None, None] @ p["qkv"], 3, axis=-1)
        scores = jnp.einsum("ntd,nsd->nts", query, key)
        seen = np.tril(np.ones(scores.shape[1:], bool))[None]
        return h + jax.nn.softmax(jnp.where(seen, scores, -1e9), axis=-1) @ value

    return jnp.tanh(jax.jit(block)(h)[:, -1]) @ p["embedding"].T


def residual(p, x):
    """Batch normalisation in evaluation mode: the statistics are no parameters."""
    names = ("NHWC", "HWIO", "NHWC")
    h = x
    for kernel, scale, shift in p["blocks"]:
        new = jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=names)
        new = (new - 0.1) / np.sqrt(1.3) * scale[None, None, None] + shift[None, None, None]
        h = h + jax.nn.relu(new)
    return h.mean((1, 2)) @ p["last"]


def gated(p, x):
    """A GRU over the second axis, with its outputs at all places used."""

    def step(h, part):
        gate = jax.nn.sigmoid(part @ p["in"] + h @ p["gate"] + p["bias"][None])
        new = jnp.tanh(part @ p["in"] + (gate * h) @ p["new"])
        return gate * h + (1 - gate) * new, new

    start = jnp.tile(p["start"][None], (len(x), 1))
    last, seen = jax.lax.scan(step, start, x.transpose(1, 0, 2), reverse=True)
    return last + seen.mean(0)


def graph(p, x):
    """A graph, its adjacency and features, and a mask of its nodes."""
    h = jnp.tanh(x["adjacency"] @ x["features"] @ p[0])
    h = jnp.tanh(x["adjacency"] @ h @ p[0].T @ p[1])
    return jnp.where(x["mask"][:, :, None], h, 0).sum(1)


def unusual(p, x):
    """What is not found: a weight through sin, a product of two, a weight norm; None is no leaf."""
    h = jnp.tanh(x @ jnp.sin(p["sine"]))
    h = jnp.tanh(h @ p["twice"] @ p["twice"].T + h @ (p["twice"] @ p["twice"].T))
    return h @ (p["norm"] / jnp.linalg.norm(p["norm"]) * p["size"]) ** 2 + p["plain"][None]


def reread(p, x):
    """Products that are read beside their sum with a bias, which then has a signal of its own."""
    z = x @ p["first"] / 2
    h = jnp.tanh(z + p["one"]) * z
    s, t = jax.jit(lambda h: (h @ p["second"], jnp.sin(h)))(h)
    u = s * 3.0 + p["two"]
    _ = u @ p["second"]  # a result that nobody reads
    return jax.jit(lambda s, b: jnp.tanh(s + b) * s)(u, p["three"]) + t


CELL = eqx.partition(eqx.nn.MLP(3, 2, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)


def module(p, x):
    return jax.vmap(eqx.combine(p, CELL[1]))(x)


IDS = np.array([[0, 1, 4, 1], [2, 2, -1, 3], [4, 0, 0, 1]])
GRAPH = {"adjacency": draw(3, 4, 4), "features": draw(3, 4, 3), "mask": IDS > 0}
MODELS = {
    "dense": (dense, {"first": (4, 3), "bias": (4,), "last": (2, 4)}, (3, 3)),
    "convolutional": (
        convolutional,
        {"same": (3, 2, 2, 4), "valid": (6, 2, 2, 4), "grouped": (4, 3, 2, 2)},
        (3, 5, 4, 2),
    ),
    "transformer": (
        transformer,
        {"embedding": (5, 4), "places": (4, 4), "scale": (4,), "qkv": (4, 12)},
        IDS,
    ),
    "residual": (
        residual,
        {"blocks": [((3, 3, 2, 2), (2,), (2,)), ((2, 3, 2, 2), (2,), (2,))], "last": (2, 2)},
        (3, 3, 4, 2),
    ),
    "gated": (
        gated,
        {"in": (3, 4), "gate": (4, 4), "new": (4, 4), "bias": (4,), "start": (4,)},
        (3, 5, 3),
    ),
    "graph": (graph, [(3, 4), (3, 2)], GRAPH),
    "unusual": (
        unusual,
        {"sine": (3, 4), "twice": (4, 4), "norm": (4, 2), "size": (), "plain": (2,), "no": None},
        (3, 3),
    ),
    "reread": (
        reread,
        {"first": (3, 4), "one": (1, 4), "second": (4, 4), "two": (1, 4), "three": (1, 4)},
        (3, 3),
    ),
    "module": (module, jax.tree.map(lambda leaf: leaf.shape, CELL[0]), (3, 3)),
}


def is_shape(value):
    return isinstance(value, tuple) and all(isinstance(n, int) for n in value)


def case(name):
    f, shapes, x = MODELS[name]
    params = jax.tree.map(lambda shape: draw(*shape, seed=1), shapes, is_leaf=is_shape)
    return f, params, draw(*x, seed=2) if is_shape(x) else x


def close(found, expected):
    assert found.shape == expected.shape
    # sums of some hundred products, relative to the largest
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


# ---------------------------------------------------------------- the same kernel


@pytest.mark.parametrize("name", MODELS)
def test_the_kernel_by_layers_is_that_of_the_jacobian(name, x64):
    f, params, x = case(name)
    some = jax.tree.map(lambda leaf: leaf[:2], x)
    close(
        empirical_ntk(f, params, x, some, method="structure"),
        empirical_ntk(f, params, x, some, method="contraction"),
    )


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("at_once", [None, 1, 18])
def test_pairs_of_places_and_slices_of_derivatives_agree(at_once, outputs, monkeypatch, x64):
    # places of one product, of five; rows that are looked up; slices that do not divide the rows,
    # or, where one column is allowed, the columns
    if at_once:
        monkeypatch.setattr(structure, "_LEAST", 2)
        monkeypatch.setattr(structure, "_AT_ONCE", at_once)
        monkeypatch.setattr(structure, "_TOGETHER", 2)
        monkeypatch.setattr(structure, "_FEW", 3)
    monkeypatch.setattr(structure, "_costs", lambda *_: (1.0, 0.0) if at_once else (0.0, 1.0))

    def f(p, ids):
        h = jnp.tanh(p["embedding"][ids] @ p["inner"])
        return h[:, 0] @ p["last"]

    shapes = {"embedding": (5, 3), "inner": (3, 5), "last": (5, 2)}
    params = {name: draw(*shape, seed=3) for name, shape in shapes.items()}
    close(
        empirical_ntk(f, params, IDS, outputs=outputs, method="structure"),
        empirical_ntk(f, params, IDS, outputs=outputs, method="contraction"),
    )


def test_blocks_of_points_give_the_same(monkeypatch, x64):
    f, params, x = case("gated")
    monkeypatch.setattr(tangent_kernels, "_BLOCK_BYTES", 2**14)
    close(
        empirical_ntk(f, params, x, outputs="trace", method="structure"),
        empirical_ntk(f, params, x, outputs="trace", method="contraction"),
    )


# ---------------------------------------------------------------- what is found


def found(name):
    f, params, x = case(name)
    point = jax.tree.map(lambda leaf: leaf[0], x)

    def single(p, t):
        return f(p, jax.tree.map(lambda leaf: leaf[None], t)).reshape(-1)

    with jax.enable_x64(True):
        leaves = structure.layers(
            traced(single, params, point).program, len(jax.tree.leaves(params))
        ).leaves
    return [("".join("l" if u.looked_up else "p" for u in t.uses), t.otherwise) for t in leaves]


@pytest.mark.parametrize(
    ("name", "uses"),
    [  # p: a product, l: a lookup; and whether in another way too; leaves by their names
        ("dense", [("p", False), ("p", False), ("p", False)]),
        ("convolutional", [("", True), ("p", False), ("p", False)]),
        ("transformer", [("lp", False), ("", True), ("p", False), ("", True)]),
        ("gated", [("", True), ("p", False), ("pp", False), ("p", False), ("", True)]),
        # by their names: one, second, …; the bias of a product that is read once has its signal
        ("reread", [("p", False), ("", True), ("p", False), ("", True), ("p", False)]),
        ("unusual", [("", True), ("", True), ("", True), ("", True), ("ppp", True)]),
    ],
)
def test_each_use_of_a_parameter_is_found(name, uses):
    assert found(name) == uses


def test_no_array_has_the_size_of_the_jacobian():
    # 1.2 million parameters, 64 points, 3 outputs: 922 MB of Jacobian; the weights are 4.8
    widths = (64, 1024, 1024, 3)
    params = [jax.ShapeDtypeStruct(shape, "float32") for shape in itertools.pairwise(widths)]

    def f(p, x):
        return jnp.tanh(jnp.tanh(x @ p[0]) @ p[1]) @ p[2]

    def kernel(p, x):
        return empirical_ntk(f, p, x)

    x = jax.ShapeDtypeStruct((64, 64), "float32")
    memory = jax.jit(kernel).lower(params, x).compile().memory_analysis()
    # signals of 3 outputs by 2·1024 units, factors, and the kernel's parts: some 64·10^4 numbers
    assert memory.temp_size_in_bytes < 12e6


# ---------------------------------------------------------------- under transformations


def test_a_kernel_by_layers_can_be_derived_and_mapped(x64):
    f, params, x = case("dense")

    def entry(p, method):
        return jnp.sin(empirical_ntk(f, p, x, method=method)).sum()

    ours, theirs = (
        jax.jit(jax.grad(lambda p, m=method: entry(p, m)))(params)
        for method in ("structure", "contraction")
    )
    for name, slope in theirs.items():
        np.testing.assert_allclose(ours[name], slope, rtol=0, atol=1e-11 * np.abs(slope).max())


def test_in_half_precision_the_sums_are_those_of_float32():
    params = {"w": jnp.ones((4096, 2), "bfloat16")}
    x = jnp.ones((2, 4096), "bfloat16")
    theta = empirical_ntk(lambda p, t: t @ p["w"], params, x, outputs="trace", method="structure")
    assert theta.dtype == "float32"
    np.testing.assert_array_equal(theta, np.full((2, 2), 2 * 4096))


def test_a_new_function_of_the_same_code_compiles_nothing():
    params, x, sizes = draw(3, 2).astype("float32"), draw(4, 3).astype("float32"), []
    for number in (0.0, 1.0):
        shift = jnp.full((1, 2), number)
        f = lambda p, t: jax.nn.relu(t @ p + shift)  # noqa: B023, E731
        empirical_ntk(f, params, x, method="structure")
        sizes.append(tangent_kernels._kernel._cache_size())
    assert sizes[0] == sizes[1]
