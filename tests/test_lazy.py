"""Training and linearised networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    KEY,
    RNG_SEED,
    numpy_jacobian,
    on_circle,
    points,
)
from scipy.linalg import expm

from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.gradient_flow import Training
from ntk_lib.lazy import (
    linearise,
    linearised_change,
    relative_curvature,
    relative_movement,
    scaled,
    train,
)
from ntk_lib.wide_networks import apply, init

# ---------------------------------------------------------------- training


def test_gradient_descent_on_a_linear_network_is_the_matrix_power(x64):
    # the kernel of a depth-1 network is constant: f_t − y = (I − ηK)^t (f₀ − y), K the Gram over N
    rng = np.random.default_rng(RNG_SEED)
    x, targets = rng.normal(size=(5, 3)), rng.normal(size=5)
    params, beta, rate, steps = init((3, 1), key=KEY), 0.5, 0.7, 40
    start = np.asarray(apply(params, jnp.asarray(x), beta=beta))[:, 0] - targets
    kernel = (x @ x.T / 3 + beta**2) / 5
    np.testing.assert_allclose(
        empirical_ntk(lambda p, s: apply(p, s, beta=beta), params, x) / 5, kernel, rtol=1e-12
    )
    trained, cost = train(params, x, targets, steps=steps, rate=rate, beta=beta)
    residuals = [np.linalg.matrix_power(np.eye(5) - rate * kernel, t) @ start for t in range(41)]
    np.testing.assert_allclose(cost, [r @ r / 10 for r in residuals[:-1]], rtol=1e-11)
    end = np.asarray(apply(trained, jnp.asarray(x), beta=beta))[:, 0] - targets
    np.testing.assert_allclose(end, residuals[-1], rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(("share", "converges"), [(0.99, True), (1.01, False)])
def test_the_critical_rate_of_a_linear_network_is_2_over_lambda_max(share, converges, x64):
    rng = np.random.default_rng(RNG_SEED)
    x = rng.normal(size=(5, 3))
    top = np.linalg.eigvalsh(x @ x.T / 15).max()
    # targets that a linear network fits exactly
    options = {"steps": 1000, "rate": share * 2 / top, "beta": 0.0}
    cost = train(init((3, 1), key=KEY), x, x @ [1.0, -2.0, 0.5], **options).cost
    assert cost[-1] < 1e-8 * cost[0] if converges else cost[-1] > 1e6 * cost[0]


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_one_step_moves_every_parameter_against_the_gradient_of_the_cost(name, x64):
    params, x, targets = init((2, 3, 1), key=KEY), points(4, 2), np.array([1.0, -1.0, 0.5, 2.0])
    options = {"activation": name, "gain": 1.7, "beta": 0.3}

    @jax.jit
    def cost(p, t):
        return jnp.mean((apply(p, t, **options)[:, 0] - targets) ** 2) / 2

    trained = train(params, x, targets, steps=1, rate=0.2, **options)
    before, after = (
        np.concatenate([np.ravel(t) for t in jax.tree.leaves(p)]) for p in (params, trained.params)
    )
    gradient = numpy_jacobian(cost, params, jnp.asarray(x))
    np.testing.assert_allclose(after - before, -0.2 * gradient, atol=1e-8)
    assert trained.cost[0] == pytest.approx(float(cost(params, jnp.asarray(x))), rel=1e-12)


def test_a_small_step_moves_the_outputs_along_the_kernel(x64):
    params, x = init((2, 6, 6, 1), key=KEY), points(4, 2)
    targets = np.array([1.0, -1.0, 0.5, 2.0])
    f = np.asarray(apply(params, jnp.asarray(x)))[:, 0]
    rate = 1e-6
    moved = np.asarray(apply(train(params, x, targets, steps=1, rate=rate).params, jnp.asarray(x)))
    velocity = (moved[:, 0] - f) / rate
    np.testing.assert_allclose(
        velocity, -empirical_ntk(apply, params, x) @ (f - targets) / 4, rtol=1e-4
    )


def test_at_a_small_rate_the_cost_falls_at_every_step(dtype):
    params, x = init((2, 32, 32, 1), key=KEY), on_circle(8).astype(dtype)
    cost = train(params, x, x[:, 0] * x[:, 1], steps=200, rate=0.1).cost
    assert cost.shape == (200,)
    assert cost.dtype == dtype
    assert np.all(np.diff(cost) < 0)


def test_wider_networks_stay_closer_to_their_first_kernel():
    # the reason for the limit: relative drift falls about like 1/width (proved: 1/√width)
    x = on_circle(8).astype("float32")
    drift = {}
    for width in (64, 1024):
        params = init((2, width, width, 1), key=KEY)
        before = np.asarray(empirical_ntk(apply, params, x))
        after = np.asarray(empirical_ntk(apply, train(params, x, 2 * x[:, 0], steps=50).params, x))
        drift[width] = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert drift[64] > 4 * drift[1024]


def test_no_steps_leave_the_parameters_alone(x64):
    params, x = init((2, 3, 1), key=KEY), points(4, 2)
    trained = train(params, x, np.zeros(4), steps=0)
    assert isinstance(trained, Training)
    assert trained.cost.shape == (0,)
    for before, after in zip(jax.tree.leaves(params), jax.tree.leaves(trained.params), strict=True):
        np.testing.assert_array_equal(before, after)


def test_training_goes_on_where_it_stopped_and_has_rate_1_by_default(x64):
    params, x, targets = init((2, 8, 1), key=KEY), on_circle(4), np.array([1.0, 0, -1, 0])
    whole = train(params, x, targets, steps=7, rate=1.0)
    half = train(params, x, targets, steps=3)
    rest = train(half.params, x, targets, steps=4)
    np.testing.assert_allclose(jnp.concatenate([half.cost, rest.cost]), whole.cost, rtol=1e-12)
    np.testing.assert_allclose(rest.params[0].W, whole.params[0].W, rtol=1e-12)


# ---------------------------------------------------------------- the linearised model


def tiny(params, x):
    """A model that is not a network: three parameters in a pytree, inputs (n,)."""
    return params["a"] * jnp.sin(params["w"][0] * x + params["w"][1])


TINY = {"a": jnp.float32(0.7), "w": jnp.array([1.3, -0.4], "float32")}
PLACES = np.array([-1.0, 0.3, 0.9, 2.0])


def in_dtype(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def test_the_linearised_model_is_value_plus_jacobian_times_step(x64):
    start, x = in_dtype(TINY, "float64"), jnp.asarray(PLACES)
    step = {"a": jnp.asarray(0.2), "w": jnp.array([-0.5, 0.3])}
    moved = jax.tree.map(jnp.add, start, step)
    a, (w, b) = 0.7, np.float32([1.3, -0.4]).astype(float)
    a = float(np.float32(a))
    rows = [np.sin(w * PLACES + b), a * PLACES * np.cos(w * PLACES + b), a * np.cos(w * PLACES + b)]
    expected = a * rows[0] + np.array([0.2, -0.5, 0.3]) @ np.stack(rows)
    np.testing.assert_allclose(linearise(tiny, start)(moved, x), expected, rtol=1e-12)


def test_the_linearised_model_keeps_the_dtype_and_agrees_at_the_start(dtype):
    start, x = in_dtype(TINY, dtype), jnp.asarray(PLACES, dtype)
    out = linearise(tiny, start)(start, x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, tiny(start, x))


def test_a_linear_model_is_its_own_linearisation(x64):
    x = jnp.asarray(np.random.default_rng(RNG_SEED).normal(size=(5, 3)))
    start, other = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, 4.0, -1.0])
    model = linearise(lambda w, x: x @ w, start)
    np.testing.assert_allclose(model(other, x), x @ other, rtol=1e-13)


def test_the_kernel_of_the_linearised_model_does_not_move(x64):
    start, x = in_dtype(TINY, "float64"), jnp.asarray(PLACES)
    far = jax.tree.map(lambda leaf: leaf + 3.0, start)
    kernel = empirical_ntk(tiny, start, x)
    np.testing.assert_allclose(empirical_ntk(linearise(tiny, start), far, x), kernel, rtol=1e-12)


def linear_problem(n=5, p=7, m=3):
    rng = np.random.default_rng(RNG_SEED)
    features, others = rng.normal(size=(n, p)), rng.normal(size=(m, p))
    return features, others, rng.normal(size=n)


def test_the_closed_form_is_descent_on_the_features(x64):
    features, others, residual = linear_problem()
    rate, w = 0.3, np.zeros(7)
    gram, cross = features @ features.T, others @ features.T
    changes = {}
    for step in range(1, 61):
        w -= rate * features.T @ (features @ w - residual) / 5
        changes[step] = others @ w
    steps = [1, 7, 60]
    closed = linearised_change(gram, cross, residual, times=rate * np.array(steps), rate=rate)
    for step, row in zip(steps, closed, strict=True):
        np.testing.assert_allclose(row, changes[step], rtol=1e-9)


def test_the_closed_form_of_the_flow_is_a_matrix_exponential(x64):
    features, others, residual = linear_problem()
    gram, cross = features @ features.T, others @ features.T
    for t in (0.0, 0.4, 3.0):
        learnt = (np.eye(5) - expm(-t * gram / 5)) @ residual
        expected = cross @ np.linalg.solve(gram, learnt)
        out = linearised_change(gram, cross, residual, times=np.array([t]))[0]
        np.testing.assert_allclose(out, expected, atol=1e-11)


def test_at_infinite_time_the_closed_form_is_regression(x64):
    features, others, residual = linear_problem()
    gram, cross = features @ features.T, others @ features.T
    expected = cross @ np.linalg.solve(gram, residual)
    np.testing.assert_allclose(
        linearised_change(gram, cross, residual, times=np.array([np.inf]))[0], expected, rtol=1e-9
    )


def test_directions_of_eigenvalue_zero_never_move(x64):
    # more points than features: the Gram is singular, descent still has a limit
    features, others, residual = linear_problem(n=9, p=4)
    gram, cross = features @ features.T, others @ features.T
    nearest = others @ np.linalg.lstsq(features, residual)[0]
    times = np.array([0.0, 5000.0, np.inf])
    out = np.array(linearised_change(gram, cross, residual, times=times))
    np.testing.assert_allclose(out[1:], np.stack(2 * [nearest]), rtol=1e-8)
    np.testing.assert_array_equal(out[0], np.zeros(3))


def test_descent_past_the_critical_rate_alternates_and_grows(x64):
    gram = np.array([[2.0]])
    out = linearised_change(gram, gram, np.ones(1), times=np.array([1.5, 3.0, 4.5]), rate=1.5)[:, 0]
    np.testing.assert_allclose(out, [1 - (-2.0) ** s for s in (1, 2, 3)], rtol=1e-12)


def test_small_rates_keep_their_digits_in_float32():
    gram = np.array([[1e-6]], "float32")
    out = float(
        linearised_change(gram, gram, np.ones(1, "float32"), times=np.ones(1), rate=0.5)[0, 0]
    )
    assert out == pytest.approx(1 - (1 - 0.5e-6) ** 2, rel=1e-5)


def test_the_closed_form_keeps_the_dtype_and_works_under_jit(dtype):
    features, others, residual = (t.astype(dtype) for t in linear_problem())
    gram, cross = features @ features.T, others @ features.T
    eager = linearised_change(gram, cross, residual, times=np.array([1.0, 2.0]), rate=0.5)
    jitted = jax.jit(
        lambda g: linearised_change(g, cross, residual, times=np.array([1.0, 2.0]), rate=0.5)
    )
    assert eager.dtype == dtype
    assert eager.shape == (2, 3)
    np.testing.assert_allclose(jitted(gram), eager, rtol=1e-4)


@pytest.mark.parametrize("rate", [None, 0.3])
def test_several_outputs_change_as_each_alone(rate, dtype):
    features, others, residual = (t.astype(dtype) for t in linear_problem())
    gram, cross = features @ features.T, others @ features.T
    columns = np.stack([residual, residual**2, -residual], axis=1)
    times = np.array([0.0, 1.2, 6.0, np.inf if rate is None else 9.0])
    together = linearised_change(gram, cross, columns, times=times, rate=rate)
    assert together.shape == (4, 3, 3)
    assert together.dtype == dtype
    for k in range(3):
        alone = linearised_change(gram, cross, columns[:, k], times=times, rate=rate)
        np.testing.assert_allclose(together[:, :, k], alone, rtol=1e-4, atol=1e-5)


def test_arrays_of_several_dtypes_meet_in_the_widest(x64):
    features, others, residual = linear_problem()
    given = {"gram": features @ features.T, "cross": others @ features.T, "missing": residual}
    for name in given:
        mixed = {k: v if k == name else v.astype("f4") for k, v in given.items()}
        assert linearised_change(**mixed, times=np.ones(1)).dtype == "float64"
    # no digit of the residual is lost
    gram = np.eye(5, dtype="f4")
    change = linearised_change(gram, gram, residual, times=np.array([np.inf]))
    np.testing.assert_allclose(change[0], residual, rtol=1e-12)


# ---------------------------------------------------------------- how lazy?


def test_relative_movement_is_a_ratio_of_lengths(dtype):
    before = {"a": jnp.array([3.0], dtype), "b": jnp.array([[0.0, 4.0]], dtype)}
    after = {"a": jnp.array([3.0], dtype), "b": jnp.array([[1.0, 4.0]], dtype)}
    assert float(relative_movement(before, after)) == pytest.approx(0.2, rel=1e-6)
    assert float(relative_movement(before, before)) == 0.0


def test_relative_curvature_is_that_of_the_hessian(x64):
    rng = np.random.default_rng(RNG_SEED)
    B, g = rng.normal(size=(4, 4)), rng.normal(size=4)
    B = B + B.T

    def output(w):
        flat = jnp.concatenate([w["u"], w["v"]])
        return jnp.vdot(g, flat) + flat @ jnp.asarray(B) @ flat / 2

    start = {"u": jnp.zeros(1), "v": jnp.zeros(3)}
    expected = 0.7 * np.linalg.norm(B, 2) / (g @ g)
    assert float(relative_curvature(output, start, -0.7)) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 20.0])
def test_alpha_divides_the_relative_curvature(alpha, x64):
    start = in_dtype(TINY, "float64")

    def output(model):
        return lambda p: model(p, jnp.asarray(0.9))

    one = relative_curvature(output(tiny), start, 1.0)
    many = relative_curvature(output(scaled(tiny, start, alpha)), start, 1.0)
    assert float(many) == pytest.approx(float(one) / alpha, rel=1e-10)


def test_the_scaled_model_starts_at_zero_and_has_alpha_squared_times_the_kernel(dtype):
    start, x = in_dtype(TINY, dtype), jnp.asarray(PLACES, dtype)
    model = scaled(tiny, start, 3.0)
    out = model(start, x)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, np.zeros(4))
    kernel = empirical_ntk(tiny, start, x)
    np.testing.assert_allclose(empirical_ntk(model, start, x), 9 * kernel, rtol=1e-5, atol=1e-6)


def test_the_limit_of_the_toys_curvature(x64):
    # standard parametrisation, tanh, x = 1: m‖H‖/‖g‖² → 1/E tanh²(a) ≈ 2.54
    m, values = 100, []
    for key in jax.random.split(KEY, 8):
        a, b = jax.random.normal(key, (2, m))
        start = {"a": a, "b": b / np.sqrt(m)}
        values.append(
            m * relative_curvature(lambda w: jnp.vdot(w["b"], jnp.tanh(w["a"])), start, 1.0)
        )
    assert np.mean(values) == pytest.approx(2.54, rel=0.1)
