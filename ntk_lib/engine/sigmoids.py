"""Dual activations of the sigmoid family: tanh, sigmoid, softplus, SiLU and GELU.

Serves ``activations``. The duals of erf are known in closed form, and the logistic function is a
mixture of error functions: 2K·N has the logistic law where N is a standard Gaussian and K has the
law of Kolmogorov and Smirnov (Andrews and Mallows 1974). So

    tanh(z) = E_K erf(z/(√2 K)) ≈ Σ_j w_j erf(c_j z),

a Gauss rule for the law of log K: 10 terms are within 2e-8 of tanh and 8e-8 of its derivative, 16
within 2e-11 and 1e-10, everywhere. Sigmoid is tanh stretched, softplus its integral and SiLU
z times it, GELU z times one error function, so each dual is a sum over pairs of terms (j, j') of
one of three expectations, written with

    A = 2c²a, B = 2c'²b, q = 2cc'k, R² = (1+A)(1+B) - q², φ = arcsin(q/√((1+A)(1+B))):

    erf(cz)                       (2/π) φ
    z erf(cz)                     (qφ + (AB + q²(1/(1+A) + 1/(1+B) - 1))/R)/(πcc')
    ∫ erf(cz) + 1/(√π c)          (R + qφ)/(πcc')

The first is Williams (1996); the third is its integral in k (Price's theorem), and the second the
derivative of cc' times the third in c and c'. The derivatives of an activation have expectations
that are derivatives of these in k.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ntk_lib.engine.angles import angle, geometric_mean

__all__ = ["DUALS", "mixture_of_errors"]

Pair = Callable[["Terms"], Array]
"""One of the expectations, of a pair of terms."""


# ---------------------------------------------------------------- tanh as a mixture


def _kolmogorov(k: np.ndarray) -> np.ndarray:
    """The density of the law of Kolmogorov and Smirnov, by whichever series converges at k."""
    n = np.arange(1, 40)[:, None]
    large = 8 * k * np.sum((-1.0) ** (n + 1) * n**2 * np.exp(-2 * n**2 * k**2), axis=0)
    u = ((2 * n - 1) * np.pi / k) ** 2 / 8
    small = np.sqrt(2 * np.pi) / k**2 * np.sum((2 * u - 1) * np.exp(-u), axis=0)
    return np.where(k > 0.8, large, small)


@functools.cache
def mixture_of_errors(terms: int) -> tuple[np.ndarray, np.ndarray]:
    """(c, w) with tanh(z) ≈ Σ_j w_j erf(c_j z): ``terms`` numbers each, w positive of sum 1.

    The Gauss rule of log K, by the Lanczos recurrence on a fine grid (Golub and Welsch 1969).
    """
    k = np.linspace(0.12, 4.5, 6000)
    weights, t = _kolmogorov(k), np.log(k)
    vectors, along, across = [np.sqrt(weights / weights.sum())], [], []
    for _ in range(terms):
        v = t * vectors[-1]
        along.append(v @ vectors[-1])
        for _ in range(2):  # twice: to rounding
            for other in vectors:
                v = v - (v @ other) * other
        across.append(np.linalg.norm(v))
        vectors.append(v / across[-1])
    jacobi = np.diag(along) + np.diag(across[:-1], 1) + np.diag(across[:-1], -1)
    places, modes = np.linalg.eigh(jacobi)
    return np.exp(-places) / np.sqrt(2), modes[0] ** 2


# ---------------------------------------------------------------- three expectations


class Terms:
    """A pair of terms at (a, b, k): c, c' and the quantities named above."""

    def __init__(self, c: Array, d: Array, a: Array, b: Array, k: Array):
        self.c, self.d, self.q = c, d, 2 * c * d * k
        self.A, self.B = 2 * c**2 * a, 2 * d**2 * b
        root = geometric_mean(a, b)
        # ab - k², a difference of large numbers where the points nearly coincide
        determinant = jnp.maximum((root - k) * (root + k), 0.0)
        self.AB_less_qq = 4 * (c * d) ** 2 * determinant
        self.R = jnp.sqrt(1 + self.A + self.B + self.AB_less_qq)
        sign = jnp.where(self.q >= 0, 1.0, -1.0).astype(self.q.dtype)
        size = geometric_mean(1 + self.A, 1 + self.B)
        self.phi = sign * angle(sign * self.q / size, self.R / size)
        self.both = 1 / (1 + self.A) + 1 / (1 + self.B)


