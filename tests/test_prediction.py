"""Predictions against scikit-learn, the formulas by matrix exponentials, and draws of functions.

Those against neural-tangents are in ``test_peers``.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import RNG_SEED
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from ntk_lib import prediction
from ntk_lib.early_stopping import smoother, trained_ensemble
from ntk_lib.kernels import kernel_regression, polynomial, rbf
from ntk_lib.lazy import flow_filter
from ntk_lib.limiting_ntk import ntk
from ntk_lib.prediction import Prediction, predict, trained
from ntk_lib.wide_networks import nngp

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
NETWORK = {"depth": 3, "gain": 2.0, "beta": 0.3}
NARROW = functools.partial(rbf, bandwidth=0.6)


def data(n=9, m=5, dtype="float64", seed=0):
    rng = np.random.default_rng([RNG_SEED, seed])
    x, new = rng.normal(size=(n, 2)), rng.normal(size=(m, 2))
    return tuple(t.astype(dtype) for t in (x, np.sin(2 * x[:, 0]), new))


def by_formula(kernel, prior, noise, time):
    """M and the covariance at the new points, by the matrix exponential."""
    x, _, new = data()
    points, n = np.concatenate([x, new]), len(x)
    system = np.asarray(kernel(x)) + noise**2 * np.eye(n)
    learnt = np.eye(n) - (0 if time == math.inf else expm(-system * time / n))
    M = np.asarray(kernel(points, x)) @ np.linalg.solve(system, learnt)
    sigma, keep = np.asarray(prior(points)), np.eye(len(points))
    keep[:, :n] -= M
    return M[n:], (keep @ sigma @ keep.T)[n:, n:]


# ---------------------------------------------------------------- what it is


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("time", [0.0, 3.0, 1e3, math.inf])
def test_all_layers_are_the_ensemble_of_penalised_flows(noise, time, x64):
    x, y, new = data()
    theta, sigma = (functools.partial(k, **NETWORK) for k in (ntk, nngp))
    M, covariance = by_formula(theta, sigma, noise, time)
    found = predict(x, y, new, noise=noise, time=time, **NETWORK)
    np.testing.assert_allclose(found.mean, M @ y, atol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-10)
    given_by_hand = predict(x, y, new, noise=noise, time=time, kernel=theta, prior=sigma)
    np.testing.assert_allclose(found.covariance, given_by_hand.covariance, atol=1e-13)
    other = predict(x, y, new, noise=noise, time=time, prior=rbf, **NETWORK).covariance
    np.testing.assert_allclose(other, by_formula(theta, rbf, noise, time)[1], atol=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("time", [0.0, 3.0, math.inf])
def test_the_last_layer_alone_has_noise_of_its_own_in_every_network(noise, time, x64):
    x, y, new = data()
    sigma = functools.partial(nngp, **NETWORK)
    M, covariance = by_formula(sigma, sigma, noise, time)
    found = predict(x, y, new, by="nngp", noise=noise, time=time, **NETWORK)
    np.testing.assert_allclose(found.mean, M @ y, atol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance + noise**2 * M @ M.T, atol=1e-9)


@pytest.mark.parametrize(
    ("kernel", "theirs"), [(NARROW, RBF(0.6)), (functools.partial(rbf, bandwidth=2.0), RBF(2.0))]
)
def test_a_gaussian_process_is_that_of_scikit_learn(kernel, theirs, x64):
    x, y, new = data()
    peer = GaussianProcessRegressor(theirs, alpha=0.05**2, optimizer=None).fit(x, y)
    mean, covariance = peer.predict(new, return_cov=True)
    found = predict(x, y, new, by="nngp", kernel=kernel, noise=0.05)
    np.testing.assert_allclose(found.mean, mean, atol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-9)
    np.testing.assert_allclose(found.std, peer.predict(new, return_std=True)[1], atol=1e-7)


def test_the_posterior_of_a_line_is_bayesian_linear_regression(x64):
    # a polynomial of degree 1 is a prior N(0, I) on the slope and the height
    x, new, y = np.array([[0.0], [1.0], [3.0]]), np.array([[2.0], [-1.0]]), np.array([1.0, 0, 2])
    found = predict(x, y, new, by="nngp", kernel=functools.partial(polynomial, degree=1), noise=0.5)
    phi, at = (np.hstack([np.ones_like(t), t]) for t in (x, new))
    spread = np.linalg.inv(np.eye(2) + phi.T @ phi / 0.25)
    np.testing.assert_allclose(found.mean, at @ spread @ phi.T @ y / 0.25, rtol=1e-10)
    np.testing.assert_allclose(found.covariance, at @ spread @ at.T, rtol=1e-10)


def test_it_is_the_ensemble_and_the_smoother_of_the_chapter(x64):
    x, y, new = data()
    points = np.concatenate([x, new])
    M = smoother(ntk(points, x, **NETWORK), functools.partial(flow_filter, time=7.0))
    mean, covariance = trained_ensemble(M, nngp(points, **NETWORK), y)
    found = predict(x, y, new, time=7.0, **NETWORK)
    np.testing.assert_allclose(found.mean, mean[9:], atol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance[9:, 9:], atol=1e-9)


def test_the_penalised_flow_is_what_steps_of_descent_on_features_find(x64):
    # the weights themselves, descended on C + (σ²/2N)‖w − w₀‖²
    x, y, new = data()
    start = np.random.default_rng(1).normal(size=3)
    phi, at = (np.hstack([np.ones((len(t), 1)), t]) for t in (x, new))
    w, rate = start.copy(), 1e-3
    for _ in range(5000):
        w -= rate * (phi.T @ (phi @ w - y) + 0.3**2 * (w - start)) / len(x)
    line = functools.partial(polynomial, degree=1)
    options = {"kernel": line, "noise": 0.3, "time": 5.0}
    moved = predict(x, y - phi @ start, new, **options).mean
    np.testing.assert_allclose(at @ start + moved, at @ w, atol=2e-3)


# ---------------------------------------------------------------- properties


@quick
@given(
    seed=st.integers(0, 1000),
    noise=st.sampled_from([0.0, 0.01, 1.0]),
    time=st.sampled_from([0.0, 1.0, 100.0, math.inf]),
    by=st.sampled_from(["ntk", "nngp"]),
)
def test_covariances_have_no_negative_part(seed, noise, time, by):
    x, y, _ = data(dtype="float32", seed=seed)
    new = np.concatenate([x[:3], x[:2] + np.float32(1e-4)])
    found = predict(x, y, new, noise=noise, time=time, by=by, **NETWORK)
    covariance = np.asarray(found.covariance)
    np.testing.assert_array_equal(covariance, covariance.T)
    assert np.diag(covariance).min() >= 0
    top = np.abs(covariance).max()
    assert np.linalg.eigvalsh(covariance.astype(float))[0] >= -1e-6 * top
    assert np.all(np.isfinite(found.std))


def test_the_end_of_training_is_the_data_and_regression_elsewhere(dtype):
    x, y, new = data(dtype=dtype)
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    found = predict(x, y, x, **NETWORK)
    np.testing.assert_allclose(found.mean, y, atol=tolerance)
    np.testing.assert_allclose(found.std, 0, atol=tolerance)
    elsewhere = ntk(new, x, **NETWORK) @ kernel_regression(ntk(x, **NETWORK), y)
    np.testing.assert_allclose(predict(x, y, new, **NETWORK).mean, elsewhere, atol=2 * tolerance)


def test_columns_of_targets_are_one_prediction_each(dtype):
    x, y, new = data(dtype=dtype)
    both = predict(x, np.stack([y, y**2], axis=1), new, noise=0.1, **NETWORK)
    assert both.mean.shape == (5, 2)
    assert both.mean.dtype == both.covariance.dtype == both.std.dtype == dtype
    assert both.covariance.shape == (5, 5)
    for k, alone in enumerate((y, y**2)):
        one = predict(x, alone, new, noise=0.1, **NETWORK)
        assert one.mean.shape == (5,)
        np.testing.assert_allclose(both.mean[:, k], one.mean, rtol=1e-5, atol=1e-6)


def test_points_of_two_dtypes_meet_in_the_wider(x64):
    x, y, new = data()
    assert predict(x.astype("f4"), y, new, **NETWORK).mean.dtype == "float64"
    assert predict(x, y, new.astype("f4"), **NETWORK).mean.dtype == "float64"


def test_a_kernel_without_a_prior_gives_the_mean_alone():
    x, y, new = data(dtype="float32")
    found = predict(x, y, new, kernel=NARROW, noise=0.1)
    assert found.covariance is None
    np.testing.assert_allclose(
        found.mean, predict(x, y, new, kernel=NARROW, noise=0.1, by="nngp").mean, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"^prior needs a kernel function where the standard dev"):
        _ = found.std


def test_the_standard_deviation_is_the_root_of_the_diagonal():
    found = Prediction(jnp.zeros(2), jnp.array([[4.0, 1.0], [1.0, 9.0]]))
    np.testing.assert_allclose(found.std, [2, 3])


def test_no_kernel_of_the_new_points_with_themselves_is_asked_for_without_a_prior():
    asked = []

    def kernel(x, y=None):
        asked.append((len(x), len(x if y is None else y)))
        return rbf(x, y)

    x, y, new = data(dtype="float32")
    predict(x, y, new, kernel=kernel, noise=1.0)
    assert asked == [(9, 9), (5, 9)]


@pytest.mark.parametrize("by", ["ntk", "nngp"])
@pytest.mark.parametrize("time", [3.0, math.inf])
def test_what_is_trained_once_is_asked_often(by, time, x64, monkeypatch):
    x, y, new = data()
    new = np.concatenate([new, x[2:4], new[:1]])
    settings = {"by": by, "time": time, "noise": 0.2, **NETWORK}
    once = predict(x, y, new, **settings)
    networks = trained(x, y, **settings)
    networks.predict(new)
    sizes = []

    def counted(matrix, **options):
        sizes.append(len(matrix))
        return eigh(matrix, **options)

    eigh = prediction.scipy.linalg.eigh
    monkeypatch.setattr(prediction.scipy.linalg, "eigh", counted)
    again = networks.predict(new)
    assert sizes == [8]  # of the new points alone
    np.testing.assert_array_equal(again.mean, once.mean)
    np.testing.assert_array_equal(again.covariance, once.covariance)
    monkeypatch.setattr(prediction, "BLOCK", 9 * 3)  # three points at a time
    mean, std = networks.mean_and_std(new)
    np.testing.assert_allclose(mean, once.mean, atol=1e-13)
    np.testing.assert_allclose(networks.mean(new), once.mean, atol=1e-13)
    np.testing.assert_allclose(std, once.std, atol=1e-7)
    assert sizes == [8]


def test_of_any_kernel_the_deviation_is_that_of_the_covariance(x64):
    x, y, new = data()
    new = np.concatenate([new, x[:1], new[:2]])
    for options in ({"by": "nngp"}, {"prior": NARROW}):
        networks = trained(x, y, kernel=NARROW, noise=0.1, **options)
        std = networks.mean_and_std(new)[1]
        np.testing.assert_allclose(std, networks.predict(new).std, atol=1e-9)
    with pytest.raises(ValueError, match=r"^prior needs a kernel function where the standard dev"):
        trained(x, y, kernel=NARROW, noise=0.1).mean_and_std(new)


def test_more_points_than_the_machine_holds_are_refused_before_they_are_tried(monkeypatch):
    x, y, _ = data(dtype="float32")
    networks = trained(x, y, depth=2)
    monkeypatch.setattr(prediction.os, "sysconf", lambda name: 40)  # 1600 bytes
    with pytest.raises(MemoryError, match=r"^x needs fewer points, got 9: .*scale\.regression"):
        trained(x, y, depth=2)
    with pytest.raises(MemoryError, match=r"^x_test needs fewer points, got 9"):
        networks.predict(x)


# ---------------------------------------------------------------- what rounding would spoil


def test_repeated_points_share_their_labels_where_there_is_noise(x64):
    x, y, new = np.array([[0.0], [1.0], [1.0]]), np.array([0.0, 1.0, 3.0]), np.array([[1.0]])
    # in float32 a kernel may see equal rows as two points
    for kernel in (NARROW, functools.partial(ntk, depth=3)):
        found = predict(x, y, new, kernel=kernel, noise=1e-4)
        np.testing.assert_allclose(found.mean, 2, atol=1e-5)


def test_repeated_points_are_fine_at_a_finite_time(x64):
    x, y, new = data()
    twice = np.concatenate([x, x])
    once = predict(x, y, new, time=4.0, **NETWORK)
    again = predict(twice, np.concatenate([y - 1, y + 1]), new, time=4.0, **NETWORK)
    np.testing.assert_allclose(again.mean, once.mean, atol=1e-10)
    np.testing.assert_allclose(again.covariance, once.covariance, atol=1e-10)


def test_equal_rows_are_equal_to_the_kernel_too():
    # 30 features: the product of two equal rows and their squared norm round apart
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 30)).astype("f4")
    labels = np.arange(20, dtype="f4")
    for by in ("ntk", "nngp"):
        found = predict(x, labels, x[::-1], depth=3, by=by)
        np.testing.assert_allclose(found.mean, labels[::-1], atol=1e-4)


@pytest.mark.parametrize("noise", [1e-2, 1e-3, 1e-4, 1e-5, 0.0])
@pytest.mark.parametrize("time", [10.0, 1e5, 1e8, math.inf])
@pytest.mark.parametrize("kernel", [rbf, functools.partial(ntk, depth=3)], ids=["rbf", "ntk"])
def test_in_float32_a_prediction_is_right_or_refused(kernel, noise, time):
    x, new = np.linspace(-1, 1, 60)[:, None], np.linspace(-1, 1, 25)[:, None]
    y = np.sin(5 * x[:, 0])
    said = None
    try:
        found = predict(
            *(t.astype("f4") for t in (x, y, new)), kernel=kernel, noise=noise, time=time
        )
    except ValueError as error:
        said = str(error)
    if said:
        assert re.match("(noise needs to be larger|time needs to be at most) ", said)
        assert "jax_enable_x64" in said
    else:
        with jax.enable_x64(True):
            exact = predict(x, y, new, kernel=kernel, noise=noise, time=time)
        np.testing.assert_allclose(found.mean, exact.mean, atol=0.02)


def test_the_way_out_that_is_named_leads_out():
    x = np.linspace(-1, 1, 60)[:, None].astype("f4")
    y = np.sin(5 * x[:, 0])
    with pytest.raises(
        ValueError, match=r"^noise needs .* noise=([\d.e-]+), or a finite time"
    ) as refused:
        predict(x, y, x, kernel=rbf)
    least = float(str(refused.value).split("noise=")[1].split(",")[0])
    found = predict(x, y, x, kernel=rbf, noise=least).mean
    with jax.enable_x64(True):
        exact = predict(x.astype(float), y.astype(float), x, kernel=rbf, noise=least).mean
    np.testing.assert_allclose(found, exact, atol=1e-2)


def test_a_time_beyond_every_component_is_the_end(x64):
    x, y, new = data()
    end = predict(x, y, new, **NETWORK)
    late = predict(x, y, new, time=1e308, **NETWORK)
    np.testing.assert_allclose(late.mean, end.mean, atol=1e-12)
    np.testing.assert_allclose(late.covariance, end.covariance, atol=1e-12)


def test_a_kernel_that_is_zero_learns_nothing_and_says_so():
    x, y, new = data(dtype="float32")

    def kernel(x, y=None):
        return 0 * rbf(x, y)

    np.testing.assert_array_equal(predict(x, y, new, kernel=kernel, time=5.0).mean, 0)
    with pytest.raises(ValueError, match=r"^noise needs to be larger"):
        predict(x, y, new, kernel=kernel)


def test_it_says_that_it_runs_outside_of_transformations(no_hook):
    x, y, new = data(dtype="float32")
    with pytest.raises(TypeError, match=r"^x needs known numbers"):
        jax.jit(lambda t: predict(t, y, new, depth=2).mean)(x)
    with pytest.raises(TypeError, match=r"^noise needs known numbers"):
        jax.grad(lambda s: predict(x, y, new, depth=2, noise=s).mean.sum())(0.1)
