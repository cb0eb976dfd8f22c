"""Two models of several positions, the same for both sides of a comparison: it needs JAX alone.

Serves ``ours`` and ``peers``. A model is a function of (parameters, inputs), with its parameters
and inputs, always the same, as float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["MODELS", "convolutional", "transformer"]

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


MODELS = {"convolutional": convolutional, "transformer": transformer}
