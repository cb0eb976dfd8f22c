"""A limit kernel from few places: where it depends on the angle alone, and where it costs much.

Serves ``evaluation``. A limit kernel is K(x, x') = F(a, b, ρ), a and b the variances of the first
layer and ρ their correlation, and F a recursion over the layers. At many pairs of points it is
cheaper to run the recursion at few places, in float64, and to interpolate:

- *by angle*. When all points have one variance, or their norms are factors, F is a function of ρ
  alone. The variable is s = √(1 − |ρ|), one polynomial for each sign of ρ. In ρ itself the kernel
  of ReLU has root singularities at ±1; in s it is analytic (1 − cos θ = 2 sin²(θ/2)), so that a
  Chebyshev interpolant converges geometrically (Trefethen 2013, chapter 8).
- *by surface*. Where one expectation takes thousands of operations and σ is smooth, F over
  √(F(a, a, 1) F(b, b, 1)) is interpolated in three variables, log(√a + 0.3), log(√b + 0.3) and ρ. A
  point then brings a short vector in place of its variance, and a pair costs some hundred
  operations, most of them in a product of matrices, whatever the depth.

Either is left out, and the recursion runs at every pair, where the coefficients fall too slowly.
"""

import functools
from collections.abc import Callable, Hashable
from typing import NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_lib.engine.activations import Activation, Moments

__all__ = [
    "Numbers",
    "angle_polynomials",
    "at_pairs",
    "by_angle",
    "by_surface",
    "enable_x64",
    "surface",
    "surface_basis",
]

Recursion = Callable[[Moments, Activation, Array, Array, ArrayLike], Array]
"""F: (moments of the first layer, σ, gain, β, depth) to the kernel, entry by entry."""

# before JAX 0.8 it stands in jax.experimental alone
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

NODES = (32, 64)  # places where the recursion is run to find the polynomials: enough, or more
SIZES = ((16, 32), (24, 64), (40, 128))  # of a surface: in each variance, in ρ


class Numbers(NamedTuple):
    """Gain, β and depth as Python numbers: what a recursion depends on beside σ and the moments."""

    gain: float
    beta: float
    depth: int


_program = jax.jit(
    lambda moments, sigma, numbers, recursion: recursion(moments, sigma, *numbers),
    static_argnames=("sigma", "recursion"),
)


def at_pairs(
    recursion: Recursion, moments: Moments, sigma: Activation, numbers: Numbers
) -> np.ndarray:
    """The recursion in float64 at pairs of points of any shape; one program for each shape."""
    with enable_x64(True):
        gain, beta = (np.float64(t) for t in numbers[:2])
        moments = jax.tree.map(lambda t: jnp.asarray(t, float), moments)
        found = _program(moments, sigma, (gain, beta, np.int32(numbers.depth)), recursion)
        return np.asarray(found)


# ---------------------------------------------------------------- by angle


