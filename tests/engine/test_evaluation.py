"""Blocks, interpolation in the angle and many devices: each must give what the recursion gives.

The recursion itself is held against independent computations in test_limiting_ntk and
test_wide_networks.
"""

import contextlib
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import NAMES, points
from hypothesis import given, settings
from hypothesis import strategies as st

from ntk_lib.engine import evaluation, interpolation
from ntk_lib.engine.activations import ACTIVATIONS, as_activation, leaky_relu, monomial, quadrature
from ntk_lib.limiting_ntk import _ntk, ntk, recursive_ntk
from ntk_lib.wide_networks import _nngp, nngp

quick = settings(deadline=None, derandomize=True, max_examples=25, database=None)
LEAKY = leaky_relu(0.2, 1.0)


def named(value):
    return getattr(value, "name", str(value))


def sphere(n, d, dtype="float64", seed=0):
    """Random points with ‖x‖² = d, to rounding in ``dtype``."""
    x = points(n, d, seed=seed)
    return (x * (math.sqrt(d) / np.linalg.norm(x, axis=1, keepdims=True))).astype(dtype)


# one program for all depths
whole = jax.jit(evaluation.by_recursion, static_argnames=("recursion", "sigma"))


def recursion_of(recursion, x, y=None, *, depth, activation="relu", gain=1.0, beta=0.1):
    """The kernel in one piece and by the recursion alone."""
    x, y = jnp.asarray(x), None if y is None else jnp.asarray(y)
    sigma, numbers = as_activation(activation), {"gain": gain, "beta": beta}
    return np.asarray(whole(recursion, x, y, sigma=sigma, depth=np.int32(depth), **numbers))


@pytest.fixture
def always_by_angle(monkeypatch):
    monkeypatch.setattr(evaluation, "WORTH", 0)


@pytest.fixture
def used(monkeypatch):
    """How many terms the polynomials had, call by call; None where the recursion was used."""
    record = []
    real = evaluation._in_blocks

    def spy(left, right, setting, *rest):
        record.append(None if setting.coefficients is None else setting.coefficients.shape[1])
        return real(left, right, setting, *rest)

    monkeypatch.setattr(evaluation, "_in_blocks", spy)
    return record


# ---------------------------------------------------------------- blocks


@pytest.mark.parametrize("path", ["recursion", "angle"])
def test_blocks_put_together_are_the_whole(path, dtype, monkeypatch, used):
    monkeypatch.setattr(evaluation, "BLOCK", 14)
    monkeypatch.setattr(evaluation, "WORTH", 0 if path == "angle" else math.inf)
    x, y = sphere(20, 3, dtype), sphere(9, 3, dtype, seed=1)
    options = {"depth": 3, "gain": 1.5, "beta": 0.2}
    # the blocks of the recursion are put together by the same lines, and take long to compile
    for kernel, recursion in ((ntk, _ntk), (nngp, _nngp))[: 2 if path == "angle" else 1]:
        gram, pair = (recursion_of(recursion, x, t, **options) for t in (None, y))
        # no two entries are alike: a block in a wrong place, or left out, would show
        assert len(np.unique(np.round(pair, 6))) == pair.size
        tolerance = {"rtol": 0, "atol": 100 * np.finfo(dtype).eps * gram.max()}
        for n in (1, 20):
            found = np.asarray(kernel(x[:n], **options))
            np.testing.assert_array_equal(found, found.T)
            np.testing.assert_allclose(found, gram[:n, :n], **tolerance)
            np.testing.assert_allclose(kernel(x[:n], y, **options), pair[:n], **tolerance)
        np.testing.assert_allclose(kernel(y, x, **options), pair.T, **tolerance)
    assert all((terms is not None) == (path == "angle") for terms in used)
    assert len(used) == (10 if path == "angle" else 5)


@pytest.mark.parametrize("name", [*NAMES, LEAKY], ids=named)
def test_a_gram_of_several_blocks_is_exactly_symmetric(name):
    # at the true block size: vectorised loops and their remainders round differently
    for x in (points(257, 5, dtype="float32"), sphere(257, 5, "float32")):
        gram = np.asarray(ntk(x, depth=3, activation=name, gain=1.5))
        np.testing.assert_array_equal(gram, gram.T)
        assert np.all(np.isfinite(gram))


