"""Random features against exact laws, their curve against simulation and its known limits."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from ntk_lib.double_descent import (
    feature_law,
    gaussian_features,
    least_norm,
    marchenko_pastur,
    random_feature_curve,
    tangent_features,
    train_by_adam,
)
from ntk_lib.engine.data import load
from ntk_lib.kernels import kernel_regression, rbf
from ntk_lib.limiting_ntk import mlp_ntk
from ntk_lib.regression import Spectrum, learning_curve
from ntk_lib.wide_networks import init
from scripts import double_descent as runs

RNG = functools.partial(np.random.default_rng, 30)


# ---------------------------------------------------------------- features and fits


def test_gaussian_features_have_the_covariance_of_the_gram(x64):
    points = RNG().normal(size=(5, 2))
    gram = rbf(points)
    phi = gaussian_features(gram, key=jax.random.key(0), count=40_000)
    # the standard error of a product of two standard Gaussians is at most √2/200
    np.testing.assert_allclose(phi @ phi.T / 40_000, gram, atol=4 * 2**0.5 / 200)


def test_least_norm_is_the_pseudo_inverse_also_without_full_rank(x64):
    rng = RNG()
    for n, p in ((9, 5), (5, 9), (6, 6)):
        phi = rng.normal(size=(n, p))
        phi[:, 1] = phi[:, 0]
        y = rng.normal(size=(n, 2))
        fit = least_norm(phi, y)
        np.testing.assert_allclose(fit.weights, np.linalg.pinv(phi, rcond=1e-10) @ y, atol=1e-10)
        assert fit.rank == min(n, p - 1)
        assert least_norm(phi, y[:, 0]).weights.shape == (p,)


def test_least_norm_with_a_ridge_is_kernel_regression(x64):
    rng = RNG()
    phi, new, y = rng.normal(size=(7, 4)), rng.normal(size=(3, 4)), rng.normal(size=7)
    by_kernel = new @ phi.T @ kernel_regression(phi @ phi.T, y, ridge=0.3)
    np.testing.assert_allclose(new @ least_norm(phi, y, ridge=0.3).weights, by_kernel, rtol=1e-10)


def test_tangent_features_multiply_to_the_tangent_kernel_and_depend_on_one_another(x64):
    x = jnp.asarray(RNG().normal(size=(40, 4)))
    params = init((4, 3, 1), key=jax.random.key(1))
    phi = tangent_features(params, x)
    assert phi.shape == (40, 15)
    np.testing.assert_allclose(phi @ phi.T, mlp_ntk(params, x, beta=0.0), rtol=1e-10, atol=1e-12)
    assert np.linalg.matrix_rank(phi) == 12  # ReLU is homogeneous: one relation a neuron
    with_bias = tangent_features(params, x, beta=0.5)
    assert with_bias.shape == (40, 19)
    assert np.linalg.matrix_rank(with_bias) == 16


# ---------------------------------------------------------------- exact laws


@pytest.mark.parametrize("ratio", [0.3, 1.0, 2.5])
def test_singular_values_of_a_large_matrix_follow_the_density(ratio):
    Z = RNG().normal(size=(400, int(400 * ratio))) / 20
    s = np.sqrt(np.linalg.eigvalsh(Z @ Z.T if ratio > 1 else Z.T @ Z))
    fine = np.linspace(1e-4, 1.001 + ratio**0.5, 4001)
    density = marchenko_pastur(fine, ratio)
    share = np.cumsum(density) * (fine[1] - fine[0])
    assert share[-1] == pytest.approx(1, abs=2e-3)
    found = np.searchsorted(np.sort(s), fine) / len(s)
    # fluctuations of the whole are of order 1/size; another ratio is further away
    assert np.max(np.abs(found - share)) < 0.02
    other = np.cumsum(marchenko_pastur(fine, 1.25 * ratio)) * (fine[1] - fine[0])
    assert np.max(np.abs(found - other)) > 0.04


def draws_of_a_fit(phi, y, count, at):
    """Fits at one point by each of the draws of features, (points, draws, features)."""
    n = len(y)
    inverse = np.linalg.pinv(phi[:n, :, :count].transpose(1, 0, 2))
    return np.sum(phi[at, :, :count] * (inverse @ y), axis=1)


def test_fits_with_gaussian_features_follow_students_law(x64):
    rng = RNG()
    points = rng.normal(size=(8, 2))
    gram, y = np.array(rbf(points)), rng.normal(size=6)
    phi = np.array(gaussian_features(gram, key=jax.random.key(2), count=2000 * 12))
    phi = phi.reshape(8, 2000, 12)
    for count in (6, 8, 12):
        law = feature_law(gram[:6, :6], gram[6:, :6], np.diag(gram)[6:], y, count=count)
        assert law.freedom == count - 5
        for i in range(2):
            fits = draws_of_a_fit(phi, y, count, 6 + i)
            scaled = (fits - law.mean[i]) / law.scale[i]
            assert scipy.stats.kstest(scaled, "t", (law.freedom,)).pvalue > 0.01
            # and not the law of one degree more
            if count == 6:
                assert scipy.stats.kstest(scaled, "t", (2,)).pvalue < 1e-3
    by_kernel = gram[6:, :6] @ np.linalg.solve(gram[:6, :6], y)
    np.testing.assert_allclose(law.mean, by_kernel, rtol=1e-6)


def test_the_law_is_a_point_at_the_data(x64):
    gram = np.array(rbf(RNG().normal(size=(4, 2))))
    y = np.array([1.0, -2, 0, 1])
    law = feature_law(gram, gram, np.diag(gram), y, count=4)
    np.testing.assert_allclose(law.mean, y, atol=1e-8)
    np.testing.assert_allclose(law.scale, 0, atol=1e-6)


# ---------------------------------------------------------------- the asymptotic curve


LAM = np.arange(1, 151.0) ** -1.2
POWER = np.arange(1, 151.0) ** -1.6
WORLD = Spectrum(LAM, np.ones(150), POWER)


@pytest.mark.parametrize(("count", "ridge"), [(12, 0.0), (48, 0.01), (100, 0.0)])
def test_the_curve_of_random_features_is_measured(count, ridge):
    rng, n, errors = RNG(), 48, []
    for _ in range(50):
        g, w = rng.normal(size=(n, 150)), rng.normal(size=(150, count))
        back = np.sqrt(LAM)[:, None] * w / np.sqrt(count)
        y = g @ np.sqrt(POWER) + 0.5 * rng.normal(size=n)
        fit = least_norm(g @ back, y, ridge=ridge)
        errors.append(np.sum((back @ fit.weights - np.sqrt(POWER)) ** 2) + 0.25)
    told = random_feature_curve(WORLD, n, [count], ridge=ridge, noise=0.5).error[0]
    spread = np.std(errors) / 50**0.5
    # the formula's own error is of order 1/|N - P| without a ridge, and smaller with one
    slack = 3 * spread + told * (1 / abs(n - count) if ridge == 0 else 1 / n)
    assert abs(np.mean(errors) - told) < slack
    # infinitely many features are another answer
    infinite = learning_curve(WORLD, [n], ridge=ridge, noise=0.5).error[0]
    assert abs(np.mean(errors) - infinite) > slack


def test_the_curve_has_the_limits_that_are_known():
    for ridge in (0.0, 0.01):
        many = random_feature_curve(WORLD, 40, [10**9], ridge=ridge, noise=0.3)
        limit = learning_curve(WORLD, [40], ridge=ridge, noise=0.3)
        np.testing.assert_allclose(many.error, limit.error, rtol=1e-6)
        np.testing.assert_allclose(many.kappa, limit.kappa, rtol=1e-6)
    # N and P play the same part in κ
    a = random_feature_curve(WORLD, 40, [90], ridge=0.01).kappa
    b = random_feature_curve(WORLD, 90, [40], ridge=0.01).kappa
    np.testing.assert_allclose(a, b, rtol=1e-10)
    # the threshold, and the short form below it: N/(N - P) (Σ (1 - L) v² + ν²)
    at = random_feature_curve(WORLD, 40, [39, 40, 41])
    assert at.error[1] == np.inf
    assert np.all(np.isfinite(at.error[[0, 2]]))
    below = random_feature_curve(WORLD, 40, [10], noise=0.3)
    L = LAM / (LAM + below.kappa)
    assert L.sum() == pytest.approx(10, rel=1e-7)
    assert below.error[0] == pytest.approx(40 / 30 * (np.sum((1 - L) * POWER) + 0.09), rel=1e-7)


def test_the_curve_of_few_eigenfunctions_is_least_squares():
    # three eigenfunctions, more points and features than that: all is learnt, noise costs N/(N - 3)
    few = Spectrum(np.array([1.0, 0.5, 0.1]), np.ones(3), np.ones(3))
    curve = random_feature_curve(few, 30, [20], noise=0.5)
    assert curve.kappa[0] == 0
    assert curve.error[0] == pytest.approx(30 / 27 * 0.25)


def test_a_tail_of_the_spectrum_acts_as_if_it_were_listed():
    listed = Spectrum(np.r_[LAM, np.full(5000, 1e-6)], np.ones(5150), np.r_[POWER, np.zeros(5000)])
    summed = WORLD._replace(tail=5000e-6)
    for ridge in (0.0, 0.01):
        np.testing.assert_allclose(
            random_feature_curve(summed, 50, [20, 120], ridge=ridge, noise=0.2).error,
            random_feature_curve(listed, 50, [20, 120], ridge=ridge, noise=0.2).error,
            rtol=2e-3,
        )


# ---------------------------------------------------------------- trained networks


def test_adam_fits_and_its_first_step_is_of_the_size_of_the_rate(x64):
    rng = RNG()
    x, y = jnp.asarray(rng.normal(size=(12, 3))), jnp.asarray(rng.normal(size=(12, 2)))
    options = {"key": jax.random.key(4), "width": 30, "beta": 0.0}
    f = train_by_adam(x, y, x, steps=[0, 1, 300], **options)
    assert f.shape == (3, 12, 2)
    assert jnp.mean((f[2] - y) ** 2) < 0.3 * jnp.mean((f[0] - y) ** 2)
    # the first step moves each weight by the rate, against the sign of its derivative
    params = init((3, 30, 2), key=options["key"], dtype=x.dtype)

    def outputs(layers):
        return jnp.maximum(x @ layers[0].T / 3**0.5, 0) @ layers[1].T / 30**0.5

    weights = [W for W, _ in params]
    slope = jax.grad(lambda w: jnp.sum((outputs(w) - y) ** 2) / 24)(weights)
    moved = [w - 0.02 * jnp.sign(g) for w, g in zip(weights, slope, strict=True)]
    np.testing.assert_allclose(f[0], outputs(weights), rtol=1e-10)
    np.testing.assert_allclose(f[1], outputs(moved), rtol=1e-4, atol=1e-5)


def test_the_stored_runs_have_the_settings_of_the_script():
    stored = load("double_descent")
    about = json.loads(str(stored["settings"]))
    assert {name: about[name] for name in runs.SETTING} == runs.SETTING
    shape = (len(about["widths"]), about["seeds"], len(about["steps"]), 4)
    assert stored["errors_0"].shape == stored["errors_20"].shape == shape


def test_a_ridge_that_rounding_hides_is_as_good_as_none():
    flat = Spectrum(np.ones(500), np.ones(500), np.full(500, 0.002))
    tiny = random_feature_curve(flat, 100, [50, 400], ridge=1e-16)
    none = random_feature_curve(flat, 100, [50, 400])
    np.testing.assert_allclose(tiny.error, none.error, rtol=1e-6)
