"""The experiments of Jacot et al. 2018: against other code, against the limit."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import KEY, RNG_SEED, X, on_circle

from ntk_lib import jacot_2018
from ntk_lib.engine.data import load
from ntk_lib.engine.tangent_kernels import empirical_ntk
from ntk_lib.jacot_2018 import (
    _kernels_side_by_side,
    component,
    component_in_training,
    four_angles,
    kernels_in_training,
    saddle,
    snapshots,
)
from ntk_lib.lazy import train
from ntk_lib.limiting_ntk import ntk
from ntk_lib.wide_networks import apply, circle, init
from scripts import jacot_2018 as runs

ZEROS = np.zeros(3, np.float32)

# ---------------------------------------------------------------- tasks


def test_the_saddle_is_the_product_of_its_coordinates():
    x, y = saddle(key=KEY, count=4000)
    assert x.dtype == y.dtype == "float32"
    np.testing.assert_array_equal(y, x[:, 0] * x[:, 1])
    # a mean of 4000 standard normal numbers, and of their squares, and of the products
    assert np.abs(x.mean(0)).max() < 4 / np.sqrt(4000)
    assert np.abs((x**2).mean(0) - 1).max() < 4 * np.sqrt(2 / 4000)
    assert abs(y.mean()) < 4 / np.sqrt(4000)


def test_four_angles_are_equally_spaced_over_the_arc():
    found = four_angles(2.4)
    np.testing.assert_allclose(found, 0.3 + np.array([-1.2, -0.4, 0.4, 1.2]))


@pytest.mark.parametrize("arc", [0.01, 3.0, 8.3])
def test_four_angles_are_four_different_points(arc):
    gaps = np.linalg.norm(np.diff(circle(four_angles(arc)), axis=0), axis=1)
    ends = np.linalg.norm(circle(four_angles(arc))[0] - circle(four_angles(arc))[3])
    assert min(*gaps, ends) > 1e-3


# ---------------------------------------------------------------- components


def test_a_component_is_an_eigenfunction_of_mean_square_one(x64):
    root = np.random.default_rng(RNG_SEED).normal(size=(6, 6))
    theta = root @ root.T
    values = np.linalg.eigvalsh(theta / 6)[::-1]
    for k in range(1, 7):
        lam, f = component(theta, k)
        assert lam == pytest.approx(values[k - 1])
        np.testing.assert_allclose(theta @ f / 6, lam * f, atol=1e-10)
        assert np.mean(f**2) == pytest.approx(1)
        assert f[np.argmax(np.abs(f))] > 0


def test_a_components_sign_does_not_depend_on_the_eigenvectors_sign(x64, monkeypatch):
    theta = np.diag([3.0, 2.0, 1.0])
    before = component(theta, 2)[1]
    real = jacot_2018.principal_components
    monkeypatch.setattr(
        jacot_2018, "principal_components", lambda t: real(t)._replace(vectors=-real(t).vectors)
    )
    np.testing.assert_array_equal(component(theta, 2)[1], before)


# ---------------------------------------------------------------- training


def test_snapshots_are_the_networks_that_train_makes(dtype):
    x, y = on_circle(5).astype(dtype), np.arange(5).astype(dtype)
    start = init((2, 6, 6, 1), key=KEY, dtype=dtype)
    how = {"rate": 0.3, "activation": "erf", "gain": 1.5, "beta": 0.2}
    steps = [0, 3, 3, 25]  # 25 takes more than one call
    looks = list(snapshots(start, x, y, steps=steps, **how))
    assert len(looks) == len(steps)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for network, count in zip(looks, steps, strict=True):
        expected = train(start, x, y, steps=count, **how).params
        for leaf, other in zip(jax.tree.leaves(network), jax.tree.leaves(expected), strict=True):
            assert leaf.dtype == dtype
            np.testing.assert_allclose(leaf, other, atol=tolerance)


def test_snapshots_refuse_before_the_first_step():
    with pytest.raises(ValueError, match=r"^steps needs"):
        snapshots(init((2, 3, 1), key=KEY), X, ZEROS, steps=[2, 1])


def test_progress_is_told_of_every_step():
    calls = []
    start = init((2, 3, 1), key=KEY)
    for _ in snapshots(start, X, ZEROS, steps=[0, 4, 37], progress=calls.append):
        pass
    assert sum(calls) == 37
    assert len(calls) > 3  # not all at the end


class Bar:
    """What is asked of tqdm."""

    done = 0

    def __call__(self, *, total, delay, **_):
        self.total, self.delay = total, delay
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def update(self, count):
        self.done += count


def test_a_run_shows_its_progress(monkeypatch):
    bar = Bar()
    monkeypatch.setattr(jacot_2018, "tqdm", bar)
    x, y = saddle(key=KEY, count=3)
    kernels_in_training(x[:1], x, x, y, key=KEY, draws=3, width=4, steps=[0, 5, 12])
    assert bar.total == bar.done == 36
    assert bar.closed
    assert bar.delay > 0  # nothing is shown for a run that is over at once


def test_kernels_in_training_are_empirical_kernels_of_trained_networks(dtype):
    at, x0 = on_circle(5).astype(dtype), np.array([[1.0, 0.0]], dtype)
    x, y = on_circle(3).astype(dtype) * 1.3, np.array([1.0, -1, 0.5], dtype)
    how = {"activation": "erf", "beta": 0.3}
    found = kernels_in_training(
        x0, at, x, y, key=KEY, draws=2, width=5, depth=3, steps=[0, 4], rate=0.5, **how
    )
    assert found.shape == (2, 2, 5)
    assert found.dtype == dtype

    def f(params, x):
        return apply(params, x, **how)[:, 0]

    for row, key in zip(found, jax.random.split(KEY, 2), strict=True):
        start = init((2, 5, 5, 1), key=key, dtype=dtype)
        for kernel, steps in zip(row, [0, 4], strict=True):
            net = train(start, x, y, steps=steps, rate=0.5, **how).params
            expected = empirical_ntk(f, net, jnp.asarray(x0), jnp.asarray(at))[0]
            np.testing.assert_allclose(kernel, expected, rtol=1e-4 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize(("activation", "depth"), [("relu", 1), ("erf", 2), ("relu", 4)])
def test_a_room_changes_the_program_and_not_the_kernels(activation, depth, dtype):
    x = on_circle(5).astype(dtype) * 1.3
    task = (x[:1], x, x, np.random.default_rng(RNG_SEED).normal(size=5).astype(dtype))
    how = {"key": KEY, "draws": 2, "depth": depth, "steps": [0, 7], "beta": 0.3}
    how["activation"] = activation
    # sums of 5 or of 16 terms, in another order: rounding, seven steps long
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    for width in (5, 16):
        roomy = kernels_in_training(*task, width=width, room=(16, 8), **how)
        alone = kernels_in_training(*task, width=width, **how)
        assert roomy.dtype == dtype
        np.testing.assert_allclose(roomy, alone, atol=tolerance, rtol=tolerance)


def test_a_room_serves_all_its_widths_and_points_with_one_program():
    x, y = saddle(key=KEY, count=6)
    known = set()
    for width, count in ((7, 6), (1, 6), (4, 2)):
        kernels_in_training(
            x[:1], x, x[:count], y[:count], key=KEY, draws=2, width=width, steps=[1], room=(7, 6)
        )
        known.add(_kernels_side_by_side._cache_size())
    assert len(known) == 1


def test_more_draws_begin_with_the_same_networks():
    x, y = saddle(key=KEY, count=4)
    few, many = (
        kernels_in_training(x[:1], x, x, y, key=KEY, draws=k, width=4, steps=[1]) for k in (1, 3)
    )
    np.testing.assert_array_equal(many[:1], few)


def small_task(dtype="float64"):
    """Nine points, the limit's second component on them and its eigenvalue."""
    x = np.random.default_rng(RNG_SEED).normal(size=(9, 3))
    lam, f = component(ntk(x, depth=1, beta=0.3), 2)
    return x.astype(dtype), lam, np.asarray(f, dtype)


