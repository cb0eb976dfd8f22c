"""Networks with structure, and the two kernels that each has when it is very wide.

Serves the chapter ``architectures``. A network is written as it is read,

    net = serial(conv(3), activation("relu"), global_average(), dense())
    kernel(net, images)                                  # the limiting NTK, exact

and each layer is a small record with a rule. The parametrisation is that of the book (NTK
parametrisation, every weight and every bias from N(0, 1)): a convolution computes

    z = W_std/√(filter·channels) · W * x + b_std · b,

``dense`` the same at one position, on the last axis. ``W_std`` and ``b_std`` are the field's names:
√gain and β elsewhere in this library, where the gain belongs to the activation below a layer and
the first layer has W_std = 1 (``multilayer`` writes that network).

With many channels every position p of an image x is, channel by channel, an independent Gaussian.
The state of the recursion is what two positions of two images have in common,

    K(p, q) = E[z_p(x) z_q(x')]        and its share Θ(p, q) in the tangent kernel,

from K = x_p·x'_q/channels and Θ = 0 of the images themselves. ``Pair`` holds both, each layer's
``rule`` moves them one layer up, and the last one leaves a number a pair of images.

A layer takes expectations of what is below it. An ``activation`` needs a Gaussian there, so it
follows layers with weights of their own. A sum needs no Gaussian but independent summands: a branch
has to end in a layer with weights. ``Signal`` keeps account of this, and refuses the rest.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from tqdm import tqdm

from ntk_lib.engine.activations import Activation, Moments, as_activation
from ntk_lib.engine.angles import arc_cosine_at, safe_sqrt
from ntk_lib.engine.arguments import (
    as_array,
    as_choice,
    as_counts,
    as_float_dtype,
    as_key,
    as_nonnegative,
    as_number,
    as_whole,
    check_known,
    check_numbers,
)
from ntk_lib.engine.interpolation import enable_x64

__all__ = [
    "NETWORKS",
    "Kernels",
    "Network",
    "activation",
    "attention",
    "average_pool",
    "conv",
    "covariances",
    "dense",
    "flatten",
    "global_average",
    "kernel",
    "layer_norm",
    "multilayer",
    "network",
    "residual",
    "serial",
]

PADDINGS = ("SAME", "CIRCULAR", "VALID")


class Kernels(NamedTuple):
    """The two kernels of a wide network: the covariance of its outputs, and its tangent kernel."""

    nngp: Float[Array, "*pairs"]
    ntk: Float[Array, "*pairs"]


# ---------------------------------------------------------------- what the rules act on


class Pair(NamedTuple):
    """K and Θ between positions of two images; the last axis counts pairs of images.

    Each direction in space has two axes, of the first and of the second image: K is
    (h, h', w, w', pairs). Where the end asks for equal positions alone (``paired`` is false) it has
    one: (h, w, pairs). After pooling or ``flatten`` there is no direction left. Θ is None while no
    layer below has weights.
    """

    k: Array
    t: Array | None
    paired: bool

    def map(self, function: Callable[[Array], Array]) -> "Pair":
        """The same linear function of K and of Θ."""
        return self._replace(k=function(self.k), t=None if self.t is None else function(self.t))

    def directions(self) -> list[tuple[int, ...]]:
        """The axes of each direction in space: those of both images, or the one that they share."""
        spread = self.k.ndim - 1
        if self.paired:
            return [(i, i + 1) for i in range(0, spread, 2)]
        return [(i,) for i in range(spread)]

    def weighted(self, W_std: float, b_std: float) -> "Pair":
        """A layer of weights on top: K' = W_std²·K + b_std², Θ' = W_std²·Θ + K'.

        The second term of Θ' is what the layer's own weights and biases add.
        """
        k = W_std**2 * self.k + b_std**2
        return self._replace(k=k, t=k if self.t is None else W_std**2 * self.t + k)


class Own(NamedTuple):
    """What a layer reads of each image by itself: a = K(p, p), (h, w, images), √a and 1/√a.

    1/√a is 0 where a is. Attention reads its weights instead, (positions, positions, images).
    """

    variance: Array
    root: Array
    inverse: Array


def _own(pair: Pair) -> Own:
    """Of pairs of an image with itself."""
    a = _diagonal(pair).k
    root = safe_sqrt(a)
    return Own(a, root, jnp.where(root > 0, 1 / jnp.where(root > 0, root, 1.0), 0.0))


def _diagonal(pair: Pair) -> Pair:
    """Equal positions alone."""
    if not pair.paired:
        return pair

    def take(k: Array) -> Array:
        for _ in range(0, k.ndim - 1, 2):
            k = jnp.diagonal(k, axis1=0, axis2=1)  # the new axis is the last
        return jnp.moveaxis(k, 0, -1)

    return pair.map(take)._replace(paired=False)


def _beside(pair: Pair, left: Own, right: Own) -> tuple[Own, Own]:
    """(h, w, pairs) of the first and of the second images, as they lie beside K."""
    if not pair.paired:
        return left, right
    spread = range(left.variance.ndim - 1)
    return (
        Own(*(jnp.expand_dims(t, [2 * i + 1 for i in spread]) for t in left)),
        Own(*(jnp.expand_dims(t, [2 * i for i in spread]) for t in right)),
    )


Look = Callable[[Pair, Callable[[Pair], PyTree]], tuple[PyTree, PyTree]]
"""look(pair, of) is what ``of`` says of each image by itself: of the first ones, of the second."""


class Signal(NamedTuple):
    """What is known of a layer's output beforehand, for the refusals.

    ``channels`` is "given" (those of the images), "many", or "flat" (positions times channels);
    ``gaussian`` says that each channel is Gaussian when there are many.
    """

    sizes: tuple[int, ...]
    channels: str
    gaussian: bool


# ---------------------------------------------------------------- sums over a window


def _ends(n: int, size: int, stride: int, padding: str) -> tuple[int, int]:
    """Positions added before the first and after the last of n; an odd one comes at the end."""
    if padding == "VALID":
        return 0, 0
    total = max((-(-n // stride) - 1) * stride + size - n, 0)
    return total // 2, total - total // 2


def _reach(n: int, size: int, stride: int, padding: str) -> int:
    """How many positions a window of ``size`` takes on n of them."""
    return (n + sum(_ends(n, size, stride, padding)) - size) // stride + 1


def _window_sum(k: Array, axes: Sequence[int], size: int, stride: int, padding: str) -> Array:
    """Σ_i k[…, stride·p + i, …]: all ``axes`` move together, by i = 0 … size - 1."""
    n = k.shape[axes[0]]
    low, high = _ends(n, size, stride, padding)
    reach = _reach(n, size, stride, padding)
    if padding == "CIRCULAR":
        ends = [(low, high) if axis in axes else (0, 0) for axis in range(k.ndim)]
        k, n, low = jnp.pad(k, ends, mode="wrap"), n + low + high, 0
    # of each i the places that it reaches inside the image: zeros outside are never added
    moves = []
    for i in range(size):
        first = max(0, -((i - low) // stride))
        last = min(reach - 1, (n - 1 - i + low) // stride)
        if first <= last:
            moves.append((first, last, stride * first + i - low))
    moves.sort(key=lambda move: move[0] - move[1])  # one that reaches all places comes first
    total = None
    for first, last, start in moves:
        part, at = k, [slice(None)] * k.ndim
        for axis in axes:
            end = start + stride * (last - first) + 1
            part = jax.lax.slice_in_dim(part, start, end, stride, axis)
            at[axis] = slice(first, last + 1)
        if total is None:
            ends = [(first, reach - 1 - last) if axis in axes else (0, 0) for axis in range(k.ndim)]
            total = jnp.pad(part, ends)
        elif last - first + 1 == reach:
            total = total + part
        else:
            here = [at[axis].start or 0 for axis in range(k.ndim)]
            old = jax.lax.slice(total, here, np.add(here, part.shape))
            total = jax.lax.dynamic_update_slice(total, old + part, here)
    return total


def _window_check(name: str, layer: "Conv | AveragePool", signal: Signal) -> tuple[int, ...]:
    """The sizes after a window has gone over them."""
    window = layer.window
    if len(window) != len(signal.sizes):
        at = (
            f"after {signal.sizes}" if signal.sizes else "after flatten or pooling of all positions"
        )
        raise ValueError(
            f"net needs {name} before flatten() and global_average(), with one size for each "
            f"direction in space, got {window} {at}"
        )
    if layer.padding == "VALID" and any(map(int.__gt__, window, signal.sizes)):
        raise ValueError(
            f"net needs images at least as large as {name}, got {signal.sizes} for {window}: "
            'padding="SAME" adds zeros'
        )
    return tuple(
        _reach(n, size, stride, layer.padding)
        for n, size, stride in zip(signal.sizes, window, layer.stride, strict=True)
    )


# ---------------------------------------------------------------- layers


class Weights(NamedTuple):
    """Weights and biases of one layer, all from N(0, 1)."""

    W: Array
    b: Array


class Size(NamedTuple):
    """How large a finite network is: channels of a layer, channels of a head, heads, dtype."""

    channels: int
    inside: int
    heads: int
    dtype: object


class Layer:
    """What the layers without weights share."""

    def init(self, key: Array, shape: tuple, size: Size) -> PyTree:
        """Parameters of the layer on images of this shape, (h, w, channels)."""
        return ()


def _weights(key: Array, shape: tuple, dtype: object) -> Weights:
    numbers = jax.random.normal(key, (math.prod(shape) + shape[-1],), dtype)
    return Weights(numbers[: -shape[-1]].reshape(shape), numbers[-shape[-1] :])


def _scaled(z: Array, params: Weights, layer: "Conv | Dense | Attention") -> Array:
    """W_std/√(numbers that a sum has) · z + b_std · b."""
    fan_in = math.prod(params.W.shape[:-1])
    return layer.W_std / math.sqrt(fan_in) * z + jnp.broadcast_to(layer.b_std * params.b, z.shape)


def _name(layer: Layer) -> str:
    return NAMES[type(layer)]


def _needs_gaussian(name: str, signal: Signal) -> None:
    if not signal.gaussian:
        raise ValueError(
            f"net needs a layer with weights (conv, dense, attention) before {name}, whose "
            "expectation is over Gaussian channels, all of one law: neither the images, nor what "
            "an activation or flatten() gives, are such"
        )


def _needs_positions(name: str, signal: Signal) -> None:
    if not signal.sizes:
        raise ValueError(
            f"net needs {name} while there are positions, got it after flatten() or "
            "global_average(), or on inputs of shape (n, d)"
        )


@dataclasses.dataclass(frozen=True)
class Conv(Layer):
    """See ``conv``."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str
    W_std: float
    b_std: float

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = W_std² · mean over the filter of K(p + i, q + i) + b_std²."""
        for axes, size, stride in zip(pair.directions(), self.window, self.stride, strict=True):
            options = {"size": size, "stride": stride, "padding": self.padding}
            pair = pair.map(functools.partial(_window_sum, axes=axes, **options))
        return pair.weighted(self.W_std / math.sqrt(math.prod(self.window)), self.b_std)

    def check(self, signal: Signal) -> Signal:
        return Signal(_window_check("the filter", self, signal), "many", gaussian=True)

    def init(self, key: Array, shape: tuple, size: Size) -> Weights:
        return _weights(key, (*self.window, shape[-1], size.channels), size.dtype)

    def apply(self, params: Weights, x: Array) -> Array:
        ends = [
            _ends(*options, self.padding)
            for options in zip(x.shape[1:-1], self.window, self.stride, strict=True)
        ]
        mode = "wrap" if self.padding == "CIRCULAR" else "constant"
        x = jnp.pad(x, [(0, 0), *ends, (0, 0)], mode=mode)
        space = "HW"[: len(self.window)]
        letters = (f"N{space}C", f"{space}IO", f"N{space}C")
        z = jax.lax.conv_general_dilated(
            x, params.W, self.stride, "VALID", dimension_numbers=letters
        )
        return _scaled(z, params, self)


@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """See ``dense``."""

    W_std: float
    b_std: float

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = W_std²·K + b_std², Θ' = W_std²·Θ + K'."""
        return pair.weighted(self.W_std, self.b_std)

    def check(self, signal: Signal) -> Signal:
        return signal._replace(channels="many", gaussian=True)

    def init(self, key: Array, shape: tuple, size: Size) -> Weights:
        return _weights(key, (shape[-1], size.channels), size.dtype)

    def apply(self, params: Weights, x: Array) -> Array:
        return _scaled(x @ params.W, params, self)


