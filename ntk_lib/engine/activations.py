"""Activations and their Gaussian expectations, the dual activations.

Serves every chapter about wide networks. A layer of an infinitely wide network turns the second
moments a = Σ(x, x), b = Σ(x', x'), k = Σ(x, x') of a pair of points into

    E[σ(u)σ(v)] and E[σ'(u)σ'(v)],        (u, v) ~ N(0, [[a, k], [k, b]]),

the *dual activation* and that of the derivative: functions of (a, b, k), known in closed form for
the activations listed in ``ACTIVATIONS``.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ntk_lib.engine.angles import angle, arc_cosine_of, geometric_mean, safe_sqrt
from ntk_lib.engine.arguments import as_number, as_whole

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Moments",
    "as_activation",
    "leaky_relu",
    "monomial",
    "quadrature",
]


class Moments(NamedTuple):
    """Second moments of one layer: a = Σ(x, x), b = Σ(x', x'), k = Σ(x, x').

    Of n points with m others a is (n, 1), b (1, m) and k (n, m); in general they broadcast.
    """

    a: Float[Array, "*rows"]
    b: Float[Array, "*columns"]
    k: Float[Array, "*pairs"]


class Activation(NamedTuple):
    """A nonlinearity σ with its two Gaussian expectations.

    ``dual(a, b, k)`` is E[σ(u)σ(v)] and ``dual_prime(a, b, k)`` is E[σ'(u)σ'(v)] for
    (u, v) ~ N(0, [[a, k], [k, b]]); a, b, k are arrays that broadcast against one another.
    ``homogeneous`` says that σ(tz) = tσ(z) for t > 0: then the second depends on the angle between
    the points alone, and is undefined where a or b is zero.
    """

    name: str
    function: Callable[[Array], Array]
    dual: Callable[[Array, Array, Array], Array]
    dual_prime: Callable[[Array, Array, Array], Array]
    homogeneous: bool = False


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


def _erf_angle(a: Array, b: Array, k: Array) -> tuple[Array, Array, Array]:
    """h = √((1+2a)(1+2b)), and sin and cos of the angle φ with sin φ = 2k/h.

    cos²φ = 1 − 4k²/h² is written as a sum of positive parts, 1/A + 1/B − 1/(AB) + 4(ab − k²)/(AB)
    with A = 1+2a, B = 1+2b: for large a = b = k the 1 and the 4k²/h² would cancel.
    """
    big_a, big_b = 1 + 2 * a, 1 + 2 * b
    h = geometric_mean(big_a, big_b)
    mean, part = geometric_mean(a / big_a, b / big_b), k / h
    determinant = (mean - part) * (mean + part)
    rest = 1 / big_a + 1 / big_b - 1 / big_a / big_b
    cos = jnp.sqrt(rest + 4 * jnp.where(determinant >= 0, determinant, 0.0))
    return h, 2 * part, cos


def _erf_dual(a: Array, b: Array, k: Array) -> Array:
    _, sin, cos = _erf_angle(a, b, k)
    sign = jnp.where(sin >= 0, 1.0, -1.0).astype(sin.dtype)
    return 2 / math.pi * sign * angle(sign * sin, cos)


def _erf_dual_prime(a: Array, b: Array, k: Array) -> Array:
    h, _, cos = _erf_angle(a, b, k)
    return 4 / math.pi / (h * cos)


def _exp_of_negative(t: Array) -> Array:
    """e^t for t ≤ 0; a t that rounding has put above 0 counts as 0."""
    return jnp.exp(jnp.where(t > 0, 0.0, t))


# e^(-(a+b)/2) sinh k and its cosh twin: no overflow, since |k| ≤ (a+b)/2, and no lost digits at
# small k.
def _sin_dual(a: Array, b: Array, k: Array) -> Array:
    sign = jnp.where(k >= 0, 1.0, -1.0).astype(k.dtype)
    size = sign * k
    return sign * _exp_of_negative(size - (a + b) / 2) * -jnp.expm1(-2 * size) / 2


def _cos_dual(a: Array, b: Array, k: Array) -> Array:
    half = (a + b) / 2
    return (_exp_of_negative(k - half) + _exp_of_negative(-k - half)) / 2


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
