"""Networks at initialisation, and the Gaussian process that a very wide one is.

Serves the chapter ``wide_networks``. The network is the multilayer perceptron in the NTK
parametrisation of Jacot, Gabriel and Hongler (2018), section 2: with every parameter drawn from
N(0, 1),

    α̃^(1) = W^(0) x/√n₀ + β b^(0),        α^(ℓ) = √c σ(α̃^(ℓ)),
    α̃^(ℓ+1) = W^(ℓ) α^(ℓ)/√n_ℓ + β b^(ℓ),  f = α̃^(L).

``depth`` is L, the number of weight layers. ``gain`` is c: 1 in the paper, 2 for ReLU in
Arora et al. (2019), whose equations 7 to 9 (inputs not divided by n₀) follow from ``beta=0`` and
inputs multiplied by √n₀.

As the widths grow the pre-activations of a layer become independent Gaussian processes with the
covariance (the NNGP kernel)

    Σ^(1)(x, x') = xᵀx'/n₀ + β²,        Σ^(ℓ+1) = c·E[σ(u)σ(v)] + β²,
    (u, v) ~ N(0, [[a, k], [k, b]]),     a = Σ^(ℓ)(x, x), b = Σ^(ℓ)(x', x'), k = Σ^(ℓ)(x, x').

The expectation E[σ(u)σ(v)] is the *dual activation*: a function of (a, b, k), known in closed form
for the activations listed in ``ACTIVATIONS``.
"""

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Layer",
    "Moments",
    "apply",
    "as_activation",
    "as_inputs",
    "check_numbers",
    "first_moments",
    "init",
    "leaky_relu",
    "next_moments",
    "nngp",
    "preactivations",
    "quadrature",
]

# ---------------------------------------------------------------- finite networks


class Layer(NamedTuple):
    """Weights W of shape (n_out, n_in) and biases b of shape (n_out,) of one layer."""

    W: Float[Array, "n_out n_in"]
    b: Float[Array, " n_out"]


def init(widths: Sequence[int], *, key: PRNGKeyArray, dtype: object = None) -> list[Layer]:
    """Draw a network: every weight and every bias independently from N(0, 1).

    ``widths`` is (n₀, n₁, …, n_L): input dimension, hidden widths, output dimension. Returns L
    layers. ``dtype`` defaults to JAX's default float.

    Raises ``ValueError`` for fewer than two widths or a width below 1.
    """
    widths = tuple(widths)
    if len(widths) < 2 or any(n < 1 for n in widths):
        raise ValueError(f"widths needs at least (n_in, n_out), each at least 1, got {widths}")
    shapes = [(n_out, n_in + 1) for n_in, n_out in itertools.pairwise(widths)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    # one draw for all layers: a draw for each would take five times as long to compile
    numbers = jax.random.normal(key, (int(ends[-1]),), dtype)
    parts = zip(jnp.split(numbers, ends[:-1]), shapes, strict=True)
    tables = [part.reshape(shape) for part, shape in parts]
    return [Layer(W=table[:, :-1], b=table[:, -1]) for table in tables]


def preactivations(
    params: Sequence[Layer],
    x: Float[Array, "*n n_0"],
    *,
    activation: "str | Activation" = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> list[Float[Array, "*n _"]]:
    """α̃^(1), …, α̃^(L) for the inputs ``x``: one array of shape (*n, n_ℓ) a layer.

    Raises ``ValueError`` when the last axis of ``x`` is not the network's input dimension.
    """
    sigma = as_activation(activation).function
    if x.ndim == 0 or x.shape[-1] != params[0].W.shape[1]:
        n_in = params[0].W.shape[1]
        raise ValueError(f"x needs a last axis of {n_in}, the network's inputs, got {x.shape}")
    gain, beta = jnp.asarray(gain, x.dtype), jnp.asarray(beta, x.dtype)
    alpha, layers = x, []
    for W, b in params:
        bias = jnp.broadcast_to(beta * b, (*alpha.shape[:-1], len(b)))
        layers.append(alpha @ W.T / math.sqrt(W.shape[1]) + bias)
        alpha = jnp.sqrt(gain) * sigma(layers[-1])
    return layers


def apply(
    params: Sequence[Layer],
    x: Float[Array, "*n n_0"],
    *,
    activation: "str | Activation" = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> Float[Array, "*n n_L"]:
    """The network function f(x) = α̃^(L)(x), shape (*n, n_L), for inputs of shape (*n, n₀)."""
    return preactivations(params, x, activation=activation, gain=gain, beta=beta)[-1]


# ---------------------------------------------------------------- dual activations


class Activation(NamedTuple):
    """A nonlinearity σ with its two Gaussian expectations.

    ``dual(a, b, k)`` is E[σ(u)σ(v)] and ``dual_prime(a, b, k)`` is E[σ'(u)σ'(v)] for
    (u, v) ~ N(0, [[a, k], [k, b]]); a, b, k are arrays that broadcast against one another.
    ``needs_angle`` says that the second is undefined where a or b is zero.
    """

    name: str
    function: Callable[[Array], Array]
    dual: Callable[[Array, Array, Array], Array]
    dual_prime: Callable[[Array, Array, Array], Array]
    needs_angle: bool = False


def _safe_sqrt(t: Array) -> Array:
    """√max(t, 0), with derivative 0 (not infinity) where t ≤ 0."""
    positive = t > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, t, 1.0)), 0.0)


