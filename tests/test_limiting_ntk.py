"""The limiting and the empirical NTK, each against an independent computation and exact oracles.

The limit is recomputed in NumPy one pair of points at a time; the empirical kernel is held against
finite differences; finite networks against the limit by Monte Carlo.
"""

import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from cases import (
    KEY,
    PARAMS,
    RNG_SEED,
    differences,
    on_circle,
    points,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from ntk_lib import limiting_ntk
from ntk_lib.engine.activations import ACTIVATIONS, leaky_relu, quadrature
from ntk_lib.engine.data import load
from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.limiting_ntk import (
    circle_spectrum,
    mlp_ntk,
    mlp_ntk_of_arrays,
    ntk,
    plot_on_circle,
    random_kernels,
)
from ntk_lib.wide_networks import apply, init, nngp
from scripts import limiting_ntk as runs

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
LEAKY = leaky_relu(0.2, 1.0)
NAMES = ["relu", "leaky_relu", "erf", "sin", "cos"]
KINDS = ["relu", LEAKY, "erf", "sin"]


def named(value):
    """An activation as the name of a test."""
    return getattr(value, "name", str(value))


# ---------------------------------------------------------------- the limit, recomputed


def numpy_duals(activation, a, b, k):
    """E[σ(u)σ(v)] and E[σ'(u)σ'(v)], each activation by a route of its own.

    A leaky ReLU is ½(q+p)·z + ½(q−p)·|z|, whose parts do not correlate; E|u||v| and E sign·sign
    are classical. erf is the sign of z plus independent noise of variance ½; sine and cosine are
    characteristic functions.
    """
    if activation in ("relu", LEAKY):
        p, q = (0.0, 1.0) if activation == "relu" else (0.2, 1.0)
        linear, absolute = ((q + p) / 2) ** 2, ((q - p) / 2) ** 2
        rho = np.clip(k / np.sqrt(a * b), -1, 1)
        moduli = 2 / np.pi * np.sqrt(a * b) * (np.sqrt(1 - rho**2) + rho * np.arcsin(rho))
        return linear * k + absolute * moduli, linear + absolute * 2 / np.pi * np.arcsin(rho)
    if activation == "erf":
        a, b = a + 0.5, b + 0.5
        return 2 / np.pi * np.arcsin(k / np.sqrt(a * b)), 2 / np.pi / np.sqrt(a * b - k * k)
    difference, total = np.exp(-(a + b - 2 * k) / 2), np.exp(-(a + b + 2 * k) / 2)
    return (difference - total) / 2, (difference + total) / 2


def numpy_ntk(x, y, depth, activation, gain, beta, duals=numpy_duals):
    """One pair of points at a time, the sum over layers of Theorem 1 written out.

    Θ^(L) = Σ_ℓ Σ^(ℓ) Σ̇^(ℓ+1) … Σ̇^(L): not the recursion, its solution.
    """
    kernel = np.empty((len(x), len(y)))
    for i, p in enumerate(x):
        for j, q in enumerate(y):
            a, b, k = (s @ t / len(p) + beta**2 for s, t in ((p, p), (q, q), (p, q)))
            sigmas, slopes = [k], []
            for _ in range(depth - 1):
                value, slope = duals(activation, a, b, k)
                a, b = (gain * duals(activation, t, t, t)[0] + beta**2 for t in (a, b))
                k = gain * value + beta**2
                sigmas.append(k)
                slopes.append(gain * slope)
            kernel[i, j] = sum(s * math.prod(slopes[m:]) for m, s in enumerate(sigmas))
    return kernel


@pytest.mark.parametrize(
    ("activation", "depth"),
    [*itertools.product(KINDS, [2, 3, 6]), ("relu", 12), ("erf", 12), ("sin", 1)],
    ids=named,
)
def test_ntk_is_the_pair_by_pair_sum_over_layers(activation, depth, x64):
    rng = np.random.default_rng([RNG_SEED, depth])
    gain, beta = rng.uniform(0.5, 2.5), rng.uniform(0.05, 0.8)
    x, y = points(4, 3, seed=depth), points(5, 3, seed=100 + depth)
    kernel = ntk(x, y, depth=depth, activation=activation, gain=gain, beta=beta)
    expected = numpy_ntk(x, y, depth, activation, gain, beta)
    np.testing.assert_allclose(kernel, expected, rtol=1e-9)


@pytest.mark.parametrize("activation", KINDS, ids=named)
def test_the_gram_of_x_is_the_pair_by_pair_sum_too(activation, x64):
    x = points(5, 3)
    kernel = ntk(x, depth=4, activation=activation, gain=1.6, beta=0.2)
    # 1e-7: on the diagonal the arcsine of the independent computation knows half the digits
    expected = numpy_ntk(x, x, 4, activation, 1.6, 0.2)
    np.testing.assert_allclose(kernel, expected, rtol=1e-7)


def quadrature_duals(functions, a, b, k, reach=9.0, steps=601):
    """Both expectations on a dense grid of two independent standard normals."""
    z = np.linspace(-reach, reach, steps)
    w = np.exp(-(z**2) / 2) * (z[1] - z[0]) / np.sqrt(2 * np.pi)
    u = np.sqrt(a) * z[:, None]
    v = k / np.sqrt(a) * z[:, None] + np.sqrt(max(b - k * k / a, 0.0)) * z[None, :]
    return tuple(float(np.einsum("i,j,ij", w, w, f(u) * f(v))) for f in functions)


@pytest.mark.parametrize(
    ("name", "functions"),
    [
        ("erf", (erf, lambda z: 2 / np.sqrt(np.pi) * np.exp(-z * z))),
        ("sin", (np.sin, np.cos)),
        ("cos", (np.cos, lambda z: -np.sin(z))),
    ],
)
def test_ntk_of_smooth_activations_is_the_recursion_by_numerical_integrals(name, functions, x64):
    x, y = points(2, 3, seed=1), points(2, 3, seed=2)
    kernel = ntk(x, y, depth=3, activation=name, gain=1.6, beta=0.2)
    expected = numpy_ntk(x, y, 3, functions, 1.6, 0.2, duals=quadrature_duals)
    np.testing.assert_allclose(kernel, expected, rtol=1e-8)


def test_ntk_by_quadrature_is_that_of_the_closed_form(x64):
    x, y = on_circle(5), on_circle(3)
    numeric = ntk(x, y, depth=3, activation=quadrature(jax.scipy.special.erf))
    np.testing.assert_allclose(numeric, ntk(x, y, depth=3, activation="erf"), rtol=1e-6)


# ---------------------------------------------------------------- exact values of the limit


def test_ntk_on_the_circle_is_known(x64):
    # ReLU, L = 4, β = 0.1, n₀ = 2, unit circle, at 0, π/2 and π
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    expected = [0.2825, 0.0927021, 0.0643538]
    np.testing.assert_allclose(ntk(x, x[:1], depth=4)[:, 0], expected, atol=5e-8)
    np.testing.assert_allclose(ntk(x, depth=4)[0], expected, atol=5e-8)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_with_gain_2_the_diagonal_is_the_depth(depth, dtype):
    # Arora et al. 2019: no bias, unit inputs, not divided by n₀
    x = points(20, 5, dtype=dtype)
    x *= math.sqrt(5) / np.linalg.norm(x, axis=1, keepdims=True)
    kernel = ntk(x, depth=depth, gain=2.0, beta=0.0)
    np.testing.assert_allclose(np.diag(kernel), depth, rtol=8 * depth * np.finfo(dtype).eps)


def test_at_depth_1_the_ntk_is_the_linear_kernel_and_the_nngp(x64):
    x, y = points(4, 3), points(2, 3, seed=1)
    for other in (x, y):
        kernel = ntk(x, other, depth=1, activation="sin", gain=3.0, beta=0.5)
        np.testing.assert_allclose(kernel, x @ other.T / 3 + 0.25, rtol=1e-12)
        np.testing.assert_allclose(kernel, nngp(x, other, depth=1, beta=0.5), rtol=1e-14)


def test_ntk_minus_nngp_is_what_the_earlier_layers_add(x64):
    # one hidden layer: Θ − Σ = Σ^(1)·Σ̇^(2), and Σ̇ of ReLU is ½ − θ/2π
    x = on_circle(7)
    first = x @ x.T / 2 + 0.01
    theta = np.arccos(np.clip(first / 0.51, -1, 1))
    difference = ntk(x, depth=2) - nngp(x, depth=2)
    np.testing.assert_allclose(difference, first * (0.5 - theta / (2 * np.pi)), atol=1e-8)


# ---------------------------------------------------------------- properties of the limit

coordinates = st.lists(
    st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3), min_size=4, max_size=4
)
nonzero = coordinates.filter(lambda x: min(np.linalg.norm(x, axis=1)) > 1e-3)