@pytest.mark.parametrize("n", [1, 511, 512, 513, 1024, 1025, 5000])
def test_blocks_have_one_size_and_cover_every_row(n):
    starts, size = evaluation._starts(n, 512)
    assert size <= 512
    assert sorted({row for start in starts for row in range(start, start + size)}) == list(range(n))
    assert len(starts) == -(-n // 512)


@pytest.mark.parametrize("depth", [3, 12])
def test_a_block_needs_little_memory_beside_the_result(depth):
    # 512 × 512 in float32 is 1 MiB; the recursion holds Θ, k and what one layer needs
    x = jax.ShapeDtypeStruct((4096, 16), "float32")
    vector, index = (jax.ShapeDtypeStruct((4096,), t) for t in ("float32", "int32"))
    number = jax.ShapeDtypeStruct((), "float32")
    sides = evaluation.Points(x, vector, vector, index, vector)
    whole = jax.ShapeDtypeStruct((), "int32")
    table = jax.ShapeDtypeStruct((2, 24), "float32")
    for coefficients in (None, table):
        setting = evaluation.Setting(number, number, whole, coefficients)
        lowered = evaluation._block_at.lower(
            sides, sides, (0, 0), setting,
            shape=(512, 512), recursion=_ntk, sigma=ACTIVATIONS["relu"],
        )  # fmt: skip
        assert lowered.compile().memory_analysis().temp_size_in_bytes < 8 * 2**20


def test_the_result_is_filled_in_place():
    kernel, block = jax.ShapeDtypeStruct((4096, 4096), "f4"), jax.ShapeDtypeStruct((512, 512), "f4")
    memory = evaluation._insert.lower(kernel, block, (0, 0), twice=True).compile().memory_analysis()
    assert memory.alias_size_in_bytes == 4096 * 4096 * 4
    assert memory.temp_size_in_bytes <= 2 * 512 * 512 * 4


@pytest.mark.parametrize(("n", "shown"), [(7 * 27, False), (7 * 28, True)])
def test_long_work_shows_a_progress_bar_and_short_work_none(n, shown, monkeypatch, capsys):
    monkeypatch.setattr(evaluation, "BLOCK", 14)
    ntk(points(n, 2, dtype="float32"), depth=2)  # 27·28/2 = 378 blocks, 28·29/2 = 406
    said = capsys.readouterr().err
    assert ("kernel" in said and "406/406" in said) == shown
    assert bool(said) == shown


# ---------------------------------------------------------------- the angle

DEPTHS = [2, 3, 5, 10, 20]


def angles_of(gaps, dtype="float64"):
    """(1, 0)·√2 and points at the given angles from it: ‖x‖² = d."""
    return (math.sqrt(2) * np.stack([np.cos(gaps), np.sin(gaps)], axis=1)).astype(dtype)


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ["relu", LEAKY, "erf", "sin", "cos"], ids=named)
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_the_polynomials_are_the_recursion_to_rounding(
    activation, depth, beta, x64, always_by_angle, used
):
    # deep kernels of sines of large variance fall too fast for 64 terms: gain 0.8 for them
    gain = 2.0 if activation in ("relu", LEAKY) else 0.8
    x = angles_of(np.concatenate([np.linspace(0.01, np.pi, 200), [1e-3, 1e-4]]))
    options = {"depth": depth, "activation": activation, "gain": gain, "beta": beta}
    for kernel, recursion in ((ntk, _ntk), (nngp, _nngp)):
        found = np.asarray(kernel(x[:1], x, **options))
        expected = recursion_of(recursion, x[:1], x, **options)
        # what the recursion knows itself: at the angle θ it has cos θ to ε, so θ to ε/θ, each layer
        assert np.abs(found - expected).max() < 1e-12 * depth * np.abs(expected).max()
    assert None not in used