def test_a_linear_network_follows_the_straight_line_exactly(x64):
    x, lam, f = small_task()
    found = component_in_training(
        x, f, key=KEY, draws=3, width=1, depth=1, steps=[0, 5, 40], rate=0.5, beta=0.3, size=0.7
    )
    expected = 0.7 * (1 - 0.5 * lam) ** np.array([0, 5, 40])
    np.testing.assert_allclose(found.along, np.tile(expected, (3, 1)), rtol=1e-10)
    np.testing.assert_allclose(found.across, 0, atol=1e-12)
    np.testing.assert_allclose(found.pull, lam, rtol=1e-10)
    np.testing.assert_allclose(found.cross, 0, atol=1e-12)


def test_the_speed_along_a_component_is_pull_and_cross(x64):
    x, _, f = small_task()
    x = jnp.asarray(x)
    found = component_in_training(
        x, f, key=KEY, draws=2, width=6, depth=3, steps=range(0, 3001, 1000), rate=1e-3
    )
    close = component_in_training(
        x, f, key=KEY, draws=2, width=6, depth=3, steps=range(1, 3002, 1000), rate=1e-3
    )
    speed = (close.along - found.along) / 1e-3
    assert np.abs(found.cross[:, 1:]).min() > 1e-4  # or the second term would not be seen
    np.testing.assert_allclose(speed, -found.pull * found.along - found.cross, rtol=2e-3)
    np.testing.assert_allclose(found.along[:, 0], 0.5)
    # Pythagoras: along and across are the whole of what is missing
    start = init((3, 6, 6, 1), key=jax.random.split(KEY, 2)[0])
    goal = apply(start, x)[:, 0] + 0.5 * f
    net = train(start, x, goal, steps=3000, rate=1e-3).params
    missing = np.mean((goal - apply(net, x)[:, 0]) ** 2)
    np.testing.assert_allclose(found.along[0, 3] ** 2 + found.across[0, 3] ** 2, missing, rtol=1e-9)


