"""Descent, flow and the tangent kernel, each against an independent computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED, numpy_jacobian, points

from ntk_lib.gradient_flow import empirical_ntk
from ntk_lib.wide_networks import apply, init

# ---------------------------------------------------------------- the definition


jitted = jax.jit(empirical_ntk, static_argnums=0)  # compiling operation by operation takes seconds


def toy(params, x):
    """Not a perceptron: products, a scalar parameter, an unused one; inputs (n, 2, 3)."""
    scores = jnp.einsum("nij,jk->nik", x, params["B"])
    pooled = jnp.sin(scores).sum(1) * params["a"]["scale"]
    return pooled + jnp.exp(-(pooled[:, ::-1] ** 2)) * params["a"]["shift"][None, :]


def toy_params():
    rng = np.random.default_rng(RNG_SEED)
    return {
        "B": jnp.asarray(rng.normal(size=(3, 2))),
        "a": {"scale": jnp.asarray(0.7), "shift": jnp.asarray(rng.normal(size=2))},
        "unused": jnp.ones(4),
    }


def test_empirical_ntk_of_any_function_is_a_product_of_jacobians(x64):
    rng = np.random.default_rng(RNG_SEED)
    params = toy_params()
    x, y = jnp.asarray(rng.normal(size=(4, 2, 3))), jnp.asarray(rng.normal(size=(3, 2, 3)))
    left, right = (numpy_jacobian(toy, params, t) for t in (x, y))
    theta = np.asarray(jitted(toy, params, x, y))
    assert theta.shape == (4, 3, 2, 2)
    for n, m, i, j in np.ndindex(4, 3, 2, 2):
        assert theta[n, m, i, j] == pytest.approx(left[n, i] @ right[m, j], abs=1e-7)
    gram = np.einsum("nip,mjp->nmij", left, left)
    np.testing.assert_allclose(jitted(toy, params, x), gram, atol=1e-7)


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_empirical_ntk_of_one_output_has_no_output_axes(shape, x64):
    params, x = toy_params(), jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 3)))

    def first(p, t):
        return toy(p, t)[:, 0].reshape(shape)

    theta = jitted(first, params, x, x[:3])
    assert theta.shape == (4, 3)
    np.testing.assert_allclose(theta, jitted(toy, params, x, x[:3])[:, :, 0, 0], rtol=1e-12)


def test_an_entry_is_the_product_of_two_single_gradients(x64):
    params, x = init((3, 5, 1), key=KEY), jnp.asarray(points(3, 3))
    theta = np.asarray(jitted(apply, params, x, x[1:]))
    gradient = jax.jit(jax.grad(lambda p, point: apply(p, point)[0]))
    flat = [np.concatenate([np.ravel(t) for t in jax.tree.leaves(gradient(params, p))]) for p in x]
    for i, j in np.ndindex(3, 2):
        assert theta[i, j] == pytest.approx(flat[i] @ flat[j + 1], rel=1e-12)


def test_empirical_ntk_takes_a_plain_number_as_parameter(x64):
    x = jnp.array([[1.0], [3.0]])
    theta = empirical_ntk(lambda w, t: w**2 * t[:, 0], 5.0, x)
    np.testing.assert_allclose(theta, 100 * np.outer(x, x), rtol=1e-12)


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        pytest.param({"f": 5}, TypeError, r"f needs a function .* got int", id="not-callable"),
        pytest.param({"f": None}, TypeError, "f needs a function .* got NoneType", id="none"),
        pytest.param({"params": []}, ValueError, "params needs at least one array", id="empty"),
        pytest.param(
            {"params": [jnp.ones(2), jnp.ones(2, int)]},
            TypeError,
            "params needs float.* int",
            id="int",
        ),
        pytest.param(
            {"params": jnp.array([1j])}, TypeError, "params needs .* complex", id="complex"
        ),
        pytest.param({"params": ["word"]}, TypeError, "params needs float arrays", id="word"),
        pytest.param(
            {"f": lambda p, x: x[:, 0].sum()}, ValueError, r"f needs .* got \(\)", id="scalar-f"
        ),
        pytest.param(
            {"f": lambda p, x: x[:2, 0]}, ValueError, r"f needs .* got \(2,\)", id="fewer-rows"
        ),
        pytest.param(
            {"f": lambda p, x: x[:, :, None]}, ValueError, r"f needs .*\(3, 2, 1\)", id="rank-3"
        ),
        pytest.param(
            {"f": lambda p, x: (x, x)}, ValueError, r"f needs .* got \(ShapeDtype", id="two-results"
        ),
        pytest.param({"x": np.ones((0, 2))}, ValueError, "x needs at least one", id="no-points"),
        pytest.param({"y": np.ones((0, 2))}, ValueError, "y needs at least one", id="y-empty"),
        pytest.param({"x": np.float64(1)}, ValueError, "x needs", id="no-batch"),
        pytest.param({"x": "words"}, TypeError, "x needs", id="x-word"),
        pytest.param({"y": "words"}, TypeError, "y needs", id="y-word"),
    ],
)
def test_empirical_ntk_refuses_bad_arguments(no_hook, changed, error, says):
    arguments = {"f": lambda p, x: x @ p[0], "params": [jnp.ones(2)], "x": np.ones((3, 2), "f4")}
    with pytest.raises(error, match=f"^{says}"):
        empirical_ntk(**arguments | changed)
