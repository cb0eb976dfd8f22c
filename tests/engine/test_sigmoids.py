"""Dual activations of the sigmoid family, against dense integrals in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit

from ntk_lib.engine.activations import ACTIVATIONS
from ntk_lib.engine.sigmoids import DUALS, mixture_of_errors


def normal(z):
    return np.exp(-z * z / 2) / np.sqrt(2 * np.pi)


FUNCTIONS = {  # σ and σ'
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "sigmoid": (expit, lambda z: expit(z) * expit(-z)),
    "softplus": (lambda z: np.logaddexp(0, z), expit),
    "silu": (lambda z: z * expit(z), lambda z: expit(z) * (1 + z * expit(-z))),
    "gelu": (
        lambda z: z * (1 + erf(z / np.sqrt(2))) / 2,
        lambda z: (1 + erf(z / np.sqrt(2))) / 2 + z * normal(z),
    ),
}
COVARIANCES = [  # a, b, ρ: from 1e-4 to 100 and beyond
    (1e-4, 1e-4, 0.3),
    (1e-4, 100.0, -0.7),
    (1.0, 1.0, 0.5),
    (1.0, 1.0, 1.0),
    (4.0, 0.3, -0.9),
    (100.0, 100.0, 0.999),
    (100.0, 100.0, 1.0),
    (100.0, 3.0, 0.0),
    (100.0, 100.0, -1.0),
    (400.0, 50.0, 0.8),
]
every_name = pytest.mark.parametrize("name", FUNCTIONS)


@functools.cache
def integral(f, g, a, b, rho, places=900, reach=9.0):
    """E f(u) g(v) by the trapezoidal rule along u + v and u - v."""
    z, step = np.linspace(-reach, reach, places, retstep=True)
    p, q = np.sqrt((1 + rho) / 2), np.sqrt((1 - rho) / 2)
    u, v = (np.sqrt(t) * (p * z[:, None] + s * q * z) for t, s in ((a, 1), (b, -1)))
    return np.einsum("i,j,ij", normal(z) * step, normal(z) * step, f(u) * g(v))


@pytest.mark.parametrize(("terms", "value", "slope"), [(10, 2e-8, 8e-8), (16, 2e-11, 1e-10)])
def test_the_mixture_is_tanh_and_its_derivative_to_what_is_said(terms, value, slope):
    c, w = mixture_of_errors(terms)
    z = np.linspace(-12, 12, 4001)[:, None]
    assert np.abs(erf(c * z) @ w - np.tanh(z[:, 0])).max() < value
    bells = 2 / np.sqrt(np.pi) * c * np.exp(-((c * z) ** 2))
    assert np.abs(bells @ w - 1 / np.cosh(z[:, 0]) ** 2).max() < slope
    assert np.all(w > 0)
    assert w.sum() == pytest.approx(1, abs=1e-14)


@every_name
def test_the_duals_are_integrals_at_every_variance(name, dtype):
    tolerance = 1e-6 if dtype == "float32" else 1e-11
    a, b, rho = np.array(COVARIANCES).T
    moments = [jnp.asarray(t, dtype) for t in (a, b, rho * np.sqrt(a * b))]
    for dual, f in zip(DUALS[name], FUNCTIONS[name], strict=True):
        for found, (a, b, rho) in zip(dual(*moments), COVARIANCES, strict=True):
            size = np.sqrt(integral(f, f, a, a, 1.0) * integral(f, f, b, b, 1.0))
            assert abs(found - integral(f, f, a, b, rho)) < tolerance * size, (a, b, rho)


@every_name
def test_the_derivative_dual_is_the_derivative_of_the_dual_by_price(name, x64):
    dual, dual_prime = DUALS[name]
    a, b, k = (jnp.array(t) for t in ([1.0, 0.3, 90.0], [1.0, 2.0, 40.0], [0.3, -0.6, 44.0]))
    slope = jax.grad(lambda t: dual(a, b, t).sum())(k)
    np.testing.assert_allclose(slope, dual_prime(a, b, k), rtol=1e-8)


@every_name
def test_gradients_are_finite_where_two_points_are_one_and_at_zero(name, dtype):
    for dual in DUALS[name]:
        a = jnp.asarray([0.0, 1e-3, 50.0], dtype)
        assert np.all(np.isfinite(jax.vmap(jax.grad(dual, argnums=(0, 1, 2)))(a, a, a)))


@every_name
def test_the_function_is_what_the_name_says(name, dtype):
    z = np.linspace(-30, 30, 61, dtype=dtype)
    f, slope = FUNCTIONS[name]
    function = ACTIVATIONS[name].function
    rounding = {"rtol": 2e-5 if dtype == "float32" else 1e-12, "atol": 1e-6 * (dtype == "float32")}
    np.testing.assert_allclose(function(jnp.asarray(z)), f(z), **rounding)
    slopes = jax.vmap(jax.grad(function))(jnp.asarray(z))
    np.testing.assert_allclose(slopes, slope(z), rtol=rounding["rtol"], atol=1e-6)


@every_name
def test_duals_broadcast_and_keep_the_dtype(name, dtype):
    a, b, k = jnp.ones((3, 1), dtype), jnp.ones((1, 4), dtype), jnp.zeros((3, 4), dtype)
    for dual in DUALS[name]:
        assert dual(a, b, k).shape == (3, 4)
        assert dual(a, b, k).dtype == dtype