@quick
@given(x=coordinates, name=st.sampled_from(NAMES), gain=st.floats(0.1, 3), beta=st.floats(0.01, 1))
def test_ntk_is_exactly_symmetric_and_positive_semidefinite(x, name, gain, beta):
    with jax.enable_x64(True):
        kernel = np.asarray(ntk(np.array(x), depth=3, activation=name, gain=gain, beta=beta))
    np.testing.assert_array_equal(kernel, kernel.T)
    # the angle of repeated points is known to √ε, and so is the kernel between them
    assert np.linalg.eigvalsh(kernel).min() >= -1e-7 * np.trace(kernel)


@quick
@given(x=coordinates, angle=st.floats(0, 6.3), name=st.sampled_from(NAMES))
def test_ntk_does_not_notice_a_rotation(x, angle, name):
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    rotation = rotation @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    with jax.enable_x64(True):
        kernel = np.asarray(ntk(np.array(x), depth=3, activation=name))
        turned = np.asarray(ntk(np.array(x) @ rotation, depth=3, activation=name))
    # √ε between nearly parallel points
    np.testing.assert_allclose(turned, kernel, rtol=1e-7, atol=1e-10)


@quick
@given(x=nonzero, scale=st.floats(1e-3, 1e3), other=st.floats(1e-3, 1e3))
def test_ntk_of_relu_without_bias_is_positively_homogeneous(x, scale, other):
    with jax.enable_x64(True):
        x = np.array(x)
        kernel = np.asarray(ntk(x, -x[:2], depth=3, beta=0.0))
        scaled = np.asarray(ntk(scale * x, -other * x[:2], depth=3, beta=0.0))
    size = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(
        scaled / (scale * other), kernel, rtol=1e-7, atol=1e-7 * size.max() ** 2
    )


