"""A limit kernel from few places: where it depends on the angle alone, and where it costs much.

Serves ``evaluation``. A limit kernel is K(x, x') = F(a, b, ρ), a and b the variances of the first
layer and ρ their correlation, and F a recursion over the layers. At many pairs of points it is
cheaper to run the recursion at few places, in float64, and to interpolate:

- *by angle*. When all points have one variance, or their norms are factors, F is a function of ρ
  alone. The variable is s = √(1 − |ρ|), one polynomial for each sign of ρ. In ρ itself the kernel
  of ReLU has root singularities at ±1; in s it is analytic (1 − cos θ = 2 sin²(θ/2)), so that a
  Chebyshev interpolant converges geometrically (Trefethen 2013, chapter 8).
- *by surface*. Where one expectation takes thousands of operations and σ is smooth, F over
  √(F(a, a, 1) F(b, b, 1)) is interpolated in three variables, log(√a + 0.3), log(√b + 0.3) and ρ.
  The coefficient of T_t(ρ) is a symmetric matrix, which few eigenvectors make up, the fewer the
  larger t: a point brings their values in place of its variance, and a pair costs a hundred or two
  operations, whatever the depth. F(a, a, 1) itself is interpolated in its one variable.

Either is left out, and the recursion runs at every pair, where the coefficients fall too slowly.
"""

import dataclasses
import functools
import itertools
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
    "ONE",
    "Numbers",
    "Ranks",
    "angle_polynomials",
    "by_angle",
    "by_surface",
    "by_variance",
    "enable_x64",
    "surface",
    "surface_basis",
]

Recursion = Callable[[Moments, Activation, Array, Array, ArrayLike], Array]
"""F: (moments of the first layer, σ, gain, β, depth) to the kernel, entry by entry."""

# before JAX 0.8 it stands in jax.experimental alone
enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64

NODES = (32, 64)  # places where the recursion is run to find the polynomials: enough, or more
UNROLLED = 128  # products of an expression that is compiled as one
ONE = 64  # places for the kernel of a point with itself
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


def _run(recursion: Recursion, moments: Moments, sigma: Activation, numbers: Numbers) -> np.ndarray:
    """The recursion in float64."""
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
        return _run(recursion, Moments(a, a, k, gap), sigma, numbers)

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
    """Σ_t T_t(ρ) Σ_q v_tq(a) s_tq v_tq(b) with v_t = ``modes[t]``ᵀ T(log(√a + 0.3)).

    s_t, in ``sizes``, and v_t are eigenvalues and eigenvectors of the coefficient of T_t(ρ).
    """

    sizes: tuple[Float[np.ndarray, " q"], ...]
    modes: tuple[Float[np.ndarray, "p q"], ...]
    ends: tuple[float, float]


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Ranks:
    """How many eigenvectors each term of a surface takes: what its program depends on."""

    each: tuple[int, ...]


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


def _outwards(low: float, high: float) -> tuple[float, float]:
    """The ends of the stretched variable, so that similar data share what was computed."""
    first, last = np.floor(4 * _stretched(low)) / 4, np.ceil(4 * _stretched(high)) / 4
    return max(float(first), float(np.log(_OFFSET))), float(last)