@dataclasses.dataclass(frozen=True)
class Nonlinearity(Layer):
    """See ``activation``."""

    sigma: Activation

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = E[σ(u)σ(v)], Θ' = Θ·E[σ'(u)σ'(v)], (u, v) ~ N(0, [[a, K], [K, b]])."""
        left, right = _beside(pair, *look(pair, _own))
        if self.sigma.slopes is None:
            moments = Moments(left.variance, right.variance, pair.k)
            k, slope = self.sigma.moments(moments).k, self.sigma.slope(moments)
        else:
            k, slope = _bent(*self.sigma.slopes, pair.k * left.inverse * right.inverse)
            k = k * (left.root * right.root)
        return pair._replace(k=k, t=None if pair.t is None else pair.t * slope)

    def check(self, signal: Signal) -> Signal:
        _needs_gaussian("activation", signal)
        return signal._replace(gaussian=False)

    def apply(self, params: tuple, x: Array) -> Array:
        return self.sigma.function(x)


def _bent(p: float, q: float, rho: Array) -> tuple[Array, Array]:
    """E[σ(u)σ(v)] and E[σ'(u)σ'(v)] of unit variances, σ of slopes p and q on either side of 0.

    A cosine within a few roundings of ±1 counts as ±1: equal patches are common (an image with
    itself, an empty background), and their angle is exactly 0.
    """
    gap = 1 - jnp.abs(rho)
    gap = jnp.where(gap < 8 * jnp.finfo(rho.dtype).eps, 0.0, gap)
    arc, kink, ahead = arc_cosine_at(rho >= 0, gap), (p - q) ** 2 / 2, rho >= 0
    if p * q == 0:
        return kink * arc.relu, kink * arc.step
    return kink * arc.relu + p * q * jnp.where(ahead, 1 - gap, gap - 1), kink * arc.step + p * q


