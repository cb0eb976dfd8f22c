"""Products, regression and dynamics without the kernel, held against the same with the kernel."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, points
from scipy.linalg import expm

from ntk_lib import scale
from ntk_lib.engine.tangent_kernels import as_matrix, empirical_ntk, tangent_product
from ntk_lib.kernels import rbf
from ntk_lib.limiting_ntk import ntk
from ntk_lib.scale import conjugate_gradients, flow, kernel_product, regression
from ntk_lib.wide_networks import apply, init

TANGENT = functools.partial(ntk, depth=3, gain=2.0)
N = 34
KEPT = 2**20  # bytes, for every block: where what is tested is not how often they are computed


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 16: 34 points make two blocks and a part of one."""
    monkeypatch.setattr(scale, "BLOCK", 16)


def data(dtype="float64", columns=()):
    x = points(N, 4, dtype=dtype)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x, np.random.default_rng(5).normal(size=(N, *columns)).astype(dtype)


def held(x, y=None):
    """The kernel in float64, whatever the points."""
    with jax.enable_x64(True):
        return np.asarray(TANGENT(x.astype(float), None if y is None else y.astype(float)))


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("columns", [(), (3,)])
def test_the_product_is_that_of_the_kernel(columns, dtype):
    x, v = data(dtype, columns)
    y = points(21, 4, seed=1, dtype=dtype)
    rounding = 200 * np.finfo(dtype).eps
    for other, w in ((None, v), (y, v[:21])):
        product, kernel = kernel_product(TANGENT, x, w, other), held(x, other)
        assert product.dtype == dtype
        assert product.shape == (N, *columns)
        bound = rounding * (np.abs(kernel) @ np.abs(w)).max()
        np.testing.assert_allclose(product, kernel @ w, rtol=0, atol=bound)


def test_no_block_is_larger_than_it_may_be_and_none_is_computed_twice():
    x, v = data("float32")
    asked = []

    def kernel(x, y=None):
        asked.append((len(x), len(x if y is None else y), y is None))
        return TANGENT(x, y)

    kernel_product(kernel, x, v)
    assert max(max(rows, columns) for rows, columns, _ in asked) == 16
    # three on the diagonal, as kernels of points with themselves, and three above it
    assert [alone for *_, alone in asked].count(True) == 3
    assert len(asked) == 6
    asked.clear()
    kernel_product(kernel, x, v[:20], x[:20])
    assert sum(rows * columns for rows, columns, _ in asked) == N * 20
    assert not any(alone for *_, alone in asked)


def test_any_kernel_function_will_do(x64):
    x, v = data()
    kernel = functools.partial(rbf, bandwidth=0.7)
    np.testing.assert_allclose(kernel_product(kernel, x, v), kernel(x) @ v, rtol=1e-12)


# ---------------------------------------------------------------- regression


@pytest.mark.parametrize(
    ("landmarks", "ridge"), [(0, 0.0), (0, 1e-3), (1, 1e-3), (20, 0.0), (N, 1e-3)]
)
def test_regression_solves_the_system(ridge, landmarks, x64):
    x, targets = data(columns=(2,))
    kernel = held(x)
    solution = regression(TANGENT, x, targets, ridge=ridge, landmarks=landmarks, key=KEY)
    matrix = kernel + N * ridge * np.eye(N)
    exact = np.linalg.solve(matrix, targets)
    # a residual of 1e-10 is multiplied by at most the condition number
    error = np.linalg.norm(solution.coefficients - exact) / np.linalg.norm(exact)
    assert error < 1e-10 * np.linalg.cond(matrix)
    left = np.linalg.norm(matrix @ solution.coefficients - targets) / np.linalg.norm(targets)
    assert solution.residual == pytest.approx(left, rel=0.1)
    assert left < 1e-9
    assert solution.steps > 0


@pytest.mark.parametrize(("memory", "kept"), [(2047, 0), (2048, 1), (6687, 5), (6688, 6)])
def test_kept_blocks_change_the_work_and_not_the_result(memory, kept, x64):
    """Six blocks a product: three of 2048 bytes, two of 256, and the last of 32."""
    x, targets = data()
    asked = []

    def kernel(x, y=None):
        asked.append(len(x))
        return TANGENT(x, y)

    plain = regression(kernel, x, targets, ridge=1e-3)
    products, rest = divmod(len(asked), 6)
    assert products > 2
    assert rest == 0
    asked.clear()
    solution = regression(kernel, x, targets, ridge=1e-3, memory=memory)
    assert len(asked) == 6 + (products - 1) * (6 - kept)
    np.testing.assert_array_equal(solution.coefficients, plain.coefficients)