def surface(
    recursion: Recursion, sigma: Activation, numbers: Numbers, variances: np.ndarray, eps: float
) -> Surface | None:
    """The interpolant at these ``variances``; None where it would take too many terms."""
    low, high = float(variances.min()), float(variances.max())
    if high - low <= 16 * eps * high:
        middle = float(_stretched(variances.mean()))
        ends = (middle, middle)
    else:
        ends = _outwards(low, high)
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
        values = _run(recursion, Moments(a, b, k), sigma, numbers)
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
            return _eigenvectors(c[:, :, : min(4 * -(-terms // 4), angles)], ends, accuracy)
    return None


def _eigenvectors(c: Float[np.ndarray, "p p t"], ends: tuple, accuracy: float) -> Surface:
    """The surface with as many eigenvectors of each term as ``accuracy`` asks for, and a few more.

    The ranks fall in equal stairs from the largest, and are zero where all terms of one parity
    vanish but the first of it (σ is odd, or σ' is): few different programs are made.
    """
    terms = c.shape[2]
    pairs = [np.linalg.eigh(c[:, :, t]) for t in range(terms)]
    pairs = [(size[order], v[:, order]) for size, v in pairs for order in [np.argsort(-abs(size))]]
    left_out = [np.append(np.cumsum(abs(size)[::-1])[::-1], 0.0) for size, _ in pairs]
    needed = [int(np.argmax(left <= accuracy)) for left in left_out]
    # of stairs of height h the t-th term takes ⌈h (terms − t)/terms⌉
    high = max(-(-(rank - 1) * terms // (terms - t)) + 1 for t, rank in enumerate(needed) if rank)
    ranks = [min(-(-high * (terms - t) // terms), len(c)) for t in range(terms)]
    for parity in (0, 1):
        if not any(needed[parity + 2 :: 2]):
            ranks[parity::2] = [needed[parity]] + [0] * len(ranks[parity + 2 :: 2])
    sizes, modes = zip(
        *[(s[:rank], v[:, :rank]) for (s, v), rank in zip(pairs, ranks, strict=True)], strict=True
    )
    return Surface(sizes, modes, ends)


def _enough(size: np.ndarray, accuracy: float) -> int | None:
    """How many terms leave out no more than ``accuracy``; None unless some are to spare."""
    left_out = np.append(np.cumsum(size[::-1])[::-1], 0.0)  # by stopping before each term
    terms = int(np.argmax(left_out <= accuracy))
    return terms if terms <= max(len(size) - 3, 1) else None


def _stretched_to(ends: tuple[float, float], variances: np.ndarray) -> np.ndarray:
    """The stretched variable, from −1 to 1 between the ``ends``."""
    low, high = ends
    half = (high - low) / 2 or 1.0
    return np.clip((_stretched(variances) - (high + low) / 2) / half, -1, 1)


def surface_basis(
    found: Surface, variances: np.ndarray
) -> tuple[Float[np.ndarray, "n r"], Float[np.ndarray, "n r"], Ranks]:
    """What a point brings as a row, all s_tq v_tq(a) one after the other, and as a column."""
    modes = np.concatenate(found.modes, axis=1)
    z = _stretched_to(found.ends, variances)
    values = np.polynomial.chebyshev.chebvander(z, len(modes) - 1) @ modes
    return values * np.concatenate(found.sizes), values, Ranks(tuple(map(len, found.sizes)))


def by_surface(
    rho: Float[Array, "n m"],
    rows: Float[Array, "n r"],
    columns: Float[Array, "m r"],
    ranks: Ranks,
) -> Float[Array, "n m"]:
    """Σ_t c_t T_t(ρ) by Clenshaw's recurrence, c_t the sum of the next products, as ``ranks`` says.

    All in one expression, which the compiler runs through entry by entry: products of matrices
    would bring every c_t to memory. An expression of many products would take minutes to compile:
    those are made term by term.
    """
    ends = list(itertools.accumulate(ranks.each))
    low = high = jnp.zeros_like(rho)
    if ends[-1] <= UNROLLED:
        columns = columns.T

        def coefficient(t: int) -> Array:
            parts = range(ends[t] - ranks.each[t], ends[t])
            products = [rows[:, part, None] * columns[None, part] for part in parts]
            return sum(products, start=jnp.zeros_like(rho))

        for t in range(len(ends) - 1, 0, -1):
            low, high = 2 * rho * low - high + coefficient(t), low
        return rho * low - high + coefficient(0)

    # term by term, each with as many columns as the first: those beyond its own count for nothing
    each = np.asarray(ranks.each)
    place = (np.asarray(ends) - each)[:, None] + np.arange(each.max())
    kept = (np.arange(each.max()) < each[:, None])[:, None]
    place = np.minimum(place, ends[-1] - 1)
    left = jnp.where(kept, jnp.moveaxis(rows[:, place], 1, 0), 0)
    right = jnp.moveaxis(columns[:, place], 1, 0)

    def step(carried: tuple[Array, Array], term: tuple[Array, Array]) -> tuple:
        low, high = carried
        return (2 * rho * low - high + term[0] @ term[1].T, low), None

    (low, high), _ = jax.lax.scan(step, (low, high), (left[1:], right[1:]), reverse=True)
    return rho * low - high + left[0] @ right[0].T


# ---------------------------------------------------------------- by variance


def by_variance(
    recursion: Recursion, sigma: Activation, numbers: Numbers, variances: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"] | None:
    """F(a, a, 1) of a smooth σ at many variances a; None where 64 places do not give ten digits.

    Its logarithm is interpolated: relative errors are the same at small and at large a.
    """
    low, high = float(variances.min()), float(variances.max())
    if not low < high:
        return None
    found = _logarithm(recursion, sigma, numbers, _outwards(low, high))
    if found is None:
        return None
    ends, coefficients = found
    z = _stretched_to(ends, variances)
    return np.exp(np.polynomial.chebyshev.chebval(z, coefficients))


@functools.lru_cache(maxsize=256)
def _logarithm(
    recursion: Recursion, sigma: Activation, numbers: Numbers, ends: tuple[float, float]
) -> tuple[tuple[float, float], np.ndarray] | None:
    z = (ends[1] + ends[0]) / 2 + (ends[1] - ends[0]) / 2 * _zeros(ONE)
    a = (np.exp(z) - _OFFSET) ** 2
    values = _run(recursion, Moments(a, a, a), sigma, numbers)
    if not np.all(np.isfinite(values) & (values > 0)):
        return None
    c = _to_chebyshev(ONE) @ np.log(values)
    return (ends, c) if np.abs(c[-4:]).max() < 1e-10 else None