def test_a_component_needs_mean_square_one():
    x, _, f = small_task("float32")
    train_on = functools.partial(
        component_in_training, x, key=KEY, draws=1, width=2, depth=2, steps=[0], rate=1.0
    )
    assert train_on(f).along.shape == (1, 1)
    with pytest.raises(ValueError, match=r"^component needs mean square 1, got 4"):
        train_on(2 * f)


# ---------------------------------------------------------------- data


@pytest.mark.parametrize("name", ["circle", "ensemble", "component", "narrow"])
def test_stored_runs_are_those_the_script_would_make(name):
    stored = json.loads(str(load(f"jacot_2018_{name}")["settings"]))
    made_with = {k: v for k, v in stored.items() if k not in {"jax", "numpy", "minutes"}}
    assert made_with == runs.SETTINGS[name]


def test_the_script_runs_each_experiment_and_stores_it(monkeypatch, tmp_path):
    small = {
        "circle": {"runs": {"6": {"width": 6, "draws": 2, "key": 1}}, "steps": [0, 3]},
        "ensemble": {"width": 6, "draws": 2, "steps": 3},
        "component": {
            "widths": {"6": {"draws": 2, "rate": 10.0}},
            "digits": 20,
            "times": [0, 20],
        },
        "narrow": {"width": 6, "draws": 2, "digits": 20, "sizes": [0.5], "times": [0, 20]},
    }
    for name, changed in small.items():
        monkeypatch.setitem(runs.SETTINGS, name, runs.SETTINGS[name] | changed)
    monkeypatch.setattr(runs, "DATA", tmp_path)
    monkeypatch.setattr("sys.argv", ["jacot_2018.py"])
    assert runs.main() == 0
    shapes = {}
    for path in tmp_path.glob("*.npz"):
        with np.load(path) as file:
            shapes |= {name: file[name].shape for name in file if name != "settings"}
    assert shapes == {
        "kernels_6": (2, 2, 97),
        "outputs_1.0": (2, 97),
        "outputs_2.5": (2, 97),
        "outputs_4.7": (2, 97),
        **{
            f"{part}_{of}": (2, 2)
            for part in ("along", "across", "pull", "cross")
            for of in ("6", "0.5")
        },
    }