@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_the_size_of_the_inputs_costs_no_digit(scale):
    # the product of two squared norms would leave the range of float32, here 10^±38
    x, y = points(3, 2, dtype="float32"), points(4, 2, seed=1, dtype="float32")
    for pair in ((x, None), (x, y)):
        kernel, scaled = (
            ntk(*(t if t is None else s * t for t in pair), depth=3, beta=0.0)
            for s in (np.float32(1), np.float32(scale))
        )
        np.testing.assert_array_equal(scaled, np.float32(scale) ** 2 * np.asarray(kernel))


@quick
@given(x=coordinates, name=st.sampled_from(NAMES))
def test_ntk_of_x_is_ntk_of_x_with_a_copy(x, name):
    with jax.enable_x64(True):
        x = np.array(x)
        gram = np.asarray(ntk(x, depth=3, activation=name))
        pair = np.asarray(ntk(x, x.copy(), depth=3, activation=name))
    # √ε where an angle vanishes; elsewhere rounding
    np.testing.assert_allclose(pair, gram, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", ["relu", "erf", "sin"])
def test_ntk_with_a_copy_differs_by_rounding_off_the_diagonal(name, dtype):
    x = points(9, 5, dtype=dtype)
    gram, pair = (np.asarray(ntk(x, y, depth=3, activation=name)) for y in (None, x.copy()))
    scale = np.sqrt(np.outer(np.diag(gram), np.diag(gram)))
    difference = np.abs(pair - gram) / scale
    eps = np.finfo(dtype).eps
    # ‖x‖² enters exponents, so its relative rounding is multiplied by up to ‖x‖²/d = 20
    assert difference[~np.eye(9, dtype=bool)].max() < 100 * eps
    # on the diagonal of a pair ρ is rounded: its angle is known to √ε (in a Gram it is exact)
    kink = name in ("relu", "leaky_relu")
    assert np.diag(difference).max() < (2 * math.sqrt(8 * eps) / np.pi if kink else 100 * eps)


@pytest.mark.parametrize("name", NAMES)
def test_a_gram_of_many_points_is_exactly_symmetric(name, dtype):
    # 37 points: vectorised loops and their remainders round differently
    kernel = np.asarray(ntk(points(37, 5, dtype=dtype), depth=3, activation=name, gain=1.5))
    np.testing.assert_array_equal(kernel, kernel.T)


def test_a_gram_by_quadrature_is_exactly_symmetric(dtype):
    x = points(7, 5, dtype=dtype)
    kernel = np.asarray(ntk(x, depth=2, activation=quadrature(jnp.tanh), gain=1.5))
    np.testing.assert_array_equal(kernel, kernel.T)


def test_swapping_x_and_y_transposes(x64):
    x, y = points(4, 3), points(2, 3, seed=5)
    for name in ("relu", "erf"):
        kernel, swapped = (
            ntk(*pair, depth=3, activation=name, beta=0.3) for pair in ((x, y), (y, x))
        )
        np.testing.assert_allclose(kernel, swapped.T, rtol=1e-13)


def test_ntk_on_the_circle_is_positive_definite(x64):
    # Proposition 2, on the 24th roots of unity at depth 4 (without bias depth 2 would be singular)
    kernel = np.asarray(ntk(on_circle(24), depth=4))
    assert np.linalg.eigvalsh(kernel).min() > 1e-4
    flat = np.asarray(ntk(on_circle(24), depth=2, beta=0.0))
    assert abs(np.linalg.eigvalsh(flat).min()) < 1e-14


# ---------------------------------------------------------------- precision and gradients


def circle_points(gaps, dtype):
    """(1, 0)·√2 and points at the given angles from it: a = b = 1 in the first layer."""
    gaps = np.asarray(gaps)
    x = math.sqrt(2) * np.stack([np.cos(gaps), np.sin(gaps)], axis=1)
    return x.astype(dtype)


@pytest.mark.parametrize("activation", [*KINDS, "cos"], ids=named)
def test_float32_is_accurate_at_every_angle(activation):
    depth = 5
    gaps = np.concatenate([10.0 ** -np.arange(1, 8), np.linspace(0.3, np.pi, 12), [0.0]])
    x = circle_points(gaps, "float32")
    options = {"depth": depth, "activation": activation, "gain": 1.5, "beta": 0.1}
    gram, pair = np.asarray(ntk(x, **options)), np.asarray(ntk(x[:1], x, **options))[0]
    with jax.enable_x64(True):
        exact = np.asarray(ntk(x.astype("float64"), **options))
    eps = np.finfo("float32").eps
    # no angle is taken on the diagonal: a few roundings a layer
    np.testing.assert_allclose(np.diag(gram), np.diag(exact), rtol=8 * depth * eps)
    # ρ is known to 4ε, so an angle to min(4ε/sin θ, √(8ε)), and Σ̇ to that over π, once a layer
    kink = activation in ("relu", LEAKY)
    apart = (gaps >= 0.3) & (gaps <= np.pi - 0.3)
    for found, truth in ((gram[0], exact[0]), (pair, exact[0])):
        error = np.abs(found - truth) / exact[0, 0]
        assert error.max() < (depth * math.sqrt(8 * eps) / np.pi if kink else 16 * depth * eps)
        assert error[apart].max() < 16 * depth * eps


@pytest.mark.parametrize(("p", "q"), [(0.0, 1.0), (-0.7, 1.3)])
def test_no_angle_is_taken_on_a_grams_diagonal(p, q, dtype):
    # there Σ and Σ̇ are known without one; a ρ rounded below 1 would show as an error of √ε
    share, gain, beta, depth = (p * p + q * q) / 2, 1.5, 0.1, 4
    for n in (5, 16):
        x = points(n, 3, seed=n, dtype=dtype)
        a = np.sum(x.astype("float64") ** 2, axis=1) / 3 + beta**2
        expected = a
        for _ in range(depth - 1):
            a = gain * share * a + beta**2
            expected = gain * share * expected + a
        kernel = ntk(x, depth=depth, activation=leaky_relu(p, q), gain=gain, beta=beta)
        np.testing.assert_allclose(np.diag(kernel), expected, rtol=8 * depth * np.finfo(dtype).eps)


@pytest.mark.parametrize("activation", KINDS, ids=named)
def test_a_tiny_angle_lowers_the_kernel_as_it_should(activation, x64):
    # ReLU's NTK has a kink, Θ(0) − Θ(γ) ≈ |γ|·const; the smooth ones fall like γ²
    gaps = np.array([1e-3, 2e-3])
    kernel = np.asarray(
        ntk(circle_points([0.0, *gaps], "float64"), depth=3, activation=activation)
    )[0]
    falls = kernel[0] - kernel[1:]
    power = np.log2(falls[1] / falls[0])
    assert power == pytest.approx(1 if activation in ("relu", LEAKY) else 2, abs=0.01)


@pytest.mark.parametrize("activation", [*KINDS, "cos"], ids=named)
def test_gradients_are_finite_at_equal_opposite_and_zero_points(activation):
    # ρ = ±1 to rounding, and a point without direction beside a bias
    x = jnp.asarray([[1.0, 2.0, -0.5]] * 2 + [[-1.0, -2.0, 0.5], [-2.0, -4.0, 1.0], [0.0] * 3])

    def total(s, t, beta):
        options = {"depth": 3, "activation": activation, "beta": beta}
        return ntk(s, **options).sum() + ntk(s, -t, **options).sum()

    # without bias the kernels with a kink take another way; those of the smooth are one program
    known = "beta" if activation in ("relu", LEAKY) else ()
    slope = jax.jit(jax.grad(total, argnums=(0, 1)), static_argnames=known)
    moved = x.at[4].set(x[2])
    for gradient in (*slope(x, x, beta=0.3), *slope(moved, moved, beta=0.0)):
        assert np.all(np.isfinite(gradient))


def test_gradients_are_finite_where_two_points_coincide_in_float64(x64):
    x = jnp.asarray(np.repeat(points(2, 3), 2, axis=0))

    def total(s, t):
        return ntk(s, depth=3).sum() + ntk(s, t, depth=3).sum()

    for gradient in jax.jit(jax.grad(total, argnums=(0, 1)))(x, x):
        assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("activation", "depth", "beta"),
    [("relu", 2, 0.0), ("relu", 3, 0.3), (LEAKY, 2, 0.3), ("erf", 2, 0.3)],
    ids=named,
)
def test_gradients_match_finite_differences(activation, depth, beta, x64):
    # the Gram's diagonal, where x meets itself, included
    x, y = points(3, 2), points(2, 2, seed=3)
    options = {"depth": depth, "activation": activation, "gain": 1.3, "beta": beta}

    @jax.jit
    def total(s, t):
        weighted = ntk(s, **options) * jnp.arange(1.0, 10).reshape(3, 3)
        return weighted.sum() + (ntk(s, t, **options) * jnp.array([[2.0, -1.0]])).sum()

    for gradient, f, at in zip(
        jax.jit(jax.grad(total, argnums=(0, 1)))(x, y),
        (lambda s: total(s, y), lambda t: total(x, t)),
        (x, y),
        strict=True,
    ):
        np.testing.assert_allclose(gradient, differences(f, at, 1e-5), rtol=1e-6, atol=1e-7)


