"""Filters, smoothers, ensembles and risks, each against NumPy, Monte Carlo or plain training.

The smoother is recomputed with a matrix exponential and by stepping functions; the ensemble and the
risk by drawing initial functions and noise; networks by a NumPy loop of their own.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED, on_circle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from ntk_lib.early_stopping import (
    _networks_in_a_room,
    _trained_networks,
    best_time,
    random_networks,
    ridge_filter,
    risk,
    smoother,
    trained_ensemble,
    trained_networks,
)
from ntk_lib.gradient_flow import linear_flow
from ntk_lib.kernels import kernel_regression, rbf
from ntk_lib.lazy import descent_filter, flow_filter, linearised_change, train
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import apply, init, nngp

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
numbers = st.floats(0, 50, allow_subnormal=False)


def problem(n=5, more=3, seed=0):
    """A kernel between n + more points and n of them, a covariance, a truth, all in float64."""
    rng = np.random.default_rng([RNG_SEED, seed])
    x = rng.normal(size=(n + more, 2))
    theta = np.array(rbf(x, bandwidth=0.7))[:, :n] * 3
    root = rng.normal(size=(n + more, n + more))
    return theta, root @ root.T / (n + more), rng.normal(size=n + more)


def flow_smoother(theta, time):
    """Θ(x, X) Θ⁻¹ (I - e^(-Θt/N)) without an eigenvector."""
    n = theta.shape[1]
    return theta @ np.linalg.solve(theta[:n], np.eye(n) - expm(-theta[:n] * time / n))


# ---------------------------------------------------------------- filters


@quick
@given(numbers, numbers)
def test_the_filter_of_the_flow_is_one_minus_an_exponential(value, time):
    assert float(flow_filter(value, time)) == pytest.approx(1 - math.exp(-value * time), abs=1e-6)


@quick
@given(st.floats(0, 2), st.floats(0, 1), st.integers(0, 30))
def test_the_filter_of_descent_is_what_repeated_steps_leave(value, rate, steps):
    u = 1.0
    for _ in range(steps):
        u -= rate * value * u
    assert float(descent_filter(value, rate=rate, steps=steps)) == pytest.approx(1 - u, abs=1e-5)


@quick
@given(st.floats(1e-3, 50), st.floats(0, 50))
def test_the_filter_of_ridge_minimises_the_penalised_square(value, ridge):
    # ½λ(a - 1)² + ½r·a², the cost of one component in units of its own coefficient
    found = minimize_scalar(lambda a: value * (a - 1) ** 2 + ridge * a**2, bounds=(-0.5, 1.5))
    assert float(ridge_filter(value, ridge)) == pytest.approx(found.x, abs=1e-4)


def test_the_flow_is_between_ridge_and_its_proved_multiple(x64):
    z = np.geomspace(1e-6, 1e6, 2001)
    ratio = np.array(flow_filter(z, 1.0) / ridge_filter(z, 1.0))
    assert ratio.min() >= 1 - 1e-12
    assert 1.298 < ratio.max() < 1.2985


def test_many_small_steps_of_descent_are_the_flow(x64):
    values = np.array([0.0, 0.1, 1.0])
    by_steps = descent_filter(values, rate=1e-4, steps=30_000)
    np.testing.assert_allclose(by_steps, flow_filter(values, 3.0), atol=2e-4)


def test_filters_take_negative_eigenvalues_for_zero_and_infinite_time_for_the_end(dtype):
    values = np.array([-1e-9, 0.0, 1e-3, 2.0], dtype)
    np.testing.assert_array_equal(flow_filter(values, math.inf), [0, 0, 1, 1])
    np.testing.assert_array_equal(flow_filter(values, 0.0), 0)
    np.testing.assert_array_equal(ridge_filter(values, 0.0), [0, 0, 1, 1])
    for kept in (
        flow_filter(values, 3.0),
        ridge_filter(values, 0.1),
        descent_filter(values, rate=0.5, steps=7),
    ):
        assert kept.dtype == dtype
        assert np.all(np.array(kept[:2]) == 0)
        assert np.all(np.isfinite(kept))


def test_a_small_eigenvalue_keeps_its_digits(x64):
    assert float(flow_filter(1e-14, 1.0)) == pytest.approx(1e-14, rel=1e-12)


def test_filters_work_under_jit_and_vmap(dtype):
    values, times = np.array([0.1, 1.0], dtype), np.array([0.0, 2.0, 5.0], dtype)
    table = jax.jit(jax.vmap(lambda t: flow_filter(values, t)))(times)
    expected = 1 - np.exp(-times[:, None] * values)
    np.testing.assert_allclose(table, expected, rtol=1e-6, atol=1e-7)


# ---------------------------------------------------------------- the smoother


def test_the_smoother_of_the_flow_is_the_matrix_exponential(x64):
    theta, _, _ = problem()
    for time in (0.0, 0.3, 4.0, 60.0):
        M = smoother(theta, functools.partial(flow_filter, time=time))
        np.testing.assert_allclose(M, flow_smoother(theta, time), atol=1e-9)


def test_the_smoother_of_the_flow_leaves_the_residual_of_the_linear_flow(x64):
    theta, _, truth = problem(6, 0)
    M = smoother(theta, functools.partial(flow_filter, time=2.5))
    left = linear_flow(theta / 6, truth, np.array([2.5]))[0]
    np.testing.assert_allclose(truth - M @ truth, left, atol=1e-10)


def test_the_smoother_gives_the_change_of_the_linearised_model(x64):
    theta, _, truth = problem()
    for rate, learnt in (
        (None, functools.partial(flow_filter, time=6.0)),
        (0.5, functools.partial(descent_filter, rate=0.5, steps=12)),
    ):
        change = linearised_change(theta[:5], theta, truth[:5], times=np.array([6.0]), rate=rate)[0]
        np.testing.assert_allclose(smoother(theta, learnt) @ truth[:5], change, atol=1e-10)


def test_the_smoother_of_descent_is_kernel_gradient_descent(x64):
    theta, _, truth = problem()
    y, f = truth[:5], np.zeros(8)
    for _ in range(25):
        f = f - 0.4 / 5 * theta @ (f[:5] - y)
    M = smoother(theta, functools.partial(descent_filter, rate=0.4, steps=25))
    np.testing.assert_allclose(M @ y, f, atol=1e-10)


def test_the_smoother_of_ridge_is_kernel_regression(x64):
    theta, _, truth = problem()
    for ridge in (0.0, 0.03, 2.0):
        M = smoother(theta, functools.partial(ridge_filter, ridge=ridge))
        alpha = kernel_regression(theta[:5], truth[:5], ridge=ridge)
        np.testing.assert_allclose(M @ truth[:5], theta @ alpha, atol=1e-7)


def test_the_smoother_of_a_singular_kernel_leaves_the_null_space(x64):
    features = np.random.default_rng(RNG_SEED).normal(size=(7, 2))
    theta = features @ features[:5].T  # rank 2
    M = np.array(smoother(theta, functools.partial(flow_filter, time=math.inf)))
    fitted = features @ np.linalg.lstsq(features[:5], np.eye(5), rcond=None)[0]
    np.testing.assert_allclose(M, fitted, atol=1e-10)


def test_the_smoother_keeps_the_dtype(dtype):
    theta = problem()[0].astype(dtype)
    M = jax.jit(lambda k: smoother(k, functools.partial(flow_filter, time=2.0)))(theta)
    assert M.dtype == dtype
    tolerance = 1e-4 if dtype == "float32" else 1e-9
    np.testing.assert_allclose(M, flow_smoother(problem()[0], 2.0), atol=tolerance)


# ---------------------------------------------------------------- ensemble and risk


def draws_of_trained_functions(M, sigma, truth, noise, count=40_000):
    rng = np.random.default_rng(RNG_SEED)
    n = M.shape[1]
    f0 = rng.multivariate_normal(np.zeros(len(M)), sigma, size=count, method="cholesky")
    y = truth[:n] + noise * rng.normal(size=(count, n))
    return f0 + (y - f0[:, :n]) @ M.T


def test_the_ensemble_is_what_drawn_initial_functions_give(x64):
    theta, sigma, truth = problem()
    M = flow_smoother(theta, 3.0)
    f = draws_of_trained_functions(M, sigma, truth, 0.0)
    mean, covariance = trained_ensemble(M, sigma, truth[:5])
    se = f.std(axis=0) / np.sqrt(len(f))
    assert np.all(np.abs(f.mean(axis=0) - mean) < 4 * se)
    error = np.linalg.norm(np.cov(f.T) - covariance)
    expected = np.sqrt((np.sum(np.square(covariance)) + np.trace(covariance) ** 2) / len(f))
    assert error < 2 * expected


def test_the_covariance_of_the_ensemble_is_the_formula_of_lee_et_al(x64):
    theta, sigma, truth = problem()
    M = flow_smoother(theta, 1.0)
    cross = M @ sigma[:5]
    expected = sigma + M @ sigma[:5, :5] @ M.T - cross - cross.T
    np.testing.assert_allclose(trained_ensemble(M, sigma, truth[:5])[1], expected, atol=1e-12)


def test_the_ensemble_starts_as_the_prior_and_ends_on_the_data(x64):
    theta, sigma, truth = problem()
    start = smoother(theta, functools.partial(flow_filter, time=0.0))
    mean, covariance = trained_ensemble(start, sigma, truth[:5])
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    np.testing.assert_allclose(covariance, sigma, atol=1e-12)
    end = smoother(theta, functools.partial(flow_filter, time=math.inf))
    mean, covariance = trained_ensemble(end, sigma, truth[:5])
    np.testing.assert_allclose(mean[:5], truth[:5], atol=1e-9)
    np.testing.assert_allclose(np.diag(covariance)[:5], 0, atol=1e-9)
    assert np.all(np.diag(covariance)[5:] > 1e-3)


def test_standard_deviations_of_a_late_ensemble_in_float32_are_numbers(dtype):
    x = np.linspace(-3, 3, 60)[:, None]
    points = np.vstack([x, np.linspace(-3.3, 3.3, 50)[:, None]]).astype(dtype)
    theta, sigma = (k(points, depth=3, gain=2.0) for k in (ntk, nngp))
    M = smoother(theta[:, :60], functools.partial(flow_filter, time=math.inf))
    covariance = np.asarray(trained_ensemble(M, sigma, np.sin(3 * x[:, 0]).astype(dtype))[1])
    np.testing.assert_array_equal(covariance, covariance.T)
    variances, top = np.diag(covariance), np.abs(covariance).max()
    assert variances.min() >= 0
    assert np.linalg.eigvalsh(covariance)[0] >= -10 * np.finfo(dtype).eps * top
    with jax.enable_x64(True):
        kernels = (k(points.astype(float), depth=3, gain=2.0) for k in (ntk, nngp))
        double, start = map(np.asarray, kernels)
        keep = np.eye(110)
        keep[:, :60] -= double[:, :60] @ np.linalg.inv(double[:60, :60])
        exact = np.sqrt(np.maximum(np.diag(keep @ start @ keep.T), 0))
    # where eigenvalues are lost in float32 nothing is learnt there, and more of the start is left
    np.testing.assert_allclose(np.sqrt(variances), exact, atol=1e-2)
    parts = risk(M, sigma, np.zeros(110, dtype), noise=0.1)
    np.testing.assert_allclose(parts.start, variances, atol=1e-6)
    assert np.min(parts.start) >= 0


def test_the_ensemble_of_several_outputs_is_one_of_each(dtype):
    theta, sigma, truth = (part.astype(dtype) for part in problem())
    M = smoother(theta, functools.partial(flow_filter, time=1.0))
    targets = np.stack([truth[:5], truth[3:]], axis=1)
    both = trained_ensemble(M, sigma, targets)
    assert both.mean.shape == (8, 2)
    for k in range(2):
        alone = trained_ensemble(M, sigma, targets[:, k])
        np.testing.assert_allclose(both.mean[:, k], alone.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(both.covariance, alone.covariance)


# all eigenvalues equal, or some of them 0: the derivatives of a factor would be no numbers
@pytest.mark.parametrize("sigma", [np.eye(8), np.ones((8, 8))], ids=["equal", "zero"])
def test_the_covariance_has_the_derivatives_of_its_formula(sigma, x64):
    M, y = flow_smoother(problem()[0], 1.0), np.ones(5)
    step, weights = np.random.default_rng(0).normal(size=(2, 8, 8)), np.cos(np.arange(64.0))
    along = (step[0][:, :5], step[1] @ step[1].T)

    def total(m, s):
        covariance = trained_ensemble(m, (s + s.T) / 2, y).covariance
        return jnp.sum(weights * covariance.reshape(-1))

    up, here = (float(total(M + t * along[0], sigma + t * along[1])) for t in (1e-6, 0.0))
    slope = float(jax.jit(lambda m, s: jax.jvp(total, (m, s), along)[1])(M, sigma))
    assert slope == pytest.approx((up - here) / 1e-6, rel=1e-3)
    back = jax.grad(total, argnums=(0, 1))(M, sigma)
    again = sum(np.sum(np.asarray(b) * a) for b, a in zip(back, along, strict=True))
    assert slope == pytest.approx(again, rel=1e-10)


def test_the_risk_is_what_drawn_functions_and_noise_give(x64):
    theta, sigma, truth = problem()
    M = flow_smoother(theta, 3.0)
    squares = (draws_of_trained_functions(M, sigma, truth, 0.8) - truth) ** 2
    parts = risk(M, sigma, truth, noise=0.8)
    se = squares.std(axis=0) / np.sqrt(len(squares))
    assert np.all(np.abs(squares.mean(axis=0) - parts.total) < 4 * se)
    np.testing.assert_allclose(parts.total, sum(parts), rtol=1e-12)


def test_the_risk_on_the_data_is_a_sum_over_components(x64):
    theta, sigma, truth = problem(6, 2)
    lam, V = np.linalg.eigh(theta[:6] / 6)
    g = 1 - np.exp(-lam * 2.0)
    parts = risk(flow_smoother(theta, 2.0), sigma, truth, noise=0.5)
    expected = {
        "bias": (1 - g) ** 2 * (V.T @ truth[:6]) ** 2 / 6,
        "start": (1 - g) ** 2 * np.diag(V.T @ sigma[:6, :6] @ V) / 6,
        "variance": g**2 * 0.25 / 6,
    }
    for name, values in expected.items():
        measured = np.mean(getattr(parts, name)[:6])
        assert measured == pytest.approx(values.sum(), rel=1e-9)


@jax.jit
def parts_over_time(theta, sigma, truth):
    def at(t):
        M = smoother(theta, functools.partial(flow_filter, time=t))
        return risk(M, sigma, truth, noise=1.0)

    return jax.lax.map(at, jnp.geomspace(0.05, 500, 80))


@quick
@given(st.integers(0, 1000), st.floats(0.05, 2), st.floats(1.05, 4))
def test_more_noise_never_moves_the_best_time_back(seed, noise, factor):
    with jax.enable_x64(True):
        theta, sigma, truth = problem(4, 3, seed)
        parts = parts_over_time(theta, sigma, truth)
        for where in (slice(4), slice(4, None)):
            bias, start, paid = (np.mean(p[:, where], axis=1) for p in parts)
            fixed = bias + start
            best = [np.argmin(fixed + s**2 * paid) for s in (noise, factor * noise)]
            assert best[1] <= best[0]


def test_risk_and_ensemble_keep_the_dtype_and_work_under_jit(dtype):
    theta, sigma, truth = (part.astype(dtype) for part in problem())
    M = smoother(theta, functools.partial(flow_filter, time=1.0))
    parts = jax.jit(lambda s: risk(M, sigma, truth, noise=s))(0.3)
    assert parts.total.dtype == dtype
    np.testing.assert_allclose(parts.total, risk(M, sigma, truth, noise=0.3).total, rtol=1e-5)
    assert trained_ensemble(M, sigma, truth[:5]).covariance.dtype == dtype


# ---------------------------------------------------------------- the best time


@quick
@given(st.floats(-3, 3), st.floats(0.1, 10))
def test_the_best_time_of_a_parabola_in_log_time_is_exact(centre, curvature):
    with jax.enable_x64(True):
        times = np.exp(np.sort(np.random.default_rng(0).uniform(-4, 4, 40)))
        risks = 1 + curvature * (np.log(times) - centre) ** 2
        assert best_time(times, risks) == pytest.approx(math.exp(centre), rel=1e-6)


def test_the_best_time_at_an_end_is_that_end():
    times = np.array([1.0, 2.0, 4.0, 8.0])
    assert best_time(times, np.array([4.0, 3.0, 2.0, 1.0])) == 8
    assert best_time(times, np.array([1.0, 2.0, 3.0, 4.0])) == 1
    assert best_time(times, np.array([1.0, 1.0, 1.0, 1.0])) == 1


# ---------------------------------------------------------------- networks


def test_trained_networks_are_networks_trained_one_by_one(dtype):
    x, at = on_circle(5).astype(dtype), on_circle(7).astype(dtype)
    targets = np.random.default_rng(RNG_SEED).normal(size=(3, 5)).astype(dtype)
    options = {"width": 6, "depth": 3, "activation": "erf", "beta": 0.3}
    together = trained_networks(x, targets, at, key=KEY, steps=[0, 5, 5], rate=0.5, **options)
    assert together.shape == (3, 3, 7)
    assert together.dtype == dtype
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for row, key, y in zip(together, jax.random.split(KEY, 3), targets, strict=True):
        start = init((2, 6, 6, 1), key=key, dtype=dtype)
        for outputs, steps in zip(row, [0, 5, 5], strict=True):
            net = train(start, x, y, steps=steps, rate=0.5, activation="erf", beta=0.3).params
            alone = apply(net, jnp.asarray(at), activation="erf", beta=0.3)[:, 0]
            np.testing.assert_allclose(outputs, alone, atol=tolerance)


def test_random_networks_are_drawn_one_by_one_and_start_the_training(dtype):
    nets = random_networks((2, 6, 1), key=KEY, draws=3, dtype=dtype)
    for i, key in enumerate(jax.random.split(KEY, 3)):
        alone = init((2, 6, 1), key=key, dtype=dtype)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), nets, alone)
    x = jnp.asarray(on_circle(4).astype(dtype))
    outputs = trained_networks(x, np.zeros((3, 4)), x, key=KEY, steps=[0], width=6)[:, 0]
    expected = jax.vmap(lambda net: apply(net, x)[:, 0])(nets)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), ("erf", 2), ("relu", 3)])
def test_a_room_changes_the_program_and_not_the_networks(activation, depth, dtype):
    x = on_circle(5).astype(dtype)
    targets = np.random.default_rng(RNG_SEED).normal(size=(2, 5)).astype(dtype)
    options = {"key": KEY, "steps": [0, 7], "depth": depth, "activation": activation, "beta": 0.3}
    # sums of 5 or of 16 terms, in another order: rounding, seven steps long
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for width in (5, 16):
        roomy = trained_networks(x, targets, x, width=width, room=16, **options)
        alone = trained_networks(x, targets, x, width=width, **options)
        assert roomy.dtype == dtype
        np.testing.assert_allclose(roomy, alone, atol=tolerance)


def test_a_room_serves_all_its_widths_with_one_program():
    x = on_circle(5).astype("float32")
    options = {"key": KEY, "steps": [0, 7], "room": 18}
    trained_networks(x, np.ones((2, 5)), x, width=18, **options)
    programs = (_trained_networks, _networks_in_a_room)
    known = [program._cache_size() for program in programs]
    for width in (1, 5, 17):
        trained_networks(x, np.ones((2, 5)), x, width=width, **options)
    assert [program._cache_size() for program in programs] == known


def test_a_linear_network_of_depth_one_follows_descent_exactly(x64):
    x, y = on_circle(4)[:3], np.array([1.0, -2.0, 0.5])
    theta = x @ x.T / 2 + 0.3**2
    outputs = trained_networks(
        x, y[None], x, key=KEY, steps=[0, 20], width=1, depth=1, rate=0.7, beta=0.3
    )[0]
    M = smoother(theta, functools.partial(descent_filter, rate=0.7, steps=20))
    np.testing.assert_allclose(outputs[1], outputs[0] + M @ (y - outputs[0]), atol=1e-10)


def test_relu_without_bias_never_gains_an_odd_mode():
    x = on_circle(12).astype("float32")
    y = np.cos(3 * np.arange(12) * 2 * np.pi / 12)
    f = trained_networks(x, y[None], x, key=KEY, steps=[0, 50], width=20, beta=0.0)[0]
    assert np.abs(f @ y).max() < 1e-4


# ---------------------------------------------------------------- kinds of input

THETA, SIGMA, TRUTH = (part.astype("float32") for part in problem())
FLOW = functools.partial(flow_filter, time=1.0)


def test_points_may_be_given_as_jax_arrays():
    M = smoother(jnp.asarray(THETA), FLOW)
    assert risk(M, jnp.asarray(SIGMA), jnp.asarray(TRUTH), noise=0.0).variance.sum() == 0
