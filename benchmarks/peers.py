"""The other side: neural-tangents (Novak et al. 2020) and scikit-ntk (Lencevičius 2022).

    .venv-peers/bin/python -m benchmarks.peers        see ``worker`` for the protocol

Their conventions in ours. neural-tangents with ``parameterization="ntk"`` has our network when the
first layer has W_std = 1, the others W_std = √gain, and b_std = β. scikit-ntk has ReLU, gain 2 and
inputs that are not divided by d, counts hidden layers, and divides the kernel by their number plus
one; its bias is not that of the paper, so it is compared without.
"""

import functools
import itertools
import math
import sys
import types
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.models import MODELS
from benchmarks.worker import network, points, serve

# Its import wants TensorFlow, and nothing here uses it.
sys.modules["neural_tangents.experimental"] = types.ModuleType("neural_tangents.experimental")

import neural_tangents  # noqa: E402
from neural_tangents import NtkImplementation, stax  # noqa: E402
from skntk import NeuralTangentKernel  # noqa: E402

__all__ = ["ACTIVATIONS", "empirical", "images", "limit", "model", "multilayer", "structured"]

ACTIVATIONS = {
    "relu": stax.Relu,
    "leaky_relu": functools.partial(stax.LeakyRelu, 0.1),
    "erf": stax.Erf,
    "sin": stax.Sin,
    "cos": stax.Cos,
}


def multilayer(widths: list[int], *, gain: float, beta: float, activation: str) -> tuple:
    """(init, apply, kernel) of the network with these widths n₁ … n_L."""
    layers = []
    for i, width in enumerate(widths):
        if i:
            layers.append(ACTIVATIONS[activation]())
        scale = math.sqrt(gain) if i else 1.0
        layers.append(stax.Dense(width, W_std=scale, b_std=beta or None, parameterization="ntk"))
    return stax.serial(*layers)


def _structured(name: str, options: dict) -> tuple:
    """One layer of ``ntk_lib.architectures``, by its name and options."""
    scales = {key: options.get(key, default) for key, default in (("W_std", 1.0), ("b_std", 0.0))}

    def both(value: int | list[int]) -> tuple[int, ...]:
        return (value, value) if isinstance(value, int) else tuple(value)

    if name == "conv":
        window, stride = both(options["filter"]), both(options.get("stride", 1))
        padding = options.get("padding", "SAME")
        return stax.Conv(1, window, stride, padding, **scales, parameterization="ntk")
    if name == "dense":
        return stax.Dense(1, **scales, parameterization="ntk")
    if name == "activation":
        return ACTIVATIONS[options["sigma"]]()
    if name == "average_pool":
        window = both(options["window"])
        return stax.AvgPool(window, both(options.get("stride", window)))
    if name == "attention":
        key, W_std = options["key_std"], options["W_std"]
        return stax.GlobalSelfAttention(
            1, 1, 1, 1, linear_scaling=True, W_key_std=key, W_query_std=key, W_value_std=W_std,
            b_std=options.get("b_std"),
        )  # fmt: skip
    if name == "residual":
        short = options.get("shortcut")
        sides = structured(options["branch"]), structured(short) if short else stax.Identity()
        return stax.serial(stax.FanOut(2), stax.parallel(*sides), stax.FanInSum())
    others = {"flatten": stax.Flatten, "global_average": stax.GlobalAvgPool}
    return (others | {"layer_norm": stax.LayerNorm})[name]()


def structured(layers: list[tuple[str, dict]]) -> tuple:
    """(init, apply, kernel) of the network of these layers."""
    return stax.serial(*itertools.starmap(_structured, layers))


def limit(
    method: str, *, data: str, n: int, d: int, depth: int, gain: float, beta: float, activation: str
) -> Callable[[], object]:
    """The limiting NTK by "neural-tangents" or "scikit-ntk"."""
    x = points(data, n, d)
    if method == "scikit-ntk":
        if (activation, gain, beta) != ("relu", 2, 0):
            raise ValueError("scikit-ntk is compared for relu, gain 2 and beta 0 only")
        kernel, factor = NeuralTangentKernel(depth=depth - 1, bias=0.0), depth / d
        return lambda: kernel(x) * factor
    _, _, kernel = multilayer([1] * depth, gain=gain, beta=beta, activation=activation)
    return functools.partial(jax.jit(lambda t: kernel(t, None, "ntk")), jnp.asarray(x))


def images(
    method: str, *, n: int, size: int, channels: int, depth: int, gain: float, beta: float
) -> Callable[[], Array]:
    """The NTK of a convolutional network with pooling: "whole", compiled, or "batched" by 20."""
    x = points("gaussian", n, size * size * channels).reshape(n, size, size, channels)
    conv = ["conv", {"filter": 3, "W_std": math.sqrt(gain), "b_std": beta}]
    block = [conv, ["activation", {"sigma": "relu"}]]
    _, _, kernel = structured([*block * depth, ["global_average", {}], ["dense", {}]])
    if method == "batched":
        batched = neural_tangents.batch(kernel, batch_size=20)
        return lambda: batched(jnp.asarray(x), None, "ntk")
    return functools.partial(jax.jit(lambda t: kernel(t, None, "ntk")), jnp.asarray(x))


def empirical(
    method: str, *, widths: list[int], n: int, gain: float, beta: float
) -> Callable[[], Array]:
    """The NTK of one network by the implementation of that name, all pairs of outputs."""
    x = jnp.asarray(points("gaussian", n, widths[0]))
    _, apply, _ = multilayer(widths[1:], gain=gain, beta=beta, activation="relu")
    params = []
    for i, (W, b) in enumerate(network(widths)):
        layer = (jnp.asarray(W.T), jnp.asarray(b)[None] if beta else None)
        params += [(), layer] if i else [layer]
    kernel = neural_tangents.empirical_ntk_fn(
        apply, trace_axes=(), vmap_axes=0, implementation=NtkImplementation[method]
    )
    call = jax.jit(lambda p: kernel(x, None, p))
    if widths[-1] == 1:
        call = jax.jit(lambda p: kernel(x, None, p)[:, :, 0, 0])
    return functools.partial(call, params)


def model(method: str, *, name: str, n: int) -> Callable[[], Array]:
    """The trace kernel of a model by the implementation of that name; theirs is a mean over k."""
    apply, params, x = MODELS[name](n)
    x, params = jnp.asarray(x), jax.tree_util.tree_map(jnp.asarray, params)
    k = apply(params, x[:1]).shape[-1]
    kernel = neural_tangents.empirical_ntk_fn(
        apply, trace_axes=(-1,), vmap_axes=0, implementation=NtkImplementation[method]
    )
    return functools.partial(jax.jit(lambda p: k * kernel(x, None, p)), params)


if __name__ == "__main__":
    tasks = {"limit": limit, "empirical": empirical, "model": model, "images": images}
    serve(tasks, ["jax", "neural-tangents", "scikit-ntk"])