def test_a_captured_training_set_works_under_jit(x64):
    x, train_x = points(3, 2), jnp.asarray(points(4, 2, seed=1))
    kernel = jax.jit(lambda t: ntk(t, train_x, depth=2))(x)
    np.testing.assert_allclose(kernel, ntk(x, train_x, depth=2), rtol=1e-12)


def test_ntk_keeps_the_dtype_and_works_under_jit_and_vmap(dtype):
    x = jnp.asarray(points(3, 2, dtype=dtype))
    kernel = ntk(x, depth=3)
    assert kernel.dtype == dtype
    assert kernel.shape == (3, 3)
    assert ntk(x, x[:2], depth=3).shape == (3, 2)
    np.testing.assert_allclose(jax.jit(lambda t: ntk(t, depth=3))(x), kernel, rtol=1e-6)
    batch = jax.vmap(lambda t: ntk(t, depth=3))(jnp.stack([x, 2 * x]))
    np.testing.assert_allclose(batch[0], kernel, rtol=1e-6)


# ---------------------------------------------------------------- perceptrons without a Jacobian

SHAPES = [(3, 1), (3, 3), (3, 6, 1), (3, 6, 3), (3, 6, 5, 4, 1), (3, 6, 5, 4, 3)]
EVERY = [*NAMES, LEAKY, quadrature(jnp.tanh)]