@dataclasses.dataclass(frozen=True)
class AveragePool(Layer):
    """See ``average_pool``."""

    window: tuple[int, ...]
    stride: tuple[int, ...]
    padding: str

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K'(p, q) = mean of K(p + i, q + j) over i and j in the window; Θ likewise."""
        for axes, size, stride in zip(pair.directions(), self.window, self.stride, strict=True):
            for axis in axes:  # one after the other: each image has a window of its own
                options = {"size": size, "stride": stride, "padding": self.padding}
                pair = pair.map(functools.partial(_window_sum, axes=(axis,), **options))
        return pair.map(lambda k: k / math.prod(self.window) ** 2)

    def check(self, signal: Signal) -> Signal:
        return signal._replace(sizes=_window_check("the window", self, signal))

    def apply(self, params: tuple, x: Array) -> Array:
        for axis, options in enumerate(zip(self.window, self.stride, strict=True), start=1):
            x = _window_sum(x, (axis,), *options, self.padding)
        return x / math.prod(self.window)


@dataclasses.dataclass(frozen=True)
class GlobalAverage(Layer):
    """See ``global_average``."""

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = mean of K(p, q) over all p and q; Θ likewise."""
        return pair.map(lambda k: k.mean(axis=tuple(range(k.ndim - 1))))._replace(paired=False)

    def check(self, signal: Signal) -> Signal:
        _needs_positions("global_average()", signal)
        return signal._replace(sizes=())

    def apply(self, params: tuple, x: Array) -> Array:
        return x.mean(axis=tuple(range(1, x.ndim - 1)))


@dataclasses.dataclass(frozen=True)
class Flatten(Layer):
    """See ``flatten``."""

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = mean of K(p, p) over all p; Θ likewise."""
        return GlobalAverage().rule(_diagonal(pair), look)

    def check(self, signal: Signal) -> Signal:
        _needs_positions("flatten()", signal)
        return Signal((), "given" if signal.channels == "given" else "flat", gaussian=False)

    def apply(self, params: tuple, x: Array) -> Array:
        return x.reshape(len(x), -1)


@dataclasses.dataclass(frozen=True)
class LayerNorm(Layer):
    """See ``layer_norm``."""

    epsilon: float

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = K/√(a b), Θ' = Θ/√(a b), a and b the variances K(p, p) of either image."""

        def normed(pair: Pair) -> Own:
            return _own(_diagonal(pair)._replace(k=_diagonal(pair).k + self.epsilon))

        left, right = _beside(pair, *look(pair, normed))
        return pair.map(lambda k: k * (left.inverse * right.inverse))

    def check(self, signal: Signal) -> Signal:
        _needs_gaussian("layer_norm", signal)
        return signal

    def apply(self, params: tuple, x: Array) -> Array:
        x = x - x.mean(axis=-1, keepdims=True)
        return x / jnp.sqrt((x * x).mean(axis=-1, keepdims=True) + self.epsilon)