def test_the_polynomials_are_the_closed_form_of_one_layer(x64, always_by_angle, used):
    # Θ(u) = u κ₀ + κ₁ without bias, gain 2, unit inputs times √d: no recursion on this side
    gaps = np.concatenate([np.linspace(0.0, np.pi, 301), 10.0 ** -np.arange(1, 6)])
    x = angles_of(gaps)
    kappa_0 = (np.pi - gaps) / np.pi
    kappa_1 = (np.sin(gaps) + (np.pi - gaps) * np.cos(gaps)) / np.pi
    found = np.asarray(ntk(x[:1], x, depth=2, gain=2.0, beta=0.0))[0]
    # cos θ is known to ε: within ε/θ = 1e-11 at the smallest angle, √ε where points coincide
    error = np.abs(found - (np.cos(gaps) * kappa_0 + kappa_1))
    assert error[gaps > 1e-2].max() < 1e-13
    assert error.max() < math.sqrt(8 * np.finfo(float).eps)
    assert used == [used[0]]
    assert 0 < used[0] <= 40


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("activation", ["relu", LEAKY, "erf", "sin"], ids=named)
def test_in_float32_the_angle_is_as_exact_as_the_recursion(activation, depth, always_by_angle):
    x, gain = sphere(60, 50, "float32"), 2.0 if activation in ("relu", LEAKY) else 0.8
    options = {"depth": depth, "activation": activation, "gain": gain}
    found = np.asarray(ntk(x, **options))
    with jax.enable_x64(True):
        exact = recursion_of(_ntk, x.astype(float), **options)
    assert np.max(np.abs(found - exact)) < 10 * np.finfo("float32").eps * exact.max()
    if activation == "relu":  # entry by entry too; the other kernels change their sign
        assert np.max(np.abs(found - exact) / exact) < 1e-5
    np.testing.assert_allclose(np.diag(found), np.diag(exact), rtol=8 * depth * 1.2e-7)


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_the_polynomials_have_the_terms_that_rounding_asks_for_and_at_most_three_more(depth):
    def found(dtype):
        numbers, eps = interpolation.Numbers(2.0, 0.0, depth), float(np.finfo(dtype).eps)
        return interpolation.angle_polynomials(_ntk, ACTIVATIONS["relu"], numbers, 1.0, eps)

    short, long = found("float32"), found("float64")
    size = np.abs(long).max(axis=0)
    enough = np.finfo("float32").eps / 4 * size.sum()
    assert short.shape[1] % 4 == 0
    assert size[short.shape[1] :].sum() <= enough < size[short.shape[1] - 4 :].sum()


def test_norms_are_factors_for_a_homogeneous_activation_without_bias(x64, always_by_angle, used):
    x, y = points(12, 4), points(9, 4, seed=3)
    for activation in ("relu", LEAKY):
        options = {"depth": 6, "activation": activation, "gain": 1.7, "beta": 0.0}
        expected = recursion_of(_ntk, x, y, **options)
        scale = np.outer(*(np.linalg.norm(t, axis=1) for t in (x, y)))
        error = np.abs(np.asarray(ntk(x, y, **options)) - expected) / scale
        assert error.max() < 1e-12
        gram = np.asarray(ntk(x, **options))
        np.testing.assert_allclose(
            gram, recursion_of(_ntk, x, **options), rtol=1e-11, atol=1e-12 * scale.max()
        )
    assert None not in used


