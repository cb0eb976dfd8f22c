"""Our side: what `make bench` measures of ntk_lib.

    python -m benchmarks.ours        in the book's environment; see ``worker`` for the protocol

Functions are called as a user calls them, the checks of their arguments included.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.models import MODELS
from benchmarks.worker import LENGTH, SHIFT, Solved, network, points, serve
from ntk_lib import architectures as arch
from ntk_lib.engine.activations import as_activation, leaky_relu
from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.limiting_ntk import mlp_ntk, ntk, recursive_ntk
from ntk_lib.scale import regression
from ntk_lib.wide_networks import Layer, apply

__all__ = ["empirical", "images", "limit", "model", "solver"]


@jax.jit
def _product(x: Array) -> Array:
    return x @ x.T


def limit(
    method: str, *, data: str, n: int, d: int, depth: int, gain: float, beta: float, activation: str
) -> Callable[[], Array]:
    """The limiting NTK: "ntk", "recursion", "float64" (the recursion), or x xᵀ alone, "product"."""
    x = points(data, n, d)
    sigma = leaky_relu(0.1) if activation == "leaky_relu" else as_activation(activation)
    keywords = {"depth": depth, "gain": gain, "beta": beta, "activation": sigma}
    if method == "float64":

        def exact() -> Array:
            with jax.enable_x64(True):
                return recursive_ntk(x.astype("float64"), **keywords)

        return exact
    x = jnp.asarray(x)
    calls = {
        "ntk": functools.partial(ntk, x, **keywords),
        "recursion": functools.partial(recursive_ntk, x, **keywords),
        "product": functools.partial(_product, x),
    }
    return calls[method]


def images(
    method: str, *, n: int, size: int, channels: int, depth: int, gain: float, beta: float
) -> Callable[[], Array]:
    """The NTK of a convolutional network with pooling; ``method`` is ours, the only one."""
    x = points("gaussian", n, size * size * channels).reshape(n, size, size, channels)
    block = arch.conv(3, W_std=math.sqrt(gain), b_std=beta), arch.activation("relu")
    net = arch.serial(*block * depth, arch.global_average(), arch.dense())
    return functools.partial(arch.kernel, net, jnp.asarray(x))


def empirical(
    method: str, *, widths: list[int], n: int, gain: float, beta: float
) -> Callable[[], Array]:
    """The NTK of one network: "layers", or as of any function, by a method of its."""
    x = jnp.asarray(points("gaussian", n, widths[0]))
    params = [Layer(jnp.asarray(W), jnp.asarray(b)) for W, b in network(widths)]
    if method == "layers":
        return functools.partial(mlp_ntk, params, x, gain=gain, beta=beta)
    call = jax.jit(
        lambda p: empirical_ntk(
            lambda w, t: apply(w, t, activation="relu", gain=gain, beta=beta), p, x, method=method
        )
    )
    return functools.partial(call, params)


def model(method: str, *, name: str, n: int) -> Callable[[], Array]:
    """The trace kernel of a model, as of any function."""
    apply, params, x = MODELS[name](n)
    x, params = jax.tree.map(jnp.asarray, (x, params))
    call = jax.jit(lambda p: empirical_ntk(apply, p, x, outputs="trace", method=method))
    return functools.partial(call, params)


@jax.jit
def _laplace(x: Array, y: Array | None = None) -> Array:
    others = x if y is None else y
    squares = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)[None] - 2 * x @ others.T
    if y is None:
        squares = jnp.where(jnp.eye(len(x), dtype=bool), 0.0, squares)
    return jnp.exp(-jnp.sqrt(jnp.maximum(squares, 0)) / LENGTH)


def solver(
    method: str, *, landmarks: int, tolerance: float, memory: int
) -> Callable[[np.ndarray, np.ndarray], Solved]:
    """``scale.regression`` with the kernel "laplace", or "ntk": ReLU, depth 3, bias 0.1."""
    kernel = {"laplace": _laplace, "ntk": functools.partial(ntk, depth=3, beta=0.1)}[method]

    def solve(x: np.ndarray, targets: np.ndarray) -> Solved:
        found = regression(
            kernel,
            x,
            targets,
            ridge=SHIFT / len(x),
            tolerance=tolerance,
            landmarks=landmarks,
            memory=memory,
            key=jax.random.key(1806),
        )
        return Solved(x, np.asarray(found.coefficients), found.steps)

    if method == "ntk":
        solve.kernel = kernel
    return solve


if __name__ == "__main__":
    tasks = {"limit": limit, "empirical": empirical, "model": model, "images": images}
    serve(tasks | {"solver": solver}, ["jax"])
