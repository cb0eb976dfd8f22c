"""Early stopping: what gradient flow has learnt by a given time, and when it should stop.

Serves the chapter ``early_stopping``. For least squares, C = (1/2N) Σ (f(x_i) - y_i)², and a kernel
Θ that stays put, gradient flow from the initial function f₀ has the solution

    f_t(x) = f₀(x) + M_t (y - f₀(X)),        M_t = Θ(x, X) Θ⁻¹ (I - e^(-Θt/N)).

On the eigenvalues λ of Θ/N (the kernel principal components) the last factor is the *filter*
1 - e^(-λt); discrete steps and ridge regression have filters of their own:

    flow 1 - e^(-λt),      descent 1 - (1 - ηλ)^s,      ridge λ/(λ + ridge);

the first two are ``lazy.flow_filter`` and ``lazy.descent_filter``.

``smoother`` builds M from any of them. For flow and descent and one set of labels, the change
M (y - f₀(X)) is ``lazy.linearised_change``, at many times at once; here the matrix itself is
needed, since truth, noise and f₀ all go through it. The rest depends on M alone: the Gaussian
process that an ensemble of trained networks is, mean M y and covariance (I - M P) Σ (I - M P)ᵀ with
P the restriction to the training points (Lee et al. 2019), and the expected squared error under
noisy labels.

Throughout, *points* are p points of which the first N are the training points: ``theta`` is Θ
between all p points and the training points, shape (p, N), ``sigma`` the covariance of the initial
functions on all p points, shape (p, p).
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray

from ntk_lib.engine.activations import Activation, as_activation
from ntk_lib.engine.arguments import (
    as_array,
    as_float_dtype,
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
    check_known,
    check_numbers,
    is_real,
    of_several_outputs,
)
from ntk_lib.kernels import principal_components
from ntk_lib.lazy import descend, filter_arguments
from ntk_lib.wide_networks import Layer, apply, as_widths, init

__all__ = [
    "Ensemble",
    "Risk",
    "best_time",
    "random_networks",
    "ridge_filter",
    "risk",
    "smoother",
    "trained_ensemble",
    "trained_networks",
]

# ---------------------------------------------------------------- filters


def ridge_filter(values: Float[ArrayLike, "*n"], ridge: ArrayLike) -> Float[Array, "*n"]:
    """λ/(λ + ridge): the share of each component that ridge regression reproduces.

    The ridge is the one of ``kernels.kernel_regression``: (Θ + N·ridge·I) α = y. Raises
    ``ValueError`` or ``TypeError`` for a ridge that is negative or no number.
    """
    values, ridge = filter_arguments(values, "ridge", as_nonnegative("ridge", ridge))
    return jnp.where(values > 0, values / jnp.where(values > 0, values + ridge, 1.0), 0.0)


# ---------------------------------------------------------------- the trained function


def _as_theta(name: str, theta: ArrayLike) -> Array:
    theta = as_array(name, theta)
    if theta.ndim != 2 or not theta.size or theta.shape[0] < theta.shape[1]:
        raise ValueError(
            f"{name} needs shape (points, training points), the training points first, "
            f"got {theta.shape}{of_several_outputs(name, theta.shape)}"
        )
    return theta


def smoother(
    theta: Float[ArrayLike, "p n"], learnt: Callable[[Array], Array]
) -> Float[Array, "p n"]:
    """The matrix M that maps labels to predictions when f₀ = 0: M = Θ(x, X) Θ⁻¹ g(Θ/N).

    ``theta`` is Θ between the p points and the N training points, which are the first N of the p.
    ``learnt`` is the filter g, a function of the eigenvalues, say
    ``functools.partial(flow_filter, time=20)``. On the training points M is g(Θ/N) itself.
    Eigenvalues within rounding of zero contribute nothing: where Θ has no component, neither has
    Θ(x, X).

    Raises ``ValueError`` for another shape or training rows that are not symmetric, ``TypeError``
    for a filter that cannot be called.
    """
    theta = _as_theta("theta", theta)
    if not callable(learnt):
        raise TypeError(f"learnt needs a function of the eigenvalues, got {type(learnt).__name__}")
    count = theta.shape[1]
    as_symmetric("theta", theta[:count])
    values, vectors = principal_components(theta[:count])
    shares = learnt(values)
    if getattr(shares, "shape", None) != values.shape or not is_real(shares.dtype):
        got = getattr(shares, "shape", type(shares).__name__)
        raise ValueError(f"learnt needs to give a share for each of {count} values, got {got}")
    return _smoother(theta, values, vectors, shares)


@jax.jit
def _smoother(theta: Array, values: Array, vectors: Array, shares: Array) -> Array:
    count = len(values)
    real = values > count * jnp.finfo(values.dtype).eps * values[0]
    weights = jnp.where(real, shares / jnp.where(real, count * values, 1.0), 0.0)
    return (theta @ vectors * weights[None, :]) @ vectors.T


class Ensemble(NamedTuple):
    """Mean and covariance of the functions of many trained networks at p points.

    The covariance is symmetric to the last bit, and no variance is negative. With k outputs it is
    that of each of them; they are independent.
    """

    mean: Float[Array, " p *k"]
    covariance: Float[Array, "p p"]


def _as_sigma(sigma: ArrayLike, M: Array) -> Array:
    sigma = as_array("sigma", sigma, dtype=M.dtype)
    if sigma.shape != (len(M), len(M)):
        hint = of_several_outputs("sigma", sigma.shape)
        raise ValueError(f"sigma needs shape ({len(M)}, {len(M)}), got {sigma.shape}{hint}")
    return as_semidefinite("sigma", sigma)


def _kept(M: Array) -> Array:
    """I - M P, with P the restriction to the training points."""
    return jnp.eye(len(M), dtype=M.dtype) - jnp.pad(M, ((0, 0), (0, len(M) - M.shape[1])))


# A product of a factor with its transpose has no negative variances, but the derivative of the
# factor has poles: so the derivative is that of the formula.
@jax.custom_jvp
def _leftover(M: Array, sigma: Array) -> Array:
    """Covariance of f₀ - M f₀(X): what training leaves of the initial function."""
    values, vectors = jnp.linalg.eigh(sigma)
    factor = _kept(M) @ (vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :])
    covariance = factor @ factor.T
    return (covariance + covariance.T) / 2


@_leftover.defjvp
def _leftover_derivative(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    def formula(M: Array, sigma: Array) -> Array:
        covariance = _kept(M) @ sigma @ _kept(M).T
        return (covariance + covariance.T) / 2

    return _leftover(*primals), jax.jvp(formula, primals, tangents)[1]


_leftover = jax.jit(_leftover)


def trained_ensemble(
    M: Float[ArrayLike, "p n"], sigma: Float[ArrayLike, "p p"], targets: Float[ArrayLike, " n *k"]
) -> Ensemble:
    """The Gaussian process of infinitely wide networks trained from random starts f₀ ~ N(0, Σ).

    ``M`` is the ``smoother`` at the time of stopping, ``sigma`` the NNGP kernel Σ of the p points,
    ``targets`` the labels y, (n,) or (n, k) for k outputs. Mean M y, (p,) or (p, k); covariance
    Σ + M Σ_XX Mᵀ - (M Σ_Xx + transpose), (p, p), all at the p points.

    Raises ``ValueError`` for shapes that do not fit and a Σ that is not symmetric or has a negative
    eigenvalue. Source: Lee et al. 2019.
    """
    M = _as_theta("M", M)
    targets = as_array("targets", targets, dtype=M.dtype)
    if targets.ndim not in (1, 2) or targets.shape[0] != M.shape[1] or not targets.size:
        n = M.shape[1]
        raise ValueError(f"targets needs shape ({n},) or ({n}, k), got {targets.shape}")
    return Ensemble(M @ targets, _leftover(M, _as_sigma(sigma, M)))


# ---------------------------------------------------------------- risk


class Risk(NamedTuple):
    """Expected squared error at each of p points, in three parts that add up to ``total``."""

    bias: Float[Array, " p"]
    start: Float[Array, " p"]
    variance: Float[Array, " p"]

    @property
    def total(self) -> Float[Array, " p"]:
        return self.bias + self.start + self.variance


def risk(
    M: Float[ArrayLike, "p n"],
    sigma: Float[ArrayLike, "p p"],
    truth: Float[ArrayLike, " p"],
    *,
    noise: ArrayLike,
) -> Risk:
    """E (f_t - f*)² over the noise in the labels and the initial function, point by point.

    The labels are y = f*(X) + noise·ε with independent standard ε; ``truth`` is f* at the p
    points, ``noise`` a standard deviation. Parts: ``bias`` (M f*(X) - f*)², ``start`` the variance
    left of f₀, ``variance`` noise²·Σ_j M_ij². The mean over the first N entries is the error on
    the noiseless targets of the data, over the others that on test points.

    With several outputs there is a risk for each.

    Raises ``ValueError`` or ``TypeError`` for shapes that do not fit, a Σ as ``trained_ensemble``
    refuses and a noise that is negative or no number.
    """
    M = _as_theta("M", M)
    truth = as_array("truth", truth, dtype=M.dtype)
    if truth.shape != (len(M),):
        raise ValueError(f"truth needs shape ({len(M)},), one a point, got {truth.shape}")
    noise = as_scalar("noise", as_nonnegative("noise", noise), M.dtype)
    return _risk(M, _as_sigma(sigma, M), truth, noise)


@jax.jit
def _risk(M: Array, sigma: Array, truth: Array, noise: Array) -> Risk:
    missed = M @ truth[: M.shape[1]] - truth
    return Risk(missed**2, jnp.diag(_leftover(M, sigma)), noise**2 * jnp.sum(M**2, axis=1))


def best_time(times: Float[ArrayLike, " t"], risks: Float[ArrayLike, " t"]) -> float:
    """The time of smallest risk: a parabola in log t through the smallest value's neighbours.

    ``times`` are positive and increasing, ``risks`` the risk at each. A smallest value at either
    end of the grid is returned as it stands: the minimum may lie beyond.

    Raises ``ValueError`` for unequal shapes, fewer than three times, or times that do not increase
    from above 0.
    """
    check_known(times=times, risks=risks)
    times, risks = (np.asarray(as_array(n, v)) for n, v in (("times", times), ("risks", risks)))
    if times.ndim != 1 or len(times) < 3:
        raise ValueError(f"times needs shape (t,), t at least 3, got {times.shape}")
    if risks.shape != times.shape:
        raise ValueError(f"risks needs the shape of times, {times.shape}, got {risks.shape}")
    if times[0] <= 0 or np.any(np.diff(times) <= 0):
        raise ValueError("times needs positive numbers in increasing order")
    i = int(np.argmin(risks))
    if i in (0, len(times) - 1):
        return float(times[i])
    u, r = np.log(times[i - 1 : i + 2]), risks[i - 1 : i + 2]
    left, right = (r[1] - r[0]) / (u[1] - u[0]), (r[2] - r[1]) / (u[2] - u[1])
    if left == right:  # three equal values
        return float(times[i])
    # the slope of the parabola is `left` and `right` halfway between neighbours
    start, end = (u[0] + u[1]) / 2, (u[1] + u[2]) / 2
    return float(np.exp(start - left * (end - start) / (right - left)))


# ---------------------------------------------------------------- many real networks


# a program of its own: the draw takes half of the time to compile, and depends on the shape alone
@functools.partial(jax.jit, static_argnames=("widths", "dtype"))
def _random_networks(keys: Array, *, widths: tuple, dtype) -> list[Layer]:
    return jax.lax.map(lambda key: init(widths, key=key, dtype=dtype), keys)


def random_networks(
    widths: Sequence[int], *, key: PRNGKeyArray, draws: int, dtype: object = None
) -> list[Layer]:
    """``draws`` networks at once, each array with a first axis more: those ``init`` draws.

    The keys are those into which ``key`` splits, as in ``trained_networks`` and
    ``limiting_ntk.random_kernels``. Raises ``ValueError`` for ``draws`` below 1, and as ``init``
    does.
    """
    keys = jax.random.split(as_key("key", key), as_whole("draws", draws, least=1))
    widths, dtype = as_widths(widths), as_float_dtype("dtype", dtype)
    return _random_networks(keys, widths=widths, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("inputs", "depth", "room", "dtype"))
def _networks_in_a_room(keys: Array, width: Array, *, inputs, depth, room, dtype) -> list[Layer]:
    """Those of ``random_networks`` with zeros up to ``room`` neurons: one program for all widths.

    ``init`` takes its numbers from one row, and a longer row begins with the same numbers.
    """
    rooms, widths = (
        list(itertools.pairwise((inputs, *[n] * (depth - 1), 1))) for n in (room, width)
    )
    length = sum(n_out * (n_in + 1) for n_in, n_out in rooms)

    def one(key: Array) -> list[Layer]:
        numbers, layers, start = jax.random.normal(key, (length,), dtype), [], 0
        for (room_in, room_out), (n_in, n_out) in zip(rooms, widths, strict=True):
            row, column = jnp.arange(room_out), jnp.arange(room_in)[None, :]
            places = start + row * (n_in + 1)
            live = (row < n_out)[:, None] & (column < n_in)
            W = jnp.where(live, numbers.at[places[:, None] + column].get(mode="clip"), 0)
            b = jnp.where(row < n_out, numbers.at[places + n_in].get(mode="clip"), 0)
            layers.append(Layer(W, b))
            start = start + n_out * (n_in + 1)
        return layers

    return jax.lax.map(one, keys)


def starts_in_a_room(
    keys: Array, *, inputs: int, width: int, depth: int, room: int, sigma: Activation, dtype: object
) -> tuple[list[Layer], float]:
    """The networks ``init`` draws, one a key, in arrays for ``room`` neurons, and their gain.

    Raises ``ValueError`` for a width above ``room`` or an activation that is not zero at zero.
    """
    room = as_whole("room", room, least=1)
    as_whole("width", width, least=1, most=room)
    if sigma.function(jnp.zeros((), dtype)) != 0:
        raise ValueError(f"activation needs σ(0) = 0 with a room, got {sigma.name}")
    shape = {"inputs": inputs, "depth": depth, "room": room, "dtype": dtype}
    # the 1/√room of the layers becomes 1/√width
    return _networks_in_a_room(keys, jnp.asarray(width), **shape), room / width


@functools.partial(jax.jit, static_argnames="sigma")
def _trained_networks(starts, x, targets, at, segments, rate, gain, beta, *, sigma):
    def one(start_and_targets: tuple[list[Layer], Array]) -> Array:
        params, y = start_and_targets

        def segment(p, count):
            p = descend(p, x, y, rate, gain, beta, count=count, sigma=sigma)
            return p, apply(p, at, activation=sigma, gain=gain, beta=beta)[:, 0]

        return jax.lax.scan(segment, params, segments)[1]

    return jax.lax.map(one, (starts, targets))


def trained_networks(
    x: Float[ArrayLike, "n d"],
    targets: Float[ArrayLike, "draws n"],
    at: Float[ArrayLike, "p d"],
    *,
    key: PRNGKeyArray,
    steps: Sequence[int],
    width: int,
    depth: int = 2,
    rate: float = 1.0,
    activation: str | Activation = "relu",
    beta: float = 0.1,
    room: int | None = None,
) -> Float[Array, "draws times p"]:
    """Outputs at the points ``at`` of many networks after each of ``steps`` of gradient descent.

    One network a row of ``targets``, each from its own random start, those of ``random_networks``.
    ``steps`` are step counts in increasing order, 0 for the initial function. The gradient is that
    of C = ½·mean (f(x) - target)²: s steps of ``rate`` η are the time t = sη. All steps are one
    program, whatever their number.

    A new ``width`` is a new program, unless ``room`` says how many neurons a layer to compute: then
    the same networks are trained, to rounding, by one program for all widths up to ``room``. The
    neurons beyond the width have weights of zero, and keep them if σ(0) = 0.

    Raises ``ValueError`` for targets of another shape, steps that decrease or are negative, a
    width below 1 or above ``room``, a rate that is not positive or, with ``room``, an activation
    that is not zero at zero, and as ``limiting_ntk.ntk`` does.
    """
    sigma = as_activation(activation)
    _, beta = check_numbers(depth=depth, gain=1.0, beta=beta)
    width, rate = as_whole("width", width, least=1), as_positive("rate", rate)
    x, _ = as_inputs(x)
    at = as_points("at", at, like=x)
    targets = as_array("targets", targets, dtype=x.dtype)
    if targets.ndim != 2 or targets.shape[1] != len(x) or not len(targets):
        raise ValueError(f"targets needs shape (draws, {len(x)}), got {targets.shape}")
    counts = as_steps(steps)
    if room is None:
        widths = (x.shape[1], *[width] * (depth - 1), 1)
        starts = random_networks(widths, key=key, draws=len(targets), dtype=x.dtype)
        gain = 1.0
    else:
        keys = jax.random.split(as_key("key", key), len(targets))
        shape = {"inputs": x.shape[1], "width": width, "depth": depth, "room": room}
        starts, gain = starts_in_a_room(keys, **shape, sigma=sigma, dtype=x.dtype)
    segments = jnp.asarray(np.diff(counts, prepend=0))
    rate, gain, beta = (
        as_scalar(name, t, x.dtype) for name, t in (("rate", rate), ("gain", gain), ("beta", beta))
    )
    return _trained_networks(starts, x, targets, at, segments, rate, gain, beta, sigma=sigma)
