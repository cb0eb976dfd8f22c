"""Random networks of any width and depth from one compiled program, in milliseconds.

Serves the figures of ``intro``, ``wide_networks`` and ``limiting_ntk`` in which a reader may type a
width. A compiled program has fixed shapes, so a new width costs a compilation, a second or more,
and a wide network n² random numbers a layer. Two remedies:

*Masks.* The arrays have room for more neurons than the network has, and those beyond its width are
held at zero: one program for all widths up to the room. A loop over the layers makes it one for all
depths.

*Only what the points see.* A matrix W of independent N(0, 1) meets N points in W H alone, H the
signals that come up, and in Wᵀ D, D those that come down. Let H = Q R, the columns of Q
orthonormal. Then Z = W Q is a matrix of independent N(0, 1), and what is left of W, W (I - Q Qᵀ),
is independent of it. So

    W H = Z R,        Wᵀ D = Q Zᵀ D + (I - Q Qᵀ) V S,        D = P S,

with P as Q is, and V = Wᵀ P of independent N(0, 1) again. This is the law of the whole network, at
every width, from 2 n N numbers a layer in place of n². D may depend on W H, which is known by then.

Source: the principle of deferred decisions, Lu 2021 (arXiv:2101.07464). Conventions and symbols are
those of ``wide_networks``.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from ntk_lib.engine.activations import Activation, as_activation
from ntk_lib.engine.arguments import as_inputs, as_key, as_scalar, as_whole, check_numbers

__all__ = ["kernels_of_any_size", "outputs_of_any_size"]


def room_for(width: int) -> int:
    """How many neurons a layer the program has room for: 512, 4096, …, at least ``width``.

    Few sizes, so that few programs are compiled; the smallest is fast enough for any figure.
    """
    room = 512
    while room < width:
        room *= 8
    return room


def normals(key: PRNGKeyArray, layer: ArrayLike, shape: tuple[int, int], dtype: object) -> Array:
    """The independent N(0, 1) of one layer."""
    return jax.random.normal(jax.random.fold_in(key, layer), shape, dtype)


class _Size(NamedTuple):
    """What the size of a network decides: which neurons live, and √(c/n) on these."""

    scale: Float[Array, "1 room"]
    depth: Array


def _size(room: int, width: Array, depth: Array, gain: Array) -> _Size:
    live = jnp.arange(room)[None, :] < width
    return _Size(jnp.where(live, jnp.sqrt(gain / width.astype(gain.dtype)), 0), depth)


def _first(key: PRNGKeyArray, x: Array, room: int, beta: Array) -> Float[Array, "n room"]:
    """α̃^(1): there are few weights, and all are drawn."""
    numbers = normals(key, 0, (room, x.shape[1] + 1), x.dtype)
    return x @ numbers[:, :-1].T / math.sqrt(x.shape[1]) + beta * numbers[None, :, -1]


class _Seen(NamedTuple):
    """W H + β b of a layer, (n, room), and how W acts on H: Q and Z, both (room, n)."""

    pre: Array
    basis: Array
    image: Array


def _factor(signals: Array) -> tuple[Array, Array]:
    """Q and R with Qᵀ Q = 1 and Q R = ``signals``ᵀ, (room, n) and (n, n), by way of the Gram.

    Directions in which the signals nearly vanish are left out, a column of Q being zero for each:
    those below ε^(1/3) of the largest. There what is left out, a share ε^(1/3), and the rounding
    error in Q, ε over the square of that, are of one size.
    """
    values, vectors = jnp.linalg.eigh(signals @ signals.T)
    least = jnp.finfo(signals.dtype).eps ** (2 / 3) * values[-1]
    kept = values > least
    roots = jnp.sqrt(jnp.where(kept, values, 1))
    basis = signals.T @ (vectors * jnp.where(kept, 1 / roots, 0)[None, :])
    return basis, jnp.where(kept, roots, 0)[:, None] * vectors.T


def _up(key: PRNGKeyArray, layer: ArrayLike, h: Array, beta: Array) -> _Seen:
    """From the signals ``h`` below a layer, (n, room), to its pre-activations."""
    basis, above = _factor(h)
    numbers = normals(key, layer, (h.shape[1], len(h) + 1), h.dtype)
    image = numbers[:, :-1]
    return _Seen((image @ above).T + beta * numbers[None, :, -1], basis, image)


def _down(key: PRNGKeyArray, layer: ArrayLike, seen: _Seen, delta: Array) -> Array:
    """Wᵀ D for the same W: from the signals ``delta`` above a layer, (n, room), to below it."""
    free = normals(key, layer, delta.shape[::-1], delta.dtype) @ _factor(delta)[1]
    return (free + seen.basis @ (seen.image.T @ delta.T - seen.basis.T @ free)).T


@functools.partial(jax.jit, static_argnames=("draws", "room", "sigma"))
def _outputs(
    key: PRNGKeyArray,
    x: Array,
    width: Array,
    depth: Array,
    gain: Array,
    beta: Array,
    *,
    draws: int,
    room: int,
    sigma: Activation,
) -> Float[Array, "draws n"]:
    size = _size(room, width, depth, gain)

    def one(key: PRNGKeyArray) -> Array:
        def layer(i: Array, z: Array) -> Array:
            return _up(key, i, size.scale * sigma.function(z), beta).pre

        z = jax.lax.fori_loop(1, depth - 1, layer, _first(key, x, room, beta))
        # the output is one more neuron: of the inputs at depth 1, of the last hidden layer else
        last = normals(key, depth, (1, room + 1), x.dtype)[0]
        above = size.scale * sigma.function(z) @ last[:-1] + beta * last[-1]
        return jnp.where(depth == 1, z[:, 0], above)

    # side by side while the arrays are small: a call of an operation has its price
    together = min(draws, max(1, 2048 // room))
    return jax.lax.map(one, jax.random.split(key, draws), batch_size=together)


@functools.partial(jax.jit, static_argnames=("draws", "room", "deepest", "sigma"))
def _kernels(
    key: PRNGKeyArray,
    x: Array,
    width: Array,
    depth: Array,
    gain: Array,
    beta: Array,
    *,
    draws: int,
    room: int,
    deepest: int,
    sigma: Activation,
) -> Float[Array, "draws n n"]:
    size = _size(room, width, depth, gain)
    inputs = x @ x.T / x.shape[1] + beta**2

    def signals(z: Array) -> tuple[Array, Array]:
        """α/√n with its gain, and the slope that belongs to it."""
        value, slope = jax.jvp(sigma.function, (z,), (jnp.ones_like(z),))
        return size.scale * value, size.scale * slope

    def one(layers: _Seen, key: PRNGKeyArray) -> tuple[_Seen, Array]:
        up, down = jax.random.split(key)

        def forward(i: Array, layers: _Seen) -> _Seen:
            seen = _up(up, i, signals(layers.pre[i - 1])[0], beta)
            return jax.tree.map(lambda all, new: all.at[i].set(new), layers, seen)

        def backward(j: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            theta, delta = state
            i = depth - 2 - j
            h, slope = signals(layers.pre[i - 1])
            theta = theta + (h @ h.T + beta**2) * (delta @ delta.T)
            seen = jax.tree.map(lambda all: all[i], layers)
            return theta, slope * _down(down, i, seen, delta)

        layers = layers._replace(pre=layers.pre.at[0].set(_first(up, x, room, beta)))
        layers = jax.lax.fori_loop(1, depth - 1, forward, layers)
        h, slope = signals(layers.pre[jnp.maximum(depth - 2, 0)])
        top = normals(down, 0, (1, room), x.dtype) * slope
        theta, delta = jax.lax.fori_loop(0, depth - 2, backward, (h @ h.T + beta**2, top))
        return layers, jnp.where(depth == 1, inputs, theta + inputs * (delta @ delta.T))

    # one draw overwrites what another has left: filling the space anew would take its time
    hidden, n = max(deepest - 1, 1), len(x)
    shapes = _Seen((n, room), (room, n), (room, n))
    space = _Seen(*(jnp.zeros((hidden, *shape), x.dtype) for shape in shapes))
    return jax.lax.scan(one, space, jax.random.split(key, draws))[1]


def outputs_of_any_size(
    x: Float[ArrayLike, "n d"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "draws n"]:
    """What ``wide_networks.random_outputs`` gives in law (not in numbers), fast at a new size.

    One program for all depths, and for all widths up to 512, 4096, …. Returns (draws, n).

    Raises what ``random_outputs`` raises.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    draws, width = as_whole("draws", draws, least=1), as_whole("width", width, least=1)
    x, _ = as_inputs(x)
    return _outputs(
        as_key("key", key),
        x,
        jnp.asarray(width),
        jnp.asarray(depth),
        as_scalar("gain", gain, x.dtype),
        as_scalar("beta", beta, x.dtype),
        draws=draws,
        room=room_for(width),
        sigma=sigma,
    )


def kernels_of_any_size(
    x: Float[ArrayLike, "n d"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    deepest: int = 16,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "draws n n"]:
    """What ``limiting_ntk.random_kernels`` gives in law (not in numbers), fast at a new size.

    One program for all depths up to ``deepest``, and for all widths up to 512, 4096, …. Holds
    ``deepest`` · room · n numbers three times. Returns (draws, n, n), each kernel symmetric to
    rounding.

    Raises what ``random_kernels`` raises, and ``ValueError`` for a depth above ``deepest``.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    draws, width = as_whole("draws", draws, least=1), as_whole("width", width, least=1)
    deepest = as_whole("deepest", deepest, least=1)
    as_whole("depth", depth, least=1, most=deepest)
    x, _ = as_inputs(x)
    return _kernels(
        as_key("key", key),
        x,
        jnp.asarray(width),
        jnp.asarray(depth),
        as_scalar("gain", gain, x.dtype),
        as_scalar("beta", beta, x.dtype),
        draws=draws,
        room=room_for(width),
        deepest=deepest,
        sigma=sigma,
    )