CASES = {  # what the angle decides, and what it does not
    "one norm, bias": (sphere(5, 3), None, {}, True),
    "one norm, erf": (sphere(5, 3), None, {"activation": "erf"}, True),
    "one norm, tanh by quadrature": (
        sphere(5, 3), None, {"activation": quadrature(jnp.tanh)}, False,
    ),
    "norms differ, no bias": (points(5, 3), None, {"beta": 0.0}, True),
    "norms differ, bias": (points(5, 3), None, {}, False),
    "norms differ, erf, no bias": (points(5, 3), None, {"activation": "erf", "beta": 0.0}, False),
    "norms differ, z² by Isserlis, no bias": (
        points(5, 3), None, {"activation": monomial(2), "beta": 0.0}, False,
    ),
    "two sets of one norm": (sphere(5, 3), sphere(4, 3, seed=1), {}, True),
    "two sets of two norms": (sphere(5, 3), 2 * sphere(4, 3, seed=1), {}, False),
    "a second set whose norms differ": (sphere(5, 3), points(4, 3), {}, False),
    "a sine of large variance": (30 * sphere(5, 3), None, {"activation": "sin"}, False),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_angle_is_used_where_it_decides_and_nowhere_else(case, x64, always_by_angle, used):
    x, y, changed, by_angle = CASES[case]
    options = {"depth": 3} | changed
    found = np.asarray(ntk(x, y, **options))
    few = [] if case.endswith("by quadrature") else [by_angle]  # pair by pair, in no blocks
    assert [terms is not None for terms in used] == few
    expected = recursion_of(_ntk, x, y, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11 * np.abs(expected).max())


def test_norms_that_differ_by_rounding_count_as_one_and_by_more_do_not(always_by_angle, used):
    x = sphere(40, 30, "float32")
    ntk(x, depth=2)
    nudged = x.copy()
    nudged[7] *= np.float32(1 + 4e-6)
    ntk(nudged, depth=2)
    assert [terms is not None for terms in used] == [True, False]


def test_little_work_is_left_to_the_recursion(used):
    x = sphere(600, 3, "float32")
    ntk(x[:400], depth=4)  # 400² · 3 = 480 000 < 2^19
    ntk(x, depth=4)
    assert [terms is not None for terms in used] == [False, True]


def test_under_a_transformation_the_recursion_is_what_runs(x64, always_by_angle, used):
    x = jnp.asarray(sphere(4, 3))
    expected = recursion_of(_ntk, x, depth=3)
    np.testing.assert_allclose(jax.jit(lambda t: ntk(t, depth=3))(x), expected, rtol=1e-13)
    assert used == []


def test_the_reference_is_the_recursion_alone(x64, always_by_angle, used):
    x, y = sphere(5, 3), points(4, 3)
    options = {"depth": 4, "activation": LEAKY, "gain": 1.4, "beta": 0.2}
    for other in (None, y):
        expected = recursion_of(_ntk, x, other, **options)
        np.testing.assert_allclose(recursive_ntk(x, other, **options), expected, rtol=1e-14)
    assert used == []


# ---------------------------------------------------------------- properties by angle, in blocks


@contextlib.contextmanager
def by_angle_in_blocks():
    """Float64, polynomials however little the work, and 5 points in overlapping blocks of 2."""
    real = evaluation._in_blocks

    def checked(left, right, setting, *rest):
        assert setting.coefficients is not None
        return real(left, right, setting, *rest)

    with pytest.MonkeyPatch.context() as patch, jax.enable_x64(True):
        patch.setattr(evaluation, "WORTH", 0)
        patch.setattr(evaluation, "BLOCK", 4)
        patch.setattr(evaluation, "_in_blocks", checked)
        yield


def turned(x, angle):
    c, s = np.cos(angle), np.sin(angle)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return x @ about_z @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


directions = (
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), min_size=5, max_size=5)
    .map(np.array)
    .filter(lambda x: np.linalg.norm(x, axis=1).min() > 0.01)
    .map(lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))
)
kernels = st.sampled_from([ntk, nngp])
# the angle of nearly parallel points is known to √ε, about 1.5e-8, in each of two layers
ROOT = 1e-7


@quick
@given(
    x=directions, exponents=st.lists(st.floats(-6, 6), min_size=5, max_size=5), kernel=kernels,
    name=st.sampled_from(["relu", "leaky_relu"]), angle=st.floats(0, 6.3),
)  # fmt: skip
def test_by_angle_sizes_are_factors_and_rotations_change_nothing(x, exponents, kernel, name, angle):
    options = {"depth": 3, "activation": name, "gain": 2.0, "beta": 0.0}
    scale = 10.0 ** np.array(exponents)[:, None]
    with by_angle_in_blocks():
        unit, gram = (np.asarray(kernel(t, **options)) for t in (x, scale * x))
        other = turned(scale * x, angle)
        pair = np.asarray(kernel(other, -7 * other[:3], **options))
        opposite = np.asarray(kernel(x, -x[:3], **options))
    np.testing.assert_array_equal(gram, gram.T)
    np.testing.assert_allclose(gram / scale / scale.T, unit, rtol=0, atol=ROOT)
    np.testing.assert_allclose(pair / scale / scale[:3].T / 7, opposite, rtol=0, atol=ROOT)
    assert np.linalg.eigvalsh(unit).min() > -ROOT


@quick
@given(x=directions, kernel=kernels, name=st.sampled_from(NAMES), angle=st.floats(0, 6.3))
def test_by_angle_a_gram_of_one_norm_is_positive_semidefinite_and_turns_with_its_points(
    x, kernel, name, angle
):
    options = {"depth": 3, "activation": name, "gain": 0.8, "beta": 0.3}
    with by_angle_in_blocks():
        gram, other = (np.asarray(kernel(t, **options)) for t in (x, turned(x, angle)))
        pair, swapped = (
            np.asarray(kernel(*t, **options)) for t in ((x, x[::-1][:3]), (x[::-1][:3], x))
        )
    np.testing.assert_array_equal(gram, gram.T)
    assert np.linalg.eigvalsh(gram).min() > -ROOT
    np.testing.assert_allclose(other, gram, rtol=0, atol=ROOT)
    np.testing.assert_allclose(pair, gram[:, ::-1][:, :3], rtol=0, atol=ROOT)
    # the same angles, whose cosines are rounded alike
    np.testing.assert_allclose(swapped, pair.T, rtol=0, atol=1e-13)


