"""Predictions with their uncertainty: what infinitely wide networks say at new points.

Stands on the chapters, and no chapter needs it: one call for what they build step by step. N
training points X with labels y, new points x, and two kernels: Θ, the limiting NTK
(``limiting_ntk.ntk``, chapter ``limiting_ntk``), and Σ, the covariance of the random initial
functions (``wide_networks.nngp``, chapter ``wide_networks``). With gradient flow on
C = (1/2N) Σ (f(x_i) - y_i)² from a random start f₀, penalised by (σ²/2N) ‖w - w₀‖²,

    f_t(x) = f₀(x) + M (y - f₀(X)),
    M = K(x, X) (K + σ²)⁻¹ (I - e^(-(K + σ²)t/N)),      K = K(X, X),

for K = Θ where all layers are trained, and K = Σ where the last one alone is. So the ensemble over
the starts is Gaussian, with mean M y and, P being the restriction to X (chapter
``early_stopping``),

    all layers          (I - M P) Σ (I - M P)ᵀ
    the last layer      (I - M P) Σ (I - M P)ᵀ + σ² M Mᵀ = Σ - K(x, X) (K + σ²)⁻¹ (I -
                        e^(-2(K + σ²)t/N)) K(X, x)

where in the second line every network has noise of its own, σε, added to its labels. That makes its
end, t = ∞, the posterior of the Gaussian process Σ under observations with noise σ. Covariances are
products of a factor with its transpose: no variance is negative.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ntk_lib.engine.activations import Activation, as_activation
from ntk_lib.engine.arguments import (
    as_array,
    as_choice,
    as_inputs,
    as_nonnegative,
    as_symmetric,
    check_known,
    check_numbers,
)
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import nngp

__all__ = ["Prediction", "predict"]

Kernel = Callable[..., Array]
"""kernel(x, y) of shape (n, m), and kernel(x) of shape (n, n) for one set of points."""

SOLVED = 1e-6  # what a solution may leave of the labels, in float64
LATE = 0.01  # the share of a component that rounding may feign to have been learnt
MORE_DIGITS = 'jax.config.update("jax_enable_x64", True) and float64 points'


class Prediction(NamedTuple):
    """Mean (m,) or (m, k) and covariance (m, m) of f at m points; None without a prior.

    Of the function, not of a new noisy label, whose variance is larger by noise². The covariance
    is that of each of the k outputs, which are independent of each other.
    """

    mean: Float[Array, " m *k"]
    covariance: Float[Array, "m m"] | None

    @property
    def std(self) -> Float[Array, " m"]:
        """The standard deviation at each of the m points, in the units of f.

        Raises ``ValueError`` where there is no covariance.
        """
        if self.covariance is None:
            raise ValueError(
                "prior needs a kernel function where the standard deviation is asked for, got "
                "None: say predict(..., prior=functools.partial(nngp, depth=3))"
            )
        return jnp.sqrt(jnp.diag(self.covariance))


# ---------------------------------------------------------------- kernels


class _Kernels(NamedTuple):
    """The kernel of the dynamics and that of the start, None where there is none."""

    moving: Kernel
    start: Kernel | None


def _kernels(by: str, kernel: object, prior: object, network: dict) -> _Kernels:
    for name, given in (("kernel", kernel), ("prior", prior)):
        if given is not None and not callable(given):
            raise TypeError(f"{name} needs a function of (x, y), got {type(given).__name__}")
    if by == "nngp" and prior is not None:
        raise ValueError("prior needs to be None where by is 'nngp': there the kernel is the prior")
    depth = network["depth"]
    if kernel is not None:
        if depth is not None:
            raise ValueError(
                f"depth needs to be None where a kernel is given, got {depth}: the prior of a "
                f"network is prior=functools.partial(nngp, depth={depth})"
            )
        return _Kernels(kernel, kernel if by == "nngp" else prior)
    if depth is None:
        raise TypeError("depth needs the number of weight layers unless kernel is given, got None")
    gain, beta = check_numbers(depth=depth, gain=network["gain"], beta=network["beta"])
    sigma = as_activation(network["activation"])
    setting = {"depth": depth, "gain": gain, "beta": beta, "activation": sigma}
    start = functools.partial(nngp, **setting) if prior is None else prior
    moving = start if by == "nngp" else functools.partial(ntk, **setting)
    return _Kernels(moving, start)


def _table(name: str, kernel: Kernel, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """The kernel of two sets of points, or of one, as it comes: in the kernel's own dtype."""
    table = kernel(jnp.asarray(x)) if y is None else kernel(jnp.asarray(x), jnp.asarray(y))
    shape = (len(x), len(x if y is None else y))
    if getattr(table, "shape", None) != shape:
        got = getattr(table, "shape", type(table).__name__)
        raise ValueError(f"{name} needs to give shape {shape} for so many points, got {got}")
    return np.asarray(as_array(name, table))


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different points in their order, and where in them each point stands."""
    _, first, where = np.unique(points, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return points[first[order]], np.argsort(order)[where.reshape(-1)]


# A kernel of two equal points may differ from that of one with itself, by √ε. So no kernel here
# sees a point twice.
def _between(kernel: Kernel, x: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """K(X, X) and K(x, X), holding no kernel of the new points with themselves."""
    distinct, where = _distinct(x)
    gram = _table("kernel", kernel, distinct)
    cross = np.array(_table("kernel", kernel, new, distinct))
    places = {row.tobytes(): i for i, row in enumerate(distinct)}
    for i, row in enumerate(new):
        if (known := places.get(row.tobytes())) is not None:
            cross[i] = gram[known]
    return gram[np.ix_(where, where)], cross[:, where]


def _spectrum(name: str, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the smallest and eigenvectors in float64, of a kernel's own matrix."""
    matrix = np.asarray(as_symmetric(name, matrix))
    values, vectors = scipy.linalg.eigh(matrix.astype(np.float64))
    # √eps: what rounding does to the angle between nearly parallel points
    floor = -len(matrix) * np.sqrt(np.finfo(matrix.dtype).eps) * np.abs(matrix).max()
    if values[0] < floor:
        raise ValueError(
            f"{name} needs to give positive semi-definite matrices, got an eigenvalue of "
            f"{values[0]:.3g}"
        )
    return values, vectors


