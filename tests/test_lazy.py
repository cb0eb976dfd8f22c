"""Training and linearised networks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import (
    BAD_INPUT,
    BAD_NUMBERS,
    BAD_PARAMS,
    KEY,
    NAN,
    PARAMS,
    RNG_SEED,
    X,
    numpy_jacobian,
    on_circle,
    points,
)

from ntk_lib.gradient_flow import Training, empirical_ntk
from ntk_lib.lazy import train
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


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        *[p for p in BAD_INPUT if "y" not in p.values[0]],
        *BAD_NUMBERS,
        *[p for p in BAD_PARAMS if "x" not in p.values[0]],
        pytest.param({"x": X[:, :1]}, ValueError, "x needs a last axis of 2", id="inputs"),
        pytest.param(
            {"params": init((2, 3, 2), key=KEY)},
            ValueError,
            "params needs one output",
            id="outputs",
        ),
        pytest.param({"targets": X[:, :1]}, ValueError, r"targets needs shape \(3,\)", id="rank"),
        pytest.param(
            {"targets": X[:2, 0]}, ValueError, r"targets needs shape \(3,\)", id="shorter"
        ),
        pytest.param({"targets": 1.0}, ValueError, r"targets needs shape .* got \(\)", id="scalar"),
        pytest.param({"targets": NAN[:, 0]}, ValueError, "targets needs finite", id="nan-targets"),
        pytest.param({"targets": "words"}, TypeError, "targets needs", id="words"),
        pytest.param({"targets": X[:, 0] * 1j}, TypeError, "targets needs real", id="complex-y"),
        pytest.param({"steps": -1}, ValueError, "steps needs to be 0 or more, got -1", id="steps"),
        pytest.param({"steps": 2.5}, TypeError, "steps needs an integer.*2.5", id="steps-float"),
        pytest.param({"steps": "9"}, TypeError, "steps needs an integer.*'9'", id="steps-word"),
        pytest.param({"rate": 0.0}, ValueError, "rate needs .* got 0", id="rate-0"),
        pytest.param({"rate": -1.0}, ValueError, "rate needs .* got -1", id="rate-negative"),
        pytest.param({"rate": math.nan}, ValueError, "rate needs .* got nan", id="rate-nan"),
        pytest.param({"rate": math.inf}, ValueError, "rate needs .* got inf", id="rate-infinite"),
        pytest.param({"rate": "fast"}, TypeError, "rate needs .*'fast'", id="rate-word"),
    ],
)
def test_train_refuses_bad_arguments(no_hook, changed, error, says):
    good = {"params": PARAMS, "x": X, "targets": X[:, 0], "steps": 1}
    with pytest.raises(error, match=f"^{says}"):
        train(**good | changed)