@dataclasses.dataclass(frozen=True)
class Attention(Layer):
    """See ``attention``."""

    key_std: float
    W_std: float
    b_std: float

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = W_std²·G K Gᵀ + b_std², G = softmax(key_std²·K) of each image by itself.

        Θ' = W_std²·(G Θ Gᵀ + 2 G K Gᵀ) + b_std²: values and outputs add one G K Gᵀ each.
        """
        left, right = look(pair, self._weights)
        mixed = pair.map(functools.partial(_mixed, left, right))
        above = mixed.weighted(self.W_std, self.b_std)
        return above._replace(t=above.t + self.W_std**2 * mixed.k)

    def _weights(self, pair: Pair) -> Array:
        """G of pairs of an image with itself: (positions, positions, pairs)."""
        return jax.nn.softmax(self.key_std**2 * _matrices(pair.k), axis=1)

    def check(self, signal: Signal) -> Signal:
        _needs_positions("attention()", signal)
        return signal._replace(channels="many", gaussian=True)

    def init(self, key: Array, shape: tuple, size: Size) -> tuple:
        keys, inside = jax.random.split(key, 3), (size.heads, shape[-1], size.inside)
        W_key, W_value = (jax.random.normal(k, inside, size.dtype) for k in keys[:2])
        out = _weights(keys[2], (size.heads * size.inside, size.channels), size.dtype)
        return W_key, W_value, out

    def apply(self, params: tuple, x: Array) -> Array:
        W_key, W_value, out = params
        flat = x.reshape(len(x), -1, x.shape[-1]) / math.sqrt(x.shape[-1])
        key, value = (jnp.einsum("npc,hcd->nhpd", flat, W) for W in (W_key, W_value))
        logits = self.key_std**2 / key.shape[-1] * jnp.einsum("nhpd,nhqd->nhpq", key, key)
        mixed = jnp.einsum("nhpq,nhqd->nphd", jax.nn.softmax(logits), value)
        mixed = mixed.reshape(*x.shape[:-1], -1)
        return _scaled(mixed @ out.W, out, self)


def _matrices(k: Array) -> Array:
    """(h, h', w, w', pairs) as (h·w, h'·w', pairs)."""
    spread = k.ndim - 1
    first, second = range(0, spread, 2), range(1, spread, 2)
    rows = math.prod(k.shape[i] for i in first)
    return k.transpose(*first, *second, spread).reshape(rows, -1, k.shape[-1])


def _mixed(left: Array, right: Array, k: Array) -> Array:
    """G K Gᵀ for each pair, in the layout of K."""
    mixed = jnp.einsum("prb,rsb,qsb->pqb", left, _matrices(k), right)
    spread = k.ndim - 1
    order = [*range(0, spread, 2), *range(1, spread, 2)]
    back = np.argsort(order).tolist()
    return mixed.reshape([k.shape[i] for i in (*order, spread)]).transpose(*back, spread)


@dataclasses.dataclass(frozen=True)
class Residual(Layer):
    """See ``residual``."""

    branch: "Network"
    shortcut: "Network"

    def rule(self, pair: Pair, look: Look) -> Pair:
        """K' = K of the branch + K of the shortcut; Θ likewise."""
        one, other = (net.rule(pair, look) for net in (self.branch, self.shortcut))
        t = one.t if other.t is None else one.t + other.t
        return one._replace(k=one.k + other.k, t=t)

    def check(self, signal: Signal) -> Signal:
        branch, shortcut = (net.check(signal) for net in (self.branch, self.shortcut))
        last = self.branch.layers[-1]
        if not isinstance(last, Conv | Dense | Attention):
            raise ValueError(
                "branch needs to end in a layer with weights (conv, dense, attention), so that it "
                f"is independent of its input, got {_name(last)}"
            )
        if shortcut.channels != "many":
            raise ValueError(
                "residual needs an input of as many channels as its branch gives, got the "
                f"{'images' if shortcut.channels == 'given' else 'output of flatten()'}: put a "
                "conv or a dense layer before it"
            )
        if branch.sizes != shortcut.sizes:
            raise ValueError(
                f"branch needs to keep the size of the image, {shortcut.sizes}, "
                f"got {branch.sizes}: shortcut=conv(1, stride=2) changes both alike"
            )
        return shortcut._replace(gaussian=branch.gaussian and shortcut.gaussian)

    def init(self, key: Array, shape: tuple, size: Size) -> tuple:
        keys = jax.random.split(key)
        return self.branch.init(keys[0], shape, size), self.shortcut.init(keys[1], shape, size)

    def apply(self, params: tuple, x: Array) -> Array:
        return self.branch.apply(params[0], x) + self.shortcut.apply(params[1], x)


