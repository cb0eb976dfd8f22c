"""Random networks of any size: the weights that they stand for, their law, and no new programs.

What is drawn is not the weights but how they act on the signals. So a test puts weights together
that act in just this way, and hands them to ``mlp_ntk`` and ``apply``, which know nothing of this.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, points

from ntk_lib.engine import any_size
from ntk_lib.engine.activations import as_activation
from ntk_lib.engine.any_size import kernels_of_any_size, normals, outputs_of_any_size, room_for
from ntk_lib.limiting_ntk import mlp_ntk, ntk, random_kernels
from ntk_lib.wide_networks import Layer, apply, random_outputs

OPTIONS = {"activation": "erf", "gain": 1.7, "beta": 0.3}


def slope_of(activation, z):
    return np.asarray(jax.jvp(as_activation(activation).function, (z,), (jnp.ones_like(z),))[1])


def drawn(key, layer, shape, width):
    """The numbers of a layer; those of neurons beyond the width are thrown away."""
    return np.asarray(normals(key, layer, shape, np.float64))[:width]


def factor(signals):
    basis, factor = map(np.asarray, any_size._factor(jnp.asarray(signals)))
    np.testing.assert_allclose((basis @ factor).T, signals, atol=1e-9 * np.abs(signals).max())
    return basis, factor


def hidden_layers(key, x, *, width, depth, activation, gain, beta):
    """Weights W = Z Qᵀ that act on ``x`` as drawn, with Q and Z, and the pre-activations."""
    sigma = as_activation(activation).function
    numbers = drawn(key, 0, (room_for(width), x.shape[1] + 1), width)
    params = [Layer(numbers[:, :-1], numbers[:, -1])]
    pre = [x @ numbers[:, :-1].T / np.sqrt(x.shape[1]) + beta * numbers[:, -1]]
    known = [None]
    for layer in range(1, depth - 1):
        basis, above = factor(np.sqrt(gain / width) * np.asarray(sigma(pre[-1])))
        numbers = drawn(key, layer, (room_for(width), len(x) + 1), width)
        image, b = numbers[:, :-1], numbers[:, -1]
        known.append((basis, image))
        params.append(Layer(image @ basis.T, b))
        pre.append((image @ above).T + beta * b)
    return params, known, pre


def network_of(key, x, *, width, depth, activation, gain, beta):
    """A network that acts on ``x``, upwards and downwards, as drawn: W = Z Qᵀ + P Vᵀ (1 - Q Qᵀ)."""
    options = {"activation": activation, "gain": gain, "beta": beta}
    up, down = jax.random.split(key)
    params, known, pre = hidden_layers(up, x, width=width, depth=depth, **options)
    last = np.asarray(normals(down, 0, (1, room_for(width)), np.float64))[:, :width]
    delta = np.sqrt(gain / width) * slope_of(activation, pre[-1]) * last
    for layer in range(depth - 2, 0, -1):
        (basis, image), (top, _) = known[layer], factor(delta)
        free = drawn(down, layer, (room_for(width), len(x)), width)
        rest = np.eye(width) - basis @ basis.T
        W = image @ basis.T + top @ free.T @ rest
        params[layer] = params[layer]._replace(W=W)
        delta = np.sqrt(gain / width) * slope_of(activation, pre[layer - 1]) * (delta @ W)
    params.append(Layer(last, np.zeros(1)))
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("width", [7, 512, 520])
def test_a_kernel_is_that_of_a_network_of_this_size(width, depth, x64):
    x = points(4, 3)
    options = OPTIONS | {"width": width, "depth": depth}
    kernels = kernels_of_any_size(x, key=KEY, draws=2, deepest=6, **options)
    assert kernels.shape == (2, 4, 4)
    for key, kernel in zip(jax.random.split(KEY, 2), kernels, strict=True):
        params = network_of(key, x, **options)
        assert [len(b) for _, b in params] == [width] * (depth - 1) + [1]
        # 1e-7: the Gram squares the condition of the signals of these four points
        np.testing.assert_allclose(kernel, mlp_ntk(params, x, **OPTIONS), rtol=1e-7)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("width", [7, 520])
def test_outputs_are_those_of_a_network_of_this_size(width, depth, x64):
    x = points(4, 3)
    options = OPTIONS | {"width": width, "depth": depth}
    outputs = outputs_of_any_size(x, key=KEY, draws=2, **options)
    assert outputs.shape == (2, 4)
    for key, output in zip(jax.random.split(KEY, 2), outputs, strict=True):
        params, _, _ = hidden_layers(key, x, **options)
        last = np.asarray(normals(key, depth, (1, room_for(width) + 1), np.float64))
        params.append(Layer(last[:, :width], last[:, -1]))
        params = jax.tree.map(jnp.asarray, params)
        expected = apply(params, jnp.asarray(x), **OPTIONS)[:, 0]
        np.testing.assert_allclose(output, expected, rtol=1e-7)


def test_at_depth_1_there_is_nothing_to_draw_for_the_kernel(x64):
    x = points(3, 2)
    for kernel in kernels_of_any_size(x, key=KEY, draws=2, width=5, depth=1, beta=0.3):
        np.testing.assert_allclose(kernel, x @ x.T / 2 + 0.09, rtol=1e-13)


# ---------------------------------------------------------------- the law

# More points than neurons, two of them the same: their signals span what they can and no more.
CROWD = np.array([[1.0, 0.5], [-0.4, 2.0], [0.2, -0.1], [-0.4, 2.0], [-1.0, -1.0]])


def moments(values):
    """Means of the entries, of their products, and of their fourth powers: (draws, entries)."""
    products = np.einsum("di,dj->dij", values, values).reshape(len(values), -1)
    return np.concatenate([values, products, values**4], axis=1)


def assert_same_law(ours, theirs):
    ours, theirs = moments(np.asarray(ours)), moments(np.asarray(theirs))
    error = np.sqrt((ours.var(0) + theirs.var(0)) / len(ours))
    # 5 standard errors: there are hundreds of moments, and their estimates have heavy tails
    assert np.all(np.abs(ours.mean(0) - theirs.mean(0)) <= 5 * error + 1e-12)


@pytest.mark.optimised
@pytest.mark.parametrize(("activation", "depth"), [("erf", 2), ("relu", 4)])
def test_kernels_have_the_law_of_drawn_networks(activation, depth, x64):
    options = {"draws": 4000, "width": 3, "depth": depth, "activation": activation, "gain": 1.5}
    ours = kernels_of_any_size(CROWD, key=KEY, deepest=4, **options)
    theirs = random_kernels(CROWD, key=jax.random.key(1), **options)
    upper = np.triu_indices(len(CROWD))
    assert_same_law(ours[:, *upper], theirs[:, *upper])


@pytest.mark.optimised
@pytest.mark.parametrize("activation", ["relu", "sin"])
@pytest.mark.parametrize("depth", [1, 4])
def test_outputs_have_the_law_of_drawn_networks(activation, depth, x64):
    options = {"draws": 4000, "width": 3, "depth": depth, "activation": activation, "gain": 1.5}
    ours = outputs_of_any_size(CROWD, key=KEY, **options)
    theirs = random_outputs(CROWD, key=jax.random.key(1), **options)
    assert_same_law(ours, theirs)


def test_wide_networks_come_near_the_limit_in_single_precision():
    angles = np.linspace(-np.pi, np.pi, 25)
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype("float32")
    kernels = np.asarray(kernels_of_any_size(x, key=KEY, draws=20, width=4096, depth=3, deepest=4))
    limit = np.asarray(ntk(x, depth=3))
    assert kernels.dtype == np.float32
    error = kernels.std(0, ddof=1) / np.sqrt(len(kernels))
    # 20 draws: five standard errors, and the bias of order limit/width
    assert np.all(np.abs(kernels.mean(0) - limit) < 5 * error + 2 * limit.max() / 4096)
    assert np.all(error < 0.01 * limit.max())


def test_silent_networks_have_a_kernel_too(dtype):
    # without bias a ReLU network of width 1 is often silent: no signals to take a basis of
    x = CROWD.astype(dtype)
    kernels = np.asarray(kernels_of_any_size(x, key=KEY, draws=50, width=1, depth=4, beta=0.0))
    assert np.all(np.isfinite(kernels))
    assert np.any(np.all(kernels == 0, axis=(1, 2)))
    assert np.any(kernels != 0)
    nothing = kernels_of_any_size(0 * x, key=KEY, draws=2, width=3, depth=3, beta=0.0)
    assert not np.any(nothing)


# ---------------------------------------------------------------- one program


def test_a_new_size_is_no_new_program(x64):
    x = points(3, 2)
    for program, function, options in (
        (any_size._kernels, kernels_of_any_size, {"deepest": 7}),
        (any_size._outputs, outputs_of_any_size, {}),
    ):
        function(x, key=KEY, draws=2, width=9, depth=2, **options)
        known = program._cache_size()
        for seed, width, depth in ((0, 66, 2), (1, 512, 7), (2, 300, 1), (3, 100, 4)):
            key = jax.random.key(seed)
            function(x, key=key, draws=2, width=width, depth=depth, gain=1.0 + seed, **options)
        assert program._cache_size() == known
        function(x, key=KEY, draws=2, width=513, depth=2, **options)
        assert program._cache_size() == known + 1  # the counter does count


def test_they_follow_the_key_and_differ_between_draws(dtype):
    x = points(3, 2, dtype=dtype)
    for function in (kernels_of_any_size, outputs_of_any_size):
        options = {"draws": 4, "width": 5, "depth": 3}
        one, again = (np.asarray(function(x, key=KEY, **options)) for _ in range(2))
        assert one.dtype == dtype
        np.testing.assert_array_equal(one, again)
        assert len(np.unique(one.reshape(4, -1)[:, 0])) == 4
        assert not np.any(one == function(x, key=jax.random.key(1), **options))


def test_room_comes_in_few_sizes():
    assert [room_for(n) for n in (1, 512, 513, 4096)] == [512, 512, 4096, 4096]