class _Matrices(NamedTuple):
    """K(X, X) in the kernel's dtype, K(x, X) in float64, and S, (n + m, r), with S Sᵀ = Σ."""

    gram: np.ndarray
    cross: np.ndarray
    root: np.ndarray | None


def _matrices(kernels: _Kernels, by: str, x: np.ndarray, new: np.ndarray) -> _Matrices:
    sigma, name = None, "kernel" if by == "nngp" else "prior"
    if kernels.start is not None:
        points, where = _distinct(np.concatenate([x, new]))
        sigma = _table(name, kernels.start, points)
    if by == "nngp":
        left, right = where[: len(x)], where[len(x) :]
        gram, cross = sigma[np.ix_(left, left)], sigma[np.ix_(right, left)]
    else:
        gram, cross = _between(kernels.moving, x, new)
    root = None
    if sigma is not None:
        values, vectors = _spectrum(name, sigma)
        # what rounding has made negative is cut
        root = (vectors * np.sqrt(np.maximum(values, 0)))[where]
    return _Matrices(gram, cross.astype(np.float64), root)


# ---------------------------------------------------------------- training


def _check_resolved(
    values: np.ndarray, x: np.ndarray, dtype: np.dtype, *, noise: float, time: float
) -> None:
    """Are the components that are learnt by ``time`` larger than the rounding of the kernel?"""
    n, eps, top, low = len(values), float(np.finfo(dtype).eps), float(values[-1]), float(values[0])
    lost = max(eps * top * (math.sqrt(n) if noise == 0 else 1), -low)
    if low + noise**2 > lost or eps * top * time / n <= LATE:
        return
    distinct, where = _distinct(x)
    if len(distinct) < n and noise == 0 and time == math.inf:
        _, counts = np.unique(where, return_counts=True)
        i, j = np.flatnonzero(where == np.argmax(counts > 1))[:2]
        raise ValueError(
            f"x needs distinct points where noise is 0 and time infinite, got equal rows {i} and "
            f"{j}: noise > 0 lets labels of one point differ, and a finite time inverts nothing"
        )
    least = 1.1 * math.sqrt(max(eps * top, -low) - min(low, 0.0))
    # float64 has no more digits to offer
    single = eps > 1e-10
    if time == math.inf:
        raise ValueError(
            f"noise needs to be larger for these points, got {noise:g}: the kernel's eigenvalues, "
            f"{low:.3g} to {top:.3g}, are lost in the rounding of {dtype}. Cause (1): points that "
            f"nearly coincide, or more of them than the kernel tells apart: noise={least:.2g}, or "
            f"a finite time{f'. Cause (2): few digits: {MORE_DIGITS}' if single else ''}"
        )
    raise ValueError(
        f"time needs to be at most {LATE * n / (eps * top):.2g} with noise {noise:g} in {dtype}, "
        f"got {time:g}: later components are lost in rounding. Ways out: noise={least:.2g}"
        f"{f', or {MORE_DIGITS}' if single else ''}"
    )


def _weights(values: np.ndarray, time: float) -> np.ndarray:
    """(1 - e^(-μt/N))/μ for the eigenvalues μ of K + σ², 1/μ at t = ∞ and t/N for μ = 0."""
    if time == math.inf:
        return 1 / values
    values, clock = np.maximum(values, 0), time / len(values)
    with np.errstate(over="ignore"):  # so late that all is learnt
        learnt = -np.expm1(-values * clock)
    return np.where(learnt > 0, learnt / np.where(values > 0, values, 1), clock)


