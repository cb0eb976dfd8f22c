"""Angles between points, roots, and the arc-cosine kernels as functions of three moments.

Serves ``kernels``, the dual activations and the evaluation of limit kernels. The second moments
a = ‖x‖², b = ‖x'‖², k = x·x' of a pair give its angle θ = arccos(k/√(ab)); the functions here keep
its digits, and finite derivatives, where a plain square root or arccos would lose them.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

__all__ = ["angle", "arc_cosine_of", "geometric_mean", "safe_sqrt"]


def safe_sqrt(t: Array) -> Array:
    """√max(t, 0), with derivative 0 (not infinity) where t ≤ 0."""
    positive = t > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, t, 1.0)), 0.0)


def _arcsine_coefficients(terms: int) -> list[float]:
    """The polynomial B with arcsin(m) = m + m³ B(m²) for 0 ≤ m ≤ 1/√2, lowest power first."""

    def b(u: np.ndarray) -> np.ndarray:  # the power series; its terms fall faster than 2^-n
        total, term = np.zeros_like(u), np.ones_like(u)
        for n in range(1, 60):
            term = term * (2 * n - 1) / (2 * n)
            total, term = total + term / (2 * n + 1), term * u
        return total

    fit = np.polynomial.Chebyshev.interpolate(b, terms - 1, domain=[0.0, 0.5])
    return fit.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef.tolist()


# enough terms for the last digit of float32 and of float64
_ARCSINE = {4: _arcsine_coefficients(8), 8: _arcsine_coefficients(20)}


@jax.custom_jvp
def angle(sin: Array, cos: Array) -> Array:
    """θ in [0, π] from sin θ ≥ 0 and cos θ: arctan2(sin, cos) on the half circle, to rounding.

    A polynomial in the smaller of the two: XLA calls the C library for arctan2, one entry at a
    time, which takes about thirty times as long and is most of the cost of a deep kernel.
    """
    other = jnp.abs(cos)
    first = sin < other
    m = jnp.where(first, sin, other)
    b = jnp.zeros_like(m)
    for coefficient in reversed(_ARCSINE[max(4, m.dtype.itemsize)]):
        b = b * (m * m) + coefficient
    acute = m + m * (m * m) * b
    acute = jnp.where(first, acute, math.pi / 2 - acute)
    return jnp.where(cos < 0, math.pi - acute, acute)


@angle.defjvp
def _angle_jvp(at: tuple[Array, Array], moved: tuple[Array, Array]) -> tuple[Array, Array]:
    (sin, cos), (dsin, dcos) = at, moved
    return angle(sin, cos), (cos * dsin - sin * dcos) / (sin * sin + cos * cos)


def geometric_mean(a: Array, b: Array) -> Array:
    """√(ab) of numbers that are 0 or more: exactly a where a = b, and the same for (b, a).

    The product ab would leave the range of float32 for points of norm 1e10 or 1e-10.
    """
    first = a >= b  # not jnp.maximum, whose second derivative is wrong where a = b
    root_a, root_b = safe_sqrt(a), safe_sqrt(b)
    larger, smaller = jnp.where(first, root_a, root_b), jnp.where(first, root_b, root_a)
    return jnp.where(first, a, b) * (smaller / jnp.where(larger > 0, larger, 1.0))


def _polar(a: Array, b: Array, k: Array) -> tuple[Array, Array, Array, Array]:
    """√(ab), ρ = k/√(ab), sin θ and θ = arccos ρ.

    ρ = 1 and θ = 0 hold exactly on a Gram's diagonal, where a = b = k and an arccos of a rounded ρ
    would lose half the digits.
    """
    root = geometric_mean(a, b)
    rho = k / root
    # not jnp.clip, which halves the derivative where ρ is exactly 1
    rho = jnp.where(rho > 1, 1.0, jnp.where(rho < -1, -1.0, rho))
    sin = safe_sqrt((1 - rho) * (1 + rho))
    return root, rho, sin, angle(sin, rho)


def arc_cosine_of(a: Array, b: Array, k: Array, *, order: int) -> Array:
    """The arc-cosine kernel of ``order`` 0 or 1 as a function of a = ‖x‖², b = ‖x'‖², k = x·x'.

    a, b, k broadcast against one another. With θ the angle between the points: κ₀ = (π - θ)/π for
    order 0, √(ab)·κ₁ = √(ab)·(sin θ + (π - θ)·cos θ)/π for order 1. It is twice the expectation
    of σ(u)σ(v) over (u, v) ~ N(0, [[a, k], [k, b]]), σ the step function or ReLU.
    Source: Cho and Saul 2009, equations 3 to 6.
    """
    root, rho, sin, theta = _polar(a, b, k)
    if order == 0:
        return (math.pi - theta) / math.pi
    return root * (sin + (math.pi - theta) * rho) / math.pi
