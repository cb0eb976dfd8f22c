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

from ntk_lib.arguments import (
    as_array,
    as_inputs,
    as_number,
    as_whole,
    check_numbers,
    check_params,
)
from ntk_lib.kernels import arc_cosine_of, safe_sqrt

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Layer",
    "Moments",
    "apply",
    "as_activation",
    "batch_of",
    "check_dimension",
    "circle",
    "correlation_map",
    "first_moments",
    "fixed_variance",
    "init",
    "leaky_relu",
    "mirrored",
    "monomial",
    "next_moments",
    "nngp",
    "preactivations",
    "quadrature",
    "random_outputs",
    "susceptibility",
    "variance_map",
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

    Raises ``TypeError`` for what is no sequence of integers, ``ValueError`` for fewer than two
    widths or a width below 1.
    """
    if np.ndim(widths) != 1 or any(isinstance(n, str) for n in widths):
        raise TypeError(f"widths needs a sequence of integers, got {widths!r}")
    widths = [
        as_whole(f"widths needs integers: width {i}", n, least=1) for i, n in enumerate(widths)
    ]
    if len(widths) < 2:
        raise ValueError(f"widths needs at least (n_in, n_out), got {widths}")
    shapes = [(n_out, n_in + 1) for n_in, n_out in itertools.pairwise(widths)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    # one draw for all layers: a draw for each would take five times as long to compile
    numbers = jax.random.normal(key, (int(ends[-1]),), dtype)
    parts = zip(jnp.split(numbers, ends[:-1]), shapes, strict=True)
    tables = [part.reshape(shape) for part, shape in parts]
    return [Layer(W=table[:, :-1], b=table[:, -1]) for table in tables]


def check_dimension(params: Sequence[Layer], x: Array) -> None:
    """Raise ``ValueError`` when the rows of ``x`` are not inputs of the network."""
    n_in = params[0].W.shape[1]
    if x.shape[1] != n_in:
        raise ValueError(f"x needs a last axis of {n_in}, the network's inputs, got {x.shape}")


def preactivations(
    params: Sequence[Layer],
    x: Float[Array, "*n n_0"],
    *,
    activation: "str | Activation" = "relu",
    gain: ArrayLike = 1.0,
    beta: ArrayLike = 0.1,
) -> list[Float[Array, "*n _"]]:
    """α̃^(1), …, α̃^(L) for the inputs ``x``: one array of shape (*n, n_ℓ) a layer.

    Raises ``ValueError`` when the last axis of ``x`` is not the network's input dimension, and what
    ``as_array``, ``check_params`` and ``as_activation`` raise.
    """
    sigma = as_activation(activation).function
    check_params(params)
    x = as_array("x", x, dtype=params[0].W.dtype)
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


def batch_of(draws: int, width: int) -> int:
    """How many networks to compute side by side: a divisor of ``draws``, fewer for wide networks.

    Side by side is faster for narrow networks, whose operations are too small to be worth a call
    each; a divisor, since a remainder would be compiled as a program of its own.
    """
    most = max(1, 2**16 // width**2)
    return max(k for k in range(1, min(draws, most) + 1) if draws % k == 0)


@functools.partial(jax.jit, static_argnames=("draws", "widths", "sigma"))
def _random_outputs(x, key, gain, beta, *, draws: int, widths: tuple, sigma: "Activation") -> Array:
    def one(key: Array) -> Array:
        params = init(widths, key=key, dtype=x.dtype)
        return apply(params, x, activation=sigma, gain=gain, beta=beta)[:, 0]

    return jax.lax.map(one, jax.random.split(key, draws), batch_size=batch_of(draws, max(widths)))


def random_outputs(
    x: Float[ArrayLike, "n d"],
    *,
    key: PRNGKeyArray,
    draws: int,
    width: int,
    depth: int,
    activation: "str | Activation" = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "draws n"]:
    """Outputs f(x) at initialisation of ``draws`` networks, every hidden layer ``width`` wide.

    One output a network. Returns shape (draws, n).

    Raises ``ValueError`` for ``draws`` or ``width`` below 1, and as ``nngp`` does.
    """
    sigma = as_activation(activation)
    gain, beta = check_numbers(depth=depth, gain=gain, beta=beta)
    draws, width = as_whole("draws", draws, least=1), as_whole("width", width, least=1)
    x, _ = as_inputs(x)
    return _random_outputs(
        x,
        key,
        jnp.asarray(gain, x.dtype),
        jnp.asarray(beta, x.dtype),
        draws=draws,
        widths=(x.shape[1], *[width] * (depth - 1), 1),
        sigma=sigma,
    )


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


def leaky_relu(negative: float = 0.01, positive: float = 1.0) -> Activation:
    """σ(z) = negative·z for z < 0 and positive·z for z > 0: ReLU is ``leaky_relu(0, 1)``.

    Its duals are combinations of the arc-cosine kernels of Cho and Saul (2009). Equal slopes give
    the same object, so that compiled code is reused.

    Raises ``TypeError`` or ``ValueError`` for a slope that is not a finite number.
    """
    return _leaky_relu(as_number("negative", negative), as_number("positive", positive))


@functools.cache
def _leaky_relu(p: float, q: float) -> Activation:
    def function(z: Array) -> Array:
        return jnp.where(z > 0, q * z, p * z)

    def dual(a: Array, b: Array, k: Array) -> Array:
        return (p - q) ** 2 / 2 * arc_cosine_of(a, b, k, order=1) + p * q * k

    def dual_prime(a: Array, b: Array, k: Array) -> Array:
        return (p - q) ** 2 / 2 * arc_cosine_of(a, b, k, order=0) + p * q

    return Activation(f"leaky_relu({p:g}, {q:g})", function, dual, dual_prime, True)


def _erf_root(a: Array, b: Array, k: Array) -> Array:
    """√((1+2a)(1+2b) − 4k²), written so that it stays real and exact for large a = b = k."""
    determinant = a * b - k * k
    return jnp.sqrt(1 + 2 * (a + b) + 4 * jnp.where(determinant >= 0, determinant, 0.0))


def _erf_dual(a: Array, b: Array, k: Array) -> Array:
    return 2 / math.pi * jnp.arctan2(2 * k, _erf_root(a, b, k))


def _erf_dual_prime(a: Array, b: Array, k: Array) -> Array:
    return 4 / math.pi / _erf_root(a, b, k)


# e^(-(a+b)/2) sinh k and its cosh twin: no overflow, since |k| ≤ (a+b)/2, and no lost digits at
# small k.
def _sin_dual(a: Array, b: Array, k: Array) -> Array:
    sign = jnp.where(k >= 0, 1.0, -1.0).astype(k.dtype)
    size = sign * k
    return sign * jnp.exp(size - (a + b) / 2) * -jnp.expm1(-2 * size) / 2


def _cos_dual(a: Array, b: Array, k: Array) -> Array:
    half = (a + b) / 2
    return (jnp.exp(k - half) + jnp.exp(-k - half)) / 2


def monomial(degree: int) -> Activation:
    """σ(z) = z^degree, its duals by Isserlis' theorem (Gaussian moments as sums over pairings).

    E[u^p v^p] = Σ_j (p!)²/(j!·(m!)²·4^m) k^j (ab)^m with m = (p - j)/2, over the j of p's parity:
    j pairs join u to v, m pairs stay inside each. Of degree 2 and more it is not Lipschitz, so the
    theorems on wide networks do not cover it. Equal degrees give the same object.

    Raises ``TypeError`` when ``degree`` is no integer, ``ValueError`` when it is below 1.
    """
    return _monomial(as_whole("degree", degree, least=1))


@functools.cache
def _monomial(p: int) -> Activation:
    def power(degree: int, a: Array, b: Array, k: Array) -> Array:
        terms = []
        for j in range(degree % 2, degree + 1, 2):
            m = (degree - j) // 2
            ways = math.factorial(degree) ** 2 // (math.factorial(j) * math.factorial(m) ** 2)
            terms.append(ways / 4**m * k**j * (a * b) ** m)
        return sum(terms)

    def dual_prime(a: Array, b: Array, k: Array) -> Array:
        return p**2 * power(p - 1, a, b, k) * jnp.ones_like(k)

    return Activation(f"monomial({p})", lambda z: z**p, functools.partial(power, p), dual_prime)


def quadrature(function: Callable[[Array], Array], *, nodes: int = 40) -> Activation:
    """Any elementwise ``function`` as an activation, its duals by Gauss–Hermite quadrature.

    ``nodes`` points in each of the two directions: exact for polynomials of degree below
    ``nodes``. For smooth functions the error grows with the variance: about 1e-10 for erf and sine
    and 1e-6 for tanh at variance 1, 1e-3 for tanh at variance 4; only a few digits for functions
    with a kink. Costs nodes² evaluations an entry.

    Derivatives of the kernel with respect to the inputs are not supported where two points
    coincide. Raises ``TypeError`` when ``function`` is not callable or ``nodes`` is no integer,
    ``ValueError`` when ``nodes`` < 1.
    """
    if not callable(function):
        raise TypeError(f"function needs a callable, got {type(function).__name__}")
    nodes = as_whole("nodes", nodes, least=1)
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()

    def derivative(z: Array) -> Array:
        return jax.jvp(function, (z,), (jnp.ones_like(z),))[1]

    def expectation(h: Callable[[Array], Array], a: Array, b: Array, k: Array) -> Array:
        root = jnp.sqrt(a) * jnp.sqrt(b)
        rho = jnp.where(root > 0, k / jnp.where(root > 0, root, 1.0), 0.0)
        rho = jnp.where(rho > 1, 1.0, jnp.where(rho < -1, -1.0, rho))
        # u = √a(p z₁ + q z₂), v = √b(p z₁ − q z₂): u and v are treated alike
        p, q = safe_sqrt((1 + rho) / 2), safe_sqrt((1 - rho) / 2)
        z, w = jnp.asarray(points, k.dtype), jnp.asarray(weights, k.dtype)

        def add(total: Array, node: tuple[Array, Array, Array]) -> tuple[Array, None]:
            z1, z2, weight = node
            along, across = p * z1, q * z2
            u, v = jnp.sqrt(a) * (along + across), jnp.sqrt(b) * (along - across)
            return total + weight * h(u) * h(v), None

        grid = (jnp.repeat(z, nodes), jnp.tile(z, nodes), jnp.outer(w, w).ravel())
        shape = jnp.broadcast_shapes(a.shape, b.shape, k.shape)
        return jax.lax.scan(add, jnp.zeros(shape, k.dtype), grid)[0]

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


def _symmetric(moments: Moments) -> Moments:
    """The moments of points with themselves: exactly symmetric, with the exact diagonal."""
    a, _, k = moments
    k = jnp.where(jnp.eye(len(a), dtype=bool), a, (k + k.T) / 2)
    return Moments(a, a.T, k)


@jax.jit
def first_moments(
    x: Float[Array, "n d"], y: Float[Array, "m d"] | None, *, beta: Float[Array, ""]
) -> Moments:
    """Σ^(1) = xᵀx'/n₀ + β²; with ``y`` None of ``x`` with itself."""
    other = x if y is None else y
    a = jnp.sum(x * x, axis=1, keepdims=True)
    b = jnp.sum(other * other, axis=1, keepdims=True).T
    moments = Moments(*(t / x.shape[1] + beta**2 for t in (a, b, x @ other.T)))
    return _symmetric(moments) if y is None else moments