# ---------------------------------------------------------------- extreme inputs


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6, 1e12])
def test_inputs_from_1e_minus_12_to_1e12(name, beta, scale, dtype):
    # one point of another size among them: neither √(ab) nor a² may leave the range of float32
    x = (scale * points(9, 4)).astype(dtype)
    x[4] = points(1, 4)[0]
    options = {"depth": 3, "activation": name, "gain": 1.5, "beta": beta}
    with jax.enable_x64(True):
        exact = recursion_of(_ntk, x.astype(float), **options)
    gram, pair = np.asarray(ntk(x, **options)), np.asarray(ntk(x, x[:3], **options))
    np.testing.assert_array_equal(gram, gram.T)
    size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.all(np.isfinite(gram))
    assert np.all(np.isfinite(pair))
    eps = np.finfo(dtype).eps
    kind = ACTIVATIONS[name]
    if name in ("sin", "cos") and scale > 1:
        return  # k enters an exponent: no digit of an off-diagonal entry survives its rounding
    apart = ~np.eye(9, dtype=bool)
    tolerance = 3 * math.sqrt(8 * eps) if kind.slopes else 1000 * eps
    assert np.max(np.abs(gram - exact)[apart] / size[apart]) < tolerance
    np.testing.assert_allclose(np.diag(gram), np.diag(exact), rtol=100 * eps)


@quick
@given(
    exponents=st.lists(st.floats(-12, 12), min_size=4, max_size=4),
    name=st.sampled_from(["relu", "leaky_relu", "erf"]),
    beta=st.sampled_from([0.0, 0.1]),
)
def test_points_of_any_size_give_a_positive_semidefinite_gram(exponents, name, beta):
    x = points(4, 3) * 10.0 ** np.array(exponents)[:, None]
    with jax.enable_x64(True):
        gram = np.asarray(ntk(x, depth=3, activation=name, gain=1.5, beta=beta))
    # scaled to a unit diagonal, or the largest point would hide the others
    root = np.sqrt(np.diag(gram))
    assert np.linalg.eigvalsh(gram / root / root[:, None]).min() > -1e-7


# ---------------------------------------------------------------- right or refused


@pytest.mark.parametrize("d", [3, 40])  # differences at every pair, and at the near ones
@pytest.mark.parametrize("angle", [1e-4, 1e-8, 1e-10])
def test_angles_near_zero_and_pi_keep_their_digits(angle, d, x64):
    rng = np.random.default_rng(0)
    u, w = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    x, y = u[None], np.stack([np.cos(angle) * u + np.sin(angle) * w] * 2) * [[3.0], [-1.0]]
    found = np.asarray(ntk(x, y, depth=2, gain=2.0, beta=0.0))[0] * d / [3.0, 1.0]
    theta = np.array([angle, np.pi - angle])
    away = np.array([np.pi - angle, angle])  # π - θ with its digits
    expected = (np.sin(angle) + 2 * away * np.cos(theta)) / np.pi
    np.testing.assert_allclose(found, expected, rtol=0, atol=4e-15)


def test_64_points_on_the_circle_have_rank_34_under_relu_without_bias(dtype):
    # modes 0, ±1 and the even ones up to 32
    angles = 2 * np.pi * np.arange(64) / 64
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(dtype)
    values = np.linalg.eigvalsh(np.asarray(ntk(x, depth=2, beta=0.0)))
    assert np.sum(values > 64 * np.finfo(dtype).eps * values[-1]) == 34


@pytest.mark.parametrize("d", [10, 784])
def test_equal_points_are_equal_in_the_kernel(d, dtype):
    x = np.random.default_rng(0).normal(size=(300, d)).astype(dtype)
    x[19], x[299] = x[0], x[0]
    for activation in ("relu", "tanh") if d == 10 else ("relu",):
        options = {"depth": 3, "activation": activation}
        gram = np.asarray(ntk(x, **options))
        for i in (19, 299):
            np.testing.assert_array_equal(gram[i], gram[0])
            np.testing.assert_array_equal(gram[:, i], gram[:, 0])
        assert gram[0, 19] == gram[0, 0]
        across = np.asarray(ntk(x[:20], x[5:20], **options))
        np.testing.assert_array_equal(across[0], across[19])
        rounding = 8 * np.finfo(dtype).eps
        np.testing.assert_allclose(np.diag(across[5:]), np.diag(gram)[5:20], rtol=rounding)


