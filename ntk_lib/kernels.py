"""Kernels: similarity of inputs, regression and descent in the space of functions.

Serves the chapter ``kernels``. A kernel is a symmetric function K(x, x') whose Gram matrices are
positive semi-definite. Kernel functions take ``x`` of shape (n, d) and ``y`` of shape (m, d) and
return (n, m); without ``y`` the Gram of ``x`` with itself.

On N points X with Gram K, a function f = K(·, X) α has the squared norm ‖f‖² = αᵀ K α. Regression
minimises (1/2N) Σ (f(x_i) - y_i)² + (ridge/2) ‖f‖²: (K + N·ridge·I) α = y. Descent follows the
kernel gradient of any cost C, ∇_K C(x) = (1/N) Σ_j K(x, x_j) d_j with d_j = N ∂C/∂f(x_j), which
is defined outside the data too (Jacot et al. 2018, section 3).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_lib.engine.angles import arc_cosine_at, correlations, safe_sqrt, unit_vectors
from ntk_lib.engine.arguments import (
    as_array,
    as_choice,
    as_inputs,
    as_key,
    as_nonnegative,
    as_positive,
    as_scalar,
    as_semidefinite,
    as_symmetric,
    as_whole,
    check_fits,
    output_of,
)
from ntk_lib.engine.programs import Traced, traced

__all__ = [
    "Descent",
    "PrincipalComponents",
    "arc_cosine",
    "kernel_descent",
    "kernel_gradient",
    "kernel_regression",
    "left_out_errors",
    "polynomial",
    "principal_components",
    "random_features",
    "rbf",
    "rkhs_norm",
]

# ---------------------------------------------------------------- kernels


def rbf(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"] | None = None, *, bandwidth: float = 1.0
) -> Float[Array, "n m"]:
    """The Gaussian kernel exp(-‖x - x'‖²/(2·bandwidth²)); ``bandwidth`` in the units of x.

    Raises ``ValueError`` for bandwidth ≤ 0 and what ``as_inputs`` raises.
    """
    bandwidth = as_positive("bandwidth", bandwidth)
    x, y = as_inputs(x, y)
    return _rbf(x, y, as_scalar("bandwidth", bandwidth, x.dtype))


@jax.jit
def _rbf(x: Array, y: Array | None, bandwidth: ArrayLike) -> Array:
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
    """The polynomial kernel (x·x' + offset)^degree, all monomials up to ``degree`` as features.

    Raises ``ValueError`` for degree < 1 or offset < 0 (some Gram would then have a negative
    eigenvalue), ``TypeError`` for a degree that is no integer, and what ``as_inputs`` raises.
    """
    degree = as_whole("degree", degree, least=1)
    offset = as_nonnegative("offset", offset)
    x, y = as_inputs(x, y)
    return _polynomial(x, y, as_scalar("offset", offset, x.dtype), degree=degree)


@partial(jax.jit, static_argnames="degree")
def _polynomial(x: Array, y: Array | None, offset: ArrayLike, *, degree: int) -> Array:
    return (x @ (x if y is None else y).T + offset) ** degree


def arc_cosine(
    x: Float[ArrayLike, "n d"], y: Float[ArrayLike, "m d"] | None = None, *, order: int = 1
) -> Float[Array, "n m"]:
    """The arc-cosine kernel of Cho and Saul (2009), ``order`` 0 or 1: see ``arc_cosine_of``.

    Raises ``ValueError`` for another order, points of norm zero, and as ``as_inputs`` does.
    """
    order = _as_order(order)
    return _arc_cosine(*as_inputs(x, y, forbid_zero=True), order=order)


@partial(jax.jit, static_argnames="order")
def _arc_cosine(x: Array, y: Array | None, *, order: int) -> Array:
    other = x if y is None else y
    (u, left), (v, right) = unit_vectors(x, 0.0), unit_vectors(other, 0.0)
    # unit vectors of √d-th the points: the sizes are norms over √d
    rho, gap = correlations(u, v)
    if y is None:
        same = jnp.eye(len(x), dtype=bool)
        rho, gap = (rho + rho.T) / 2, jnp.where(same, 0.0, (gap + gap.T) / 2)
    norms = math.sqrt(x.shape[1]) * left[:, None], math.sqrt(x.shape[1]) * right[None]
    kernels = arc_cosine_at(rho >= 0, gap)
    return kernels.step if order == 0 else norms[0] * norms[1] * kernels.relu


def _as_order(value: object) -> int:
    order = as_whole("order", value, least=0)
    if order > 1:
        raise ValueError(f"order needs to be 0 or 1, got {order}")
    return order


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
    return _principal_components(gram)


@jax.jit
def _principal_components(gram: Array) -> PrincipalComponents:
    values, vectors = jnp.linalg.eigh(gram / len(gram))
    return PrincipalComponents(values[::-1], vectors[:, ::-1])


def rkhs_norm(
    gram: Float[ArrayLike, "n n"], coefficients: Float[ArrayLike, " n"]
) -> Float[Array, ""]:
    """The norm √(αᵀ K α) of f = Σ_i α_i K(x_i, ·) in the kernel's space of functions.

    ``gram`` is K on the points x_i, ``coefficients`` is α of shape (n,).
    Raises ``ValueError`` for a Gram that is not symmetric or has a negative eigenvalue, and for
    other lengths.
    """
    gram = _as_gram(gram, definite=True)
    alpha = _as_values("coefficients", coefficients, gram)
    if alpha.ndim != 1:
        raise ValueError(f"coefficients needs one number a point, got shape {alpha.shape}")
    return _norm(gram, alpha)


@jax.jit
def _norm(gram: Array, alpha: Array) -> Array:
    return safe_sqrt(alpha @ gram @ alpha)


def _as_gram(gram: ArrayLike, *, definite: bool = False, name: str = "gram") -> Array:
    """A symmetric matrix; with ``definite`` one without negative eigenvalues (up to rounding)."""
    return as_semidefinite(name, gram) if definite else as_symmetric(name, gram)


def _as_values(name: str, values: ArrayLike, gram: Array) -> Array:
    """``values`` on the points of a Gram: one row a point, in the Gram's dtype."""
    values = as_array(name, values, dtype=gram.dtype)
    if values.ndim not in (1, 2) or len(values) != len(gram) or not values.size:
        raise ValueError(f"{name} needs one row for each of {len(gram)} points, got {values.shape}")
    return values


# ---------------------------------------------------------------- regression


def kernel_regression(
    gram: Float[ArrayLike, "n n"], targets: Float[ArrayLike, " n *k"], *, ridge: float = 0.0
) -> Float[Array, " n *k"]:
    """Coefficients α of the kernel regression f(x) = K(x, X) α, from (K + N·ridge·I) α = targets.

    f minimises (1/2N) Σ (f(x_i) - y_i)² + (ridge/2) ‖f‖² (for a column of targets at a time); with
    ridge 0 it is the interpolant of least norm. ``gram`` has shape (n, n), ``targets`` (n,) or
    (n, k), and so has α, in the Gram's dtype. The system is solved in float64 and α rounded; what
    the rounded α leaves, ‖(K + N·ridge·I) α - y‖, is at most √ε·‖y‖ (1e-6 in float64).

    Raises ``ValueError`` for ridge < 0, a Gram that is not symmetric or has a negative eigenvalue,
    targets of another length, where ridge is 0 repeated points or a Gram that cannot be inverted in
    its precision, and for a system that its precision cannot solve. Under ``jit`` and ``grad`` it
    solves in the precision of the Gram, and values are not checked.
    """
    ridge = as_nonnegative("ridge", ridge)
    gram = _as_gram(gram, definite=True)
    targets = _as_values("targets", targets, gram)
    check_fits("ridge", ridge, gram.dtype)
    # also a ridge that is 0 in the precision of the Gram
    if not _traced(gram, ridge) and np.asarray(ridge, gram.dtype) == 0:
        _check_invertible(np.asarray(gram))
    if _traced(gram, ridge, targets):
        return _solve(gram, targets, len(gram) * ridge)
    return jnp.asarray(_solved(np.asarray(gram), np.asarray(targets), ridge))


def left_out_errors(
    gram: Float[ArrayLike, "n n"], targets: Float[ArrayLike, " n *k"], *, ridge: float = 0.0
) -> Float[Array, " n *k"]:
    """How far the fit without point i is from its target, y_i - f_{-i}(x_i), for every i.

    All N fits from one: α_i / [(K + N·ridge·I)⁻¹]_ii, in the units of the targets, of shape (n,) or
    (n, k) as they are. Each fit without a point keeps N·ridge, the variance of the noise. The mean
    square over the points is the leave-one-out score of a ridge, or of a kernel: the least is best.

    Raises what ``kernel_regression`` raises. Source: Rasmussen and Williams 2006, section 5.4.2.
    """
    alpha = kernel_regression(gram, targets, ridge=ridge)
    gram = as_array("gram", gram)
    inverse = kernel_regression(gram, jnp.eye(len(gram), dtype=gram.dtype), ridge=ridge)
    return alpha / jnp.diag(inverse).reshape(-1, *[1] * (alpha.ndim - 1))


def _traced(*arrays: ArrayLike) -> bool:
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


@jax.jit
def _solve(gram: Array, targets: Array, shift: ArrayLike) -> Array:
    # not Cholesky, which ends in NaN where rounding has made a small eigenvalue negative
    return jnp.linalg.solve(gram + shift * jnp.eye(len(gram), dtype=gram.dtype), targets)


def _solved(gram: np.ndarray, targets: np.ndarray, ridge: float) -> np.ndarray:
    """The coefficients by float64, rounded to the Gram's dtype; refused where they do not solve."""
    system, y = gram.astype(np.float64), targets.astype(np.float64)
    system[np.diag_indices_from(system)] += len(gram) * ridge
    size, eps = np.linalg.norm(y), np.finfo(gram.dtype).eps
    try:
        alpha = np.linalg.solve(system, y).astype(gram.dtype)
        left = np.linalg.norm(system @ alpha.astype(np.float64) - y)
    except np.linalg.LinAlgError:  # singular to the last bit
        left = math.inf
    if not left <= max(math.sqrt(eps), 1e-6) * size:
        raise ValueError(_unsolved(gram, ridge, left / size))
    return alpha


def _unsolved(gram: np.ndarray, ridge: float, share: float) -> str:
    values = np.linalg.eigvalsh(gram.astype(np.float64))
    enough = 10 * np.finfo(gram.dtype).eps * values[-1] / len(gram)
    message = (
        f"gram needs to be better conditioned or ridge larger, got coefficients in {gram.dtype} "
        f"that leave {share:.2g} of the targets, with ridge {ridge:g} and eigenvalues from "
        f"{values[0]:.3g} to {values[-1]:.3g}. Causes: (1) points that are equal or nearly so: "
        "merge them, their targets averaged; (2) a ridge below the rounding of the Gram: say "
        f"ridge={enough:.1g}"
    )
    if gram.dtype == np.float64:
        return message
    return (
        f"{message}; (3) few digits: compute the Gram and this in float64, after "
        'jax.config.update("jax_enable_x64", True)'
    )


def _check_invertible(gram: np.ndarray) -> None:
    values = np.linalg.eigvalsh(gram)
    if values[0] > len(gram) * np.finfo(gram.dtype).eps * values[-1]:
        return
    _, first, where = np.unique(gram, axis=0, return_index=True, return_inverse=True)
    where = where.reshape(-1)  # a column in NumPy 2.0
    repeated = np.flatnonzero(first[where] != np.arange(len(gram)))
    if repeated.size:
        i, j = first[where][repeated[0]], repeated[0]
        raise ValueError(
            f"gram needs distinct points where ridge is 0, got equal rows {i} and {j}: ways out "
            "are a ridge > 0, and the mean of the targets at one of the two"
        )
    raise ValueError(
        f"gram needs to be invertible in {gram.dtype} where ridge is 0, got eigenvalues from "
        f"{values[0]:.3g} to {values[-1]:.3g}: ways out are a ridge > 0"
        + ("" if gram.dtype == np.float64 else ', and jax.config.update("jax_enable_x64", True)')
    )


# ---------------------------------------------------------------- random features


def random_features(
    x: Float[ArrayLike, "n d"],
    *,
    key: Array,
    count: int,
    kernel: str = "rbf",
    bandwidth: float = 1.0,
    order: int = 1,
) -> Float[Array, "n count"]:
    """``count`` random functions at x, shape (n, count): the mean of their products is the kernel.

    For ``kernel`` "rbf" √2 cos(ω·x + b), ω ~ N(0, I/bandwidth²) and b uniform on a full turn; for
    "arc_cosine" √2 σ(w·x), w ~ N(0, I), σ the step function (order 0) or ReLU (order 1).
    E[f(x) f(x')] = K(x, x') exactly. The same ``key`` and ``count`` are the same functions.

    Raises ``ValueError`` for another kernel, count < 1, and as the kernel functions do.
    Source: Rahimi and Recht 2007; Cho and Saul 2009.
    """
    count, order = as_whole("count", count, least=1), _as_order(order)
    bandwidth = as_positive("bandwidth", bandwidth)
    kernel = as_choice("kernel", kernel, ("rbf", "arc_cosine"))
    x, _ = as_inputs(x)
    key, bandwidth = as_key("key", key), as_scalar("bandwidth", bandwidth, x.dtype)
    return _random_features(x, key, bandwidth, count=count, kernel=kernel, order=order)


@partial(jax.jit, static_argnames=("count", "kernel", "order"))
def _random_features(
    x: Array, key: Array, bandwidth: ArrayLike, *, count: int, kernel: str, order: int
) -> Array:
    direction, turn = jax.random.split(key)
    z = x @ jax.random.normal(direction, (x.shape[1], count), x.dtype)
    if kernel == "rbf":
        phase = jax.random.uniform(turn, (1, count), x.dtype, 0, 2 * math.pi)
        return math.sqrt(2) * jnp.cos(z / bandwidth + phase)
    return math.sqrt(2) * (jnp.maximum(z, 0) if order == 1 else (z > 0).astype(x.dtype))


# ---------------------------------------------------------------- descent in function space


def _check_cost(cost: Callable[[Array], Array], outputs: Array) -> None:
    if not callable(cost):
        raise TypeError(f"cost needs a function of the outputs, got {type(cost).__name__}")
    result = output_of("cost", cost, outputs)
    if getattr(result, "shape", None) != ():
        got = f"shape {result.shape}" if hasattr(result, "shape") else type(result).__name__
        raise ValueError(f"cost needs to return one number, got {got}")
    if not jnp.issubdtype(result.dtype, jnp.floating):
        raise TypeError(f"cost needs to return a real float, got {result.dtype}")


class Descent(NamedTuple):
    """A function and its cost along kernel gradient descent; row s after s steps, 0 the start."""

    f: Float[Array, "rows m"]
    cost: Float[Array, " rows"]


def kernel_gradient(
    kernel: Float[ArrayLike, "m n"],
    cost: Callable[[Array], Array],
    outputs: Float[ArrayLike, " n"],
) -> Float[Array, " m"]:
    """∇_K C at m points: (1/N) Σ_j K(x, x_j) d_j, where d_j = N ∂C/∂f(x_j).

    ``kernel`` is K(x, X): a row for each of the m points, data or not, and a column for each of
    the N data points. ``cost`` maps the outputs on the data, shape (N,), to a number; ``outputs``
    are those of the present function. Source: Jacot et al. 2018, section 3.

    Raises ``TypeError`` when the cost is no function, ``ValueError`` when it does not return one
    number or the shapes do not match.
    """
    kernel = as_array("kernel", kernel)
    outputs = as_array("outputs", outputs, dtype=kernel.dtype)
    if kernel.ndim != 2 or not kernel.size:
        raise ValueError(f"kernel needs shape (m, n), got {kernel.shape}")
    if outputs.shape != kernel.shape[1:]:
        raise ValueError(f"outputs needs shape {kernel.shape[1:]}, got {outputs.shape}")
    _check_cost(cost, outputs)
    d = len(outputs) * jax.grad(cost)(outputs)
    return kernel @ d / len(outputs)


def kernel_descent(
    kernel: Float[ArrayLike, "m n"],
    cost: Callable[[Array], Array],
    *,
    rate: float,
    steps: int,
    start: Float[ArrayLike, " m"] | None = None,
) -> Descent:
    """``steps`` steps f ← f - rate·∇_K C, on the data and wherever else it is asked for.

    ``kernel`` is K(x, X) for m ≥ N points x of which the first N are the data X. ``cost`` maps the
    outputs on the data, shape (N,), to a number. ``start`` holds the first function at the m
    points, 0 by default.

    Raises ``ValueError`` for a negative rate or steps, a kernel with fewer rows than columns, one
    that on the data is not symmetric or has a negative eigenvalue, a start of another shape, and
    as ``kernel_gradient`` does.
    """
    steps, rate = as_whole("steps", steps, least=0), as_nonnegative("rate", rate)
    kernel = as_array("kernel", kernel)
    if kernel.ndim != 2 or not kernel.size or len(kernel) < kernel.shape[1]:
        raise ValueError(f"kernel needs shape (m, n), m at least n, got {kernel.shape}")
    size = kernel.shape[1]
    _as_gram(kernel[:size], definite=True, name="kernel")
    start = np.zeros(len(kernel)) if start is None else start
    first = as_array("start", start, dtype=kernel.dtype)
    if first.shape != kernel.shape[:1]:
        raise ValueError(f"start needs shape ({len(kernel)},), got {first.shape}")
    _check_cost(cost, first[:size])
    rate = as_scalar("rate", rate, kernel.dtype)
    derivatives = any(isinstance(t, jax.core.Tracer) for t in (kernel, first, rate))
    slope = traced(jax.value_and_grad(cost), first[:size], derivatives=derivatives)
    return _descent(kernel, first, rate, slope, steps=steps)


@partial(jax.jit, static_argnames="steps")
def _descent(kernel: Array, first: Array, rate: ArrayLike, slope: Traced, *, steps: int) -> Descent:
    """``slope`` gives the cost and its gradient."""
    size = kernel.shape[1]

    def step(f: Array, _: None) -> tuple[Array, Array]:
        d = size * slope(f[:size])[1]
        after = f - rate * (kernel @ d / size)
        return after, after

    path = jnp.concatenate([first[None], jax.lax.scan(step, first, length=steps)[1]])
    return Descent(path, jax.lax.map(lambda f: slope(f)[0], path[:, :size]))