# with the factor that does not depend on the pair taken out: 2/π
def _erf(t: Terms) -> Array:
    return t.phi


def _erf_slope(t: Terms) -> Array:
    return 2 * t.c * t.d / t.R


def _z_erf(t: Terms) -> Array:
    return (t.q * t.phi + (t.AB_less_qq + t.q**2 * t.both) / t.R) / (2 * t.c * t.d)


def _z_erf_slope(t: Terms) -> Array:
    inner = (t.AB_less_qq + t.q**2 * t.both) / t.R**2
    return t.phi + t.q / t.R * (1 + 2 * (t.both - 1) + inner)


def _integral(t: Terms) -> Array:
    return (t.R + t.q * t.phi) / (2 * t.c * t.d)


# ---------------------------------------------------------------- duals


def _sum_of_pairs(pair: Pair, a: Array, b: Array, k: Array, *, stretch: float) -> Array:
    """Σ w w' E over the pairs of terms of tanh(stretch·z)."""
    c, w = mixture_of_errors(10 if k.dtype.itemsize <= 4 else 16)
    c = stretch * c
    pairs = [np.repeat(c, len(c)), np.tile(c, len(c)), np.outer(w, w).ravel() * 2 / np.pi]
    shape = jnp.broadcast_shapes(a.shape, b.shape, k.shape)

    def add(total: Array, term: tuple[Array, Array, Array]) -> tuple[Array, None]:
        c, d, weight = term
        return total + weight * pair(Terms(c, d, a, b, k)), None

    numbers = tuple(jnp.asarray(t, k.dtype) for t in pairs)
    return jax.lax.scan(add, jnp.zeros(shape, k.dtype), numbers)[0]


def _one_pair(pair: Pair, a: Array, b: Array, k: Array) -> Array:
    c = jnp.asarray(np.sqrt(0.5), k.dtype)
    return 2 / np.pi * pair(Terms(c, c, a, b, k))


_half = functools.partial(_sum_of_pairs, stretch=0.5)


def _tanh(a: Array, b: Array, k: Array) -> Array:
    return _sum_of_pairs(_erf, a, b, k, stretch=1.0)


def _tanh_prime(a: Array, b: Array, k: Array) -> Array:
    return _sum_of_pairs(_erf_slope, a, b, k, stretch=1.0)


def _sigmoid(a: Array, b: Array, k: Array) -> Array:  # 1/2 + tanh(z/2)/2
    return (1 + _half(_erf, a, b, k)) / 4


def _sigmoid_prime(a: Array, b: Array, k: Array) -> Array:
    return _half(_erf_slope, a, b, k) / 4


def _softplus(a: Array, b: Array, k: Array) -> Array:  # z/2 + log(2 cosh(z/2)), the integral
    return (k + _half(_integral, a, b, k)) / 4


def _silu(a: Array, b: Array, k: Array) -> Array:  # z/2 + z tanh(z/2)/2
    return (k + _half(_z_erf, a, b, k)) / 4


def _silu_prime(a: Array, b: Array, k: Array) -> Array:
    return (1 + _half(_z_erf_slope, a, b, k)) / 4


def _gelu(a: Array, b: Array, k: Array) -> Array:  # z/2 + z erf(z/√2)/2
    return (k + _one_pair(_z_erf, a, b, k)) / 4


def _gelu_prime(a: Array, b: Array, k: Array) -> Array:
    return (1 + _one_pair(_z_erf_slope, a, b, k)) / 4


DUALS = {
    "tanh": (_tanh, _tanh_prime),
    "sigmoid": (_sigmoid, _sigmoid_prime),
    "softplus": (_softplus, _sigmoid),
    "silu": (_silu, _silu_prime),
    "gelu": (_gelu, _gelu_prime),
}
"""E[σ(u)σ(v)] and E[σ'(u)σ'(v)] as functions of (a, b, k), by name; softplus' is sigmoid."""