def test_a_kernel_within_the_range_of_its_dtype_is_right_and_one_beyond_is_refused():
    x = points(4, 3, dtype="float32")
    with jax.enable_x64(True):
        exact = np.asarray(ntk(x.astype(float), depth=120, beta=0.0))
    # the NNGP kernel underflows on the way, the squares of tiny points too
    np.testing.assert_allclose(ntk(x, depth=120, beta=0.0), exact, rtol=2e-6, atol=1e-38)
    small = np.asarray(ntk(np.float32(1e-17) * x, depth=3, beta=0.0))
    np.testing.assert_allclose(small * 1e34, ntk(x, depth=3, beta=0.0), rtol=2e-6)
    assert np.all(np.asarray(ntk(x, depth=16, gain=1e-6, beta=0.0)) == 0)
    for gain in (1e4, 1e5, 1e30):
        with pytest.raises(ValueError, match=r"^gain needs a value .* fits into float32, got"):
            ntk(x, depth=16, gain=gain, beta=0.0)


def test_a_point_of_norm_zero_has_a_kernel_of_zero_inside_jit_too(dtype):
    x = points(4, 3, dtype=dtype)
    x[1] = 0
    for kernel in (ntk, nngp):
        found = np.asarray(kernel(x, depth=3, beta=0.0))
        assert np.all(found[1] == 0)
        assert np.all(np.diag(found)[[0, 2, 3]] > 0)
        inside = jax.jit(lambda t, kernel=kernel: kernel(t, depth=3, beta=0.0))(x)
        np.testing.assert_allclose(inside, found, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh"])
def test_gain_and_beta_have_gradients(activation, x64):
    x, step = points(3, 2), 1e-5

    def total(gain, beta):
        return ntk(x, depth=3, activation=activation, gain=gain, beta=beta).sum()

    slopes = jax.grad(total, argnums=(0, 1))(1.5, 0.3)
    by_gain = (total(1.5 + step, 0.3) - total(1.5 - step, 0.3)) / (2 * step)
    by_beta = (total(1.5, 0.3 + step) - total(1.5, 0.3 - step)) / (2 * step)
    np.testing.assert_allclose(slopes, [by_gain, by_beta], rtol=2e-6)
    many = jax.vmap(lambda beta: ntk(x, depth=2, beta=beta))(jnp.array([0.1, 0.5]))
    np.testing.assert_allclose(many[1], ntk(x, depth=2, beta=0.5), rtol=1e-13)


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_the_diagonal_alone_is_that_of_the_matrix(activation, dtype):
    x = points(7, 3, dtype=dtype)
    for kernel in (ntk, nngp):
        found = kernel(x, depth=3, activation=activation, diagonal=True)
        matrix = kernel(x, depth=3, activation=activation)
        np.testing.assert_array_equal(found, np.diag(matrix))


def test_a_function_that_quadrature_does_not_resolve_is_refused(x64):
    x = np.random.default_rng(0).normal(size=(4, 3))
    for function in (lambda z: jnp.where(z > 0.3, z, 0.0), jnp.abs):
        with pytest.raises(ValueError, match=r"^activation needs a function that the quadra.*got"):
            ntk(x, depth=3, activation=quadrature(function))
    with pytest.raises(ValueError, match=r"^activation needs .*\(2\) The variance is too large"):
        ntk(100 * x, depth=2, activation=quadrature(jnp.tanh))


def test_the_kernel_of_tanh_at_a_variance_of_nine_is_that_of_240_nodes(x64):
    for activation in ("tanh", quadrature(jnp.tanh)):
        value = float(ntk(np.array([[3.0]]), depth=2, activation=activation, beta=0.0)[0, 0])
        assert value == pytest.approx(2.3132306, abs=1e-6)


# ---------------------------------------------------------------- many devices


TESTS = Path(__file__).parents[1]


def start(script, *arguments, **environment):
    """A process of its own: JAX fixes the number of devices when it starts."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", Path(__file__).parent / script, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(TESTS)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_well(process, says):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert out.splitlines()[-1] == says


def test_the_gram_on_eight_devices_is_that_on_one():
    flags = "--xla_force_host_platform_device_count=8"
    ends_well(start("eight_devices.py", XLA_FLAGS=flags), "all as on one device")


def test_the_gram_on_two_hosts_is_that_on_one():
    with socket.socket() as meeting:
        meeting.bind(("localhost", 0))
        port = str(meeting.getsockname()[1])
    hosts = [start("two_hosts.py", str(number), port) for number in range(2)]
    for host in hosts:
        ends_well(host, "all as on one host")