def both_ways(params, x, y, **options):
    """The kernel layer by layer and by its definition, compiled in one go."""

    @jax.jit
    def kernels(p, x, y):
        def f(p, t):
            return apply(p, t, **options)

        return mlp_ntk(p, x, y, **options), empirical_ntk(f, p, x, y)

    return kernels(params, x, y)


def assert_equal_to_rounding(theta, expected, dtype):
    assert theta.dtype == dtype
    assert theta.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(theta, expected, atol=50 * np.finfo(dtype).eps * scale, rtol=0)


@pytest.mark.parametrize("widths", SHAPES, ids=str)
def test_mlp_ntk_is_the_empirical_ntk_for_every_shape(widths, x64):
    params, x = init(widths, key=KEY), jnp.asarray(points(4, 3))
    assert_equal_to_rounding(*both_ways(params, x, None, gain=1.7, beta=0.3), "float64")


@pytest.mark.parametrize("activation", EVERY, ids=named)
def test_mlp_ntk_is_the_empirical_ntk_for_every_activation(activation, dtype):
    params = init(SHAPES[-1], key=KEY)
    x, y = (jnp.asarray(points(n, 3, seed=n, dtype=dtype)) for n in (4, 5))
    options = {"activation": activation, "gain": 1.7, "beta": 0.3}
    assert_equal_to_rounding(*both_ways(params, x, y, **options), dtype)


@pytest.mark.parametrize("outputs", ["full", "trace", "diagonal"])
@pytest.mark.parametrize(
    ("widths", "large"),
    [((3, 1), 1), ((3, 3), 10**6), ((3, 6, 1), 10**6), ((3, 6, 5, 4, 3), 1)],
    ids=str,
)
def test_mlp_ntk_keeps_the_outputs_asked_for(widths, large, outputs, monkeypatch, x64):
    # 11 points: the four rows of blocks of a large kernel are not of one size
    monkeypatch.setattr(limiting_ntk, "_LARGE", large)
    params, x, y = init(widths, key=KEY), points(11, 3), points(4, 3, seed=1)
    options = {"gain": 1.7, "beta": 0.3}
    k = widths[-1]

    # not the compiled function, which would not see the changed constant
    kernel = functools.partial(
        mlp_ntk_of_arrays.__wrapped__, sigma=ACTIVATIONS["relu"], outputs=outputs
    )
    gain, beta = jnp.asarray(1.7), jnp.asarray(0.3)
    for other in (None, y):
        theta = np.asarray(jax.jit(kernel)(params, x, other, gain, beta))
        full = empirical_ntk(lambda p, t: apply(p, t, **options), params, x, other)
        full = np.asarray(full).reshape(*full.shape[:2], k, k)
        expected = {
            "full": full if k > 1 else full[:, :, 0, 0],
            "trace": np.einsum("nmii->nm", full),
            "diagonal": np.einsum("nmii->nmi", full),
        }[outputs]
        assert_equal_to_rounding(theta, expected, "float64")
        public = mlp_ntk(params, x, other, outputs=outputs, **options)
        assert_equal_to_rounding(public, expected, "float64")
        if other is None:
            swapped = np.swapaxes(public, 0, 1)
            swapped = np.swapaxes(swapped, 2, 3) if public.ndim == 4 else swapped
            np.testing.assert_array_equal(public, swapped)


def test_mlp_ntk_of_many_points_is_symmetric_to_the_last_bit(dtype):
    params = init((7, 33, 30, 10), key=KEY, dtype=dtype)
    theta = np.asarray(mlp_ntk(params, points(110, 7, dtype=dtype)))
    assert len(theta) * 10 > limiting_ntk._LARGE
    np.testing.assert_array_equal(theta, theta.transpose(1, 0, 3, 2))


def test_mlp_ntks_defaults_are_those_of_apply(x64):
    params, x = init((3, 6, 1), key=KEY), jnp.asarray(points(4, 3))
    np.testing.assert_allclose(mlp_ntk(params, x), empirical_ntk(apply, params, x), rtol=1e-12)


def test_mlp_ntk_with_a_copy_is_the_gram_and_swapping_transposes(x64):
    params, x = init((3, 6, 5, 2), key=KEY), points(4, 3)
    gram = np.asarray(mlp_ntk(params, x))
    np.testing.assert_allclose(mlp_ntk(params, x, x.copy()), gram, rtol=1e-12)
    np.testing.assert_array_equal(gram, gram.transpose(1, 0, 3, 2))
    pair, swapped = (np.asarray(mlp_ntk(params, *t)) for t in ((x, x[:3]), (x[:3], x)))
    np.testing.assert_allclose(pair, swapped.transpose(1, 0, 3, 2), rtol=1e-12)