def next_moments(
    moments: Moments,
    sigma: Activation,
    *,
    gain: Float[Array, ""],
    beta: Float[Array, ""],
    symmetric: bool = False,
) -> Moments:
    """From Σ^(ℓ) to Σ^(ℓ+1) = c·E[σ(u)σ(v)] + β²; ``symmetric`` for points with themselves."""
    a, b, k = moments
    arguments = ((a, a, a), (b, b, b), (a, b, k))
    moments = Moments(*(gain * sigma.dual(*t) + beta**2 for t in arguments))
    return _symmetric(moments) if symmetric else moments


@jax.jit
def mirrored(kernel: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """(k + kᵀ)/2: exactly symmetric, as a program of its own.

    Inside the program that computes k, XLA would compute kᵀ again, with another rounding.
    """
    return (kernel + kernel.T) / 2


# A program a layer, not one for the whole network: what is compiled does not depend on the depth.
_next = jax.jit(next_moments, static_argnames=("sigma", "symmetric"))


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
    moments = first_moments(x, y, beta=beta)
    for _ in range(depth - 1):
        moments = _next(moments, sigma, gain=gain, beta=beta, symmetric=y is None)
    return mirrored(moments.k) if y is None else moments.k


# ---------------------------------------------------------------- depth


@functools.partial(jax.jit, static_argnames="sigma")
def _variance(q: Array, gain: Array, beta: Array, sigma: Activation) -> Array:
    return gain * sigma.dual(q, q, q) + beta**2


@functools.partial(jax.jit, static_argnames="sigma")
def _correlation(rho: Array, q: Array, gain: Array, beta: Array, sigma: Activation) -> Array:
    q = jnp.broadcast_to(q, rho.shape)
    return (gain * sigma.dual(q, q, q * rho) + beta**2) / _variance(q, gain, beta, sigma)


@functools.partial(jax.jit, static_argnames="sigma")
def _settled(gain: Array, beta: Array, sigma: Activation) -> tuple[Array, Array]:
    """Two successive variances after the map, iterated from 1, has settled or run away."""

    def moving(state: tuple[Array, Array, Array]) -> Array:
        before, q, steps = state
        still = abs(q - before) > 4 * jnp.finfo(q.dtype).eps * q
        return still & (q > 1e-6) & (q < 1e6) & (steps < 100_000)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        _, q, steps = state
        return q, _variance(q, gain, beta, sigma), steps + 1

    one = jnp.ones_like(gain)
    before, q, _ = jax.lax.while_loop(moving, step, (0 * one, one, 0))
    return before, q


@functools.partial(jax.jit, static_argnames="sigma")
def _susceptibility(q: Array, gain: Array, sigma: Activation) -> Array:
    return gain * sigma.dual_prime(q, q, q)


def _variances(q: ArrayLike) -> Array:
    q = as_array("q", q)
    if not isinstance(q, jax.core.Tracer) and not np.all(np.asarray(q) > 0):
        raise ValueError("q needs positive variances, got one that is not")
    return q


def _numbers(gain: float, beta: float, dtype: object) -> tuple[Array, Array]:
    gain, beta = check_numbers(depth=1, gain=gain, beta=beta)
    return jnp.asarray(gain, dtype), jnp.asarray(beta, dtype)


def variance_map(
    q: ArrayLike, *, activation: str | Activation = "relu", gain: float = 1.0, beta: float = 0.1
) -> Float[Array, "*q"]:
    """The variance c·E[σ(u)²] + β², u ~ N(0, q), of a layer above one of variance ``q``.

    ``q`` is an array of any shape, positive. Raises what ``nngp`` raises for the rest.
    Source: Poole et al. 2016, section 2.
    """
    q = _variances(q)
    return _variance(q, *_numbers(gain, beta, q.dtype), as_activation(activation))


def correlation_map(
    rho: ArrayLike,
    q: float,
    *,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
) -> Float[Array, "*rho"]:
    """The correlation of two points a layer up: ρ' = (c·E[σ(u)σ(v)] + β²)/(c·E[σ(u)²] + β²).

    (u, v) is Gaussian with both variances ``q`` and correlation ``rho`` (any shape, -1 to 1).

    Raises ``ValueError`` for a correlation beyond ±1 or a variance that is not positive.
    Source: Poole et al. 2016, section 2.
    """
    rho = as_array("rho", rho)
    if not isinstance(rho, jax.core.Tracer) and np.any(np.abs(rho) > 1):
        raise ValueError("rho needs correlations between -1 and 1, got one beyond")
    q = _variances(jnp.asarray(q, rho.dtype))
    return _correlation(rho, q, *_numbers(gain, beta, rho.dtype), as_activation(activation))


def fixed_variance(
    *, activation: str | Activation = "relu", gain: float = 1.0, beta: float = 0.1
) -> float:
    """The variance that a layer hands on unchanged: the limit of ``variance_map`` from q = 1.

    In the units of α̃². For ReLU with gain 2 and no bias every variance is fixed, and this is 1.

    Raises ``ValueError`` when the iteration does not settle between 1e-6 and 1e6: the variance of
    deep networks vanishes or grows without bound.
    """
    before, q = map(float, _settled(*_numbers(gain, beta, None), as_activation(activation)))
    if not 1e-6 < q < 1e6 or abs(q - before) > 1e-6 * q:
        raise ValueError(
            f"no positive variance is handed on unchanged with gain {gain} and beta {beta}: from 1 "
            f"the variance goes to {q:.2g}"
        )
    return q


def susceptibility(
    q: ArrayLike, *, activation: str | Activation = "relu", gain: float = 1.0
) -> Float[Array, "*q"]:
    """χ = c·E[σ'(u)²], u ~ N(0, q): the slope of the correlation map at ρ = 1, at a fixed q.

    Below 1 nearby points draw together with depth (order), above 1 they part (chaos).
    Source: Poole et al. 2016, section 2.
    """
    q = _variances(q)
    return _susceptibility(q, _numbers(gain, 0.0, q.dtype)[0], as_activation(activation))


# ---------------------------------------------------------------- the circle


def circle(angles: Float[ArrayLike, " n"]) -> Float[Array, "n 2"]:
    """Points (cos γ, sin γ) of the unit circle, shape (n, 2), for angles γ in radians.

    Raises ``ValueError`` for another rank, no angles or angles that are not finite.
    """
    angles = as_array("angles", angles)
    if angles.ndim != 1:
        raise ValueError(f"angles needs shape (n,), got {angles.shape}")
    if not len(angles):
        raise ValueError("angles needs at least one angle, got none")
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)
