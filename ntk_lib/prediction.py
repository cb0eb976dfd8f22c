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
end, t = ∞, the posterior of the Gaussian process Σ under observations with noise σ. What rounding
makes negative in a covariance is cut: no variance is negative, and no eigenvalue.

``trained`` holds the networks after training, to be asked at new points as often as wanted, and
``predict`` asks them once.
"""

import dataclasses
import functools
import math
import os
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
    as_points,
    as_symmetric,
    check_known,
    check_numbers,
)
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import nngp

__all__ = ["Prediction", "Trained", "predict", "trained"]

Kernel = Callable[..., Array]
"""kernel(x, y) of shape (n, m), and kernel(x) of shape (n, n) for one set of points."""

SOLVED = 1e-6  # what a solution may leave of the labels, in float64
ROUND = 64  # a program takes seconds to compile, a kernel of so many points a millisecond
LATE = 0.01  # the share of a component that rounding may feign to have been learnt
NO_PRIOR = (
    "prior needs a kernel function where the standard deviation is asked for, got None: say "
    "predict(..., prior=functools.partial(nngp, depth=3))"
)
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
            raise ValueError(NO_PRIOR)
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
    as_activation(network["activation"])  # kept as it was given, which can be pickled
    setting = network | {"gain": gain, "beta": beta}
    start = functools.partial(nngp, **setting) if prior is None else prior
    moving = start if by == "nngp" else functools.partial(ntk, **setting)
    return _Kernels(moving, start)


def _of_networks(kernel: Kernel) -> bool:
    """Is it a limit kernel of this library, with its settings?"""
    known = isinstance(kernel, functools.partial) and kernel.func in (ntk, nngp)
    return known and not kernel.args and not {"mesh", "diagonal"} & set(kernel.keywords)


def _filled(points: np.ndarray) -> Array:
    """Few points, the last repeated up to a multiple of ``ROUND``: one program for many sizes."""
    missing = -len(points) % ROUND if len(points) <= 8 * ROUND else 0
    return jnp.asarray(np.concatenate([points, np.repeat(points[-1:], missing, axis=0)]))


def _table(name: str, kernel: Kernel, x: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
    """The kernel of two sets of points, or of one, as it comes: in the kernel's own dtype."""
    sets = [x] if y is None else [x, y]
    if _of_networks(kernel):
        table = kernel(*map(_filled, sets))[: len(x), : len(sets[-1])]
    else:
        table = kernel(*map(jnp.asarray, sets))
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
class _Known(NamedTuple):
    """A kernel and its matrix of the different training points; ``where`` finds each of them."""

    name: str
    kernel: Kernel
    points: np.ndarray
    where: np.ndarray
    table: np.ndarray

    @property
    def gram(self) -> np.ndarray:
        """K(X, X) in the kernel's own dtype."""
        return self.table[np.ix_(self.where, self.where)]

    def cross(self, new: np.ndarray, known: dict[int, int]) -> np.ndarray:
        """K(x, X) in float64; ``known`` says which of the new points is which of the different."""
        found = np.array(_table(self.name, self.kernel, new, self.points), np.float64)
        for i, place in known.items():
            found[i] = self.table[place]
        return found[:, self.where]


def _known(name: str, kernel: Kernel, x: np.ndarray) -> _Known:
    points, where = _distinct(x)
    return _Known(name, kernel, points, where, _table(name, kernel, points))


def _floor(matrix: np.ndarray, dtype: np.dtype) -> float:
    """What rounding may make of an eigenvalue 0: √eps, as of angles of nearly parallel points."""
    return -len(matrix) * math.sqrt(np.finfo(dtype).eps) * float(np.abs(matrix).max())


def _check_semidefinite(name: str, least: float, floor: float) -> None:
    if least < floor:
        raise ValueError(
            f"{name} needs to give positive semi-definite matrices, got an eigenvalue of "
            f"{least:.3g}"
        )


