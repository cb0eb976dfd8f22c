"""Double descent: random features through the point where they are as many as the data.

Serves the chapter ``double_descent``. A fit with P random features to N labels has a feature matrix
Φ, (N, P), and the least weights that come closest to the labels are w = Φ⁺ y. Its singular values
s_i say how it goes: noise of variance ν² in the labels makes weights of mean square ν² Σ 1/s_i²,
and the smallest s_i is near 0 where P is near N.

Two results are computed here. For Gaussian features and P ≥ N the fit at a new point has, over the
draw of the features, *exactly* a Student law with P - N + 1 degrees of freedom about the kernel
regression f_∞ that P = ∞ would give (``feature_law``). And with D = Σ L_i, D₂ = Σ L_i² and
L_i = λ_i/(λ_i + κ) in the kernel's eigenvalues, the ridge r of random features acts on the
eigenfunctions as the κ with

    κ (1 - D/N) (1 - D/P) = r,

from which ``random_feature_curve`` has the test error: ``regression.learning_curve`` used twice,
once for the points and once for the features.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.optimize import brentq

from ntk_lib.engine.arguments import (
    as_array,
    as_counts,
    as_inputs,
    as_key,
    as_nonnegative,
    as_points,
    as_positive,
    as_scalar,
    as_semidefinite,
    as_steps,
    as_symmetric,
    as_whole,
)
from ntk_lib.kernels import kernel_regression
from ntk_lib.regression import Spectrum, effective_ridge
from ntk_lib.wide_networks import Layer, apply, check_dimension, init

__all__ = [
    "FeatureLaw",
    "LeastNorm",
    "RandomFeatureCurve",
    "feature_law",
    "gaussian_features",
    "least_norm",
    "marchenko_pastur",
    "random_feature_curve",
    "tangent_features",
    "train_by_adam",
]

# ---------------------------------------------------------------- features


def gaussian_features(
    gram: Float[ArrayLike, "m m"], *, key: PRNGKeyArray, count: int
) -> Float[Array, "m count"]:
    """``count`` random functions at m points: draws of the Gaussian process of covariance ``gram``.

    Their mean product is the kernel: E[φ(x) φ(x')] = K(x, x'). Shape (m, count); divide by √count
    for a Gram that tends to K. The first columns of a draw are features of their own.

    Raises ``ValueError`` for a Gram that is not symmetric or has a negative eigenvalue, and a count
    below 1, ``TypeError`` for what is no key.
    """
    gram = as_semidefinite("gram", gram)
    count = as_whole("count", count, least=1)
    values, vectors = jnp.linalg.eigh(gram)
    factor = vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :]
    return factor @ jax.random.normal(as_key("key", key), (len(gram), count), gram.dtype)


def tangent_features(
    params: Sequence[Layer],
    x: Float[ArrayLike, "n d"],
    *,
    activation: str = "relu",
    beta: float = 0.0,
) -> Float[Array, "n p"]:
    """Derivatives of the network's output by all of its P parameters, a row a point: (n, P).

    The features of the linearised network; their products are its tangent kernel. ``params`` is a
    network of one output, as ``wide_networks.init`` draws it; with ``beta`` 0 the biases do
    nothing, and their columns, which are 0, are left out.

    Raises ``ValueError`` for a network of several outputs or points of another dimension, and what
    ``wide_networks.preactivations`` raises.
    """
    x, _ = as_inputs(x)
    beta = float(as_nonnegative("beta", beta))
    if not params:
        raise ValueError("params needs at least one layer, got none: wide_networks.init draws some")
    check_dimension(params, x)
    if len(params[-1].b) != 1:
        raise ValueError(f"params needs a network of one output, got {len(params[-1].b)}")
    weights = params if beta else [W for W, _ in params]

    def output(weights: Sequence, point: Array) -> Array:
        pairs = zip(weights, params, strict=True)
        layers = weights if beta else [Layer(W, b) for W, (_, b) in pairs]
        return apply(layers, point, activation=activation, beta=beta)[0]

    rows = jax.vmap(jax.grad(output), in_axes=(None, 0))(weights, x)
    return jnp.concatenate([leaf.reshape(len(x), -1) for leaf in jax.tree.leaves(rows)], axis=1)


# ---------------------------------------------------------------- the fit


class LeastNorm(NamedTuple):
    """Weights of a fit, (p,) or (p, k), and the singular values of its features, largest first."""

    weights: Float[np.ndarray, " p *k"]
    singular_values: Float[np.ndarray, " r"]

    @property
    def rank(self) -> int:
        """How many singular values are more than rounding."""
        return int(np.sum(_real(self.singular_values, len(self.weights))))


def _real(values: np.ndarray, size: int) -> np.ndarray:
    return values > max(size, len(values)) * np.finfo(values.dtype).eps * values[0]


def least_norm(
    features: Float[ArrayLike, "n p"], targets: Float[ArrayLike, " n *k"], *, ridge: float = 0.0
) -> LeastNorm:
    """The least weights w among those that bring Φ w closest to the targets, by Φ's own SVD.

    ``features`` is Φ, a row a point, ``targets`` (n,) or (n, k). With a ``ridge`` r the weights
    minimise ‖Φw - y‖²/N + r‖w‖²: kernel ridge regression with the Gram ΦΦᵀ. Singular values within
    rounding of 0 count as 0, so that a feature matrix without full rank is no error.

    Raises ``ValueError`` for features that are not a matrix or are all 0, targets of another
    length and a negative ridge.
    """
    features = np.asarray(as_array("features", features))
    if features.ndim != 2 or not features.any():
        raise ValueError(
            f"features needs shape (n, p), a row a point and some not 0, got {features.shape}"
        )
    y = np.asarray(as_array("targets", targets, dtype=features.dtype))
    if y.ndim not in (1, 2) or len(y) != len(features):
        raise ValueError(f"targets needs {len(features)} rows, one a point, got shape {y.shape}")
    ridge = float(as_nonnegative("ridge", ridge))
    U, s, Vt = np.linalg.svd(features, full_matrices=False)
    real = _real(s, max(features.shape))
    scale = np.where(real, s / np.where(real, s**2 + len(features) * ridge, 1), 0)
    return LeastNorm(Vt.T @ (scale.reshape(-1, *[1] * (y.ndim - 1)) * (U.T @ y)), s)


def marchenko_pastur(singular: Float[ArrayLike, " k"], ratio: float) -> Float[np.ndarray, " k"]:
    """Density of the singular values of a large N × P matrix of N(0, 1/N) entries, ratio = P/N.

    Of those that are not 0, whose density integrates to 1; they fill the interval from |1 - √ratio|
    to 1 + √ratio. At ratio 1 it begins at 0.

    Raises ``ValueError`` for a ratio that is not positive, what is no row of numbers and a
    singular value that is not positive. Source: the law of Marchenko and Pastur (1967).
    """
    s = np.asarray(as_array("singular", singular), np.float64)
    ratio = as_positive("ratio", ratio)
    if s.ndim != 1 or not np.all(s > 0):
        raise ValueError(f"singular needs positive numbers, shape (k,), got shape {s.shape}")
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    inside = np.maximum((high - s**2) * (s**2 - low), 0)
    return np.sqrt(inside) / (np.pi * min(ratio, 1.0) * s)


# ---------------------------------------------------------------- exact, for Gaussian features


class FeatureLaw(NamedTuple):
    """The law of a fit at m points: ``mean`` + ``scale`` · a Student variable of ``freedom``."""

    mean: Float[Array, " m"]
    scale: Float[Array, " m"]
    freedom: int


def feature_law(
    gram: Float[ArrayLike, "n n"],
    cross: Float[ArrayLike, "m n"],
    variances: Float[ArrayLike, " m"],
    targets: Float[ArrayLike, " n"],
    *,
    count: int,
) -> FeatureLaw:
    """What P ≥ N Gaussian random features fit at m points, over the draw of the features: its law.

    The least-norm fit at x is f_∞(x) + scale(x)·t with t of Student's law with k = P - N + 1
    degrees of freedom, f_∞ ridgeless kernel regression, and scale² = v(x) yᵀK⁻¹y/k, where v(x) is
    what the N points leave of the variance K(x, x). Exact for every N and P. Its variance is
    v yᵀK⁻¹y/(P - N - 1), infinite for P of N and N + 1; at P = N it has no mean either.

    ``gram`` is K on the data, ``cross`` between the m points and the data, ``variances`` K(x, x)
    at the m points, ``targets`` the labels, ``count`` P.

    Raises ``ValueError`` for shapes that do not fit, variances smaller than what the data explain
    of them, a count below N and what ``kernel_regression`` raises. Source: the chapter's proof; the
    mean and the variance of such fits with a ridge are studied in Jacot et al. 2020.
    """
    gram = as_symmetric("gram", gram)
    n = len(gram)
    cross = as_array("cross", cross, dtype=gram.dtype)
    if cross.ndim != 2 or cross.shape[1] != n:
        raise ValueError(f"cross needs shape (m, {n}), a column a point, got {cross.shape}")
    variances = as_array("variances", variances, dtype=gram.dtype)
    if variances.shape != (len(cross),):
        raise ValueError(f"variances needs shape ({len(cross)},), got {variances.shape}")
    y = as_array("targets", targets, dtype=gram.dtype)
    if y.shape != (n,):
        raise ValueError(f"targets needs shape ({n},), one output, got {y.shape}")
    freedom = as_whole("count", count, least=n, meaning=" (as many features as points)") - n + 1
    both = kernel_regression(gram, jnp.concatenate([y[:, None], cross.T], axis=1))
    left = variances - jnp.sum(cross * both[:, 1:].T, axis=1)
    if jnp.any(variances < 0) or jnp.any(left < -0.01 * variances):
        raise ValueError(
            "variances needs K(x, x) of the same kernel, got less than the data explain of it: "
            "pass the diagonal of the kernel at the m points"
        )
    left = jnp.maximum(left, 0)
    return FeatureLaw(cross @ both[:, 0], jnp.sqrt(left * (y @ both[:, 0]) / freedom), freedom)


# ---------------------------------------------------------------- asymptotic, from the spectrum


class RandomFeatureCurve(NamedTuple):
    """For each of s numbers of features: test error, what is missed, its factor, and κ.

    ``error`` = ``factor`` · (``missed`` + noise²) is the expected squared error on new noisy
    labels, ``missed`` the error of the truth that infinitely many points would leave, ``factor``
    ≥ 1 that of overfitting, infinite at P = N without a ridge. All of shape (s,).
    """

    error: Float[np.ndarray, " s"]
    missed: Float[np.ndarray, " s"]
    factor: Float[np.ndarray, " s"]
    kappa: Float[np.ndarray, " s"]


def _kappa(lam: np.ndarray, count: np.ndarray, tail: float, n: int, p: int, ridge: float) -> float:
    """The κ with κ (1 - D/N) (1 - D/P) = ridge."""
    least = effective_ridge(lam, min(n, p), ridge=tail / min(n, p), multiplicity=count)
    if ridge == 0:
        return least

    def excess(log_kappa: float) -> float:
        kappa = math.exp(log_kappa)
        total = float(np.sum(count * lam / (lam + kappa))) + tail / kappa
        return kappa * (1 - min(total / n, 1)) * (1 - min(total / p, 1)) - ridge

    trace = float(np.sum(count * lam)) + tail
    high = math.log(4 * (trace / min(n, p) + ridge) + least)
    low = math.log(max(least, ridge))
    if low >= high or excess(low) >= 0:  # a ridge that rounding hides
        return math.exp(low)
    return math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-14))


def random_feature_curve(
    spectrum: Spectrum,
    n: int,
    counts: Sequence[int],
    *,
    ridge: float = 0.0,
    noise: float = 0.0,
) -> RandomFeatureCurve:
    """Test errors of ridge regression on P random features, for each P of ``counts``, predicted.

    ``spectrum`` holds the eigenvalues of the kernel that the features' mean product is, and the
    powers v_i² of the truth (all outputs are summed), ``n`` is the number of points, ``noise`` the
    standard deviation of the labels and ``ridge`` that of the Gram ΦΦᵀ/N of features divided by
    √P. As P grows it becomes ``regression.learning_curve``. To leading order for large N and P:
    near P = N without a ridge, where the error has no mean, finite sizes are worse.

    Raises ``TypeError`` for what is no spectrum, ``ValueError`` for one without power, sizes below
    1, a negative ridge, noise or power and what ``effective_ridge`` raises.
    Source: the chapter's derivation; for such errors Simon et al. 2024 and, with proofs, Defilippis
    et al. 2024.
    """
    if not isinstance(spectrum, Spectrum):
        raise TypeError(f"spectrum needs a Spectrum, got {type(spectrum).__name__}")
    if spectrum.power is None:
        raise ValueError("spectrum needs the power of a target, got None: pool_spectrum(gram, y)")
    ridge = float(as_nonnegative("ridge", ridge))
    noise = float(as_nonnegative("noise", noise))
    n = as_whole("n", n, least=1)
    lam = np.asarray(as_array("spectrum", spectrum.values), np.float64)
    times = np.asarray(as_array("spectrum", spectrum.multiplicity), np.float64)
    power = np.asarray(as_array("spectrum", spectrum.power), np.float64)
    if len(power) != len(lam) or power.ndim > 2 or np.any(power < 0):
        raise ValueError(f"spectrum needs {len(lam)} powers that are 0 or more, got {power.shape}")
    power = power.reshape(len(lam), -1).sum(axis=1)
    counts, rows = as_counts("counts", counts, least=1), []
    if not len(counts):
        raise ValueError("counts needs at least one number of features, got none")
    for p in counts:
        kappa = _kappa(lam, times, spectrum.tail, n, p, ridge)
        L = np.where(lam > 0, lam / np.where(lam > 0, lam + kappa, 1), 0)
        D = float(np.sum(times * L)) + (spectrum.tail / kappa if spectrum.tail else 0)
        D2 = float(np.sum(times * L**2))
        D = min(D, p, n)  # equal to the smaller but for rounding, without a ridge
        share = (1 - D / p) / (1 - D2 / p) if p > D2 else 1.0
        missed = float(np.sum(((1 - share) * (1 - L) + share * (1 - L) ** 2) * power))
        room = 1 - D / n + share * (D - D2) / n
        factor = 1 / room if room > 1e-9 else math.inf
        spread = missed + noise**2
        rows.append((factor * spread if spread else 0.0, missed, factor, kappa))
    return RandomFeatureCurve(*np.array(rows).T)


# ---------------------------------------------------------------- networks that are trained


@functools.partial(jax.jit, static_argnames="width")
def _trained(x, y, at, key, segments, rate, beta, *, width: int):
    params = init((x.shape[1], width, y.shape[1]), key=key, dtype=x.dtype)

    def cost(params):
        return jnp.mean(jnp.sum((apply(params, x, beta=beta) - y) ** 2, axis=1)) / 2

    def step(s, state):
        params, mean, square = state
        slope = jax.grad(cost)(params)
        mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, slope)
        square = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, square, slope)
        size = rate * jnp.sqrt(1 - 0.999 ** (s + 1)) / (1 - 0.9 ** (s + 1))
        params = jax.tree.map(
            lambda w, m, v: w - size * m / (jnp.sqrt(v) + 1e-8), params, mean, square
        )
        return params, mean, square

    def segment(state, ends):
        state = jax.lax.fori_loop(ends[0], ends[1], lambda s, t: step(s.astype(x.dtype), t), state)
        return state, apply(state[0], at, beta=beta)

    rest = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(segment, (params, rest, rest), segments)[1]


def train_by_adam(
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, "n k"],
    at: Float[ArrayLike, "p d"],
    *,
    key: PRNGKeyArray,
    steps: Sequence[int],
    width: int,
    rate: float = 0.02,
    beta: float = 0.1,
) -> Float[Array, "times p k"]:
    """Outputs at the points ``at`` of one network of one hidden ReLU layer after each of ``steps``.

    Adam (0.9, 0.999) on all points at once from a random start, for C = ½·mean ‖f(x) - target‖²,
    in the precision of ``x``. ``targets`` has k outputs, (n, k); ``steps`` are counts in increasing
    order, 0 for the start. In the NTK parametrisation, where weights are of order 1, a ``rate`` of
    0.02 is what some 0.003 is for 64 inputs in the standard one.

    Raises ``ValueError`` for targets of another shape, steps that decrease or are negative, a width
    below 1 or a rate that is not positive.
    """
    x, _ = as_inputs(x)
    at = as_points("at", at, like=x)
    y = as_array("targets", targets, dtype=x.dtype)
    if y.ndim != 2 or len(y) != len(x) or not y.size:
        raise ValueError(f"targets needs shape ({len(x)}, k), got {y.shape}")
    width = as_whole("width", width, least=1)
    ends = np.array(as_steps(steps))
    segments = jnp.asarray(np.stack([np.r_[0, ends[:-1]], ends], axis=1))
    rate, beta = (
        as_scalar("rate", as_positive("rate", rate), x.dtype),
        as_scalar("beta", as_nonnegative("beta", beta), x.dtype),
    )
    return _trained(x, y, at, as_key("key", key), segments, rate, beta, width=width)