@pytest.mark.parametrize("half", ["bfloat16", "float16"])
def test_mlp_ntk_of_parameters_in_half_precision_is_that_in_float32(half):
    params = jax.tree.map(lambda w: w.astype(half), init((3, 6, 2), key=KEY, dtype="float32"))
    single = jax.tree.map(lambda w: w.astype("float32"), params)
    x, y = points(4, 3, dtype="float32"), points(2, 3, 1, dtype="float32")
    for other in (None, y):
        theta = mlp_ntk(params, x, other)
        assert theta.dtype == "float32"
        np.testing.assert_array_equal(theta, mlp_ntk(single, x, other))


def test_mlp_ntk_is_computed_in_the_dtype_of_the_parameters(x64):
    params = init((3, 6, 1), key=KEY, dtype="float32")
    assert mlp_ntk(params, points(2, 3)).dtype == "float32"
    assert mlp_ntk(init((3, 6, 1), key=KEY), points(2, 3, dtype="float32")).dtype == "float64"


@pytest.mark.parametrize("with_y", [False, True])
@pytest.mark.parametrize("outputs", [1, 3])
def test_mlp_ntk_needs_less_memory_than_one_copy_of_the_weights(with_y, outputs):
    # compiled for width 4096 and 64 points from shapes alone; a Jacobian would be 64 copies
    params = jax.eval_shape(lambda key: init((16, 4096, 4096, outputs), key=key), KEY)
    x, number = jax.ShapeDtypeStruct((64, 16), "float32"), jax.ShapeDtypeStruct((), "float32")
    lowered = mlp_ntk_of_arrays.lower(
        params, x, x if with_y else None, number, number, sigma=ACTIVATIONS["relu"]
    )
    memory = lowered.compile().memory_analysis()
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert memory.argument_size_in_bytes >= weights
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < weights


# ---------------------------------------------------------------- random networks

TRIANGLE = np.array([[1.0, 0.5], [-0.4, 2.0], [0.2, -0.1]])


def test_the_variance_of_one_hidden_relu_layer_is_exactly_3_over_m(x64):
    # gain 1, no bias, ‖x‖² = d: Θ̂(x, x) is a mean of m independent B·(u² + v²), B a fair coin,
    # u, v ~ N(0, 1). Its moments are E Y^r = ½·2^r·r!, so mean 1, variance 3, fourth centred 117.
    x = np.ones((1, 3))
    draws = 10_000
    for m in (1, 10):
        kernels = random_kernels(x, key=jax.random.key(m), draws=draws, width=m, depth=2, beta=0.0)
        off = np.asarray(kernels)[:, 0, 0] - 1
        variance, fourth = 3 / m, (117 + 3 * (m - 1) * 9) / m**3
        assert abs(off.mean()) < 4 * math.sqrt(variance / draws)
        assert abs((off**2).mean() - variance) < 4 * math.sqrt((fourth - variance**2) / draws)


@pytest.mark.parametrize("name", ["relu", "erf", "cos"])
def test_the_mean_kernel_of_one_hidden_layer_is_the_limit_at_any_width(name, x64):
    # with one hidden layer the expectation is exact, at width 3 too
    options = {"depth": 2, "activation": name, "gain": 1.5, "beta": 0.4}
    draws = 10_000
    for y in (None, TRIANGLE[1:] + 0.3):
        kernels = np.asarray(random_kernels(TRIANGLE, y, key=KEY, draws=draws, width=3, **options))
        error = kernels.std(0, ddof=1) / math.sqrt(draws)
        assert np.all(np.abs(kernels.mean(0) - ntk(TRIANGLE, y, **options)) < 4 * error)
        assert np.all(error < 0.04)


@pytest.mark.parametrize("name", ["relu", "sin"])
def test_the_mean_kernel_of_wide_deep_networks_is_near_the_limit(name):
    options = {"depth": 4, "activation": name, "gain": 1.5, "beta": 0.4}
    draws, width = 300, 128
    x = TRIANGLE.astype("float32")
    kernels = np.asarray(random_kernels(x, key=KEY, draws=draws, width=width, **options))
    limit = np.asarray(ntk(x, **options))
    error = kernels.std(0, ddof=1) / math.sqrt(draws)
    # beside the sampling error a finite width has a bias of the order limit/width
    assert np.all(np.abs(kernels.mean(0) - limit) < 4 * error + 2 * np.diag(limit).max() / width)
    assert np.all(error < 0.03 * np.diag(limit).max())


def test_kernels_concentrate_like_one_over_the_root_of_the_width():
    x = TRIANGLE.astype("float32")
    spread = {}
    for width in (8, 128):
        kernels = random_kernels(x, key=KEY, draws=400, width=width, depth=3)
        spread[width] = float(np.asarray(kernels)[:, 0, 1].std())
    # a ratio of two standard deviations from 400 draws is known to 5 %, heavy tails to some more
    assert spread[8] / spread[128] == pytest.approx(4, rel=0.3)


def test_random_kernels_are_kernels_of_networks_of_that_shape(x64):
    x, y = points(3, 2), points(2, 2, seed=1)
    options = {"activation": "erf", "gain": 1.7, "beta": 0.3}
    kernels = random_kernels(x, y, key=KEY, draws=3, width=5, depth=3, **options)
    assert kernels.shape == (3, 3, 2)
    for key, kernel in zip(jax.random.split(KEY, 3), kernels, strict=True):
        expected = mlp_ntk(init((2, 5, 5, 1), key=key), x, y, **options)
        np.testing.assert_allclose(kernel, expected, rtol=1e-12)