@functools.lru_cache(maxsize=256)
def angle_polynomials(
    recursion: Recursion, sigma: Activation, numbers: Numbers, variance: float, eps: float
) -> Float[np.ndarray, "2 terms"] | None:
    """Chebyshev coefficients in s of F at one ``variance``, for ρ ≥ 0 and ρ < 0; None if too many.

    As many as ``eps``, the rounding of the result, asks for.
    """

    def at(z: Float[np.ndarray, " nodes"]) -> Float[np.ndarray, "nodes 2"]:
        gap = np.stack([((z + 1) / 2) ** 2] * 2, axis=1)
        k = variance * (1 - gap) * np.array([[1.0, -1.0]])
        a = np.full_like(k, variance)
        gap = None if sigma.slopes is None else gap
        return at_pairs(recursion, Moments(a, a, k, gap), sigma, numbers)

    for nodes in NODES:
        c = np.polynomial.chebyshev.chebinterpolate(at, nodes - 1)
        size = np.abs(c).max(axis=1)
        left_out = np.cumsum(size[::-1])[::-1] / size.sum()  # by stopping before each term
        if left_out[-4] <= max(eps / 4, 2e-13):
            terms = int(np.argmax(left_out <= eps / 4)) or nodes
            return c[: 4 * -(-terms // 4)].T  # multiples of 4: few different programs
    return None


def by_angle(
    ahead: Array, gap: Array, coefficients: Float[Array, "2 terms"]
) -> Float[Array, "n m"]:
    """Σ_m c_m T_m(2s − 1), s = √gap, by Clenshaw's recurrence; c depends on the sign of ρ."""
    c = [jnp.where(ahead, *pair) for pair in coefficients.T]
    z = 2 * jnp.sqrt(gap) - 1
    low = high = jnp.zeros_like(z)
    for term in c[:0:-1]:
        low, high = 2 * z * low - high + term, low
    return z * low - high + c[0]


# ---------------------------------------------------------------- by surface


class Surface(NamedTuple):
    """Σ_qrt c_qrt v_q(a) v_r(b) T_t(ρ) with v = ``modes``ᵀ T(log(√a + 0.3)), few of them."""

    coefficients: Float[np.ndarray, "q q t"]
    modes: Float[np.ndarray, "p q"]
    ends: tuple[float, float]


_OFFSET = 0.3  # about where σ begins to bend


def _stretched(variance: ArrayLike) -> np.ndarray:
    return np.asarray(np.log(np.sqrt(variance) + _OFFSET))


def _to_chebyshev(count: int) -> np.ndarray:
    """The matrix from values at the zeros of T_count to coefficients."""
    j, i = np.meshgrid(np.arange(count), np.arange(count))
    matrix = np.cos(i * (j + 0.5) * np.pi / count) * 2 / count
    matrix[0] /= 2
    return matrix


def _zeros(count: int) -> np.ndarray:
    return np.cos((np.arange(count) + 0.5) * np.pi / count)


def surface(
    recursion: Recursion, sigma: Activation, numbers: Numbers, variances: np.ndarray, eps: float
) -> Surface | None:
    """The interpolant for points of these ``variances``; None where it would take too many terms.

    The ends are rounded outwards, so that similar data share what was computed.
    """
    low, high = float(variances.min()), float(variances.max())
    if high - low <= 16 * eps * high:
        middle = float(_stretched(variances.mean()))
        ends = (middle, middle)
    else:
        ends = (np.floor(4 * _stretched(low)) / 4, np.ceil(4 * _stretched(high)) / 4)
        ends = (max(float(ends[0]), float(np.log(_OFFSET))), float(ends[1]))
    # of quadrature, whose places cost most, a digit more than is promised
    accuracy = max(eps / 4, 1e-8 if isinstance(sigma.key, str) else 1e-7)
    return _surface(recursion, sigma, numbers, ends, accuracy)


@functools.lru_cache(maxsize=64)
def _surface(
    recursion: Recursion, sigma: Activation, numbers: Numbers, ends: Hashable, accuracy: float
) -> Surface | None:
    for sizes, angles in SIZES:
        count = 1 if ends[0] == ends[1] else sizes
        middle, half = (ends[1] + ends[0]) / 2, (ends[1] - ends[0]) / 2
        roots = np.exp(middle + half * _zeros(count)) - _OFFSET
        row, column = np.triu_indices(count)
        a, b = (roots[t, None] ** 2 for t in (row, column))
        k = roots[row, None] * roots[column, None] * np.append(_zeros(angles), 1.0)
        values = at_pairs(recursion, Moments(a, b, k), sigma, numbers)
        values, diagonal = values[:, :-1], values[row == column, -1]
        table = np.empty((count, count, angles))
        table[row, column] = table[column, row] = (
            values / np.sqrt(diagonal[row] * diagonal[column])[:, None]
        )
        if not np.all(np.isfinite(table)):
            return None
        to = _to_chebyshev(count)
        c = np.einsum("pi,qj,tk,ijk->pqt", to, to, _to_chebyshev(angles), table, optimize=True)
        terms = _enough(np.abs(c).sum(axis=(0, 1)), accuracy)
        if terms and (count == 1 or _enough(np.abs(c).sum(axis=(1, 2)), accuracy)):
            c = c[:, :, : min(4 * -(-terms // 4), angles)]  # few different programs
            modes, size, _ = np.linalg.svd(c.reshape(count, -1), full_matrices=False)
            left_out = np.append(np.cumsum(size[::-1])[::-1], 0.0)
            modes = modes[:, : 2 * -(-int(np.argmax(left_out <= accuracy)) // 2)]
            small = np.einsum("pq,rs,prt->qst", modes, modes, c, optimize=True)
            return Surface(small, modes, ends)
    return None


def _enough(size: np.ndarray, accuracy: float) -> int | None:
    """How many terms leave out no more than ``accuracy``; None unless some are to spare."""
    left_out = np.append(np.cumsum(size[::-1])[::-1], 0.0)  # by stopping before each term
    terms = int(np.argmax(left_out <= accuracy))
    return terms if terms <= max(len(size) - 3, 1) else None


def surface_basis(
    found: Surface, variances: np.ndarray
) -> tuple[Float[np.ndarray, "n t q"], Float[np.ndarray, "n q"]]:
    """What a point brings as a row, Σ_q v_q(a) c_qrt, and as a column, v_r(b)."""
    low, high = found.ends
    half = (high - low) / 2 or 1.0
    z = np.clip((_stretched(variances) - (high + low) / 2) / half, -1, 1)
    columns = np.polynomial.chebyshev.chebvander(z, len(found.modes) - 1) @ found.modes
    return np.einsum("nq,qrt->ntr", columns, found.coefficients, optimize=True), columns


def by_surface(
    rho: Float[Array, "n m"], rows: Float[Array, "n t q"], columns: Float[Array, "m q"]
) -> Float[Array, "n m"]:
    """Σ_t c_t T_t(ρ) with c_t = rows_t · columns, by Clenshaw's recurrence.

    Eight rows at a time, whose coefficients, t numbers a pair, stay in a core's nearest cache.
    """
    (n, m), (terms, modes), few = rho.shape, rows.shape[1:], 8
    groups = -(-n // few)
    more = groups * few - n

    def one(group: tuple[Array, Array]) -> Array:
        rho, rows = group
        c = (rows.reshape(-1, modes) @ columns.T).reshape(few, terms, m)
        low = high = jnp.zeros_like(rho)
        for t in range(terms - 1, 0, -1):
            low, high = 2 * rho * low - high + c[:, t], low
        return rho * low - high + c[:, 0]

    rho = jnp.pad(rho, ((0, more), (0, 0))).reshape(groups, few, m)
    rows = jnp.pad(rows, ((0, more), (0, 0), (0, 0))).reshape(groups, few, terms, modes)
    return jax.lax.map(one, (rho, rows)).reshape(-1, m)[:n]