@dataclasses.dataclass(frozen=True)
class Network(Layer):
    """Layers, one after the other: see ``serial``."""

    layers: tuple

    def rule(self, pair: Pair, look: Look) -> Pair:
        """The rules of the layers, one after the other."""
        for layer in self.layers:
            pair = layer.rule(pair, look)
        return pair

    def check(self, signal: Signal) -> Signal:
        """Raise ``ValueError`` where a layer cannot stand behind those before it."""
        for layer in self.layers:
            signal = layer.check(signal)
        return signal

    def init(self, key: Array, shape: tuple, size: Size, outputs: int | None = None) -> tuple:
        """Parameters of all layers; ``outputs`` are the channels of the last one with weights."""
        last = None if outputs is None else self._last()
        params = []
        for i, layer in enumerate(self.layers):
            here = size if i != last else size._replace(channels=outputs)
            params.append(layer.init(jax.random.fold_in(key, i), shape, here))
            x = jax.ShapeDtypeStruct((1, *shape), size.dtype)
            shape = jax.eval_shape(layer.apply, params[-1], x).shape[1:]
        return tuple(params)

    def _last(self) -> int | None:
        """The layer whose channels are the network's outputs; None for one without weights."""
        for i in reversed(range(len(self.layers))):
            if isinstance(self.layers[i], Conv | Dense | Attention):
                return i
            if not isinstance(self.layers[i], AveragePool | GlobalAverage):
                return None
        return None

    def apply(self, params: tuple, x: Array) -> Array:
        """The layers one after the other, with these parameters."""
        for layer, mine in zip(self.layers, params, strict=True):
            x = layer.apply(mine, x)
        return x


NAMES = {
    Conv: "conv",
    Dense: "dense",
    Nonlinearity: "activation",
    AveragePool: "average_pool",
    GlobalAverage: "global_average",
    Flatten: "flatten",
    LayerNorm: "layer_norm",
    Attention: "attention",
    Residual: "residual",
    Network: "serial",
}

# ---------------------------------------------------------------- how a network is written


def _std(name: str, value: object) -> float:
    return as_nonnegative(name, as_number(name, value))


def _window(name: str, window: object, stride: object, padding: object) -> tuple:
    """Window, stride and padding; one number is for both directions of an image."""
    both = []
    for what, value in ((name, window), ("stride", stride)):
        plain = isinstance(value, int | np.integer) and not isinstance(value, bool)
        both.append(as_counts(what, (value,) * 2 if plain else value, least=1))
    if not both[0] or len(both[0]) != len(both[1]):
        plain = isinstance(stride, int | np.integer)
        if not (both[0] and plain):
            raise ValueError(
                f"{name} needs as many sizes as stride, at least one, got {both[0]} and {both[1]}"
            )
        both[1] = both[1][:1] * len(both[0])
    return *both, as_choice("padding", padding, PADDINGS)


def conv(
    filter: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: str = "SAME",
    W_std: float = 1.0,
    b_std: float = 0.0,
) -> Conv:
    """A convolution: z_p = W_std/√(filter·channels) Σ_i W_i x_(p + i) + b_std·b.

    ``filter`` and ``stride`` are one number for both directions, or (h, w); (l,) for sequences.
    ``padding`` is "SAME" (zeros around the image; at stride 1 its size stays), "CIRCULAR" (its
    other end) or "VALID" (only filters that lie inside). Where the number of positions to add is
    odd, the larger part comes at the end.

    Raises ``TypeError`` or ``ValueError`` for sizes that are no integers of at least 1, another
    padding, or a standard deviation below 0.
    """
    window = _window("filter", filter, stride, padding)
    return Conv(*window, _std("W_std", W_std), _std("b_std", b_std))


def dense(*, W_std: float = 1.0, b_std: float = 0.0) -> Dense:
    """Weights on the last axis, at each position the same: z = W_std/√channels · W x + b_std·b.

    Raises ``TypeError`` or ``ValueError`` for a standard deviation that is no number, 0 or more.
    """
    return Dense(_std("W_std", W_std), _std("b_std", b_std))


def activation(sigma: str | Activation = "relu") -> Nonlinearity:
    """σ at every position and channel, by name or an ``Activation`` of this library.

    Those without closed expectations (tanh, sigmoid, silu, softplus and ``quadrature``) take
    thousands of operations for each pair of positions: they are for small images.

    What its functions read from outside is read at every call of ``kernel``, not here.

    Raises what ``as_activation`` raises.
    """
    known = as_activation(sigma)
    return Nonlinearity(known if isinstance(sigma, str) else sigma)


def average_pool(
    window: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: str = "VALID",
) -> AveragePool:
    """The mean over windows, one beside the other unless ``stride`` says otherwise.

    With padding "SAME" the zeros around the image count, too: the sum is divided by the size of the
    window everywhere. Raises what ``conv`` raises.
    """
    return AveragePool(*_window("window", window, window if stride is None else stride, padding))


def global_average() -> GlobalAverage:
    """The mean over all positions.

    Raises nothing.
    """
    return GlobalAverage()


def flatten() -> Flatten:
    """All positions and channels as one vector, for ``dense``.

    What comes out has one law a position, so no activation may follow before a ``dense`` layer.
    Raises nothing; ``kernel`` and ``network`` refuse it where there are no positions.
    """
    return Flatten()


def layer_norm(*, epsilon: float = 0.0) -> LayerNorm:
    """Each position less its mean over the channels, over √(variance + epsilon); no weights.

    With many channels the mean is 0 and the variance K(p, p), neither random any more. Right after
    an activation the mean would not be 0, and the layer is refused there.

    Raises ``TypeError`` or ``ValueError`` for an epsilon that is no number, 0 or more.
    """
    return LayerNorm(_std("epsilon", epsilon))


def attention(*, key_std: float = 1.0, W_std: float = 1.0, b_std: float = 0.0) -> Attention:
    """Self-attention over all positions, with many heads, each with many channels.

    Of each head softmax_q(key_p·key_q/d_key) weighs the values at q; the heads' results go through
    one layer of weights. Queries are the keys, and logits are divided by d_key: then the law of
    large numbers makes the logits key_std²·K(p, q), and the limit is Gaussian (Hron et al. 2020).
    The usual 1/√d_key is *not* offered: its logits stay random in the limit. A single head is then
    a mixture of Gaussians; many heads have a kernel, an average over random logits that is not
    computed here. ``W_std`` is that of values and outputs together, the product of the field's
    W_value_std and W_out_std; ``key_std`` is W_key_std and W_query_std. There is no mask and no
    encoding of positions.

    Raises ``TypeError`` or ``ValueError`` for a standard deviation that is no number, 0 or more.
    """
    return Attention(_std("key_std", key_std), _std("W_std", W_std), _std("b_std", b_std))


