"""What the test files share: points to try, finite differences, bad points."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from ntk_lib.engine.activations import ACTIVATIONS, leaky_relu
from ntk_lib.wide_networks import init

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