def _polar(a: Array, b: Array, k: Array) -> tuple[Array, Array, Array, Array]:
    """√(ab), ρ = k/√(ab), sin θ and θ = arccos ρ.

    The root is a·√(b/a), exactly a when a = b: then ρ = 1 and θ = 0 hold exactly on a Gram's
    diagonal, where an arccos of a rounded ρ would lose half the digits.
    """
    root = a * jnp.sqrt(b / a)
    rho = jnp.clip(k / root, -1.0, 1.0)
    sin = _safe_sqrt((1 - rho) * (1 + rho))
    return root, rho, sin, jnp.arctan2(sin, rho)


@functools.cache
def leaky_relu(negative: float = 0.01, positive: float = 1.0) -> Activation:
    """σ(z) = negative·z for z < 0 and positive·z for z > 0: ReLU is ``leaky_relu(0, 1)``.

    Its duals are combinations of the arc-cosine kernels of Cho and Saul (2009). Equal arguments
    give the same object, so that compiled code is reused.
    """
    p, q = float(negative), float(positive)

    def function(z: Array) -> Array:
        return jnp.where(z > 0, q * z, p * z)

    def dual(a: Array, b: Array, k: Array) -> Array:
        root, rho, sin, theta = _polar(a, b, k)
        arc = root * (sin + (math.pi - theta) * rho) / (2 * math.pi)
        return (p - q) ** 2 * arc + p * q * k

    def dual_prime(a: Array, b: Array, k: Array) -> Array:
        *_, theta = _polar(a, b, k)
        return (p - q) ** 2 * (math.pi - theta) / (2 * math.pi) + p * q

    return Activation(f"leaky_relu({p:g}, {q:g})", function, dual, dual_prime, True)


def _erf_root(a: Array, b: Array, k: Array) -> Array:
    """√((1+2a)(1+2b) − 4k²), written so that it stays real and exact for large a = b = k."""
    determinant = a * b - k * k
    return jnp.sqrt(1 + 2 * (a + b) + 4 * jnp.where(determinant >= 0, determinant, 0.0))


def _erf_dual(a: Array, b: Array, k: Array) -> Array:
    return 2 / math.pi * jnp.arctan2(2 * k, _erf_root(a, b, k))


def _erf_dual_prime(a: Array, b: Array, k: Array) -> Array:
    return 4 / math.pi / _erf_root(a, b, k)


# e^(-(a+b)/2) sinh k and its cosh twin, in a form that cannot overflow since |k| ≤ (a+b)/2.
def _sin_dual(a: Array, b: Array, k: Array) -> Array:
    half = (a + b) / 2
    return (jnp.exp(k - half) - jnp.exp(-k - half)) / 2


def _cos_dual(a: Array, b: Array, k: Array) -> Array:
    half = (a + b) / 2
    return (jnp.exp(k - half) + jnp.exp(-k - half)) / 2


