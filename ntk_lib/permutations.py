"""Can ten examples teach a network a thousand answers? Permutations of bits, learnt exactly.

Serves the chapter ``permutations``. The k basis vectors are the training inputs, words of k bits
with s ones, divided by √s, are the inputs asked for. A two-layer ReLU network without biases whose
first layer learns τ times as fast as its last has in the limit of infinite width the kernel

    K(ρ) = b (√(1 - ρ²) + (1 + τ) ρ (π - arccos ρ)),        b = 1/(2πk),

of unit vectors with cosine ρ: the NTK for τ = 1, the NNGP kernel for τ = 0, and for τ = k/n what
gradient descent at one rate sees in the standard parametrisation at width n. The Gram matrix of the
examples is D I + b 11ᵀ, which the formula of Sherman and Morrison inverts. So mean and variance of
every bit are known in closed form, and with them how many networks have to be averaged until the
sign of each bit is right. The question is that of Giapitzakis, Back de Luca and Fountoulakis 2025;
the formulas for general τ are the chapter's.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.special import gammaln, log_ndtr, logsumexp

from ntk_lib.early_stopping import random_networks
from ntk_lib.engine.arguments import as_array, as_inputs, as_nonnegative, as_number, as_whole

__all__ = [
    "BitStatistics",
    "binary_words",
    "bit_statistics",
    "chance_all_right",
    "networks_for_all_words",
    "networks_needed",
    "trained_on_basis",
    "word_kernel",
]

MOST_BITS = 16  # the words of 16 bits take 8 MB
MOST_NETWORKS = 10**15  # beyond, a sum of chances is lost in rounding
MOST_TAU = 1e15  # beyond, the zeros' mean drowns in rounding and products overflow

# ---------------------------------------------------------------- words and their kernel


def binary_words(k: int, ones: int | None = None) -> Float[np.ndarray, "words k"]:
    """The nonzero words of ``k`` bits as unit vectors, those with ``ones`` ones or all of them.

    Each row is a word divided by the root of its number of ones. Words with few ones come first, so
    that the first k of all are the basis vectors.

    Raises ``TypeError`` or ``ValueError`` for a k that is no integer from 1 to 16 (to 10 000 where
    ``ones`` is given), ones that are none from 1 to k, and more than 65 536 words.
    """
    k = as_whole("k", k, least=1, most=MOST_BITS if ones is None else 10**4)
    if ones is None:
        return np.concatenate([binary_words(k, s) for s in range(1, k + 1)])
    ones = as_whole("ones", ones, least=1, most=k)
    if (words := math.comb(k, ones)) > 2**MOST_BITS:
        raise ValueError(f"ones needs at most {2**MOST_BITS} words of {k} bits, got {words:.3g}")
    places = np.array(list(itertools.combinations(range(k), ones)))
    table = np.zeros((len(places), k))
    np.put_along_axis(table, places, 1 / math.sqrt(ones), axis=1)
    return table


def word_kernel(
    rho: Float[ArrayLike, "*n"], k: int, *, tau: float = 1.0
) -> Float[np.ndarray, "*n"]:
    """K(ρ) of two unit vectors in k dimensions whose cosine is ``rho``, entry by entry, in float64.

    ``tau`` is the rate of the first layer over that of the last: 1 gives the NTK, 0 the NNGP
    kernel. Cosines beyond ±1 by up to 1e-5 are taken for rounding errors of ±1.

    Raises ``TypeError`` or ``ValueError`` for what is no array of cosines, a k below 1 and a tau
    below 0. Source: Cho and Saul 2009 for the two expectations.
    """
    k, tau = as_whole("k", k, least=1), as_nonnegative("tau", tau)
    rho = np.asarray(as_array("rho", rho), np.float64)
    if np.any(np.abs(rho) > 1 + 1e-5):
        raise ValueError(
            f"rho needs cosines from -1 to 1, got {rho.flat[np.argmax(np.abs(rho))]:.4g}: "
            "divide each word by its length"
        )
    rho = np.clip(rho, -1, 1)
    turned = math.pi - np.arccos(rho)
    return np.asarray((np.sqrt(1 - rho**2) + (1 + tau) * rho * turned) / (2 * math.pi * k))


# ---------------------------------------------------------------- one bit, in closed form


class BitStatistics(NamedTuple):
    """Mean of the bits that should be 0 and 1, and the variance of each, over trained networks."""

    zero: float
    one: float
    variance: float

    @property
    def margins(self) -> tuple[float, float]:
        """How many standard deviations the two means lie on their right side of 0."""
        sd = math.sqrt(self.variance)
        if not sd:
            return (0.0, math.inf)  # an example: fitted, no scatter, and its zeros at 0
        return (-self.zero / sd, self.one / sd)


def _excess(ones: int, tau: float) -> float:
    """(K(1/√s) - b)/b: what a shared one adds to the kernel, in units of b = K(0)."""
    rho = 1 / math.sqrt(ones)
    return math.sqrt(1 - rho**2) + (1 + tau) * rho * (math.pi - math.acos(rho)) - 1


def _checked(k: object, ones: object, tau: object) -> tuple[int, int, float]:
    k = as_whole("k", k, least=2)
    tau = float(as_nonnegative("tau", tau))
    if tau > MOST_TAU:
        raise ValueError(f"tau needs to be at most {MOST_TAU:.0e}, got {tau}")
    return k, as_whole("ones", ones, least=1, most=k), tau


def bit_statistics(k: int, ones: int, *, tau: float = 1.0) -> BitStatistics:
    """Mean and variance of an output bit after training on the k basis vectors, at infinite width.

    ``ones`` is the number s of ones of the word asked for. ``zero`` is the mean of a bit that
    should be 0 (for s = k there is none, and the number is what the formula gives), ``one`` that of
    a bit that should be 1, ``variance`` that of either, over random starts. The bits of one word
    are independent of each other.

    Raises ``TypeError`` or ``ValueError`` for a k below 2, ones not from 1 to k, a tau below 0.
    """
    k, s, tau = _checked(k, ones, tau)
    q, h, h0 = (1 + tau) * math.pi - 1, _excess(s, tau), _excess(s, 0.0)
    zero = (q - s * h) / (q * (q + k)) if s > 1 else 0.0
    one = h / q + zero if s > 1 else 1.0
    total, squares = s * one + (k - s) * zero, s * one**2 + (k - s) * zero**2
    rest = math.pi - 2 * (total + h0 * s * one) + (math.pi - 1) * squares + total**2
    return BitStatistics(zero, one, max(rest, 0.0) / (2 * math.pi * k) if s > 1 else 0.0)


# ---------------------------------------------------------------- how many networks


def _log_failures(
    k: int, s: int, tau: float, threshold: float
) -> Callable[[int], tuple[float, float]]:
    """A function of m: log-probabilities that the average of a 0 and of a 1 is on the wrong side.

    Raises ``ValueError`` where the threshold does not lie between the two means.
    """
    bit = bit_statistics(k, s, tau=tau)
    low = -math.inf if s == k else bit.zero
    if not low < threshold < bit.one:
        raise ValueError(
            f"threshold needs a number between the means of the two kinds of bits, "
            f"{bit.zero:.4g} and {bit.one:.4g} for words with {s} ones, got {threshold}"
        )
    sd = math.sqrt(bit.variance)
    margins = math.inf if s == k else (threshold - bit.zero) / sd, (bit.one - threshold) / sd
    return lambda m: tuple(float(log_ndtr(-math.sqrt(m) * margin)) for margin in margins)


def chance_all_right(
    k: int, ones: int, networks: int, *, tau: float = 1.0, threshold: float = 0.0
) -> float:
    """The chance that the average of ``networks`` infinitely wide networks gets a word right.

    A bit is read as 1 where the average lies above ``threshold``. The word has ``ones`` ones, from
    2 to k, and is right when all its k bits are. They are independent, so the chance is a product
    of k values of the Gaussian distribution function.

    Raises ``TypeError`` or ``ValueError`` for numbers out of range, and a threshold that does not
    lie between the means of the two kinds of bits.
    """
    k, s, tau = _checked(k, as_whole("ones", ones, least=2), tau)
    m = as_whole("networks", networks, least=1)
    zero, one = _log_failures(k, s, tau, as_number("threshold", threshold))(m)
    return math.exp((k - s) * math.log1p(-math.exp(zero)) + s * math.log1p(-math.exp(one)))


def _first(enough: Callable[[int], bool]) -> int:
    """The smallest whole number from 1 for which ``enough``, false below some number, is true."""
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_NETWORKS:
            raise ValueError(
                f"tau needs a smaller number: it takes more than {MOST_NETWORKS:.0e} networks"
            )
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _as_miss(miss: object) -> float:
    miss = as_number("miss", miss)
    if not 0 < miss < 1:
        raise ValueError(f"miss needs a probability above 0 and below 1, got {miss}")
    return miss


def networks_needed(
    k: int,
    *,
    ones: int = 2,
    tau: float = 1.0,
    miss: float = 0.1,
    threshold: float = 0.0,
    union: bool = False,
) -> int:
    """How many networks to average until one word is right with probability 1 - ``miss``.

    The smallest m for which ``chance_all_right`` reaches 1 - ``miss``, exactly; with ``union`` the
    smallest for which the sum of the bits' chances of being wrong is at most ``miss``, which is
    never smaller.

    Raises ``TypeError`` or ``ValueError`` for numbers out of range, and a threshold that does not
    lie between the means of the two kinds of bits.
    """
    k, s, tau = _checked(k, as_whole("ones", ones, least=2), tau)
    miss = _as_miss(miss)
    failures = _log_failures(k, s, tau, as_number("threshold", threshold))

    def enough(m: int) -> bool:
        zero, one = (math.exp(p) for p in failures(m))
        if union:
            return (k - s) * zero + s * one <= miss
        return (k - s) * math.log1p(-zero) + s * math.log1p(-one) >= math.log1p(-miss)

    return _first(enough)


def networks_for_all_words(
    k: int, *, tau: float = 1.0, miss: float = 0.1, grouped: bool = True
) -> int:
    """A number of networks that gets all words of k bits right at once, chance 1 - ``miss``.

    An upper bound: the chances of being wrong of all bits of all words are added, words with the
    same number of ones together. With ``grouped=False`` each of the k·2^k bits is given the chance
    of the worst of them, the cruder bound which grows as k². The k examples themselves are left
    out: training has fitted them.

    Raises ``TypeError`` or ``ValueError`` for numbers out of range.
    """
    k, _, tau = _checked(k, 1, tau)
    miss = _as_miss(miss)
    counts = np.arange(2, k + 1)
    margins = np.array([bit_statistics(k, int(s), tau=tau).margins for s in counts])  # (words, 2)
    ways = gammaln(k + 1) - gammaln(counts + 1) - gammaln(k - counts + 1)
    bits = np.stack([k - counts, counts], axis=1)  # the word of all ones has no zeros
    real, log_bits = bits > 0, np.log(np.maximum(bits, 1))

    def enough(m: int) -> bool:
        failures = log_ndtr(-math.sqrt(m) * margins)
        if grouped:
            return float(logsumexp((ways[:, None] + log_bits + failures)[real])) <= math.log(miss)
        worst = float(failures[real].max())
        return math.log(k) + k * math.log(2) + worst <= math.log(miss)

    return _first(enough)


# ---------------------------------------------------------------- real networks


@functools.partial(jax.jit, static_argnames="batch")
def _trained(W, A, labels, at, width, tau, rate, steps, *, batch: int) -> Array:
    k, live = len(labels), jnp.arange(W.shape[1]) < width.astype(int)

    def one(start: tuple[Array, Array]) -> Array:
        # neurons beyond the width have weights 0 and keep them
        W = jnp.where(live[:, None], start[0], 0) / math.sqrt(k)
        A = jnp.where(live[None, :], start[1], 0) / jnp.sqrt(width)

        def step(_: Array, params: tuple[Array, Array]) -> tuple[Array, Array]:
            W, A = params
            H = jax.nn.relu(W)  # column i: the hidden layer at basis vector i
            d = (A @ H - labels.T) / k
            down = jnp.where(W > 0, A.T @ d, 0)
            return W - rate * tau / k * down, A - rate / width * (d @ H.T)

        W, A = jax.lax.fori_loop(0, steps, step, (W, A))
        return jax.nn.relu(at @ W.T) @ A.T

    return jax.lax.map(one, (W, A), batch_size=batch)


def trained_on_basis(
    labels: Float[ArrayLike, "k outputs"],
    at: Float[ArrayLike, "p k"],
    *,
    key: PRNGKeyArray,
    networks: int,
    width: int,
    tau: float = 1.0,
    steps: int = 100,
    room: int | None = None,
) -> Float[Array, "networks p outputs"]:
    """Outputs at the points ``at`` of many networks that were trained on the k basis vectors.

    f(x) = A σ(W x/√k)/√n with ReLU σ, no biases and all weights N(0, 1) at the start. Row i of
    ``labels`` is what is asked for at basis vector i. Gradient descent on C = (1/2k) Σ ‖f - y‖²
    takes ``steps`` steps, of rate η = 1/λ for the last layer and τη for the first, λ being the
    largest eigenvalue of the limit's Gram matrix over k. With ``tau`` = k/width this is descent at
    one rate in the standard parametrisation. Training computes in float32 unless ``at`` is float64.

    One program serves all widths up to ``room`` (default: the width). Networks of the same key and
    room share their weights: the narrower are the first neurons of the wider, which makes
    comparisons of widths, and of ``tau``, paired.

    Raises ``TypeError`` or ``ValueError`` for labels that are no table with as many rows as ``at``
    has columns, numbers out of range and a room below the width.
    """
    at, _ = as_inputs(at, names=("at", "y"))
    labels = as_array("labels", labels, dtype=at.dtype)
    k = at.shape[1]
    if labels.ndim != 2 or len(labels) != k or not labels.size:
        raise ValueError(f"labels needs shape ({k}, outputs), a row an example, got {labels.shape}")
    width, networks = as_whole("width", width, least=1), as_whole("networks", networks, least=1)
    room = width if room is None else as_whole("room", room, least=1)
    as_whole("width", width, least=1, most=room)
    tau, steps = float(as_nonnegative("tau", tau)), as_whole("steps", steps, least=0)
    starts = random_networks((k, room, labels.shape[1]), key=key, draws=networks, dtype=at.dtype)
    b = 1 / (2 * math.pi * k)
    rate = k / (((1 + tau) * math.pi - 1) * b + k * b)
    numbers = (jnp.asarray(t, at.dtype) for t in (width, tau, rate))
    batch = math.gcd(networks, 16)
    return _trained(starts[0].W, starts[1].W, labels, at, *numbers, steps, batch=batch)