def test_all_systems_of_a_flow_use_the_kept_blocks(x64):
    x, start = data()
    asked = []

    def kernel(x, y=None):
        asked.append(len(x))
        return TANGENT(x, y)

    kept = flow(kernel, x, start, np.array([1.0, 2.0]), memory=6688)
    assert len(asked) == 6
    np.testing.assert_array_equal(kept, flow(TANGENT, x, start, np.array([1.0, 2.0])))


def test_predictions_are_those_of_the_interpolant(x64):
    x, targets = data()
    new = points(7, 4, seed=9)
    alpha = regression(TANGENT, x, targets).coefficients
    expected = held(new, x) @ np.linalg.solve(held(x), targets)
    np.testing.assert_allclose(kernel_product(TANGENT, new, alpha, x), expected, rtol=1e-6)
    np.testing.assert_allclose(kernel_product(TANGENT, x, alpha), targets, atol=1e-8)


def test_float32_points_reach_the_float32_tolerance():
    x, targets = data("float32")
    solution = regression(TANGENT, x, targets, ridge=1e-3)
    exact = np.linalg.solve(held(x) + N * 1e-3 * np.eye(N), targets)
    assert solution.coefficients.dtype == "float32"
    assert solution.residual < 3e-5
    error = np.linalg.norm(solution.coefficients - exact) / np.linalg.norm(exact)
    assert error < 1e-3


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_landmarks_save_steps_and_all_of_them_solve_at_once(ridge, x64):
    x, targets = data()
    steps = {
        count: regression(TANGENT, x, targets, ridge=ridge, landmarks=count, key=KEY).steps
        for count in (0, 25, N)
    }
    assert steps[25] < steps[0] / (1.5 if ridge == 0 else 1)
    assert steps[N] <= 4


@pytest.mark.parametrize("landmarks", [1, 20, N])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_landmarks_help_by_the_inverse_of_nystroms_approximation(landmarks, shift, x64):
    x, v = data(columns=(2,))
    found = scale._landmarks(TANGENT, jnp.asarray(x), landmarks, KEY)(v, shift)
    chosen = x[np.asarray(jax.random.choice(KEY, N, (landmarks,), replace=False))]
    columns = held(x, chosen)
    values, vectors = np.linalg.eigh(columns @ np.linalg.solve(held(chosen), columns.T))
    s, inside = values[-landmarks:], vectors[:, -landmarks:].T @ v
    within = vectors[:, -landmarks:]
    # where it does not reach, the kernel counts as its smallest eigenvalue
    expected = within @ (inside / (s + shift)[:, None]) + (v - within @ inside) / (s[0] + shift)
    # the lift by ε times the trace, over the smallest eigenvalue, and the condition number times ε
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_a_kernel_that_is_indefinite_at_the_landmarks_is_refused(no_hook, x64):
    x, targets = data()

    def indefinite(x, y=None):
        return TANGENT(x, y) - 2 * TANGENT(x, y) ** 2

    with pytest.raises(ValueError, match=r"^kernel needs to be positive semi-definite, .* 5 land"):
        regression(indefinite, x, targets, landmarks=5, key=KEY)


def test_the_residual_in_the_result_is_the_true_one():
    """The solver's own account goes below what float32 products can reach."""
    x, targets = data("float32")
    solution = regression(TANGENT, x, targets, ridge=1e-6, tolerance=1e-9)
    matrix = held(x) + N * 1e-6 * np.eye(N)
    left = np.linalg.norm(matrix @ np.asarray(solution.coefficients, float) - targets)
    assert solution.residual > 1e-8
    # each of the two roundings moves it: of the products, and of the coefficients that are returned
    rounding = np.finfo("float32").eps * np.abs(matrix).sum(axis=1).max()
    rounding *= np.linalg.norm(solution.coefficients)
    assert abs(solution.residual * np.linalg.norm(targets) - left) < rounding


def test_no_more_landmark_columns_than_asked_for_are_held():
    x, targets = data("float32")
    asked = []

    def kernel(x, y=None):
        asked.append((len(x), len(x if y is None else y)))
        return TANGENT(x, y)

    regression(kernel, x, targets, ridge=1.0, landmarks=9, key=KEY, max_steps=50)
    assert asked[:4] == [(16, 9), (16, 9), (2, 9), (9, 9)]


def test_steps_that_do_not_suffice_are_told(no_hook, x64):
    x, targets = data()
    with pytest.raises(RuntimeError, match=r"^conjugate gradients did not reach .* 1e-10 in 3 ste"):
        regression(TANGENT, x, targets, max_steps=3)