def quadrature(function: Callable[[Array], Array], *, nodes: int = 40) -> Activation:
    """Any elementwise ``function`` as an activation, its duals by Gauss–Hermite quadrature.

    ``nodes`` points in each of the two directions: exact for polynomials of degree below
    ``nodes``, accurate to about 1e-10 for smooth functions of moderate variance, only to a few
    digits for functions with a kink. Costs nodes² evaluations an entry.

    Raises ``TypeError`` when ``function`` is not callable, ``ValueError`` when ``nodes`` < 1.
    """
    if not callable(function):
        raise TypeError(f"function needs a callable, got {type(function).__name__}")
    if nodes < 1:
        raise ValueError(f"nodes needs to be at least 1, got {nodes}")
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()

    def derivative(z: Array) -> Array:
        return jax.jvp(function, (z,), (jnp.ones_like(z),))[1]

    def expectation(h: Callable[[Array], Array], a: Array, b: Array, k: Array) -> Array:
        shape = jnp.broadcast_shapes(a.shape, b.shape, k.shape)
        a, b, k = (jnp.broadcast_to(t, shape) for t in (a, b, k))
        scale = jnp.where(a > 0, jnp.sqrt(jnp.where(a > 0, a, 1.0)), 0.0)
        along = jnp.where(a > 0, k / jnp.where(a > 0, scale, 1.0), 0.0)
        across = _safe_sqrt(b - along**2)
        z, w = jnp.asarray(points, k.dtype), jnp.asarray(weights, k.dtype)

        def over_first(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
            z1, w1 = node
            inner = jax.lax.map(lambda p: p[1] * h(along * z1 + across * p[0]), (z, w)).sum(0)
            return total + w1 * h(scale * z1) * inner, None

        return jax.lax.scan(over_first, jnp.zeros_like(k), (z, w))[0]

    name = f"quadrature({getattr(function, '__name__', 'function')})"
    return Activation(
        name,
        function,
        functools.partial(expectation, function),
        functools.partial(expectation, derivative),
    )


ACTIVATIONS: dict[str, Activation] = {
    "relu": leaky_relu(0.0, 1.0)._replace(name="relu"),
    "leaky_relu": leaky_relu()._replace(name="leaky_relu"),
    "erf": Activation("erf", jax.scipy.special.erf, _erf_dual, _erf_dual_prime),
    "sin": Activation("sin", jnp.sin, _sin_dual, _cos_dual),
    "cos": Activation("cos", jnp.cos, _cos_dual, _sin_dual),
}
"""Activations known by name; ``leaky_relu`` has the customary slope 0.01 for z < 0."""


def as_activation(activation: "str | Activation") -> Activation:
    """The ``Activation`` of that name, or the argument itself if it is one already.

    Raises ``ValueError`` for an unknown name and ``TypeError`` for anything else.
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise ValueError(f"activation needs to be one of {known}; got {activation!r}")
        return ACTIVATIONS[activation]
    raise TypeError(
        "activation needs a name or an Activation (quadrature(f) makes one of a function), "
        f"got {type(activation).__name__}"
    )


# ---------------------------------------------------------------- the NNGP kernel


class Moments(NamedTuple):
    """Second moments of one layer: a = Σ(x, x), b = Σ(x', x'), k = Σ(x, x')."""

    a: Float[Array, "n 1"]
    b: Float[Array, "1 m"]
    k: Float[Array, "n m"]


def first_moments(
    x: Float[Array, "n d"], y: Float[Array, "m d"] | None, *, beta: Float[Array, ""]
) -> Moments:
    """Σ^(1) = xᵀx'/n₀ + β², exactly symmetric with an exact diagonal when ``y`` is None."""
    a = jnp.sum(x * x, axis=1, keepdims=True)
    if y is None:
        b, k = a.T, x @ x.T
        k = jnp.where(jnp.eye(len(x), dtype=bool), a, (k + k.T) / 2)
    else:
        b, k = jnp.sum(y * y, axis=1, keepdims=True).T, x @ y.T
    return Moments(*(t / x.shape[1] + beta**2 for t in (a, b, k)))


def next_moments(
    moments: Moments, sigma: Activation, *, gain: Float[Array, ""], beta: Float[Array, ""]
) -> Moments:
    """From Σ^(ℓ) to Σ^(ℓ+1) = c·E[σ(u)σ(v)] + β²."""
    a, b, k = moments
    return Moments(*(gain * sigma.dual(*t) + beta**2 for t in ((a, a, a), (b, b, b), (a, b, k))))


@functools.partial(jax.jit, static_argnames=("depth", "sigma"))
def _nngp(
    x: Array, y: Array | None, gain: Array, beta: Array, *, depth: int, sigma: Activation
) -> Float[Array, "n m"]:
    moments = first_moments(x, y, beta=beta)
    for _ in range(depth - 1):
        moments = next_moments(moments, sigma, gain=gain, beta=beta)
    return moments.k


def nngp(
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    depth: int,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "n m"]:
    """Covariance Σ^(depth) of the output of an infinitely wide network at initialisation.

    ``x`` has shape (n, d) and ``y`` (m, d); without ``y`` the kernel of ``x`` with itself. Inputs
    are divided by √d, as in the paper. Returns shape (n, m), in the units of f².

    Raises ``ValueError`` or ``TypeError`` for what ``as_inputs`` and ``check_numbers`` refuse.
    Source: Jacot et al. 2018, Proposition 1; Lee et al. 2018.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    x, y = as_inputs(x, y, forbid_zero=sigma.needs_angle and beta == 0)
    gain, beta = jnp.asarray(gain, x.dtype), jnp.asarray(beta, x.dtype)
    return _nngp(x, y, gain, beta, depth=depth, sigma=sigma)


# ---------------------------------------------------------------- arguments


def as_inputs(
    x: ArrayLike, y: ArrayLike | None = None, *, forbid_zero: bool = False
) -> tuple[Array, Array | None]:
    """``x`` of shape (n, d) and ``y`` of shape (m, d) as float arrays of one dtype.

    Raises ``TypeError`` for what is not a real numeric array and ``ValueError`` for a wrong rank,
    an empty array, different d, NaN or infinite entries, and, with ``forbid_zero``, rows of zeros
    (no angle can be taken with them). Values cannot be seen, and are not checked, under a JAX
    transformation.
    """
    arrays = {"x": x} if y is None else {"x": x, "y": y}
    for name, value in arrays.items():
        try:
            array = jnp.asarray(value)
        except (TypeError, ValueError) as error:
            raise TypeError(f"{name} needs a numeric array, got {type(value).__name__}") from error
        if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == bool:
            raise TypeError(f"{name} needs real numbers, got dtype {array.dtype}")
        if array.ndim != 2:
            raise ValueError(f"{name} needs shape (points, features), got {array.shape}")
        if array.size == 0:
            raise ValueError(f"{name} needs at least one point and one feature, got {array.shape}")
        arrays[name] = array
    dtype = jnp.result_type(*(t.dtype for t in arrays.values()), float)
    if all(jnp.issubdtype(t.dtype, jnp.floating) for t in arrays.values()):
        dtype = functools.reduce(jnp.promote_types, (t.dtype for t in arrays.values()))
    for name, array in arrays.items():
        arrays[name] = array = array.astype(dtype)
        if isinstance(array, jax.core.Tracer):
            continue
        bad = int(jnp.sum(~jnp.isfinite(array)))
        if bad:
            raise ValueError(f"{name} needs finite numbers, got {bad} NaN or infinite entries")
        if forbid_zero and bool(jnp.any(jnp.all(array == 0, axis=1))):
            row = int(jnp.argmax(jnp.all(array == 0, axis=1)))
            raise ValueError(
                f"{name} needs nonzero points when beta is 0 (this kernel takes angles), "
                f"got zeros in row {row}"
            )
    x, y = arrays["x"], arrays.get("y")
    if y is not None and x.shape[1] != y.shape[1]:
        raise ValueError(f"y needs the {x.shape[1]} features of x, got {y.shape[1]}")
    return x, y


def check_numbers(*, depth: int, gain: float, beta: float) -> tuple[float, float]:
    """Gain and β as floats.

    Raises ``TypeError`` for a depth that is not an integer and ``ValueError`` for depth < 1,
    gain ≤ 0, β < 0, or a value that is not finite.
    """
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer):
        raise TypeError(f"depth needs an integer, the number of weight layers, got {depth!r}")
    if depth < 1:
        raise ValueError(f"depth needs to be at least 1 weight layer, got {depth}")
    gain, beta = float(gain), float(beta)
    if not (math.isfinite(gain) and gain > 0):
        raise ValueError(f"gain needs a positive finite number, got {gain}")
    if not (math.isfinite(beta) and beta >= 0):
        raise ValueError(f"beta needs a finite number, 0 or more, got {beta}")
    return gain, beta