def _spectrum(name: str, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues from the smallest and eigenvectors in float64, of a kernel's own matrix."""
    matrix = np.asarray(as_symmetric(name, matrix))
    values, vectors = scipy.linalg.eigh(matrix.astype(np.float64))
    _check_semidefinite(name, values[0], _floor(matrix, matrix.dtype))
    return values, vectors


def _without_negative_parts(name: str, covariance: np.ndarray, floor: float) -> np.ndarray:
    """The covariance as a factor times its transpose, with the variances that are not negative."""
    values, vectors = scipy.linalg.eigh(covariance)
    _check_semidefinite(name, values[0], floor)
    variances = np.maximum(np.diag(covariance), 0)
    factor = vectors * np.sqrt(np.maximum(values, 0))  # what rounding has made negative is cut
    size = np.linalg.norm(factor, axis=1)
    factor *= (np.sqrt(variances) / np.where(size > 0, size, 1))[:, None]
    product = factor @ factor.T
    return (product + product.T) / 2


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


# ---------------------------------------------------------------- trained once, asked often

BLOCK = 2**22  # entries of a kernel that are held at once where blocks do


def _check_room(name: str, n: int) -> None:
    """Refuse n points whose matrices, four or so of n² numbers, this machine cannot hold."""
    try:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows: it is found out by trying
        return
    if 32 * n * n > room:
        raise MemoryError(
            f"{name} needs fewer points, got {n}: their matrices take {32 * n * n / 1e9:.3g} GB, "
            f"and this machine has {room / 1e9:.3g}. Way out: ntk_lib.scale.regression holds none"
        )


def _diagonal(name: str, kernel: Kernel, points: np.ndarray) -> np.ndarray:
    """K(x, x) of each of the different points, in float64."""
    if _of_networks(kernel):
        return np.asarray(kernel(_filled(points), diagonal=True), np.float64)[: len(points)]
    blocks = (points[i : i + 256] for i in range(0, len(points), 256))
    return np.concatenate([np.diag(_table(name, kernel, b)) for b in blocks]).astype(np.float64)


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """Networks trained on n points, as ``trained`` gives them: to be asked at new points.

    ``coefficients`` α, of shape (n,) or (n, k), give the mean K(x, X) α. Four matrices (n, n) are
    held at most, and the kernel's eigenvectors were found once.
    """

    x: np.ndarray
    coefficients: np.ndarray
    noise: float
    by: str
    _moving: _Known
    _prior: Kernel | None
    _vectors: np.ndarray
    _weights: np.ndarray

    def predict(self, x_test: Float[ArrayLike, "m d"]) -> Prediction:
        """Mean and covariance at ``x_test``, of shape (m, d), as the function ``predict`` says.

        Raises ``ValueError`` for points of another shape or not finite and for a prior that gives
        another shape, NaN or a negative eigenvalue, ``MemoryError`` where (m, m) is too large.
        """
        if self._prior is None:
            return Prediction(self.mean(x_test), None)
        new = self._points(x_test)
        _check_room("x_test", len(new))
        asked = self._asked(new)
        mean = jnp.asarray(asked.cross @ self.coefficients, self.x.dtype)
        return Prediction(mean, jnp.asarray(self._covariance(asked), self.x.dtype))

    def mean(self, x_test: Float[ArrayLike, "m d"]) -> Float[Array, " m *k"]:
        """The mean alone, (m,) or (m, k), of which the kernel is computed in blocks of points.

        Raises ``ValueError`` for points of another shape or not finite.
        """
        blocks = map(self._asked, self._blocks(x_test))
        mean = np.concatenate([asked.cross @ self.coefficients for asked in blocks])
        return jnp.asarray(mean, self.x.dtype)

    def mean_and_std(
        self, x_test: Float[ArrayLike, "m d"]
    ) -> tuple[Float[Array, " m *k"], Float[Array, " m"]]:
        """The mean and the standard deviation at each of m points, (m,), holding no (m, m).

        Raises what ``predict`` raises, and ``ValueError`` where there is no prior.
        """
        if self._prior is None:
            raise ValueError(NO_PRIOR)
        means, variances = [], []
        for asked in map(self._asked, self._blocks(x_test)):
            means.append(asked.cross @ self.coefficients)
            variances.append(self._variances(asked))
        std = np.sqrt(np.concatenate(variances))
        return tuple(jnp.asarray(t, self.x.dtype) for t in (np.concatenate(means), std))

    def _points(self, x_test: ArrayLike) -> np.ndarray:
        check_known(x_test=x_test)
        return np.asarray(as_points("x_test", x_test, like=jnp.asarray(self.x)))

    def _blocks(self, x_test: ArrayLike) -> list[np.ndarray]:
        new, rows = self._points(x_test), max(1, BLOCK // len(self.x))
        return [new[i : i + rows] for i in range(0, len(new), rows)]

    def _asked(self, new: np.ndarray) -> "_Asked":
        places = {row.tobytes(): i for i, row in enumerate(self._moving.points)}
        found = ((i, places.get(row.tobytes())) for i, row in enumerate(new))
        known = {i: place for i, place in found if place is not None}
        return _Asked(new, known, self._moving.cross(new, known))

    @functools.cached_property
    def _start(self) -> _Known:
        """Σ of the training points, computed when it is first needed."""
        if self.by == "nngp":
            return self._moving
        start = _known("prior", self._prior, self.x)
        table = np.asarray(as_symmetric("prior", start.table))
        least = scipy.linalg.eigvalsh(table.astype(np.float64), subset_by_index=(0, 0))[0]
        _check_semidefinite("prior", least, _floor(table, table.dtype))
        return start

    def _parts(self, asked: "_Asked") -> "_Parts":
        """f at new points as R f₀ + noise, R = P - M on the old points and 1 on the fresh ones."""
        M = (asked.cross @ self._vectors * self._weights) @ self._vectors.T
        R, start = -M, self._start
        firsts = np.unique(start.where, return_index=True)[1]
        for i, place in asked.known.items():
            R[i, firsts[place]] += 1
        fresh = np.array([i for i in range(len(M)) if i not in asked.known], int)
        between = asked.cross[fresh]
        if self.by == "ntk" and len(fresh):
            between = start.cross(asked.new[fresh], {})
        return _Parts(M, R, start.gram.astype(np.float64), fresh, between)

    def _variances(self, asked: "_Asked") -> np.ndarray:
        M, R, sigma, fresh, between = self._parts(asked)
        found = np.einsum("ij,ij->i", R @ sigma, R)
        if len(fresh):
            points, where = _distinct(asked.new[fresh])
            own = _diagonal(self._start.name, self._start.kernel, points)[where]
            found[fresh] += 2 * np.einsum("ij,ij->i", between, R[fresh]) + own
        if self.by == "nngp":
            found += self.noise**2 * np.einsum("ij,ij->i", M, M)
        return np.maximum(found, 0)

    def _covariance(self, asked: "_Asked") -> np.ndarray:
        M, R, sigma, fresh, between = self._parts(asked)
        found, top, name = R @ sigma @ R.T, np.abs(sigma).max(), self._start.name
        if len(fresh):
            points, where = _distinct(asked.new[fresh])
            own = np.asarray(as_symmetric(name, _table(name, self._start.kernel, points)))
            top = max(top, np.abs(own).max())
            mixed = between @ R.T
            found[fresh] += mixed
            found[:, fresh] += mixed.T
            found[np.ix_(fresh, fresh)] += own[np.ix_(where, where)]
        if self.by == "nngp":
            found += self.noise**2 * M @ M.T
        rows = len(sigma) + len(found)
        rounding = math.sqrt(np.finfo(self._start.table.dtype).eps)
        floor = -rows * rounding * float(top) * (1 + float(np.sum(M * M)))
        return _without_negative_parts(name, (found + found.T) / 2, floor)


class _Asked(NamedTuple):
    """New points, which of them are which of the old, and K(x, X)."""

    new: np.ndarray
    known: dict[int, int]
    cross: np.ndarray


class _Parts(NamedTuple):
    M: np.ndarray
    R: np.ndarray
    sigma: np.ndarray
    fresh: np.ndarray
    between: np.ndarray


def trained(
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, " n *k"],
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
) -> Trained:
    """Infinitely wide networks trained on (x, targets), kept to be asked at many sets of points.

    Takes what ``predict`` takes, but for its ``x_test``. ``trained(x, y, depth=3).predict(x_test)``
    is ``predict(x, y, x_test, depth=3)``; the second call of its ``predict`` factorises nothing.

    Raises what ``predict`` raises, at once for what concerns the training, and ``MemoryError`` for
    points whose matrices are larger than the memory of the machine.
    """
    check_known(x=x, targets=targets, time=time, noise=noise)
    by = as_choice("by", by, ("ntk", "nngp"))
    time, noise = as_nonnegative("time", time, infinite=True), as_nonnegative("noise", noise)
    if math.isinf(noise * noise):
        raise ValueError(f"noise needs a number whose square fits into float64, got {noise}")
    network = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    kernels = _kernels(by, kernel, prior, network)
    x = np.asarray(as_inputs(x)[0])
    y = _targets(targets, len(x))
    _check_room("x", len(x))
    moving = _known("kernel", kernels.moving, x)
    gram = moving.gram
    values, vectors = _spectrum("kernel", gram)
    _check_resolved(values, x, gram.dtype, noise=noise, time=time)
    weights = _weights(values + noise**2, time)
    alpha = (vectors * weights) @ (vectors.T @ y)
    if time == math.inf:
        _check_solved(gram, noise**2, alpha, y)
    return Trained(x, alpha, noise, by, moving, kernels.start, vectors, weights)


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
    computed in the precision of the points, the rest in float64. It holds a few n² numbers, and
    (n + m)² with a covariance; ``trained`` keeps what is found, for more sets of points. It runs
    on known numbers, not inside ``jit`` or ``grad``. With float32 points the kernel's own rounding
    may move the mean by hundredths of the targets where points on a line stand close and the noise
    is small; float64 points have no such error.

    Raises ``ValueError`` where the end of training is lost in rounding (repeated points, or nearly
    so, with noise 0 or a small one), with the ways out; for targets of another shape, a negative
    time or noise, and a kernel that gives another shape, NaN or a negative eigenvalue;
    ``TypeError`` for a missing depth; and what ``ntk`` raises. Source: Lee et al. 2019; the noise
    of ``"nngp"``, Matthews et al. 2017. With one output it is ``gradient_descent_mse_ensemble`` of
    neural-tangents with ``diag_reg=noise**2, diag_reg_absolute_scale=True``.
    """
    check_known(x=x, x_test=x_test)
    x_test = as_array("x_test", x_test)  # None too is refused
    x, new = as_inputs(x, x_test, names=("x", "x_test"))  # in one dtype
    network = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    run = {"time": time, "noise": noise, "by": by, "kernel": kernel, "prior": prior}
    return trained(x, targets, **network, **run).predict(new)
