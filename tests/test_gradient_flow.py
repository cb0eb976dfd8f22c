"""Descent and flow, each against an independent computation.

Descent against a NumPy loop, the flow against SciPy's integrator and closed forms, the linear
flow against the matrix exponential.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
from cases import RNG_SEED, differences, points
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.gradient_flow import (
    critical_rate,
    descent_path,
    gradient_descent,
    gradient_flow,
    linear_descent,
    linear_flow,
)
from ntk_lib.page.check import slope

jitted = jax.jit(empirical_ntk, static_argnums=0)  # compiling operation by operation takes seconds
quick = settings(deadline=None, derandomize=True, max_examples=20, database=None)

# ---------------------------------------------------------------- costs to descend


def bent(p):
    """A cost with curved valleys on the pytree {"a": (2,), "b": ()}."""
    a, b = p["a"], p["b"]
    return jnp.sum((a**2 - b) ** 2) / 2 + (jnp.sum(a) - 1) ** 2 + jnp.cos(b) / 4


def bent_numpy(w):
    a, b = w[:2], w[2]
    return np.sum((a**2 - b) ** 2) / 2 + (np.sum(a) - 1) ** 2 + np.cos(b) / 4


def bent_gradient(w):
    a, b = w[:2], w[2]
    by_a = 2 * a * (a**2 - b) + 2 * (np.sum(a) - 1)
    return np.append(by_a, -np.sum(a**2 - b) - np.sin(b) / 4)


def bent_start(dtype=None):
    return {"a": jnp.asarray([0.9, -0.4], dtype), "b": jnp.asarray(1.3, dtype)}


W0 = np.array([0.9, -0.4, 1.3])


def flat(p):
    """One row a time or step."""
    return np.concatenate([np.asarray(p["a"]), np.asarray(p["b"])[:, None]], axis=1)


def test_the_gradient_of_the_oracle_is_right():
    np.testing.assert_allclose(differences(bent_numpy, W0, 1e-6), bent_gradient(W0), atol=1e-8)


# ---------------------------------------------------------------- descent


def numpy_path(rate, steps):
    path = [W0]
    for _ in range(steps):
        path.append(path[-1] - rate * bent_gradient(path[-1]))
    return np.array(path)


def test_descent_is_the_loop_of_steps(x64):
    expected = numpy_path(0.07, 25)
    np.testing.assert_allclose(
        flat(descent_path(bent, bent_start(), rate=0.07, steps=25)), expected, rtol=1e-12
    )
    last, cost = gradient_descent(bent, bent_start(), rate=0.07, steps=25)
    np.testing.assert_allclose(np.append(last["a"], last["b"]), expected[-1], rtol=1e-12)
    np.testing.assert_allclose(cost, [bent_numpy(w) for w in expected[:-1]], rtol=1e-12)


def test_no_steps_leave_the_parameters_where_they_are(dtype):
    start = bent_start(dtype)
    last, cost = gradient_descent(bent, start, rate=0.1, steps=0)
    path = descent_path(bent, start, rate=0.1, steps=0)
    assert cost.shape == (0,)
    assert path["a"].shape == (1, 2)
    np.testing.assert_array_equal(last["a"], start["a"])
    np.testing.assert_array_equal(path["b"], start["b"][None])


@pytest.mark.parametrize("rate", [0.1, np.float64(0.1), np.float32(0.1)])
def test_descent_keeps_the_dtype_of_the_parameters(rate, x64):
    start = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones((), jnp.float32)}
    last, cost = gradient_descent(bent, start, rate=rate, steps=3)
    path = descent_path(bent, start, rate=rate, steps=3)
    kinds = {leaf.dtype for leaf in jax.tree.leaves((last, cost, path))}
    assert kinds == {jnp.dtype("float32")}


def test_a_rate_may_be_traced(x64):
    @jax.jit
    def both(rate):
        path = descent_path(bent, bent_start(), rate=rate, steps=5)
        return gradient_descent(bent, bent_start(), rate=rate, steps=5).params, path

    last, path = both(0.05)
    np.testing.assert_allclose(flat(path), numpy_path(0.05, 5), rtol=1e-12)
    np.testing.assert_allclose(last["a"], path["a"][-1], rtol=1e-12)
    with pytest.raises(TypeError, match=r"^rate needs a real number, got shape \(2,\)"):
        both(jnp.ones(2))


def test_descent_takes_plain_numbers_as_parameters(dtype):
    last, _ = gradient_descent(lambda w: (w - 3.0) ** 2 / 2, 1.0, rate=0.5, steps=2)
    assert float(last) == 2.5


# ---------------------------------------------------------------- the flow

TIMES = np.array([0.0, 0.3, 0.3, 0.9999, 1.0, 1.0001, 12.0])


def scipy_flow(times, start=W0):
    solution = scipy.integrate.solve_ivp(
        lambda t, w: -bent_gradient(w),
        (0, times[-1]),
        start,
        method="DOP853",
        rtol=1e-12,
        atol=1e-13,
        t_eval=np.unique(times),
    )
    return solution.y.T[np.searchsorted(np.unique(times), times)]


def test_the_flow_is_scipys_to_its_tolerance(dtype):
    # errors of single steps add up and are carried along: a factor of 100 over the tolerance
    tolerance = np.finfo(dtype).eps ** (2 / 3)
    path = gradient_flow(bent, bent_start(dtype), times=TIMES.astype(dtype))
    assert path["a"].dtype == path["b"].dtype == dtype
    np.testing.assert_allclose(flat(path), scipy_flow(TIMES), atol=100 * tolerance)
    np.testing.assert_array_equal(path["a"][0], bent_start(dtype)["a"])
    if dtype == "float64":  # the cost falls at the rate of the squared gradient
        before, now, after = flat(path)[3:6]
        fall = (bent_numpy(after) - bent_numpy(before)) / 2e-4
        assert fall == pytest.approx(-np.sum(bent_gradient(now) ** 2), rel=1e-5)


def test_a_tolerance_asked_for_is_kept(x64):
    tolerance = 1e-5
    path = gradient_flow(bent, bent_start(), times=TIMES, tolerance=tolerance)
    error = np.abs(flat(path) - scipy_flow(TIMES)).max()
    assert 1e-4 * tolerance < error < 100 * tolerance


def test_the_flow_of_one_square_is_the_logistic_function_and_may_end_where_it_starts(x64):
    times = np.linspace(0, 3, 7)
    run = jax.jit(lambda ts: gradient_flow(lambda z: (z**2 - 1) ** 2 / 2, 0.2, times=ts))
    square = np.asarray(run(times)) ** 2
    np.testing.assert_allclose(square, 1 / (1 + (1 / 0.04 - 1) * np.exp(-4 * times)), rtol=1e-8)
    np.testing.assert_array_equal(run(0 * times), np.full(7, 0.2))


def test_the_flow_works_under_jit_and_vmap(x64):
    both = jax.tree.map(lambda w: jnp.stack([w, -w]), bent_start())
    run = jax.jit(jax.vmap(lambda p: gradient_flow(bent, p, times=np.array([0.5, 2.0]))))
    paths = run(both)
    for i, start in enumerate((W0, -W0)):
        path = flat(jax.tree.map(lambda w, i=i: w[i], paths))
        np.testing.assert_allclose(path, scipy_flow(np.array([0.5, 2.0]), start), atol=1e-8)


def test_descent_comes_near_the_flow_in_proportion_to_the_rate(x64):
    exact, rates = scipy_flow(np.array([2.0]))[0], np.array([0.008, 0.004, 0.002, 0.001])
    errors = [np.linalg.norm(numpy_path(r, round(2 / r))[-1] - exact) for r in rates]
    assert slope(rates, np.array(errors)).value == pytest.approx(1, abs=0.03)


def runaway(w):
    return -(w**4) / 4  # w' = w³ leaves every bound at t = 1/2


@pytest.mark.parametrize("cost", [runaway, lambda w: jnp.sqrt(w - 2)], ids=["away", "nan"])
def test_a_flow_that_does_not_arrive_is_an_error(cost, x64):
    says = r"^gradient_flow did not reach the last time within 300 steps: .* max"
    with pytest.raises(RuntimeError, match=says):
        gradient_flow(cost, 1.0, times=np.array([1.0]), max_steps=300)


def test_a_runaway_flow_is_an_error_under_jit_too(x64):
    run = jax.jit(lambda w: gradient_flow(runaway, w, times=np.array([1.0]), max_steps=300))
    with pytest.raises(RuntimeError, match="gradient_flow did not reach"):
        jax.block_until_ready(run(1.0))


# ---------------------------------------------------------------- a kernel at rest


def positive(n, rank, seed):
    """A positive semi-definite kernel and a start."""
    rng = np.random.default_rng([RNG_SEED, seed])
    factors = rng.normal(size=(n, rank))
    return factors @ factors.T / n, rng.normal(size=n)


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 5), (5, 2)])
def test_the_linear_flow_is_the_matrix_exponential(n, rank, dtype):
    kernel, start = (t.astype(dtype) for t in positive(n, rank, seed=n))
    times = np.array([0.0, 0.2, 1.0, 7.5, -0.1], dtype)  # backwards too
    flow = linear_flow(kernel, start, times)
    expected = [scipy.linalg.expm(-kernel.astype(float) * float(t)) @ start for t in times]
    assert flow.dtype == dtype
    np.testing.assert_allclose(flow, expected, atol=1e3 * np.finfo(dtype).eps)


@pytest.mark.parametrize("rank", [5, 2])
def test_at_infinite_time_the_modes_of_eigenvalue_zero_are_left(rank, dtype):
    kernel, start = (t.astype(dtype) for t in positive(5, rank, seed=5))
    flow = linear_flow(kernel, start, np.array([0.0, math.inf, 1.0], dtype))
    assert flow.dtype == dtype
    values, vectors = np.linalg.eigh(kernel.astype(float))
    null = vectors[:, values < 1e-5 * values[-1]]
    assert null.shape[1] == 5 - rank
    tolerance = 1e3 * np.finfo(dtype).eps
    np.testing.assert_allclose(flow[1], null @ null.T @ start, atol=tolerance)
    finite = linear_flow(kernel, start, np.array([0, 1], dtype))
    np.testing.assert_allclose(flow[0::2], finite, atol=8 * np.finfo(dtype).eps)
    inside = jax.jit(lambda t: linear_flow(kernel, start, t))(np.array([math.inf], dtype))
    np.testing.assert_allclose(inside[0], flow[1], atol=tolerance)


def test_several_outputs_flow_and_descend_as_each_alone(dtype):
    kernel, start = (t.astype(dtype) for t in positive(5, 5, seed=5))
    columns, times = np.stack([start, start**2], axis=1), np.array([0.3, 2.0, math.inf], dtype)
    flow = linear_flow(kernel, columns, times)
    descent = linear_descent(kernel, columns, rate=0.1, steps=[0, 7])
    assert (flow.shape, descent.shape) == ((3, 5, 2), (2, 5, 2))
    assert flow.dtype == descent.dtype == dtype
    for k in range(2):
        alone = linear_flow(kernel, columns[:, k], times)
        np.testing.assert_allclose(flow[:, :, k], alone, atol=1e-5)
        alone = linear_descent(kernel, columns[:, k], rate=0.1, steps=[0, 7])
        np.testing.assert_allclose(descent[:, :, k], alone, atol=1e-5)


@pytest.mark.parametrize(("n", "rank"), [(1, 1), (5, 5), (5, 2)])
def test_linear_descent_is_the_matrix_power(n, rank, dtype):
    kernel, start = (t.astype(dtype) for t in positive(n, rank, seed=n))
    steps, rate = [0, 1, 2, 17, 40], 0.9 * float(critical_rate(kernel))
    path = linear_descent(kernel, start, rate=rate, steps=steps)
    factor = np.eye(n) - rate * kernel.astype(float)
    expected = [np.linalg.matrix_power(factor, s) @ start for s in steps]
    assert path.dtype == dtype
    np.testing.assert_allclose(path, expected, atol=1e3 * np.finfo(dtype).eps)
    again = linear_descent(kernel, start, rate=rate, steps=jnp.asarray(steps))
    np.testing.assert_array_equal(path, again)


def test_the_kernel_functions_work_under_jit_with_a_traced_rate(x64):
    kernel, start = positive(4, 4, seed=1)

    @jax.jit
    def run(k, u, share):
        rate = share * critical_rate(k)
        return linear_descent(k, u, rate=rate, steps=[3]), linear_flow(k, u, rate[None] * 3)

    descent, flow = run(kernel, start, 0.3)
    rate = 0.6 / np.linalg.eigvalsh(kernel)[-1]
    power = np.linalg.matrix_power(np.eye(4) - rate * kernel, 3)
    np.testing.assert_allclose(descent[0], power @ start, rtol=1e-11)
    np.testing.assert_allclose(flow[0], scipy.linalg.expm(-3 * rate * kernel) @ start, rtol=1e-11)


def test_a_kernel_and_a_start_of_two_dtypes_meet_in_the_wider(x64):
    kernel, start = positive(5, 5, seed=2)
    single = kernel.astype(np.float32)
    assert linear_flow(single, start, np.array([1.0], np.float32)).dtype == np.float64
    assert linear_descent(single, start, rate=0.1, steps=[1]).dtype == np.float64


@quick
@given(seed=st.integers(0, 10**6), n=st.sampled_from([1, 5]), share=st.floats(0.05, 1.5))
def test_descent_shrinks_the_top_mode_below_the_critical_rate_and_only_there(seed, n, share):
    with jax.enable_x64(True):
        kernel, _ = positive(n, n, seed)
        values, vectors = np.linalg.eigh(kernel)
        assert float(critical_rate(kernel)) == pytest.approx(2 / values[-1], rel=1e-12)
        rate = share * float(critical_rate(kernel))
        step = linear_descent(kernel, vectors[:, -1], rate=rate, steps=[1])[0]
        assert vectors[:, -1] @ step == pytest.approx(1 - 2 * share, abs=1e-10)


@pytest.mark.parametrize(("share", "growth"), [(0.99, 0.98), (1.0, 1.0), (1.01, 1.02)])
def test_the_border_of_descent_is_at_the_critical_rate(share, growth, x64):
    kernel, start = positive(5, 5, seed=3)
    rate = share * float(critical_rate(kernel))
    # the cost ½ uᵀKu, descended without any eigenvector
    path = descent_path(
        lambda u: u @ jnp.asarray(kernel) @ u / 2, jnp.asarray(start), rate=rate, steps=1000
    )
    np.testing.assert_allclose(
        linear_descent(kernel, start, rate=rate, steps=[0, 10, 1000]),
        np.asarray(path)[[0, 10, 1000]],
        rtol=1e-6,
        atol=1e-9,
    )
    top = np.linalg.eigh(kernel)[1][:, -1]
    assert (path[1000] @ top) / (start @ top) == pytest.approx(growth**1000, rel=1e-6)
    assert (path[999] @ top) / (start @ top) == pytest.approx(-(growth**999), rel=1e-6)


def test_the_linear_flow_is_the_flow_of_a_linear_model_in_its_weights(x64):
    rng = np.random.default_rng(RNG_SEED)
    phi, targets = rng.normal(size=(6, 3)), rng.normal(size=6)
    start, times = rng.normal(size=3), np.array([0.5, 3.0])

    def cost(w):
        return jnp.mean((jnp.asarray(phi) @ w - targets) ** 2) / 2

    weights = gradient_flow(cost, jnp.asarray(start), times=times)
    kernel = jitted(lambda w, x: x @ w, jnp.asarray(start), phi)
    flow = linear_flow(np.asarray(kernel) / 6, phi @ start - targets, times)
    np.testing.assert_allclose(np.asarray(weights) @ phi.T - targets, flow, atol=1e-8)


def test_the_outputs_of_a_network_move_as_its_tangent_kernel_says(x64):
    rng = np.random.default_rng(RNG_SEED)
    x, elsewhere, targets, h = points(3, 2), points(5, 2, seed=1), np.array([1.0, -1.0, 0.5]), 1e-4
    params = {"W": jnp.asarray(rng.normal(size=(2, 4))), "v": jnp.asarray(rng.normal(size=4))}

    def f(p, s):
        return jnp.tanh(jnp.asarray(s) @ p["W"]) @ p["v"]

    path = gradient_flow(
        lambda p: jnp.mean((f(p, x) - targets) ** 2) / 2, params, times=np.array([1 - h, 1, 1 + h])
    )
    before, now, after = ({k: np.asarray(w)[i] for k, w in path.items()} for i in range(3))
    theta = np.asarray(jitted(f, now, elsewhere, x))
    by_numpy = [np.tanh(s @ p["W"]) @ p["v"] for p, s in ((before, elsewhere), (now, x))]
    residual, outputs = by_numpy[1] - targets, np.tanh(elsewhere @ after["W"]) @ after["v"]
    measured = (outputs - by_numpy[0]) / (2 * h)
    np.testing.assert_allclose(measured, -theta @ residual / 3, rtol=1e-5, atol=1e-7)
