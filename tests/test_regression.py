"""Spectra and learning curves against closed forms and simulation, removals against refits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntk_lib.kernels import kernel_regression, rbf
from ntk_lib.limiting_ntk import circle_spectrum, ntk
from ntk_lib.regression import (
    Spectrum,
    effective_ridge,
    learning_curve,
    pool_spectrum,
    removal_effects,
    sphere_spectrum,
)
from tests.cases import on_circle

RNG = functools.partial(np.random.default_rng, 20)


def test_effective_ridge_of_equal_eigenvalues_is_a_root(x64):
    # k equal λ: (k/N) λ/(λ + κ) + r/κ = 1 is quadratic in κ
    k, n, lam, ridge = 30, 20, 0.7, 0.05
    linear = lam - k * lam / n - ridge
    root = (-linear + np.sqrt(linear**2 + 4 * ridge * lam)) / 2
    assert effective_ridge(np.full(k, lam), n, ridge=ridge) == pytest.approx(root, rel=1e-12)
    once = effective_ridge(np.array([lam]), n, ridge=ridge, multiplicity=np.array([float(k)]))
    assert once == pytest.approx(root, rel=1e-12)
    assert effective_ridge(np.full(k, lam), k) == 0
    assert effective_ridge(np.array([1.0, 0.0]), 1) == 0


def test_few_equations_interpolate_and_linear_regression_is_exact():
    # N > k eigenvalues, no ridge: the classical N/(N - k) of least squares
    spectrum = Spectrum(
        np.array([1.0, 0.1, 0.0]), np.array([2.0, 3.0, 9.0]), np.array([1.0, 2, 0.5])
    )
    curve = learning_curve(spectrum, [5, 10, 20], noise=0.3)
    np.testing.assert_allclose(curve.missed, 0.5)
    np.testing.assert_allclose(curve.overfitting[1:], [2, 4 / 3])
    assert curve.error[0] == np.inf
    np.testing.assert_allclose(curve.error[1:], np.array([2, 4 / 3]) * 0.59)


@pytest.mark.parametrize(("ridge", "noise"), [(0.0, 0.0), (0.0, 0.5), (0.01, 0.3)])
def test_learning_curve_of_gaussian_features_is_measured(ridge, noise):
    rng, lam = RNG(), np.arange(1, 401.0) ** -1.5
    v = rng.normal(size=400) * np.arange(1, 401.0) ** -0.8
    for n in (20, 60):
        errors = []
        for _ in range(100):
            phi = rng.normal(size=(n, 400))
            y = phi @ v + noise * rng.normal(size=n)
            alpha = np.linalg.solve(phi * lam @ phi.T + n * ridge * np.eye(n), y)
            errors.append(np.sum((lam * (phi.T @ alpha) - v) ** 2) + noise**2)
        predicted = learning_curve(
            Spectrum(lam, np.ones(400), v**2), [n], ridge=ridge, noise=noise
        ).error[0]
        spread = np.std(errors) / np.sqrt(len(errors))
        # the formula's own error is of order 1/N
        assert abs(np.mean(errors) - predicted) < 3 * spread + predicted / n
        # and the naive one, without E₀, is refused by the same bound
        naive = (
            predicted
            / learning_curve(Spectrum(lam, np.ones(400), v**2), [n], ridge=ridge).overfitting[0]
        )
        if ridge == 0:
            assert abs(np.mean(errors) - naive) > 3 * spread + predicted / n


def test_power_law_spectra_are_tempered_by_their_exponent():
    lam = np.arange(1, 200_001.0) ** -2
    curve = learning_curve(Spectrum(lam, np.ones_like(lam), 0 * lam), [100, 1000], noise=1.0)
    np.testing.assert_allclose(curve.overfitting, 2, rtol=0.01)


def test_pool_spectrum_is_that_of_the_gram_and_keeps_the_power():
    x = RNG().normal(size=(40, 3))
    gram = np.asarray(ntk(x, depth=3))
    y = x[:, :2]
    spectrum = pool_spectrum(gram, y)
    assert spectrum.power.shape == (40, 2)
    np.testing.assert_allclose(spectrum.values.sum(), np.trace(gram) / 40, rtol=1e-5)
    np.testing.assert_allclose(spectrum.power.sum(axis=0), np.mean(y**2, axis=0), rtol=1e-5)
    assert np.all(np.diff(spectrum.values) <= 0)
    assert pool_spectrum(gram).power is None


def test_circle_spectrum_of_the_sphere_in_the_plane(x64):
    kernel = functools.partial(ntk, depth=3, beta=0.5)

    def profile(t):
        points = np.stack([t, np.sqrt(1 - t**2)], axis=1)
        return kernel(np.array([[1.0, 0.0]]), points)[0]

    ours = sphere_spectrum(profile, 2, degrees=20)
    equispaced = circle_spectrum(kernel(on_circle(8_000)[:1], on_circle(8_000))[0])
    np.testing.assert_allclose(ours.values, equispaced[:20], atol=1e-8)
    np.testing.assert_array_equal(ours.multiplicity, [1] + [2] * 19)
    left = float(kernel(np.array([[1.0, 0.0]]))[0, 0]) - ours.values @ ours.multiplicity
    assert ours.tail == pytest.approx(left, rel=1e-9)


@pytest.mark.parametrize("d", [3, 4, 7])
def test_polynomials_on_the_sphere_have_known_spectra(d):
    # the kernel (x·x')²: E t² = 1/d of it is constant, the rest of degree 2
    spectrum = sphere_spectrum(lambda t: t**2, d, degrees=5)
    dimension = (d + 2) * (d - 1) / 2
    expected = [1 / d, 0, (1 - 1 / d) / dimension, 0, 0]
    np.testing.assert_allclose(spectrum.values, expected, atol=1e-9)
    np.testing.assert_array_equal(spectrum.multiplicity[:3], [1, d, dimension])
    assert spectrum.tail == pytest.approx(0, abs=1e-8)


def test_sphere_spectrum_gives_the_kernel_back():
    spectrum = sphere_spectrum(lambda t: np.exp(3 * t), 3, degrees=30)
    t = np.linspace(-1, 1, 7)
    back = sum(
        value * count * np.polynomial.legendre.Legendre.basis(k)(t)
        for k, (value, count) in enumerate(zip(spectrum.values, spectrum.multiplicity, strict=True))
    )
    np.testing.assert_allclose(back, np.exp(3 * t), atol=1e-8)


@pytest.mark.parametrize("ridge", [0.0, 0.02])
def test_removal_effects_are_those_of_fits_without_the_point(ridge, x64):
    rng = RNG()
    x, new, y = rng.normal(size=(12, 3)), rng.normal(size=(5, 3)), rng.normal(size=12)
    gram, cross = rbf(x), rbf(new, x)
    effects = removal_effects(gram, cross, y, ridge=ridge)
    fit = cross @ kernel_regression(gram, y, ridge=ridge)
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        without = kernel_regression(gram[np.ix_(rest, rest)], y[rest], ridge=ridge * 12 / 11)
        np.testing.assert_allclose(effects[:, i], cross[:, rest] @ without - fit, atol=1e-8)


def test_a_kernel_that_is_not_positive_on_the_sphere_is_refused():
    with pytest.raises(ValueError, match=r"^profile needs a positive .* -0\.333 at degree 1"):
        sphere_spectrum(lambda t: -t, 3, degrees=5)


def test_ridges_near_the_smallest_float_and_bad_tails_and_sizes():
    assert effective_ridge(np.ones(1), 2, ridge=1e-300) == pytest.approx(2e-300)
    assert effective_ridge(np.ones(1), 2, ridge=5e-324) < 1e-307
    ones = Spectrum(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match=r"^tail needs a number"):
        learning_curve(ones._replace(tail=-1.0), [1])
    with pytest.raises(ValueError, match=r"^sizes needs at least one"):
        learning_curve(ones, [])


def test_a_spectrum_without_power_says_where_to_get_it():
    with pytest.raises(ValueError, match=r"pool_spectrum\(gram, y\)"):
        learning_curve(Spectrum(np.ones(2), np.ones(2)), [1])


def test_errors_are_smooth_in_the_ridge_and_never_below_the_noise():
    lam = np.geomspace(1, 1e-6, 50)
    spectrum = Spectrum(lam, np.ones(50), np.ones(50) / 50)
    errors = [
        learning_curve(spectrum, [30], ridge=r, noise=0.2).error[0]
        for r in np.geomspace(1e-9, 1, 40)
    ]
    assert min(errors) > 0.04
    assert np.abs(np.diff(np.log(errors))).max() < 0.3
    assert jax.numpy.isfinite(jnp.asarray(errors)).all()
