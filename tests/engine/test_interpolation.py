"""Interpolants of a limit kernel, each against the recursion that it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import points

from ntk_lib.engine import interpolation
from ntk_lib.engine.activations import ACTIVATIONS, Moments, as_activation, quadrature
from ntk_lib.engine.interpolation import Numbers, by_surface, surface, surface_basis
from ntk_lib.limiting_ntk import _ntk, ntk, recursive_ntk
from ntk_lib.wide_networks import _nngp

SIGMOIDS = ["tanh", "sigmoid", "softplus", "silu"]


def from_surface(found, variances, rho):
    rows, columns = surface_basis(found, variances)
    return np.asarray(by_surface(jnp.asarray(rho), jnp.asarray(rows), jnp.asarray(columns)))


@pytest.mark.parametrize(
    ("recursion", "name"), [*((_ntk, name) for name in SIGMOIDS), (_nngp, "tanh")]
)
def test_the_surface_is_the_recursion_over_its_diagonal(name, recursion, x64):
    sigma, numbers = ACTIVATIONS[name], Numbers(1.5, 0.1, 3)
    rng = np.random.default_rng(0)
    variances, rho = rng.uniform(0.02, 8, 21), rng.uniform(-1, 1, (21, 21))
    found = surface(recursion, sigma, numbers, variances, 2e-16)
    a, b = variances[:, None], variances[None]
    exact = interpolation.at_pairs(recursion, Moments(a, b, np.sqrt(a * b) * rho), sigma, numbers)
    diagonal = interpolation.at_pairs(recursion, Moments(*(variances,) * 3), sigma, numbers)
    exact = exact / np.sqrt(diagonal[:, None] * diagonal[None])
    assert np.abs(from_surface(found, variances, rho) - exact).max() < 3e-8


def test_of_one_variance_a_surface_has_one_mode(x64):
    numbers = Numbers(1.0, 0.1, 3)
    found = surface(_ntk, ACTIVATIONS["tanh"], numbers, np.full(5, 1.3), 2e-16)
    assert found.coefficients.shape[:2] == (2, 2) or found.coefficients.shape[:2] == (1, 1)
    rho = np.linspace(-1, 1, 25).reshape(5, 5)
    a = np.full((5, 5), 1.3)
    sigma = ACTIVATIONS["tanh"]
    exact = interpolation.at_pairs(_ntk, Moments(a, a, 1.3 * rho), sigma, numbers)
    top = interpolation.at_pairs(_ntk, Moments(*(np.full(1, 1.3),) * 3), sigma, numbers)
    assert np.abs(from_surface(found, np.full(5, 1.3), rho) - exact / top).max() < 3e-8


def test_similar_data_share_a_surface(x64):
    options = (_ntk, ACTIVATIONS["silu"], Numbers(1.0, 0.1, 2))
    one = surface(*options, np.array([0.51, 1.96]), 2e-16)
    assert surface(*options, np.array([0.52, 1.95]), 2e-16) is one
    assert surface(*options, np.array([0.52, 9.0]), 2e-16) is not one


def test_where_a_surface_would_take_too_many_terms_the_recursion_runs_at_every_pair(x64):
    x = 40 * points(6, 2) + 1
    numbers = Numbers(1.0, 0.0, 2)
    variances = np.sum(x * x, axis=1) / 2
    assert surface(_ntk, ACTIVATIONS["tanh"], numbers, variances, 2e-16) is None
    found = ntk(x, depth=2, activation="tanh", beta=0.0)
    expected = recursive_ntk(x, depth=2, activation="tanh", beta=0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize(("name", "n"), [("tanh", 300), ("silu", 9), ("softplus", 1)])
def test_kernels_by_surface_are_those_of_the_recursion(name, n, dtype):
    x, y = points(n, 3, dtype=dtype), points(5, 3, seed=1, dtype=dtype)
    options = {"depth": 3, "activation": name, "gain": 1.2}
    with jax.enable_x64(True):
        exact = np.asarray(recursive_ntk(x[:20].astype(float), **options))
        across = np.asarray(recursive_ntk(x[:20].astype(float), y.astype(float), **options))
        other = np.sqrt(np.diag(recursive_ntk(y.astype(float), **options)))
    gram = np.asarray(ntk(x, **options))
    np.testing.assert_array_equal(gram, gram.T)
    size = np.sqrt(np.diag(exact))
    tolerance = 2e-6 if dtype == "float32" else 5e-8
    error = np.abs(gram[:20, :20] - exact) / (size[:, None] * size[None])
    assert error.max() < tolerance
    error = np.abs(np.asarray(ntk(x, y, **options))[:20] - across) / (size[:, None] * other[None])
    assert error.max() < tolerance


def test_a_function_that_is_written_anew_is_not_compiled_anew(x64):
    x, traces = np.random.default_rng(0).normal(size=(4, 2)), []

    def kernel():
        def function(z):
            traces.append(z.shape)
            return jnp.tanh(1.25 * z)

        traces.clear()
        value = ntk(x, depth=2, activation=quadrature(function))
        return value, len(traces)

    (first, many), (second, few), (third, same) = kernel(), kernel(), kernel()
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)
    assert few == same < many


def test_a_function_that_reads_another_number_is_another_activation(x64):
    state = {"a": 1.0}
    sigma = quadrature(lambda z: state["a"] * jnp.sin(z))
    x = points(3, 2)
    before = np.asarray(ntk(x, depth=2, activation=sigma, beta=0.0))
    one = as_activation(sigma)
    state["a"] = 10.0
    assert as_activation(sigma) != one
    after = np.asarray(ntk(x, depth=2, activation=sigma, beta=0.0))
    np.testing.assert_allclose(after, 100 * before, rtol=1e-6)