def test_zero_targets_have_zero_coefficients(x64):
    x, _ = data()
    solution = regression(TANGENT, x, np.zeros(N))
    np.testing.assert_array_equal(solution.coefficients, 0)
    assert solution.residual == 0


def test_conjugate_gradients_solve_a_networks_own_system_by_products(x64):
    x = jnp.asarray(points(8, 3))
    params = init((3, 30, 2), key=KEY)
    b = np.random.default_rng(1).normal(size=(8, 2))
    solution = conjugate_gradients(
        lambda v: tangent_product(apply, params, x, v), b, shift=0.1, tolerance=1e-10
    )
    matrix = np.asarray(as_matrix(empirical_ntk(apply, params, x))) + 0.1 * np.eye(16)
    exact = np.linalg.solve(matrix, b.reshape(-1)).reshape(8, 2)
    np.testing.assert_allclose(solution.coefficients, exact, rtol=1e-6, atol=1e-7)
    assert solution.residual < 1e-9


@pytest.mark.parametrize(("entries", "shown"), [(N**2 + 1, False), (N**2, True)])
def test_long_work_shows_its_steps(entries, shown, monkeypatch, capsys, x64):
    monkeypatch.setattr(scale, "LONG", entries)
    x, targets = data()
    steps = regression(TANGENT, x, targets, ridge=0.1).steps
    said = capsys.readouterr().err
    assert (f"{steps}step" in said and "regression" in said) == shown
    assert bool(said) == shown


# ---------------------------------------------------------------- dynamics


def test_the_polynomial_is_within_its_bound_for_every_time():
    # what is claimed of it: e^(−z) = 1 − z ψ(z) to 5e-8 for z from 0 to infinity
    z = np.concatenate([[1e-12], 10.0 ** np.linspace(-6, 12, 100_001)])
    w = 1 / (1 + z / scale.NU)
    found = w * np.polynomial.chebyshev.chebval(2 * w - 1, scale._flow_coefficients())
    assert np.abs(1 - z * found - np.exp(-z)).max() < 5e-8


@pytest.mark.parametrize(("columns", "landmarks"), [((), 0), ((2,), 20)])
def test_the_flow_is_the_matrix_exponential(columns, landmarks, x64):
    x, start = data(columns=columns)
    times = np.array([0.0, 0.3, 20.0, 1e4])
    path = np.asarray(flow(TANGENT, x, start, times, landmarks=landmarks, key=KEY, memory=KEPT))
    kernel = held(x)
    assert path.shape == (4, *start.shape)
    np.testing.assert_array_equal(path[0], 0)
    for t, c in zip(times, path, strict=True):
        left = start + kernel @ c
        error = np.linalg.norm(left - expm(-t * kernel / N) @ start)
        assert error < 2e-7 * np.linalg.norm(start), t


def test_the_flow_ends_at_the_ridgeless_interpolant_and_starts_along_the_kernel(x64):
    x, start = data()
    new = points(7, 4, seed=9)
    early, late = flow(TANGENT, x, start, np.array([1e-4, 1e9]), memory=KEPT)
    # f_t − f₀ = −(t/N) K u₀ at first
    expected = -1e-4 / N * held(new, x) @ start
    np.testing.assert_allclose(kernel_product(TANGENT, new, early, x), expected, rtol=1e-3)
    interpolant = -held(new, x) @ np.linalg.solve(held(x), start)
    np.testing.assert_allclose(kernel_product(TANGENT, new, late, x), interpolant, rtol=1e-5)


@pytest.mark.parametrize("landmarks", [0, 20])
def test_the_flow_at_infinite_time_is_the_ridgeless_interpolant(landmarks, x64):
    x, start = data(columns=(2,))
    path = flow(
        TANGENT, x, start, np.array([1.0, np.inf]), landmarks=landmarks, key=KEY, memory=KEPT
    )
    exact = -np.linalg.solve(held(x), start)
    np.testing.assert_allclose(path[1], exact, rtol=0, atol=1e-6 * np.abs(exact).max())
    np.testing.assert_allclose(
        path[0], flow(TANGENT, x, start, np.ones(1), memory=KEPT)[0], atol=1e-6
    )


def test_the_flow_in_float32():
    x, start = data("float32")
    (c,) = np.asarray(flow(TANGENT, x, start, np.array([5.0])), float)
    kernel = held(x)
    error = np.linalg.norm(start + kernel @ c - expm(-5 * kernel / N) @ start)
    # seventeen systems of equations, each solved to 1e-5 of its right side, which is at most start
    assert error < 17e-5 * np.linalg.norm(start)


def test_no_times_give_no_path(x64):
    x, start = data()
    assert flow(TANGENT, x, start, np.zeros(0)).shape == (0, N)
