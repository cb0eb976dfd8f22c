"""Dual activations, each against an independent integral.

The independent ones are written in NumPy, one pair of points at a time: smooth dual activations by
Gauss–Hermite or dense quadrature, those with a kink by an integral over the angle cut at the kinks.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import NAMES, NUMPY, SLOPES, activation_of, points
from hypothesis import settings
from scipy.special import erf

from ntk_lib.engine.activations import ACTIVATIONS, as_activation, leaky_relu, monomial, quadrature
from ntk_lib.wide_networks import nngp

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
SIGMOIDS = ["tanh", "gelu", "sigmoid", "silu", "softplus"]


# ---------------------------------------------------------------- dual activations


def numpy_gauss_hermite(f, g, a, b, k, nodes=100):
    """E[f(u)g(v)] for (u, v) ~ N(0, [[a, k], [k, b]]), smooth f and g of moderate variance."""
    z, w = np.polynomial.hermite.hermgauss(nodes)
    z1, z2 = np.meshgrid(np.sqrt(2) * z, np.sqrt(2) * z, indexing="ij")
    u = np.sqrt(a) * z1
    v = k / np.sqrt(a) * z1 + np.sqrt(max(b - k * k / a, 0.0)) * z2
    return np.sum(np.outer(w, w) * f(u) * g(v)) / np.pi


def numpy_grid(f, g, a, b, k, reach=9.0, steps=1201):
    """The same on a dense equispaced grid, which keeps its accuracy at large variance."""
    z = np.linspace(-reach, reach, steps)
    w = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    u = np.sqrt(a) * z[:, None]
    v = k / np.sqrt(a) * z[:, None] + np.sqrt(max(b - k * k / a, 0.0)) * z[None, :]
    return np.sum(np.outer(w, w) * f(u) * g(v))


def numpy_polar(f, g, a, b, k, radial):
    """The same for f, g positively homogeneous: u = r√a cos φ, v = r√b cos(φ − θ).

    Only the angle is left to integrate, and between the kinks the integrand is a trigonometric
    polynomial: ``radial`` is E[r^(degrees of f and g)], 2 for functions and 1 for derivatives.
    """
    theta = np.arccos(np.clip(k / np.sqrt(a * b), -1, 1))
    kinks = np.array([np.pi / 2, 3 * np.pi / 2, theta + np.pi / 2, theta + 3 * np.pi / 2])
    ends = np.unique(np.concatenate([[0, 2 * np.pi], kinks % (2 * np.pi)]))
    z, w = np.polynomial.legendre.leggauss(40)
    total = 0.0
    for low, high in itertools.pairwise(ends):
        phi = low + (high - low) * (z + 1) / 2
        values = f(np.sqrt(a) * np.cos(phi)) * g(np.sqrt(b) * np.cos(phi - theta))
        total += np.sum(w * values) * (high - low) / 2
    return radial * total / (2 * np.pi)


SMOOTH = {
    "erf": (erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-z * z)),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda z: -np.sin(z)),
}
COVARIANCES = [
    (1.0, 1.0, 0.0),
    (1.0, 1.0, 0.5),
    (1.0, 1.0, -0.99),
    (0.3, 2.0, 0.6),
    (2.0, 0.1, -0.4),
    (1.5, 1.5, 1.5),
    (1.5, 0.6, -math.sqrt(0.9)),
    (0.01, 0.02, 0.005),
]
SPREAD = [(30.0, 20.0, 5.0), (30.0, 0.01, -0.5), (20.0, 20.0, 19.9)]


def duals(sigma, a, b, k):
    """Both expectations at one covariance, as Python floats."""
    a, b, k = (jnp.asarray(t, float) for t in (a, b, k))
    return float(sigma.dual(a, b, k)), float(sigma.dual_prime(a, b, k))


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_smooth_duals_are_gauss_hermite_integrals(name, covariance, x64):
    f, slope = SMOOTH[name]
    dual, dual_prime = duals(ACTIVATIONS[name], *covariance)
    assert dual == pytest.approx(numpy_gauss_hermite(f, f, *covariance), abs=1e-9)
    assert dual_prime == pytest.approx(numpy_gauss_hermite(slope, slope, *covariance), abs=1e-9)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("covariance", SPREAD)
def test_smooth_duals_hold_at_large_variance(name, covariance, x64):
    f, slope = SMOOTH[name]
    dual, dual_prime = duals(ACTIVATIONS[name], *covariance)
    assert dual == pytest.approx(numpy_grid(f, f, *covariance), abs=1e-9)
    assert dual_prime == pytest.approx(numpy_grid(slope, slope, *covariance), abs=1e-9)


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("covariance", COVARIANCES + SPREAD)
def test_duals_with_a_kink_are_integrals_over_the_angle(name, covariance, x64):
    p, q = SLOPES[name]
    f, slope = (lambda z: np.where(z > 0, q * z, p * z)), (lambda z: np.where(z > 0, q, p))
    dual, dual_prime = duals(activation_of(name), *covariance)
    assert dual == pytest.approx(numpy_polar(f, f, *covariance, radial=2), rel=1e-9, abs=1e-9)
    # at ρ = −1 the angle is known to the root of the rounding error
    tolerance = 1e-7 if covariance[2] ** 2 > 0.99 * covariance[0] * covariance[1] else 1e-9
    expected = numpy_polar(slope, slope, *covariance, radial=1)
    assert dual_prime == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("name", [*NAMES, "slopes 0.2 1.0"])
def test_the_derivative_dual_is_the_derivative_of_the_dual(name, x64):
    # d/dk E[σ(u)σ(v)] = E[σ'(u)σ'(v)]  (Price's theorem), by automatic differentiation
    sigma = activation_of(name)
    a, b, k = (
        jnp.array(t) for t in ([1.0, 0.3, 5.0, 0.2], [1.0, 2.0, 4.0, 3.0], [0.3, -0.6, 4.0, 0.0])
    )
    slope = jax.grad(lambda t: sigma.dual(a, b, t).sum())(k)
    np.testing.assert_allclose(slope, sigma.dual_prime(a, b, k), rtol=1e-10)


@pytest.mark.parametrize("name", [*NAMES, "slopes 0.2 1.0"])
def test_an_activations_function_is_what_its_name_says(name, dtype):
    z = np.linspace(-3, 3, 13, dtype=dtype)
    p, q = SLOPES.get(name, (0, 0))
    expected = NUMPY[name] if name in NUMPY else (lambda z: np.where(z > 0, q * z, p * z))
    value = activation_of(name).function(jnp.asarray(z))
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected(z), rtol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_duals_broadcast_and_keep_the_dtype(name, dtype):
    sigma = ACTIVATIONS[name]
    a, b, k = jnp.ones((3, 1), dtype), jnp.ones((1, 4), dtype), jnp.zeros((3, 4), dtype)
    for dual in (sigma.dual, sigma.dual_prime):
        assert dual(a, b, k).shape == (3, 4)
        assert dual(a, b, k).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_known_activations_carry_their_name(name):
    assert ACTIVATIONS[name].name == name
    assert as_activation(name) is ACTIVATIONS[name]
    assert (ACTIVATIONS[name].slopes is not None) == (name in ("relu", "leaky_relu"))
    assert list(ACTIVATIONS) == [*NAMES, *SIGMOIDS]


def test_equal_slopes_give_equal_activations_so_that_compiled_code_is_reused(no_hook):
    for one, other in (
        (leaky_relu(0, 1), leaky_relu(0.0, 1.0)),
        (leaky_relu(0.2), leaky_relu(negative=0.2)),
        (leaky_relu(), leaky_relu(0.01, 1.0)),
        (monomial(2), monomial(2)),
    ):
        assert one == other
        assert hash(one) == hash(other)
    assert leaky_relu(0.2) != leaky_relu(0.3)
    assert leaky_relu(0, 1) == ACTIVATIONS["relu"]
    assert leaky_relu(0.2).name == "leaky_relu(0.2, 1)"


def test_on_a_grams_diagonal_the_angle_is_exactly_zero(dtype):
    # ρ = 1 exactly, whatever the rounding of a: an arccos would lose half the digits
    a = jnp.asarray(points(200, 1)[:, 0] ** 2, dtype)
    relu = ACTIVATIONS["relu"]
    np.testing.assert_array_equal(relu.dual_prime(a, a, a), np.full(200, 0.5, dtype))
    np.testing.assert_allclose(relu.dual(a, a, a), a / 2, rtol=2 * np.finfo(dtype).eps)


def test_relus_angle_keeps_its_digits_in_float32_when_rho_is_exact():
    # ρ = 1 − 2^-k has no rounding: then θ = arccos ρ comes out to full float32 accuracy
    rho = 1 - 2.0 ** -np.arange(1, 24)
    one = jnp.ones(23, jnp.float32)
    value = ACTIVATIONS["relu"].dual_prime(one, one, jnp.asarray(rho, jnp.float32))
    theta = np.pi * (1 - 2 * np.asarray(value, float))
    # what is left is the rounding of ½ − θ/2π: one unit of the last place of π
    np.testing.assert_allclose(theta, np.arccos(rho), atol=4 * np.pi * np.finfo("f4").eps)


def test_erf_duals_stay_finite_and_right_at_huge_variance(dtype):
    a = jnp.asarray([1e3, 1e6], dtype)
    dual, slope = ACTIVATIONS["erf"].dual, ACTIVATIONS["erf"].dual_prime
    eps = np.finfo(dtype).eps
    expected = (
        2 / np.pi * np.arctan2(2 * np.array([1e3, 1e6]), np.sqrt(1 + 4 * np.array([1e3, 1e6])))
    )
    np.testing.assert_allclose(dual(a, a, a), expected, rtol=8 * eps)
    expected = 4 / np.pi / np.sqrt(1 + 4 * np.array([1e3, 1e6]))
    np.testing.assert_allclose(slope(a, a, a), expected, rtol=8 * eps)


def test_a_covariance_rounded_above_the_variance_gives_erf_no_nan(dtype):
    # ab − k² is then negative, and far larger than the 1 + 2a + 2b that it stands beside
    eps = np.finfo(dtype).eps
    a = jnp.asarray([10 / eps], dtype)
    for dual in (ACTIVATIONS["erf"].dual, ACTIVATIONS["erf"].dual_prime):
        np.testing.assert_allclose(dual(a, a, a * (1 + 2 * eps)), dual(a, a, a), rtol=8 * eps)


def test_sine_and_cosine_duals_do_not_overflow(dtype):
    a = jnp.asarray([200.0, 200.0], dtype)
    k = jnp.asarray([200.0, -200.0], dtype)
    np.testing.assert_allclose(ACTIVATIONS["sin"].dual(a, a, k), [0.5, -0.5], rtol=1e-6)
    np.testing.assert_allclose(ACTIVATIONS["cos"].dual(a, a, k), [0.5, 0.5], rtol=1e-6)


def test_a_covariance_rounded_above_the_variance_gives_sine_and_cosine_no_overflow(dtype):
    # e^(k − a) of a k that exceeds a by rounding would be e^(2εa)
    a = jnp.asarray([1e4 / np.finfo(dtype).eps], dtype)
    above = a * (1 + 2 * np.finfo(dtype).eps)
    assert float(above[0]) > float(a[0])
    for name, sign in (("sin", -1), ("cos", 1)):
        dual = ACTIVATIONS[name].dual
        np.testing.assert_allclose(dual(a, a, above), 0.5, rtol=1e-6)
        np.testing.assert_allclose(dual(a, a, -above), sign * 0.5, rtol=1e-6)


def test_the_sine_dual_keeps_its_digits_at_small_variance(dtype):
    # e^(−a) sinh k ≈ k: a difference of two exponentials near 1 would lose them
    k = np.array([1e-6, -1e-4, 0.0, 1e-2])
    a = jnp.full(4, 0.01, dtype)
    value = ACTIVATIONS["sin"].dual(a, a, jnp.asarray(k, dtype))
    expected = np.exp(-0.01) * np.sinh(k)
    np.testing.assert_allclose(value, expected, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("name", ["relu", "erf", "sin"])
def test_gradients_of_the_duals_are_finite_on_the_diagonal(name, dtype):
    sigma = ACTIVATIONS[name]
    for dual in (sigma.dual, sigma.dual_prime):
        for t in (1e-3, 1.0, 50.0):
            a = jnp.asarray(t, dtype)
            gradient = jax.grad(lambda *s, dual=dual: dual(*s).sum(), argnums=(0, 1, 2))(a, a, a)
            assert np.all(np.isfinite(gradient))


# ---------------------------------------------------------------- any activation, by quadrature


@pytest.mark.parametrize("name", SMOOTH)
def test_quadrature_agrees_with_the_closed_forms(name, x64):
    closed, numeric = ACTIVATIONS[name], quadrature(ACTIVATIONS[name].function)
    a, b, k = (
        jnp.asarray(t) for t in np.array([(1.0, 1.0, 0.5), (0.3, 1.0, -0.5), (0.6, 0.6, 0.6)]).T
    )
    np.testing.assert_allclose(numeric.dual(a, b, k), closed.dual(a, b, k), atol=1e-8)
    np.testing.assert_allclose(numeric.dual_prime(a, b, k), closed.dual_prime(a, b, k), atol=1e-8)


def test_quadrature_is_exact_for_polynomials(x64):
    a, b, k = jnp.array([2.0, 0.5]), jnp.array([3.0, 0.5]), jnp.array([-1.0, 0.5])
    square = quadrature(lambda z: z**2 - z)
    np.testing.assert_allclose(square.dual(a, b, k), a * b + 2 * k**2 + k, rtol=1e-12)
    np.testing.assert_allclose(square.dual_prime(a, b, k), 4 * k + 1, rtol=1e-12)


def test_quadrature_of_cubes_is_isserlis_theorem(x64):
    a, b, k = jnp.array([2.0]), jnp.array([3.0]), jnp.array([-1.0])
    cube = quadrature(lambda z: z**3)
    np.testing.assert_allclose(cube.dual(a, b, k), 9 * a * b * k + 6 * k**3, rtol=1e-12)


def test_quadrature_handles_a_point_without_variance(x64):
    zero, one = jnp.zeros(1), jnp.ones(1)
    numeric = quadrature(jnp.cos)
    np.testing.assert_allclose(numeric.dual(zero, zero, zero), 1.0, rtol=1e-12)
    np.testing.assert_allclose(numeric.dual(zero, one, zero), math.exp(-0.5), rtol=1e-12)
    np.testing.assert_allclose(numeric.dual(one, zero, zero), math.exp(-0.5), rtol=1e-12)


def test_quadrature_is_symmetric_in_its_two_points(x64):
    numeric = quadrature(jnp.tanh)
    a, b, k = jnp.array([1.0, 20.0]), jnp.array([2.0, 0.01]), jnp.array([0.7, -0.3])
    np.testing.assert_allclose(numeric.dual(a, b, k), numeric.dual(b, a, k), rtol=1e-12)
    np.testing.assert_allclose(numeric.dual_prime(a, b, k), numeric.dual_prime(b, a, k), rtol=1e-12)


def test_quadrature_broadcasts_and_keeps_the_dtype(dtype):
    numeric = quadrature(jnp.tanh)
    a, b, k = jnp.ones((3, 1), dtype), jnp.ones((1, 4), dtype), jnp.zeros((3, 4), dtype)
    value = numeric.dual(a, b, k)
    assert value.shape == (3, 4)
    assert value.dtype == dtype


def test_quadrature_is_named_after_its_function():
    assert quadrature(jnp.sin).name == "quadrature(sin)"
    assert quadrature(jnp.tanh).name == "quadrature(tanh)"


# ---------------------------------------------------------------- monomials


@pytest.mark.parametrize("degree", [1, 2, 3, 4, 7])
def test_monomial_duals_are_gauss_hermite_integrals(degree, x64):
    sigma, (a, b, k) = monomial(degree), (1.3, 0.6, -0.5)
    arguments = tuple(jnp.asarray(t) for t in (a, b, k))
    power, slope = (lambda z: z**degree), (lambda z: degree * z ** (degree - 1))
    assert float(sigma.dual(*arguments)) == pytest.approx(
        numpy_gauss_hermite(power, power, a, b, k), rel=1e-9
    )
    assert float(sigma.dual_prime(*arguments)) == pytest.approx(
        numpy_gauss_hermite(slope, slope, a, b, k), rel=1e-9
    )


def test_monomials_of_low_degree_are_isserlis_by_hand(x64):
    a, b, k = (jnp.asarray(t) for t in (1.3, 0.6, -0.5))
    np.testing.assert_allclose(monomial(1).dual(a, b, k), k, rtol=1e-14)
    np.testing.assert_allclose(monomial(2).dual(a, b, k), a * b + 2 * k**2, rtol=1e-14)
    np.testing.assert_allclose(monomial(3).dual(a, b, k), 9 * a * b * k + 6 * k**3, rtol=1e-14)


def test_monomial_duals_broadcast_and_keep_the_dtype(dtype):
    a, b, k = (jnp.ones(s, dtype) / 2 for s in ((3, 1), (1, 4), (3, 4)))
    for degree in (1, 2, 3):
        for dual in (monomial(degree).dual, monomial(degree).dual_prime):
            assert dual(a, b, k).shape == (3, 4)
            assert dual(a, b, k).dtype == dtype


def test_the_linear_network_has_a_constant_nngp(x64):
    x = points(4, 3)
    expected = x @ x.T / 3
    np.testing.assert_allclose(
        nngp(x, depth=5, activation=monomial(1), beta=0.0), expected, rtol=1e-12
    )


def test_a_monomial_carries_its_degree(no_hook):
    assert monomial(3).name == "monomial(3)"
