"""Angles, roots and arc-cosine functions: right to rounding, with finite derivatives."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RNG_SEED

from ntk_lib.engine.angles import angle, arc_cosine_of, geometric_mean, safe_sqrt

# ---------------------------------------------------------------- the angle and the mean


def test_the_angle_is_right_to_rounding_on_the_whole_half_circle(dtype):
    small = 10.0 ** -np.linspace(0.1, 12, 300)
    theta = np.concatenate([[0.0], small, np.linspace(0.01, np.pi, 2001), np.pi - small])
    sin, cos = jnp.asarray(np.abs(np.sin(theta)), dtype), jnp.asarray(np.cos(theta), dtype)
    found = np.asarray(jax.jit(angle)(sin, cos), float)
    exact = np.arctan2(np.asarray(sin, float), np.asarray(cos, float))
    # the smaller of sin and cos is known to ε/2, the angle from it to √2 of that; two roundings
    np.testing.assert_allclose(found, exact, rtol=2 * np.finfo(dtype).eps)


def test_the_derivative_of_the_angle_is_that_of_arctan2(x64):
    theta = jnp.linspace(0.0, math.pi, 41)
    at, moved = (jnp.sin(theta), jnp.cos(theta)), (0.3 + theta, 1.0 - theta**2)
    value, slope = jax.jvp(angle, at, moved)
    expected, expected_slope = jax.jvp(jnp.arctan2, at, moved)
    # slopes of at most 10, known to a few roundings
    np.testing.assert_allclose(value, expected, rtol=1e-15, atol=1e-15)
    np.testing.assert_allclose(slope, expected_slope, rtol=0, atol=1e-14)


def test_the_geometric_mean_and_its_derivatives(dtype):
    a = jnp.asarray([1.0, 4.0, 9.0, 2.0, 1e30, 0.0, 0.0], dtype)
    b = jnp.asarray([1.0, 9.0, 4.0, 2.0, 1e-8, 3.0, 0.0], dtype)
    # √(ab) to rounding, without ab, whose range would be left at 1e30 · 1e30 in float32
    rounding = {"rtol": 4 * np.finfo(dtype).eps}
    expected = np.sqrt(np.asarray(a, float) * np.asarray(b, float))
    np.testing.assert_allclose(geometric_mean(a, b), expected, **rounding)
    np.testing.assert_array_equal(geometric_mean(b, a), geometric_mean(a, b))
    large = jnp.asarray(10.0 ** np.linspace(-30, 30, 101), dtype)
    np.testing.assert_array_equal(geometric_mean(large, large), large)
    # ½√(b/a) and ½√(a/b) where both are positive, where they are equal too; finite elsewhere
    slopes = jax.grad(lambda t, u: geometric_mean(t, u).sum(), argnums=(0, 1))(a, b)
    ratio = np.sqrt(np.asarray(b[:5], float) / np.asarray(a[:5], float))
    np.testing.assert_allclose(slopes[0][:5], ratio / 2, **rounding)
    np.testing.assert_allclose(slopes[1][:5], 1 / ratio / 2, **rounding)
    assert np.all(np.isfinite(slopes))


# ---------------------------------------------------------------- arc_cosine_of near θ = 0

# compiled: one program, not one for each operation
compiled = jax.jit(arc_cosine_of, static_argnames="order")


@pytest.mark.parametrize("order", [0, 1])
def test_arc_cosine_of_equal_moments_is_exact_to_rounding(order, dtype):
    a = jnp.asarray(10.0 ** np.linspace(-12, 12, 400), dtype)
    exact = jnp.ones_like(a) if order == 0 else a
    eps = np.finfo(dtype).eps
    values = compiled(a, a, a, order=order)
    np.testing.assert_allclose(values, exact, rtol=order * 2 * eps)
    opposite = compiled(a, a, -a, order=order)
    np.testing.assert_allclose(opposite / exact, 0, atol=eps)


def test_arc_cosine_of_in_float32_is_as_accurate_near_zero_angle_as_its_input_allows():
    # the moments are rounded first: what is measured is the function, not its input
    rng = np.random.default_rng(RNG_SEED)
    theta = np.tile(10.0 ** np.linspace(-6, -0.01, 300), 4)
    a, b = 10.0 ** rng.uniform(-3, 3, (2, theta.size))
    a, b = a.astype("float32"), b.astype("float32")
    k = (np.cos(theta) * np.sqrt(a.astype(float) * b)).astype("float32")
    eps = np.finfo("float32").eps
    rho = np.minimum(k / np.sqrt(a.astype(float) * b), 1)
    angle = np.arccos(rho)
    # ρ is known to a few eps, so θ to a few eps/θ, and never worse than √(few eps)
    error = 4 * eps / np.maximum(angle, math.sqrt(4 * eps)) + 2 * eps
    kappa_0 = np.asarray(compiled(a, b, k, order=0), float)
    assert np.all(np.abs(kappa_0 - (math.pi - angle) / math.pi) <= error)
    # κ₁ is flat at θ = 0: all digits survive
    kappa_1 = np.asarray(compiled(a, b, k, order=1), float)
    expected = np.sin(angle) + (math.pi - angle) * rho
    relative = kappa_1 / (np.sqrt(a.astype(float) * b) * expected / math.pi) - 1
    assert np.abs(relative).max() < 8 * eps


def test_arc_cosine_of_broadcasts_and_clips_a_rounded_correlation(dtype):
    a, b = np.array([[1.0], [4.0]], dtype), np.array([[1.0, 9.0, 0.25]], dtype)
    k = np.sqrt(a * b) * (1 + 8 * np.finfo(dtype).eps)
    np.testing.assert_array_equal(compiled(a, b, k, order=0), np.ones((2, 3), dtype))
    np.testing.assert_array_equal(compiled(a, b, -k, order=0), np.zeros((2, 3), dtype))
    # no more than √(ab), however k was rounded: these roots are exact
    np.testing.assert_array_equal(compiled(a, b, k, order=1), np.sqrt(a * b))


# ---------------------------------------------------------------- roots


def test_safe_sqrt_and_its_derivative(dtype):
    t = jnp.asarray([-1.0, 0.0, 4.0], dtype)
    np.testing.assert_array_equal(safe_sqrt(t), [0, 0, 2])
    derivative = jax.jit(jax.vmap(jax.grad(safe_sqrt)))(t)
    np.testing.assert_array_equal(derivative, [0, 0, 0.25])
