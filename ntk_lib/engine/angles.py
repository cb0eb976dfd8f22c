"""Angles between points, roots, and the arc-cosine kernels as functions of three moments.

Serves ``kernels``, the dual activations and the evaluation of limit kernels. The second moments
a = ‖x‖², b = ‖x'‖², k = x·x' of a pair give its angle θ = arccos(k/√(ab)); the functions here keep
its digits, and finite derivatives, where a plain square root or arccos would lose them.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

__all__ = [
    "ArcCosine",
    "angle",
    "arc_cosine_at",
    "arc_cosine_of",
    "correlations",
    "geometric_mean",
    "safe_sqrt",
    "unit_vectors",
]


def safe_sqrt(t: Array) -> Array:
    """√max(t, 0), with derivative 0 (not infinity) where t ≤ 0."""
    nothing = t <= 0  # NaN stays NaN
    return jnp.where(nothing, 0.0, jnp.sqrt(jnp.where(nothing, 1.0, t)))


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


# ---------------------------------------------------------------- what is left to 1

# Below this 1 - |ρ| (an angle of 0.03) the rounding of ρ is more than 32 roundings of the angle.
_NEAR = 2.0**-11
# With so few coordinates the differences of all pairs cost less than a layer of the recursion.
_FEW = 16


def unit_vectors(x: Array, beta: ArrayLike) -> tuple[Array, Array]:
    """(x/√d, β) of each row over its norm, (n, d + 1), and that norm √Σ^(1)(x, x), (n,).

    The rows are scaled before they are squared, so that no square leaves the range of the dtype. A
    row of zeros without bias gives a vector of zeros.
    """
    bias = jnp.broadcast_to(jnp.asarray(beta, x.dtype), (len(x), 1))
    rows = jnp.concatenate([x / math.sqrt(x.shape[1]), bias], axis=1)
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
    scale = jnp.where(largest > 0, largest, 1.0)
    rows = rows / scale
    norm = safe_sqrt(jnp.sum(rows * rows, axis=1, keepdims=True))
    return rows / jnp.where(norm > 0, norm, 1.0), (norm * scale)[:, 0]


@jax.custom_jvp
def correlations(u: Array, v: Array) -> tuple[Array, Array]:
    """ρ = u·v of unit vectors, (n, m), and the *gap* 1 - |ρ|, from u ∓ v where ρ is near ±1.

    A rounded ρ knows an angle θ to ε/θ only, √ε at 0 and π. ‖u ∓ v‖²/2 knows it to ε, and it is
    exactly 0 for equal vectors.
    """
    rho = u @ v.T
    sign = jnp.where(rho < 0, -1.0, 1.0).astype(rho.dtype)
    if u.shape[1] <= _FEW:
        square = jnp.zeros_like(rho)
        for i in range(u.shape[1]):  # in the open, since XLA makes slow loops of a sum of products
            between = u[:, i, None] - sign * v[None, :, i]
            square = square + between * between
        return rho, jnp.minimum(square / 2, 1.0)
    gap = jnp.maximum(1 - jnp.abs(rho), 0.0)
    columns = jax.lax.broadcasted_iota(jnp.int32, gap.shape, 1)

    def left(state: tuple[Array, Array]) -> Array:
        return jnp.any(state[1] < _NEAR)

    def nearest(state: tuple[Array, Array]) -> tuple[Array, Array]:
        """One pair in each row: few rows have many near ones."""
        gap, open_ = state
        column = jnp.argmin(open_, axis=1).astype(jnp.int32)
        of_row = jnp.take_along_axis(sign, column[:, None], axis=1)
        between = u - of_row * v[column]
        exact = jnp.sum(between * between, axis=1, keepdims=True) / 2
        here = (columns == column[:, None]) & (open_ < _NEAR)
        return jnp.where(here, exact, gap), jnp.where(here, jnp.ones_like(gap), open_)

    return rho, jax.lax.while_loop(left, nearest, (gap, gap))[0]


@correlations.defjvp
def _correlations_jvp(
    at: tuple[Array, Array], moved: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    (u, v), (du, dv) = at, moved
    rho, gap = correlations(u, v)
    slope = du @ v.T + u @ dv.T
    return (rho, gap), (slope, jnp.where(rho < 0, slope, -slope))


# ---------------------------------------------------------------- arc-cosine kernels


def _polar(a: Array, b: Array, k: Array) -> tuple[Array, Array]:
    """ρ = k/√(ab) and 1 - |ρ|; where a point has norm zero, 0 and 1."""
    root = geometric_mean(a, b)
    rho = k / jnp.where(root > 0, root, 1.0)
    # not jnp.clip, which halves the derivative where ρ is exactly 1
    rho = jnp.where(rho > 1, 1.0, jnp.where(rho < -1, -1.0, rho))
    return rho, 1 - jnp.abs(rho)


class ArcCosine(NamedTuple):
    """κ₀ and κ₁ of the angle θ, and 1 - κ₁ with its digits where θ is small."""

    step: Array
    relu: Array
    rest: Array


def arc_cosine_at(ahead: Array, gap: Array) -> ArcCosine:
    """The arc-cosine kernels of unit vectors from the sign of ρ (``ahead``: ρ ≥ 0) and 1 - |ρ|.

    With t the angle to the nearer of 0 and π and w = (sin t - t cos t)/π it is κ₁ = cos t + w where
    ρ ≥ 0, and w where ρ < 0.
    """
    cos = 1 - gap
    sin = safe_sqrt(gap * (2 - gap))
    t = angle(sin, cos)
    w = (sin - t * cos) / math.pi
    step = jnp.where(ahead, math.pi - t, t) / math.pi
    relu = jnp.where(ahead, cos + w, w)
    return ArcCosine(step, relu, jnp.where(ahead, gap - w, 1 - w))


def arc_cosine_of(a: Array, b: Array, k: Array, gap: Array | None = None, *, order: int) -> Array:
    """The arc-cosine kernel of ``order`` 0 or 1 as a function of a = ‖x‖², b = ‖x'‖², k = x·x'.

    a, b, k broadcast against one another; ``gap`` is 1 - |k|/√(ab) where it is known better than
    from k. With θ the angle between the points: κ₀ = (π - θ)/π for order 0,
    √(ab)·κ₁ = √(ab)·(sin θ + (π - θ)·cos θ)/π for order 1. It is twice the expectation of σ(u)σ(v)
    over (u, v) ~ N(0, [[a, k], [k, b]]), σ the step function or ReLU.
    Source: Cho and Saul 2009, equations 3 to 6.
    """
    if gap is None:
        rho, gap = _polar(a, b, k)
        ahead = rho >= 0
    else:
        ahead = k >= 0
    kernels = arc_cosine_at(ahead, gap)
    return kernels.step if order == 0 else geometric_mean(a, b) * kernels.relu
