"""Kernels: similarity of inputs, regression and descent in the space of functions.

Serves the chapter ``kernels``. A kernel is a symmetric function K(x, x') whose Gram matrices are
positive semi-definite. Kernel functions take ``x`` of shape (n, d) and ``y`` of shape (m, d) and
return (n, m); without ``y`` the Gram of ``x`` with itself.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_lib.arguments import as_array, as_inputs, as_number, as_whole

__all__ = [
    "PrincipalComponents",
    "arc_cosine",
    "arc_cosine_of",
    "polynomial",
    "principal_components",
    "rbf",
    "safe_sqrt",
]

# ---------------------------------------------------------------- kernels


def rbf(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"] | None = None, *, bandwidth: float = 1.0
) -> Float[Array, "n m"]:
    """The Gaussian kernel exp(-‖x - x'‖²/(2·bandwidth²)); ``bandwidth`` in the units of x.

    Raises ``ValueError`` for bandwidth ≤ 0 and what ``as_inputs`` raises.
    """
    bandwidth = as_number("bandwidth", bandwidth)
    if bandwidth <= 0:
        raise ValueError(f"bandwidth needs a positive number, got {bandwidth}")
    x, y = as_inputs(x, y)
    # differences, not products: exactly symmetric, exactly 1 where two points coincide
    gaps = (x[:, None] - (x if y is None else y)[None]) / bandwidth
    return jnp.exp(-jnp.sum(gaps**2, axis=-1) / 2)


def polynomial(
    x: Float[ArrayLike, "n d"],
    y: Float[ArrayLike, "m d"] | None = None,
    *,
    degree: int,
    offset: float = 1.0,
) -> Float[Array, "n m"]:
    """(x·x' + offset)^degree; ``offset`` ≥ 0."""
    degree = as_whole("degree", degree, least=1)
    offset = as_number("offset", offset)
    if offset < 0:
        raise ValueError(f"offset needs a number that is 0 or more, got {offset}")
    x, y = as_inputs(x, y)
    return (x @ (x if y is None else y).T + offset) ** degree


def safe_sqrt(t: Array) -> Array:
    """√max(t, 0), with derivative 0 (not infinity) where t ≤ 0."""
    positive = t > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, t, 1.0)), 0.0)


def _polar(a: Array, b: Array, k: Array) -> tuple[Array, Array, Array, Array]:
    """√(ab), ρ = k/√(ab), sin θ and θ = arccos ρ.

    The root is a·√(b/a), exactly a when a = b: then ρ = 1 and θ = 0 hold exactly on a Gram's
    diagonal, where an arccos of a rounded ρ would lose half the digits.
    """
    root = a * jnp.sqrt(b / a)
    rho = k / root
    # not jnp.clip, which halves the derivative where ρ is exactly 1
    rho = jnp.where(rho > 1, 1.0, jnp.where(rho < -1, -1.0, rho))
    sin = safe_sqrt((1 - rho) * (1 + rho))
    return root, rho, sin, jnp.arctan2(sin, rho)


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


def arc_cosine(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"] | None = None, *, order: int = 1
) -> Float[Array, "n m"]:
    """The arc-cosine kernel of Cho and Saul (2009), ``order`` 0 or 1: see ``arc_cosine_of``.

    Raises ``ValueError`` for another order, points of norm zero, and as ``as_inputs`` does.
    """
    order = as_whole("order", order, least=0)
    if order > 1:
        raise ValueError(f"order needs to be 0 or 1, got {order}")
    x, y = as_inputs(x, y, forbid_zero=True)
    other = x if y is None else y
    a, b = (jnp.sum(t * t, axis=1) for t in (x, other))
    k = x @ other.T
    if y is None:
        k = jnp.where(jnp.eye(len(x), dtype=bool), a[:, None], (k + k.T) / 2)
    return arc_cosine_of(a[:, None], b[None, :], k, order=order)


# ---------------------------------------------------------------- Gram matrices


class PrincipalComponents(NamedTuple):
    """Eigenvalues of Gram/N, largest first, and orthonormal eigenvectors, one a column."""

    values: Float[Array, " n"]
    vectors: Float[Array, "n n"]


def principal_components(gram: Float[ArrayLike, "n n"]) -> PrincipalComponents:
    """The kernel principal components of N points: eigenvalues of Gram/N, largest first.

    Raises ``ValueError`` for a matrix that is not square or not symmetric to rounding.
    Source: Jacot et al. 2018, section 5.
    """
    gram = _as_gram(gram)
    values, vectors = jnp.linalg.eigh(gram / len(gram))
    return PrincipalComponents(values[::-1], vectors[:, ::-1])


def _as_gram(gram: ArrayLike) -> Array:
    gram = as_array("gram", gram)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1] or not gram.size:
        raise ValueError(f"gram needs shape (n, n), got {gram.shape}")
    if not isinstance(gram, jax.core.Tracer):
        matrix = np.asarray(gram)
        tolerance = 100 * np.finfo(matrix.dtype).eps * np.abs(matrix).max()
        if np.abs(matrix - matrix.T).max() > tolerance:
            raise ValueError(
                "gram needs a symmetric matrix, got one that differs from its transpose"
            )
    return gram