def _check_solved(gram: np.ndarray, shift: float, alpha: np.ndarray, y: np.ndarray) -> None:
    """Refuse coefficients at t = ∞ that do not solve (K + σ²) α = y."""
    left = gram.astype(np.float64) @ alpha + shift * alpha - y
    size, residual = np.linalg.norm(y), np.linalg.norm(left)
    if residual > SOLVED * size:
        raise ValueError(
            f"noise needs to be larger for these points, got {math.sqrt(shift):g}: the solution "
            f"leaves {residual / size:.2g} of the labels. Way out: a larger noise, or a finite time"
        )


def _targets(targets: ArrayLike, n: int) -> np.ndarray:
    y = np.asarray(as_array("targets", targets), np.float64)
    if y.ndim not in (1, 2) or len(y) != n or not y.size:
        raise ValueError(f"targets needs shape ({n},) or ({n}, k), got {y.shape}")
    return y


def predict(
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n *k"],
    x_test: Float[ArrayLike, "m d"],
    *,
    depth: int | None = None,
    activation: str | Activation = "relu",
    gain: float = 1.0,
    beta: float = 0.1,
    time: float = math.inf,
    noise: float = 0.0,
    by: str = "ntk",
    kernel: Kernel | None = None,
    prior: Kernel | None = None,
) -> Prediction:
    """What infinitely wide networks trained on (x, targets) say at ``x_test``: mean, covariance.

    ``x`` has shape (n, d), ``targets`` (n,) or (n, k), ``x_test`` (m, d); the mean has shape (m,)
    or (m, k), the covariance (m, m). ``depth``, ``activation``, ``gain`` and ``beta`` are those of
    ``limiting_ntk.ntk``. ``time`` is that of gradient flow on C = (1/2n) Σ (f - y)², and may be
    ``math.inf``. ``noise`` is a standard deviation σ in the units of the targets.

    - ``by="ntk"``: the ensemble over random starts with all layers trained, the penalty
      (σ²/2n) ‖w - w₀‖² added to C; the labels are the same for all networks.
    - ``by="nngp"``: the same with the last layer alone trained, each network on labels with its own
      noise σ. At ``time`` ∞ that is the posterior of a Gaussian process with the NNGP kernel and
      observation noise σ.

    ``kernel`` and ``prior`` are functions kernel(x, y=None) that take the place of Θ and Σ; with a
    ``kernel``, ``depth`` is left out. ``by="nngp"`` with a ``kernel`` is Gaussian process
    regression, say ``kernel=functools.partial(rbf, bandwidth=0.5)``. With ``by="ntk"`` and a
    ``kernel`` but no ``prior`` there is a mean and no covariance (None).

    The formulas, and the chapter that explains each, are at the head of the module. Kernels are
    computed in the precision of the points, the rest in float64. It holds (n + m)² numbers, and
    n(n + m) where there is no covariance. It runs on known numbers, not inside ``jit`` or ``grad``.
    With float32 points the kernel's own rounding may move the mean by hundredths of the targets
    where points on a line stand close and the noise is small; float64 points have no such error.

    Raises ``ValueError`` where the end of training is lost in rounding (repeated points, or nearly
    so, with noise 0 or a small one), with the ways out; for targets of another shape, a negative
    time or noise, and a kernel that gives another shape, NaN or a negative eigenvalue;
    ``TypeError`` for a missing depth; and what ``ntk`` raises. Source: Lee et al. 2019; the noise
    of ``"nngp"``, Matthews et al. 2017. With one output it is ``gradient_descent_mse_ensemble`` of
    neural-tangents with ``diag_reg=noise**2, diag_reg_absolute_scale=True``.
    """
    check_known(x=x, targets=targets, x_test=x_test, time=time, noise=noise)
    by = as_choice("by", by, ("ntk", "nngp"))
    time, noise = as_nonnegative("time", time, infinite=True), as_nonnegative("noise", noise)
    if math.isinf(noise * noise):
        raise ValueError(f"noise needs a number whose square fits into float64, got {noise}")
    network = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    kernels = _kernels(by, kernel, prior, network)
    x_test = as_array("x_test", x_test)  # None too is refused
    both = as_inputs(x, x_test, names=("x", "x_test"))
    x, new = map(np.asarray, both)
    y = _targets(targets, len(x))
    gram, cross, root = _matrices(kernels, by, x, new)
    values, vectors = _spectrum("kernel", gram)
    _check_resolved(values, x, gram.dtype, noise=noise, time=time)
    weights = _weights(values + noise**2, time)
    alpha = (vectors * weights) @ (vectors.T @ y)
    if time == math.inf:
        _check_solved(gram, noise**2, alpha, y)
    mean = jnp.asarray(cross @ alpha, x.dtype)
    if root is None:
        return Prediction(mean, None)
    M = (cross @ vectors * weights) @ vectors.T
    factor = root[len(x) :] - M @ root[: len(x)]
    if by == "nngp":
        factor = np.hstack([factor, noise * M])
    covariance = factor @ factor.T
    return Prediction(mean, jnp.asarray((covariance + covariance.T) / 2, x.dtype))
