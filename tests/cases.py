"""What the test files share: points to try, finite differences, and tables of bad arguments.

A row of a table is (changed arguments, error, how its message begins).
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf

from ntk_lib.activations import ACTIVATIONS, leaky_relu
from ntk_lib.wide_networks import Layer, init

KEY = jax.random.key(0)
NAMES = ["relu", "leaky_relu", "erf", "sin", "cos"]
RNG_SEED = 18061806


def points(n, d, seed=0, dtype="float64"):
    """Random points whose norms spread over two decades, 0.1 to 10."""
    rng = np.random.default_rng([RNG_SEED, seed])
    x = rng.normal(size=(n, d))
    x *= 10 ** rng.uniform(-1, 1, (n, 1)) / np.linalg.norm(x, axis=1, keepdims=True)
    return x.astype(dtype)


def differences(f, x, step):
    """Central finite differences of a function of one array, one entry of it at a time."""
    steps = step * np.eye(x.size).reshape(x.size, *x.shape)
    rows = np.stack([np.asarray(f(x + s) - f(x - s)) / (2 * step) for s in steps], axis=-1)
    return rows.reshape(*rows.shape[:-1], *x.shape)


def numpy_jacobian(f, params, x):
    """∂f/∂w by central differences, all parameters in one last axis."""
    leaves, tree = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]

    def at(w):
        parts = zip(np.split(w, ends), leaves, strict=True)
        return f(jax.tree.unflatten(tree, [jnp.asarray(p.reshape(t.shape)) for p, t in parts]), x)

    return differences(at, np.concatenate([np.ravel(leaf) for leaf in leaves]), 1e-6)


def on_circle(n):
    """n equispaced points of the unit circle."""
    angles = 2 * np.pi * np.arange(n) / n
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


NUMPY = {
    "relu": lambda z: np.maximum(z, 0),
    "leaky_relu": lambda z: np.maximum(z, 0) + 0.01 * np.minimum(z, 0),
    "erf": erf,
    "sin": np.sin,
    "cos": np.cos,
}
SLOPES = {"relu": (0.0, 1.0), "leaky_relu": (0.01, 1.0)} | {
    f"slopes {p} {q}": (p, q) for p, q in [(0.2, 1.0), (-1.0, 1.0), (1.0, 1.0), (-0.3, -2.0)]
}


def activation_of(name):
    return ACTIVATIONS[name] if name in ACTIVATIONS else leaky_relu(*SLOPES[name])


X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)
NAN, INFINITE = X.copy(), X.copy()
NAN[1, 0], INFINITE[2, 1] = np.nan, -np.inf
PARAMS = init((2, 3, 1), key=KEY)

BAD_INPUT = [
    pytest.param({"x": X[0]}, ValueError, r"x needs shape .* got \(2,\)", id="x-rank-1"),
    pytest.param({"x": X[None]}, ValueError, r"x needs shape .* got \(1, 3, 2\)", id="x-rank-3"),
    pytest.param({"y": X[0]}, ValueError, r"y needs shape .* got \(2,\)", id="y-rank-1"),
    pytest.param({"y": X[:, :1]}, ValueError, "y needs the 2 features of x, got 1", id="features"),
    pytest.param(
        {"x": X[:0]}, ValueError, r"x needs at least one point .* got \(0, 2\)", id="none"
    ),
    pytest.param({"y": X[:0]}, ValueError, r"y needs at least one point", id="y-empty"),
    pytest.param({"x": NAN}, ValueError, "x needs finite numbers, got 1", id="nan"),
    pytest.param({"x": INFINITE}, ValueError, "x needs finite numbers, got 1", id="infinite"),
    pytest.param({"y": NAN}, ValueError, "y needs finite numbers, got 1", id="y-nan"),
    pytest.param({"x": X * 1j}, TypeError, "x needs real numbers, got dtype complex", id="complex"),
    pytest.param({"x": "two points"}, TypeError, "x needs a numeric array, got str", id="word"),
    pytest.param({"x": None}, TypeError, "x needs a numeric array, got NoneType", id="nothing"),
]
BAD_DEPTH = [
    pytest.param({"depth": 0}, ValueError, "depth needs .* got 0", id="depth-0"),
    pytest.param({"depth": 2.0}, TypeError, "depth needs an integer, .* got 2.0", id="depth-float"),
    pytest.param({"depth": "3"}, TypeError, "depth needs an integer, .* got '3'", id="depth-word"),
]
BAD_NUMBERS = [
    pytest.param({"gain": 0.0}, ValueError, "gain needs a positive .* got 0.0", id="gain-0"),
    pytest.param({"gain": -1.0}, ValueError, "gain needs a positive .* got -1", id="gain-negative"),
    pytest.param({"gain": math.nan}, ValueError, "gain needs .* got nan", id="gain-nan"),
    pytest.param({"gain": "two"}, TypeError, "gain needs .*'two'", id="gain-word"),
    pytest.param({"beta": -0.1}, ValueError, "beta needs .* got -0.1", id="beta-negative"),
    pytest.param({"beta": math.inf}, ValueError, "beta needs .* got inf", id="beta-infinite"),
    pytest.param({"activation": "gelu"}, ValueError, "activation needs .*'gelu'", id="unknown"),
    pytest.param({"activation": jnp.tanh}, TypeError, "activation needs .*quadrature", id="f"),
]
BAD_PARAMS = [
    pytest.param({"params": []}, ValueError, "params needs at least one layer", id="no-layers"),
    pytest.param({"params": 5}, TypeError, "params needs", id="no-sequence"),
    pytest.param({"params": [(1, 2)]}, TypeError, "params needs", id="no-layer"),
    pytest.param(
        {"params": [Layer(jnp.ones((1, 2), int), jnp.ones(1, int))]},
        TypeError,
        "params needs float arrays, got dtype int",
        id="integer-params",
    ),
    pytest.param(
        {"x": np.ones((3, 5), "f4"), "y": None}, ValueError, "x needs .* of 2", id="inputs"
    ),
]