def test_random_kernels_follow_the_key_and_differ_between_draws(dtype):
    x = points(3, 2, dtype=dtype)
    options = {"draws": 4, "width": 5, "depth": 2}
    kernels, again = (np.asarray(random_kernels(x, key=KEY, **options)) for _ in range(2))
    assert kernels.dtype == dtype
    np.testing.assert_array_equal(kernels, again)
    assert len(np.unique(kernels[:, 0, 0])) == 4
    other = np.asarray(random_kernels(x, key=jax.random.key(1), **options))
    assert not np.any(kernels == other)


def test_at_depth_1_every_network_has_the_same_kernel(x64):
    x = points(3, 2)
    kernels = random_kernels(x, key=KEY, draws=2, width=5, depth=1, beta=0.3)
    for kernel in kernels:
        np.testing.assert_allclose(kernel, x @ x.T / 2 + 0.09, rtol=1e-13)


# ---------------------------------------------------------------- the circle


MODES = 12


def relu_on_the_circle(kernel, n=8192, **options):
    """One hidden layer as a function of the angle alone: gain 2, no bias, unit inputs times √2."""
    x = math.sqrt(2) * on_circle(n)
    return kernel(x[:1], x, depth=2, gain=2.0, beta=0.0, **options)[0]


def test_the_spectrum_of_the_ntk_on_the_circle(x64):
    spectrum = np.asarray(circle_spectrum(relu_on_the_circle(ntk)))
    even = 2 * np.arange(1, MODES)
    assert len(spectrum) == 4097
    # the modes beyond n fold back: at most (2/π²)·2·Σ_j 1/(jn)² < 1/n²
    folded = 8192**-2.0
    assert spectrum[0] == pytest.approx(6 / np.pi**2, abs=folded)
    assert spectrum[1] == pytest.approx(0.5, abs=folded)
    expected = 2 / np.pi**2 * (even**2 + 3) / (even**2 - 1) ** 2
    np.testing.assert_allclose(spectrum[even], expected, atol=folded)
    np.testing.assert_allclose(spectrum[3::2], 0, atol=1e-12)
    # all modes together are Θ(0) = 2; the last one belongs to a cosine only
    assert spectrum[0] + 2 * spectrum[1:-1].sum() + spectrum[-1] == pytest.approx(2, abs=1e-12)


def test_the_closed_form_of_the_spectrum_sums_to_the_diagonal():
    even = 2.0 * np.arange(1, 100_000)
    closed = 6 / np.pi**2 + 2 * (0.5 + np.sum(2 / np.pi**2 * (even**2 + 3) / (even**2 - 1) ** 2))
    # the tail beyond K is 2·(2/π²)·Σ 1/(2j)² ≈ (1/π²)/j
    assert closed == pytest.approx(2, abs=2e-6)


def test_the_spectrum_of_the_nngp_on_the_circle(x64):
    spectrum = np.asarray(circle_spectrum(relu_on_the_circle(nngp)))
    even = 2 * np.arange(1, MODES)
    assert spectrum[0] == pytest.approx(4 / np.pi**2, abs=1e-12)
    assert spectrum[1] == pytest.approx(0.25, abs=1e-12)
    np.testing.assert_allclose(spectrum[even], 4 / (np.pi * (even**2 - 1)) ** 2, atol=1e-12)
    np.testing.assert_allclose(spectrum[3::2], 0, atol=1e-12)
    assert spectrum[0] + 2 * spectrum[1:-1].sum() + spectrum[-1] == pytest.approx(1, abs=1e-12)


def test_the_spectrum_of_relus_derivative_dual_has_only_odd_modes(x64):
    # κ₀ = 2·E[σ'σ'] = (π − θ)/π, what a bias adds: ½, then 2/(π²k²) at odd k
    rho = jnp.asarray(np.cos(2 * np.pi * np.arange(8192) / 8192))
    one = jnp.ones(8192)
    spectrum = np.asarray(circle_spectrum(2 * ACTIVATIONS["relu"].dual_prime(one, one, rho)))
    odd = 2 * np.arange(MODES) + 1
    assert spectrum[0] == pytest.approx(0.5, abs=1e-12)
    np.testing.assert_allclose(spectrum[odd], 2 / (np.pi * odd) ** 2, atol=8192**-2.0)
    np.testing.assert_allclose(spectrum[2::2], 0, atol=1e-12)


def test_with_more_layers_or_a_bias_the_odd_modes_are_there(x64):
    x = math.sqrt(2) * on_circle(512)
    deep = circle_spectrum(ntk(x[:1], x, depth=3, gain=2.0, beta=0.0)[0])
    biased = circle_spectrum(ntk(x[:1], x, depth=2, gain=2.0, beta=0.5)[0])
    assert deep[3] > 1e-3
    assert biased[3] > 1e-3


@pytest.mark.parametrize("n", [2, 7, 8])
def test_the_spectrum_is_that_of_the_gram_over_n(n, x64):
    kernel = np.asarray(ntk(on_circle(n), depth=3))
    spectrum = np.asarray(circle_spectrum(kernel[0]))
    assert len(spectrum) == n // 2 + 1
    twice = spectrum[1:-1] if n % 2 == 0 else spectrum[1:]
    every = np.sort(np.concatenate([spectrum, twice]))
    np.testing.assert_allclose(every, np.linalg.eigvalsh(kernel) / n, atol=1e-8)