def residual(*branch: Layer, shortcut: Layer | None = None) -> Residual:
    """x + branch(x), or shortcut(x) + branch(x).

    The branch ends in a layer with weights of its own, which makes it uncorrelated with x. A sum
    with what an activation gave has the right covariance, but is no Gaussian: an activation cannot
    follow before the next weights.

    Raises ``TypeError`` for what is no layer, ``ValueError`` for no layers.
    """
    return Residual(
        Network(_layers("branch", branch)),
        Network(() if shortcut is None else _layers("shortcut", (shortcut,))),
    )


def serial(*layers: Layer) -> Network:
    """The layers one after the other; a network may stand among them.

    Raises ``TypeError`` for what is no layer, ``ValueError`` for no layers.
    """
    return Network(_layers("layers", layers))


def _layers(name: str, layers: Sequence[object]) -> tuple[Layer, ...]:
    flat = []
    for layer in layers:
        if not isinstance(layer, Layer):
            got = layer.__name__ if isinstance(layer, type) else type(layer).__name__
            hint = f": {layer.__name__}(…) makes one" if callable(layer) else ""
            raise TypeError(f"{name} needs layers of architectures, got {got}{hint}")
        flat += layer.layers if isinstance(layer, Network) else (layer,)
    if not flat:
        raise ValueError(f"{name} needs at least one layer, got none")
    return tuple(flat)


def multilayer(
    *, depth: int, activation: str | Activation = "relu", gain: float = 1.0, beta: float = 0.1
) -> Network:
    """The multilayer perceptron of ``wide_networks``: ``kernel`` of it is ``ntk`` or ``nngp``.

    Raises what ``ntk`` raises for these.
    """
    sigma = Nonlinearity(as_activation(activation))
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    above = (sigma, dense(W_std=math.sqrt(gain), b_std=beta))
    return serial(dense(b_std=beta), *above * (depth - 1))


# ---------------------------------------------------------------- the kernels

CHUNK = 2**20
WORTH = 2**19  # entries × layers up to which kernels of float32 images are computed in float64
LONG = 2**27  # entries × layers from which a progress bar is shown, about two seconds


def _positions_mix(layers: Sequence[Layer]) -> tuple[bool, bool]:
    """Whether unequal positions matter: for the kernel, and for what a layer reads of an image."""
    mixed = read = False
    for layer in layers:
        if isinstance(layer, Network | Residual):
            inside = (layer,) if isinstance(layer, Network) else (layer.branch, layer.shortcut)
            below = (*([GlobalAverage()] if mixed else []), *(t for n in inside for t in n.layers))
            mixed, here = _positions_mix(below)
            read = read or here
            continue
        mixed = mixed or isinstance(layer, AveragePool | GlobalAverage | Attention)
        read = read or (mixed and isinstance(layer, Nonlinearity | LayerNorm | Attention))
    return mixed, read


def _readers(layers: Sequence[Layer]) -> int:
    """Layers that take an expectation."""
    count = 0
    for layer in layers:
        for net in (layer.branch, layer.shortcut) if isinstance(layer, Residual) else ():
            count += _readers(net.layers)
        count += isinstance(layer, Nonlinearity | LayerNorm | Attention)
    return count


def _start(left: Array, right: Array, paired: bool) -> Pair:
    """K = x_p·x'_q/channels of images (h, w, channels, pairs)."""
    spread = range(left.ndim - 2)
    if paired:
        left = jnp.expand_dims(left, [2 * i + 1 for i in spread])
        right = jnp.expand_dims(right, [2 * i for i in spread])
    return Pair((left * right).sum(axis=-2) / left.shape[-2], None, paired)


@functools.partial(jax.jit, static_argnames=("net", "paired"))
def _own_pass(net: Network, x: Array, *, paired: bool) -> list[PyTree]:
    """What the layers read of each image by itself, in their order."""
    kept = []

    def look(pair: Pair, of: Callable[[Pair], PyTree]) -> tuple[PyTree, PyTree]:
        kept.append(of(pair))
        return kept[-1], kept[-1]

    net.rule(_start(x, x, paired), look)
    return kept


def _taken(side: PyTree, at: np.ndarray) -> PyTree:
    return jax.tree.map(lambda t: t[..., at], side)


@functools.partial(jax.jit, static_argnames=("net", "paired", "of"))
def _pair_pass(net: Network, left: tuple, right: tuple, *, paired: bool, of: str) -> Kernels:
    """The kernels of pairs of images, each side with what was read of it; the last axis counts."""
    ready = zip(left[1], right[1], strict=True)
    pair = net.rule(_start(left[0], right[0], paired), lambda *_: next(ready))
    return Kernels(None if of == "ntk" else pair.k, None if of == "nngp" else pair.t)


def _parts(count: int, size: int) -> Iterator[np.ndarray]:
    """0 … count - 1 in parts of one size; the last one is filled up with its last number."""
    for start in range(0, count, size):
        yield np.minimum(np.arange(start, start + size, dtype=np.int32), count - 1)


def _cut(values: Array, count: int, dtype: np.dtype) -> np.ndarray:
    with np.errstate(over="ignore"):  # refused by the callers
        return np.asarray(values)[..., :count].astype(dtype)


