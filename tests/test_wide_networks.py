"""Finite networks and the NNGP kernel, each against an independent computation.

The independent ones are written in NumPy, one pair of points at a time: smooth dual activations by
Gauss–Hermite or dense quadrature, those with a kink by an integral over the angle cut at the kinks.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, NAMES, NUMPY, RNG_SEED, SLOPES, activation_of, points
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lib.engine.activations import ACTIVATIONS, Moments, quadrature
from ntk_lib.wide_networks import (
    apply,
    batch_of,
    circle,
    correlation_map,
    fixed_variance,
    init,
    next_moments,
    nngp,
    preactivations,
    random_outputs,
    susceptibility,
    variance_map,
)

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)


# ---------------------------------------------------------------- finite networks


def numpy_preactivations(params, point, name, gain, beta):
    """One point through the network, unit by unit, as section 2 of the paper writes it."""
    alpha, layers = list(point), []
    for W, b in params:
        layer = []
        for row, bias in zip(np.asarray(W), np.asarray(b), strict=True):
            total = sum(w * a for w, a in zip(row, alpha, strict=True))
            layer.append(total / math.sqrt(len(alpha)) + beta * bias)
        layers.append(np.array(layer))
        alpha = [math.sqrt(gain) * NUMPY[name](z) for z in layer]
    return layers


def test_init_gives_one_layer_a_pair_of_widths():
    params = init((3, 5, 7, 2), key=KEY)
    assert [(layer.W.shape, layer.b.shape) for layer in params] == [
        ((5, 3), (5,)),
        ((7, 5), (7,)),
        ((2, 7), (2,)),
    ]


def test_init_follows_the_key_and_nothing_else():
    first, again = init((3, 5, 2), key=KEY), init((3, 5, 2), key=KEY)
    other = init((3, 5, 2), key=jax.random.key(1))
    for a, b, c in zip(*(jax.tree.leaves(p) for p in (first, again, other)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.any(np.asarray(a) == np.asarray(c))


def test_init_takes_a_dtype_and_has_jaxs_default(dtype):
    assert {leaf.dtype.name for leaf in jax.tree.leaves(init((2, 3), key=KEY))} == {dtype}
    leaves = jax.tree.leaves(init((2, 3), key=KEY, dtype=jnp.float16))
    assert {leaf.dtype.name for leaf in leaves} == {"float16"}


def test_init_takes_numpy_integers(no_hook):
    assert init(np.array([2, 3]), key=KEY)[0].W.shape == (3, 2)
    assert init((2, np.int64(3)), key=KEY)[0].W.shape == (3, 2)


def test_every_parameter_is_an_independent_standard_normal(x64):
    # many small networks: moments of each parameter and all covariances between parameters
    draws = 40_000
    keys = jax.random.split(jax.random.key(3), draws)
    networks = jax.vmap(lambda key: init((2, 2, 1), key=key))(keys)
    flat = np.concatenate([t.reshape(draws, -1) for t in jax.tree.leaves(networks)], axis=1)
    assert flat.shape[1] == 9
    five_se = 5 / math.sqrt(draws)
    np.testing.assert_allclose(flat.mean(0), 0, atol=five_se)
    np.testing.assert_allclose((flat**3).mean(0), 0, atol=five_se * math.sqrt(15))
    np.testing.assert_allclose((flat**4).mean(0), 3, atol=five_se * math.sqrt(96))
    off_diagonal = 1 - np.eye(9)
    second = flat.T @ flat / draws
    np.testing.assert_allclose(second * off_diagonal, 0, atol=five_se)
    np.testing.assert_allclose(np.diag(second), 1, atol=five_se * math.sqrt(2))


@pytest.mark.parametrize("name", NAMES)
def test_preactivations_are_those_of_a_unit_by_unit_computation(name, x64):
    params = init((3, 4, 6, 2), key=KEY)
    x = points(5, 3)
    layers = preactivations(params, jnp.asarray(x), activation=name, gain=1.7, beta=0.3)
    assert [layer.shape for layer in layers] == [(5, 4), (5, 6), (5, 2)]
    for i, point in enumerate(x):
        expected = numpy_preactivations(params, point, name, 1.7, 0.3)
        for layer, values in zip(layers, expected, strict=True):
            np.testing.assert_allclose(layer[i], values, rtol=1e-12, atol=1e-13)


def test_the_networks_defaults_are_those_of_the_paper(x64):
    params, x = init((3, 4, 2), key=KEY), points(1, 3)
    expected = numpy_preactivations(params, x[0], "relu", 1.0, 0.1)[-1]
    np.testing.assert_allclose(apply(params, jnp.asarray(x))[0], expected, rtol=1e-13)


def test_apply_is_the_last_preactivation(dtype):
    params, x = init((3, 4, 2), key=KEY), jnp.asarray(points(5, 3, dtype=dtype))
    options = {"activation": "sin", "gain": 2.0, "beta": 0.5}
    out = apply(params, x, **options)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, preactivations(params, x, **options)[-1])


def test_one_point_a_batch_and_a_batch_of_batches_agree(x64):
    params, x = init((3, 8, 2), key=KEY), jnp.asarray(points(6, 3))
    batch = apply(params, x)
    assert apply(params, x[0]).shape == (2,)
    np.testing.assert_allclose([apply(params, point) for point in x], batch, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(lambda p: apply(params, p))(x), batch, rtol=1e-12)
    nested = apply(params, x.reshape(2, 3, 3))
    np.testing.assert_allclose(nested, batch.reshape(2, 3, 2), rtol=1e-12)


def test_without_bias_a_relu_network_is_positively_homogeneous(x64):
    params, x = init((3, 8, 8, 1), key=KEY), jnp.asarray(points(4, 3))
    np.testing.assert_allclose(
        apply(params, 4.0 * x, beta=0.0), 4.0 * apply(params, x, beta=0.0), rtol=1e-14
    )


def test_integer_inputs_keep_the_bias(no_hook, x64):
    # converting beta to the dtype of x would make it the integer 0
    params = init((2, 3, 1), key=KEY)
    np.testing.assert_array_equal(
        apply(params, jnp.array([[1, 2]])), apply(params, jnp.array([[1.0, 2.0]]))
    )


# ---------------------------------------------------------------- the NNGP kernel


def numpy_dual(name, a, b, k):
    """E[σ(u)σ(v)], each activation by a route of its own.

    A leaky ReLU is ½(q+p)·z + ½(q−p)·|z|, whose parts do not correlate; E|u||v| is classical. erf
    is the sign of z plus independent noise of variance ½; sine and cosine are characteristic
    functions.
    """
    if name in SLOPES:
        p, q = SLOPES[name]
        rho = np.clip(k / np.sqrt(a * b), -1, 1)
        absolute = 2 / np.pi * np.sqrt(a * b) * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))
        return ((q + p) / 2) ** 2 * k + ((q - p) / 2) ** 2 * absolute
    if name == "erf":
        return 2 / np.pi * np.arcsin(k / np.sqrt((a + 0.5) * (b + 0.5)))
    difference, total = np.exp(-(a + b - 2 * k) / 2), np.exp(-(a + b + 2 * k) / 2)
    return (difference - total) / 2 if name == "sin" else (difference + total) / 2


def numpy_nngp(x, y, depth, name, gain, beta):
    """One pair of points at a time."""
    kernel = np.empty((len(x), len(y)))
    for i, p in enumerate(x):
        for j, q in enumerate(y):
            a, b, k = (s @ t / len(p) + beta**2 for s, t in ((p, p), (q, q), (p, q)))
            for _ in range(depth - 1):
                a, b, k = (
                    gain * numpy_dual(name, *t) + beta**2 for t in ((a, a, a), (b, b, b), (a, b, k))
                )
            kernel[i, j] = k
    return kernel


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        *itertools.product([*NAMES, "slopes 0.2 1.0"], [1, 2, 4]),
        *itertools.product(["relu", "erf"], [12]),
    ],
)
def test_nngp_is_the_pair_by_pair_recursion(name, depth, x64):
    rng = np.random.default_rng([RNG_SEED, depth])
    gain, beta = rng.uniform(0.5, 2.5), rng.uniform(0.05, 0.8)
    x, y = points(4, 3, seed=1), points(5, 3, seed=2)
    kernel = nngp(x, y, depth=depth, activation=activation_of(name), gain=gain, beta=beta)
    expected = numpy_nngp(x, y, depth, name, gain, beta)
    np.testing.assert_allclose(kernel, expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", [*NAMES, "slopes 0.2 1.0"])
def test_the_gram_of_x_is_the_pair_by_pair_recursion_too(name, x64):
    x = points(5, 3)
    gram = nngp(x, depth=3, activation=activation_of(name), gain=1.6, beta=0.2)
    np.testing.assert_allclose(gram, numpy_nngp(x, x, 3, name, 1.6, 0.2), rtol=1e-10, atol=1e-13)


def test_nngp_on_the_circle_is_known(x64):
    # ReLU, L = 4, β = 0.1, n₀ = 2, unit circle, at 0, π/2 and π
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = [0.08125, 0.0557603, 0.0480966]
    np.testing.assert_allclose(nngp(x, x[:1], depth=4)[:, 0], expected, atol=5e-8)
    np.testing.assert_allclose(nngp(x, depth=4)[0], expected, atol=5e-8)


def test_with_gain_2_and_no_bias_relu_preserves_the_norm(x64):
    x = points(5, 3)
    for depth in (1, 2, 7):
        kernel = nngp(x, depth=depth, gain=2.0, beta=0.0)
        np.testing.assert_allclose(np.diag(kernel), np.sum(x**2, 1) / 3, rtol=1e-14)


def test_next_moments_multiply_by_the_gain_and_add_the_bias(x64):
    x, y = jnp.asarray(points(4, 3)), jnp.asarray(points(2, 3, seed=5))
    gain, beta, sigma = jnp.asarray(1.7), jnp.asarray(0.3), ACTIVATIONS["erf"]
    a, b = (jnp.sum(t * t, axis=1) / 3 + 0.09 for t in (x, y))
    before = Moments(a[:, None], b[None], x @ y.T / 3 + 0.09)
    after = next_moments(before, sigma, gain=gain, beta=beta)
    for i in range(4):
        for j in range(2):
            a, b, k = (float(t) for t in (before.a[i, 0], before.b[0, j], before.k[i, j]))
            found = (after.a[i, 0], after.b[0, j], after.k[i, j])
            expected = [
                1.7 * numpy_dual("erf", *t) + 0.09 for t in ((a, a, a), (b, b, b), (a, b, k))
            ]
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def sampled_covariance(widths, x, draws, **options):
    """Products of the outputs of many networks: their mean and its standard error."""
    keys = jax.random.split(jax.random.key(7), draws)

    @jax.jit
    @jax.vmap
    def outputs(key):
        f = apply(init(widths, key=key, dtype=x.dtype), x, **options)
        return (f[:, None, :] * f[None, :, :]).mean(-1)  # over independent output units

    products = np.asarray(outputs(keys), "float64")
    return products.mean(0), products.std(0, ddof=1) / math.sqrt(draws)


@pytest.mark.parametrize("name", ["relu", "erf", "cos"])
def test_outputs_of_one_hidden_layer_have_the_nngp_covariance_at_any_width(name, x64):
    # with one hidden layer the expectation is exact, at width 3 too
    x = jnp.asarray([[1.0, 0.5], [-0.4, 2.0], [0.2, -0.1]])
    options = {"activation": name, "gain": 1.5, "beta": 0.4}
    mean, error = sampled_covariance((2, 3, 1), x, 40_000, **options)
    assert np.all(np.abs(mean - nngp(x, depth=2, **options)) < 4 * error)
    assert np.all(error < 0.03)


@pytest.mark.parametrize("name", ["relu", "sin"])
def test_outputs_of_wide_deep_networks_have_the_nngp_covariance(name):
    x = jnp.asarray([[1.0, 0.5], [-0.4, 2.0], [0.2, -0.1]], "float32")
    options = {"activation": name, "gain": 1.5, "beta": 0.4}
    mean, error = sampled_covariance((2, 100, 100, 20), x, 1000, **options)
    limit = np.asarray(nngp(x, depth=3, **options))
    # beside the sampling error a finite width has a bias of the order limit/width
    assert np.all(np.abs(mean - limit) < 4 * error + np.diag(limit).max() / 100)
    assert np.all(error < 0.06)


def test_outputs_of_narrow_networks_are_not_the_limit_when_deep(x64):
    # the test above can fail: at width 2 the fourth moment of f is far from the Gaussian 3
    keys = jax.random.split(jax.random.key(8), 10_000)
    x = jnp.ones((1, 2))

    @jax.jit
    @jax.vmap
    def outputs(key):
        return apply(init((2, 2, 2, 1), key=key), x, gain=2.0, beta=0.0)[0, 0]

    f = np.asarray(outputs(keys))
    assert np.mean(f**4) / np.mean(f**2) ** 2 > 6


coordinates = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=4, max_size=4
)


@quick
@given(x=coordinates, name=st.sampled_from(NAMES), gain=st.floats(0.1, 3), beta=st.floats(0.01, 1))
def test_nngp_is_exactly_symmetric_positive_and_bounded_by_its_diagonal(x, name, gain, beta):
    with jax.enable_x64(True):
        kernel = np.asarray(nngp(np.array(x), depth=3, activation=name, gain=gain, beta=beta))
    np.testing.assert_array_equal(kernel, kernel.T)
    scale = np.trace(kernel)
    assert np.linalg.eigvalsh(kernel).min() >= -1e-12 * scale
    bound = np.sqrt(np.outer(np.diag(kernel), np.diag(kernel)))
    assert np.all(np.abs(kernel) <= bound * (1 + 1e-12))


@quick
@given(x=coordinates, angle=st.floats(0, 6.3), name=st.sampled_from(NAMES))
def test_nngp_does_not_notice_a_rotation(x, angle, name):
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    with jax.enable_x64(True):
        kernel = nngp(np.array(x), depth=3, activation=name)
        turned = nngp(np.array(x) @ rotation, depth=3, activation=name)
    np.testing.assert_allclose(turned, kernel, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_gram_of_many_points_is_exactly_symmetric(name, dtype):
    # 37 points: vectorised loops and their remainders round differently
    kernel = np.asarray(nngp(points(37, 5, dtype=dtype), depth=3, activation=name, gain=1.5))
    np.testing.assert_array_equal(kernel, kernel.T)


def test_a_gram_by_quadrature_is_exactly_symmetric(dtype):
    x = points(7, 5, dtype=dtype)
    kernel = np.asarray(nngp(x, depth=2, activation=quadrature(jnp.tanh), gain=1.5))
    np.testing.assert_array_equal(kernel, kernel.T)


@pytest.mark.parametrize("name", ["relu", "erf", "sin"])
def test_nngp_of_x_is_nngp_of_x_with_a_copy(name, dtype):
    x = points(9, 5, dtype=dtype)
    scale = np.sqrt(np.diag(nngp(x, depth=3, activation=name)))
    both = nngp(x, x.copy(), depth=3, activation=name), nngp(x, depth=3, activation=name)
    difference = np.abs(both[0] - both[1]) / np.outer(scale, scale)
    # ‖x‖² enters exponents, so its relative rounding is multiplied by up to ‖x‖²/d = 20
    assert difference.max() < 100 * np.finfo(dtype).eps


def test_swapping_x_and_y_transposes(x64):
    x, y = points(4, 3), points(2, 3, seed=5)
    np.testing.assert_allclose(nngp(x, y, depth=3), nngp(y, x, depth=3).T, rtol=1e-14)


def test_nngp_does_not_depend_on_the_other_points(x64):
    x = points(6, 3)
    np.testing.assert_allclose(nngp(x[:2], depth=3), nngp(x, depth=3)[:2, :2], rtol=1e-13)


def test_nngp_keeps_the_dtype(dtype):
    assert nngp(points(3, 2, dtype=dtype), depth=2).dtype == dtype


def test_nngp_works_under_jit_vmap_and_grad(x64):
    x = jnp.asarray(points(3, 2))
    kernel = nngp(x, depth=2)
    np.testing.assert_allclose(jax.jit(lambda t: nngp(t, depth=2))(x), kernel, rtol=1e-12)
    batch = jax.vmap(lambda t: nngp(t, depth=2))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batch[0], kernel, rtol=1e-12)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda t: nngp(t, depth=2).sum()))(x)))


@pytest.mark.parametrize(("name", "beta"), [("relu", 0.0), ("relu", 0.3), ("erf", 0.0)])
def test_gradients_of_the_gram_match_finite_differences_on_the_diagonal_too(name, beta, x64):
    x = points(3, 2)

    @jax.jit
    def total(t):
        weights = jnp.arange(1.0, 10).reshape(3, 3)
        return (nngp(t, depth=3, activation=name, beta=beta) * weights).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(x)))
    for index in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        difference = (total(x + step) - total(x - step)) / 2e-5
        np.testing.assert_allclose(gradient[index], difference, rtol=1e-6, atol=1e-8)


# ---------------------------------------------------------------- the circle


def test_circle_gives_cosines_and_sines(dtype):
    angles = np.array([0.0, np.pi / 2, -1.0], dtype)
    x = circle(angles)
    assert x.shape == (3, 2)
    assert x.dtype == dtype
    expected = [[1, 0], [0, 1], [math.cos(1), -math.sin(1)]]
    np.testing.assert_allclose(x, expected, atol=np.finfo(dtype).eps)


# ---------------------------------------------------------------- outputs of random networks


def test_random_outputs_are_outputs_of_networks_of_that_shape(x64):
    x, options = points(3, 2), {"activation": "erf", "gain": 1.7, "beta": 0.3}
    f = random_outputs(x, key=KEY, draws=5, width=7, depth=3, **options)
    for key, row in zip(jax.random.split(KEY, 5), f, strict=True):
        params = init((2, 7, 7, 1), key=key)
        np.testing.assert_allclose(row, apply(params, jnp.asarray(x), **options)[:, 0], rtol=1e-12)


def test_random_outputs_follow_the_key_and_differ_between_draws(dtype):
    x = points(2, 3, dtype=dtype)
    options = {"draws": 40, "width": 4, "depth": 2}
    f = random_outputs(x, key=KEY, **options)
    assert f.shape == (40, 2)
    assert f.dtype == dtype
    np.testing.assert_array_equal(f, random_outputs(x, key=KEY, **options))
    assert np.unique(np.asarray(f)[:, 0]).size == 40
    assert not np.array_equal(f, random_outputs(x, key=jax.random.key(1), **options))


@given(draws=st.integers(1, 5000), width=st.integers(1, 5000))
@quick
def test_networks_side_by_side_divide_the_draws_and_stay_small(draws, width):
    side_by_side = batch_of(draws, width)
    assert 1 <= side_by_side <= draws
    assert draws % side_by_side == 0
    assert side_by_side == 1 or side_by_side * width**2 <= 2**16


@pytest.mark.parametrize("hidden", [1, 2])
def test_the_kurtosis_of_random_relu_networks_is_exact(hidden):
    # excess kurtosis 3((1 + 5/n)^hidden - 1) at any width n
    x = np.array([[1.0, 1.0]], "float32")
    f = random_outputs(x, key=KEY, draws=60_000, width=16, depth=hidden + 1, beta=0.0)
    f = np.asarray(f, float)[:, 0]
    fourth = f**4 / np.mean(f**2) ** 2
    expected = 3 * (1 + 5 / 16) ** hidden
    assert fourth.mean() == pytest.approx(expected, abs=4 * fourth.std() / np.sqrt(len(f)))


# ---------------------------------------------------------------- depth


@pytest.mark.parametrize("name", ["relu", "erf", "sin"])
def test_the_maps_of_variance_and_correlation_are_one_layer_of_the_nngp(name, x64):
    options = {"activation": name, "gain": 1.4, "beta": 0.3}
    # two points of variance 0.8 and correlation -0.35 before the layer, by their first moments
    q, rho = 0.8, -0.35
    root = np.linalg.cholesky((q - 0.3**2) * np.eye(2) + (q * rho - 0.3**2) * np.eye(2)[::-1])
    sigma2 = np.asarray(nngp(root * np.sqrt(2), depth=2, **options))
    np.testing.assert_allclose(nngp(root * np.sqrt(2), depth=1, beta=0.3)[0], [q, q * rho])
    assert float(variance_map(np.array(q), **options)) == pytest.approx(sigma2[0, 0], rel=1e-12)
    after = float(correlation_map(np.array(rho), q, **options))
    assert after == pytest.approx(sigma2[0, 1] / sigma2[0, 0], rel=1e-12)


def test_equal_points_stay_equal_whatever_the_layer(dtype):
    rho = np.ones(3, dtype)
    for name in ("relu", "erf", "cos"):
        after = correlation_map(rho, 0.7, activation=name, gain=2.0, beta=0.2)
        assert after.dtype == dtype
        np.testing.assert_allclose(after, rho, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "gain", "beta"), [("erf", 4.0, 0.3), ("erf", 1.0, 0.3), ("relu", 1.0, 0.5)]
)
def test_the_fixed_variance_is_fixed_and_reached_from_one(name, gain, beta, x64):
    options = {"activation": name, "gain": gain, "beta": beta}
    q = fixed_variance(**options)
    assert float(variance_map(np.array(q), **options)) == pytest.approx(q, rel=1e-12)
    if name == "relu":  # q = gain·q/2 + β²
        assert q == pytest.approx(beta**2 / (1 - gain / 2), rel=1e-10)


def test_with_gain_2_and_no_bias_relu_keeps_the_variance_one(x64):
    assert fixed_variance(activation="relu", gain=2.0, beta=0.0) == pytest.approx(1.0, rel=1e-14)


@pytest.mark.parametrize("name", ["erf", "sin", "relu"])
def test_the_susceptibility_is_the_slope_of_the_correlation_map_at_one(name, x64):
    options = {"activation": name, "gain": 1.6, "beta": 0.4}
    q = fixed_variance(**options)
    h = 1e-6
    slope = float(1 - correlation_map(np.array(1 - h), q, **options)) / h
    assert float(susceptibility(np.array(q), activation=name, gain=1.6)) == pytest.approx(
        slope, rel=2e-3
    )


def test_in_order_points_draw_together_from_any_correlation(x64):
    # |R'(ρ)| ≤ R'(|ρ|) ≤ χ: 1 - R(ρ) ≤ χ (1 - ρ) below zero too
    options = {"activation": "erf", "gain": 1.0, "beta": 0.3}
    q, rho = fixed_variance(**options), np.linspace(-1, 1, 41)
    chi = float(susceptibility(np.array(q), activation="erf", gain=1.0))
    assert chi < 1
    left = 1 - np.asarray(correlation_map(rho, q, **options))
    assert np.all(left <= chi * (1 - rho) + 1e-12)


def test_the_edge_of_chaos_of_the_error_function_without_bias_is_pi_over_4(x64):
    # as q → 0, χ → gain·σ'(0)² = 4·gain/π
    chi = float(susceptibility(np.array(1e-9), activation="erf", gain=np.pi / 4))
    assert chi == pytest.approx(1.0, rel=1e-6)


def test_two_relu_points_merge_as_one_over_the_depth_squared(x64):
    rho = jnp.asarray(0.0)
    for _ in range(2000):
        rho = correlation_map(rho, 1.0, gain=2.0, beta=0.0)
    assert 2000**2 * float(1 - rho) == pytest.approx(9 * np.pi**2 / 2, rel=0.02)