@pytest.mark.parametrize("mode", [0, 1, 5])
def test_a_pure_mode_has_one_eigenvalue(mode, x64):
    # a negative one, which no tangent kernel has: signs are kept
    kernel = -3 * np.cos(mode * 2 * np.pi * np.arange(16) / 16)
    expected = np.zeros(9)
    expected[mode] = -3 if mode == 0 else -1.5
    np.testing.assert_allclose(circle_spectrum(kernel), expected, atol=1e-14)


def test_the_spectrum_on_the_sphere(x64):
    # Funk–Hecke on S²: λ_k = ½ ∫ Θ(cos θ) P_k(cos θ) sin θ dθ, smooth in θ
    z, w = np.polynomial.legendre.leggauss(64)
    theta = np.pi * (z + 1) / 2
    x = math.sqrt(2) * np.stack([np.cos(theta), np.sin(theta)], axis=1)
    north = np.array([[math.sqrt(2), 0.0]])
    kernel = np.asarray(ntk(x, north, depth=2, gain=2.0, beta=0.0))[:, 0]
    measure = w * np.pi / 2 * np.sin(theta) / 2
    found = [
        np.sum(measure * kernel * np.polynomial.legendre.Legendre.basis(k)(np.cos(theta)))
        for k in range(5)
    ]
    np.testing.assert_allclose(found, [1 / 2, 1 / 3, 0.078125, 0, 0.0052083333], atol=1e-9)


def test_the_plot_shows_every_network_and_the_limit():
    angles = np.linspace(-np.pi, np.pi, 9)
    kernels = np.arange(27.0).reshape(3, 9)
    fig = plot_on_circle(angles, kernels, np.ones(9), top=2.0, title="three networks")
    (ax,) = fig.axes
    drawn = [line for line in ax.lines if len(line.get_xdata())]
    plt.close(fig)
    assert len(drawn) == 4
    for line, values in zip(drawn, [*kernels, np.ones(9)], strict=True):
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), angles)
    assert ax.get_title() == "three networks"
    assert ax.get_ylim()[1] == 2.0
    assert ax.get_xlabel()
    assert ax.get_ylabel()


# ---------------------------------------------------------------- unusual input


@pytest.mark.parametrize(
    ("name", "beta"), [("relu", 0.1), ("erf", 0.0), ("sin", 0.0), ("cos", 0.0)]
)
def test_a_zero_point_is_fine_where_no_angle_is_taken(name, beta):
    x = np.array([[0.0, 0.0], [1.0, 2.0]], np.float32)
    assert np.all(np.isfinite(ntk(x, depth=3, activation=name, beta=beta)))


def test_a_zero_point_is_fine_for_a_finite_network():
    x = np.zeros((1, 2), np.float32)
    kernel = mlp_ntk(PARAMS, x, beta=0.0)
    np.testing.assert_array_equal(kernel, np.zeros((1, 1)))
    kernels = random_kernels(x, key=KEY, draws=2, width=3, depth=2, beta=0.0)
    np.testing.assert_array_equal(kernels, np.zeros((2, 1, 1)))


def test_integers_are_points_too(no_hook, dtype):
    x = np.array([[1, 2], [3, -4]])
    real = x.astype(dtype)
    np.testing.assert_array_equal(ntk(x, depth=3), ntk(real, depth=3))
    np.testing.assert_array_equal(ntk(x.tolist(), depth=3), ntk(real, depth=3))
    params = init((2, 3, 1), key=KEY)
    np.testing.assert_array_equal(mlp_ntk(params, x), mlp_ntk(params, real))
    options = {"key": KEY, "draws": 2, "width": 3, "depth": 2}
    np.testing.assert_array_equal(random_kernels(x, **options), random_kernels(real, **options))
    np.testing.assert_array_equal(circle_spectrum([1, 0]), circle_spectrum(np.array([1.0, 0.0])))


# ---------------------------------------------------------------- the stored runs


def test_the_stored_motion_is_what_the_script_would_make():
    stored = json.loads(str(load("limiting_ntk_motion")["settings"]))
    assert {k: v for k, v in stored.items() if k not in {"jax", "numpy", "minutes"}} == runs.SETTING


def test_the_script_stores_the_motion(monkeypatch, tmp_path):
    small = {"networks": {"erf_2": {"6": 3}, "relu_4": {"6": 3}}, "kept": [1, 3]}
    monkeypatch.setattr(runs, "SETTING", runs.SETTING | small | {"steps": [0, 2, 3]})
    monkeypatch.setattr(runs, "DATA", tmp_path)
    assert runs.main() == 0
    with np.load(tmp_path / "limiting_ntk_motion.npz") as file:
        shapes = {name: file[name].shape for name in file if name != "settings"}
    of_all = {"drift": (3,), "motion": (97,), "motion_se": (97,)}
    assert shapes == {
        **{f"{part}_{kind}_6": at for kind in ("erf_2", "relu_4") for part, at in of_all.items()},
        "kernels_relu_4_6": (2, 3, 97),
        "peaks_relu_4_6": (3, 3),
    }