def _all_pairs(
    net: Network,
    x: Array,
    y: Array | None,
    rows: np.ndarray,
    columns: np.ndarray,
    *,
    paired: bool,
    of: str,
) -> Iterator[tuple[slice, Kernels]]:
    """Part by part, the kernels of the pairs (rows[i], columns[i]) and which these are."""
    dtype, sizes = x.dtype, x.shape[1:-1]
    square = math.prod(sizes) ** (2 if paired else 1)
    work = len(rows) * square * max(1, _readers(net.layers))
    kind = jnp.dtype(float) if work <= WORTH else dtype
    size = kind.itemsize * max(square, math.prod(x.shape[1:]))
    most = max(CHUNK // size, min(4, 16 * CHUNK // size), 1)
    own_paired = _positions_mix(net.layers)[1]
    sides = []
    for images in (x,) if y is None else (x, y):
        size = min(len(images), most)
        with enable_x64(kind.itemsize > 4):
            t = np.moveaxis(np.asarray(images, kind), 0, -1)
            each = _parts(len(images), size)
            kept = [_own_pass(net, _taken(t, at), paired=own_paired) for at in each]
            kept = jax.tree.map(lambda *t: np.concatenate(t, axis=-1), *kept)  # ends in copies
        sides.append((t, kept))
    size = min(len(rows), most)
    with tqdm(total=len(rows), desc="kernel", unit="pair", disable=work < LONG) as bar:
        for part in _parts(len(rows), size):
            with enable_x64(kind.itemsize > 4):
                left, right = _taken(sides[0], rows[part]), _taken(sides[-1], columns[part])
                found = _pair_pass(net, left, right, paired=paired, of=of)
            good = min(size, len(rows) - int(part[0]))
            where = slice(int(part[0]), int(part[0]) + good)
            yield where, Kernels(*(None if t is None else _cut(t, good, dtype) for t in found))
            bar.update(good)


def _as_net(net: object) -> Network:
    if isinstance(net, Layer):
        return net if isinstance(net, Network) else Network((net,))
    raise TypeError(f"net needs layers, say serial(conv(3), …), got {type(net).__name__}")


def _as_now(net: Network) -> Network:
    """The same, its activations as they compute now: what they read from outside may change."""

    def now(layer: Layer) -> Layer:
        if isinstance(layer, Network):
            return _as_now(layer)
        if isinstance(layer, Residual):
            return Residual(_as_now(layer.branch), _as_now(layer.shortcut))
        if isinstance(layer, Nonlinearity):
            return Nonlinearity(as_activation(layer.sigma))
        return layer

    return Network(tuple(map(now, net.layers)))


def _as_images(x: ArrayLike, y: ArrayLike | None) -> tuple[Array, Array | None]:
    """Images as float arrays of one dtype, float32 or float64."""
    arrays = {
        name: as_array(name, value)
        for name, value in (("x", x), ("y", y))
        if name == "x" or value is not None
    }
    dtype = np.result_type(
        np.float32, *(np.dtype(a.dtype) for a in arrays.values() if a.dtype.itemsize > 2)
    )
    for name, array in arrays.items():
        if not 2 <= array.ndim <= 4:
            raise ValueError(
                f"{name} needs shape (n, h, w, channels), or (n, length, channels) or (n, d), got "
                f"{array.shape}"
            )
        if not array.size:
            raise ValueError(f"{name} needs at least one image and one channel, got {array.shape}")
        arrays[name] = array.astype(dtype)
    x, y = arrays["x"], arrays.get("y")
    if y is not None and x.shape[1:] != y.shape[1:]:
        raise ValueError(f"y needs images of the shape of x, {x.shape[1:]}, got {y.shape[1:]}")
    return x, y


def _checked(net: Network, shape: Sequence[int]) -> Signal:
    signal = net.check(Signal(tuple(shape[:-1]), "given", gaussian=False))
    if signal.channels == "given":
        raise ValueError("net needs a layer with weights (conv, dense, attention), got none")
    return signal


def _refuse_infinite(net: Network, values: np.ndarray) -> None:
    if not np.all(np.isfinite(values)):
        raise ValueError(
            f"net needs a kernel that fits into {values.dtype}, got one that does not: smaller "
            "W_std or inputs; or an activation by quadrature that these variances do not resolve"
        )


def kernel(
    net: Layer,
    x: Float[ArrayLike, "n ..."],
    y: Float[ArrayLike, "m ..."] | None = None,
    *,
    of: str = "ntk",
    diagonal: bool = False,
) -> Float[Array, " n *m"] | Kernels:
    """The limiting NTK of a network at all pairs of images, or its NNGP kernel, or both.

    ``x`` has shape (n, h, w, channels) and ``y`` (m, h, w, channels); sequences are
    (n, length, channels) and vectors (n, d). Without ``y`` the kernel of ``x`` with itself. ``of``
    is "ntk" (shape (n, m), in the units of f²), "nngp" (the covariance of the outputs at
    initialisation, likewise) or "both" (``Kernels``). With ``diagonal`` only the kernel of each
    image with itself, (n,). Several outputs have this kernel times the identity.

    The cost of a pair is (positions)² numbers a layer where positions meet, before a pooling or
    ``attention``, and as many as positions elsewhere. Beside the result it holds about ten arrays
    of a MiB; of 16 MiB for large images, or of one pair. Results are those of the dtype of the
    images; small kernels of float32 images are computed in float64. In float32 the angle between
    two nearly equal patches is known to 1e-3, and so is their share of the kernel; equal ones have
    the angle 0.

    Raises ``TypeError`` for what is no layer or no array, ``ValueError`` for a network that has no
    such kernel (a layer whose expectation is not known behind those before it, or positions left
    at the end), images of another shape or smaller than a filter, and a kernel beyond the dtype.
    Source: Arora et al. 2019; Novak et al. 2019; Garriga-Alonso et al. 2019; Yang 2020 for any
    architecture; Hron et al. 2020 for attention.
    """
    net, of = _as_now(_as_net(net)), as_choice("of", of, ("ntk", "nngp", "both"))
    check_known(x=x, y=y)
    x, y = _as_images(x, y)
    signal = _checked(net, x.shape[1:])
    if signal.sizes:
        raise ValueError(
            "net needs flatten() or global_average() before its end, got one that leaves positions "
            f"{signal.sizes}: covariances(net, x, y) gives the kernel of each two of them"
        )
    if diagonal and y is not None:
        raise ValueError("diagonal needs one set of images, got y beside it")
    n, m = len(x), len(x if y is None else y)
    if diagonal:
        rows = columns = np.arange(n)
    elif y is None:
        rows, columns = np.triu_indices(n)
    else:
        rows, columns = (t.reshape(-1) for t in np.indices((n, m)))
    wanted = ("nngp", "ntk") if of == "both" else (of,)
    results = {name: np.zeros(n if diagonal else (n, m), x.dtype) for name in wanted}
    paired = _positions_mix(net.layers)[0]
    for where, found in _all_pairs(net, x, y, rows, columns, paired=paired, of=of):
        for name in wanted:
            values, result = getattr(found, name), results[name]
            _refuse_infinite(net, values)
            if diagonal:
                result[where] = values
                continue
            result[rows[where], columns[where]] = values
            if y is None:
                result[columns[where], rows[where]] = values
    arrays = {name: jnp.asarray(result) for name, result in results.items()}
    return Kernels(**arrays) if of == "both" else arrays[of]


def covariances(
    net: Layer, x: Float[ArrayLike, "n ..."], y: Float[ArrayLike, "m ..."] | None = None
) -> Kernels:
    """K(p, q) and Θ(p, q) at the end of ``net``, for all positions p of ``x`` and q of ``y``.

    For images both have shape (n, m, h, w, h', w'), for sequences (n, m, length, length'): all of
    it is held, so it is for few small images. Raises what ``kernel`` raises.
    """
    net = _as_now(_as_net(net))
    check_known(x=x, y=y)
    x, y = _as_images(x, y)
    sizes = _checked(net, x.shape[1:]).sizes
    y = x if y is None else y
    rows, columns = (t.reshape(-1) for t in np.indices((len(x), len(y))))
    parts = [k for _, k in _all_pairs(net, x, y, rows, columns, paired=True, of="both")]

    def whole(name: str) -> Array:
        table = np.concatenate([getattr(part, name) for part in parts], axis=-1)
        _refuse_infinite(net, table)
        spread = 2 * len(sizes)
        order = (spread, *range(0, spread, 2), *range(1, spread, 2))
        return jnp.asarray(table.transpose(order).reshape(len(x), len(y), *sizes, *sizes))

    return Kernels(whole("nngp"), whole("ntk"))


# ---------------------------------------------------------------- at finite width


class Finite(NamedTuple):
    """A network of finite width: ``init(key, shape)`` draws parameters, ``apply(params, x)`` is f.

    ``shape`` is that of one image, (h, w, channels).
    """

    init: Callable[..., PyTree]
    apply: Callable[[PyTree, Array], Array]


def network(net: Layer, *, width: int, outputs: int = 1, heads: int = 4) -> Finite:
    """The same network with ``width`` channels a layer, as functions (init, apply).

    ``init(key, shape)`` draws every weight and bias from N(0, 1) for images of ``shape``, say
    (8, 8, 1); ``apply(params, x)`` is f for images (n, h, w, channels), of shape (n, outputs).
    Both may be jitted and mapped. ``outputs`` are the channels of the last layer with weights where
    nothing but averages follow it. Attention has ``heads`` heads of ``width`` channels; the limit
    is that of many of both.

    Raises ``TypeError`` or ``ValueError`` for what is no layer and numbers below 1; ``init`` what
    ``kernel`` raises for a network that has none.
    """
    net = _as_net(net)
    numbers = {"width": width, "outputs": outputs, "heads": heads}
    width, outputs, heads = (as_whole(name, t, least=1) for name, t in numbers.items())

    def init(key: PRNGKeyArray, shape: Sequence[int], *, dtype: object = None) -> PyTree:
        shape = as_counts("shape", shape, least=1)
        dtype = as_float_dtype("dtype", dtype) or jnp.result_type(float)
        if not 1 <= len(shape) <= 3:
            raise ValueError(f"shape needs that of one image, (h, w, channels), got {shape}")
        _checked(net, shape)
        return net.init(as_key("key", key), shape, Size(width, width, heads, dtype), outputs)

    return Finite(init, net.apply)


# ---------------------------------------------------------------- the networks of the chapter


def _networks() -> dict[str, Network]:
    gain = math.sqrt(2)

    def above(*layers: Layer) -> list[Layer]:
        return [activation("relu"), *layers]

    first, later = conv(3, b_std=0.1), conv(3, W_std=gain, b_std=0.1)
    end = dense(W_std=gain)
    three = [first, *above(later), *above(later)]
    normed = [first, layer_norm(), *above(later), layer_norm()]
    return {
        "perceptron": serial(flatten(), multilayer(depth=4, gain=2.0)),
        "flattened": serial(*three, *above(flatten(), end)),
        "pooled": serial(*three, *above(global_average(), end)),
        "residual": serial(first, *[residual(*above(later))] * 2, *above(flatten(), end)),
        "normalised": serial(*normed, *above(flatten(), end)),
        "attention": serial(dense(b_std=0.1), attention(), *above(global_average(), end)),
        "two convolutions": serial(first, *above(later), *above(flatten(), end)),
    }


NETWORKS = _networks()
"""What the chapter compares: gain 2 at every activation, biases of 0.1, three by three pixels."""
