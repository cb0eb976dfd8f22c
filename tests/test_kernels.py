"""Kernels, regression and descent, each against scikit-learn, SciPy or a computation of its own."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.special
from cases import KEY, RNG_SEED, differences, points
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import KernelPCA
from sklearn.gaussian_process.kernels import RBF
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import polynomial_kernel, rbf_kernel

from ntk_lib import kernels
from ntk_lib.kernels import (
    arc_cosine,
    kernel_descent,
    kernel_gradient,
    kernel_regression,
    left_out_errors,
    polynomial,
    principal_components,
    random_features,
    rbf,
    rkhs_norm,
)
from ntk_lib.limiting_ntk import ntk

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
ALL = {
    "rbf": lambda x, y=None: rbf(x, y, bandwidth=1.7),
    "polynomial": lambda x, y=None: polynomial(x, y, degree=3, offset=0.5),
    "arc_cosine_0": lambda x, y=None: arc_cosine(x, y, order=0),
    "arc_cosine_1": lambda x, y=None: arc_cosine(x, y, order=1),
}
every_kernel = pytest.mark.parametrize("kernel", ALL.values(), ids=ALL)
seeds = st.integers(0, 2**16)


def spread(n, d=2, seed=0, dtype="float64"):
    """n points that keep apart: standard normal, well conditioned for every kernel above."""
    return np.random.default_rng([RNG_SEED, seed]).normal(size=(n, d)).astype(dtype)


TARGETS = spread(5, 1, seed=2)[:, 0]
SIGN = np.sign(TARGETS)


# ---------------------------------------------------------------- kernels


def test_rbf_is_that_of_scikit_learn(x64):
    x, y = points(8, 2), points(8, 2, seed=1)
    for bandwidth in (0.3, 2.5):
        ours = rbf(x, y, bandwidth=bandwidth)
        np.testing.assert_allclose(ours, RBF(bandwidth)(x, y), rtol=1e-12)
        gamma = 1 / (2 * bandwidth**2)
        np.testing.assert_allclose(ours, rbf_kernel(x, y, gamma=gamma), rtol=1e-9)


def test_polynomial_is_that_of_scikit_learn(x64):
    x, y = points(6, 3), points(4, 3, seed=1)
    for degree, offset in ((1, 0.0), (3, 1.0), (5, 0.4)):
        ours = polynomial(x, y, degree=degree, offset=offset)
        theirs = polynomial_kernel(x, y, degree=degree, gamma=1.0, coef0=offset)
        np.testing.assert_allclose(ours, theirs, rtol=1e-11)
    np.testing.assert_array_equal(polynomial(x, degree=2), polynomial(x, degree=2, offset=1.0))


def arc_cosine_by_integral(x, y, order):
    """2 E[σ(w·x) σ(w·y)]: in the plane of x and y, a mean over the direction of w.

    The length of w is independent of it, with E‖w‖² = 2; the product is positive on an arc.
    """
    angle = math.acos(x @ y / math.sqrt((x @ x) * (y @ y)))
    t, step = np.linspace(angle - math.pi / 2, math.pi / 2, 200_001, retstep=True)
    if order == 0:
        return 2 * (t[-1] - t[0]) / (2 * math.pi)
    values = 2 * np.cos(t) * np.cos(t - angle)
    integral = step * (values.sum() - (values[0] + values[-1]) / 2)
    return 2 * math.sqrt((x @ x) * (y @ y)) * integral / (2 * math.pi)


@pytest.mark.parametrize("order", [0, 1])
def test_arc_cosine_is_twice_the_expectation_over_random_directions(order, x64):
    x, y = points(3, 4), points(3, 4, seed=1)
    expected = [[arc_cosine_by_integral(p, q, order) for q in y] for p in x]
    np.testing.assert_allclose(arc_cosine(x, y, order=order), expected, rtol=1e-8)


def test_arc_cosine_at_angles_known_by_heart(x64):
    x = np.array([[2.0, 0.0]])
    y = np.array([[1.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(arc_cosine(x, y, order=0)[0], [1, 0.5, 0, 0.75], atol=1e-15)
    oblique = 2 * math.sqrt(2) * (1 + 0.75 * math.pi) / math.sqrt(2) / math.pi
    expected = [2, 6 / math.pi, 0, oblique]
    np.testing.assert_allclose(arc_cosine(x, y, order=1)[0], expected, atol=1e-15)
    np.testing.assert_array_equal(arc_cosine(x, y), arc_cosine(x, y, order=1))


@every_kernel
@quick
@given(d=st.sampled_from([1, 2]), seed=seeds)
def test_grams_are_symmetric_and_positive_semi_definite(kernel, d, seed):
    with jax.enable_x64(True):
        gram = np.asarray(kernel(points(8, d, seed)))
    # in one dimension all points are parallel: an angle is the root of a rounding error
    np.testing.assert_allclose(gram, gram.T, rtol=1e-14)
    values = np.linalg.eigvalsh(gram)
    assert values[0] >= -1e-8 * values[-1]


@every_kernel
def test_a_gram_is_the_kernel_of_the_points_with_themselves(kernel, dtype):
    x = spread(8, dtype=dtype)
    assert kernel(x).dtype == kernel(x, x).dtype == dtype
    # an angle of zero from rounded products is the root of a rounding error
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(kernel(x), kernel(x, x), rtol=10 * eps, atol=math.sqrt(8 * eps))


@every_kernel
def test_kernels_run_under_jit(kernel, dtype):
    x = spread(8, dtype=dtype)
    np.testing.assert_allclose(jax.jit(kernel)(x), kernel(x), rtol=1e-5)


@pytest.mark.parametrize(
    ("matrix", "eigenvalue"),
    [
        pytest.param([[1, 1, 0], [1, 1, 1], [0, 1, 1]], 1 - math.sqrt(2), id="box"),
        pytest.param([[0, 1], [1, 0]], -1.0, id="distance"),
    ],
)
def test_likenesses_that_are_no_kernels_have_a_negative_eigenvalue(matrix, eigenvalue, x64):
    assert principal_components(np.array(matrix, float)).values[-1] * len(matrix) == pytest.approx(
        eigenvalue
    )


# ---------------------------------------------------------------- derivatives


@pytest.mark.parametrize("kernel", [rbf, lambda x, y: arc_cosine(x, y, order=1)])
def test_gradients_at_coincident_points_are_finite_and_right(kernel, dtype):
    x = jnp.asarray(spread(3, 3, dtype=dtype))
    gradient = jax.jit(jax.jacrev(lambda t: jnp.diag(kernel(t, x))))(x)
    assert np.all(np.isfinite(gradient))
    with jax.enable_x64(True):
        step = np.asarray(x, float)
        expected = differences(lambda t: np.diag(kernel(t, np.asarray(x, float))), step, 1e-5)
    np.testing.assert_allclose(gradient, expected, atol=2e-3 if dtype == "float32" else 1e-5)


def test_the_gradient_of_the_gram_is_finite_for_order_0_too(dtype):
    # the function has a corner there; a finite number is what training needs
    x = jnp.asarray(spread(3, 3, dtype=dtype))
    total = jax.jit(jax.grad(lambda t: sum(jnp.sum(arc_cosine(t, order=o)) for o in (0, 1))))
    assert np.all(np.isfinite(total(x)))


# ---------------------------------------------------------------- Gram matrices


def test_principal_components_are_those_of_scikit_learn(x64):
    # on a Gram whose rows have mean zero, uncentred components are the centred ones
    gram = np.asarray(rbf(spread(8)))
    centre = np.eye(8) - 1 / 8
    gram = centre @ gram @ centre
    values, vectors = principal_components(gram)
    theirs = KernelPCA(7, kernel="precomputed").fit(gram)
    np.testing.assert_allclose(values[:7] * 8, theirs.eigenvalues_, rtol=1e-9)
    overlap = np.abs(np.asarray(vectors[:, :7]).T @ theirs.eigenvectors_)
    np.testing.assert_allclose(overlap, np.eye(7), atol=1e-8)


@every_kernel
def test_principal_components_rebuild_the_gram(kernel, dtype):
    gram = np.asarray(kernel(spread(8, dtype=dtype)))
    values, vectors = map(np.asarray, principal_components(gram))
    assert np.all(np.diff(values) <= 0)
    tolerance = 30 * np.finfo(dtype).eps
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(8), atol=tolerance)
    rebuilt = 8 * (vectors * values) @ vectors.T
    np.testing.assert_allclose(rebuilt, gram, atol=tolerance * np.abs(gram).max())


def test_rkhs_norm_is_the_length_of_the_weights_in_feature_space(x64):
    x, alpha = spread(5, 1), np.random.default_rng(3).normal(size=5)
    features = np.hstack([np.ones_like(x), math.sqrt(3) * x, math.sqrt(3) * x**2, x**3])
    norm = rkhs_norm(polynomial(x, degree=3), alpha)
    assert float(norm) == pytest.approx(np.linalg.norm(features.T @ alpha), rel=1e-12)


# ---------------------------------------------------------------- regression


@every_kernel
@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_kernel_regression_is_that_of_scikit_learn(kernel, ridge, x64):
    x, new = spread(8), spread(8, seed=1)
    targets = np.random.default_rng(5).normal(size=8)
    ours = kernel(new, x) @ kernel_regression(kernel(x), targets, ridge=ridge)
    theirs = KernelRidge(alpha=8 * ridge, kernel="precomputed").fit(np.array(kernel(x)), targets)
    np.testing.assert_allclose(ours, theirs.predict(np.array(kernel(new, x))), rtol=1e-8)


def test_kernel_regression_minimises_its_objective(x64):
    gram = np.asarray(rbf(spread(5)))

    def objective(alpha):
        return np.mean((gram @ alpha - TARGETS) ** 2) / 2 + 0.07 / 2 * alpha @ gram @ alpha

    alpha = np.asarray(kernel_regression(gram, TARGETS, ridge=0.07))
    # J is quadratic: without a slope at α it rises equally either way
    for change in spread(20, 5):
        up, down = (objective(alpha + t * change) - objective(alpha) for t in (1, -1))
        assert up > 0
        assert up == pytest.approx(down, abs=1e-12)


@pytest.mark.parametrize("name", ["rbf", "arc_cosine_0", "arc_cosine_1"])
def test_ridgeless_regression_is_the_interpolant_of_least_norm(name, x64):
    gram = np.asarray(ALL[name](spread(8)))
    small = gram[:5, :5]
    alpha = kernel_regression(small, TARGETS)
    expected = scipy.linalg.solve(small, TARGETS, assume_a="pos")
    np.testing.assert_allclose(alpha, expected, rtol=1e-6)
    np.testing.assert_allclose(small @ alpha, TARGETS, atol=1e-10)
    # any function through the same points with bumps elsewhere too is longer
    for seed in range(5):
        values = np.append(TARGETS, spread(3, 1, seed=seed)[:, 0])
        assert rkhs_norm(gram, kernel_regression(gram, values)) > rkhs_norm(small, alpha)


def test_a_column_of_targets_is_one_regression(dtype):
    gram, targets = rbf(spread(5, dtype=dtype)), spread(5, 3, seed=1, dtype=dtype)
    together = kernel_regression(gram, targets, ridge=0.1)
    assert together.dtype == dtype
    for k in range(3):
        alone = kernel_regression(gram, targets[:, k], ridge=0.1)
        np.testing.assert_allclose(together[:, k], alone, rtol=1e-5)


@quick
@given(seed=seeds, ridge=st.floats(1e-4, 10))
def test_coefficients_are_residuals_over_the_ridge(seed, ridge):
    with jax.enable_x64(True):
        gram, y = np.asarray(rbf(points(8, 2, seed))), spread(8, 1, seed)[:, 0]
        alpha = np.asarray(kernel_regression(gram, y, ridge=ridge))
        np.testing.assert_allclose(8 * ridge * alpha, y - gram @ alpha, atol=1e-10)


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_left_out_errors_are_those_of_refitting_without_the_point(ridge, x64):
    gram, y = np.asarray(rbf(spread(6))), spread(6, 2, seed=2)
    errors = left_out_errors(gram, y, ridge=ridge)
    for i in range(6):
        kept = np.arange(6) != i
        # the noise N·ridge stays that of the six points
        refit = KernelRidge(alpha=6 * ridge, kernel="precomputed").fit(
            gram[np.ix_(kept, kept)], y[kept]
        )
        np.testing.assert_allclose(
            errors[i], y[i] - refit.predict(gram[i : i + 1, kept])[0], rtol=1e-8
        )
    alone = left_out_errors(gram, y[:, 0], ridge=ridge)
    np.testing.assert_allclose(alone, errors[:, 0], rtol=1e-12)


def test_repeated_points_with_a_ridge_share_their_targets(x64):
    x = np.array([[0.0], [1.0], [1.0]])
    gram = rbf(x)
    fit = gram @ kernel_regression(gram, np.array([0.0, 1.0, 3.0]), ridge=1e-9)
    np.testing.assert_allclose(fit, [0, 2, 2], atol=1e-6)


SLOW = np.linspace(-1, 1, 200)[:, None], np.linspace(-10 * np.pi, 10 * np.pi, 400)[:, None]


@pytest.mark.parametrize("ridge", [1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 0.0])
@pytest.mark.parametrize(
    ("x", "kernel"),
    [(SLOW[0], rbf), (SLOW[1], functools.partial(ntk, depth=3))],
    ids=["rbf", "ntk"],
)
def test_in_float32_the_coefficients_solve_the_system_or_are_refused(x, kernel, ridge):
    gram, y = kernel(x), np.sin(5 * x[:, 0]) + np.sin(x[:, 0])
    system = np.asarray(gram, float) + len(x) * ridge * np.eye(len(x))
    exact, said = np.asarray(gram, float) @ np.linalg.solve(system, y), None
    try:
        alpha = np.asarray(kernel_regression(gram, y, ridge=ridge), float)
    except ValueError as error:
        said = str(error)
    if said:
        assert ridge <= (1e-6 if len(x) == 200 else 1e-4)
        assert re.match("gram needs to be (better conditioned or|invertible)", said)
        assert "jax_enable_x64" in said
    else:
        assert np.linalg.norm(system @ alpha - y) < 3.5e-4 * np.linalg.norm(y)
        np.testing.assert_allclose(np.asarray(gram, float) @ alpha, exact, atol=5e-3)


def test_the_system_is_solved_in_float64_of_the_gram_that_is_given():
    # 3e-4 of the targets is left where a float32 solver leaves 2e-3
    x = SLOW[0]
    gram, y = np.asarray(rbf(x)), np.sin(5 * x[:, 0]).astype("f4")
    alpha = np.asarray(kernel_regression(gram, y, ridge=1e-6))
    assert alpha.dtype == "float32"
    system = gram.astype(float) + 200e-6 * np.eye(200)
    np.testing.assert_array_equal(alpha, np.linalg.solve(system, y.astype(float)).astype("f4"))
    assert np.linalg.norm(system @ alpha - y) < 5e-5 * np.linalg.norm(y)


def test_the_ridge_that_is_named_where_one_is_refused_is_enough():
    gram, y = rbf(SLOW[0]), np.sin(5 * SLOW[0][:, 0])
    with pytest.raises(
        ValueError, match=r"^gram needs .*\(1\).*\(2\).*\(3\) few digits"
    ) as refused:
        kernel_regression(gram, y, ridge=1e-9)
    kernel_regression(gram, y, ridge=float(re.search(r"ridge=([\d.e-]+)", str(refused.value))[1]))


def test_a_gram_that_float64_cannot_solve_is_refused_too(x64):
    gram, y = rbf(SLOW[0]), np.sign(SLOW[0][:, 0])
    with pytest.raises(ValueError, match=r"^gram needs .*\(2\) a ridge below") as refused:
        kernel_regression(gram, y, ridge=1e-18)
    assert "x64" not in str(refused.value)


def test_zero_targets_have_zero_coefficients(dtype):
    gram = rbf(spread(5, dtype=dtype))
    np.testing.assert_array_equal(kernel_regression(gram, np.zeros(5, dtype), ridge=0.1), 0)


def test_regression_and_norm_run_under_jit(dtype):
    gram, y = rbf(spread(5, dtype=dtype)), jnp.ones(5, dtype)
    fast = jax.jit(lambda g, t: kernel_regression(g, t))(gram, y)
    np.testing.assert_allclose(fast, kernel_regression(gram, y), rtol=1e-3)
    np.testing.assert_allclose(jax.jit(rkhs_norm)(gram, y), rkhs_norm(gram, y), rtol=1e-5)


# ---------------------------------------------------------------- random features

FEATURES = {
    "rbf": ({"kernel": "rbf", "bandwidth": 0.8}, lambda x, y: rbf(x, y, bandwidth=0.8)),
    "step": ({"kernel": "arc_cosine", "order": 0}, lambda x, y: arc_cosine(x, y, order=0)),
    "relu": ({"kernel": "arc_cosine", "order": 1}, lambda x, y: arc_cosine(x, y, order=1)),
}
every_feature = pytest.mark.parametrize(("options", "kernel"), FEATURES.values(), ids=FEATURES)


@every_feature
def test_the_mean_product_of_random_features_is_the_kernel(options, kernel, x64):
    x, y, count = spread(5), spread(5, seed=1), 100_000
    phi, psi = (np.asarray(random_features(t, key=KEY, count=count, **options)) for t in (x, y))
    products = phi[:, None] * psi[None]
    error = products.std(-1, ddof=1) / math.sqrt(count)
    assert np.all(np.abs(products.mean(-1) - kernel(x, y)) < 4.5 * error)
    assert error.max() < 0.03


def test_the_variance_of_random_cosines_is_the_one_of_the_chapter(x64):
    x = spread(5)
    phi = np.asarray(random_features(x, key=KEY, count=100_000))
    products = phi[:, None] * phi[None]
    k = np.asarray(rbf(x))
    np.testing.assert_allclose(products.var(-1), 1 + k**4 / 2 - k**2, atol=0.02)


def test_their_error_falls_as_the_root_of_their_number(x64):
    x, size = spread(5), {}
    pool = np.split(np.asarray(random_features(x, key=KEY, count=100_000)), [6_000], axis=1)
    for count, features in zip((50, 800), pool, strict=True):
        draws = features[:, : features.shape[1] // count * count].reshape(5, -1, count)
        estimates = np.einsum("idp,jdp->dij", draws, draws) / count
        size[count] = np.mean((estimates - np.asarray(rbf(x))) ** 2)
    # over 100 draws of a mean of 25 entries: known to some 15 %
    assert size[50] / size[800] == pytest.approx(16, rel=0.4)


@every_feature
def test_one_key_is_one_set_of_functions(options, kernel, dtype):
    x, count = spread(5, dtype=dtype), 100_000  # the shapes of the tests above: compiled once
    phi = np.asarray(random_features(x, key=KEY, count=count, **options))
    assert phi.shape == (5, count)
    assert phi.dtype == dtype
    backwards = random_features(x[::-1], key=KEY, count=count, **options)
    # an eps of cos ω·x is a few eps of the largest ω·x
    np.testing.assert_allclose(backwards, phi[::-1], atol=100 * np.finfo(dtype).eps)
    other = random_features(x, key=jax.random.key(1), count=count, **options)
    assert not np.array_equal(other, phi)


# ---------------------------------------------------------------- descent


def least_squares(f):
    return jnp.mean((f - TARGETS.astype(f.dtype)) ** 2) / 2


def logistic(f):
    return jnp.mean(jnp.logaddexp(jnp.zeros((), f.dtype), -SIGN.astype(f.dtype) * f))


def mean_is_four(f):
    return (jnp.mean(f) - 4) ** 2 / 2


# d by hand, and how fast it can change
COSTS = {
    "least squares": (least_squares, lambda f: f - TARGETS, 1.0),
    "logistic": (logistic, lambda f: -SIGN * scipy.special.expit(-SIGN * f), 0.25),
    "mean": (mean_is_four, lambda f: np.full(5, f.mean() - 4), 1.0),
}
every_cost = pytest.mark.parametrize(("cost", "d", "M"), COSTS.values(), ids=COSTS)


def test_the_kernel_gradient_of_the_chapter_computed_by_hand(x64):
    data, everywhere = np.array([[0.0], [1.0]]), np.array([[0.0], [1.0], [2.0]])
    kernel = polynomial(everywhere, data, degree=1)

    def cost(f):
        return jnp.mean((f - jnp.array([1.0, 3.0])) ** 2) / 2

    # -2 - 3x/2
    np.testing.assert_allclose(kernel_gradient(kernel, cost, np.zeros(2)), [-2, -3.5, -5])


@every_cost
def test_the_kernel_gradient_carries_d_from_the_data_to_every_point(cost, d, M, x64):
    x, new = spread(5), spread(3, seed=1)
    f = spread(5, 1, seed=4)[:, 0]
    kernel = rbf_kernel(new, x, gamma=0.5)
    expected = [sum(kernel[i, j] * d(f)[j] for j in range(5)) / 5 for i in range(3)]
    np.testing.assert_allclose(kernel_gradient(kernel, cost, f), expected, rtol=1e-10)


@every_cost
def test_the_cost_falls_at_the_rate_of_the_squared_norm_of_d(cost, d, M, x64):
    gram, f = np.asarray(rbf(spread(5))), spread(5, 1, seed=4)[:, 0]
    gradient, step = np.asarray(kernel_gradient(gram, cost, f)), 1e-6
    rate = (cost(jnp.asarray(f - step * gradient)) - cost(jnp.asarray(f + step * gradient))) / step
    assert float(rate) / 2 == pytest.approx(-d(f) @ gram @ d(f) / 25, rel=1e-6)


@every_cost
def test_descent_repeats_the_step_and_the_cost_falls(cost, d, M, x64):
    x = spread(5)
    kernel = np.asarray(rbf(np.vstack([x, spread(3, seed=1)]), x))
    rate = 1 / (M * float(principal_components(kernel[:5]).values[0]))
    start = spread(8, 1, seed=4)[:, 0]
    path = kernel_descent(kernel, cost, rate=rate, steps=40, start=start)
    f = start.copy()
    for s in range(41):
        np.testing.assert_allclose(path.f[s], f, atol=1e-12)
        assert float(path.cost[s]) == pytest.approx(float(cost(jnp.asarray(f[:5]))), abs=1e-14)
        promised = rate / 2 * d(f[:5]) @ kernel[:5] @ d(f[:5]) / 25
        f = f - rate * kernel @ d(f[:5]) / 5
        assert cost(jnp.asarray(f[:5])) <= path.cost[s] - promised + 1e-15


@pytest.mark.parametrize("name", ["rbf", "arc_cosine_0", "arc_cosine_1"])
def test_descent_of_least_squares_ends_at_the_ridgeless_interpolant_everywhere(name, x64):
    kernel, x = ALL[name], spread(5)
    everywhere = np.vstack([x, spread(4, seed=1)])
    gram = kernel(everywhere, x)
    values = principal_components(gram[:5]).values
    # e^-30 of the slowest component is left
    steps = int(30 * values[0] / values[-1])
    path = kernel_descent(gram, least_squares, rate=1 / float(values[0]), steps=steps)
    interpolant = gram @ kernel_regression(gram[:5], TARGETS)
    np.testing.assert_allclose(path.f[-1], interpolant, atol=1e-9)
    start = np.cos(everywhere[:, 0])
    path = kernel_descent(gram, least_squares, rate=1 / float(values[0]), steps=steps, start=start)
    corrected = start + gram @ kernel_regression(gram[:5], TARGETS - start[:5])
    np.testing.assert_allclose(path.f[-1], corrected, atol=1e-9)


def test_descent_is_bounded_by_the_ridge_objective_of_one_over_the_time(x64):
    gram = np.asarray(rbf(spread(5)))
    rate = 1 / float(principal_components(gram).values[0])
    path = kernel_descent(gram, least_squares, rate=rate, steps=200)
    for s in (1, 5, 25, 200):
        ridge = 1 / (rate * s)
        alpha = kernel_regression(gram, TARGETS, ridge=ridge)
        objective = least_squares(gram @ alpha) + ridge / 2 * rkhs_norm(gram, alpha) ** 2
        assert path.cost[s] < objective


@every_cost
def test_descent_with_random_functions_is_descent_on_their_coefficients(cost, d, M, x64):
    x, count, rate = np.vstack([spread(5), spread(3, seed=1)]), 9, 0.3
    phi = np.asarray(random_features(x, key=KEY, count=count))
    theta = np.zeros(count)
    for _ in range(40):
        theta -= rate * phi[:5].T @ d(phi[:5] @ theta / math.sqrt(count)) / 5 / math.sqrt(count)
    path = kernel_descent(phi @ phi[:5].T / count, cost, rate=rate, steps=40)
    np.testing.assert_allclose(path.f[-1], phi @ theta / math.sqrt(count), atol=1e-13)


def test_descent_keeps_the_dtype_and_runs_under_jit(dtype):
    gram = rbf(spread(5, dtype=dtype))

    def end(kernel):
        return kernel_descent(kernel, logistic, rate=0.5, steps=3).f

    assert end(gram).dtype == dtype
    assert end(gram).shape == (4, 5)
    np.testing.assert_allclose(jax.jit(end)(gram), end(gram), rtol=1e-5)
    none = kernel_descent(gram, logistic, rate=0.5, steps=0)
    assert none.f.shape == (1, 5)
    assert float(none.cost[0]) == pytest.approx(math.log(2), rel=1e-6)


def test_what_the_cost_reads_is_read_at_every_call(x64):
    gram, held = np.eye(2), {"targets": np.array([1.0, 2.0]), "factor": 1.0}

    def cost(f):
        return held["factor"] * jnp.mean((f - held["targets"]) ** 2) / 2

    def end():
        return kernel_descent(gram, cost, rate=1.0, steps=1).f[-1]

    np.testing.assert_allclose(end(), [0.5, 1.0])
    held["targets"][:] = [3, 5]
    np.testing.assert_allclose(end(), [1.5, 2.5])
    held["factor"] = 0.5
    np.testing.assert_allclose(end(), [0.75, 1.25])
    np.testing.assert_allclose(kernel_gradient(gram, cost, np.zeros(2)), [-0.75, -1.25])
    held["targets"] = np.zeros((2, 1))  # now the cost is no number
    cost = lambda f: f * held["targets"][:, 0]  # noqa: E731
    with pytest.raises(ValueError, match=r"^cost needs to return one number"):
        end()


def test_a_new_cost_of_the_same_code_compiles_nothing(x64):
    gram, sizes = np.eye(2), []
    for number in (1.0, 2.0, 3.0):
        targets = jnp.full(2, number)
        cost = lambda f: jnp.mean((f - targets) ** 2) / 2  # noqa: B023, E731
        end = kernel_descent(gram, cost, rate=1.0, steps=1).f[-1]
        np.testing.assert_allclose(end, targets / 2)
        sizes.append(kernels._descent._cache_size())
    assert sizes[0] == sizes[2]


def test_descent_is_differentiated_through_its_cost(x64):
    gram = np.eye(2)

    def end(targets):
        cost = lambda f: jnp.mean(jax.nn.relu(f - targets) ** 2) / 2  # noqa: E731
        return kernel_descent(gram, cost, rate=1.0, steps=1).f[-1].sum()

    np.testing.assert_allclose(jax.grad(end)(jnp.array([-1.0, 2.0])), [0.5, 0.0])


# ---------------------------------------------------------------- rounding is no bad input


def test_a_gram_of_parallel_points_is_symmetric_and_accepted(dtype):
    x = spread(6, 1, dtype=dtype)
    gram = arc_cosine(x, order=0)
    np.testing.assert_array_equal(gram, np.asarray(gram).T)
    assert np.all(np.isfinite(kernel_regression(gram, x[:, 0], ridge=0.1)))


def test_a_gram_with_rounding_noise_is_accepted(dtype):
    # rank 3 on 40 points: 37 eigenvalues are noise of either sign
    gram = polynomial(spread(40, 1, dtype=dtype), degree=2)
    assert np.isfinite(rkhs_norm(gram, np.ones(40, dtype)))
    assert np.all(np.isfinite(kernel_regression(gram, np.ones(40, dtype), ridge=0.1)))
    with pytest.raises(ValueError, match="gram needs to be invertible"):
        kernel_regression(gram, np.ones(40, dtype))
