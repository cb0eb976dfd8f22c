"""Models of several positions, the same for both sides of a comparison: it needs JAX alone.

Serves ``ours`` and ``peers``. A model is a function of (parameters, inputs), with its parameters
and inputs, always the same, as float32.
"""

import itertools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["MODELS", "convolutional", "gated", "graph", "residual", "transformer"]

OUTPUTS = 10


def convolutional(n: int) -> tuple[Callable, list, np.ndarray]:
    """Three convolutions of 64 channels, ReLU, the mean over 8 × 8 pixels, a dense layer."""
    rng = np.random.default_rng(1806)
    shapes = [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 64), (64, OUTPUTS)]
    weights = [
        (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("float32")
        for shape in shapes
    ]

    def apply(params: list, x: jax.Array) -> jax.Array:
        names = ("NHWC", "HWIO", "NHWC")
        for kernel in params[:3]:
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)
            x = jnp.maximum(x, jnp.float32(0))
        return x.mean((1, 2)) @ params[3]

    return apply, weights, rng.standard_normal((n, 8, 8, 3), "float32")


def transformer(n: int) -> tuple[Callable, dict, np.ndarray]:
    """A causal transformer block: 32 places, 64 channels, 4 heads, an inner layer of 256."""
    places, channels, heads, inner = 32, 64, 4, 256
    rng = np.random.default_rng(1806)
    shapes = {
        "query": (channels, channels),
        "key": (channels, channels),
        "value": (channels, channels),
        "mixed": (channels, channels),
        "up": (channels, inner),
        "down": (inner, channels),
        "last": (channels, OUTPUTS),
    }
    params = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype("float32")
        for name, shape in shapes.items()
    }
    params |= {"scale": np.ones((2, 1, 1, channels), "float32")}

    def normalised(h: jax.Array, scale: jax.Array) -> jax.Array:
        h = h - h.mean(-1, keepdims=True)
        return h / jnp.sqrt((h**2).mean(-1, keepdims=True) + jnp.float32(1e-5)) * scale

    def apply(params: dict, x: jax.Array) -> jax.Array:
        h = normalised(x, params["scale"][0])
        query, key, value = (
            (h @ params[name]).reshape(len(x), places, heads, -1)
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("nthd,nshd->nhts", query, key) / np.float32(np.sqrt(channels // heads))
        seen = np.tril(np.ones((places, places), bool))[None, None]
        attention = jax.nn.softmax(jnp.where(seen, scores, jnp.float32(-1e9)), axis=-1)
        mixed = jnp.einsum("nhts,nshd->nthd", attention, value).reshape(x.shape)
        x = x + mixed @ params["mixed"]
        h = normalised(x, params["scale"][1])
        x = x + jnp.maximum(h @ params["up"], jnp.float32(0)) @ params["down"]
        return x[:, -1] @ params["last"]

    return apply, params, rng.standard_normal((n, places, channels), "float32")


def _drawn(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights of variance 1 over the number of their inputs."""
    return {
        name: (rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1]))).astype("float32")
        for name, shape in shapes.items()
    }


def residual(n: int) -> tuple[Callable, dict, np.ndarray]:
    """Two residual blocks of 32 channels, 12 × 12 pixels, batch norm in evaluation mode."""
    channels, names = 32, ("NHWC", "HWIO", "NHWC")
    rng = np.random.default_rng(1806)
    shapes = {"stem": (3, 3, 3, channels), "last": (channels, OUTPUTS)}
    shapes |= {f"conv {i}": (3, 3, channels, channels) for i in range(4)}
    params = _drawn(shapes, rng)
    params |= {f"scale {i}": np.ones(channels, "float32") for i in range(4)}
    params |= {f"shift {i}": np.zeros(channels, "float32") for i in range(4)}
    means = (0.1 * rng.standard_normal((4, channels))).astype("float32")
    deviations = (1 + 0.1 * rng.random((4, channels))).astype("float32")

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)

    def normalised(x: jax.Array, params: dict, i: int) -> jax.Array:
        return (x - means[i]) / deviations[i] * params[f"scale {i}"] + params[f"shift {i}"]

    def apply(params: dict, x: jax.Array) -> jax.Array:
        x = conv(x, params["stem"])
        for i in (0, 2):
            h = x
            for j in (i, i + 1):
                h = jnp.maximum(normalised(h, params, j), jnp.float32(0))
                h = conv(h, params[f"conv {j}"])
            x = x + h
        return x.mean((1, 2)) @ params["last"]

    return apply, params, rng.standard_normal((n, 12, 12, 3), "float32")


def gated(n: int) -> tuple[Callable, dict, np.ndarray]:
    """A gated recurrent unit of 64 numbers over 32 steps, read at the last one."""
    steps, width = 32, 64
    rng = np.random.default_rng(1806)
    shapes = {f"{part} {gate}": (width, width) for part in ("in", "back") for gate in "rzh"}
    params = _drawn(shapes | {"last": (width, OUTPUTS)}, rng)
    params |= {f"bias {gate}": np.zeros(width, "float32") for gate in "rzh"}

    def apply(params: dict, x: jax.Array) -> jax.Array:
        def gate(name: str, t: jax.Array, h: jax.Array) -> jax.Array:
            return t @ params[f"in {name}"] + h @ params[f"back {name}"] + params[f"bias {name}"]

        def step(h: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            reset, update = jax.nn.sigmoid(gate("r", t, h)), jax.nn.sigmoid(gate("z", t, h))
            proposed = jnp.tanh(gate("h", t, reset * h))
            return update * h + (1 - update) * proposed, None

        h, _ = jax.lax.scan(step, jnp.zeros_like(x[:, 0]), x.swapaxes(0, 1))
        return h @ params["last"]

    return apply, params, rng.standard_normal((n, steps, width), "float32")


def graph(n: int) -> tuple[Callable, dict, tuple[np.ndarray, np.ndarray]]:
    """Three rounds of messages of 64 channels on graphs of 24 nodes, and the mean of the nodes."""
    nodes, features, channels = 24, 16, 64
    rng = np.random.default_rng(1806)
    widths = [features, channels, channels, channels]
    shapes = {f"round {i}": pair for i, pair in enumerate(itertools.pairwise(widths))}
    params = _drawn(shapes | {"last": (channels, OUTPUTS)}, rng)
    edges = rng.random((n, nodes, nodes)) < 0.15
    edges = edges | edges.transpose(0, 2, 1) | np.eye(nodes, dtype=bool)
    roots = np.sqrt(edges.sum(-1))
    adjacency = (edges / roots[:, :, None] / roots[:, None]).astype("float32")

    def apply(params: dict, x: tuple[jax.Array, jax.Array]) -> jax.Array:
        adjacency, h = x
        for i in range(3):
            h = jnp.maximum(adjacency @ (h @ params[f"round {i}"]), jnp.float32(0))
        return h.mean(1) @ params["last"]

    return apply, params, (adjacency, rng.standard_normal((n, nodes, features), "float32"))


MODELS = {
    "convolutional": convolutional,
    "transformer": transformer,
    "residual": residual,
    "gated": gated,
    "graph": graph,
}
