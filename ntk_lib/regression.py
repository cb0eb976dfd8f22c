"""What kernel regression will get wrong, before anything is fitted, and whose label moved it.

Serves the chapter ``regression``. The kernel has eigenvalues λ_i under the distribution of the
points, and the truth f* = Σ v_i φ_i in its eigenfunctions. N random points, labels with noise ν
and the ridge r, (Θ + N r) α = y, leave in expectation, over the labels of new points, about

    E = E₀ (Σ (1 - L_i)² v_i² + ν²),      L_i = λ_i/(λ_i + κ),      E₀ = N/(N - Σ L_i²),

with the *effective ridge* κ ≥ r that solves (1/N) Σ L_i + r/κ = 1 (Bordelon, Canatar and Pehlevan
2020; Jacot et al. 2020; the names *learnability* L_i and *overfitting coefficient* E₀ are those of
Simon et al. 2023). It holds for eigenfunctions whose values behave as independent Gaussians; where
they do not, the chapter measures by how much it is off: by 10 % on digits, by factors on the circle
and for smooth kernels on the sphere.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float
from scipy.optimize import brentq
from scipy.special import roots_legendre

from ntk_lib.engine.arguments import (
    as_array,
    as_counts,
    as_nonnegative,
    as_symmetric,
    as_whole,
    check_known,
)
from ntk_lib.kernels import kernel_regression

__all__ = [
    "LearningCurve",
    "Spectrum",
    "effective_ridge",
    "learning_curve",
    "pool_spectrum",
    "removal_effects",
    "sphere_spectrum",
]

# ---------------------------------------------------------------- spectra


class Spectrum(NamedTuple):
    """Eigenvalues λ_i, how often each stands, the power v_i² of a target, the trace of the rest.

    All but the last of shape (k,); ``power`` is that of a whole eigenspace, (k,) or (k, outputs),
    and None where no target was given. ``tail`` is Σ λ_i over the eigenvalues that are not listed.
    """

    values: Float[np.ndarray, " k"]
    multiplicity: Float[np.ndarray, " k"]
    power: Float[np.ndarray, " k *outputs"] | None = None
    tail: float = 0.0


def pool_spectrum(
    gram: Float[ArrayLike, "m m"], targets: Float[ArrayLike, " m *outputs"] | None = None
) -> Spectrum:
    """The spectrum of a kernel where the world is a pool of M points, each as likely as any other.

    ``gram`` is the kernel of the pool, (m, m), ``targets`` the truth at its points, (m,) or
    (m, outputs): λ_i are the eigenvalues of Θ/M and v_i² = (u_i · y)²/M with its eigenvectors.
    Components far down, i near M, are those of the pool and not of the world it was drawn from.

    Raises ``ValueError`` for a Gram that is not symmetric or has a negative eigenvalue, and targets
    of another length.
    """
    given = np.asarray(as_symmetric("gram", gram))
    gram = given.astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    if values[0] < -len(gram) * math.sqrt(np.finfo(given.dtype).eps) * np.abs(gram).max():
        raise ValueError(
            f"gram needs a positive semi-definite matrix, got an eigenvalue of {values[0]:.3g}"
        )
    values, vectors = np.maximum(values[::-1], 0) / len(gram), vectors[:, ::-1]
    if targets is None:
        return Spectrum(values, np.ones(len(gram)))
    y = np.asarray(as_array("targets", targets), np.float64)
    if y.ndim not in (1, 2) or len(y) != len(gram):
        raise ValueError(
            f"targets needs shape ({len(gram)},) or ({len(gram)}, outputs), got {y.shape}"
        )
    return Spectrum(values, np.ones(len(gram)), (vectors.T @ y) ** 2 / len(gram))


def sphere_spectrum(
    profile: Callable[[Float[np.ndarray, " t"]], ArrayLike],
    dimension: int,
    *,
    degrees: int,
    nodes: int = 2000,
) -> Spectrum:
    """Eigenvalues of a rotation-invariant kernel for the uniform measure on the sphere in R^d.

    ``profile(t)`` is the kernel of two points whose angle has the cosine t, for arrays t of shape
    (t,). The eigenfunctions of degree k = 0 … ``degrees`` - 1 are the spherical harmonics, and
    λ_k = E[profile(t) P_k(t)] over the cosine t of two random points, P_k being the Gegenbauer
    polynomial with P_k(1) = 1: by a Gauss–Legendre rule with ``nodes`` angles. Returned by degree,
    ``multiplicity`` holding the number of harmonics of each and ``tail`` the trace of the degrees
    beyond. On the circle these are the λ_k of ``limiting_ntk.circle_spectrum``.

    Raises ``TypeError`` for a profile that is no function, ``ValueError`` for a dimension below 2,
    degrees below 1 or not below half the nodes, a profile of another shape, and one with a negative
    eigenvalue.
    Source: Müller 1966; for the tangent kernel, Bietti and Mairal 2019.
    """
    if not callable(profile):
        raise TypeError(f"profile needs a function of cosines, got {type(profile).__name__}")
    d = as_whole("dimension", dimension, least=2)
    nodes = as_whole("nodes", nodes, least=4)
    top = as_whole("degrees", degrees, least=1, most=nodes // 2)
    angles, weights = roots_legendre(nodes)
    angles = (angles + 1) * np.pi / 2
    weights = weights * np.sin(angles) ** (d - 2)
    weights, t = weights / weights.sum(), np.cos(angles)
    kernel = np.asarray(as_array("profile", profile(t)), np.float64)
    if kernel.shape != t.shape:
        raise ValueError(
            f"profile needs to give shape {t.shape} for so many cosines, got {kernel.shape}"
        )
    values, before, P = [], np.zeros_like(t), np.ones_like(t)
    for k in range(top):
        values.append(np.sum(weights * kernel * P))
        # on the circle the recursion of cos kγ, whose first step is not that of the others
        up = 1.0 if k == 0 else (2 * k + d - 2) / (k + d - 2)
        before, P = P, up * t * P - (up - 1) * before
    counts = [
        math.comb(d + k - 1, k) - (math.comb(d + k - 3, k - 2) if k > 1 else 0) for k in range(top)
    ]
    if min(values) < -1e-6 * np.abs(kernel).max():
        raise ValueError(
            "profile needs a positive semi-definite kernel, got the eigenvalue "
            f"{min(values):.3g} at degree {int(np.argmin(values))}"
        )
    # the rule leaves up to 1e-10 of the kernel where an eigenvalue is 0, of either sign
    listed, trace = np.maximum(values, 0), float(np.asarray(profile(np.ones(1)))[0])
    tail = max(trace - float(np.dot(counts, listed)), 0.0)
    return Spectrum(listed, np.array(counts, float), tail=tail)


# ---------------------------------------------------------------- learning curves


def _positive_spectrum(values: ArrayLike, multiplicity: ArrayLike | None) -> tuple:
    check_known(values=values, multiplicity=multiplicity)
    lam = np.asarray(as_array("values", values), np.float64)
    if lam.ndim != 1 or not lam.size or not np.all(lam >= 0) or not lam.any():
        raise ValueError(
            "values needs shape (k,) with eigenvalues that are 0 or more, some of them not 0, "
            f"got shape {lam.shape}"
            + (f" and {lam.min():.3g} among them" if lam.size and lam.min() < 0 else "")
        )
    count = np.ones_like(lam)
    if multiplicity is not None:
        count = np.asarray(as_array("multiplicity", multiplicity), np.float64)
        if count.shape != lam.shape or not np.all(count >= 0):
            raise ValueError(
                f"multiplicity needs shape {lam.shape} and no negative entry, got {count.shape}"
            )
    return lam, count


def _effective_ridge(lam: np.ndarray, count: np.ndarray, n: int, ridge: float) -> float:
    rank = float(np.sum(count[lam > 0]))
    if ridge == 0 and n >= rank:
        return 0.0

    def excess(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        return float(np.sum(count * lam / (lam + kappa))) / n + ridge / kappa - 1

    # the left side falls in κ; at the upper end it is at most 1/2
    high = math.log(2 * (float(np.sum(count * lam)) / n + ridge))
    low, least = high - 1, math.log(np.finfo(float).tiny)
    while low > least and excess(low) < 0:
        low = max(low - 2 * (high - low), least)
    if excess(low) <= 0:  # κ is smaller than any normal float
        return 0.0
    return math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))


def effective_ridge(
    values: Float[ArrayLike, " k"],
    n: int,
    *,
    ridge: float = 0.0,
    multiplicity: Float[ArrayLike, " k"] | None = None,
) -> float:
    """κ, the ridge that the eigenfunctions feel: (1/N) Σ λ_i/(λ_i + κ) + ridge/κ = 1.

    ``values`` are the kernel's eigenvalues under the distribution of the points, (k,), each as
    often as ``multiplicity`` says (once by default), ``n`` the number of points N. κ is in the
    units of the eigenvalues, and 0 where the ridge is 0 and N at least the number of eigenvalues
    that are not.

    Raises ``ValueError`` for negative eigenvalues or ridge, n < 1, and shapes that differ.
    Source: Simon, Dickens, Karkada and DeWeese 2023, equation 4, with N·ridge for their δ.
    """
    ridge = float(as_nonnegative("ridge", ridge))
    lam, count = _positive_spectrum(values, multiplicity)
    return _effective_ridge(lam, count, as_whole("n", n, least=1), ridge)


class LearningCurve(NamedTuple):
    """For each of s sizes: test error, its part without noise over E₀, E₀, and κ.

    ``error`` is (s,), the expected squared error on new noisy labels; ``missed`` is
    Σ (1-L_i)² v_i², what of the truth is not learnt, ``overfitting`` is E₀ ≥ 1 and ``kappa`` the
    effective ridge:
    error = overfitting · (missed + noise²). All of shape (s,).
    """

    error: Float[np.ndarray, " s"]
    missed: Float[np.ndarray, " s"]
    overfitting: Float[np.ndarray, " s"]
    kappa: Float[np.ndarray, " s"]


def learning_curve(
    spectrum: Spectrum, sizes: Sequence[int], *, ridge: float = 0.0, noise: float = 0.0
) -> LearningCurve:
    """Test errors of kernel regression with N points, for each N of ``sizes``, from the spectrum.

    ``spectrum`` holds the eigenvalues and the powers v_i² of the truth (all outputs are summed);
    ``noise`` is the standard deviation ν of the labels, in their units. The unlisted ``tail`` acts
    as a ridge of tail/N: components so small are learnt from no number of points. E₀ is infinite
    where N is the number of eigenvalues that are not 0 and the ridge is 0: the peak of double
    descent.

    Raises ``ValueError`` for a spectrum without power, negative ridge, noise, tail or powers, sizes
    below 1 or none, and what ``effective_ridge`` raises.
    Source: Bordelon, Canatar and Pehlevan 2020; in this form Simon et al. 2023, section 4.
    """
    ridge = float(as_nonnegative("ridge", ridge))
    noise = float(as_nonnegative("noise", noise))
    if not isinstance(spectrum, Spectrum):
        raise TypeError(f"spectrum needs a Spectrum, got {type(spectrum).__name__}")
    lam, count = _positive_spectrum(spectrum.values, spectrum.multiplicity)
    if spectrum.power is None:
        raise ValueError("spectrum needs the power of a target, got None: pool_spectrum(gram, y)")
    power = np.asarray(as_array("spectrum", spectrum.power), np.float64)
    if len(power) != len(lam) or power.ndim > 2 or np.any(power < 0):
        raise ValueError(f"spectrum needs {len(lam)} powers that are 0 or more, got {power.shape}")
    power = power.reshape(len(lam), -1).sum(axis=1)
    tail = as_nonnegative("tail", spectrum.tail)
    sizes = as_counts("sizes", sizes, least=1)
    if not len(sizes):
        raise ValueError("sizes needs at least one number of points, got none")
    rows = []
    for n in sizes:
        kappa = _effective_ridge(lam, count, n, ridge + tail / n)
        learnt = np.where(lam > 0, lam / np.where(lam > 0, lam + kappa, 1), 0)
        room = n - float(np.sum(count * learnt**2))
        overfitting = n / room if room > 0 else math.inf
        missed = float(np.sum((1 - learnt) ** 2 * power))
        spread = missed + noise**2
        rows.append((overfitting * spread if spread else 0.0, missed, overfitting, kappa))
    return LearningCurve(*np.array(rows).T)


# ---------------------------------------------------------------- whose label


def removal_effects(
    gram: Float[ArrayLike, "n n"],
    cross: Float[ArrayLike, "m n"],
    targets: Float[ArrayLike, " n"],
    *,
    ridge: float = 0.0,
) -> Float[Array, "m n"]:
    """How much the prediction at each of m points would change without training point i.

    All N fits from one: -[Θ(x, X) A⁻¹]_i α_i/(A⁻¹)_ii with A = Θ + N·ridge, α = A⁻¹ y, in the units
    of the targets; entry (x, i) is f_{-i}(x) - f(x). As in ``kernels.left_out_errors`` the fits
    without a point keep N·ridge. ``gram`` has shape (n, n), ``cross`` (m, n), ``targets`` (n,).

    Raises ``ValueError`` for a ``cross`` of another shape and what ``kernel_regression`` raises.
    Source: the formula of the inverse of a matrix without a row; data attribution by it in
    linear models of tangent features is TRAK, Park et al. 2023.
    """
    y = as_array("targets", targets)
    if y.ndim != 1:
        raise ValueError(f"targets needs shape (n,), one output at a time, got {y.shape}")
    alpha = kernel_regression(gram, y, ridge=ridge)
    inverse = kernel_regression(gram, jnp.eye(len(y), dtype=alpha.dtype), ridge=ridge)
    rows = as_array("cross", cross, dtype=alpha.dtype)
    if rows.ndim != 2 or rows.shape[1] != len(y):
        raise ValueError(f"cross needs shape (m, {len(y)}), got {rows.shape}")
    return -(rows @ inverse) * (alpha / jnp.diag(inverse))[None, :]
